// One image token on the GPU: backbone, condition, all steps' modulations in one product, the FM head's loop.
#include <algorithm>
#include <cstring>

#include "core/bf16.h"
#include "core/tables.h"
#include "cuda/cuda_backend.h"
#include "cuda/range.h"

namespace nsrt::cuda {
namespace {

// L2 that is asked to keep weights of the FM head between steps; the rest passes through.
std::int64_t kept_in_l2(const DeviceTraits& traits) { return traits.l2_bytes / 2; }

}  // namespace

// Sinusoids of t through the time MLP: the same for all tokens of a request.
void CudaBackend::embed_times() {
  const auto dims = static_cast<std::size_t>(kTimeDims);
  const std::int64_t d = config_.fm_head_dim;
  std::vector<float> sinusoids(plan_.solver.times.size() * dims);
  for (std::size_t k = 0; k < plan_.solver.times.size(); ++k)
    time_sinusoid(static_cast<double>(plan_.solver.times[k]), sinusoids.data() + k * dims);
  std::vector<std::uint16_t> halves(sinusoids.size());
  std::transform(sinusoids.begin(), sinusoids.end(), halves.begin(), float_to_bf16);
  const bool half = compute_ == DType::kBFloat16;
  // The modulations' buffers are free until the first token.
  std::byte *x = modulations_.data(), *inner = modulation_inputs_.data();
  enqueue_copy(x, half ? static_cast<const void*>(halves.data()) : sinusoids.data(), sinusoids.size() * width());
  for (std::int64_t i = 0; i < times(); i += chunk_) {
    const std::int64_t rows = std::min(chunk_, times() - i);
    LinearTask first = product(weights_.fm().time1, x + static_cast<std::size_t>(i * kTimeDims) * width(), rows);
    first.epilogue = Epilogue::kActivate;
    first.silu = true;
    first.y = inner;
    enqueue(first);
    LinearTask second = product(weights_.fm().time2, inner, rows);
    second.y = times_.data() + i * d;
    enqueue(second);
  }
  stream_.synchronize();  // the sinusoids end here
}

void CudaBackend::enqueue_condition() {
  condition_rows({.hidden = hidden_.data(),
                  .position = weights_.gen_pos_embed(),
                  .token = &device_inputs()->token,
                  .x = condition_input_.data(),
                  .rows = static_cast<std::int32_t>(rows_of_token()),
                  .d = static_cast<std::int32_t>(config_.hidden_size)},
                 rows_launch());
  LinearTask task = product(weights_.image_out(), condition_input_.data(), rows_of_token());
  task.epilogue = Epilogue::kActivate;
  task.y = condition_.data();
  enqueue(task);
}

void CudaBackend::enqueue_modulations() {
  const DeviceFmHead& fm = weights_.fm();
  LinearTask inputs = product(fm.cond, condition_.data(), rows_of_token());
  inputs.epilogue = Epilogue::kTimes;
  inputs.times = times_.data();
  inputs.steps = static_cast<std::int32_t>(times());
  inputs.y = modulation_inputs_.data();
  enqueue(inputs);
  const std::int64_t all = times() * rows_of_token();
  for (std::int64_t i = 0; i < all; i += chunk_) {
    const auto at = [&](const DeviceBuffer<std::byte>& buffer, std::int64_t n) {
      return buffer.data() + static_cast<std::size_t>(i * n) * width();
    };
    LinearTask task = product(fm.modulation, at(modulation_inputs_, fm.modulation.k), std::min(chunk_, all - i));
    task.epilogue = Epilogue::kActivate;
    task.y = at(modulations_, fm.modulation.n);
    enqueue(task);
  }
}

FmLaunch CudaBackend::fm_launch() const {
  return {.weights = weights_.dtype(),
          .activations = compute_,
          .sm_count = traits_.sm_count,
          .shared_limit = traits_.shared_limit,
          .l2_bytes = kept_in_l2(traits_),
          .stream = stream_.get()};
}

FmHeadTask fm_shape(const ModelConfig& c, std::int64_t branches, std::int64_t images) {
  return {.d = static_cast<std::int32_t>(c.fm_head_dim),
          .d_mlp = static_cast<std::int32_t>(c.fm_mlp_dim()),
          .d_tok = static_cast<std::int32_t>(c.token_dim()),
          .layers = static_cast<std::int32_t>(c.fm_head_layers),
          .branches = static_cast<std::int32_t>(branches),
          .images = static_cast<std::int32_t>(images)};
}

FmHeadTask CudaBackend::fm_task() const {
  const DeviceFmHead& fm = weights_.fm();
  const DeviceLinear& image_in = weights_.image_in();
  FmHeadTask task = fm_shape(config_, plan_.branches, plan_.images);
  task.renorm = plan_.renorm;
  task.normalize = plan_.normalize;
  task.input = {.w = fm.input.w, .bias = fm.input.bias};
  task.blocks = fm.device_blocks;
  task.output = {.w = fm.output.w, .bias = fm.output.bias};
  task.modulations = modulations_.data();
  task.steps = steps_.data();
  task.step_count = static_cast<std::int32_t>(num_steps_);
  task.inputs = &device_inputs()->fm;
  task.velocity = velocity_.data();
  task.latent = latent_.data();
  task.tokens = tokens_.data();
  task.outlet = {.image_in = {.w = image_in.w, .bias = image_in.bias},
                 .d_model = static_cast<std::int32_t>(config_.hidden_size),
                 .next_weight = weights_.layers().front().input_norm,
                 .residual = residual_.data(),
                 .x = x_.data(),
                 .squares = squares_.data()};
  task.launches = &device_inputs()->fm_launches;
  return task;
}

void CudaBackend::enqueue_fm_head(const FmHeadTask& task) {
  fm_head(task, {.words = fm_words_.data(), .word_count = fm_words_.size()}, fm_launch());
  after_kernel_ = true;
}

void CudaBackend::condition(std::int64_t token) {
  const DeviceScope scope(device_);
  const ProfilerRange range("condition");
  token_ = token;
  inputs().token = static_cast<std::int32_t>(token);
  enqueue_copy(device_inputs_.data(), host_inputs_.data(), sizeof(Inputs));
  enqueue_condition();
  stream_.synchronize();
}

void CudaBackend::modulate() {
  const DeviceScope scope(device_);
  const ProfilerRange range("modulate");
  after_kernel_ = false;
  enqueue_modulations();
  stream_.synchronize();
}

void CudaBackend::start(const float* noise) {
  const DeviceScope scope(device_);
  enqueue_copy(carry_.data(), noise, static_cast<std::size_t>(plan_.images * config_.token_dim()) * sizeof(float));
  stream_.synchronize();
}

void CudaBackend::run_fm_head(std::int64_t begin, std::int64_t end, bool finishes) {
  inputs().fm_launches = fm_launches_++;
  enqueue_copy(device_inputs_.data(), host_inputs_.data(), sizeof(Inputs) + noise_bytes());
  FmHeadTask task = fm_task();
  task.carry = carry_.data();
  task.step_begin = static_cast<std::int32_t>(begin);
  task.step_end = static_cast<std::int32_t>(end);
  task.finishes = finishes;
  enqueue_fm_head(task);
}

void CudaBackend::step(std::int64_t index, const TokenArgs& args) {
  const DeviceScope scope(device_);
  const ProfilerRange range("step");
  place_token(args);
  run_fm_head(index, index + 1, false);
  stream_.synchronize();
}

void CudaBackend::finish(float* out) {
  const DeviceScope scope(device_);
  const ProfilerRange range("finish");
  run_fm_head(num_steps_, num_steps_, true);
  const std::size_t bytes = static_cast<std::size_t>(plan_.images * config_.token_dim()) * sizeof(float);
  enqueue_copy(out, tokens_.data(), bytes);
  stream_.synchronize();
}

void CudaBackend::place_token(const TokenArgs& args) {
  if (args.token > 0) place_rows(args.rows);
  inputs().token = static_cast<std::int32_t>(args.token);
  inputs().fm.guidance = args.guidance;
  inputs().fm.image_guidance = args.image_guidance;
  std::memcpy(host_inputs_.data() + sizeof(Inputs), args.noise, noise_bytes());
}

void CudaBackend::enqueue_token(bool advances) {
  enqueue_copy(device_inputs_.data(), host_inputs_.data(), sizeof(Inputs) + noise_bytes());
  if (advances) enqueue_backbone(rows_of_token(), fm_grid(fm_task(), fm_launch()), decode_splits_);
  enqueue_condition();
  enqueue_modulations();
  enqueue_fm_head(fm_task());
  enqueue_copy(host_tokens_.data(), tokens_.data(),
               static_cast<std::size_t>(plan_.images * config_.token_dim()) * sizeof(float));
}

void CudaBackend::decode_token(const TokenArgs& args) {
  const DeviceScope scope(device_);
  const ProfilerRange range("token");
  token_ = args.token;
  place_token(args);
  inputs().fm_launches = fm_launches_++;
  (args.token > 0 ? next_token_ : first_token_).launch(stream_);
  if (args.meanwhile) args.meanwhile();
  stream_.synchronize();
  std::memcpy(args.out, host_tokens_.data(),
              static_cast<std::size_t>(plan_.images * config_.token_dim()) * sizeof(float));
}

}  // namespace nsrt::cuda
