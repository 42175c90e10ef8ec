// The sequences of one engine from prefill on: where they stand, what is planned for them, and one token at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "core/weights.h"
#include "nextstep_rt/engine.h"
#include "nextstep_rt/request.h"

namespace nsrt {

class Session {
 public:
  Session(const ModelWeights& weights, Backend& backend) : weights_(weights), backend_(backend) {}

  // Readable from any thread.
  std::int64_t rows() const { return rows_; }
  std::int64_t position() const { return made_; }

  // Makes room for rows of these lengths and forgets the old ones.
  void begin(std::vector<std::int64_t> lengths, std::int64_t max_new_tokens);
  // Rows of all sequences go through in chunks, pads left out; a chunk may end within a sequence.
  void prefill(const float* embeds, const std::uint8_t* mask, std::int64_t width, const ProgressFn& progress);
  void forget();

  // Images that the prefilled rows are in `branches` guidance branches. Throws InvalidRequest when they are none.
  std::int64_t images_in(std::int64_t branches) const;
  // Throws InvalidRequest unless `count` more tokens can be made so.
  void check_decode(const SamplingParams& params, std::int64_t count) const;
  void plan(const SamplingParams& params);
  std::int64_t images() const { return rows_ / params_.branches; }
  // The next token of every image; `noise` [1 + steps, images, token_dim] or, when null, drawn from `seeds`.
  void decode_token(const float* noise, const std::uint64_t* seeds, float* out);

 private:
  const ModelConfig& config() const { return weights_.config; }
  void require_memory(const StateShape& wanted) const;
  void draw_noise(std::int64_t token, const std::uint64_t* seeds);
  void check_finite(const float* tokens);

  const ModelWeights& weights_;
  Backend& backend_;
  std::atomic<std::int64_t> rows_{0};  // 0: nothing prefilled
  std::atomic<std::int64_t> made_{0};  // image tokens
  StateShape shape_;
  std::vector<std::int64_t> lengths_;  // of the rows' prompts
  std::int64_t capacity_ = 0;          // image tokens there is room for
  SamplingParams params_;              // of the plan in force
  bool planned_ = false;
  std::vector<SolverStep> steps_;
  std::vector<float> noise_;
  std::int64_t drawn_ = -1;  // the token that noise_ is for, drawn from these seeds
  std::vector<std::uint64_t> drawn_from_;
  std::vector<RowRef> next_;  // where each row's next token goes
};

}  // namespace nsrt
