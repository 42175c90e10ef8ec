// Allocations, copies and fills. All happen at once; what a capture records happens at every launch of the graph.
#include <algorithm>
#include <cstring>
#include <sstream>
#include <string>

#include "api.h"
#include "streams.h"

namespace {

using emu::api;
using emu::api_release;
using emu::Machine;

std::string range(const void* p, std::size_t bytes) {
  std::ostringstream text;
  text << bytes << " bytes at " << p;
  return text.str();
}

// Ranges that reach out of an array of the device, or host memory where the device's should be.
cudaError_t check_range(const Machine& device, const void* p, std::size_t bytes, bool must_be_device,
                        bool must_be_host) {
  const bool on_device = device.memory.contains(p);
  if ((must_be_device && !on_device) || (must_be_host && on_device))
    return emu::refuse(cudaErrorInvalidValue, range(p, bytes) + " are not where the kind of copy says");
  if (on_device && !device.memory.holds(p, bytes))
    return emu::refuse(cudaErrorInvalidValue, range(p, bytes) + " are not within one array of the device");
  return cudaSuccess;
}

cudaError_t check_copy(const Machine& device, const void* to, const void* from, std::size_t bytes,
                       cudaMemcpyKind kind) {
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool any = kind == cudaMemcpyDefault;
  const cudaError_t error = check_range(device, from, bytes, from_device, !any && !from_device);
  return error != cudaSuccess ? error : check_range(device, to, bytes, to_device, !any && !to_device);
}

void copy(Machine& device, void* to, const void* from, std::size_t bytes, std::uint32_t time) {
  std::memmove(to, from, bytes);
  if (device.memory.contains(to)) device.memory.written(to, bytes, time);
}

cudaError_t allocate(Machine& device, void** pointer, std::size_t bytes) {
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  *pointer = device.memory.allocate(bytes, device.settings.memory_limit);
  return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t release(Machine& device, void* pointer) {
  if (pointer == nullptr || device.memory.release(pointer)) return cudaSuccess;
  return emu::refuse(cudaErrorInvalidValue, "cudaFree of what cudaMalloc has not returned");
}

}  // namespace

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  return api("cudaMalloc", [&](Machine& device) {
    const cudaError_t refused = emu::not_while_recording("cudaMalloc");
    return refused != cudaSuccess ? refused : allocate(device, pointer, bytes);
  });
}

cudaError_t cudaFree(void* pointer) {
  return api_release("cudaFree", [&](Machine& device) {
    const cudaError_t refused = emu::not_while_recording("cudaFree");
    return refused != cudaSuccess ? refused : release(device, pointer);
  });
}

// In stream order, which is the order of the calls here. A recording would need memory of its own: not emulated.
cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream) {
  return api("cudaMallocAsync", [&](Machine& device) {
    const emu::Stream* of = emu::stream_of(stream);
    if (of == nullptr || of->recording) return emu::refuse(cudaErrorInvalidValue, "cudaMallocAsync on this stream");
    return allocate(device, pointer, bytes);
  });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return api_release("cudaFreeAsync", [&](Machine& device) {
    if (emu::stream_of(stream) == nullptr) return emu::refuse(cudaErrorInvalidValue, "cudaFreeAsync on this stream");
    return release(device, pointer);
  });
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  return api("cudaMallocHost", [&](Machine& device) {
    *pointer = device.host.allocate_pinned(bytes);
    return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
  });
}

cudaError_t cudaFreeHost(void* pointer) {
  return api_release("cudaFreeHost", [&](Machine& device) {
    if (pointer == nullptr || device.host.release_pinned(pointer)) return cudaSuccess;
    return emu::refuse(cudaErrorInvalidValue, "cudaFreeHost of what cudaMallocHost has not returned");
  });
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return api("cudaMemGetInfo", [&](Machine& device) {
    *total = device.settings.memory_limit;
    *free = *total - std::min(*total, device.memory.used());
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return api("cudaMemcpyAsync", [&](Machine& device) {
    const cudaError_t error = check_copy(device, to, from, bytes, kind);
    if (error != cudaSuccess) return error;
    return emu::enqueue(stream, [=](Machine& now, emu::Stream&) {
      copy(now, to, from, bytes, ++now.time);
      return cudaSuccess;
    });
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return api("cudaMemcpy", [&](Machine& device) {
    const cudaError_t error = check_copy(device, to, from, bytes, kind);
    if (error != cudaSuccess) return error;
    // Older than all work of any stream: the host has waited for it.
    copy(device, to, from, bytes, 0);
    emu::synchronize(emu::default_stream(), device.time + 1);
    return cudaSuccess;
  });
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return api("cudaMemsetAsync", [&](Machine& device) {
    const cudaError_t error = check_range(device, to, bytes, true, false);
    if (error != cudaSuccess) return error;
    return emu::enqueue(stream, [=](Machine& now, emu::Stream&) {
      std::memset(to, value, bytes);
      now.memory.written(to, bytes, ++now.time);
      return cudaSuccess;
    });
  });
}
