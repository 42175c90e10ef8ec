// LayerNorm of rows that every block holds, 8 columns a thread at a time. Units of 8 columns of one plane (the rows
// that share a word) are padded to whole warps, so that a warp's units belong to the same rows.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/ops/fm_head/exchange.cuh"
#include "cuda/ops/fm_head/product.cuh"

namespace nsrt::cuda {

inline constexpr float kFmNormEps = 1e-6f;

// Count, mean and sum of squared differences; merged by Chan's formula, which loses nothing where the mean is large.
struct Moments {
  float count = 0, mean = 0, squares = 0;

  __device__ void merge(float other_count, float other_mean, float other_squares) {
    const float total = count + other_count;
    if (total == 0.0f) return;
    const float difference = other_mean - mean, share = other_count / total;
    mean += difference * share;
    squares += other_squares + difference * difference * count * share;
    count = total;
  }

  __device__ static Moments of(const float (&x)[8]) {
    Moments m{8.0f, 0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < 8; ++i) m.mean += x[i] / 8;
#pragma unroll
    for (int i = 0; i < 8; ++i) m.squares += (x[i] - m.mean) * (x[i] - m.mean);
    return m;
  }

  // Of all lanes, in a fixed order.
  __device__ void merge_warp() {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const bool lower = (threadIdx.x & static_cast<unsigned>(step)) == 0;
      const Moments other{__shfl_xor_sync(0xffffffffu, count, step), __shfl_xor_sync(0xffffffffu, mean, step),
                          __shfl_xor_sync(0xffffffffu, squares, step)};
      Moments first = lower ? *this : other;
      const Moments& second = lower ? other : *this;
      first.merge(second.count, second.mean, second.squares);
      *this = first;
    }
  }

  __device__ float scale() const { return rsqrtf(squares / count + kFmNormEps); }
};

// How the units of a [rows, d] buffer are dealt to threads.
template <class A>
struct Units {
  int d, planes, padded;  // padded: units of a plane

  __device__ Units(int rows, int width) : d(width), planes(planes_of<A>(rows)), padded((width / 8 + 31) / 32 * 32) {}
  __device__ int count() const { return planes * padded; }
  __device__ int plane(int unit) const { return unit / padded; }
  __device__ int column(int unit) const { return unit % padded * 8; }
  __device__ bool real(int unit) const { return unit < count() && column(unit) < d; }
  __device__ int warps() const { return padded / 32; }  // partial sums of a row
};

// The residual stream of all rows, [rows, d] in float32, a copy in every block.
template <class A>
class FmResidual {
 public:
  __device__ FmResidual(float* hidden, float* partials, int rows, int d)
      : hidden_(hidden), partials_(partials), rows_(rows), units_(rows, d) {}

  // Adds what the exchange brings, or begins with it, and leaves each row's moments in parts.
  __device__ void grow(const std::uint64_t* words, std::uint32_t tag, bool begins) {
    // Whole warps take every turn: they merge their moments.
    for (int first = 0; first < units_.count(); first += kFmThreads) {
      const int u = first + thread_index(), column = units_.column(u);
      const bool real = units_.real(u);
      std::uint32_t payload[8] = {};
      if (real) receive(words + units_.plane(u) * units_.d + column, tag, payload);
      for (int i = 0; i < kRowsPerWord<A>; ++i) {
        const int r = units_.plane(u) * kRowsPerWord<A> + i;
        Moments moments;
        if (real && r < rows_) {
          float* h = hidden_ + r * units_.d + column;
          float values[8];
#pragma unroll
          for (int j = 0; j < 8; ++j) h[j] = values[j] = value_of<A>(payload[j], i) + (begins ? 0.0f : h[j]);
          moments = Moments::of(values);
        }
        moments.merge_warp();
        if (threadIdx.x % 32 == 0 && u < units_.count() && r < rows_) store(moments, r, column / 256);
      }
    }
  }

  // LN(h) (* weight + bias) * (1 + scale) + shift; `modulation` is row 0's shift, then scale; rows are `stride` apart.
  __device__ void modulate(const A* modulation, int stride, const float* weight, const float* bias, A* to) const {
    for (int u = thread_index(); u < units_.count(); u += kFmThreads) {
      for (int i = 0; units_.real(u) && i < kRowsPerWord<A>; ++i) {
        const int r = units_.plane(u) * kRowsPerWord<A> + i, column = units_.column(u);
        if (r >= rows_) continue;
        float shift[8], scale[8];
        const A* row = modulation + static_cast<std::int64_t>(r) * stride + column;
        load8(row, shift);
        load8(row + units_.d, scale);
        const Moments moments = total(r);
        const float inverse = moments.scale();
        const float* h = hidden_ + r * units_.d + column;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          float v = (h[j] - moments.mean) * inverse;
          if (weight) v = v * weight[column + j] + bias[column + j];
          to[r * units_.d + column + j] = rounded<A>(v * (1.0f + scale[j]) + shift[j]);
        }
      }
    }
  }

 private:
  __device__ float* part(int r, int index) const { return partials_ + (r * units_.warps() + index) * 3; }

  __device__ void store(const Moments& m, int r, int index) const {
    float* to = part(r, index);
    to[0] = m.count, to[1] = m.mean, to[2] = m.squares;
  }

  __device__ Moments total(int r) const {
    Moments all;
    for (int i = 0; i < units_.warps(); ++i) all.merge(part(r, i)[0], part(r, i)[1], part(r, i)[2]);
    return all;
  }

  float *hidden_, *partials_;
  const int rows_;
  const Units<A> units_;
};

}  // namespace nsrt::cuda
