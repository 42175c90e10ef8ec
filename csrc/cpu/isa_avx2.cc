#define NSRT_ISA avx2
// The ISA's vectors come first: the kernels are written in terms of them.
#include "cpu/simd/avx2.h"
//
#include "cpu/kernels/table.h"
