// A warp's weights on their way: kStages steps ahead, in a ring of shared memory. A lane reads only what it fetched
// itself, so the ring needs no barrier; and weights depend on nothing, so the first stages start before the predecessor
// has ended.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/device/ptx.cuh"
#include "cuda/ops/linear/tiles.cuh"

namespace nsrt::cuda {

inline constexpr int kStepNumbers = 2 * 32 * 8;  // of a warp: 8 of a low and of a high row for each lane

template <class Weight, int kStages>
class WeightStream {
 public:
  static constexpr int kNumbers = kStages * kStepNumbers;  // of a warp's ring

  __device__ WeightStream(const LinearTask& task, int steps_per_tile, Range range, int lane, Weight* ring)
      : task_(task), steps_per_tile_(steps_per_tile), end_(range.end), lane_(lane), ring_(ring), next_(range.begin) {
    if (!range.empty()) seek(range.begin / steps_per_tile_, range.begin % steps_per_tile_);
  }

  // Starts the next step on its way, if there is one; a group of its own either way, so that waiting can count. The
  // first time that there is none, this warp lets the next launch start, which it does once a warp of every block has
  // come here: from then on this one leaves bandwidth to its weights. To start it at once would only share the
  // bandwidth, and take it from warps that others wait for.
  __device__ void fetch() {
    if (next_ < end_) {
      const int slot = next_ % kStages, column = step_ * kStepWidth + lane_ % 4 * 8;
      fetch_row(low_, column, place(slot, 0));
      fetch_row(high_, column, place(slot, 1));
      ++next_;
      if (++step_ == steps_per_tile_ && next_ < end_) seek(tile_ + 1, 0);
    } else if (next_ == end_) {
      ptx::pdl_launch_dependents();
      ++next_;  // not again
    }
    ptx::cp_async_commit();
  }

  // The oldest step under way has arrived.
  __device__ static void wait() { ptx::cp_async_wait<kStages - 1>(); }

  __device__ const Weight* low(int step) const { return place(step % kStages, 0); }
  __device__ const Weight* high(int step) const { return place(step % kStages, 1); }

 private:
  __device__ Weight* place(int slot, int half) const { return ring_ + ((slot * 2 + half) * 32 + lane_) * 8; }

  __device__ void seek(int tile, int step) {
    tile_ = tile;
    step_ = step;
    const Tile found = find_tile(task_, tile);
    const Segment& s = task_.segments[found.segment];
    const RowPair n = row_pair(task_, found, lane_ / 4);
    low_ = row(s.w, n.low);
    high_ = row(s.kind == TileKind::kGated ? s.w2 : s.w, n.high);
  }

  __device__ const Weight* row(const void* matrix, int n) const {
    return n < 0 ? nullptr : static_cast<const Weight*>(matrix) + static_cast<std::int64_t>(n) * task_.k;
  }

  __device__ void fetch_row(const Weight* row, int column, Weight* to) const {
    constexpr int kPerCopy = 16 / sizeof(Weight);
#pragma unroll
    for (int i = 0; i < 8; i += kPerCopy) {
      if (row != nullptr && column < task_.k)
        ptx::cp_async_16(to + i, row + column + i);
      else
        *reinterpret_cast<uint4*>(to + i) = make_uint4(0, 0, 0, 0);
    }
  }

  const LinearTask& task_;
  const int steps_per_tile_, end_, lane_;
  Weight* ring_;
  int next_;  // step to fetch
  int tile_ = 0, step_ = 0;
  const Weight* low_ = nullptr;
  const Weight* high_ = nullptr;
};

}  // namespace nsrt::cuda
