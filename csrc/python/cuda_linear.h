// What the CUDA ops' bindings share.
#pragma once

#include <cstdint>

#include "core/check.h"
#include "cuda/ops/linear/linear.h"
#include "python/cuda_call.h"

namespace nsrt::python {

using namespace nsrt::cuda;  // NOLINT: these files are about nothing else

using Obj = const py::object&;

inline constexpr std::initializer_list<Kind> kFloats = {Kind::kFloat32, Kind::kBFloat16};

inline std::int32_t narrow(std::int64_t n) {
  check<InvalidRequest>(n <= INT32_MAX, "a dimension of ", n, " is too large");
  return static_cast<std::int32_t>(n);
}

// Enqueues the product with a workspace of its own.
inline void run_linear(CudaCall& call, const LinearTask& task, DType weights, DType activations,
                       LinearPath path = LinearPath::kAuto) {
  std::int64_t widest = 0;
  for (int i = 0; i < task.segment_count; ++i) widest += task.segments[i].n;
  const WorkspaceNeed need = linear_workspace(call.traits().sm_count, widest);
  cuda::linear(task,
               {.partials = call.scratch<float>(need.partials),
                .tickets = call.zeros<std::uint32_t>(need.tickets),
                .partial_count = need.partials,
                .ticket_count = need.tickets},
               {.weights = weights,
                .activations = activations,
                .path = path,
                .sm_count = call.traits().sm_count,
                .shared_limit = call.traits().shared_limit,
                .stream = call.stream()});
}

}  // namespace nsrt::python
