// Running a CUTLASS GEMM: what it answers becomes an exception.
#pragma once

#include <cutlass/cutlass.h>

#include "core/check.h"
#include "cuda/launch.h"
#include "cuda/ops/gemm/gemm.h"

namespace nsrt::cuda {

// `ready` says of an initialized Gemm whether it can run: not all that goes wrong is in its status.
template <class Gemm, class Ready>
void run_cutlass(Gemm& gemm, const typename Gemm::Arguments& arguments, const GemmTask& task, const GemmLaunch& launch,
                 Ready&& ready) {
  const auto shape = [&] { return str(task.m, " x ", task.k, " by ", task.n, " x ", task.k); };
  check<InvalidRequest>(gemm.can_implement(arguments) == cutlass::Status::kSuccess, "CUTLASS takes no product of ",
                        shape());
  check(Gemm::get_workspace_size(arguments) == 0, "CUTLASS wants a workspace for a product of ", shape());
  cutlass::Status status = gemm.initialize(arguments, nullptr, launch.stream);
  check(status != cutlass::Status::kSuccess || ready(gemm), "CUTLASS could not prepare a product of ", shape(),
        " for this GPU and driver; set NSRT_PREFILL_ROWS to a large number to do without it");
  if (status == cutlass::Status::kSuccess) status = gemm.run(launch.stream);
  check_cuda(cudaGetLastError(), "gemm");
  check(status == cutlass::Status::kSuccess, "CUTLASS failed on a product of ", shape(), ": ",
        cutlass::cutlassGetStatusString(status));
}

}  // namespace nsrt::cuda
