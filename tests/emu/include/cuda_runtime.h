// Stands before the toolkit's header of the same name: with it, a C++ compiler takes CUDA sources for ordinary C++ and
// their kernels run on the CPU. Types, and the declarations that tests/emu/src defines, are the toolkit's own.
#pragma once

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <cmath>
#include <cstring>

#define NSRT_EMULATED 1
#define __launch_bounds__(...)

#include "emu/atomics.h"
#include "emu/builtins.h"
#include "emu/intrinsics.h"
#include "emu/launch.h"
