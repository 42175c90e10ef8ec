#define NSRT_ISA avx512
// The ISA's vectors come first: the kernels are written in terms of them.
#include "cpu/simd/avx512.h"
//
#include "cpu/kernels/table.h"
