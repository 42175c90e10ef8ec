#define NSRT_ISA avx512_bf16
#define NSRT_AVX512_BF16
// The ISA's vectors come first: the kernels are written in terms of them.
#include "cpu/simd/avx512.h"
//
#include "cpu/kernels/table.h"
