#include "cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>

#include "core/bf16.h"
#include "core/check.h"
#include "core/tables.h"
#include "cuda/range.h"

namespace nsrt::cuda {
namespace {

std::size_t count(std::int64_t a, std::int64_t b = 1, std::int64_t c = 1, std::int64_t d = 1, std::int64_t e = 1) {
  return static_cast<std::size_t>(a * b * c * d * e);
}

// Makes room; what was there is lost, and given back first.
template <class T>
void grow(DeviceBuffer<T>& buffer, std::size_t n, const char* purpose) {
  if (n <= buffer.size()) return;
  buffer = {};
  buffer = DeviceBuffer<T>(n, purpose);
}

template <class... Buffers>
std::uint64_t bytes_of(const Buffers&... buffers) {
  return (std::uint64_t{0} + ... + buffers.bytes());
}

void check_config(const ModelConfig& c, DType compute, const DeviceTraits& traits) {
  for (const auto& [name, n] : {std::pair{"hidden_size", c.hidden_size},
                                {"intermediate_size", c.intermediate_size},
                                {"head_dim", c.head_dim},
                                {"fm_head_dim", c.fm_head_dim},
                                {"the FM head's MLP width", c.fm_mlp_dim()},
                                {"the image token's width", c.token_dim()}})
    check<CheckpointError>(n % 8 == 0, "the CUDA backend reads 16 bytes at a time: ", name, " is ", n,
                           ", and must be a multiple of 8; use device 'cpu'");
  const FmLaunch launch{.activations = compute, .sm_count = traits.sm_count, .shared_limit = traits.shared_limit};
  check<CheckpointError>(fm_most_rows(fm_shape(c, 1, 1), launch) > 0, "the FM head of width ", c.fm_head_dim,
                         " and MLP width ", c.fm_mlp_dim(), " is too wide for the ", traits.shared_limit,
                         " bytes of shared memory of ", traits.name, "; use device 'cpu'");
}

std::vector<float> widened_numbers(const std::vector<std::byte>& raw, DType type) {
  std::vector<float> out(raw.size() / item_size(type));
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (type == DType::kFloat32) {
      std::memcpy(&out[i], raw.data() + i * sizeof(float), sizeof(float));
    } else {
      std::uint16_t half;
      std::memcpy(&half, raw.data() + i * sizeof half, sizeof half);
      out[i] = bf16_to_float(half);
    }
  }
  return out;
}

// Tensor cores take four times as many rows at once as multiply-and-add.
std::int64_t chunk_rows(DType weights, DType compute) {
  return weights == DType::kBFloat16 && compute == DType::kBFloat16 ? kMaxLinearRows : 16;
}

}  // namespace

CudaBackend::CudaBackend(const ModelWeights& weights, DType compute, int device, const DeviceTraits& traits)
    : host_weights_(weights),
      config_(weights.config),
      compute_(compute),
      device_(device),
      traits_(traits),
      weights_((check_config(weights.config, compute, traits), weights), stream_),
      chunk_(chunk_rows(weights_.dtype(), compute)),
      prefill_(choose_prefill(weights_.dtype(), compute, traits, chunk_)) {
  forget_kernels(device);
  reserve_rows();
  reserve_prefill();
  reserve_workspaces();
  stream_.synchronize();
}

void CudaBackend::reserve_rows() {
  const std::int64_t d = config_.hidden_size, d_tok = config_.token_dim(), rows = prefill_.most_rows;
  const char* purpose = "activations";
  grow(residual_, count(rows, d), purpose);
  grow(squares_, count(chunk_, std::max<std::int64_t>((d + kTileRows - 1) / kTileRows, traits_.sm_count)), purpose);
  grow(x_, count(rows, std::max(d, d_tok)) * width(), purpose);
  grow(q_, count(rows, config_.num_attention_heads, config_.head_dim) * width(), purpose);
  grow(attended_, q_.size(), purpose);
  grow(inner_, count(rows, config_.intermediate_size) * width(), purpose);
  grow(hidden_, count(kMaxRows, d), purpose);
  for (auto* buffer : {&condition_input_, &condition_}) grow(*buffer, count(kMaxRows, d) * width(), purpose);
  for (auto* buffer : {&velocity_, &latent_, &tokens_}) grow(*buffer, count(kMaxRows, d_tok), purpose);
  grow(carry_, count(3, kMaxRows, d_tok), purpose);
  stream_.zero(carry_.data(), carry_.bytes());
  host_tokens_ = PinnedMemory(count(kMaxRows, d_tok) * sizeof(float));
}

void CudaBackend::reserve_workspaces() {
  const ModelConfig& c = config_;
  const char* purpose = "workspaces";
  // No launch has more tiles than rows of weights.
  const std::int64_t widest = std::max({(c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim,
                                        c.intermediate_size, c.hidden_size, c.fm_modulation_dim()});
  const WorkspaceNeed need = linear_workspace(traits_.sm_count, widest);
  grow(linear_partials_, need.partials, purpose);
  grow(linear_tickets_, need.tickets, purpose);
  stream_.zero(linear_tickets_.data(), linear_tickets_.bytes());
  grow(fm_words_, fm_workspace_words(fm_shape(config_, 1, kMaxRows)), purpose);
}

std::string CudaBackend::name() const { return str("cuda:", device_, "/sm_", traits_.major, traits_.minor); }

AttnDecodeTask CudaBackend::attention_shape(std::int64_t rows, std::int64_t positions) const {
  AttnDecodeTask task{.rows = static_cast<std::int32_t>(rows),
                      .h_q = static_cast<std::int32_t>(config_.num_attention_heads),
                      .h_kv = static_cast<std::int32_t>(config_.num_key_value_heads),
                      .d_head = static_cast<std::int32_t>(config_.head_dim),
                      .capacity = positions};
  task.splits = attn_splits(traits_.sm_count, task.rows, task.h_kv, positions);
  return task;
}

CudaBackend::Sizes CudaBackend::sizes(const StateShape& shape) const {
  const std::int64_t d_fm = config_.fm_head_dim;
  Sizes s;
  s.cache =
      count(config_.num_hidden_layers, shape.rows, config_.num_key_value_heads, shape.positions, config_.head_dim);
  s.rope = count(shape.positions, config_.head_dim / 2);
  for (const auto& task : {attention_shape(shape.rows, shape.positions), attention_shape(chunk_, shape.positions)}) {
    const WorkspaceNeed need = attn_workspace(task);
    s.attn_partials = std::max(s.attn_partials, need.partials);
    s.attn_tickets = std::max(s.attn_tickets, need.tickets);
  }
  s.times = count(shape.steps, d_fm);
  s.modulation_inputs = count(shape.steps, shape.rows, d_fm);
  s.modulations = count(shape.steps, std::max(shape.rows * config_.fm_modulation_dim(), kTimeDims));
  s.noise = count(1 + shape.steps, shape.rows, config_.token_dim());
  return s;
}

std::uint64_t CudaBackend::fixed_bytes() const {
  return bytes_of(residual_, squares_, x_, q_, attended_, inner_, hidden_, condition_input_, condition_, velocity_,
                  latent_, tokens_, carry_, fm_words_, linear_partials_, linear_tickets_, products_, prefill_places_,
                  prefill_keep_);
}

MemoryUse CudaBackend::plan(const StateShape& shape) const {
  // Branches are not known yet: as many as there may be take the least memory.
  std::int64_t branches = 3;
  while (shape.rows % branches != 0) --branches;
  check_fm_rows(fm_shape(config_, branches, shape.rows / branches), fm_launch());
  const Sizes s = sizes(shape);
  const std::uint64_t floats = 2 * s.rope + s.attn_partials + s.attn_tickets + s.times + s.noise;
  MemoryUse use;
  use.weights = weights_.nbytes();
  use.converted = host_weights_.converted_nbytes;
  use.kv_cache = 2 * s.cache * width();
  use.scratch = fixed_bytes() + floats * sizeof(float) + (s.modulation_inputs + s.modulations) * width() +
                count(2, shape.steps) * sizeof(FmStep) + sizeof(Inputs);
  return use;
}

MemoryUse CudaBackend::memory() const {
  MemoryUse use;
  use.weights = weights_.nbytes();
  use.converted = host_weights_.converted_nbytes;
  use.kv_cache = bytes_of(k_cache_, v_cache_);
  use.scratch = fixed_bytes() + bytes_of(rope_cos_, rope_sin_, attn_partials_, attn_tickets_, times_,
                                         modulation_inputs_, modulations_, steps_, device_inputs_);
  return use;
}

std::uint64_t CudaBackend::available() const {
  const DeviceScope scope(device_);
  return free_device_memory();
}

void CudaBackend::reserve(const StateShape& shape) {
  const DeviceScope scope(device_);
  const ProfilerRange range("reserve");
  first_token_ = Graph();
  next_token_ = Graph();
  shape_ = shape;
  token_ = 0;
  const Sizes s = sizes(shape);
  grow(k_cache_, s.cache * width(), "KV cache");
  grow(v_cache_, s.cache * width(), "KV cache");
  grow(attn_partials_, s.attn_partials, "workspaces");
  grow(attn_tickets_, s.attn_tickets, "workspaces");
  stream_.zero(attn_tickets_.data(), attn_tickets_.bytes());
  decode_splits_ = attention_shape(shape.rows, shape.positions).splits;
  prefill_splits_ = attention_shape(chunk_, shape.positions).splits;
  grow(device_inputs_, sizeof(Inputs), "inputs");
  if (host_inputs_.bytes() == 0) host_inputs_ = PinnedMemory(sizeof(Inputs));
  reserve_rope(shape.positions);
  stream_.synchronize();
}

void CudaBackend::reserve_rope(std::int64_t positions) {
  const std::int64_t half = config_.head_dim / 2;
  const std::size_t n = count(positions, half);
  if (n <= rope_cos_.size() && n <= rope_sin_.size()) return;
  std::vector<float> cos(n), sin(n);
  for (std::int64_t p = 0; p < positions; ++p)
    rope_angles(p, config_.rope_theta, config_.head_dim, cos.data() + p * half, sin.data() + p * half);
  rope_cos_ = {};
  rope_sin_ = {};
  rope_cos_ = DeviceBuffer<float>(n, "rotary tables");
  rope_sin_ = DeviceBuffer<float>(n, "rotary tables");
  stream_.upload<float>(rope_cos_, cos);
  stream_.upload<float>(rope_sin_, sin);
  stream_.synchronize();  // the host's tables end here
}

void CudaBackend::set_plan(const DecodePlan& plan) {
  check_fm_rows(fm_shape(config_, plan.branches, plan.images), fm_launch());
  const DeviceScope scope(device_);
  const ProfilerRange range("plan");
  first_token_ = Graph();
  next_token_ = Graph();
  plan_ = plan;
  num_steps_ = static_cast<std::int64_t>(plan.solver.steps.size());
  std::vector<FmStep> steps;
  std::int64_t draws = 1;
  for (const SolverStep& step : plan.solver.steps) {
    steps.push_back(device_step(step));
    draws = std::max(draws, step.draw + 1);
  }
  const Sizes s = sizes({rows_of_token(), 1, times()});
  grow(times_, s.times, "time embeddings");
  grow(modulation_inputs_, s.modulation_inputs * width(), "modulations");
  grow(modulations_, s.modulations * width(), "modulations");
  grow(steps_, steps.size(), "solver steps");
  noise_count_ = count(draws, plan.images, config_.token_dim());
  grow(device_inputs_, sizeof(Inputs) + noise_bytes(), "inputs");
  if (host_inputs_.bytes() < sizeof(Inputs) + noise_bytes())
    host_inputs_ = PinnedMemory(sizeof(Inputs) + noise_bytes());
  stream_.upload<FmStep>(steps_, steps);
  // Tags count on the number of exchanges of a launch, which the plan decides.
  stream_.zero(fm_words_.data(), fm_words_.bytes());
  fm_launches_ = 0;
  embed_times();
  stream_.synchronize();
  first_token_ = Graph::record(stream_, [&] { enqueue_token(false); });
  next_token_ = Graph::record(stream_, [&] { enqueue_token(true); });
}

std::vector<float> CudaBackend::state(StateBuffer which) const {
  const DeviceScope scope(device_);
  const auto floats = [&](const DeviceBuffer<float>& buffer, std::int64_t rows, std::int64_t n) {
    std::vector<float> out(count(rows, n));
    stream_.copy(out.data(), buffer.data(), out.size() * sizeof(float));
    stream_.synchronize();
    return out;
  };
  const auto numbers = [&](const DeviceBuffer<std::byte>& buffer, std::int64_t rows, std::int64_t n) {
    std::vector<std::byte> raw(count(rows, n) * width());
    stream_.copy(raw.data(), buffer.data(), raw.size());
    stream_.synchronize();
    return widened_numbers(raw, compute_);
  };
  const std::int64_t d = config_.hidden_size;
  switch (which) {
    case StateBuffer::kHidden: {
      std::vector<float> hidden = floats(hidden_, shape_.rows, d);
      const float* position = host_weights_.gen_pos_embed ? host_weights_.gen_pos_embed + token_ * d : nullptr;
      for (std::size_t i = 0; position && i < hidden.size(); ++i)
        hidden[i] += position[i % static_cast<std::size_t>(d)];
      return hidden;
    }
    case StateBuffer::kCond:
      return numbers(condition_, rows_of_token(), d);
    case StateBuffer::kModulation:
      return numbers(modulations_, times() * rows_of_token(), config_.fm_modulation_dim());
    case StateBuffer::kVelocity:
      return floats(velocity_, rows_of_token(), config_.token_dim());
    case StateBuffer::kLatent:
      return floats(latent_, plan_.images, config_.token_dim());
  }
  throw Error(str("no such state buffer: ", static_cast<int>(which)));
}

}  // namespace nsrt::cuda
