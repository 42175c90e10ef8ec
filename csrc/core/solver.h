// Time grids and update coefficients of the flow-matching solvers (docs/model.md, "Solvers"). Time runs from noise at
// t = 0 to data at t = 1; every solver's step is x <- cx * x + cv * v(x, t) + ce * noise with numbers known beforehand.
#pragma once

#include <cstdint>
#include <vector>

#include "nextstep_rt/request.h"

namespace nsrt {

// One evaluation of the velocity network and the update that follows it.
struct SolverStep {
  enum class Kind {
    kUpdate,       // x <- cx x + cv v + ce noise
    kHeunPredict,  // keeps x and v, then x <- x + cv v
    kHeunCorrect,  // x <- kept x + cv (kept v + v)
  };
  Kind kind = Kind::kUpdate;
  std::int64_t time = 0;   // index into SolverPlan::times
  std::int64_t draw = -1;  // which noise draw drives it; -1: none
  float cx = 1, cv = 0, ce = 0;
};

struct SolverPlan {
  std::vector<float> times;  // where the network is evaluated, ascending
  std::vector<SolverStep> steps;
};

// The knots: num_inference_steps + 1 of them, or num_inference_steps for sde-final-ode. Float32, as released.
std::vector<float> time_grid(const SamplingParams& params);

// `params` must be valid.
SolverPlan make_solver_plan(const SamplingParams& params);

// Guidance scale of token `token` under the request's schedule.
float guidance_at(const SamplingParams& params, double scale, std::int64_t token);

}  // namespace nsrt
