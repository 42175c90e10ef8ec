// The numbers that operations of the device language give.
#include <cuda_bf16.h>

#include <cmath>
#include <random>

#include "cuda/device/ptx.cuh"
#include "kit.h"

using namespace nsrt::cuda;

__global__ void warp_operations(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  int* mine = out + 16 * i;
  mine[0] = __shfl_xor_sync(~0u, i, 5);
  mine[1] = __shfl_up_sync(~0u, i, 3);
  mine[2] = __shfl_down_sync(~0u, i, 3, 16);
  mine[3] = __shfl_sync(~0u, i, 9, 8);
  mine[4] = __reduce_add_sync(~0u, i);
  mine[5] = __reduce_min_sync(~0u, 7 - i);
  mine[6] = static_cast<int>(__ballot_sync(~0u, i % 2));
  mine[7] = __any_sync(~0u, i == 40) + 2 * __all_sync(~0u, i < 32);
  mine[8] = __syncthreads_count(i < 5);
  mine[9] = __syncthreads_or(i == 31) + 2 * __syncthreads_and(i < 31);
  mine[10] = static_cast<int>(__byte_perm(0x33221100u, 0x77665544u, 0x7410u));
  mine[11] = __clz(i);
  mine[12] = __float_as_int(__fmaf_rn(1.5f, 2.0f, 1.0f));
  mine[13] = min(i, 3) + max(i, 30);
  mine[14] = static_cast<int>(__funnelshift_l(0x80000000u, 1u, 1u));
  mine[15] = static_cast<int>(gridDim.x * 100 + blockDim.x + static_cast<unsigned>(warpSize));
}

__global__ void atomics(unsigned* out, float* sum) {
  const unsigned i = threadIdx.x;
  atomicAdd(out, i);
  atomicMax(out + 1, i);
  atomicMin(out + 2, i);
  atomicOr(out + 3, 1u << i);
  atomicInc(out + 4, 9);
  for (unsigned old = 0;;) {
    const unsigned seen = atomicCAS(out + 5, old, old + 2);
    if (seen == old) break;
    old = seen;
  }
  atomicAdd(sum, 0.5f);
}

// d = a * b of row-major 16x16 by column-major 16x8.
__global__ void multiply(const __nv_bfloat16* a, const __nv_bfloat16* b, float* d) {
  const unsigned lane = threadIdx.x, row = lane / 4, column = lane % 4 * 2;
  const auto two = [](const __nv_bfloat16* p) { return *reinterpret_cast<const std::uint32_t*>(p); };
  const std::uint32_t from_a[4] = {two(a + row * 16 + column), two(a + (row + 8) * 16 + column),
                                   two(a + row * 16 + column + 8), two(a + (row + 8) * 16 + column + 8)};
  const std::uint32_t from_b[2] = {two(b + row * 16 + column), two(b + row * 16 + column + 8)};
  float sums[4] = {};
  ptx::mma_m16n8k16_bf16(sums, from_a, from_b);
  for (unsigned i = 0; i < 4; ++i) d[(row + 8 * (i / 2)) * 8 + column + i % 2] = sums[i];
}

void check_warp_operations() {
  const kit::Array<int> out(32 * 16);
  kit::passes("warp operations", [&] { return kit::launch({}, warp_operations, out.get()); });
  const std::vector<int> all = out.values();
  for (int i = 0; i < 32; ++i) {
    const int wanted[16] = {i ^ 5,
                            i < 3 ? i : i - 3,
                            i % 16 + 3 < 16 ? i + 3 : i,
                            i / 8 * 8 + 1,
                            496,
                            -24,
                            static_cast<int>(0xaaaaaaaau),
                            2,
                            5,
                            1,
                            0x77441100,
                            i == 0 ? 32 : 31 - static_cast<int>(std::log2(i)),
                            0x40800000,
                            (i < 3 ? i : 3) + (i > 30 ? i : 30),
                            3,
                            164};
    for (int j = 0; j < 16; ++j)
      kit::expect(all[static_cast<std::size_t>(16 * i + j)] == wanted[j],
                  "operation " + std::to_string(j) + " of lane " + std::to_string(i));
  }
}

void check_atomics() {
  const kit::Array<unsigned> out(6);
  const kit::Array<float> sum(1);
  kit::passes("atomics", [&] {
    const unsigned start[6] = {0, 0, 99, 0, 0, 0};
    cudaMemcpy(out.get(), start, sizeof start, cudaMemcpyHostToDevice);
    cudaMemsetAsync(sum.get(), 0, 4, nullptr);
    return kit::launch({}, atomics, out.get(), sum.get());
  });
  kit::expect(out.values() == std::vector<unsigned>{496, 31, 0, ~0u, 2, 64}, "what atomics left");
  kit::expect(sum.values()[0] == 16.0f, "the atomic sum");
}

void check_multiply() {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<__nv_bfloat16> a(256), b(128);
  for (auto& x : a) x = __float2bfloat16(normal(generator));
  for (auto& x : b) x = __float2bfloat16(normal(generator));
  const kit::Array<__nv_bfloat16> device_a(a), device_b(b);
  const kit::Array<float> d(128);
  kit::passes("mma", [&] { return kit::launch({}, multiply, device_a.get(), device_b.get(), d.get()); });
  const std::vector<float> got = d.values();
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 8; ++j) {
      double wanted = 0;
      for (std::size_t k = 0; k < 16; ++k)
        wanted +=
            static_cast<double>(__bfloat162float(a[i * 16 + k])) * static_cast<double>(__bfloat162float(b[j * 16 + k]));
      kit::expect(std::abs(static_cast<double>(got[i * 8 + j]) - wanted) < 1e-5, "a product's element");
    }
  }
}

int main() {
  check_warp_operations();
  check_atomics();
  check_multiply();
  return kit::result();
}
