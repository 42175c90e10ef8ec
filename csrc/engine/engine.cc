// The decode loop of docs/model.md, section "Decoding", over a Backend; knows nothing of CPU or CUDA.
#include "nextstep_rt/engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "backend/backend.h"
#include "core/check.h"
#include "core/solver.h"
#include "core/weights.h"

namespace nsrt {
namespace {

std::string gib(std::uint64_t bytes) {
  return str(static_cast<double>(bytes * 100 / (std::uint64_t{1} << 30)) / 100, " GiB");
}

// One call at a time: state is not shared between threads, and a second caller must hear of it, not race.
class Exclusive {
 public:
  explicit Exclusive(std::atomic_flag& busy) : busy_(busy) {
    check(!busy_.test_and_set(std::memory_order_acquire),
          "this engine is busy in another thread; use one engine a thread or wait for the other call");
  }
  ~Exclusive() { busy_.clear(std::memory_order_release); }
  Exclusive(const Exclusive&) = delete;
  Exclusive& operator=(const Exclusive&) = delete;

 private:
  std::atomic_flag& busy_;
};

}  // namespace

struct Engine::Impl {
  std::shared_ptr<const void> keep_alive;
  EngineOptions options;
  ModelWeights weights;
  std::unique_ptr<Backend> backend;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;

  StateShape shape;                   // of the rows in force; rows is 0 before prefill
  std::vector<std::int64_t> lengths;  // of the rows' prompts
  std::int64_t capacity = 0;          // image tokens there is room for
  std::int64_t made = 0;              // image tokens generated
  SamplingParams params;              // of the plan in force
  bool planned = false;
  std::vector<float> noise;

  const ModelConfig& config() const { return weights.config; }

  void require_memory(const StateShape& wanted) const {
    const MemoryUse use = backend->plan(wanted);
    const MemoryUse held = backend->memory();
    const std::uint64_t need = use.kv_cache + use.scratch, have = held.kv_cache + held.scratch;
    const std::uint64_t available = available_memory();
    check(available == 0 || need <= have + available, "this request needs ", gib(need), " (KV cache ",
          gib(use.kv_cache), ", scratch ", gib(use.scratch), ") for ", wanted.rows, " rows of ", wanted.positions,
          " positions, and ", gib(available), " are available; ask for fewer or smaller images");
  }

  void begin(std::vector<std::int64_t> row_lengths, std::int64_t max_new_tokens);
  void run_prefill(const float* embeds, const std::uint8_t* mask, std::int64_t width, const ProgressFn& progress);
  void check_decode(const SamplingParams& p, std::int64_t count) const;
  void plan(const SamplingParams& p);
  const float* token_noise(const float* given, const std::uint64_t* seeds, std::int64_t index);
  void check_finite(const float* tokens, std::int64_t images) const;
  void decode_token(const float* noise_of_token, float* out);
};

namespace {

std::vector<std::int64_t> row_lengths(const std::uint8_t* mask, std::int64_t rows, std::int64_t width) {
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(rows), width);
  for (std::int64_t r = 0; mask && r < rows; ++r) {
    const std::uint8_t* row = mask + r * width;
    const auto real = std::count_if(row, row + width, [](std::uint8_t m) { return m != 0; });
    check<InvalidRequest>(real > 0, "row ", r, " of the mask has no real column; a row needs at least one token");
    lengths[static_cast<std::size_t>(r)] = real;
  }
  return lengths;
}

}  // namespace

void Engine::Impl::begin(std::vector<std::int64_t> row_lengths, std::int64_t max_new_tokens) {
  const std::int64_t longest = *std::max_element(row_lengths.begin(), row_lengths.end());
  check<InvalidRequest>(max_new_tokens >= 0, "max_new_tokens is ", max_new_tokens, "; it cannot be negative");
  check<InvalidRequest>(longest + max_new_tokens <= config().max_position_embeddings, "a row of ", longest,
                        " prompt tokens and ", max_new_tokens, " image tokens exceeds the model's ",
                        config().max_position_embeddings, " positions; shorten the prompt or ask for a smaller image");
  const StateShape wanted{static_cast<std::int64_t>(row_lengths.size()), longest + max_new_tokens, 0};
  require_memory(wanted);
  shape = {};
  planned = false;
  backend->reserve(wanted);
  shape = wanted;
  lengths = std::move(row_lengths);
  capacity = max_new_tokens;
  made = 0;
}

// Rows of all sequences go through in chunks, pads left out; a chunk may end within a sequence.
void Engine::Impl::run_prefill(const float* embeds, const std::uint8_t* mask, std::int64_t width,
                               const ProgressFn& progress) {
  const auto d = static_cast<std::size_t>(config().hidden_size);
  std::int64_t total = 0, done = 0;
  for (const std::int64_t n : lengths) total += n;
  std::vector<RowRef> rows;
  std::vector<float> chunk;
  const auto flush = [&] {
    backend->forward(rows, chunk.data());
    done += static_cast<std::int64_t>(rows.size());
    rows.clear();
    chunk.clear();
    check<Cancelled>(!progress || progress(done, total), "stopped during prefill, after ", done, " of ", total,
                     " rows");
  };
  for (std::int64_t r = 0; r < shape.rows; ++r) {
    std::int64_t position = 0;
    for (std::int64_t c = 0; c < width; ++c) {
      if (mask && mask[r * width + c] == 0) continue;
      const float* e = embeds + static_cast<std::size_t>(r * width + c) * d;
      rows.push_back({r, position, position + 1 == lengths[static_cast<std::size_t>(r)]});
      chunk.insert(chunk.end(), e, e + d);
      ++position;
      if (static_cast<std::int64_t>(rows.size()) == backend->max_chunk()) flush();
    }
  }
  if (!rows.empty()) flush();
}

void Engine::Impl::check_decode(const SamplingParams& p, std::int64_t count) const {
  p.validate();
  check<InvalidRequest>(shape.rows > 0, "decode needs prefilled rows; call prefill first");
  check<InvalidRequest>(shape.rows % p.branches == 0, shape.rows, " prefilled rows cannot be ", p.branches,
                        " guidance branches of equally many images");
  check<InvalidRequest>(count >= 1 && made + count <= p.num_tokens, "cannot make ", count, " tokens after ", made,
                        ": the image has ", p.num_tokens);
  check<InvalidRequest>(made + count <= capacity, "cannot make ", count, " tokens after ", made,
                        ": prefill made room for ", capacity, "; give it a larger max_new_tokens");
  check<InvalidRequest>(weights.gen_pos_embed == nullptr || p.num_tokens <= weights.gen_pos_rows, "the image has ",
                        p.num_tokens, " tokens, but the model's gen_pos_embed has ", weights.gen_pos_rows,
                        "; ask for a smaller image");
}

void Engine::Impl::plan(const SamplingParams& p) {
  if (planned && p == params) return;
  StateShape wanted = shape;
  wanted.steps = p.num_inference_steps;
  require_memory(wanted);
  backend->set_plan({.solver = make_solver_plan(p),
                     .branches = p.branches,
                     .images = shape.rows / p.branches,
                     .renorm = p.guidance_renorm,
                     .normalize = p.normalize_tokens});
  params = p;
  planned = true;
}

const float* Engine::Impl::token_noise(const float* given, const std::uint64_t* seeds, std::int64_t index) {
  const std::int64_t images = shape.rows / params.branches, d = config().token_dim();
  const std::int64_t draws = 1 + params.num_inference_steps;
  if (given) return given + index * draws * images * d;
  noise.resize(static_cast<std::size_t>(draws * images * d));
  for (std::int64_t k = 0; k < draws; ++k)
    for (std::int64_t i = 0; i < images; ++i) normal_noise(seeds[i], made, k, d, noise.data() + (k * images + i) * d);
  return noise.data();
}

void Engine::Impl::check_finite(const float* tokens, std::int64_t images) const {
  const std::int64_t d = config().token_dim();
  for (std::int64_t i = 0; i < images * d; ++i) {
    check(std::isfinite(tokens[i]), "values stopped being finite at image token ", made, " of image ", i / d,
          "; run `nextstep-rt info --verify` on the checkpoint, or lower guidance_scale");
  }
}

void Engine::Impl::decode_token(const float* noise_of_token, float* out) {
  std::vector<RowRef> rows;
  for (std::size_t r = 0; r < lengths.size() && made > 0; ++r)
    rows.push_back({static_cast<std::int64_t>(r), lengths[r] + made - 1, true});
  backend->decode_token({.token = made,
                         .rows = rows,
                         .guidance = guidance_at(params, params.guidance_scale, made),
                         .image_guidance = guidance_at(params, params.image_guidance_scale, made),
                         .noise = noise_of_token,
                         .out = out});
  check_finite(out, shape.rows / params.branches);
  ++made;
}

Engine::Engine(const ModelConfig& config, const TensorMap& tensors, const EngineOptions& options,
               std::shared_ptr<const void> keep_alive)
    : impl_(std::make_unique<Impl>()) {
  impl_->keep_alive = std::move(keep_alive);
  impl_->options = options;
  impl_->weights = bind_weights(config, tensors, options.compute);
  impl_->backend = make_backend(impl_->weights, options.device, options.compute, options.threads);
}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

const ModelConfig& Engine::config() const { return impl_->config(); }
DType Engine::compute() const { return impl_->options.compute; }
int Engine::threads() const { return impl_->backend->threads(); }
std::string Engine::backend() const { return impl_->backend->name(); }
std::int64_t Engine::rows() const { return impl_->shape.rows; }
std::int64_t Engine::position() const { return impl_->made; }

std::vector<float> Engine::embed_tokens(const std::vector<std::int64_t>& ids) const {
  for (const std::int64_t id : ids)
    check<InvalidRequest>(id >= 0 && id < config().vocab_size, "token id ", id, " is outside the vocabulary of ",
                          config().vocab_size);
  std::vector<float> out(ids.size() * static_cast<std::size_t>(config().hidden_size));
  impl_->backend->embed_tokens(ids, out.data());
  return out;
}

std::vector<float> Engine::project_tokens(const float* tokens, std::int64_t n) const {
  const Exclusive lock(impl_->busy);
  check<InvalidRequest>(n >= 0, "cannot project ", n, " tokens");
  std::vector<float> out(static_cast<std::size_t>(n * config().hidden_size));
  if (n > 0) impl_->backend->project_tokens(tokens, n, out.data());
  return out;
}

MemoryUse Engine::plan(std::int64_t rows, std::int64_t positions, std::int64_t steps) const {
  check<InvalidRequest>(rows >= 1 && rows <= kMaxRows, "rows is ", rows, "; it must be between 1 and ", kMaxRows);
  check<InvalidRequest>(positions >= 1 && positions <= config().max_position_embeddings, "positions is ", positions,
                        "; it must be between 1 and ", config().max_position_embeddings);
  check<InvalidRequest>(steps >= 1 && steps <= kMaxInferenceSteps, "steps is ", steps, "; it must be between 1 and ",
                        kMaxInferenceSteps);
  return impl_->backend->plan({rows, positions, steps});
}

MemoryUse Engine::memory() const { return impl_->backend->memory(); }

void Engine::prefill(const float* embeds, const std::uint8_t* mask, std::int64_t rows, std::int64_t width,
                     std::int64_t max_new_tokens, const ProgressFn& progress) {
  const Exclusive lock(impl_->busy);
  check<InvalidRequest>(rows >= 1 && rows <= kMaxRows, "prefill of ", rows, " rows; an engine carries 1 to ", kMaxRows);
  check<InvalidRequest>(width >= 1, "prefill of rows of ", width, " columns; a row needs at least one token");
  impl_->begin(row_lengths(mask, rows, width), max_new_tokens);
  try {
    impl_->run_prefill(embeds, mask, width, progress);
  } catch (...) {
    impl_->shape.rows = 0;  // half-filled rows must not be decoded
    throw;
  }
}

std::int64_t Engine::decode(const SamplingParams& params, std::int64_t count, const float* noise,
                            const std::uint64_t* seeds, float* out, const ProgressFn& progress) {
  const Exclusive lock(impl_->busy);
  check<InvalidRequest>(noise != nullptr || seeds != nullptr, "decode needs noise or seeds");
  impl_->check_decode(params, count);
  impl_->plan(params);
  const std::int64_t images = impl_->shape.rows / params.branches, d = config().token_dim();
  std::vector<float> token(static_cast<std::size_t>(images * d));
  for (std::int64_t s = 0; s < count; ++s) {
    impl_->decode_token(impl_->token_noise(noise, seeds, s), token.data());
    for (std::int64_t i = 0; i < images; ++i) std::copy_n(token.data() + i * d, d, out + (i * count + s) * d);
    if (progress && !progress(impl_->made, params.num_tokens)) return s + 1;
  }
  return count;
}

void Engine::reset() {
  const Exclusive lock(impl_->busy);
  impl_->shape.rows = 0;
  impl_->made = 0;
}

std::vector<float> Engine::state(StateBuffer which) const {
  const Exclusive lock(impl_->busy);
  check<InvalidRequest>(impl_->shape.rows > 0 && (which == StateBuffer::kHidden || impl_->made > 0),
                        "there is no such state before ", impl_->shape.rows > 0 ? "decode" : "prefill");
  return impl_->backend->state(which);
}

}  // namespace nsrt
