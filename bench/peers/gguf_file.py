"""A model's backbone as a GGUF file of llama.cpp's architecture qwen2, with next to no vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ARCHITECTURE = "qwen2"
# llama.cpp multiplies with the head of a vocabulary in every step, wanted or not: this one takes none of its time.
VOCABULARY = 32
LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def unlike(config: Any) -> str | None:
    """What of this shape the architecture cannot hold; None where it holds all."""
    width = config.num_attention_heads * config.head_dim
    if width != config.hidden_size:
        return f"its {config.num_attention_heads} heads of {config.head_dim} are not hidden_size {config.hidden_size}"
    biases = [name for name in ("o_attention_bias", "mlp_bias") if getattr(config, name)]
    return f"it sets {' and '.join(biases)}" if biases else None


def tensor_names(config: Any) -> Iterator[tuple[str, str]]:
    """Every tensor's name in the file, and in the checkpoint."""
    yield "output_norm.weight", "norm.weight"
    for i in range(config.num_hidden_layers):
        for ours, theirs in LAYER.items():
            yield f"blk.{i}.{theirs}.weight", f"layers.{i}.{ours}.weight"
            if config.attention_bias and theirs in ("attn_q", "attn_k", "attn_v"):
                yield f"blk.{i}.{theirs}.bias", f"layers.{i}.{ours}.bias"


def file_bytes(config: Any, dtype: str) -> int:
    """Bytes of the file's tensors, but for norms and biases."""
    c, size = config, 2 if dtype == "bfloat16" else 4
    kv = c.num_key_value_heads * c.head_dim
    layer = c.hidden_size * (2 * c.hidden_size + 2 * kv + 3 * c.intermediate_size)
    return size * int(c.num_hidden_layers * layer + VOCABULARY * c.hidden_size)


def write_backbone(path: Path, config: Any, weights: Any, dtype: str) -> None:
    """Writes matrices in `dtype`, "bfloat16" or "float32", norms and biases in float32, as llama.cpp's own files have.

    weights: by the checkpoint's names, torch, numpy or DLPack. Raises `OSError` where the disk does not take it.
    """
    import torch

    from nextstep_rt.reference.weights import as_torch

    gguf = import_module("gguf")
    c, writer = config, gguf.GGUFWriter(path, ARCHITECTURE)
    for add, value in (
        (writer.add_block_count, c.num_hidden_layers),
        (writer.add_context_length, c.max_position_embeddings),
        (writer.add_embedding_length, c.hidden_size),
        (writer.add_feed_forward_length, c.intermediate_size),
        (writer.add_head_count, c.num_attention_heads),
        (writer.add_head_count_kv, c.num_key_value_heads),
        (writer.add_layer_norm_rms_eps, c.rms_norm_eps),
        (writer.add_rope_freq_base, c.rope_theta),
        (writer.add_vocab_size, VOCABULARY),
        (writer.add_tokenizer_model, "no_vocab"),
    ):
        add(value)
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    _add(writer, gguf, "token_embd.weight", torch.zeros(VOCABULARY, c.hidden_size, dtype=kind))
    for theirs, ours in tensor_names(config):
        tensor = as_torch(weights[ours])
        _add(writer, gguf, theirs, tensor.to(kind if tensor.ndim == 2 else torch.float32))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add(writer: Any, gguf: Any, name: str, tensor: torch.Tensor) -> None:
    """Without a copy where the tensor has its dtype already; numpy knows no bfloat16, so it goes as bytes."""
    import torch

    tensor = tensor.contiguous()
    if tensor.dtype == torch.bfloat16:
        writer.add_tensor(name, tensor.view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, tensor.numpy())
