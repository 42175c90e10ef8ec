// Gathers the kernels of one ISA level into its table. Included last by cpu/isa_*.cc.
// These headers use no inline function of the standard library on purpose: compiled here with wider instructions, the
// linker could keep that copy for the whole program, and a CPU without them would die on it.
#pragma once

#include "cpu/kernel_table.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/norm.h"
// The order matters: these use the two above.
#include "cpu/kernels/attention.h"
#ifdef NSRT_AMX
#include "cpu/kernels/amx.h"
#endif
#include "cpu/kernels/matmul.h"
#include "cpu/kernels/roofs.h"

#define NSRT_STRING_(x) #x
#define NSRT_STRING(x) NSRT_STRING_(x)

namespace nsrt::cpu::NSRT_ISA {

const KernelTable kTable = {
    .name = NSRT_STRING(NSRT_ISA),
    .has_dot = kHasDot,
#ifdef NSRT_AMX
    .packs = true,
#else
    .packs = false,
#endif
    .matmul = matmul,
    .attention_block = attention_block,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .epilogue = epilogue,
    .gated_residual = gated_residual,
    .silu_mul = silu_mul,
    .silu_add = silu_add,
    .rope = rope,
    .update = update,
    .to_bf16 = to_bf16,
    .weighted_sum = weighted_sum,
    .roofs = kRoofs,
};

}  // namespace nsrt::cpu::NSRT_ISA
