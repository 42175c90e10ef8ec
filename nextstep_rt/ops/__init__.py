"""Every stage of the decode loop as a function on arrays: for tests, benchmarks and other projects.

Arrays are numpy's or anything with ``__dlpack__`` (torch tensors, ...). In host memory they are read without copying
where they are dense, and results are numpy arrays, which every DLPack library takes. Activations are float32; weights
and KV caches float32 or bfloat16.

On a GPU (in a build with CUDA) they must be contiguous, begin at a multiple of 16 bytes and lie on one device. Ops are
enqueued on ``stream`` (a CUDA stream's address; None: torch's current stream for torch tensors, else the legacy default
stream) and not waited for. Results go to ``out``, where it is given; else to a new torch tensor if the first argument
is one, else to a new :func:`DeviceArray <nextstep_rt.ops.cuda.empty>`. Activations may be bfloat16 there.

These have a GPU kernel: ``linear``, ``gated_linear``, ``qkv_linear``, ``attn_decode``, ``rms_norm``, ``add_position``,
``fm_modulations`` and ``fm_head``; :mod:`nextstep_rt.torch_ops` registers each with torch. The others run on the CPU.

All raise :class:`nextstep_rt.InvalidRequest` on a wrong dtype, shape or device. ``isa`` forces an instruction set level
(one of ``nextstep_rt._core.isa_levels()``); None takes the one in use. Results do not depend on ``threads``, nor a
row's result on the other rows. Formulas: docs/model.md.
"""

from .fused import (
    add_position,
    attn_decode,
    fm_head,
    fm_modulations,
    fm_plan,
    gated_linear,
    linear,
    qkv_linear,
    rms_norm,
    rope_tables,
)
from .host import (
    SolverStep,
    attention,
    guidance,
    layer_norm,
    normal_noise,
    rope,
    silu_mul,
    solver_plan,
    solver_update,
    time_grid,
    time_sinusoid,
    token_norm,
)

__all__ = [
    "SolverStep",
    "add_position",
    "attention",
    "attn_decode",
    "fm_head",
    "fm_modulations",
    "fm_plan",
    "gated_linear",
    "guidance",
    "layer_norm",
    "linear",
    "normal_noise",
    "qkv_linear",
    "rms_norm",
    "rope",
    "rope_tables",
    "silu_mul",
    "solver_plan",
    "solver_update",
    "time_grid",
    "time_sinusoid",
    "token_norm",
]
