// ptx.cuh says everything twice, in PTX and to the emulator: both must do the same. On a GPU this runs the PTX.
#include <cuda_bf16.h>

#include <cmath>
#include <random>
#include <vector>

#include "backend/backend.h"
#include "cuda/device/ptx.cuh"
#include "cuda/runtime.h"
#include "test_kit.h"

namespace nsrt::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kRounds = 100;

template <class T>
DeviceBuffer<T> on_device(const Stream& stream, const std::vector<T>& values) {
  DeviceBuffer<T> buffer(values.size(), "a test");
  stream.upload<T>(buffer, values);
  stream.synchronize();
  return buffer;
}

template <class T>
std::vector<T> on_host(const Stream& stream, const DeviceBuffer<T>& buffer) {
  std::vector<T> values(buffer.size());
  stream.copy(values.data(), buffer.data(), buffer.bytes());
  stream.synchronize();
  return values;
}

LaunchShape shape(const Stream& stream, unsigned blocks, bool overlaps = false) {
  return {.grid = dim3(blocks),
          .block = dim3(kWarp),
          .stream = stream.get(),
          .cooperative = blocks > 1,
          .overlaps = overlaps};
}

__global__ void load_kernel(const uint4* from, uint4* to) {
  const unsigned i = threadIdx.x;
  ptx::prefetch_l2(from + i);
  to[3 * i] = ptx::load_weights(from + i);
  to[3 * i + 1] = ptx::load_weights(from + i, ptx::policy_evict_first());
  to[3 * i + 2] = ptx::load_weights(from + i, ptx::policy_evict_last(0.5f));
}

// Two groups of copies, each read as soon as it must have landed.
__global__ void copy_kernel(const uint4* from, uint4* to) {
  NSRT_SHARED(staged, uint4[2 * kWarp]);
  const unsigned i = threadIdx.x;
  for (unsigned group = 0; group < 2; ++group) {
    ptx::cp_async_16(&staged[group * kWarp + i], from + group * kWarp + i);
    ptx::cp_async_commit();
  }
  ptx::cp_async_wait<1>();
  __syncthreads();
  to[i] = staged[kWarp - 1 - i];
  ptx::cp_async_wait<0>();
  __syncthreads();
  to[kWarp + i] = staged[2 * kWarp - 1 - i];
}

// d = a * b of row-major 16x16 by column-major 16x8, added to what is in d.
__global__ void multiply_kernel(const __nv_bfloat16* a, const __nv_bfloat16* b, float* d) {
  const unsigned lane = threadIdx.x, row = lane / 4, column = lane % 4 * 2;
  const auto two = [](const __nv_bfloat16* p) { return *reinterpret_cast<const std::uint32_t*>(p); };
  const std::uint32_t from_a[4] = {two(a + row * 16 + column), two(a + (row + 8) * 16 + column),
                                   two(a + row * 16 + column + 8), two(a + (row + 8) * 16 + column + 8)};
  const std::uint32_t from_b[2] = {two(b + row * 16 + column), two(b + row * 16 + column + 8)};
  const auto at = [&](unsigned i) { return (row + 8 * (i / 2)) * 8 + column + i % 2; };
  float sums[4];
  for (unsigned i = 0; i < 4; ++i) sums[i] = d[at(i)];
  ptx::mma_m16n8k16_bf16(sums, from_a, from_b);
  for (unsigned i = 0; i < 4; ++i) d[at(i)] = sums[i];
}

// A message from block 0 to block 1 and an answer, again and again: flags are released and acquired, the message is
// not.
__global__ void message_kernel(std::uint32_t* flag, std::uint32_t* answer, std::uint32_t* message,
                               std::uint32_t* wrong) {
  if (threadIdx.x != 0) return;
  for (std::uint32_t round = 1; round <= kRounds; ++round) {
    if (blockIdx.x == 0) {
      *message = 3 * round;
      ptx::store_release(flag, round);
      while (ptx::load_acquire(answer) != round) {
      }
    } else {
      while (ptx::load_acquire(flag) != round) {
      }
      if (*message != 3 * round) ++*wrong;
      ptx::add_release(answer, 1);
    }
  }
}

// Every block leaves a number and takes a ticket; the last one sees all numbers. The first half of the blocks orders
// by a fence and a relaxed look instead, once the last has said so.
__global__ void ticket_kernel(std::uint32_t* ticket, std::uint32_t* numbers, std::uint32_t* sums, std::uint32_t* done) {
  if (threadIdx.x != 0) return;
  numbers[blockIdx.x] = blockIdx.x + 1;
  const auto sum = [&] {
    std::uint32_t all = 0;
    for (unsigned i = 0; i < gridDim.x; ++i) all += numbers[i];
    return all;
  };
  if (ptx::add_acq_rel(ticket, 1) == gridDim.x - 1) {
    sums[blockIdx.x] = sum();
    ptx::store_release(done, 1);
  } else if (blockIdx.x < gridDim.x / 2) {
    while (ptx::load_relaxed(done) == 0) {
    }
    ptx::fence_acq_rel();
    sums[blockIdx.x] = sum();
  }
}

// Words that carry their tag, two at a time, from block 0 to block 1 and back.
__global__ void word_kernel(std::uint64_t* words, std::uint64_t* back, std::uint32_t* wrong) {
  if (threadIdx.x != 0) return;
  for (std::uint64_t round = 1; round <= kRounds; ++round) {
    const std::uint64_t tag = round << 32;
    if (blockIdx.x == 0) {
      for (unsigned i = 0; i < 2; ++i) ptx::store_relaxed_64(words + i, tag | (round * 7 + i));
      while (ptx::load_relaxed_64(back) != round) {
      }
      continue;
    }
    ulonglong2 both = make_ulonglong2(0, 0);
    while (both.x >> 32 != round || both.y >> 32 != round) both = ptx::load_relaxed_2x64(words);
    if ((both.x & 0xffffffffu) != round * 7 || (both.y & 0xffffffffu) != round * 7 + 1) ++*wrong;
    ptx::store_relaxed_64(back, round);
  }
}

__global__ void increase_kernel(const std::uint32_t* from, std::uint32_t* to) {
  ptx::pdl_wait();
  to[threadIdx.x] = from[threadIdx.x] + 1;
  ptx::pdl_launch_dependents();
}

TEST(ptx_loads_and_copies) {
  if (cuda_devices().empty()) return;
  const Stream stream;
  std::vector<uint4> values;
  for (unsigned i = 0; i < 2 * kWarp; ++i) values.push_back(make_uint4(i, i * i, ~i, 7 * i));
  const auto from = on_device(stream, values), loaded = on_device(stream, std::vector<uint4>(3 * kWarp));
  const auto copied = on_device(stream, std::vector<uint4>(2 * kWarp));
  launch("loads", load_kernel, shape(stream, 1), from.data(), loaded.data());
  launch("copies", copy_kernel, shape(stream, 1), from.data(), copied.data());
  const auto same = [](const uint4& a, const uint4& b) { return a.x == b.x && a.y == b.y && a.z == b.z && a.w == b.w; };
  const auto a = on_host(stream, loaded), b = on_host(stream, copied);
  for (std::size_t i = 0; i < kWarp; ++i) {
    for (std::size_t j = 0; j < 3; ++j) CHECK(same(a[3 * i + j], values[i]));
    CHECK(same(b[i], values[kWarp - 1 - i]));
    CHECK(same(b[kWarp + i], values[2 * kWarp - 1 - i]));
  }
}

TEST(ptx_tensor_cores) {
  if (cuda_devices().empty()) return;
  const Stream stream;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<__nv_bfloat16> a(16 * 16), b(16 * 8);
  std::vector<float> d(16 * 8);
  for (auto* numbers : {&a, &b})
    for (auto& x : *numbers) x = __float2bfloat16(normal(random));
  for (auto& x : d) x = normal(random);
  const auto device_a = on_device(stream, a), device_b = on_device(stream, b);
  const auto device_d = on_device(stream, d);
  launch("mma", multiply_kernel, shape(stream, 1), device_a.data(), device_b.data(), device_d.data());
  const auto got = on_host(stream, device_d);
  for (std::size_t i = 0; i < d.size(); ++i) {
    double wanted = static_cast<double>(d[i]);
    for (std::size_t k = 0; k < 16; ++k)
      wanted += static_cast<double>(__bfloat162float(a[i / 8 * 16 + k])) *
                static_cast<double>(__bfloat162float(b[i % 8 * 16 + k]));
    CHECK(std::abs(static_cast<double>(got[i]) - wanted) < 1e-4);
  }
}

TEST(ptx_orders_accesses) {
  if (cuda_devices().empty()) return;
  const Stream stream;
  constexpr unsigned kBlocks = 4;
  const auto zeros = [&](std::size_t n) { return on_device(stream, std::vector<std::uint32_t>(n)); };
  const auto wrong = zeros(1), flag = zeros(1), answer = zeros(1), message = zeros(1);
  launch("messages", message_kernel, shape(stream, 2), flag.data(), answer.data(), message.data(), wrong.data());
  CHECK(on_host(stream, wrong)[0] == 0);
  CHECK(on_host(stream, answer)[0] == kRounds);

  const auto ticket = zeros(1), numbers = zeros(kBlocks), sums = zeros(kBlocks), done = zeros(1);
  launch("tickets", ticket_kernel, shape(stream, kBlocks), ticket.data(), numbers.data(), sums.data(), done.data());
  CHECK(on_host(stream, ticket)[0] == kBlocks);
  unsigned seen = 0;
  for (const std::uint32_t sum : on_host(stream, sums)) {
    CHECK(sum == 0 || sum == kBlocks * (kBlocks + 1) / 2);
    seen += sum != 0;
  }
  CHECK(seen >= kBlocks / 2);

  const auto words = on_device(stream, std::vector<std::uint64_t>(2)),
             back = on_device(stream, std::vector<std::uint64_t>(1));
  launch("words", word_kernel, shape(stream, 2), words.data(), back.data(), wrong.data());
  CHECK(on_host(stream, wrong)[0] == 0);
  CHECK(on_host(stream, back)[0] == kRounds);
}

TEST(ptx_dependent_launches) {
  if (cuda_devices().empty()) return;
  const Stream stream;
  const auto x = on_device(stream, std::vector<std::uint32_t>(kWarp)),
             y = on_device(stream, std::vector<std::uint32_t>(kWarp));
  constexpr std::uint32_t kPairs = 50;
  for (std::uint32_t i = 0; i < kPairs; ++i) {
    launch("increase", increase_kernel, shape(stream, 1, i > 0), x.data(), y.data());
    launch("increase", increase_kernel, shape(stream, 1, true), y.data(), x.data());
  }
  for (const std::uint32_t value : on_host(stream, x)) CHECK(value == 2 * kPairs);
}

}  // namespace
}  // namespace nsrt::cuda
