"""Every op on the GPU against float64, and the hot ones timed; needs numpy and torch, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from . import double
from .figures import Figures, relative_error

# By norm: bf16 keeps 8 bits, and the FM head's loop is a dozen products one after another.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
LOOP = 5  # times that
EPS = 1e-6
Result = tuple[str, Any, Any]  # what, what the GPU says, what float64 says


class Numbers:
    """Random arguments: float64 values that the dtype can hold, and the same on the device."""

    def __init__(self, seed: int, dtype: str) -> None:
        self._rng, self.dtype = np.random.default_rng(seed), dtype

    def normal(self, *shape: int, scale: float = 1.0, dtype: str | None = None) -> tuple[Any, Any]:
        """(float64, on the device); of the numbers' dtype where no other is given."""
        from nextstep_rt.ops import cuda

        values = torch.tensor(self._rng.standard_normal(shape) * scale, dtype=getattr(torch, dtype or self.dtype))
        host = values if values.dtype == torch.bfloat16 else values.numpy()
        return values.double().numpy(), cuda.to_device(host)

    def single(self, *shape: int) -> tuple[Any, Any]:
        """Of vectors and statistics, which are float32 always."""
        return self.normal(*shape, dtype="float32")

    def around_one(self, n: int) -> tuple[Any, Any]:
        """Weights of a norm."""
        from nextstep_rt.ops import cuda

        values = (1 + 0.1 * self._rng.standard_normal(n)).astype(np.float32)
        return values.astype(np.float64), cuda.to_device(values)

    def matrix(self, n: int, k: int) -> tuple[Any, Any]:
        """[n, k], so scaled that products keep the size of their inputs."""
        return self.normal(n, k, scale=k**-0.5)

    def places(self, rows: int, sequences: int, capacity: int) -> tuple[Any, Any]:
        """int32 [rows, 2], no two the same."""
        from nextstep_rt.ops import cuda

        chosen = self._rng.choice(sequences * capacity, rows, replace=False)
        places = np.stack([chosen // capacity, chosen % capacity], axis=1).astype(np.int32)
        return places, cuda.to_device(places)


def linear(numbers: Numbers, rows: int, n: int, k: int) -> Iterator[Result]:
    """Products plain, gated, and behind a norm with all that may follow."""
    from nextstep_rt import ops

    (x, dx), (w, dw), (up, dup) = numbers.normal(rows, k), numbers.matrix(n, k), numbers.matrix(n, k)
    (stream, dstream), (weight, dweight) = numbers.single(rows, k), numbers.single(k)
    (bias, dbias), (residual, dresidual) = numbers.single(n), numbers.single(rows, n)
    name = f"{rows} x {n} x {k}"
    yield f"linear {name}", ops.linear(dx, dw, dbias), x @ w.T + bias
    yield f"gated_linear {name}", ops.gated_linear(dx, dw, dup, dbias), double.silu(x @ w.T + bias) * (x @ up.T)
    normed = double.rms_norm(stream, weight, EPS)
    got = ops.linear(dstream, dw, dbias, dresidual, silu=True, norm_weight=dweight, eps=EPS)
    yield f"linear behind a norm {name}", got, double.silu(normed @ w.T + bias) + residual
    yield f"rms_norm {rows} x {k}", ops.rms_norm(dstream, dweight, eps=EPS), normed


def attention(numbers: Numbers, rows: int, h_q: int, h_kv: int, d: int, capacity: int) -> Iterator[Result]:
    """q, k, v with rotation and append, then attention over a cache, from the start and from later positions."""
    from nextstep_rt import ops
    from nextstep_rt.ops import cuda

    sequences, width, name = 2, 72, f"{rows} rows, {h_q}/{h_kv} heads of {d}"
    made = [numbers.matrix(h * d, width) for h in (h_q, h_kv, h_kv)]
    biases = [numbers.single(h * d) for h in (h_q, h_kv, h_kv)]
    (x, dx), (places, dplaces) = numbers.normal(rows, width), numbers.places(rows, sequences, capacity)
    caches = [numbers.normal(sequences, h_kv, capacity, d) for _ in range(2)]
    tables = ops.rope_tables(capacity, d, theta=1e4)
    weights, dweights = ([pair[i] for pair in made] for i in range(2))
    q, k, v = double.qkv(x, weights, [b for b, _ in biases], tables, places, d)
    dtables, dcaches = [cuda.to_device(table) for table in tables], [cache for _, cache in caches]
    yield f"qkv_linear {name}", ops.qkv_linear(dx, dweights, [b for _, b in biases], dtables, dplaces, *dcaches), q
    for what, new, (cache, dcache) in zip(("keys", "values"), (k, v), caches, strict=True):
        cache[places[:, 0], :, places[:, 1]] = new
        yield f"qkv_linear {name}, {what}", dcache, cache
    keys, values = (np.asarray(cache.numpy(), np.float64) for cache in dcaches)
    starts = (places[:, 1] // 2).astype(np.int32)
    starts[-1] = places[-1, 1] + 1  # sees nothing
    query, dquery = numbers.normal(rows, h_q, d, scale=d**-0.5)
    for what, first in (("all", np.zeros(rows, np.int32)), ("some", starts)):
        got = ops.attn_decode(dquery, dcaches[0], dcaches[1], dplaces, cuda.to_device(first))
        yield f"attn_decode {name}, {what} of {capacity}", got, double.attention(query, keys, values, places, first)


def fm_head(numbers: Numbers, branches: int, images: int, sizes: tuple[int, int, int], solver: str) -> Iterator[Result]:
    """Modulations, then the whole loop with them."""
    from nextstep_rt import SamplingParams, ops
    from nextstep_rt.ops import cuda

    (d, d_mlp, d_tok), d_model, layers, rows = sizes, 48, 2, branches * images
    plan = ops.fm_plan(SamplingParams(num_tokens=4, solver=solver, num_inference_steps=3))
    times, dtimes = numbers.single(int(max(plan[1::6])) + 1, d)
    condition, dcondition = numbers.normal(rows, d_model)
    cond, adaln = (numbers.matrix(d, d_model), numbers.single(d)), numbers.matrix((3 * layers + 2) * d, d)
    bias = numbers.single((3 * layers + 2) * d)
    name = f"{branches} x {images} rows of {d}, {solver}"
    got = ops.fm_modulations(dcondition, dtimes, cond[0][1], cond[1][1], adaln[1], bias[1])
    wanted = double.modulations(condition, times, [cond[0][0], cond[1][0]], [adaln[0], bias[0]])
    yield f"fm_modulations {name}", got, wanted
    pairs = [numbers.matrix(d, d_tok), numbers.single(d), numbers.matrix(d_tok, d), numbers.single(d_tok)]
    for _ in range(layers):
        pairs += [numbers.around_one(d), numbers.single(d), numbers.matrix(d_mlp, d), numbers.single(d_mlp)]
        pairs += [numbers.matrix(d, d_mlp), numbers.single(d)]
    noise, image_in = numbers.single(4, images, d_tok), [numbers.matrix(d_model, d_tok), numbers.single(d_model)]
    rest = {"plan": plan, "branches": branches, "guidance": 2.5, "image_guidance": 1.5, "renorm": branches > 1}
    host = {"weights": [a for a, _ in pairs], "noise": noise[0], "image_in": [a for a, _ in image_in], **rest}
    device = {"weights": [a for _, a in pairs], "noise": noise[1], "image_in": [a for _, a in image_in], **rest}
    made = torch.tensor(wanted * 0.3).to(getattr(torch, numbers.dtype))
    on_device = cuda.to_device(made if made.dtype == torch.bfloat16 else made.numpy())
    results, right = ops.fm_head(modulations=on_device, **device), double.fm_head(host, made.double().numpy())
    for what, result, want in zip(("tokens", "embeddings"), results, right, strict=True):
        yield f"fm_head {name}, {what}", result, want


def cases(small: bool) -> Iterator[Callable[[Numbers], Iterator[Result]]]:
    """All there is to check; `small`: what a CPU can emulate."""
    for rows in (2, 9) if small else (1, 2, 3, 5, 8, 9, 16):
        yield partial(linear, rows=rows, n=72, k=136)
    for h_q, h_kv, d, capacity in ((4, 2, 40, 33), (5, 1, 64, 70), (10, 2, 128, 1500))[: 1 if small else 3]:
        yield partial(attention, rows=5, h_q=h_q, h_kv=h_kv, d=d, capacity=capacity)
    if not small:
        yield partial(linear, rows=4, n=5120, k=5120)
    loops = ((2, 1, "sde"), (3, 2, "heun"), (1, 1, "euler"), (2, 4, "euler"))
    for branches, images, solver in loops[: 1 if small else 4]:
        wide = not small and branches * images <= 4  # more have no room in the shared memory of every GPU
        for sizes in ((56, 80, 24), (1536, 1536, 64))[: 2 if wide else 1]:
            yield partial(fm_head, branches=branches, images=images, sizes=sizes, solver=solver)


def check(figures: Figures, small: bool) -> None:
    """Errors of every op in both dtypes; raises RuntimeError naming those that are too far off."""
    errors: dict[str, float] = {}
    wrong = []
    for dtype, tolerance in TOLERANCE.items():
        for seed, case in enumerate(cases(small)):
            for what, got, wanted in case(Numbers(seed, dtype)):
                name = f"{what} {dtype}"
                errors[name] = relative_error(got.numpy(), wanted)
                if not errors[name] <= tolerance * (LOOP if what.startswith("fm_head") else 1):
                    wrong.append(f"{name}: {errors[name]:.2g}")
        figures.put("checked", len(errors))
        figures.put("largest_errors", largest(errors))
    figures.put("errors", errors)
    if wrong or not errors:
        raise RuntimeError(f"ops too far from float64: {'; '.join(wrong) or 'none was run'}")


def largest(errors: dict[str, float]) -> dict[str, float]:
    """Of each op and dtype."""
    found: dict[str, float] = {}
    for name, error in errors.items():
        kind = f"{name.split()[0]} {name.split()[-1]}"
        found[kind] = max(found.get(kind, 0.0), error)
    return {kind: float(f"{error:.3g}") for kind, error in found.items()}
