// What can go wrong between blocks.
#include "cuda/device/ptx.cuh"
#include "kit.h"

using namespace nsrt::cuda;

enum class Bug { kNone, kRelaxed, kNoFence, kNoBarrier, kPlainStore, kPlainLoad, kHalves, kNeverSet };

// Block 0 tells block 1 that a number is ready.
template <Bug kBug>
__global__ void message(std::uint32_t* flag, int* number, int* result) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    *number = 42;
    if constexpr (kBug == Bug::kRelaxed)
      atomicExch(flag, 1u);
    else if constexpr (kBug == Bug::kNone)
      ptx::store_release(flag, 1);
  } else {
    while (ptx::load_acquire(flag) == 0) {
    }
    *result = *number;
    *flag = 0;
  }
}

// The last block adds up what all have left.
template <Bug kBug>
__global__ void total(const int* x, int* parts, std::uint32_t* ticket, int* result) {
  NSRT_SHARED(is_last, bool);
  const int sum = __reduce_add_sync(~0u, x[blockIdx.x * 32 + threadIdx.x]);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = sum;
    std::uint32_t before;
    if constexpr (kBug == Bug::kRelaxed) {
      before = atomicAdd(ticket, 1u);
    } else if constexpr (kBug == Bug::kNoFence) {
      __threadfence();
      before = atomicAdd(ticket, 1u);
    } else {
      before = ptx::add_acq_rel(ticket, 1);
    }
    is_last = before == gridDim.x - 1;
    if (is_last) *ticket = 0;
  }
  if constexpr (kBug != Bug::kNoBarrier) __syncthreads();
  if (!is_last) return;
  const int all = __reduce_add_sync(~0u, threadIdx.x < gridDim.x ? parts[threadIdx.x] : 0);
  if (threadIdx.x == 0) *result = all;
}

// The same with fences around a relaxed ticket, as the programming guide has it.
__global__ void total_with_fences(const int* x, int* parts, std::uint32_t* ticket, int* result) {
  if (threadIdx.x != 0) return;
  parts[blockIdx.x] = x[blockIdx.x];
  __threadfence();
  if (atomicAdd(ticket, 1u) != gridDim.x - 1) return;
  __threadfence();
  int sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += parts[i];
  *ticket = 0;
  *result = sum;
}

// Every block gives its number to the next, `rounds` times over: data and tag in one word.
template <Bug kBug>
__global__ void exchange(std::uint64_t* words, int* result, unsigned rounds) {
  if (threadIdx.x != 0) return;
  const unsigned blocks = gridDim.x, from = (blockIdx.x + blocks - 1) % blocks;  // words: of every round
  std::uint32_t number = blockIdx.x;
  for (std::uint32_t round = 1; round <= rounds; ++round) {
    std::uint64_t* buffer = words + (round - 1) * 2 * blocks;
    const std::uint64_t word = std::uint64_t{round} << 32 | number;
    for (unsigned copy = 0; copy < 2; ++copy) {
      std::uint64_t* to = buffer + 2 * blockIdx.x + copy;
      if constexpr (kBug == Bug::kPlainStore) {
        *to = word;
      } else if constexpr (kBug == Bug::kHalves) {
        auto* halves = reinterpret_cast<std::uint32_t*>(to);
        atomicExch(halves + 1, round);
        atomicExch(halves, number);
      } else {
        ptx::store_relaxed_64(to, word);
      }
    }
    for (;;) {
      ulonglong2 pair;
      if constexpr (kBug == Bug::kPlainLoad) {
        pair = make_ulonglong2(ptx::load_relaxed_64(buffer + 2 * from), buffer[2 * from + 1]);
      } else {
        pair = ptx::load_relaxed_2x64(buffer + 2 * from);
      }
      if (pair.x >> 32 != round || pair.y >> 32 != round) continue;
      number = static_cast<std::uint32_t>(pair.y);
      break;
    }
  }
  result[blockIdx.x] = static_cast<int>(number);
}

// All blocks wait for all, in a grid that stays resident.
template <Bug kBug>
__global__ void meet(std::uint32_t* count, int* x, int* y) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
  for (std::uint32_t round = 1; round <= 3; ++round) {
    x[i] = static_cast<int>(i * round);
    if constexpr (kBug != Bug::kNoBarrier) __syncthreads();
    if (threadIdx.x == 0) {
      if constexpr (kBug == Bug::kRelaxed)
        atomicAdd(count, 1u);
      else
        ptx::add_release(count, 1);
      while (ptx::load_acquire(count) < round * 2 * gridDim.x - gridDim.x) {
      }
    }
    __syncthreads();
    y[i] = x[n - 1 - i];
    __syncthreads();
    if (threadIdx.x == 0) {
      ptx::add_release(count, 1);
      while (ptx::load_acquire(count) < round * 2 * gridDim.x) {
      }
    }
    __syncthreads();
  }
}

struct Data {
  static constexpr unsigned kBlocks = 4, kRounds = 5;
  kit::Array<int> x{128, 1}, parts{kBlocks}, result{kBlocks};
  kit::Array<std::uint32_t> word{1, 0u};
  kit::Array<std::uint64_t> words{kRounds * 2 * kBlocks, std::uint64_t{0}};

  void clear() const {
    cudaMemsetAsync(word.get(), 0, 4, nullptr);
    cudaMemsetAsync(words.get(), 0, kRounds * 2 * kBlocks * 8, nullptr);
  }
};

template <Bug kBug>
cudaError_t run_message(const Data& data) {
  data.clear();
  return kit::launch({.grid = 2}, message<kBug>, data.word.get(), data.parts.get(), data.result.get());
}

template <Bug kBug>
cudaError_t run_total(const Data& data) {
  data.clear();
  return kit::launch({.grid = Data::kBlocks}, total<kBug>, data.x.get(), data.parts.get(), data.word.get(),
                     data.result.get());
}

template <Bug kBug>
cudaError_t run_exchange(const Data& data) {
  data.clear();
  return kit::launch({.grid = Data::kBlocks, .cooperative = true}, exchange<kBug>, data.words.get(), data.result.get(),
                     Data::kRounds);
}

template <Bug kBug>
cudaError_t run_meet(const Data& data, unsigned blocks, bool cooperative) {
  data.clear();
  const kit::Array<int> x(blocks * 64), y(blocks * 64);
  return kit::launch({.grid = blocks, .block = 64, .cooperative = cooperative}, meet<kBug>, data.word.get(), x.get(),
                     y.get());
}

void right(const Data& data) {
  kit::passes("message", [&] { return run_message<Bug::kNone>(data); });
  kit::expect(data.result.values()[0] == 42, "the message's number");
  kit::passes("total", [&] { return run_total<Bug::kNone>(data); });
  kit::expect(data.result.values()[0] == 128, "the total");
  kit::passes("total with fences", [&] {
    return kit::launch({.grid = 4}, total_with_fences, data.x.get(), data.parts.get(), data.word.get(),
                       data.result.get());
  });
  kit::expect(data.result.values()[0] == 4, "the total with fences");
  kit::passes("exchange", [&] { return run_exchange<Bug::kNone>(data); });
  kit::expect(data.result.values() == std::vector<int>{3, 0, 1, 2}, "the exchanged numbers");
  kit::passes("meet", [&] { return run_meet<Bug::kNone>(data, 6, true); });
}

void wrong(const Data& data) {
  kit::is_caught("message: relaxed for release", "data race", true, [&] { return run_message<Bug::kRelaxed>(data); });
  kit::is_caught("message never sent", "livelock", false, [&] { return run_message<Bug::kNeverSet>(data); });
  kit::is_caught("total: relaxed ticket", "data race", true, [&] { return run_total<Bug::kRelaxed>(data); });
  kit::is_caught("total: no fence after the ticket", "data race", true, [&] { return run_total<Bug::kNoFence>(data); });
  kit::is_caught("total: no barrier after the ticket", "", true, [&] { return run_total<Bug::kNoBarrier>(data); });
  kit::is_caught("exchange: plain store", "data race", true, [&] { return run_exchange<Bug::kPlainStore>(data); });
  kit::is_caught("exchange: plain load", "data race", true, [&] { return run_exchange<Bug::kPlainLoad>(data); });
  kit::is_caught("exchange: words in halves", "data race", true, [&] { return run_exchange<Bug::kHalves>(data); });
  kit::is_caught("meet: relaxed arrival", "data race", true, [&] { return run_meet<Bug::kRelaxed>(data, 4, true); });
  kit::is_caught("meet: no barrier before arrival", "data race", true,
                 [&] { return run_meet<Bug::kNoBarrier>(data, 4, true); });
  kit::is_caught("meet: blocks that are not resident", "livelock", false,
                 [&] { return run_meet<Bug::kNone>(data, 6, false); });
  kit::expect(run_meet<Bug::kNone>(data, 4 * 32 + 1, true) == cudaErrorCooperativeLaunchTooLarge,
              "a cooperative launch that is too large");
}

int main() {
  const Data data;
  right(data);
  wrong(data);
  right(data);
  return kit::result();
}
