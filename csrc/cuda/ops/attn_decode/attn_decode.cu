#include <algorithm>

#include "core/check.h"
#include "cuda/launch.h"
#include "cuda/ops/attn_decode/attn_decode.cuh"
#include "cuda/ops/attn_decode/attn_decode.h"

namespace nsrt::cuda {
namespace {

constexpr std::int32_t kMaxSplits = 64;
constexpr std::int64_t kLeastPositions = 64;  // of a split: one block of 16 a warp, less would be all latency
constexpr std::int64_t kBlocksOfSm = 2;       // one loads while the other multiplies

std::int32_t head_blocks(std::int32_t group, int heads) { return (group + heads - 1) / heads; }

void check_task(const AttnDecodeTask& t) {
  check<InvalidRequest>(t.rows >= 1 && t.h_q >= 1 && t.h_kv >= 1 && t.h_q % t.h_kv == 0, "attention of ", t.rows,
                        " rows, ", t.h_q, " query heads and ", t.h_kv,
                        " kv heads: there must be one row or more, and equally many query heads for each kv head");
  check<InvalidRequest>(t.d_head >= 8 && t.d_head <= kMaxHeadDim && t.d_head % 8 == 0,
                        "attention takes a d_head that is a ", "multiple of 8 up to ", kMaxHeadDim, ", not ", t.d_head);
  check<InvalidRequest>(t.capacity >= 1, "attention needs a cache of one position or more");
  check<InvalidRequest>(t.splits >= 1 && t.splits <= kMaxSplits, "attention takes 1 to ", kMaxSplits, " splits, not ",
                        t.splits);
  check<InvalidRequest>(aligned(t.q) && aligned(t.k) && aligned(t.v), "q, k and v must lie at multiples of 16 bytes");
}

template <class Policy>
void launch_kernel(const AttnDecodeTask& task, const AttnWorkspace& workspace, const AttnLaunch& launch) {
  const auto units_of_row = static_cast<unsigned>(task.h_kv * head_blocks(task.h_q / task.h_kv, Policy::kHeads));
  const std::size_t units = std::size_t{units_of_row} * static_cast<std::size_t>(task.rows);
  const std::size_t part = AttnPart::floats(Policy::kHeads, task.d_head);
  check<InvalidRequest>(
      task.splits == 1 || (workspace.partial_count >= units * static_cast<std::size_t>(task.splits) * part &&
                           workspace.ticket_count >= units),
      "attention's workspace is too small");
  SharedSize shared;
  shared.add<float>(kAttnWarps * part);
  cuda::launch("attn_decode", attn_decode_kernel<Policy>,
               {.grid = dim3(static_cast<unsigned>(task.splits), units_of_row, static_cast<unsigned>(task.rows)),
                .block = dim3(kAttnWarps * 32),
                .shared_bytes = shared.bytes(),
                .stream = launch.stream,
                .overlaps = launch.overlaps},
               task, workspace);
}

}  // namespace

std::int32_t attn_splits(int sm_count, std::int32_t rows, std::int32_t h_kv, std::int64_t positions) {
  const std::int64_t wanted = std::max<std::int64_t>(kBlocksOfSm * sm_count / (std::int64_t{rows} * h_kv), 1);
  const std::int64_t useful = std::max<std::int64_t>(positions / kLeastPositions, 1);
  return static_cast<std::int32_t>(std::min({wanted, useful, std::int64_t{kMaxSplits}}));
}

WorkspaceNeed attn_workspace(const AttnDecodeTask& task) {
  // The policy with the fewest heads a block has the most blocks; the one with the most heads, the largest parts.
  const std::int32_t group = task.h_q / task.h_kv;
  WorkspaceNeed need;
  for (const int heads : {TensorAttention<64>::kHeads, GenericAttention<float>::kHeads}) {
    const auto units = static_cast<std::size_t>(task.rows * task.h_kv * head_blocks(group, heads));
    need.tickets = std::max(need.tickets, units);
    need.partials =
        std::max(need.partials, units * static_cast<std::size_t>(task.splits) * AttnPart::floats(heads, task.d_head));
  }
  return need;
}

void attn_decode(const AttnDecodeTask& task, const AttnWorkspace& workspace, const AttnLaunch& launch) {
  check_task(task);
  if (launch.dtype == DType::kFloat32) return launch_kernel<GenericAttention<float>>(task, workspace, launch);
  if (task.d_head == 64) return launch_kernel<TensorAttention<64>>(task, workspace, launch);
  if (task.d_head == 128) return launch_kernel<TensorAttention<128>>(task, workspace, launch);
  launch_kernel<GenericAttention<bf16>>(task, workspace, launch);
}

Cost cost(const AttnDecodeTask& task, DType dtype, std::int64_t positions) {
  const auto width = static_cast<std::int64_t>(item_size(dtype));
  const std::int64_t queries = std::int64_t{task.rows} * task.h_q * task.d_head;
  return {.bytes = (2 * queries + 2 * std::int64_t{task.rows} * task.h_kv * positions * task.d_head) * width,
          .flops = 4 * queries * positions};
}

}  // namespace nsrt::cuda
