// y = W x by streams of weights. Bound by memory: every SM reads an equal, contiguous share of the weights, whatever
// the matrix's shape, so tiles of 16 rows may be split along k between warps and between blocks. Their sums meet in
// shared memory and in the workspace, and are added in the order of k by whoever comes last: the same bits every time.
//
// Grid: one block a share. Block: kWarps warps, each with a share of the block's.
#pragma once

#include "cuda/device/reduce.cuh"
#include "cuda/device/thread.cuh"
#include "cuda/ops/linear/epilogue.cuh"
#include "cuda/ops/linear/multiply.cuh"
#include "cuda/ops/linear/stream.cuh"

namespace nsrt::cuda {

inline constexpr int kLinearWarps = 8;
inline constexpr int kLinearThreads = kLinearWarps * 32;

template <class Multiply>
struct LinearShape {
  using Weight = typename Multiply::Weight;
  static constexpr int kSlot = 32 * 2 * Multiply::kPairs;  // floats of a warp's sums of a tile

  static constexpr std::size_t ring_numbers(int stages) {
    return std::size_t{kLinearWarps} * static_cast<std::size_t>(stages) * kStepNumbers;
  }
  static constexpr std::size_t slot_floats() { return std::size_t{kLinearWarps} * 2 * kSlot; }
  // The kernel takes the same arrays in the same order.
  static constexpr std::size_t shared_bytes(int stages) {
    SharedSize size;
    size.add<Weight>(ring_numbers(stages));
    size.add<float>(slot_floats());
    size.add<float>(Multiply::kRows);
    return size.bytes();
  }
};

// What a lane holds of a tile: its row pair's products with kPairs rows of x.
template <class Multiply>
struct Sums {
  float low[Multiply::kPairs], high[Multiply::kPairs];

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < Multiply::kPairs; ++j) low[j] = high[j] = 0.0f;
  }
  __device__ void store(float* slot, int lane) const {
#pragma unroll
    for (int j = 0; j < Multiply::kPairs; ++j) {
      slot[2 * j * 32 + lane] = low[j];
      slot[(2 * j + 1) * 32 + lane] = high[j];
    }
  }
  __device__ void add(const float* slot, int lane) {
#pragma unroll
    for (int j = 0; j < Multiply::kPairs; ++j) {
      low[j] += slot[2 * j * 32 + lane];
      high[j] += slot[(2 * j + 1) * 32 + lane];
    }
  }
};

template <class Multiply, Epilogue kKind>
class LinearBlock {
 public:
  __device__ LinearBlock(const LinearTask& task, const LinearWorkspace& workspace, const float* scales, float* slots)
      : task_(task), workspace_(workspace), scales_(scales), slots_(slots) {
    tiles_ = 0;
    for (int i = 0; i < task.segment_count; ++i) tiles_ += task.segments[i].tiles;
    steps_ = (task.k + kStepWidth - 1) / kStepWidth;
    block_ = share({0, total()}, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
    range_ = warp_share(warp_index());
  }

  __device__ Range range() const { return range_; }
  __device__ int steps_per_tile() const { return steps_; }

  // A warp's sums of a tile are as far as its range goes: write the outputs, or leave the sums for the others.
  __device__ void leave_tile(int tile, const Sums<Multiply>& sums) {
    if (range_.begin <= tile * steps_ && (tile + 1) * steps_ <= range_.end)
      write(tile, sums);
    else
      sums.store(slot(warp_index(), range_.begin > tile * steps_ ? 0 : 1), lane_index());
  }

  // After a barrier: the tiles that several warps share. The first of them adds up.
  __device__ void combine() {
    if (range_.empty()) return;
    const int first = range_.begin / steps_, last = (range_.end - 1) / steps_;
    const bool begins_block = range_.begin == block_.begin && range_.begin % steps_ != 0;
    if (begins_block) combine_tile(first);
    if (range_.end % steps_ != 0 && !(begins_block && last == first) && range_.begin <= last * steps_)
      combine_tile(last);
  }

 private:
  __device__ int total() const { return tiles_ * steps_; }
  __device__ Range warp_share(int w) const { return share(block_, w, kLinearWarps); }
  // A warp leaves at most two tiles unfinished: the one it begins within, and the one it ends within.
  __device__ float* slot(int w, int which) const { return slots_ + (w * 2 + which) * LinearShape<Multiply>::kSlot; }

  __device__ void combine_tile(int tile) {
    const int begin = tile * steps_, end = begin + steps_;
    Sums<Multiply> sums;
    sums.clear();
    for (int w = warp_index(); w < kLinearWarps; ++w) {
      const Range theirs = warp_share(w);
      if (theirs.empty()) continue;
      if (theirs.begin >= end) break;
      sums.add(slot(w, theirs.begin > begin ? 0 : 1), lane_index());
    }
    if (block_.begin <= begin && end <= block_.end)
      write(tile, sums);
    else
      meet(tile, sums);
  }

  // The last block to bring its part of a tile adds all parts, in the order of k.
  __device__ void meet(int tile, Sums<Multiply>& sums) {
    const int begin = tile * steps_, blocks = static_cast<int>(gridDim.x);
    const int first = share_of(begin, total(), blocks), last = share_of(begin + steps_ - 1, total(), blocks);
    sums.store(partial(static_cast<int>(blockIdx.x), begin), lane_index());
    __syncwarp();
    std::uint32_t arrived = 0;
    if (lane_index() == 0) arrived = ptx::add_acq_rel(workspace_.tickets + tile, 1u);
    arrived = __shfl_sync(0xffffffffu, arrived, 0);
    if (static_cast<int>(arrived) != last - first) return;
    __syncwarp();
    sums.clear();
    for (int b = first; b <= last; ++b) sums.add(partial(b, begin), lane_index());
    write(tile, sums);
    if (lane_index() == 0) workspace_.tickets[tile] = 0;  // for the next launch
  }

  __device__ float* partial(int block, int tile_begin) const {
    const int which = share({0, total()}, block, static_cast<int>(gridDim.x)).begin > tile_begin ? 0 : 1;
    return workspace_.partials + (static_cast<std::int64_t>(block) * 2 + which) * LinearShape<Multiply>::kSlot;
  }

  __device__ void write(int tile, const Sums<Multiply>& sums) const {
    const Tile place = find_tile(task_, tile);
    const RowPair n = row_pair(task_, place, lane_index() / 4);
    const Finish<kKind, typename Multiply::Activation> finish{task_, place};
#pragma unroll
    for (int j = 0; j < Multiply::kPairs; ++j) {
      const int r = Multiply::row(j, lane_index());
      float squares = 0.0f;
      if (r < task_.rows) squares = finish(n, r, sums.low[j] * scales_[r], sums.high[j] * scales_[r]);
      if constexpr (kKind == Epilogue::kResidual) {
        for (int step = 4; step < 32; step *= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
        if (lane_index() < 4 && r < task_.rows) task_.squares[static_cast<std::int64_t>(r) * tiles_ + tile] = squares;
      }
    }
  }

  const LinearTask& task_;
  const LinearWorkspace& workspace_;
  const float* scales_;  // of the rows of x
  float* slots_;
  int tiles_, steps_;
  Range block_, range_;
};

// 1 / rms of every row, or 1, in `scales`, to be read after a barrier. All threads add up each row, in an order that
// does not depend on the number of rows; `parts` has room for a number a warp and row.
__device__ __forceinline__ void row_scales(const LinearTask& task, float* parts, float* scales) {
  constexpr int kTogether = 4;  // rows whose squares are on their way at the same time
  const RmsStatistics& norm = task.norm;
  for (int first = 0; norm.squares && first < task.rows; first += kTogether) {
    float sums[kTogether] = {};
    for (int i = thread_index(); i < norm.parts; i += kLinearThreads) {
#pragma unroll
      for (int j = 0; j < kTogether; ++j)
        if (first + j < task.rows) sums[j] += norm.squares[(first + j) * norm.parts + i];
    }
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      const float sum = warp_sum(sums[j]);
      if (lane_index() == 0 && first + j < task.rows) parts[(first + j) * kLinearWarps + warp_index()] = sum;
    }
  }
  if (norm.squares) __syncthreads();
  const int r = thread_index();
  if (r >= task.rows) return;
  float scale = 1.0f;
  if (norm.squares) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kLinearWarps; ++w) sum += parts[r * kLinearWarps + w];
    scale = rsqrtf(sum / static_cast<float>(norm.width) + norm.eps);
  }
  scales[r] = scale;
}

// A warp's way through its range: weights from the stream, x from memory, several steps ahead of where it multiplies.
template <class Multiply, Epilogue kKind, class Stream>
class LinearWarp {
 public:
  using Activation = typename Multiply::Activation;

  __device__ LinearWarp(const LinearTask& task, LinearBlock<Multiply, kKind>& block, Stream& stream)
      : task_(task), block_(block), stream_(stream), range_(block.range()), steps_(block.steps_per_tile()) {}

  // x of the first steps; after pdl_wait().
  __device__ void begin() { load_ahead(range_.begin, range_.begin / steps_ * steps_); }

  // Every tile of the range, as far as the range goes; sums go to the block.
  __device__ void run() {
    Multiply multiply;
    multiply.clear();
    for (int step = range_.begin; step < range_.end;) {
      const int tile = step / steps_, first = tile * steps_, end = min(range_.end, first + steps_);
      for (; step < end; step += kAhead) add_steps(multiply, step, first, end);
      step = end;
      load_ahead(end, end);  // of the next tile, while this one is written
      Sums<Multiply> sums;
      multiply.finish(sums.low, sums.high, lane_index());
      block_.leave_tile(tile, sums);
      multiply.clear();
    }
  }

 private:
  static constexpr int kAhead = Multiply::kAhead;

  // `first` is the first step of the tile.
  __device__ typename Multiply::Operand load(int step, int first) const {
    const int column = (step - first) * kStepWidth + lane_index() % 4 * 8;
    return Multiply::load(static_cast<const Activation*>(task_.x), task_.rows, task_.k, column, lane_index());
  }

  __device__ void load_ahead(int step, int first) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      ahead_[i] = step + i < range_.end ? load(step + i, first) : typename Multiply::Operand{};
  }

  // Up to kAhead steps: what is in registers has a place that does not depend on the step.
  __device__ void add_steps(Multiply& multiply, int step, int first, int end) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (step + i >= end) break;
      Stream::wait();
      multiply.add(stream_.low(step + i), stream_.high(step + i), ahead_[i]);
      stream_.fetch();
      if (step + i + kAhead < end) ahead_[i] = load(step + i + kAhead, first);
    }
  }

  const LinearTask& task_;
  LinearBlock<Multiply, kKind>& block_;
  Stream& stream_;
  const Range range_;
  const int steps_;  // of a tile
  typename Multiply::Operand ahead_[kAhead];
};

// Where the policy's registers and the GPU's shared memory allow it, two blocks fit on a multiprocessor: the next
// launch's, which loads its first weights, beside this one's.
template <class Multiply, Epilogue kKind, int kStages>
__global__ void __launch_bounds__(kLinearThreads, Multiply::kBlocksOfSm)
    linear_kernel(const __grid_constant__ LinearTask task, const __grid_constant__ LinearWorkspace workspace) {
  using Weight = typename Multiply::Weight;
  using Shape = LinearShape<Multiply>;
  using Stream = WeightStream<Weight, kStages>;
  NSRT_DYNAMIC_SHARED(memory);
  SharedCarver carver(memory);
  auto* ring = carver.take<Weight>(Shape::ring_numbers(kStages));
  auto* slots = carver.take<float>(Shape::slot_floats());
  auto* scales = carver.take<float>(Multiply::kRows);

  LinearBlock<Multiply, kKind> block(task, workspace, scales, slots);
  Stream stream(task, block.steps_per_tile(), block.range(), lane_index(), ring + warp_index() * Stream::kNumbers);
  for (int i = 0; i < kStages; ++i) stream.fetch();

  ptx::pdl_wait();
  LinearWarp<Multiply, kKind, Stream> warp(task, block, stream);
  warp.begin();
  row_scales(task, slots, scales);
  __syncthreads();
  warp.run();
  __syncthreads();
  block.combine();
}

}  // namespace nsrt::cuda
