#include <bit>
#include <cstring>

#include "warps.h"

namespace emu {
namespace {

float bf16_half(std::uint32_t two, unsigned half) { return std::bit_cast<float>(half ? two & 0xffff0000u : two << 16); }

struct TileFragments {
  std::uint32_t a[4], b[2];
  float c[4], d[4];
};

// Where the fragments' numbers lie in the tiles is in the PTX manual under mma.m16n8k16.
void multiply_fragments(TileFragments (&lanes)[kWarpLanes]) {
  float a[16][16], b[16][8];
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    const unsigned group = lane / 4, pair = lane % 4 * 2;
    for (unsigned half = 0; half < 2; ++half) {
      for (unsigned i = 0; i < 4; ++i)
        a[group + 8 * (i % 2)][pair + half + 8 * (i / 2)] = bf16_half(lanes[lane].a[i], half);
      for (unsigned i = 0; i < 2; ++i) b[pair + half + 8 * i][group] = bf16_half(lanes[lane].b[i], half);
    }
  }
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
      double sum = lanes[lane].c[i];
      for (unsigned k = 0; k < 16; ++k) sum += static_cast<double>(a[row][k]) * static_cast<double>(b[k][column]);
      lanes[lane].d[i] = static_cast<float>(sum);
    }
  }
}

}  // namespace

void multiply_tiles_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                         const Caller& caller) {
  static_assert(sizeof(TileFragments) <= kLaneBytes);
  const CoreCall call;
  TileFragments mine = {};
  std::memcpy(mine.a, a, sizeof mine.a);
  std::memcpy(mine.b, b, sizeof mine.b);
  std::memcpy(mine.c, d, sizeof mine.c);
  const auto multiply = [](std::uint32_t, LaneValues& values) {
    TileFragments lanes[kWarpLanes];
    for (unsigned i = 0; i < kWarpLanes; ++i) std::memcpy(&lanes[i], values[i], sizeof lanes[i]);
    multiply_fragments(lanes);
    for (unsigned i = 0; i < kWarpLanes; ++i) std::memcpy(values[i], &lanes[i], sizeof lanes[i]);
  };
  const LaneValues& values = meet_lanes(~0u, "mma", &mine, sizeof mine, caller, multiply);
  std::memcpy(&mine, values[call.thread.lane], sizeof mine);
  std::memcpy(d, mine.d, sizeof mine.d);
}

}  // namespace emu
