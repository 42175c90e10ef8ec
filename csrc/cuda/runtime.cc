#include "cuda/runtime.h"

#include <algorithm>

#include "core/check.h"

namespace nsrt::cuda {
namespace {

constexpr int kOldestMajor = 8;  // Ampere: bf16 tensor cores, asynchronous copies, cache policies

std::string mib(std::uint64_t bytes) { return str((bytes + (1 << 20) - 1) >> 20, " MiB"); }

// Why there is no device, `code` being what counting them said. Without any driver, too, CUDA calls it insufficient.
std::string no_device(cudaError_t code) {
  int version = 0;
  if (code != cudaErrorInsufficientDriver || cudaDriverGetVersion(&version) != cudaSuccess)
    return cudaGetErrorString(code);
  const auto text = [](int v) { return str(v / 1000, ".", v % 1000 / 10); };
  if (version == 0) return "no NVIDIA driver is installed";
  return str("the NVIDIA driver is for CUDA ", text(version), ", this build needs ", text(CUDART_VERSION));
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, which, device), "asking for the GPU's traits");
  return value;
}

}  // namespace

DeviceScope::DeviceScope(int device) {
  check_cuda(cudaGetDevice(&before_), "asking for the current GPU");
  check_cuda(cudaSetDevice(device), "choosing the GPU");
}

DeviceScope::~DeviceScope() { cudaSetDevice(before_); }

DeviceTraits device_traits(int device) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  const bool none = code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver;
  check(!none && (code != cudaSuccess || count > 0), "no CUDA device (", no_device(code), "); use device 'cpu'");
  check_cuda(code, "looking for GPUs");
  check(device < count, "there is no device cuda:", device, ": this machine has ", count,
        " (cuda:0 to cuda:", count - 1, ")");
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, device), "asking for the GPU's traits");
  DeviceTraits traits{.name = properties.name,
                      .sm_count = attribute(cudaDevAttrMultiProcessorCount, device),
                      .shared_limit = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                      .major = attribute(cudaDevAttrComputeCapabilityMajor, device),
                      .minor = attribute(cudaDevAttrComputeCapabilityMinor, device),
                      .l2_bytes = attribute(cudaDevAttrL2CacheSize, device)};
  check(traits.major >= kOldestMajor, "cuda:", device, " (", traits.name, ") has compute capability ", traits.major,
        ".", traits.minor, "; ", kOldestMajor, ".0 or later is needed; use device 'cpu'");
  return traits;
}

std::uint64_t free_device_memory() {
  std::size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "asking for the GPU's memory");
  return free;
}

DeviceMemory::DeviceMemory(std::size_t bytes, const char* purpose) : bytes_(bytes) {
  if (bytes == 0) return;
  const cudaError_t code = cudaMalloc(&data_, bytes);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it does not stick
    throw Error(str("the GPU has no room for ", mib(bytes), " of ", purpose, ": ", mib(free_device_memory()),
                    " are free; ask for fewer or smaller images, or a smaller model"));
  }
  check_cuda(code, purpose);
}

DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) cudaFree(data_);
}

PinnedMemory::PinnedMemory(std::size_t bytes) : bytes_(bytes) {
  if (bytes > 0) check_cuda(cudaMallocHost(&data_, bytes), "allocating page-locked memory");
}

PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

Stream::Stream() { check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"); }
Stream::~Stream() { cudaStreamDestroy(stream_); }

void Stream::synchronize() const { check_cuda(cudaStreamSynchronize(stream_), "the work on the GPU"); }

void Stream::copy(void* to, const void* from, std::size_t bytes) const {
  if (bytes > 0) check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "a copy");
}

void Stream::zero(void* to, std::size_t bytes) const {
  if (bytes > 0) check_cuda(cudaMemsetAsync(to, 0, bytes, stream_), "clearing memory");
}

Event::Event() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event"); }
Event::~Event() { cudaEventDestroy(event_); }
void Event::record(const Stream& stream) const {
  check_cuda(cudaEventRecord(event_, stream.get()), "recording an event");
}
void Event::wait() const { check_cuda(cudaEventSynchronize(event_), "the work on the GPU"); }

Graph::~Graph() {
  if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
}

void Graph::begin(const Stream& stream) {
  // Other threads' calls do not end up in it, nor are they refused.
  check_cuda(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "recording a graph");
}

void Graph::drop(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream.get(), &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
}

Graph Graph::end(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamEndCapture(stream.get(), &graph), "recording a graph");
  Graph made;
  const cudaError_t code = cudaGraphInstantiate(&made.executable_, graph, 0);
  cudaGraphDestroy(graph);
  check_cuda(code, "making a graph ready");
  return made;
}

void Graph::launch(const Stream& stream) const { check_cuda(cudaGraphLaunch(executable_, stream.get()), "a graph"); }

}  // namespace nsrt::cuda
