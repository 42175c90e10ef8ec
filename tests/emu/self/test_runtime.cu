// The runtime's calls, and the controls of the tests.
#include "cuda/device/ptx.cuh"
#include "kit.h"

namespace control = emu::control;

__global__ void add(int* x, int amount) { x[threadIdx.x] += amount; }

template <class T>
__global__ void named(T*) {}

__global__ void trapped() { __trap(); }

void memory() {
  control::set_memory_limit(1000);
  void *a = nullptr, *b = nullptr;
  kit::expect_ok(cudaMalloc(&a, 600), "600 of 1000 bytes");
  kit::expect(cudaMalloc(&b, 600) == cudaErrorMemoryAllocation && b == nullptr, "1200 of 1000 bytes");
  std::size_t free = 0, total = 0;
  kit::expect_ok(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  kit::expect(free == 400 && total == 1000, "free memory");
  char byte = 7;
  kit::expect(cudaMemcpy(a, &byte, 601, cudaMemcpyHostToDevice) == cudaErrorInvalidValue, "a copy past the end");
  kit::expect(cudaMemcpy(&byte, &byte, 1, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue, "host to host");
  kit::expect_ok(cudaFree(a), "cudaFree");
  kit::expect(cudaFree(a) == cudaErrorInvalidValue, "cudaFree once more");
  kit::expect(cudaGetLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaSuccess, "the last error");
  control::set_memory_limit(std::size_t{1} << 28);
}

void device() {
  control::set_sm_count(6);
  int value = 0;
  kit::expect_ok(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0), "attribute");
  cudaDeviceProp properties;
  kit::expect_ok(cudaGetDeviceProperties(&properties, 0), "properties");
  kit::expect(value == 6 && properties.multiProcessorCount == 6 && properties.major == 9, "the device");
  kit::expect(cudaSetDevice(1) == cudaErrorInvalidDevice, "no second device");
  kit::expect_ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, add, 256, 100 * 1024), "occupancy");
  kit::expect(value == 2, "blocks by shared memory");
  control::set_sm_count(4);
  cudaGetLastError();
}

void launches() {
  const kit::Array<int> x(32, 1);
  kit::expect(kit::launch({.block = 1025}, add, x.get(), 1) == cudaErrorInvalidConfiguration, "too many threads");
  kit::expect(kit::launch({.shared_bytes = 49 * 1024}, add, x.get(), 1) == cudaErrorInvalidValue, "too many bytes");
  kit::expect_ok(cudaFuncSetAttribute(add, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024), "asking for more");
  kit::expect_ok(kit::launch({.shared_bytes = 49 * 1024}, add, x.get(), 1), "more shared memory");
  control::reset_launches();
  kit::expect_ok(kit::launch({}, named<float>, static_cast<float*>(nullptr)), "named");
  kit::expect_ok(kit::launch({}, add, x.get(), 1), "add");
  kit::expect_ok(kit::launch({}, add, x.get(), 1), "add");
  const auto counted = control::launches();
  kit::expect(counted == std::map<std::string, int>{{"add", 2}, {"named<float>", 1}},
              std::string("launches by name: ") + nsrt_emu_launches());
  cudaGetLastError();
}

void limits() {
  control::set_shared_limit(99 * 1024);
  int value = 0;
  kit::expect_ok(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), "attribute");
  kit::expect(value == 99 * 1024, "the limit of a smaller device");
  kit::expect(
      cudaFuncSetAttribute(add, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024) == cudaErrorInvalidValue,
      "more than it has");
  control::set_shared_limit(227 * 1024);
  cudaFuncAttributes attributes;
  kit::expect_ok(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(add)), "a kernel's attributes");
  kit::expect(attributes.maxDynamicSharedSizeBytes == 64 * 1024 && attributes.ptxVersion == 90, "what they are");
  cudaGetLastError();
}

// A recording does not survive what could wait for others, unless its thread says that it may.
void spoiled_recordings() {
  for (const bool relaxed : {false, true}) {
    cudaStream_t stream;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    kit::expect_ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin");
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    if (relaxed) cudaThreadExchangeStreamCaptureMode(&mode);
    const cudaError_t error = cudaFree(nullptr);
    if (relaxed) cudaThreadExchangeStreamCaptureMode(&mode);
    kit::expect(error == (relaxed ? cudaSuccess : cudaErrorStreamCaptureUnsupported), "cudaFree while recording");
    cudaGraph_t graph = nullptr;
    kit::expect(cudaStreamEndCapture(stream, &graph) == (relaxed ? cudaSuccess : cudaErrorStreamCaptureInvalidated),
                "the recording after it");
    kit::expect((graph != nullptr) == relaxed, "its graph");
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }
  kit::expect_ok(cudaFree(nullptr), "cudaFree after recordings");
  cudaGetLastError();
}

void graphs() {
  const kit::Array<int> x(32, 1);
  cudaStream_t stream, other;
  cudaEvent_t event, joined;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  cudaEventCreateWithFlags(&joined, cudaEventDisableTiming);
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  kit::expect_ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin");
  int amount = 2;
  kit::expect_ok(kit::launch({.stream = stream}, add, x.get(), amount), "a captured launch");
  amount = 100;
  kit::expect_ok(cudaEventRecord(event, stream), "record");
  kit::expect_ok(cudaStreamWaitEvent(other, event, 0), "fork");
  kit::expect_ok(kit::launch({.stream = other}, add, x.get(), 3), "a captured launch beside");
  kit::expect_ok(cudaEventRecord(joined, other), "record");
  kit::expect_ok(cudaStreamWaitEvent(stream, joined, 0), "join");
  kit::expect(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported, "no waiting while capturing");
  kit::expect_ok(cudaStreamEndCapture(stream, &graph), "end");
  kit::expect(x.values()[31] == 1, "nothing has run");
  kit::expect_ok(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  kit::expect_ok(cudaGraphDestroy(graph), "destroy");
  for (int i = 0; i < 2; ++i) kit::expect_ok(cudaGraphLaunch(executable, stream), "replay");
  kit::expect_ok(kit::launch({.stream = other}, add, x.get(), 5), "a launch that is not captured");
  kit::expect_ok(cudaStreamSynchronize(stream), "synchronize");
  kit::expect(x.values()[31] == 16, "what the graph computed");
  kit::expect_ok(cudaGraphExecDestroy(executable), "destroy");
  cudaEventDestroy(event);
  cudaEventDestroy(joined);
  cudaStreamDestroy(other);
  kit::expect_ok(cudaStreamDestroy(stream), "destroy");
  kit::expect(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle, "a stream that is gone");
  cudaGetLastError();
}

void failures() {
  const kit::Array<int> x(32, 1);
  control::fail_next("cudaLaunchKernelEx", cudaErrorLaunchOutOfResources, 1);
  kit::expect_ok(kit::launch({}, add, x.get(), 1), "the launch before");
  kit::expect(kit::launch({}, add, x.get(), 1) == cudaErrorLaunchOutOfResources, "the launch that was to fail");
  kit::expect(cudaPeekAtLastError() == cudaErrorLaunchOutOfResources, "its error");
  kit::expect_ok(kit::launch({}, add, x.get(), 1), "the launch after");
  kit::expect(x.values()[0] == 3, "what ran");
  nsrt_emu_fail_next("cudaMalloc", cudaErrorMemoryAllocation, 0);
  void* p = nullptr;
  kit::expect(cudaMalloc(&p, 4) == cudaErrorMemoryAllocation, "no memory");
  control::reset();

  kit::expect(kit::launch({}, trapped) == cudaErrorLaunchFailure, "a trap");
  kit::expect(control::last_failure().find("in trapped, block (0,0,0)") != std::string::npos &&
                  control::last_failure().find("test_runtime.cu:") != std::string::npos,
              control::last_failure());
  kit::expect(kit::launch({}, add, x.get(), 1) == cudaErrorLaunchFailure, "it sticks");
  kit::expect(cudaGetLastError() == cudaErrorLaunchFailure && cudaPeekAtLastError() == cudaErrorLaunchFailure,
              "and so does the last error");
  control::reset();
  kit::expect(cudaPeekAtLastError() == cudaSuccess, "until it is forgotten");
  if (!control::race_mode()) return;
  volatile int read = x.get()[3];
  static_cast<void>(read);
  kit::expect(kit::launch({}, add, x.get(), 1) == cudaErrorIllegalAddress, "a pointer to the device on the host");
  kit::expect(control::last_failure().find("test_runtime.cu:") != std::string::npos, control::last_failure());
  control::reset();
}

int main() {
  memory();
  device();
  launches();
  limits();
  graphs();
  spoiled_recordings();
  failures();
  return kit::result();
}
