// Which weight rows a tile holds, and which part of the weights a block and a warp stream.
#pragma once

#include "cuda/device/platform.cuh"
#include "cuda/ops/linear/linear.h"

namespace nsrt::cuda {

inline constexpr int kStepWidth = 32;  // columns of a step: 8 for each of the 4 lanes on a row

struct Tile {
  int segment;
  int index;  // in the segment
};

__device__ __forceinline__ Tile find_tile(const LinearTask& task, int tile) {
  int segment = 0;
  while (segment + 1 < task.segment_count && tile >= task.segments[segment].tiles)
    tile -= task.segments[segment++].tiles;
  return {segment, tile};
}

// Rows of the matrices, -1 where there is none.
struct RowPair {
  int low, high;
};

// Of pair g, 0..7, of a tile.
__device__ __forceinline__ RowPair row_pair(const LinearTask& task, Tile tile, int g) {
  const Segment& segment = task.segments[tile.segment];
  if (segment.kind == TileKind::kRotary) {
    const int half = task.d_head / 2, tiles_per_head = (half + 7) / 8;
    const int i = tile.index % tiles_per_head * 8 + g;
    if (i >= half) return {-1, -1};
    const int low = tile.index / tiles_per_head * task.d_head + i;
    return {low, low + half};
  }
  if (segment.kind == TileKind::kGated) {
    const int row = tile.index * 8 + g;
    return row < segment.n ? RowPair{row, row} : RowPair{-1, -1};
  }
  const int low = tile.index * kTileRows + g, high = low + 8;
  return {low < segment.n ? low : -1, high < segment.n ? high : -1};
}

// A contiguous range of steps; tile by tile, all columns of one before the next.
struct Range {
  int begin, end;

  __device__ bool empty() const { return begin >= end; }
  __device__ int size() const { return end - begin; }
};

// Share `index` of `count` nearly equal ones.
__device__ __forceinline__ Range share(Range all, int index, int count) {
  const long long size = all.size();
  return {all.begin + static_cast<int>(size * index / count), all.begin + static_cast<int>(size * (index + 1) / count)};
}

// The inverse: which share of [0, total) holds `step`.
__device__ __forceinline__ int share_of(int step, int total, int count) {
  return static_cast<int>(((step + 1LL) * count - 1) / total);
}

}  // namespace nsrt::cuda
