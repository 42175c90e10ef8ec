// The public face of the decode loop: one lock, the checks of what callers hand in, and a Session over a Backend.
#include "nextstep_rt/engine.h"

#include <algorithm>
#include <atomic>

#include "backend/backend.h"
#include "core/check.h"
#include "core/weights.h"
#include "engine/session.h"

namespace nsrt {
namespace {

// One call at a time: state is not shared between threads, and a second caller must hear of it, not race.
class Exclusive {
 public:
  explicit Exclusive(std::atomic_flag& busy) : busy_(busy) {
    check(!busy_.test_and_set(std::memory_order_acquire),
          "this engine is busy in another thread or in its own callback; wait for that call, or use another engine");
  }
  ~Exclusive() { busy_.clear(std::memory_order_release); }
  Exclusive(const Exclusive&) = delete;
  Exclusive& operator=(const Exclusive&) = delete;

 private:
  std::atomic_flag& busy_;
};

std::vector<std::int64_t> real_columns(std::span<const std::uint8_t> mask, std::int64_t rows, std::int64_t width) {
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(rows), width);
  for (std::int64_t r = 0; !mask.empty() && r < rows; ++r) {
    const auto row = mask.subspan(static_cast<std::size_t>(r * width), static_cast<std::size_t>(width));
    const auto real = std::count_if(row.begin(), row.end(), [](std::uint8_t m) { return m != 0; });
    check<InvalidRequest>(real > 0, "row ", r, " of the mask has no real column; a row needs at least one token");
    lengths[static_cast<std::size_t>(r)] = real;
  }
  return lengths;
}

// `size` elements where `expected` are needed.
void check_size(const char* name, std::size_t size, std::int64_t expected) {
  check<InvalidRequest>(size == static_cast<std::size_t>(expected), name, " has ", size, " elements; the call needs ",
                        expected);
}

StageClock& clock_of(Backend& backend) {
  StageClock* clock = backend.clock();
  check<InvalidRequest>(clock != nullptr, backend.name(),
                        " clocks no stages: a token is one launch there; profile it with NVIDIA Nsight Systems");
  return *clock;
}

}  // namespace

struct Engine::Impl {
  std::shared_ptr<const void> keep_alive;
  DType compute;
  ModelWeights weights;
  std::unique_ptr<Backend> backend;
  Session session;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;

  Impl(const ModelConfig& config, const TensorMap& tensors, const EngineOptions& options,
       std::shared_ptr<const void> owner)
      : keep_alive(std::move(owner)),
        compute(options.compute),
        weights(bind_weights(config, tensors, options.compute)),
        backend(make_backend(weights, options.device, options.compute, options.threads)),
        session(weights, *backend) {}
};

Engine::Engine(const ModelConfig& config, const TensorMap& tensors, const EngineOptions& options,
               std::shared_ptr<const void> keep_alive)
    : impl_(std::make_unique<Impl>(config, tensors, options, std::move(keep_alive))) {}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

Engine::Impl& Engine::impl() const {
  check(impl_ != nullptr, "this engine was moved from; use the one it was moved to");
  return *impl_;
}

const ModelConfig& Engine::config() const { return impl().weights.config; }
DType Engine::compute() const { return impl().compute; }
int Engine::threads() const { return impl().backend->threads(); }
std::string Engine::backend() const { return impl().backend->name(); }
std::int64_t Engine::rows() const { return impl().session.rows(); }
std::int64_t Engine::position() const { return impl().session.position(); }
std::int64_t Engine::images(std::int64_t branches) const { return impl().session.images_in(branches); }

std::vector<float> Engine::embed_tokens(std::span<const std::int64_t> ids) const {
  for (const std::int64_t id : ids)
    check<InvalidRequest>(id >= 0 && id < config().vocab_size, "token id ", id, " is outside the vocabulary of ",
                          config().vocab_size);
  std::vector<float> out(ids.size() * static_cast<std::size_t>(config().hidden_size));
  nsrt::embed_tokens(impl().weights, ids, out.data());
  return out;
}

std::vector<float> Engine::project_tokens(std::span<const float> tokens) const {
  const Exclusive lock(impl().busy);
  const auto d = static_cast<std::size_t>(config().token_dim());
  check<InvalidRequest>(tokens.size() % d == 0, "tokens has ", tokens.size(), " elements, no multiple of the ", d,
                        " of an image token");
  const std::size_t n = tokens.size() / d;
  std::vector<float> out(n * static_cast<std::size_t>(config().hidden_size));
  if (n > 0) impl().backend->project_tokens(tokens.data(), static_cast<std::int64_t>(n), out.data());
  return out;
}

MemoryUse Engine::plan(std::int64_t rows, std::int64_t positions, std::int64_t steps) const {
  check<InvalidRequest>(rows >= 1 && rows <= kMaxRows, "rows is ", rows, "; it must be between 1 and ", kMaxRows);
  check<InvalidRequest>(positions >= 1 && positions <= config().max_position_embeddings, "positions is ", positions,
                        "; it must be between 1 and ", config().max_position_embeddings);
  check<InvalidRequest>(steps >= 1 && steps <= kMaxInferenceSteps, "steps is ", steps, "; it must be between 1 and ",
                        kMaxInferenceSteps);
  return impl().backend->plan({rows, positions, steps});
}

MemoryUse Engine::memory() const {
  const Exclusive lock(impl().busy);
  return impl().backend->memory();
}

bool Engine::takes_prefill_attention() const { return impl().backend->takes_prefill_attention(); }

void Engine::set_prefill_attention(PrefillAttentionFn attention) {
  const Exclusive lock(impl().busy);
  Backend& backend = *impl().backend;
  check<InvalidRequest>(!attention || backend.takes_prefill_attention(), backend.name(), " in ", name_of(compute()),
                        " computes the attention of prefill itself; a function can take its place on a CUDA device, ",
                        "in bfloat16, in a build with CUTLASS");
  backend.set_prefill_attention(std::move(attention));
}

void Engine::prefill(std::span<const float> embeds, std::span<const std::uint8_t> mask, std::int64_t rows,
                     std::int64_t width, std::int64_t max_new_tokens, const ProgressFn& progress) {
  const Exclusive lock(impl().busy);
  check<InvalidRequest>(rows >= 1 && rows <= kMaxRows, "prefill of ", rows, " rows; an engine carries 1 to ", kMaxRows);
  const std::int64_t positions = config().max_position_embeddings;
  // A padded row may be wider than the model's positions, within reason; its real columns may not.
  check<InvalidRequest>(width >= 1 && width <= 2 * positions, "prefill of rows of ", width,
                        " columns; there must be between 1 and twice the model's ", positions, " positions");
  check_size("embeds", embeds.size(), rows * width * config().hidden_size);
  if (!mask.empty()) check_size("mask", mask.size(), rows * width);
  Session& session = impl().session;
  session.begin(real_columns(mask, rows, width), max_new_tokens);
  try {
    session.prefill(embeds.data(), mask.empty() ? nullptr : mask.data(), width, progress);
  } catch (...) {
    session.forget();  // half-filled rows must not be decoded
    throw;
  }
}

std::int64_t Engine::decode(const SamplingParams& params, std::int64_t count, std::span<const float> noise,
                            std::span<const std::uint64_t> seeds, std::span<float> out, const ProgressFn& progress) {
  const Exclusive lock(impl().busy);
  Session& session = impl().session;
  session.check_decode(params, count);
  const std::int64_t images = session.images_in(params.branches), d = config().token_dim();
  const std::int64_t noise_of_token = (1 + params.num_inference_steps) * images * d;
  check<InvalidRequest>(noise.empty() != seeds.empty(), "decode needs either noise or seeds");
  if (seeds.empty())
    check_size("noise", noise.size(), count * noise_of_token);
  else
    check_size("seeds", seeds.size(), images);
  check_size("out", out.size(), images * count * d);
  session.plan(params);
  std::vector<float> token(static_cast<std::size_t>(images * d));
  for (std::int64_t s = 0; s < count; ++s) {
    session.decode_token(noise.empty() ? nullptr : noise.data() + s * noise_of_token, seeds.data(), token.data());
    for (std::int64_t i = 0; i < images; ++i) std::copy_n(token.data() + i * d, d, out.data() + (i * count + s) * d);
    if (progress && !progress(session.position(), params.num_tokens)) return s + 1;
  }
  return count;
}

void Engine::reset() {
  const Exclusive lock(impl().busy);
  impl().session.forget();
}

void Engine::profile(bool on) {
  const Exclusive lock(impl().busy);
  clock_of(*impl().backend).set(on);
}

std::vector<StageProfile> Engine::stages() const {
  const Exclusive lock(impl().busy);
  const StageTimes& times = clock_of(*impl().backend).times();
  std::vector<StageProfile> stages;
  for (std::size_t i = 0; i < kStages; ++i) stages.push_back({kStageNames[i], times[i].seconds, times[i].barriers});
  return stages;
}

std::vector<float> Engine::state(StateBuffer which) const {
  const Exclusive lock(impl().busy);
  check<InvalidRequest>(rows() > 0 && (which == StateBuffer::kHidden || position() > 0),
                        "there is no such state before ", rows() > 0 ? "decode" : "prefill");
  return impl().backend->state(which);
}

}  // namespace nsrt
