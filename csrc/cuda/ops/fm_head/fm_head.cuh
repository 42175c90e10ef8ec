// Persistent, cooperative, one block on each SM. Every block holds x and the residual stream of all rows, and a share
// of every matrix's rows; it receives what the others made, normalizes it for itself, and sends its own share of the
// next product. What a block needs next that does not depend on the others (weights, modulations) it loads before it
// waits.
//
// Bound by the larger of bytes (input_proj, block MLPs, last linear, in every evaluation) and exchanges, 2 + 2 x layers
// of them. Weights that fit into shared memory stay there; of the others L2 is asked to keep some.
#pragma once

#include "cuda/ops/fm_head/exchange.cuh"
#include "cuda/ops/fm_head/memory.cuh"
#include "cuda/ops/fm_head/norm.cuh"
#include "cuda/ops/fm_head/outlet.cuh"
#include "cuda/ops/fm_head/product.cuh"
#include "cuda/ops/fm_head/solver.cuh"

namespace nsrt::cuda {

template <class W, class A, int kRows>
class FmKernel {
 public:
  __device__ FmKernel(const FmHeadTask& task, const FmWorkspace& workspace, const FmPlacement& placement,
                      const FmShared<W, A>& shared)
      : t_(task),
        workspace_(workspace),
        shared_(shared),
        placement_(placement),
        rows_(task.branches * task.images),
        width_((3 * task.layers + 2) * task.d),
        residual_{shared.hidden, shared.partials, rows_, task.d},
        solver_{task, shared.velocity, shared.x, shared.kept_x, shared.kept_v} {
    tag_ = *task.launches * static_cast<std::uint32_t>(task.step_count * (2 + 2 * task.layers)) + 1;
    kept_policy_ = placement.cached > 0 ? ptx::policy_evict_last(1.0f) : 0;
    passing_policy_ = placement.cached > 0 ? ptx::policy_evict_first() : 0;
  }

  __device__ void run() {
    load_resident();
    solver_.start();
    FmStep step = t_.step_begin < t_.step_end ? t_.steps[t_.step_begin] : FmStep{};
    for (int s = t_.step_begin; s < t_.step_end; ++s) {
      const FmStep next = s + 1 < t_.step_end ? t_.steps[s + 1] : FmStep{};
      evaluate(step);
      __syncthreads();
      step = next;
    }
    if (blockIdx.x == 0 && t_.step_begin < t_.step_end) {
      solver_.report_velocity();
      solver_.save();
    }
    if (t_.finishes) finish();
  }

 private:
  // ---- weights

  __device__ WeightRows<W> rows_of(const FmProduct& product, int n, int k) const {
    const auto blocks = static_cast<long long>(gridDim.x), block = static_cast<long long>(blockIdx.x);
    WeightRows<W> rows;
    rows.begin = static_cast<int>(n * block / blocks);
    rows.count = static_cast<int>(n * (block + 1) / blocks) - rows.begin;
    rows.k = k;
    rows.global = static_cast<const W*>(product.w) + static_cast<std::int64_t>(rows.begin) * k;
    rows.bias = product.bias;
    return rows;
  }

  // Matrix `index` of the blocks' MLPs: fc1 and fc2 in turn.
  __device__ WeightRows<W> mlp_rows(int index) const {
    const FmBlock& block = t_.blocks[index / 2];
    WeightRows<W> rows = index % 2 == 0 ? rows_of(block.fc1, t_.d_mlp, t_.d) : rows_of(block.fc2, t_.d, t_.d_mlp);
    if (index < placement_.resident)
      rows.shared = shared_.weights + resident_numbers(t_, index, static_cast<int>(gridDim.x));
    else
      rows.policy = index < placement_.resident + placement_.cached ? kept_policy_ : passing_policy_;
    return rows;
  }

  __device__ void load_resident() {
    for (int i = 0; i < placement_.resident; ++i) {
      const WeightRows<W> rows = mlp_rows(i);
      auto* to = const_cast<W*>(rows.shared);
      constexpr int kPerCopy = 16 / sizeof(W);
      for (int at = thread_index() * kPerCopy; at < rows.count * rows.k; at += kFmThreads * kPerCopy)
        ptx::cp_async_16(to + at, rows.global + at);
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
  }

  // ---- one evaluation of the velocity

  // What a lane that sends a row of the sums adds to it, and multiplies it with.
  struct Rest {
    float bias = 0;
    A gates[kRowsPerWord<A>] = {};
  };

  // Velocities, and the solver's update with them.
  __device__ void evaluate(const FmStep& step) {
    const A* modulation = static_cast<const A*>(t_.modulations) + static_cast<std::int64_t>(step.time) * rows_ * width_;
    send_input();
    for (int l = 0; l < t_.layers; ++l, modulation += 3 * t_.d) {
      const FmBlock& block = t_.blocks[l];
      const WeightRows<W> fc1 = mlp_rows(2 * l), fc2 = mlp_rows(2 * l + 1);
      FirstRow<W> first;
      first.fetch(fc1, warp_index(), lane_index());
      Rest rest = first_rest(fc1, nullptr);
      normalize(l == 0, {modulation, width_, block.norm_weight, block.norm_bias});
      send_inner(fc1, first, rest);
      first.fetch(fc2, warp_index(), lane_index());
      rest = first_rest(fc2, modulation + 2 * t_.d);
      receive_inner();
      send_delta(fc2, first, rest, modulation + 2 * t_.d);
    }
    const WeightRows<W> output = rows_of(t_.output, t_.d_tok, t_.d);
    FirstRow<W> first;
    first.fetch(output, warp_index(), lane_index());
    const Rest rest = first_rest(output, nullptr);
    normalize(t_.layers == 0, {modulation, width_, nullptr, nullptr});
    send_velocity(output, first, rest);
    const auto drawn = solver_.draw(step);
    receive_velocity();
    solver_.step(step, drawn);
  }

  // Of row n of a product, for the lane that sends plane `lane`; `gates` is row 0's, or null.
  __device__ Rest rest_of(const WeightRows<W>& rows, const A* gates, int n) const {
    Rest rest;
    rest.bias = rows.bias[n];
#pragma unroll
    for (int i = 0; i < kRowsPerWord<A>; ++i) {
      const int r = lane_index() * kRowsPerWord<A> + i;
      if (gates && r < rows_) rest.gates[i] = gates[static_cast<std::int64_t>(r) * width_ + n];
    }
    return rest;
  }
  __device__ Rest first_rest(const WeightRows<W>& rows, const A* gates) const {
    return warp_index() < rows.count ? rest_of(rows, gates, rows.begin + warp_index()) : Rest{};
  }

  // The exchanges' buffers. No pointers are kept: an array of them, indexed at run time, would put the whole object
  // into local memory.
  __device__ std::uint64_t* hidden_words() const { return workspace_.words + hidden_parity_ * planes() * t_.d; }
  __device__ std::uint64_t* inner_words() const { return workspace_.words + 2 * planes() * t_.d; }
  __device__ std::uint64_t* velocity_words() const { return inner_words() + planes() * t_.d_mlp; }
  __device__ int planes() const { return planes_of<A>(rows_); }

  // A row's number from every lane's copy of the sums: lane p sends plane p, whose row i becomes finished(i, value).
  template <class F>
  __device__ void send(std::uint64_t* words, int n, int index, const float (&values)[kRows], F&& finished) const {
#pragma unroll
    for (int p = 0; p < planes_of<A>(kRows); ++p) {
      constexpr int kPer = kRowsPerWord<A>;
      if (lane_index() == p && p * kPer < rows_) {
        const int second_row = p * kPer + kPer - 1;
        const float first = finished(0, values[p * kPer]);
        const float second = second_row < rows_ ? finished(kPer - 1, values[min(second_row, kRows - 1)]) : 0.0f;
        ptx::store_relaxed_64(words + p * n + index, tagged(tag_, payload_of<A>(first, second)));
      }
    }
  }

  // input_proj(x): the branches of an image share x.
  __device__ void send_input() {
    const int count = t_.images * t_.d_tok;
    for (int i = thread_index(); i < count; i += kFmThreads) shared_.operand[i] = rounded<A>(shared_.x[i]);
    const WeightRows<W> rows = rows_of(t_.input, t_.d, t_.d_tok);
    FirstRow<W> first;
    first.fetch(rows, warp_index(), lane_index());
    const Rest rest = first_rest(rows, nullptr);
    __syncthreads();
    std::uint64_t* words = hidden_words();
    multiply(rows, first, rest, nullptr, shared_.operand, t_.images, [&](int n, const Rest& r, float (&sums)[kRows]) {
      float spread[kRows];  // row i is of image i % images
#pragma unroll
      for (int i = 0; i < kRows; ++i) spread[i] = pick(sums, i % t_.images);
      send(words, t_.d, n, spread, [&](int, float v) { return v + r.bias; });
    });
  }

  template <class Send>
  __device__ void multiply(const WeightRows<W>& rows, const FirstRow<W>& first, const Rest& rest, const A* gates,
                           const A* x, int x_rows, Send&& each) const {
    multiply_rows<kRows>(
        rows, first, rest, x, x_rows, warp_index(), lane_index(), [&](int n) { return rest_of(rows, gates, n); }, each);
  }

  __device__ void send_inner(const WeightRows<W>& rows, const FirstRow<W>& first, const Rest& rest) {
    std::uint64_t* words = inner_words();
    multiply(rows, first, rest, nullptr, shared_.operand, rows_, [&](int n, const Rest& r, float (&sums)[kRows]) {
      send(words, t_.d_mlp, n, sums, [&](int, float v) { return silu(v + r.bias); });
    });
  }

  __device__ void send_delta(const WeightRows<W>& rows, const FirstRow<W>& first, const Rest& rest, const A* gates) {
    std::uint64_t* words = hidden_words();
    multiply(rows, first, rest, gates, shared_.inner, rows_, [&](int n, const Rest& r, float (&sums)[kRows]) {
      send(words, t_.d, n, sums, [&](int i, float v) { return (v + r.bias) * widened(r.gates[i]); });
    });
  }

  __device__ void send_velocity(const WeightRows<W>& rows, const FirstRow<W>& first, const Rest& rest) {
    std::uint64_t* words = velocity_words();
    multiply(rows, first, rest, nullptr, shared_.operand, rows_, [&](int n, const Rest& r, float (&sums)[kRows]) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (lane_index() == i && i < rows_)
          ptx::store_relaxed_64(words + i * t_.d_tok + n, tagged(tag_, __float_as_uint(sums[i] + r.bias)));
      }
    });
  }

  // ---- receiving; each ends with a barrier, after which all threads may read what came

  __device__ void receive_inner() {
    const std::uint64_t* words = inner_words();
    const Units<A> units(rows_, t_.d_mlp);
    for (int u = thread_index(); u < units.count(); u += kFmThreads) {
      if (!units.real(u)) continue;
      std::uint32_t payload[kUnitColumns];
      receive(words + units.plane(u) * t_.d_mlp + units.column(u), tag_, payload);
#pragma unroll
      for (int i = 0; i < kRowsPerWord<A>; ++i) {
        const int r = units.plane(u) * kRowsPerWord<A> + i;
        if (r < rows_) store_row(shared_.inner + r * t_.d_mlp + units.column(u), payload, i);
      }
    }
    ++tag_;
    __syncthreads();
  }

  __device__ void receive_velocity() {
    const std::uint64_t* words = velocity_words();
    for (int i = 2 * thread_index(); i < rows_ * t_.d_tok; i += 2 * kFmThreads) {
      std::uint32_t payload[2];
      receive(words + i, tag_, payload);
      shared_.velocity[i] = __uint_as_float(payload[0]);
      shared_.velocity[i + 1] = __uint_as_float(payload[1]);
    }
    ++tag_;
    __syncthreads();
  }

  // The residual stream grows by what came, or begins with it; normalized and modulated it is the next operand.
  __device__ void normalize(bool begins, const FmModulation<A>& modulation) {
    typename FmResidual<A, kRows>::Held held;
    residual_.hold(modulation, held);
    residual_.grow(hidden_words(), tag_, begins);
    hidden_parity_ ^= 1;
    ++tag_;
    __syncthreads();
    residual_.finish_moments();
    __syncthreads();
    residual_.modulate(modulation, held, shared_.operand);
    __syncthreads();
  }

  // ---- the end

  __device__ void finish() {
    if (blockIdx.x == 0) solver_.report_latent();
    solver_.normalize();
    __syncthreads();
    if (blockIdx.x == 0) solver_.write_tokens();
    if (t_.outlet.image_in.w == nullptr) return;
    const WeightRows<W> rows = rows_of(t_.outlet.image_in, t_.outlet.d_model, t_.d_tok);
    feed_backbone<kRows>(t_, rows, shared_);
  }

  const FmHeadTask& t_;
  const FmWorkspace& workspace_;
  const FmShared<W, A> shared_;
  const FmPlacement placement_;
  const int rows_, width_;
  FmResidual<A, kRows> residual_;
  FmSolver solver_;
  std::uint32_t tag_;
  std::uint64_t kept_policy_, passing_policy_;
  int hidden_parity_ = 0;
};

template <class W, class A, int kRows>
__global__ void __launch_bounds__(kFmThreads, 1)
    fm_head_kernel(const __grid_constant__ FmHeadTask task, const __grid_constant__ FmWorkspace workspace,
                   const __grid_constant__ FmPlacement placement) {
  NSRT_DYNAMIC_SHARED(memory);
  SharedCarver carver(memory);
  const auto weights = resident_numbers(task, placement.resident, static_cast<int>(gridDim.x));
  const auto shared = FmShared<W, A>::carve(carver, task, weights);
  FmKernel<W, A, kRows>(task, workspace, placement, shared).run();
}

}  // namespace nsrt::cuda
