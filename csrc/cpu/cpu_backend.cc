#include "cpu/cpu_backend.h"

#include <algorithm>
#include <iterator>

#include "core/check.h"
#include "core/tables.h"

namespace nsrt::cpu {
namespace {

std::size_t count(std::int64_t a, std::int64_t b = 1, std::int64_t c = 1, std::int64_t d = 1, std::int64_t e = 1) {
  return static_cast<std::size_t>(a * b * c * d * e);
}

bool uses_dot(const KernelTable& kernels, DType compute) { return compute == DType::kBFloat16 && kernels.has_dot; }

}  // namespace

CpuBackend::CpuBackend(const ModelWeights& weights, DType compute, int threads)
    : weights_(weights),
      config_(weights.config),
      kernels_(cpu::kernels()),
      kv_dtype_(compute),
      input_dtype_(uses_dot(kernels_, compute) ? DType::kBFloat16 : DType::kFloat32),
      pool_(threads),
      scratch_(static_cast<std::size_t>(pool_.size())),
      modulation_width_(config_.fm_modulation_dim()) {
  const std::int64_t d = config_.hidden_size, d_fm = config_.fm_head_dim, d_tok = config_.token_dim();
  const std::int64_t width = std::max({d, d_fm, d_tok, config_.head_dim, std::int64_t{256}});
  for (Scratch& s : scratch_) {
    s.row.reserve(count(width));
    s.input.reserve(count(kChunkRows, width) * input_size());
    s.packed.reserve(count(packed_numbers(0)));
    for (Buffer<float>* b : {&s.x, &s.kept_x, &s.kept_v, &s.guided}) b->reserve(count(kMaxRows, d_tok));
  }
  const std::int64_t q = config_.num_attention_heads * config_.head_dim;
  const std::int64_t kv = config_.num_key_value_heads * config_.head_dim;
  x_.reserve(count(kChunkRows, d));
  tmp_.reserve(count(kChunkRows, d));
  q_.reserve(count(kChunkRows, q));
  k_.reserve(count(kChunkRows, kv));
  v_.reserve(count(kChunkRows, kv));
  gate_.reserve(count(kChunkRows, config_.intermediate_size));
  up_.reserve(count(kChunkRows, config_.intermediate_size));
  attn_.reserve(count(kChunkRows, q) * input_size());
  ff_.reserve(count(kChunkRows, config_.intermediate_size) * input_size());
  const std::int64_t fm_width = std::max(d_fm, config_.fm_mlp_dim());
  hidden_.reserve(count(kMaxRows, d));
  cond_.reserve(count(kMaxRows, d));
  cond_embeds_.reserve(count(kMaxRows, d_fm));
  fm_h_.reserve(count(kMaxRows, d_fm));
  fm_tmp_.reserve(count(kMaxRows, fm_width));
  fm_ff_.reserve(count(kMaxRows, config_.fm_mlp_dim()) * input_size());
  for (Buffer<float>* b : {&velocity_, &latent_, &tokens_}) b->reserve(count(kMaxRows, d_tok));
}

std::int64_t CpuBackend::packed_numbers(std::int64_t modulations) const {
  if (!kernels_.packs || input_dtype_ != DType::kBFloat16) return 0;
  const std::int64_t width =
      std::max({config_.hidden_size, config_.intermediate_size, config_.fm_head_dim, config_.fm_mlp_dim(),
                config_.num_attention_heads * config_.head_dim, config_.token_dim(), std::int64_t{256}});
  return std::max(packed_size(kChunkRows, width), packed_size(modulations, config_.fm_head_dim));
}

std::uint64_t CpuBackend::fixed_bytes() const {
  std::uint64_t bytes = attn_.nbytes() + ff_.nbytes() + fm_ff_.nbytes();
  for (const Scratch& s : scratch_) {
    bytes += s.input.nbytes();
    for (const Buffer<float>* b : {&s.row, &s.x, &s.kept_x, &s.kept_v, &s.guided}) bytes += b->nbytes();
  }
  for (const Buffer<float>* b : {&x_, &tmp_, &q_, &k_, &v_, &gate_, &up_, &hidden_, &cond_, &cond_embeds_, &fm_h_,
                                 &fm_tmp_, &velocity_, &latent_, &tokens_})
    bytes += b->nbytes();
  return bytes;
}

MemoryUse CpuBackend::plan(const StateShape& shape) const {
  const std::int64_t h_q = config_.num_attention_heads, d = config_.head_dim, d_fm = config_.fm_head_dim;
  const std::int64_t blocks = attention_blocks(shape.positions);
  const std::uint64_t floats = count(kChunkRows, blocks, h_q, d + 2) + count(shape.positions, d) +
                               count(shape.steps, shape.rows, modulation_width_) + count(shape.steps, d_fm) +
                               count(threads(), std::max(kMostHeads * kAttentionBlock, blocks));
  const std::uint64_t packed = count(threads(), packed_numbers(shape.steps * shape.rows));
  MemoryUse use;
  use.weights = weights_.nbytes;
  use.converted = weights_.converted_nbytes;
  use.kv_cache = 2 * count(config_.num_hidden_layers, shape.rows, config_.num_key_value_heads, shape.positions, d) *
                 item_size(kv_dtype_);
  use.scratch = fixed_bytes() + floats * sizeof(float) + count(shape.steps, shape.rows, d_fm) * input_size() +
                packed * sizeof(std::uint16_t);
  return use;
}

MemoryUse CpuBackend::memory() const {
  MemoryUse use;
  use.weights = weights_.nbytes;
  use.converted = weights_.converted_nbytes;
  use.kv_cache = k_cache_.nbytes() + v_cache_.nbytes();
  use.scratch = fixed_bytes() + modulation_input_.nbytes();
  for (const Scratch& s : scratch_) use.scratch += s.scores.nbytes() + s.packed.nbytes();
  for (const Buffer<float>* b :
       {&partial_out_, &partial_max_, &partial_sum_, &rope_cos_, &rope_sin_, &time_embeds_, &modulations_})
    use.scratch += b->nbytes();
  return use;
}

void CpuBackend::reserve(const StateShape& shape) {
  shape_ = shape;
  token_ = 0;
  const std::int64_t d = config_.head_dim, h_q = config_.num_attention_heads;
  const std::int64_t blocks = attention_blocks(shape.positions);
  const std::size_t cached =
      count(config_.num_hidden_layers, shape.rows, config_.num_key_value_heads, shape.positions, d);
  k_cache_.reserve(cached * item_size(kv_dtype_));
  v_cache_.reserve(cached * item_size(kv_dtype_));
  partial_out_.reserve(count(kChunkRows, blocks, h_q, d));
  partial_max_.reserve(count(kChunkRows, blocks, h_q));
  partial_sum_.reserve(count(kChunkRows, blocks, h_q));
  for (Scratch& s : scratch_) s.scores.reserve(count(std::max(kMostHeads * kAttentionBlock, blocks)));

  if (shape.positions <= rope_positions_) return;
  rope_positions_ = 0;  // until both tables are whole: reserving may throw
  rope_cos_.reserve(count(shape.positions, d / 2));
  rope_sin_.reserve(count(shape.positions, d / 2));
  for (std::int64_t p = 0; p < shape.positions; ++p)
    rope_angles(p, config_.rope_theta, d, rope_cos_.data() + p * (d / 2), rope_sin_.data() + p * (d / 2));
  rope_positions_ = shape.positions;
}

void CpuBackend::set_plan(const DecodePlan& plan) {
  plan_ = plan;
  num_steps_ = static_cast<std::int64_t>(plan.solver.steps.size());
  const auto times = static_cast<std::int64_t>(plan.solver.times.size());
  time_embeds_.reserve(count(times, config_.fm_head_dim));
  modulation_input_.reserve(count(times, fm_rows(), config_.fm_head_dim) * input_size());
  modulations_.reserve(count(times, fm_rows(), modulation_width_));
  for (Scratch& s : scratch_) s.packed.reserve(count(packed_numbers(times * fm_rows())));
  pool_.run([&](Team& team) { embed_times(team); });
}

std::vector<float> CpuBackend::state(StateBuffer which) const {
  const auto copy = [](const Buffer<float>& b, std::int64_t rows, std::int64_t n) {
    return std::vector<float>(b.data(), std::next(b.data(), rows * n));
  };
  const auto times = static_cast<std::int64_t>(plan_.solver.times.size());
  switch (which) {
    case StateBuffer::kHidden: {
      const std::int64_t d = config_.hidden_size;
      std::vector<float> hidden = copy(hidden_, shape_.rows, d);
      for (std::int64_t i = 0; weights_.gen_pos_embed && i < shape_.rows * d; ++i)
        hidden[static_cast<std::size_t>(i)] += weights_.gen_pos_embed[token_ * d + i % d];
      return hidden;
    }
    case StateBuffer::kCond:
      return copy(cond_, fm_rows(), config_.hidden_size);
    case StateBuffer::kModulation:
      return copy(modulations_, times * fm_rows(), modulation_width_);
    case StateBuffer::kVelocity:
      return copy(velocity_, fm_rows(), config_.token_dim());
    case StateBuffer::kLatent:
      return copy(latent_, plan_.images, config_.token_dim());
  }
  throw Error(str("no such state buffer: ", static_cast<int>(which)));
}

}  // namespace nsrt::cpu

namespace nsrt {

std::unique_ptr<Backend> make_cpu_backend(const ModelWeights& weights, DType compute, int threads) {
  return std::make_unique<cpu::CpuBackend>(weights, compute, threads);
}

}  // namespace nsrt
