// CUTLASS 2 for compute capabilities from 8.0 on: cp.async fills shared memory, warps multiply by mma.sync. A block a
// tile.
#include <cutlass/cutlass.h>
#include <cutlass/epilogue/thread/activation.h>
#include <cutlass/epilogue/thread/linear_combination_bias_elementwise.h>
#include <cutlass/functional.h>
#include <cutlass/gemm/device/gemm_universal_with_broadcast.h>

#include "cuda/ops/gemm/cutlass/status.h"
#include "cuda/ops/gemm/library.h"

namespace nsrt::cuda {
namespace {

using Number = cutlass::bfloat16_t;
using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;

// Four stages of these are 64 KB: every GPU of this kind has as much shared memory for a block.
using Tile = cutlass::gemm::GemmShape<128, 128, 32>;
using WarpTile = cutlass::gemm::GemmShape<64, 64, 32>;
using Instruction = cutlass::gemm::GemmShape<16, 8, 16>;
constexpr int kStages = 4;
// Blocks that run together share rows and columns, which L2 then reads once.
using Order = cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<8>;

}  // namespace

// Output = x W^T + bias + beta Output.
template <class Output>
struct Sm80Parts {
  static constexpr int kAlignment = 16 / sizeof(Output);
  using Epilogue =
      cutlass::epilogue::thread::LinearCombinationBiasElementwise<Output, float, float, Output, Output, kAlignment,
                                                                  cutlass::epilogue::thread::Identity<float>,
                                                                  cutlass::plus<float>, false, float>;
  using Kernel = typename cutlass::gemm::device::GemmUniversalWithBroadcast<
      Number, RowMajor, Number, ColumnMajor, Output, RowMajor, float, cutlass::arch::OpClassTensorOp,
      cutlass::arch::Sm80, Tile, WarpTile, Instruction, Epilogue, Order, kStages, 8, 8>::GemmKernel;
};

// The kernel under a name that profilers and .ci/sass_check.py can read.
template <class Output>
struct GemmSm80 : Sm80Parts<Output>::Kernel {};

namespace {

template <class Output>
struct Ampere {
  using Gemm = cutlass::gemm::device::GemmUniversalBase<GemmSm80<Output>>;

  static void run(const GemmTask& t, Output* out, float beta, const GemmLaunch& launch) {
    const std::int64_t m = t.m, n = t.n, k = t.k;
    typename Gemm::Arguments arguments{cutlass::gemm::GemmUniversalMode::kGemm,
                                       {t.m, t.n, t.k},
                                       1,  // batch
                                       {1.0f, beta},
                                       t.x,
                                       t.w,
                                       out,
                                       out,
                                       const_cast<float*>(t.bias),
                                       nullptr,
                                       m * k,
                                       n * k,
                                       m * n,
                                       m * n,
                                       0,
                                       0,
                                       t.k,
                                       t.k,
                                       t.n,
                                       t.n,
                                       0,  // the bias is the same for all rows
                                       0};
    Gemm gemm;
    run_cutlass(gemm, arguments, t, launch, [](const Gemm&) { return true; });
  }
};

void store(const GemmTask& task, const GemmLaunch& launch) {
  Ampere<Number>::run(task, static_cast<Number*>(task.y), 0.0f, launch);
}

void accumulate(const GemmTask& task, const GemmLaunch& launch) {
  Ampere<float>::run(task, task.residual, 1.0f, launch);
}

constexpr GemmLibrary kLibrary{.name = "cutlass sm_80", .store = store, .accumulate = accumulate};

}  // namespace

const GemmLibrary* gemm_sm80() { return &kLibrary; }

}  // namespace nsrt::cuda
