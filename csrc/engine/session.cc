#include "engine/session.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "core/check.h"
#include "core/solver.h"

namespace nsrt {
namespace {

std::string gib(std::uint64_t bytes) {
  return str(static_cast<double>(bytes * 100 / (std::uint64_t{1} << 30)) / 100, " GiB");
}

}  // namespace

void Session::require_memory(const StateShape& wanted) const {
  const MemoryUse use = backend_.plan(wanted);
  const MemoryUse held = backend_.memory();
  const std::uint64_t need = use.kv_cache + use.scratch, have = held.kv_cache + held.scratch;
  const std::uint64_t available = backend_.available();
  check(available == 0 || need <= have + available, "this request needs ", gib(need), " (KV cache ", gib(use.kv_cache),
        ", scratch ", gib(use.scratch), ") for ", wanted.rows, " rows of ", wanted.positions, " positions, and ",
        gib(have + available), " are available; ask for fewer or smaller images");
}

void Session::begin(std::vector<std::int64_t> lengths, std::int64_t max_new_tokens) {
  const std::int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const std::int64_t positions = config().max_position_embeddings;
  check<InvalidRequest>(max_new_tokens >= 0, "max_new_tokens is ", max_new_tokens, "; it cannot be negative");
  check<InvalidRequest>(longest <= positions && max_new_tokens <= positions - longest, "a row of ", longest,
                        " prompt tokens and ", max_new_tokens, " image tokens exceeds the model's ", positions,
                        " positions; shorten the prompt or ask for a smaller image");
  const StateShape wanted{static_cast<std::int64_t>(lengths.size()), longest + max_new_tokens, 0};
  require_memory(wanted);
  forget();
  backend_.reserve(wanted);
  shape_ = wanted;
  lengths_ = std::move(lengths);
  capacity_ = max_new_tokens;
  rows_ = wanted.rows;
}

void Session::forget() {
  rows_ = 0;
  made_ = 0;
  planned_ = false;
}

void Session::prefill(const float* embeds, const std::uint8_t* mask, std::int64_t width, const ProgressFn& progress) {
  const auto d = static_cast<std::size_t>(config().hidden_size);
  std::int64_t total = 0, done = 0;
  for (const std::int64_t n : lengths_) total += n;
  std::vector<RowRef> rows;
  std::vector<float> chunk;
  const auto flush = [&] {
    backend_.forward(rows, chunk.data());
    done += static_cast<std::int64_t>(rows.size());
    rows.clear();
    chunk.clear();
    check<Cancelled>(!progress || progress(done, total), "stopped during prefill, after ", done, " of ", total,
                     " positions");
  };
  for (std::int64_t r = 0; r < rows_; ++r) {
    std::int64_t position = 0;
    for (std::int64_t c = 0; c < width; ++c) {
      if (mask && mask[r * width + c] == 0) continue;
      const float* e = embeds + static_cast<std::size_t>(r * width + c) * d;
      rows.push_back({r, position, position + 1 == lengths_[static_cast<std::size_t>(r)]});
      chunk.insert(chunk.end(), e, e + d);
      ++position;
      if (static_cast<std::int64_t>(rows.size()) == backend_.max_chunk()) flush();
    }
  }
  if (!rows.empty()) flush();
}

std::int64_t Session::images_in(std::int64_t branches) const {
  check<InvalidRequest>(rows_ > 0, "decode needs prefilled rows; call prefill first");
  check<InvalidRequest>(branches >= 1 && rows_ % branches == 0, rows_, " prefilled rows cannot be ", branches,
                        " guidance branches of equally many images");
  return rows_ / branches;
}

void Session::check_decode(const SamplingParams& p, std::int64_t count) const {
  p.validate();
  images_in(p.branches);
  // The last tokens still wait for their backbone step, and the linear schedule counts on num_tokens.
  check<InvalidRequest>(made_ == 0 || (p.branches == params_.branches && p.num_tokens == params_.num_tokens),
                        "branches and num_tokens cannot change after the first token: they were ", params_.branches,
                        " and ", params_.num_tokens, ", now ", p.branches, " and ", p.num_tokens,
                        "; start again with prefill");
  check<InvalidRequest>(count >= 1 && count <= p.num_tokens - made_, "cannot make ", count, " tokens after ", made_,
                        ": the image has ", p.num_tokens);
  check<InvalidRequest>(count <= capacity_ - made_, "cannot make ", count, " tokens after ", made_,
                        ": prefill made room for ", capacity_, "; give it a larger max_new_tokens");
  check<InvalidRequest>(weights_.gen_pos_embed == nullptr || p.num_tokens <= weights_.gen_pos_rows, "the image has ",
                        p.num_tokens, " tokens, but the model's gen_pos_embed has ", weights_.gen_pos_rows,
                        "; ask for a smaller image");
}

void Session::plan(const SamplingParams& p) {
  if (planned_ && p == params_) return;
  planned_ = false;  // should the backend fail half way
  StateShape wanted = shape_;
  wanted.steps = p.num_inference_steps;
  require_memory(wanted);
  SolverPlan solver = make_solver_plan(p);
  steps_ = solver.steps;
  backend_.set_plan({.solver = std::move(solver),
                     .branches = p.branches,
                     .images = rows_ / p.branches,
                     .renorm = p.guidance_renorm,
                     .normalize = p.normalize_tokens});
  drawn_ = -1;
  noise_.assign(static_cast<std::size_t>((1 + p.num_inference_steps) * (rows_ / p.branches) * config().token_dim()), 0);
  next_.resize(lengths_.size());
  params_ = p;
  planned_ = true;
}

// Only the draws that the solver uses, unless they are there already.
void Session::draw_noise(std::int64_t token, const std::uint64_t* seeds) {
  const std::int64_t n = images(), d = config().token_dim();
  if (drawn_ == token && std::equal(drawn_from_.begin(), drawn_from_.end(), seeds, seeds + n)) return;
  const auto draw = [&](std::int64_t k) {
    for (std::int64_t i = 0; i < n; ++i) normal_noise(seeds[i], token, k, d, noise_.data() + (k * n + i) * d);
  };
  draw(0);
  for (const SolverStep& step : steps_)
    if (step.draw > 0) draw(step.draw);
  drawn_ = token;
  drawn_from_.assign(seeds, seeds + n);
}

void Session::check_finite(const float* tokens) {
  const std::int64_t d = config().token_dim(), token = made_;
  for (std::int64_t i = 0; i < images() * d; ++i) {
    if (std::isfinite(tokens[i])) continue;
    forget();  // the backend holds the broken token
    throw Error(str("values stopped being finite at image token ", token, " of image ", i / d,
                    "; run `nextstep-rt info --verify` on the checkpoint, or lower guidance_scale, and start again"));
  }
}

void Session::decode_token(const float* noise, const std::uint64_t* seeds, float* out) {
  StageClock* clock = backend_.clock();
  const StageClock::Token scope(clock);
  const std::int64_t token = made_;
  for (std::size_t r = 0; r < lengths_.size(); ++r)
    next_[r] = {static_cast<std::int64_t>(r), lengths_[r] + token - 1, true};
  std::function<void()> meanwhile;
  if (noise == nullptr) {
    draw_noise(token, seeds);
    noise = noise_.data();
    if (clock != nullptr) clock->mark(Stage::kNoise);
    if (token + 1 < params_.num_tokens) meanwhile = [this, seeds] { draw_noise(made_ + 1, seeds); };
  }
  backend_.decode_token({.token = token,
                         .rows = next_,
                         .guidance = guidance_at(params_, params_.guidance_scale, token),
                         .image_guidance = guidance_at(params_, params_.image_guidance_scale, token),
                         .noise = noise,
                         .out = out,
                         .meanwhile = std::move(meanwhile)});
  check_finite(out);
  ++made_;
}

}  // namespace nsrt
