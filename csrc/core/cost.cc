#include "core/cost.h"

namespace nsrt {
namespace {

constexpr std::int64_t kFloat = sizeof(float);

Cost product(std::int64_t rows, std::int64_t cols, std::int64_t b, DType dtype) {
  return {rows * cols * static_cast<std::int64_t>(item_size(dtype)), 2 * rows * cols * b};
}

Cost times(Cost cost, std::int64_t n) { return {cost.bytes * n, cost.flops * n}; }

}  // namespace

Cost cost(const LinearParams& p) {
  const std::int64_t outputs = p.b * p.w.rows;
  Cost c = product(p.w.rows, p.w.cols, p.b, p.w.dtype);
  c.bytes += kFloat * (p.b * p.w.cols + outputs + (p.bias ? p.w.rows : 0) + (p.residual ? outputs : 0));
  c.flops += outputs * ((p.bias ? 1 : 0) + (p.residual ? 1 : 0) + (p.silu ? 4 : 0));
  return c;
}

Cost cost(const RmsNormParams& p) { return {kFloat * (2 * p.b + 1) * p.d, 4 * p.b * p.d}; }

Cost cost(const LayerNormParams& p) {
  const std::int64_t shared = (p.weight ? 2 : 0) * p.d, own = (p.scale ? 2 : 0) * p.b * p.d;
  return {kFloat * (2 * p.b * p.d + shared + own), p.b * p.d * (6 + (p.weight ? 2 : 0) + (p.scale ? 3 : 0))};
}

Cost cost(const RopeParams& p) {
  const std::int64_t n = p.b * p.heads * p.d_head;
  return {kFloat * (2 * n + p.b * p.d_head), 3 * n};
}

Cost cost(const AttentionParams& p) {
  std::int64_t positions = 0;
  for (std::int64_t r = 0; r < p.b; ++r) positions += p.lengths[r];
  const auto item = static_cast<std::int64_t>(item_size(p.kv_dtype));
  return {2 * positions * p.h_kv * p.d_head * item + kFloat * 2 * p.b * p.h_q * p.d_head,
          positions * p.h_q * (4 * p.d_head + 4)};
}

Cost cost(const SiluMulParams& p) { return {kFloat * 3 * p.n, 5 * p.n}; }

Cost cost(const GuidanceParams& p) {
  const std::int64_t n = p.images * p.d_tok;
  return {kFloat * (p.branches + 1) * n, (2 * p.branches + (p.renorm ? 5 : 0)) * n};
}

Cost cost(const SolverUpdateParams& p) { return {kFloat * (p.noise ? 4 : 3) * p.n, (p.noise ? 5 : 3) * p.n}; }

Cost TokenCost::total() const {
  Cost sum;
  for (const Cost& c : {backbone, kv, condition, fm_modulation, fm_steps}) sum += c;
  return sum;
}

TokenCost token_cost(const ModelConfig& c, DType dtype, std::int64_t rows, std::int64_t steps, std::int64_t positions) {
  const std::int64_t d = c.hidden_size, f = c.fm_head_dim, layers = c.num_hidden_layers;
  const std::int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  TokenCost t;
  t.backbone = times(product(2 * q + 2 * kv + 3 * c.intermediate_size, d, rows, dtype), layers);
  t.backbone += product(d, c.token_dim(), rows, dtype);
  t.kv = {2 * layers * rows * positions * kv * static_cast<std::int64_t>(item_size(dtype)),
          4 * layers * rows * positions * q};
  t.condition = product(d, d, rows, dtype);
  t.condition += product(f, d, rows, dtype);
  t.fm_modulation = product(c.fm_modulation_dim(), f, rows * steps, dtype);
  Cost step = product(2 * c.token_dim() + 2 * c.fm_head_layers * c.fm_mlp_dim(), f, rows, dtype);
  t.fm_steps = times(step, steps);
  return t;
}

std::array<StageCost, kStages> stage_costs(const ModelConfig& c, DType dtype, std::int64_t rows, std::int64_t steps,
                                           std::int64_t positions) {
  const TokenCost t = token_cost(c, dtype, rows, steps, positions);
  const std::int64_t d = c.hidden_size, f = c.fm_head_dim, layers = c.num_hidden_layers;
  const std::int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  const auto layered = [&](std::int64_t outputs, std::int64_t inputs) {
    return times(product(outputs, inputs, rows, dtype), layers);
  };
  std::array<StageCost, kStages> out;
  const auto set = [&](Stage stage, const Cost& cost, std::int64_t barriers) {
    out[static_cast<std::size_t>(stage)] = {cost, barriers};
  };
  set(Stage::kImageIn, product(d, c.token_dim(), rows, dtype), 1);
  set(Stage::kQkv, layered(q + 2 * kv, d), layers);
  set(Stage::kRopeAppend, {}, layers);
  set(Stage::kAttention, t.kv, 2 * layers);
  set(Stage::kAttnOut, layered(d, q), layers);
  set(Stage::kMlp, layered(3 * c.intermediate_size, d), 2 * layers + 1);
  set(Stage::kCondition, product(d, d, rows, dtype), 1);
  Cost modulation = product(f, d, rows, dtype);  // cond_embed
  modulation += t.fm_modulation;
  set(Stage::kFmModulation, modulation, 3);
  set(Stage::kFmSteps, t.fm_steps, steps * (2 + 2 * c.fm_head_layers));
  return out;
}

}  // namespace nsrt
