// How image tokens are to be sampled.
#pragma once

#include <cstdint>
#include <string>

namespace nsrt {

// Integrators of the flow-matching head (docs/model.md, "Solvers").
enum class Solver { kEuler, kHeun, kSde, kSdeFinalOde, kFlowSde, kFlowCps };

enum class GuidanceSchedule { kConstant, kLinear };

// Throw InvalidRequest with the list of known names.
Solver solver_from_name(const std::string& name);
const char* name_of(Solver solver);
GuidanceSchedule guidance_schedule_from_name(const std::string& name);
const char* name_of(GuidanceSchedule schedule);

// More steps than this would only cost memory for modulations: the solvers have converged long before.
inline constexpr std::int64_t kMaxInferenceSteps = 1000;

struct SamplingParams {
  std::int64_t num_tokens = 0;  // image tokens of the whole image; the linear schedule needs it
  std::int64_t num_inference_steps = 28;
  double guidance_scale = 7.5;
  double image_guidance_scale = 1.0;
  GuidanceSchedule guidance_schedule = GuidanceSchedule::kConstant;
  bool guidance_renorm = false;
  double timestep_shift = 1.0;
  Solver solver = Solver::kSde;
  double noise_level = 0.8;
  double last_step_size = 0.04;
  bool normalize_tokens = true;
  // Guidance branches of the prefilled rows: 1 = conditional only, 2 = + unconditional,
  // 3 = conditional, image-only, unconditional. Rows are branch-major: all conditional rows first.
  std::int64_t branches = 1;

  // Throws InvalidRequest naming the field, its value and the legal range.
  void validate() const;
  bool operator==(const SamplingParams&) const = default;
};

}  // namespace nsrt
