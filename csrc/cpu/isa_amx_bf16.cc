#define NSRT_ISA amx_bf16
#define NSRT_AVX512_BF16
#define NSRT_AMX
// The ISA's vectors come first: the kernels are written in terms of them.
#include "cpu/simd/avx512.h"
//
#include "cpu/kernels/table.h"
