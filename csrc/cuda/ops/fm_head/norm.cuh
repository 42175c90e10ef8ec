// LayerNorm of rows that every block holds, 4 columns a thread at a time: lanes that are neighbours then ask shared
// memory for 16 bytes side by side. Units of 4 columns of one plane (the rows that share a word) are padded to whole
// warps, so that a warp's units belong to the same rows.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/ops/fm_head/exchange.cuh"
#include "cuda/ops/fm_head/product.cuh"

namespace nsrt::cuda {

inline constexpr float kFmNormEps = 1e-6f;
inline constexpr int kUnitColumns = 4;
inline constexpr int kWarpColumns = 32 * kUnitColumns;

// Parts that the moments of a row of d come in, a warp's each.
__host__ __device__ constexpr int moment_parts(int d) { return (d + kWarpColumns - 1) / kWarpColumns; }
// Floats for the moments of all rows: their parts, then what they add up to.
__host__ __device__ constexpr int moment_floats(int rows, int d) { return rows * (2 * moment_parts(d) + 2); }

// Mean, and sum of squared differences from it. Merged so, nothing is lost where the mean is large.
struct Moments {
  float mean = 0, squares = 0;

  // Of the first `count` of a warp's numbers, those of lanes that are `real`; all lanes get them.
  __device__ static Moments of_warp(const float (&x)[kUnitColumns], bool real, int count) {
    if (count == kWarpColumns) return of_whole_warp(x);
    const float centre = warp_sum(real ? x[0] + x[1] + x[2] + x[3] : 0.0f) / static_cast<float>(count);
    return {centre, warp_sum(real ? squares_around(centre, x) : 0.0f)};
  }

 private:
  // Chan's formula for two of the same size, which has no division.
  __device__ static Moments of_whole_warp(const float (&x)[kUnitColumns]) {
    Moments m;
    m.mean = ((x[0] + x[1]) + (x[2] + x[3])) / kUnitColumns;
    m.squares = squares_around(m.mean, x);
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const Moments other{__shfl_xor_sync(0xffffffffu, m.mean, step), __shfl_xor_sync(0xffffffffu, m.squares, step)};
      const float difference = other.mean - m.mean;
      m.mean = (m.mean + other.mean) / 2;
      m.squares = (m.squares + other.squares) + difference * difference * static_cast<float>(kUnitColumns / 2 * step);
    }
    return m;
  }

  __device__ static float squares_around(float centre, const float (&x)[kUnitColumns]) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kUnitColumns; ++i) sum += (x[i] - centre) * (x[i] - centre);
    return sum;
  }
};

// How the units of a [rows, d] buffer are dealt to threads.
template <class A>
struct Units {
  int d, planes, padded;  // padded: units of a plane

  __device__ Units(int rows, int width)
      : d(width), planes(planes_of<A>(rows)), padded((width / kUnitColumns + 31) / 32 * 32) {}
  __device__ int count() const { return planes * padded; }
  __device__ int plane(int unit) const { return unit / padded; }
  __device__ int column(int unit) const { return unit % padded * kUnitColumns; }
  __device__ bool real(int unit) const { return unit < count() && column(unit) < d; }
};

// What rows are modulated by: LN(h) (* weight + bias) * (1 + scale) + shift.
template <class A>
struct FmModulation {
  const A* rows = nullptr;        // row 0's shift, then scale
  int stride = 0;                 // from row to row
  const float* weight = nullptr;  // or null
  const float* bias = nullptr;
};

// A unit's part of it, in registers.
template <class A>
struct FmUnitModulation {
  Raw4<A> shift[kRowsPerWord<A>], scale[kRowsPerWord<A>];
  Raw4<float> weight, bias;
};

// The residual stream of all rows, [rows, d] in float32, a copy in every block.
template <class A, int kRows>
class FmResidual {
 public:
  // Units of a thread whose modulations it loads before it waits for the rows: all of them for few rows of d <= 1536.
  static constexpr int kHeld = planes_of<A>(kRows) < 2 ? 1 : 2;
  using Held = FmUnitModulation<A>[kHeld];

  __device__ FmResidual(float* hidden, float* moments, int rows, int d)
      : hidden_(hidden), moments_(moments), rows_(rows), units_(rows, d) {}

  __device__ void hold(const FmModulation<A>& modulation, Held& held) const {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) held[i] = load(modulation, thread_index() + i * kFmThreads);
  }

  // Adds what the exchange brings, or begins with it, and leaves the parts of each row's moments.
  __device__ void grow(const std::uint64_t* words, std::uint32_t tag, bool begins) {
    // Whole warps take every turn: they merge their moments.
    for (int first = 0; first < units_.count(); first += kFmThreads) {
      const int u = first + thread_index(), column = units_.column(u);
      const bool real = units_.real(u);
      std::uint32_t payload[kUnitColumns] = {};
      if (real) receive(words + units_.plane(u) * units_.d + column, tag, payload);
#pragma unroll
      for (int i = 0; i < kRowsPerWord<A>; ++i) {
        const int r = units_.plane(u) * kRowsPerWord<A> + i;
        if (r >= rows_) continue;
        float x[kUnitColumns] = {};
        if (real) {
          float* h = hidden_ + r * units_.d + column;
          if (!begins) Raw4<float>::at(h).unpack(x);
#pragma unroll
          for (int j = 0; j < kUnitColumns; ++j) x[j] += value_of<A>(payload[j], i);
          store4(h, x);
        }
        const int begin = column - lane_index() * kUnitColumns;
        const Moments m = Moments::of_warp(x, real, min(units_.d - begin, kWarpColumns));
        if (lane_index() == 0) store2(part(r, begin / kWarpColumns), m.mean, m.squares);
      }
    }
  }

  // After a barrier: the mean and 1 / deviation of each row, by a warp.
  __device__ void finish_moments() {
    const int parts = moment_parts(units_.d);
    const auto count = [&](int i) { return static_cast<float>(min(units_.d - i * kWarpColumns, kWarpColumns)); };
    const float share = 1.0f / static_cast<float>(units_.d);
    for (int r = warp_index(); r < rows_; r += kFmWarps) {
      float sum = 0.0f, squares = 0.0f;
      for (int i = lane_index(); i < parts; i += 32) sum += count(i) * part(r, i)[0];
      const float mean = warp_sum(sum) * share;
      for (int i = lane_index(); i < parts; i += 32) {
        const float difference = part(r, i)[0] - mean;
        squares += part(r, i)[1] + count(i) * difference * difference;
      }
      squares = warp_sum(squares);
      if (lane_index() == 0) store2(total(r), mean, rsqrtf(squares * share + kFmNormEps));
    }
  }

  // After another: the modulated rows.
  __device__ void modulate(const FmModulation<A>& modulation, const Held& held, A* to) const {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) modulate_unit(thread_index() + i * kFmThreads, held[i], to);
    for (int u = thread_index() + kHeld * kFmThreads; u < units_.count(); u += kFmThreads)
      modulate_unit(u, load(modulation, u), to);
  }

 private:
  __device__ FmUnitModulation<A> load(const FmModulation<A>& modulation, int unit) const {
    FmUnitModulation<A> m = {};
    if (!units_.real(unit)) return m;
    const int column = units_.column(unit);
#pragma unroll
    for (int i = 0; i < kRowsPerWord<A>; ++i) {
      const int r = units_.plane(unit) * kRowsPerWord<A> + i;
      if (r >= rows_) continue;
      const A* row = modulation.rows + static_cast<std::int64_t>(r) * modulation.stride + column;
      m.shift[i] = Raw4<A>::at(row);
      m.scale[i] = Raw4<A>::at(row + units_.d);
    }
    const std::uint32_t one = __float_as_uint(1.0f);
    m.weight = modulation.weight ? Raw4<float>::at(modulation.weight + column) : Raw4<float>{{one, one, one, one}};
    m.bias = modulation.weight ? Raw4<float>::at(modulation.bias + column) : Raw4<float>{};
    return m;
  }

  __device__ void modulate_unit(int unit, const FmUnitModulation<A>& m, A* to) const {
    if (!units_.real(unit)) return;
    float weight[kUnitColumns], bias[kUnitColumns];
    m.weight.unpack(weight);
    m.bias.unpack(bias);
#pragma unroll
    for (int i = 0; i < kRowsPerWord<A>; ++i) {
      const int r = units_.plane(unit) * kRowsPerWord<A> + i, at = r * units_.d + units_.column(unit);
      if (r >= rows_) continue;
      float x[kUnitColumns], shift[kUnitColumns], scale[kUnitColumns];
      Raw4<float>::at(hidden_ + at).unpack(x);
      m.shift[i].unpack(shift);
      m.scale[i].unpack(scale);
      const float mean = total(r)[0], inverse = total(r)[1];
#pragma unroll
      for (int j = 0; j < kUnitColumns; ++j) {
        const float v = (x[j] - mean) * inverse * weight[j] + bias[j];
        x[j] = v * (1.0f + scale[j]) + shift[j];
      }
      store4(to + at, x);
    }
  }

  __device__ static void store2(float* to, float first, float second) { to[0] = first, to[1] = second; }
  __device__ float* part(int r, int index) const { return moments_ + 2 * (r * moment_parts(units_.d) + index); }
  __device__ float* total(int r) const { return part(rows_, 0) + 2 * r; }

  float *hidden_, *moments_;
  const int rows_;
  const Units<A> units_;
};

}  // namespace nsrt::cuda
