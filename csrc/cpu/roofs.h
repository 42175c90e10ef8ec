// What this machine allows at most, measured: the bench compares the kernels with it. Each function makes a team of its
// own and takes some milliseconds, or as long as reading the array a few times. All throw InvalidRequest on a number of
// threads below 1 or beyond reason.
#pragma once

#include <cstdint>

#include "nextstep_rt/tensor.h"

namespace nsrt::cpu {

// Seconds in which the team reads `bytes` once, split in equal shares that each member has written before; in the order
// of addresses or in several streams, whichever is faster. Its pages are the allocator's, as those of the engine's
// state. Throws InvalidRequest below 512 bytes a member and where there is not so much memory.
double read_seconds(std::int64_t bytes, int threads);
// Seconds in which it copies `bytes` to another array.
double copy_seconds(std::int64_t bytes, int threads);
// Operations per second of the multiplications that products are made of, a fused multiply-add counting as two:
// kFloat32, or kBFloat16 for dot products of pairs. Throws InvalidRequest where the ISA in use has none of these.
double peak_flops(DType dtype, int threads);
// Seconds of one barrier of the team; of waking it for a task that does nothing and waiting for that.
double barrier_seconds(int threads);
double pool_wake_seconds(int threads);

}  // namespace nsrt::cpu
