#include "core/solver.h"

#include <cmath>
#include <numbers>

namespace nsrt {
namespace {

using Kind = SolverStep::Kind;

SolverStep update(std::int64_t k, double cx, double cv, double ce) {
  SolverStep step{.kind = Kind::kUpdate, .time = k, .draw = ce != 0 ? 1 + k : -1};
  step.cx = static_cast<float>(cx);
  step.cv = static_cast<float>(cv);
  step.ce = static_cast<float>(ce);
  return step;
}

// x += (v + (1-t) score) dt + sqrt(2 (1-t) dt) noise with score = (t v - x) / (1-t).
SolverStep sde_step(std::int64_t k, double t, double dt) {
  return update(k, 1 - dt, (1 + t) * dt, std::sqrt(2 * (1 - t) * dt));
}

// Both 2026 solvers go through the end points x0 = x - v t (noise) and x1 = x + v (1-t) (data):
// x <- a x0 + b x1 + ce noise.
SolverStep end_point_step(std::int64_t k, double t, double a, double b, double ce) {
  return update(k, a + b, b * (1 - t) - a * t, ce);
}

SolverStep flow_sde_step(std::int64_t k, double t, double t_next, double t_last, double noise_level) {
  const double s = 1 - t, dt = t_next - t;
  const double deviation = std::sqrt(s / (s == 1 ? 1 - t_last : 1 - s)) * noise_level;
  const double a = 1 - t_next - deviation * deviation * dt / (2 * s);
  return end_point_step(k, t, a, t_next, deviation * std::sqrt(dt));
}

SolverStep flow_cps_step(std::int64_t k, double t, double t_next, double noise_level) {
  const double deviation = (1 - t_next) * std::sin(noise_level * std::numbers::pi / 2);
  const double rest = (1 - t_next) * (1 - t_next) - deviation * deviation;
  return end_point_step(k, t, std::sqrt(std::fmax(rest, 0)), t_next, deviation);
}

void heun_steps(std::int64_t k, double dt, bool last, std::vector<SolverStep>& steps) {
  SolverStep step = update(k, 1, dt, 0);
  if (!last) step.kind = Kind::kHeunPredict;
  steps.push_back(step);
  if (last) return;
  step = update(k + 1, 1, dt / 2, 0);
  step.kind = Kind::kHeunCorrect;
  steps.push_back(step);
}

}  // namespace

std::vector<float> time_grid(const SamplingParams& params) {
  const std::int64_t n = params.num_inference_steps;
  const bool final_ode = params.solver == Solver::kSdeFinalOde;
  const std::int64_t knots = final_ode ? n : n + 1;
  const double end = final_ode ? 1 - params.last_step_size : 1;
  std::vector<float> grid;
  for (std::int64_t k = 0; k < knots; ++k) {
    const double u = end * static_cast<double>(k) / static_cast<double>(knots - 1);
    grid.push_back(static_cast<float>(u / (params.timestep_shift - (params.timestep_shift - 1) * u)));
  }
  if (!final_ode) grid.back() = 1.0f;
  return grid;
}

SolverPlan make_solver_plan(const SamplingParams& params) {
  const std::vector<float> grid = time_grid(params);
  const std::int64_t n = params.num_inference_steps;
  SolverPlan plan;
  plan.times.assign(grid.begin(), grid.begin() + n);
  for (std::int64_t k = 0; k < n; ++k) {
    const double t = grid[static_cast<std::size_t>(k)];
    const bool last = k == n - 1;
    if (last && params.solver == Solver::kSdeFinalOde) {
      plan.steps.push_back(update(k, 1, params.last_step_size, 0));
      continue;
    }
    const double t_next = grid[static_cast<std::size_t>(k) + 1];
    switch (params.solver) {
      case Solver::kEuler:
        plan.steps.push_back(update(k, 1, t_next - t, 0));
        break;
      case Solver::kHeun:
        heun_steps(k, t_next - t, last, plan.steps);
        break;
      case Solver::kSde:
      case Solver::kSdeFinalOde:
        plan.steps.push_back(sde_step(k, t, t_next - t));
        break;
      case Solver::kFlowSde:
        plan.steps.push_back(flow_sde_step(k, t, t_next, grid[static_cast<std::size_t>(n) - 1], params.noise_level));
        break;
      case Solver::kFlowCps:
        plan.steps.push_back(flow_cps_step(k, t, t_next, params.noise_level));
        break;
    }
  }
  return plan;
}

float guidance_at(const SamplingParams& params, double scale, std::int64_t token) {
  if (params.guidance_schedule == GuidanceSchedule::kConstant) return static_cast<float>(scale);
  const auto n = static_cast<double>(params.num_tokens);
  return static_cast<float>(1 + (scale - 1) * (n - static_cast<double>(token)) / n);
}

}  // namespace nsrt
