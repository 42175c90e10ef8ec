#include "nextstep_rt/request.h"

#include <array>
#include <cmath>
#include <utility>

#include "core/check.h"

namespace nsrt {
namespace {

constexpr std::array<std::pair<Solver, const char*>, 6> kSolvers = {{{Solver::kEuler, "euler"},
                                                                     {Solver::kHeun, "heun"},
                                                                     {Solver::kSde, "sde"},
                                                                     {Solver::kSdeFinalOde, "sde-final-ode"},
                                                                     {Solver::kFlowSde, "flow-sde"},
                                                                     {Solver::kFlowCps, "flow-cps"}}};

constexpr std::array<std::pair<GuidanceSchedule, const char*>, 2> kSchedules = {
    {{GuidanceSchedule::kConstant, "constant"}, {GuidanceSchedule::kLinear, "linear"}}};

template <class Table>
auto from_name(const Table& table, const char* what, const std::string& name) {
  std::string known;
  for (const auto& [value, text] : table) {
    if (name == text) return value;
    known += known.empty() ? "" : ", ";
    known += text;
  }
  throw InvalidRequest(str("unknown ", what, " '", name, "'; choose one of: ", known));
}

template <class Table, class Value>
const char* to_name(const Table& table, Value wanted) {
  for (const auto& [value, text] : table)
    if (value == wanted) return text;
  throw Error(str("value ", static_cast<int>(wanted), " is not in the enumeration"));
}

void check_range(const char* name, double value, double low, double high) {
  check<InvalidRequest>(std::isfinite(value) && value >= low && value <= high, name, " is ", value,
                        "; it must be between ", low, " and ", high);
}

// Guidance beyond this overflows float32 within a few steps whatever the model.
constexpr double kMaxGuidance = 1e4;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 24;

}  // namespace

Solver solver_from_name(const std::string& name) { return from_name(kSolvers, "solver", name); }
const char* name_of(Solver solver) { return to_name(kSolvers, solver); }
GuidanceSchedule guidance_schedule_from_name(const std::string& name) {
  return from_name(kSchedules, "guidance_schedule", name);
}
const char* name_of(GuidanceSchedule schedule) { return to_name(kSchedules, schedule); }

void SamplingParams::validate() const {
  check<InvalidRequest>(num_tokens >= 1 && num_tokens <= kMaxTokens, "num_tokens is ", num_tokens,
                        "; it must be between 1 and ", kMaxTokens);
  const std::int64_t least = solver == Solver::kSdeFinalOde ? 2 : 1;
  check<InvalidRequest>(num_inference_steps >= least && num_inference_steps <= kMaxInferenceSteps,
                        "num_inference_steps is ", num_inference_steps, "; with solver ", name_of(solver),
                        " it must be between ", least, " and ", kMaxInferenceSteps);
  check_range("guidance_scale", guidance_scale, -kMaxGuidance, kMaxGuidance);
  check_range("image_guidance_scale", image_guidance_scale, -kMaxGuidance, kMaxGuidance);
  check_range("timestep_shift", timestep_shift, 1e-3, 1e3);
  check_range("noise_level", noise_level, 0, 1);
  check_range("last_step_size", last_step_size, 1e-6, 1 - 1e-6);
  check<InvalidRequest>(branches >= 1 && branches <= 3, "branches is ", branches, "; it must be 1, 2 or 3");
}

}  // namespace nsrt
