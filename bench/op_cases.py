"""One call of every op of nextstep_rt.ops at a model's shapes, with what it must read and compute.

What the loop streams from memory (the backbone's weights) is given in as many copies as the last cache cannot hold,
taken in turn; what it reads again in each step (the head's) in one. Bytes count each operand and the result once,
operations a multiply-add as two; both leave out what is less than a hundredth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch

from nextstep_rt import ModelConfig, SamplingParams, ops

from .environment import last_cache
from .loop import Load
from .results import SEED

FLOAT = 4
COLD = 2  # copies together are this many times the last cache at least
MOST_COPIES = 4096


@dataclass(frozen=True)
class OpCase:
    """A call to be timed. resident: bytes that are read in turn, which says from where; threads: whether it has any."""

    op: str
    what: str
    run: Callable[[], Any]
    bytes: int
    flops: int
    resident: int
    threads: bool = False


class Shapes:
    """Makes the cases of one model's shape, dtype and load. cold: bytes that copies exceed; None: twice the cache."""

    def __init__(self, config: ModelConfig, dtype: str, load: Load, threads: int = 1, cold: int | None = None) -> None:
        self.c, self.load, self.threads = config, load, threads
        self.rows, self.steps = load.rows, load.steps
        self.cold = COLD * last_cache() if cold is None else cold
        self.dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self.item = self.dtype.itemsize
        self.random = np.random.default_rng(SEED)

    def floats(self, *shape: int) -> Any:
        """Activations: float32."""
        return self.random.standard_normal(shape, dtype=np.float32)

    def weights(self, *shape: int, cold: bool = True) -> Any:
        """[copies, *shape] in the dtype; more than one only where they are to be read from memory."""
        size = int(np.prod(shape)) * self.item
        copies = min(MOST_COPIES, -(-self.cold // size)) if cold else 1
        one = torch.from_numpy(self.floats(*shape) * np.float32(shape[-1] ** -0.5)).to(self.dtype)
        return one.repeat(copies, *[1] * len(shape))

    def linear(self, what: str, n: int, k: int, rows: int | None = None, cold: bool = True) -> OpCase:
        """A product x [rows, k] by a weight [n, k]."""
        b = self.rows if rows is None else rows
        x, stack = self.floats(b, k), self.weights(n, k, cold=cold)
        turn = cycle(list(stack))
        moved = n * k * self.item + FLOAT * b * (n + k)
        rounds = self.dtype == torch.bfloat16

        def run() -> Any:
            return ops.linear(x, next(turn), threads=self.threads, round_x=rounds)

        return OpCase(
            "linear", f"{what} {n}x{k}", run, moved, 2 * b * n * k, moved * len(stack), threads=self.threads > 1
        )

    def products(self) -> Iterator[OpCase]:
        """The matrices of a layer and of the head, one after another, and the ops composed of them."""
        c, d, f = self.c, self.c.hidden_size, self.c.fm_head_dim
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        yield self.linear("q_proj", q, d)
        yield self.linear("k_proj", kv, d)
        yield self.linear("o_proj", d, q)
        yield self.linear("gate_proj", c.intermediate_size, d)
        yield self.linear("down_proj", d, c.intermediate_size)
        yield self.linear("image_in", d, c.token_dim)
        yield self.linear("cond_embed", f, d)
        yield self.linear("fc1", c.fm_mlp_dim, f, cold=False)
        yield self.linear("adaLN", (3 * c.fm_head_layers + 2) * f, f, rows=min(64, self.rows * self.steps))
        yield self._gated(c.intermediate_size, d)
        yield self._qkv(d, q, kv)
        yield self._modulations(d, f)

    def _gated(self, n: int, d: int) -> OpCase:
        x, gate, up = self.floats(self.rows, d), self.weights(n, d), self.weights(n, d)
        turn = cycle(list(zip(gate, up, strict=True)))
        moved = 2 * n * d * self.item
        return OpCase(
            "gated_linear", f"{n}x{d}", lambda: ops.gated_linear(x, *next(turn)), moved, 4 * self.rows * n * d,
            moved * len(gate),
        )  # fmt: skip

    def _qkv(self, d: int, q: int, kv: int) -> OpCase:
        c, x = self.c, self.floats(self.rows, d)
        stacks = [self.weights(n, d) for n in (q, kv, kv)]
        turn = cycle(list(zip(*stacks, strict=False)))
        capacity = self.load.last
        tables = ops.rope_tables(capacity, c.head_dim, theta=c.rope_theta)
        places = np.array([[row, self.load.positions] for row in range(self.rows)], np.int32)
        caches = [np.zeros((self.rows, c.num_key_value_heads, capacity, c.head_dim), np.float32) for _ in range(2)]

        def run() -> Any:
            return ops.qkv_linear(x, next(turn), (None, None, None), tables, places, *caches)

        moved = (q + 2 * kv) * d * self.item
        copies = min(len(stack) for stack in stacks)
        return OpCase("qkv_linear", f"{q + 2 * kv}x{d}", run, moved, 2 * self.rows * (q + 2 * kv) * d, moved * copies)

    def _modulations(self, d: int, f: int) -> OpCase:
        width = (3 * self.c.fm_head_layers + 2) * f
        condition, times = self.floats(self.rows, d), self.floats(self.steps, f)
        cond, weight = self.weights(f, d, cold=False)[0], self.weights(width, f, cold=False)[0]
        bias, wide = self.floats(f), self.floats(width)
        moved = (f * d + width * f) * self.item + FLOAT * self.steps * self.rows * width
        done = 2 * self.rows * f * d + 2 * self.rows * self.steps * width * f
        return OpCase(
            "fm_modulations", f"{self.steps} steps, {width}x{f}",
            lambda: ops.fm_modulations(condition, times, cond, bias, weight, wide), moved, done, moved,
        )  # fmt: skip

    def attentions(self) -> Iterator[OpCase]:
        """Both forms of decode attention, at the positions of the load."""
        c, b, n = self.c, self.rows, self.load.positions
        heads, kv, dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        q, lengths = self.floats(b, heads, dim), np.full(b, n, np.int64)
        moved = 2 * b * kv * n * dim * self.item
        k, v = (self.weights(b, kv, n, dim) for _ in range(2))
        turn = cycle(list(zip(k, v, strict=True)))
        done = 4 * b * heads * n * dim
        yield OpCase(
            "attention", f"{n} positions", lambda: ops.attention(q, *next(turn), lengths, threads=self.threads), moved,
            done, moved * len(k), threads=self.threads > 1,
        )  # fmt: skip
        caches = [self.floats(b, kv, n, dim) for _ in range(2)]
        places = np.array([[row, n - 1] for row in range(b)], np.int32)
        wide = moved * FLOAT // self.item
        yield OpCase(
            "attn_decode", f"{n} positions", lambda: ops.attn_decode(q, caches[0], caches[1], places), wide, done, wide
        )

    def head(self) -> OpCase:
        """The whole flow-matching loop of a token."""
        c, f, d = self.c, self.c.fm_head_dim, self.c.token_dim
        images, branches = self.rows // self.load.branches, self.load.branches
        params = SamplingParams(num_tokens=1, num_inference_steps=self.steps, branches=branches)
        plan = ops.fm_plan(params)
        draws = 1 + self.steps
        sizes = [(f, d), (d, f)]
        weights: list[Any] = [w for n, k in sizes for w in (self.weights(n, k, cold=False)[0], self.floats(n))]
        for _ in range(c.fm_head_layers):
            weights += [np.ones(f, np.float32), np.zeros(f, np.float32)]
            for n, k in ((c.fm_mlp_dim, f), (f, c.fm_mlp_dim)):
                weights += [self.weights(n, k, cold=False)[0], self.floats(n)]
        modulations = self.floats(self.steps * self.rows, (3 * c.fm_head_layers + 2) * f) * np.float32(0.1)
        noise = self.floats(draws, images, d)
        core = (2 * f * d + 2 * c.fm_head_layers * f * c.fm_mlp_dim) * self.item
        return OpCase(
            "fm_head", f"{self.steps} steps",
            lambda: ops.fm_head(weights, modulations, noise, plan, branches=branches, guidance=3.0),
            core * self.steps, 2 * core // self.item * self.rows * self.steps, core,
        )  # fmt: skip

    def all(self) -> Iterator[OpCase]:
        """Every op, one case after another: arrays of one live no longer than until the next."""
        from .small_ops import small_cases

        yield from self.products()
        yield from self.attentions()
        yield self.head()
        yield from small_cases(self)
