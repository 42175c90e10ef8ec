// CUTLASS 3 for compute capability 9.0: TMA fills shared memory, two groups of warps multiply by wgmma in turn, one
// writing its tile while the other multiplies. Persistent: a block an SM. Compiled for sm_90a alone.
#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>

#include <algorithm>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/operations.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include "cuda/launch.h"
#include "cuda/ops/gemm/cutlass/status.h"
#include "cuda/ops/gemm/library.h"

namespace nsrt::cuda {
namespace {

using Number = cutlass::bfloat16_t;
using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;
using cute::_1, cute::_2, cute::_64, cute::_128;

// 128 x 128 and not wider: a prompt of a few hundred rows has few tiles, and all SMs should have one. Blocks that are
// neighbours along n share the tile of x, of which short prompts have one only.
using Tile = cute::Shape<_128, _128, _64>;
using Cluster = cute::Shape<_1, _2, _1>;
template <class T>
inline constexpr int kAlignment = 16 / sizeof(T);

}  // namespace

// Output = x W^T + bias + Source; Source is void or the output itself.
template <class Output, class Source>
struct Sm90Parts {
  using Fusion = cutlass::epilogue::fusion::LinCombPerColBias<Output, float, float, Source, float>;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, Source, RowMajor, kAlignment<Output>, Output,
      RowMajor, kAlignment<Output>, cutlass::epilogue::TmaWarpSpecialized, Fusion>::CollectiveOp;
  using Stages =
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Epilogue::SharedStorage))>;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Number, RowMajor, kAlignment<Number>, Number, ColumnMajor,
      kAlignment<Number>, float, Tile, Cluster, Stages, cutlass::gemm::KernelTmaWarpSpecializedPingpong>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop, Epilogue,
                                                      cutlass::gemm::PersistentScheduler>;
};

// The kernel under a name that profilers and .ci/sass_check.py can read.
template <class Output, class Source>
struct GemmSm90 : Sm90Parts<Output, Source>::Kernel {};

namespace {

template <class Output, class Source>
struct Hopper {
  using Kernel = GemmSm90<Output, Source>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

  // The driver has written all operands' descriptors. Where it does not, CUTLASS prints why and goes on.
  static bool described(const Gemm& gemm) {
    const auto& mainloop = gemm.params().mainloop;
    const auto& epilogue = gemm.params().epilogue;
    bool all = is_written(mainloop.tma_load_a) && is_written(mainloop.tma_load_b) && is_written(epilogue.tma_store_d);
    if constexpr (!std::is_void_v<Source>) all = all && is_written(epilogue.tma_load_c);
    return all;
  }

  template <class Copy>
  static bool is_written(const Copy& copy) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(copy.get_tma_descriptor());
    return std::any_of(bytes, bytes + sizeof(cute::TmaDescriptor), [](unsigned char byte) { return byte != 0; });
  }

  static void run(const GemmTask& t, Output* out, const GemmLaunch& launch) {
    // Of each operand: a row to the next, a number to the next, and no batch.
    const auto rows_of = [](std::int64_t width) { return cute::make_stride(width, _1{}, std::int64_t{0}); };
    typename Gemm::Arguments arguments{
        cutlass::gemm::GemmUniversalMode::kGemm,
        {t.m, t.n, t.k, 1},
        {static_cast<const Number*>(t.x), rows_of(t.k), static_cast<const Number*>(t.w), rows_of(t.k)},
        {{}, nullptr, rows_of(t.n), out, rows_of(t.n)}};
    if constexpr (!std::is_void_v<Source>) {
      arguments.epilogue.ptr_C = out;
      arguments.epilogue.thread.beta = 1.0f;
    }
    arguments.epilogue.thread.bias_ptr = t.bias;
    check_cuda(cudaGetDevice(&arguments.hw_info.device_id), "asking for the current GPU");
    arguments.hw_info.sm_count = launch.sm_count;
    Gemm gemm;
    run_cutlass(gemm, arguments, t, launch, described);
  }
};

void store(const GemmTask& task, const GemmLaunch& launch) {
  Hopper<Number, void>::run(task, static_cast<Number*>(task.y), launch);
}

void accumulate(const GemmTask& task, const GemmLaunch& launch) {
  Hopper<float, float>::run(task, task.residual, launch);
}

constexpr GemmLibrary kLibrary{.name = "cutlass sm_90a", .store = store, .accumulate = accumulate};

}  // namespace

const GemmLibrary* gemm_sm90() { return &kLibrary; }

}  // namespace nsrt::cuda
