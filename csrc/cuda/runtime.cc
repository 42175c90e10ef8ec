#include "cuda/runtime.h"

#include <algorithm>

#include "core/check.h"
#include "cuda/ops/place/place.h"

namespace nsrt::cuda {
namespace {

constexpr int kOldestMajor = 8;    // Ampere: bf16 tensor cores, asynchronous copies, cache policies
constexpr int kSpecificMajor = 9;  // from here on, each has instructions of its own

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

// Throws Error where this build has neither machine code nor PTX that the device takes.
void check_code(const DeviceTraits& traits, int device) {
  const DeviceScope scope(device);
  cudaFuncAttributes attributes;
  const cudaError_t code = cudaFuncGetAttributes(&attributes, place_words_code());
  const bool absent = code == cudaErrorNoKernelImageForDevice || code == cudaErrorInvalidDeviceFunction;
  const bool unread = code == cudaErrorUnsupportedPtxVersion || code == cudaErrorJitCompilerNotFound ||
                      code == cudaErrorJitCompilationDisabled || code == cudaErrorInvalidPtx;
  if (absent || unread) cudaGetLastError();  // it does not stick
  check(!absent && !unread, "no code for sm_", traits.major, traits.minor,
        " in this build, which is what cuda:", device, " (", traits.name, ") runs",
        unread ? str(", and the driver does not translate its PTX (", cudaGetErrorName(code), "): install a newer one")
               : std::string(),
        "; rebuild with -DNSRT_CUDA_ARCHITECTURES=", traits.major, traits.minor,
        traits.major >= kSpecificMajor ? "a-real" : "-real", " and a toolkit that knows it, or use device 'cpu'");
  check_cuda(code, "asking for the GPU's code");
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
  check_code(traits, device);
  return traits;
}

std::uint64_t free_device_memory() {
  std::size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "asking for the GPU's memory");
  return free;
}

void check_room(cudaError_t code, const char* purpose, std::uint64_t bytes) {
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it does not stick
    throw Error(str("the GPU has no room for ", bytes > 0 ? mib(bytes) + " of " : std::string(), purpose, ": ",
                    mib(free_device_memory()), " are free; ask for fewer or smaller images, or a smaller model"));
  }
  check_cuda(code, purpose);
}

DeviceMemory::DeviceMemory(std::size_t bytes, const char* purpose) : bytes_(bytes) {
  if (bytes > 0) check_room(cudaMalloc(&data_, bytes), purpose, bytes);
}

DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) cudaFree(data_);
}

PinnedMemory::PinnedMemory(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  const cudaError_t code = cudaMallocHost(&data_, bytes);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it does not stick
    throw Error(str("this machine has no room for ", mib(bytes),
                    " of page-locked memory; end other programs, or raise what limits this "
                    "one's (its container's memory, `ulimit -l`)"));
  }
  check_cuda(code, "allocating page-locked memory");
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
  check_room(code, "a recorded token");
  return made;
}

void Graph::launch(const Stream& stream) const { check_cuda(cudaGraphLaunch(executable_, stream.get()), "a graph"); }

}  // namespace nsrt::cuda
