// The device that the runtime reports: a small one of compute capability 9.0.
#include <algorithm>
#include <cstdio>

#include "api.h"
#include "occupancy.h"

namespace {

constexpr int kMajor = 9, kMinor = 0;
constexpr int kSharedBytesBefore90 = 48 * 1024;
constexpr int kL2Bytes = 50 << 20;

// -1: not known.
int attribute_of(const emu::Machine& device, cudaDeviceAttr attribute) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      return device.settings.sm_count;
    case cudaDevAttrComputeCapabilityMajor:
      return kMajor;
    case cudaDevAttrComputeCapabilityMinor:
      return kMinor;
    case cudaDevAttrWarpSize:
      return static_cast<int>(emu::kWarpLanes);
    case cudaDevAttrMaxThreadsPerBlock:
      return emu::kMostBlockThreads;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return emu::kSmThreads;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return kSharedBytesBefore90;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return static_cast<int>(device.settings.shared_limit);
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return static_cast<int>(emu::sm_shared_bytes(device.settings.shared_limit));
    case cudaDevAttrL2CacheSize:
      return kL2Bytes;
    case cudaDevAttrCooperativeLaunch:
      return 1;
    default:
      return -1;
  }
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  return emu::api("cudaGetDeviceCount", [&](emu::Machine&) {
    *count = 1;
    return cudaSuccess;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  return emu::api("cudaDriverGetVersion", [&](emu::Machine&) {
    *version = CUDART_VERSION;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return emu::api("cudaSetDevice", [&](emu::Machine&) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t cudaGetDevice(int* device) {
  return emu::api("cudaGetDevice", [&](emu::Machine&) {
    *device = 0;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return emu::api("cudaDeviceGetAttribute", [&](emu::Machine& machine) {
    if (device != 0) return cudaErrorInvalidDevice;
    const int found = attribute_of(machine, attribute);
    if (found < 0) return emu::refuse(cudaErrorInvalidValue, "the emulator does not know this device attribute");
    *value = found;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return emu::api("cudaGetDeviceProperties", [&](emu::Machine& machine) {
    if (device != 0) return cudaErrorInvalidDevice;
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name, "CPU emulation of a CUDA device");
    properties->major = kMajor;
    properties->minor = kMinor;
    properties->totalGlobalMem = machine.settings.memory_limit;
    properties->multiProcessorCount = machine.settings.sm_count;
    properties->warpSize = static_cast<int>(emu::kWarpLanes);
    properties->maxThreadsPerBlock = emu::kMostBlockThreads;
    properties->maxThreadsPerMultiProcessor = emu::kSmThreads;
    properties->sharedMemPerBlock = kSharedBytesBefore90;
    properties->sharedMemPerBlockOptin = machine.settings.shared_limit;
    properties->sharedMemPerMultiprocessor = emu::sm_shared_bytes(machine.settings.shared_limit);
    properties->l2CacheSize = kL2Bytes;
    return cudaSuccess;
  });
}
