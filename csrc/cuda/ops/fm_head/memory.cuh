// What a block of the FM head keeps in shared memory.
#pragma once

#include "cuda/ops/fm_head/norm.cuh"
#include "cuda/ops/fm_head/product.cuh"

namespace nsrt::cuda {

// Where a launch keeps weights between evaluations: the first `resident` matrices in shared memory, the next `cached`
// in L2, in the order fc1, fc2 of the first block, fc1, ...
struct FmPlacement {
  int resident = 0, cached = 0;
};

// Of the buffers in shared memory; host and device call it with the sizer and the carver.
template <class W, class A>
struct FmShared {
  float *hidden, *partials, *velocity, *x, *kept_x, *kept_v;
  A *operand, *inner;
  W* weights;

  template <class Carver>
  __host__ __device__ static FmShared carve(Carver& carver, const FmHeadTask& t, std::size_t weights) {
    const auto rows = static_cast<std::size_t>(t.branches * t.images), images = static_cast<std::size_t>(t.images);
    const auto d = static_cast<std::size_t>(t.d), d_tok = static_cast<std::size_t>(t.d_tok);
    FmShared s;
    s.hidden = carver.template take<float>(rows * d);
    const auto moments = static_cast<std::size_t>(moment_floats(t.branches * t.images, t.d));
    s.partials = carver.template take<float>(moments + kFmWarps * images);
    s.velocity = carver.template take<float>(rows * d_tok);
    s.x = carver.template take<float>(images * d_tok);
    s.kept_x = carver.template take<float>(images * d_tok);
    s.kept_v = carver.template take<float>(images * d_tok);
    s.operand = carver.template take<A>(rows * (d > d_tok ? d : d_tok));
    s.inner = carver.template take<A>(rows * static_cast<std::size_t>(t.d_mlp));
    s.weights = carver.template take<W>(weights);
    return s;
  }
};

// Most rows of a matrix [n, k] that one of `blocks` blocks has.
__host__ __device__ constexpr int most_rows(int n, int blocks) { return (n + blocks - 1) / blocks; }

// Numbers of shared memory for the first `resident` matrices.
__host__ __device__ constexpr std::size_t resident_numbers(const FmHeadTask& t, int resident, int blocks) {
  const std::size_t fc1 = static_cast<std::size_t>(most_rows(t.d_mlp, blocks)) * static_cast<std::size_t>(t.d);
  const std::size_t fc2 = static_cast<std::size_t>(most_rows(t.d, blocks)) * static_cast<std::size_t>(t.d_mlp);
  return static_cast<std::size_t>((resident + 1) / 2) * fc1 + static_cast<std::size_t>(resident / 2) * fc2;
}

}  // namespace nsrt::cuda
