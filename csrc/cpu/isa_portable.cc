#define NSRT_ISA portable
// The ISA's vectors come first: the kernels are written in terms of them.
#include "cpu/simd/portable.h"
//
#include "cpu/kernels/table.h"
