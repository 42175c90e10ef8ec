// Bytes that must move and floating-point operations, of every op and of a whole image token: what measured times are
// held against. Bytes count each operand once, from wherever it lives; caches are the reader's business.
#pragma once

#include <array>
#include <cstdint>

#include "core/params.h"
#include "core/stage_clock.h"
#include "nextstep_rt/config.h"

namespace nsrt {

struct Cost {
  std::int64_t bytes = 0;
  std::int64_t flops = 0;

  Cost& operator+=(const Cost& other) {
    bytes += other.bytes;
    flops += other.flops;
    return *this;
  }
};

Cost cost(const LinearParams& p);
Cost cost(const RmsNormParams& p);
Cost cost(const LayerNormParams& p);
Cost cost(const RopeParams& p);
Cost cost(const AttentionParams& p);
Cost cost(const SiluMulParams& p);
Cost cost(const GuidanceParams& p);
Cost cost(const SolverUpdateParams& p);

// Weights (and KV cache) that one image token streams, stage by stage. Activations are left out: they stay in cache.
struct TokenCost {
  Cost backbone;       // all layers' matrices, image_in
  Cost kv;             // keys and values of `positions` in every row
  Cost condition;      // image_out, cond_embed
  Cost fm_modulation;  // all adaLN matrices, read once
  Cost fm_steps;       // what every step reads again: input_proj, block MLPs, last linear

  Cost total() const;
};

// `rows` = images x branches; `steps` network evaluations. Weights and KV cache in `dtype`.
TokenCost token_cost(const ModelConfig& config, DType dtype, std::int64_t rows, std::int64_t steps,
                     std::int64_t positions);

// The same by the stages that a StageClock knows, and how often the CPU backend's team meets at a barrier in each.
struct StageCost {
  Cost cost;
  std::int64_t barriers = 0;
};
std::array<StageCost, kStages> stage_costs(const ModelConfig& config, DType dtype, std::int64_t rows,
                                           std::int64_t steps, std::int64_t positions);

}  // namespace nsrt
