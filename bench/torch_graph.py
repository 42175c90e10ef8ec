"""One image token in torch with static buffers, so that a CUDA graph can replay it: a baseline without launch costs.

The products are torch's, one for each Linear of the checkpoint; norms, rotations and the head are the reference's
functions. What a careful user of torch gets without writing kernels.
"""

from __future__ import annotations

from typing import Any

import torch

from nextstep_rt.reference import (
    Sequences,
    apply_rope,
    combine_guidance,
    integrate,
    mlp,
    normalize_token,
    rms_norm,
    rope_tables,
    run_backbone,
    time_embedding,
    time_grid,
    velocity,
)
from nextstep_rt.reference.fm_head import NET, modulate
from nextstep_rt.reference.types import Weights, linear, wide


class GraphToken:
    """The rows after a prefill, and one more token at each call. On a CPU, or before capture(), it runs eagerly."""

    def __init__(self, config: Any, weights: Weights, params: Any, embeds: torch.Tensor, tokens: int) -> None:
        """Prefills embeds [rows, width, d_model], in the weights' dtype and on their device; room for `tokens`."""
        if config.use_gen_pos_embed:
            raise ValueError("position embeddings are not part of this baseline")
        (rows, width, _), device, dtype = embeds.shape, embeds.device, embeds.dtype
        self.config, self.weights, self.params, self.dtype = config, weights, params, dtype
        sequences = Sequences(torch.ones(rows, width, dtype=torch.bool, device=device))
        self.hidden = run_backbone(weights, config, embeds, sequences)[0][:, -1].clone()
        room = (0, 0, 0, tokens)
        self.keys = [torch.nn.functional.pad(k, room) for k in sequences.keys]
        self.values = [torch.nn.functional.pad(v, room) for v in sequences.values]
        self.columns = torch.arange(width + tokens, device=device)
        self.cos, self.sin = rope_tables(self.columns[None], config.head_dim, config.rope_theta, dtype)
        self.position = torch.tensor([width], device=device)
        knots = time_grid(params)
        self.knots = [float(t) for t in knots]
        times = torch.tensor(knots[: params.num_inference_steps], device=device, dtype=torch.float64)
        self.time = time_embedding(weights, times)[:, None, :]
        shape = (1 + params.num_inference_steps, rows // params.branches, config.token_dim)
        self.noise = torch.zeros(shape, device=device, dtype=wide(dtype))
        self.x = torch.zeros(shape[1:], device=device, dtype=wide(dtype))
        self.graph: torch.cuda.CUDAGraph | None = None

    def _attention(self, layer: int, x: torch.Tensor, rope: tuple[torch.Tensor, ...]) -> torch.Tensor:
        name, c, b = f"layers.{layer}.self_attn.", self.config, x.shape[0]

        def heads(projection: str, count: int) -> torch.Tensor:
            return linear(self.weights, name + projection, x).view(b, 1, count, c.head_dim).transpose(1, 2)

        q = apply_rope(heads("q_proj", c.num_attention_heads), *rope)
        self.keys[layer].index_copy_(2, self.position, apply_rope(heads("k_proj", c.num_key_value_heads), *rope))
        self.values[layer].index_copy_(2, self.position, heads("v_proj", c.num_key_value_heads))
        q = q.reshape(b, c.num_key_value_heads, -1, c.head_dim)  # a group's heads are rows: no key is read twice
        scores = (q @ self.keys[layer].transpose(-1, -2)).to(wide(self.dtype)) * c.head_dim**-0.5
        chances = scores.masked_fill(self.columns > self.position, -torch.inf).softmax(dim=-1)
        mixed = chances.to(self.dtype) @ self.values[layer]
        return linear(self.weights, name + "o_proj", mixed.reshape(b, 1, -1))

    def _advance(self) -> None:
        """The last token through the backbone."""
        c, w = self.config, self.weights
        x = linear(w, "image_in_projector", self.x.to(self.dtype)).repeat(self.params.branches, 1)[:, None]
        rope = self.cos.index_select(2, self.position), self.sin.index_select(2, self.position)
        for i in range(c.num_hidden_layers):
            x = x + self._attention(i, rms_norm(x, w[f"layers.{i}.input_layernorm.weight"], c.rms_norm_eps), rope)
            x = x + mlp(w, i, rms_norm(x, w[f"layers.{i}.post_attention_layernorm.weight"], c.rms_norm_eps))
        self.hidden.copy_(rms_norm(x, w["norm.weight"], c.rms_norm_eps)[:, 0])
        self.position.add_(1)

    def _sample(self) -> None:
        """The head's loop from noise to the next token; all steps' modulations in one product a block."""
        p, w = self.params, self.weights
        condition = linear(w, NET + "cond_embed", linear(w, "image_out_projector", self.hidden))
        modulation = modulate(w, self.config, self.time + condition[None])

        def guided(x: torch.Tensor, k: int) -> torch.Tensor:
            v = velocity(w, self.config, x.to(self.dtype).repeat(p.branches, 1), modulation[k]).to(x.dtype)
            return combine_guidance(v, p.branches, p.guidance_scale, p.image_guidance_scale, p.guidance_renorm)

        x = integrate(p, self.knots, self.noise[0], self.noise[1:], guided)[-1]
        self.x.copy_(normalize_token(x) if p.normalize_tokens else x)

    def _token(self) -> None:
        self._advance()
        self._sample()

    def capture(self) -> None:
        """Records a token. What the warm-up wrote is put back; what it left in the cache is overwritten in time."""
        kept = [(buffer, buffer.clone()) for buffer in (self.hidden, self.position, self.x)]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._token()
                for buffer, before in kept:
                    buffer.copy_(before)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._token()
        self.graph = graph

    @torch.no_grad()
    def first(self, noise: torch.Tensor) -> torch.Tensor:
        """The token after the prefill: noise [1 + steps, images, d_tok] -> [images, d_tok]."""
        self.noise.copy_(noise)
        self._sample()
        return self.x.clone()

    @torch.no_grad()
    def next(self, noise: torch.Tensor) -> torch.Tensor:
        """Any token after the first."""
        self.noise.copy_(noise)
        if self.graph is None:
            self._token()
        else:
            self.graph.replay()
        return self.x.clone()
