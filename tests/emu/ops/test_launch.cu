// launch(): overlap only where the code has the wait, shared memory that no launch takes from another, and errors that
// say whether anything works any more.
#include <thread>

#include "core/check.h"
#include "cuda/device/ptx.cuh"
#include "cuda/launch.h"
#include "self/kit.h"

using namespace nsrt;
using namespace nsrt::cuda;

namespace {

constexpr std::size_t kKb = 1024;

// As a predecessor and its dependent; kTag makes kernels of their own, which are prepared by themselves.
template <int kTag>
__global__ void produce(std::uint32_t* x) {
  ptx::pdl_wait();
  x[threadIdx.x] = threadIdx.x;
}

template <int kTag, bool kWaits>
__global__ void consume(const std::uint32_t* x, std::uint32_t* y) {
  if (kWaits) ptx::pdl_wait();
  y[threadIdx.x] = x[31 - threadIdx.x];
}

template <int kTag>
__global__ void take_shared(std::uint32_t* y) {
  NSRT_DYNAMIC_SHARED(memory);
  SharedCarver carver(memory);
  auto* numbers = carver.take<std::uint32_t>(32);
  numbers[threadIdx.x] = threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = numbers[31 - threadIdx.x];
}

// What f throws, or nothing.
template <class F>
std::string said(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

LaunchShape shape(std::size_t shared_bytes = 0, bool overlaps = false, cudaStream_t stream = nullptr) {
  return {.grid = dim3(1), .block = dim3(32), .shared_bytes = shared_bytes, .stream = stream, .overlaps = overlaps};
}

template <int kTag, bool kWaits>
cudaError_t run_dependent(const kit::Array<std::uint32_t>& x, const kit::Array<std::uint32_t>& y) {
  const std::string error = said([&] {
    launch("produce", produce<kTag>, shape(0, true), x.get());
    launch("consume", consume<kTag, kWaits>, shape(0, true), static_cast<const std::uint32_t*>(x.get()), y.get());
  });
  return error.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

// Code for compute capability 8.0 that runs on a newer device: no wait, so no overlap.
void overlap() {
  const kit::Array<std::uint32_t> x(32), y(32);
  emu::control::set_code_version(80);
  kit::passes("code without a wait", [&] { return run_dependent<80, true>(x, y); });
  emu::control::set_code_version(90);
  kit::passes("code with a wait", [&] { return run_dependent<90, true>(x, y); });
  kit::is_caught("a dependent that does not wait", "dependencies", true,
                 [&] { return run_dependent<91, false>(x, y); });
}

void shared_memory() {
  const kit::Array<std::uint32_t> y(32);
  launch("large", take_shared<0>, shape(200 * kKb), y.get());
  launch("small", take_shared<0>, shape(60 * kKb), y.get());
  cudaFuncAttributes now;
  const auto* kernel = reinterpret_cast<const void*>(take_shared<0>);
  kit::expect_ok(cudaFuncGetAttributes(&now, kernel), "cudaFuncGetAttributes");
  kit::expect(now.maxDynamicSharedSizeBytes >= 200 * static_cast<int>(kKb), "a small launch takes from a large one");
  const std::string refused = said([&] { launch("huge", take_shared<0>, shape(228 * kKb), y.get()); });
  kit::expect(refused.find("huge needs 233472 bytes of shared memory") != std::string::npos, refused);
  // As after a reset of the device, which takes the limit away.
  kit::expect_ok(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 48 * kKb), "a limit");
  kit::expect(!said([&] { launch("large", take_shared<0>, shape(200 * kKb), y.get()); }).empty(), "no limit");
  forget_kernels(0);
  launch("large", take_shared<0>, shape(200 * kKb), y.get());
  kit::expect_ok(cudaDeviceSynchronize(), "a kernel prepared again");
}

// Two engines launch the same kernel with as much as each needs.
void two_threads() {
  const auto launches = [](std::size_t bytes, std::string& error) {
    const kit::Array<std::uint32_t> y(32);
    for (int i = 0; i < 300 && error.empty(); ++i)
      error = said([&] { launch("shared", take_shared<1>, shape(bytes), y.get()); });
  };
  std::string failed[2];
  std::thread other([&] { launches(50 * kKb, failed[1]); });
  launches(200 * kKb, failed[0]);
  other.join();
  kit::expect(failed[0].empty() && failed[1].empty(), "two threads: " + failed[0] + failed[1]);
}

void errors() {
  const std::string lost = "takes no more work from this process";
  const kit::Array<std::uint32_t> y(32);
  cudaStream_t stream = nullptr;
  kit::expect_ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  kit::expect_ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin");
  emu::control::fail_next("cudaLaunchKernelEx", cudaErrorInvalidValue);
  // A kernel that is prepared while the thread records.
  const std::string once = said([&] { launch("once", take_shared<2>, shape(100 * kKb, false, stream), y.get()); });
  kit::expect(once.find("cudaErrorInvalidValue") != std::string::npos && once.find(lost) == std::string::npos, once);
  launch("recorded", take_shared<2>, shape(100 * kKb, false, stream), y.get());
  cudaGraph_t graph = nullptr;
  kit::expect_ok(cudaStreamEndCapture(stream, &graph), "a recording after an error that does not stick");
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  for (const cudaError_t code : {cudaErrorIllegalAddress, cudaErrorLaunchTimeout, cudaErrorMisalignedAddress,
                                 cudaErrorECCUncorrectable, cudaErrorAssert}) {
    emu::control::fail_next("cudaLaunchKernelEx", code);
    const std::string sticks = said([&] { launch("lost", take_shared<2>, shape(), y.get()); });
    kit::expect(sticks.find(lost) != std::string::npos, sticks);
  }
}

}  // namespace

int main() {
  overlap();
  shared_memory();
  two_threads();
  errors();
  return kit::result();
}
