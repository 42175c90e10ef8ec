// The CPU's ops and stages at fixed small shapes: what .ci/counts holds to bench/baselines.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nextstep_rt/tensor.h"

namespace nsrt::counts {

struct Case {
  std::string name;                   // stands in JSON as it is: no quotes, no backslashes
  std::optional<std::int64_t> bytes;  // as core/cost.h counts them; none where it has no figure
  std::function<void()> run;          // may be called again and again, and does the same each time
};

// Whoever owns the arrays of a number of cases.
class Cases {
 public:
  virtual ~Cases() = default;
  virtual std::vector<Case> all() = 0;
};

// Both take the kernels that NSRT_ISA names, and one thread.
std::unique_ptr<Cases> make_op_cases();
// The stages of one token, the token, and prefill, of a small random model.
std::unique_ptr<Cases> make_stage_cases(DType dtype);

}  // namespace nsrt::counts
