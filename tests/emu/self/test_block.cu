// What can go wrong inside a block.
#include <numeric>

#include "cuda/device/ptx.cuh"
#include "kit.h"

using namespace nsrt::cuda;

enum class Bug {
  kNone,
  kNoBarrier,
  kNoWarpBarrier,
  kPastTheEnd,
  kPastSharedEnd,
  kUninitialised,
  kDivergent,
  kEndsEarly,
  kLaneOutside,
  kNoCopyWait,
  kNoBarrierAfterCopy,
  kHostPointer,
  kMisaligned
};

// Reverses 64 numbers through shared memory.
template <Bug kBug>
__global__ void reverse(const int* x, int* y) {
  NSRT_SHARED(line, int[64]);
  const unsigned i = threadIdx.x;
  if (kBug == Bug::kEndsEarly && i == 40) return;
  if (kBug != Bug::kUninitialised || i != 5) line[i + (kBug == Bug::kPastSharedEnd ? 1 : 0)] = x[i];
  if constexpr (kBug == Bug::kDivergent) {
    if (i < 32)
      __syncthreads();
    else
      __syncthreads();
  } else if constexpr (kBug != Bug::kNoBarrier) {
    __syncthreads();
  }
  y[i + (kBug == Bug::kPastTheEnd ? 1 : 0)] = line[63 - i];
}

// Swaps neighbours within a warp.
template <Bug kBug>
__global__ void swap(const int* x, int* y) {
  NSRT_SHARED(line, int[64]);
  const unsigned i = threadIdx.x;
  line[i] = x[i];
  if (kBug != Bug::kNoWarpBarrier) __syncwarp();
  y[i] = line[i ^ 1];
}

template <Bug kBug>
__global__ void shuffled(const int* x, int* y) {
  const unsigned i = threadIdx.x, mask = i < 16 ? 0x0000ffffu : 0xffff0000u;
  y[i] = __shfl_sync(mask, x[i], static_cast<int>(kBug == Bug::kLaneOutside ? 31 - i : i ^ 1));
}

// Copies to shared memory asynchronously, reads what others copied.
template <Bug kBug>
__global__ void staged(const int* x, int* y) {
  NSRT_DYNAMIC_SHARED(memory);
  SharedCarver carver(memory);
  carver.take<float>(3);
  int* line = carver.take<int>(128);
  const unsigned i = threadIdx.x;
  ptx::cp_async_16(line + 4 * i, x + 4 * i);
  ptx::cp_async_commit();
  if constexpr (kBug != Bug::kNoCopyWait) ptx::cp_async_wait<0>();
  if constexpr (kBug != Bug::kNoBarrierAfterCopy) __syncthreads();
  for (unsigned j = 0; j < 4; ++j) y[4 * i + j] = line[127 - (4 * i + j)];
  if constexpr (kBug == Bug::kNoCopyWait) ptx::cp_async_wait<0>();
}

template <Bug kBug>
__global__ void pointed(const int* x, int* y) {
  const auto* from = reinterpret_cast<const char*>(x) + (kBug == Bug::kMisaligned ? 4 : 0);
  const uint4 four = ptx::load_weights(from);
  y[threadIdx.x] = static_cast<int>(four.x);
}

struct Data {
  std::vector<int> numbers = std::vector<int>(128);
  kit::Array<int> x{(std::iota(numbers.begin(), numbers.end(), 1), numbers)}, y{64}, y128{128};
};

void right(const Data& data) {
  kit::passes("reverse", [&] { return kit::launch({.block = 64}, reverse<Bug::kNone>, data.x.get(), data.y.get()); });
  for (int i = 0; i < 64; ++i) kit::expect(data.y.values()[static_cast<std::size_t>(i)] == 64 - i, "reversed");
  kit::passes("swap", [&] { return kit::launch({.block = 64}, swap<Bug::kNone>, data.x.get(), data.y.get()); });
  kit::expect(data.y.values()[6] == 8 && data.y.values()[33] == 33, "swapped");
  kit::passes("shuffle", [&] { return kit::launch({}, shuffled<Bug::kNone>, data.x.get(), data.y.get()); });
  kit::expect(data.y.values()[0] == 2 && data.y.values()[31] == 31, "shuffled");
  SharedSize size;
  size.add<float>(3);
  size.add<int>(128);
  kit::passes("copy", [&] {
    return kit::launch({.shared_bytes = size.bytes()}, staged<Bug::kNone>, data.x.get(), data.y128.get());
  });
  kit::expect(data.y128.values()[0] == 128 && data.y128.values()[127] == 1, "copied");
  kit::is_caught("too little shared memory", "dynamic shared memory", false, [&] {
    return kit::launch({.shared_bytes = size.bytes() - 1}, staged<Bug::kNone>, data.x.get(), data.y128.get());
  });
  kit::passes("load", [&] { return kit::launch({}, pointed<Bug::kNone>, data.x.get(), data.y.get()); });
}

template <Bug kBug>
void wrong_reverse(const Data& data, const char* name, const char* word, bool race_only) {
  kit::is_caught(name, word, race_only,
                 [&] { return kit::launch({.block = 64}, reverse<kBug>, data.x.get(), data.y.get()); });
}

void wrong(const Data& data) {
  wrong_reverse<Bug::kNoBarrier>(data, "missing __syncthreads", "", true);
  wrong_reverse<Bug::kPastTheEnd>(data, "out of bounds by one", "out-of-bounds write of 4 bytes", true);
  wrong_reverse<Bug::kPastSharedEnd>(data, "out of shared bounds by one", "shared 'line'", true);
  wrong_reverse<Bug::kUninitialised>(data, "uninitialised read", "uninitialised read of 4 bytes", true);
  wrong_reverse<Bug::kDivergent>(data, "divergent barrier", "divergent barrier", false);
  wrong_reverse<Bug::kEndsEarly>(data, "thread that ends before a barrier", "__syncthreads", false);
  kit::is_caught("missing __syncwarp", "", true,
                 [&] { return kit::launch({.block = 64}, swap<Bug::kNoWarpBarrier>, data.x.get(), data.y.get()); });
  kit::is_caught("lane outside of the mask", "not in its mask", false,
                 [&] { return kit::launch({}, shuffled<Bug::kLaneOutside>, data.x.get(), data.y.get()); });
  kit::is_caught("copy not waited for", "", true, [&] {
    return kit::launch({.shared_bytes = 1024}, staged<Bug::kNoCopyWait>, data.x.get(), data.y128.get());
  });
  kit::is_caught("no barrier after a copy", "", true, [&] {
    return kit::launch({.shared_bytes = 1024}, staged<Bug::kNoBarrierAfterCopy>, data.x.get(), data.y128.get());
  });
  kit::is_caught("misaligned load", "misaligned", false,
                 [&] { return kit::launch({}, pointed<Bug::kMisaligned>, data.x.get(), data.y.get()); });
  kit::is_caught("pointer to host memory", "not the device's memory", true,
                 [&] { return kit::launch({}, pointed<Bug::kNone>, data.numbers.data(), data.y.get()); });
}

int main() {
  const Data data;
  right(data);
  wrong(data);
  right(data);  // nothing that failed has left anything behind
  return kit::result();
}
