"""Who computes the attention of long prompts on a GPU: the engine's kernel, flash-attn, or torch.

Where many rows of a prompt go through the backbone at once, an engine can have their attention computed by a function
(``Engine.set_prefill_attention``). A pipeline gives it the fastest that there is: the candidates are timed once a
process for each GPU and head shape. ``NSRT_PREFILL_ATTENTION`` names one instead, so that runs repeat to the bit
whatever the clock says. An engine made by hand has its kernel until :func:`install` is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import statistics
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

    from ._core import Engine

VARIABLE = "NSRT_PREFILL_ATTENTION"
KERNEL, FLASH, SDPA = "kernel", "flash-attn", "sdpa"
CANDIDATES = (KERNEL, FLASH, SDPA)
# A later candidate is taken where it needs this part of an earlier one's time: noise is not to change the choice.
CLEARLY_FASTER = 0.9

ROWS, REPEATS = 512, 7  # what is timed: a prompt of so many tokens, so many times
CHECKED = ((33, 33), (40, 171))  # rows, positions of what is compared: a prompt's beginning, and its later rows
TOLERANCE = 0.02  # by norm; some units of bfloat16
LEAD = 12  # products that keep the GPU busy until the host has enqueued what is timed

Attention = Callable[["Tensor", "Tensor", "Tensor", "Tensor"], None]


class HeadShape(NamedTuple):
    """Query heads, key-value heads, and numbers in each."""

    h_q: int
    h_kv: int
    d_head: int


RELEASED = HeadShape(40, 8, 128)  # of the published checkpoints


@dataclass(frozen=True)
class Choice:
    """Which candidate, and why. microseconds: of 512 rows at 512 positions, empty where nothing was timed."""

    chosen: str
    forced: bool = False
    microseconds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # why a candidate is none

    def to_json(self) -> dict[str, Any]:
        """What is known, as plain values."""
        known = {"forced": self.forced, "microseconds": self.microseconds, "notes": self.notes}
        return {"chosen": self.chosen, **{name: value for name, value in known.items() if value}}


def sdpa(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
    """Attention by torch: out = softmax(q k^T) v, the last row of q at the last position.

    q, out [rows, h_q, d_head]; k, v [h_kv, positions, d_head]; all of one floating dtype and one device; h_q is a
    multiple of h_kv. Raises what torch raises; torch < 2.5 refuses h_q != h_kv.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention

    rows, positions = q.shape[0], k.shape[1]
    options: dict[str, Any] = {"enable_gqa": True} if q.shape[1] != k.shape[0] else {}
    if rows == positions:
        options["is_causal"] = True
    else:
        options["attn_mask"] = causal_lower_right(rows, positions)
    # Not by cuDNN, which makes a plan for each new length of a prompt: that takes longer than the prompt.
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        made = scaled_dot_product_attention(q.transpose(0, 1)[None], k[None], v[None], scale=1.0, **options)
    out.copy_(made[0].transpose(0, 1))


def flash_attn(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
    """The package flash-attn, with the arguments of :func:`sdpa`; float16 and bfloat16 on a GPU.

    Before its version 2.1 rows stand at the first positions instead, which the comparison with the kernel finds.
    """
    made = importlib.import_module("flash_attn").flash_attn_func(
        q[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], softmax_scale=1.0, causal=True
    )
    out.copy_(made[0])


FUNCTIONS: dict[str, Attention] = {FLASH: flash_attn, SDPA: sdpa}


def hook(name: str) -> Callable[[Any, Any, Any, Any, int], None]:
    """A candidate for ``Engine.set_prefill_attention``: on the engine's stream, without copies. Not for "kernel"."""
    attention = FUNCTIONS[name]

    def enqueue(q: Any, k: Any, v: Any, out: Any, stream: int) -> None:
        torch: Any = importlib.import_module("torch")  # whose streams have no types
        own = torch.cuda.ExternalStream(stream, device=q.__dlpack_device__()[1])
        # The dtypes are the engine's, whatever the caller has torch do.
        with torch.cuda.stream(own), torch.no_grad(), torch.autocast("cuda", enabled=False):
            attention(*(torch.from_dlpack(array) for array in (q, k, v, out)))

    return enqueue


def install(engine: Engine) -> Choice | None:
    """Give an engine the attention that `choose` finds for its GPU and heads; None where it takes none.

    Raises `InvalidRequest` as `choose` does.
    """
    if not engine.takes_prefill_attention:
        return None
    device = int(engine.backend.removeprefix("cuda:").partition("/")[0])
    config = engine.config
    shape = HeadShape(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
    choice = choose(device, shape)
    engine.set_prefill_attention(None if choice.chosen == KERNEL else hook(choice.chosen))
    return choice


_lock = threading.Lock()
_measured: dict[tuple[int, HeadShape], Choice] = {}


def choose(device: int, shape: HeadShape = RELEASED) -> Choice:
    """The candidate for bfloat16 heads of that shape on that GPU: the fastest, or the environment's.

    Raises `InvalidRequest` where NSRT_PREFILL_ATTENTION names none, or one that does not run there. The first call for
    a GPU and a shape imports torch and takes some tenths of a second, unless "kernel" is named.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted and wanted not in CANDIDATES:
        raise InvalidRequest(
            f"{VARIABLE} is {wanted!r}; name one of {', '.join(CANDIDATES)}, or unset it for the fastest"
        )
    if wanted == KERNEL:
        return Choice(KERNEL, forced=True)
    with _lock:  # two measurements at once would measure each other
        choice = _measured.get((device, shape))
        if choice is None:
            choice = _measured[device, shape] = measure(device, shape)
    if not wanted:
        return choice
    if wanted in choice.notes:
        raise InvalidRequest(
            f"{VARIABLE} is {wanted!r}, which does not run on cuda:{device}: {choice.notes[wanted]}; unset it"
        )
    return Choice(wanted, True, choice.microseconds, choice.notes)


def measure(device: int, shape: HeadShape) -> Choice:
    """Time every candidate that is there and agrees with the kernel. What fails is noted, and no candidate."""
    notes = {name: why for name in FUNCTIONS if (why := _missing(name, device))}
    if len(notes) == len(FUNCTIONS):
        return Choice(KERNEL, notes=notes)  # nothing to choose between
    present = [name for name in CANDIDATES if name not in notes]
    times, failed = time_each({name: partial(_microseconds, name, device, shape) for name in present})
    return Choice(fastest(times), microseconds=times, notes={**notes, **failed})


def _missing(name: str, device: int) -> str | None:
    """Why a library cannot be asked; None where it can."""
    for package in ("torch", "flash_attn") if name == FLASH else ("torch",):
        if importlib.util.find_spec(package) is None:
            return f"{package.replace('_', '-')} is not installed"
    import torch

    if not torch.cuda.is_available() or device >= torch.cuda.device_count():
        return "torch does not see this GPU"
    return None


def time_each(candidates: Mapping[str, Callable[[], float]]) -> tuple[dict[str, float], dict[str, str]]:
    """Call every candidate for its time. Returns the times, and of those that raised instead, the reasons."""
    times, reasons = {}, {}
    for name, timed in candidates.items():
        try:
            times[name] = round(timed(), 1)
        except Exception as error:  # a library that was built for other GPUs, for one
            reasons[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return times, reasons


def fastest(times: Mapping[str, float]) -> str:
    """The candidate to take: an earlier one of CANDIDATES unless a later one is clearly faster; the kernel of none."""
    best = KERNEL
    for name in CANDIDATES:
        if name in times and (best not in times or times[name] < CLEARLY_FASTER * times[best]):
            best = name
    return best


def _microseconds(name: str, device: int, shape: HeadShape) -> float:
    """Median time of a candidate on the GPU. Raises what it raises, `ValueError` where it and the kernel disagree."""
    import torch

    with torch.cuda.device(device), torch.no_grad(), torch.autocast("cuda", enabled=False):
        if name != KERNEL:
            for rows, positions in CHECKED:
                want, got = (_case(which, shape, rows, positions)() for which in (KERNEL, name))
                error = float((got.float() - want.float()).norm() / want.float().norm())
                if not error < TOLERANCE:
                    raise ValueError(f"off by {error:.2g} from the kernel at {rows} rows of {positions} positions")
        return _median_time(_case(name, shape, ROWS, ROWS))


def _case(name: str, shape: HeadShape, rows: int, positions: int) -> Callable[[], Tensor]:
    """A candidate on the current GPU's numbers, always the same for a shape; returns bfloat16 [rows, h_q, d_head]."""
    import torch

    from .ops import attn_decode

    generator = torch.Generator("cuda").manual_seed(0)
    make = partial(torch.randn, generator=generator, device="cuda")
    q = (make(rows, shape.h_q, shape.d_head) * shape.d_head**-0.5).bfloat16()
    k, v = (make(shape.h_kv, positions, shape.d_head).bfloat16() for _ in range(2))
    out = torch.empty_like(q)
    places = torch.zeros(rows, 2, dtype=torch.int32, device="cuda")
    places[:, 1] = torch.arange(positions - rows, positions)

    def run() -> Tensor:
        if name == KERNEL:
            attn_decode(q, k[None], v[None], places, out=out)
        else:
            FUNCTIONS[name](q, k, v, out)
        return out

    return run


def _median_time(run: Callable[[], Any]) -> float:
    """Microseconds of the GPU for one run. Its host's time does not count: in prefill it is hidden behind products."""
    torch: Any = importlib.import_module("torch")
    run()
    square = torch.zeros(4096, 4096, dtype=torch.bfloat16, device="cuda")
    product = square @ square
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPEATS)]
    torch.cuda.synchronize()
    for _ in range(LEAD):
        torch.mm(square, square, out=product)
    for begin, end in pairs:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return 1e3 * statistics.median(float(begin.elapsed_time(end)) for begin, end in pairs)
