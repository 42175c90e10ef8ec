// The flow-matching head on the CPU. All modulations of a token are one product over steps x rows; a step then streams
// only input_proj, the blocks' MLPs and the last linear: norm + fc1 | fc2 + gated residual, for each block. Normalised
// rows, guidance and the solver's update are computed by every member for itself: they are tiny, and a barrier is not.
#include <algorithm>

#include "core/tables.h"
#include "cpu/cpu_backend.h"
#include "cpu/ops.h"

namespace nsrt::cpu {
namespace {

constexpr float kNormEps = 1e-6f;  // of every LayerNorm of the head and of the token-wise normalization

}  // namespace

// Sinusoids of t (cosines, then sines, t unscaled) through the time MLP: the same for all tokens of a request.
void CpuBackend::embed_times(Team& team) {
  const auto steps = static_cast<std::int64_t>(plan_.solver.times.size());
  const std::int64_t d = config_.fm_head_dim;
  // The modulations' buffer is free until the first token: two of its rows' worth serve as temporaries.
  float* inner = modulations_.data();
  for (std::int64_t k = 0; k < steps; ++k) {
    float* sinusoid = scratch(team).row.data();
    time_sinusoid(static_cast<double>(plan_.solver.times[static_cast<std::size_t>(k)]), sinusoid);
    linear(team, weights_.fm.time1, prepare(team, sinusoid, kTimeDims, 1, kTimeDims), 1, inner + k * d, d, nullptr,
           true);
  }
  team.barrier();
  for (std::int64_t k = 0; k < steps; k += kChunkRows) {
    const std::int64_t rows = std::min(kChunkRows, steps - k);
    linear(team, weights_.fm.time2, prepare(team, inner + k * d, d, rows, d), rows, time_embeds_.data() + k * d, d);
  }
}

void CpuBackend::condition_in_team(Team& team, std::int64_t token) {
  const std::int64_t d = config_.hidden_size;
  Scratch& s = scratch(team);
  for (std::int64_t r = 0; r < fm_rows(); ++r) {
    const float* h = hidden_.data() + r * d;
    if (weights_.gen_pos_embed) {
      kernels_.epilogue(h, weights_.gen_pos_embed + token * d, nullptr, false, d, s.row.data());
      h = s.row.data();
    }
    to_input(h, d, input_row(s.input, r, d));
  }
  linear(team, weights_.image_out, {s.input.data(), d}, fm_rows(), cond_.data(), d);
  team.barrier();
  mark(team, Stage::kCondition);
}

void CpuBackend::modulate_in_team(Team& team) {
  const std::int64_t d = config_.fm_head_dim, rows = fm_rows();
  const std::int64_t all = static_cast<std::int64_t>(plan_.solver.times.size()) * rows;
  linear(team, weights_.fm.cond, prepare(team, cond_.data(), config_.hidden_size, rows, config_.hidden_size), rows,
         cond_embeds_.data(), d);
  team.barrier();

  float* row = scratch(team).row.data();
  const Team::Range share = team.share(all);
  for (std::int64_t i = share.begin; i < share.end; ++i) {
    kernels_.silu_add(time_embeds_.data() + i / rows * d, cond_embeds_.data() + i % rows * d, d, row);
    to_input(row, d, input_row(modulation_input_, i, d));
  }
  team.barrier();

  const Operand in{modulation_input_.data(), d};
  float* out = modulations_.data();
  for (const FmBlockWeights& block : weights_.fm.blocks) {
    linear(team, block.modulation, in, all, out, modulation_width_);
    out += 3 * d;
  }
  linear(team, weights_.fm.final_modulation, in, all, out, modulation_width_);
  team.barrier();
  mark(team, Stage::kFmModulation);
}

const float* CpuBackend::modulation(std::int64_t time, std::int64_t row) const {
  return modulations_.data() + (time * fm_rows() + row) * modulation_width_;
}

// LN(h) * (1 + scale) + shift for all rows, in input format; `mod` is row 0's shift, scale.
Operand CpuBackend::modulated(Team& team, const FmBlockWeights* block, const float* mod) {
  Scratch& s = scratch(team);
  const std::int64_t d = config_.fm_head_dim;
  for (std::int64_t r = 0; r < fm_rows(); ++r, mod += modulation_width_) {
    kernels_.layer_norm(fm_h_.data() + r * d, block ? block->norm_weight : nullptr, block ? block->norm_bias : nullptr,
                        mod, mod + d, d, kNormEps, s.row.data());
    to_input(s.row.data(), d, input_row(s.input, r, d));
  }
  return {s.input.data(), d};
}

void CpuBackend::velocity(Team& team, std::int64_t time) {
  const std::int64_t d = config_.fm_head_dim, d_tok = config_.token_dim(), rows = fm_rows(), images = plan_.images;
  const FmHeadWeights& fm = weights_.fm;
  const float* x = scratch(team).x.data();

  // The branches of an image share x, so they share input_proj(x).
  linear(team, fm.input, prepare(team, x, d_tok, images, d_tok), images, fm_h_.data(), d);
  const auto [begin, end] = team.share(d, kColumnUnit);
  for (std::int64_t r = images; r < rows; ++r)
    std::copy(fm_h_.data() + r % images * d + begin, fm_h_.data() + r % images * d + end, fm_h_.data() + r * d + begin);
  team.barrier();

  const float* mod = modulation(time, 0);
  for (const FmBlockWeights& block : fm.blocks) {
    linear_silu_to_input(team, block.fc1, modulated(team, &block, mod), rows, fm_tmp_.data(), fm_ff_);
    team.barrier();
    const auto [n0, n1] = product(team, block.fc2, {fm_ff_.data(), block.fc2.w.cols}, rows, fm_tmp_.data(), d);
    for (std::int64_t r = 0; r < rows; ++r)
      kernels_.gated_residual(fm_tmp_.data() + r * d + n0, block.fc2.bias + n0,
                              mod + r * modulation_width_ + 2 * d + n0, n1 - n0, fm_h_.data() + r * d + n0);
    team.barrier();
    mod += 3 * d;
  }
  linear(team, fm.output, modulated(team, nullptr, mod), rows, velocity_.data(), d_tok);
  team.barrier();
}

void CpuBackend::guide(Team& team, const TokenArgs& args) {
  guidance(kernels_, {.v = velocity_.data(),
                      .y = scratch(team).guided.data(),
                      .branches = plan_.branches,
                      .images = plan_.images,
                      .d_tok = config_.token_dim(),
                      .guidance = args.guidance,
                      .image_guidance = args.image_guidance,
                      .renorm = plan_.renorm});
}

void CpuBackend::step_in_team(Team& team, const SolverStep& step, const TokenArgs& args) {
  velocity(team, step.time);
  guide(team, args);
  Scratch& s = scratch(team);
  const std::int64_t n = plan_.images * config_.token_dim();
  float* x = s.x.data();
  const float* v = s.guided.data();
  switch (step.kind) {
    case SolverStep::Kind::kUpdate: {
      const float* noise = step.draw < 0 ? nullptr : args.noise + step.draw * n;
      kernels_.update(x, v, noise, step.cx, step.cv, step.ce, n, x);
      break;
    }
    case SolverStep::Kind::kHeunPredict:
      std::copy(x, x + n, s.kept_x.data());
      std::copy(v, v + n, s.kept_v.data());
      kernels_.update(x, v, nullptr, 1, step.cv, 0, n, x);
      break;
    case SolverStep::Kind::kHeunCorrect:
      kernels_.update(s.kept_x.data(), s.kept_v.data(), v, 1, step.cv, step.cv, n, x);
      break;
  }
}

void CpuBackend::start_in_team(Team& team, const float* noise) {
  const std::int64_t n = plan_.images * config_.token_dim();
  std::copy(noise, noise + n, scratch(team).x.data());
}

void CpuBackend::finish_in_team(Team& team, float* out) {
  if (team.id() != 0) return;
  const std::int64_t d = config_.token_dim(), n = plan_.images * d;
  const float* x = scratch_[0].x.data();
  std::copy(x, x + n, latent_.data());
  for (std::int64_t i = 0; i < n; i += d) {
    if (plan_.normalize)
      kernels_.layer_norm(x + i, nullptr, nullptr, nullptr, nullptr, d, kNormEps, tokens_.data() + i);
    else
      std::copy(x + i, x + i + d, tokens_.data() + i);
  }
  std::copy(tokens_.data(), tokens_.data() + n, out);
}

void CpuBackend::condition(std::int64_t token) {
  token_ = token;
  pool_.run([&](Team& team) { condition_in_team(team, token); });
}
void CpuBackend::modulate() {
  pool_.run([&](Team& team) { modulate_in_team(team); });
}
void CpuBackend::start(const float* noise) {
  pool_.run([&](Team& team) { start_in_team(team, noise); });
}
void CpuBackend::step(std::int64_t index, const TokenArgs& args) {
  const SolverStep& step = plan_.solver.steps[static_cast<std::size_t>(index)];
  pool_.run([&](Team& team) { step_in_team(team, step, args); });
}
void CpuBackend::finish(float* out) {
  pool_.run([&](Team& team) { finish_in_team(team, out); });
}

void CpuBackend::decode_token(const TokenArgs& args) {
  token_ = args.token;
  pool_.run([&](Team& team) {
    if (team.id() == 0) clock_.join(team.barriers());
    if (args.token > 0) advance_in_team(team, args.rows);
    condition_in_team(team, args.token);
    modulate_in_team(team);
    start_in_team(team, args.noise);
    for (const SolverStep& step : plan_.solver.steps) step_in_team(team, step, args);
    mark(team, Stage::kFmSteps);
    finish_in_team(team, args.out);
    mark(team, Stage::kFinish);
  });
}

}  // namespace nsrt::cpu
