// Programmatic dependent launch, and what may be read before the wait and through the read-only path.
#include "cuda/device/ptx.cuh"
#include "kit.h"

using namespace nsrt::cuda;

enum class Bug { kNone, kReadsEarly, kWritesEarly, kNeverWaits, kSomeNeverWait, kReadOnlyOfWritten };

__global__ void produce(uint4* x) {
  ptx::pdl_wait();
  x[threadIdx.x] = make_uint4(threadIdx.x, 0, 0, 0);
  ptx::pdl_launch_dependents();
}

template <Bug kBug>
__global__ void consume(const uint4* weights, const uint4* x, std::uint32_t* y) {
  const unsigned i = threadIdx.x;
  std::uint32_t weight = ptx::load_weights(weights + i, ptx::policy_evict_first()).x;
  if (kBug == Bug::kReadsEarly) weight += x[i].x;
  if (kBug == Bug::kWritesEarly) y[i] = 0;
  if (kBug != Bug::kNeverWaits && (kBug != Bug::kSomeNeverWait || i != 7)) ptx::pdl_wait();
  if (kBug == Bug::kNeverWaits) return;
  y[i] = weight * (kBug == Bug::kReadOnlyOfWritten ? ptx::load_weights(x + i).x : x[i].x);
}

// Reads what it has just written past the caches that would know.
template <bool kReadOnly>
__global__ void in_place(std::uint32_t* x) {
  const unsigned i = threadIdx.x;
  x[i] = i;
  __syncthreads();
  const std::uint32_t other = kReadOnly ? __ldg(x + 31 - i) : x[31 - i];
  __syncthreads();
  x[i] = other;
}

struct Data {
  kit::Array<uint4> weights{32, make_uint4(3, 0, 0, 0)}, x{32};
  kit::Array<std::uint32_t> y{32};
  cudaStream_t stream = nullptr;
  Data() { cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }
  ~Data() { cudaStreamDestroy(stream); }

  template <Bug kBug>
  cudaError_t run(bool programmatic) const {
    cudaStreamSynchronize(stream);
    const cudaError_t first = kit::launch({.programmatic = programmatic, .stream = stream}, produce, x.get());
    if (first != cudaSuccess) return first;
    return kit::launch({.programmatic = programmatic, .stream = stream}, consume<kBug>, weights.get(), x.get(),
                       y.get());
  }
};

int main() {
  const Data data;
  kit::passes("dependent launch", [&] { return data.run<Bug::kNone>(true); });
  kit::expect(data.y.values()[9] == 27, "what the dependent launch computed");
  kit::passes("plain launch", [&] { return data.run<Bug::kNeverWaits>(false); });
  kit::passes("read-only load of an earlier kernel's result", [&] { return data.run<Bug::kReadOnlyOfWritten>(false); });
  kit::passes("in place", [&] { return kit::launch({}, in_place<false>, data.y.get()); });

  kit::is_caught("read before the wait", "before waiting for dependencies", true,
                 [&] { return data.run<Bug::kReadsEarly>(true); });
  kit::is_caught("write before the wait", "before waiting for dependencies", true,
                 [&] { return data.run<Bug::kWritesEarly>(true); });
  kit::is_caught("no wait", "without having waited", true, [&] { return data.run<Bug::kNeverWaits>(true); });
  kit::is_caught("a thread that does not wait", "", true, [&] { return data.run<Bug::kSomeNeverWait>(true); });
  kit::is_caught("read-only load of a predecessor's result", "read-only load", true,
                 [&] { return data.run<Bug::kReadOnlyOfWritten>(true); });
  kit::is_caught("read-only load of one's own result", "read-only load", true,
                 [&] { return kit::launch({}, in_place<true>, data.y.get()); });
  // Weights that another stream has brought, and the host has waited for.
  kit::passes("weights by another stream", [&] {
    cudaStreamSynchronize(data.stream);
    cudaMemsetAsync(data.weights.get(), 0, 32 * sizeof(uint4), nullptr);
    cudaStreamSynchronize(nullptr);
    return kit::launch({.programmatic = true, .stream = data.stream}, consume<Bug::kNone>, data.weights.get(),
                       data.x.get(), data.y.get());
  });
  // Weights that a copy has brought, and nobody has waited for since.
  kit::is_caught("weights not yet there", "before waiting for dependencies", true, [&] {
    cudaMemsetAsync(data.weights.get(), 0, 32 * sizeof(uint4), data.stream);
    return kit::launch({.programmatic = true, .stream = data.stream}, consume<Bug::kNone>, data.weights.get(),
                       data.x.get(), data.y.get());
  });
  return kit::result();
}
