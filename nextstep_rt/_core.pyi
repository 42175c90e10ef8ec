"""
The native runtime of nextstep_rt.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing
import typing_extensions

__all__: list[str] = [
    "Checkpoint",
    "Engine",
    "LentArray",
    "MAX_ROWS",
    "ModelConfig",
    "SamplingParams",
    "Tensor",
    "available_memory",
    "build_info",
    "cuda_devices",
    "isa",
    "isa_levels",
    "normal_noise",
    "op_attention",
    "op_guidance",
    "op_layer_norm",
    "op_linear",
    "op_rms_norm",
    "op_rope",
    "op_silu_mul",
    "op_solver_plan",
    "op_solver_update",
    "op_time_sinusoid",
    "roofs",
    "stage_cost",
    "time_grid",
    "token_cost",
]

class ModelConfig:
    """
    The shape of a NextStep-1 model, as its config.json states it.
    """
    @staticmethod
    def from_json(text: str) -> ModelConfig:
        """
        Reads the text of a config.json; raises CheckpointError naming the key and value that is wrong.
        """
    @property
    def attention_bias(self) -> bool: ...
    @property
    def boi(self) -> int: ...
    @property
    def eoi(self) -> int: ...
    @property
    def fm_head_dim(self) -> int: ...
    @property
    def fm_head_layers(self) -> int: ...
    @property
    def fm_head_mlp_ratio(self) -> float: ...
    @property
    def fm_mlp_dim(self) -> int:
        """
        Inner width of an FM block's MLP.
        """
    @property
    def head_dim(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def image_placeholder_id(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def latent_patch_size(self) -> int: ...
    @property
    def latent_size(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def mlp_bias(self) -> bool: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_key_value_heads(self) -> int: ...
    @property
    def o_attention_bias(self) -> bool: ...
    @property
    def pad_token_id(self) -> int: ...
    @property
    def rms_norm_eps(self) -> float: ...
    @property
    def rope_theta(self) -> float: ...
    @property
    def tie_word_embeddings(self) -> bool: ...
    @property
    def token_dim(self) -> int:
        """
        Numbers in one image token.
        """
    @property
    def use_gen_pos_embed(self) -> bool: ...
    @property
    def vae_name_or_path(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...

class Tensor:
    """
    A read-only, zero-copy view of one weight; any DLPack library can take it.
    """
    def __dlpack__(
        self,
        *,
        stream: typing.Any = None,
        max_version: typing.Any = None,
        dl_device: typing.Any = None,
        copy: typing.Any = None,
    ) -> typing_extensions.CapsuleType: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> str:
        """
        'float32' or 'bfloat16'.
        """
    @property
    def nbytes(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

class Checkpoint:
    """
    A checkpoint folder in the released layout, memory-mapped; a mapping name -> Tensor.
    """
    def __contains__(self, arg0: str) -> bool: ...
    def __getitem__(self, name: str) -> Tensor: ...
    def __init__(self, folder: str) -> None:
        """
        Opens and checks every header, offset and shape. Raises CheckpointError.
        """
    def __iter__(self) -> collections.abc.Iterator[str]: ...
    def __len__(self) -> int: ...
    def keys(self) -> list[str]: ...
    def verify(self, progress: typing.Any = None) -> list[str]:
        """
        Reads every weight; returns the names of tensors with NaN or infinity. progress(done, total) in bytes may return False to stop early.
        """
    @property
    def config(self) -> ModelConfig: ...
    @property
    def files(self) -> list[str]: ...
    @property
    def nbytes(self) -> int:
        """
        Sum of all tensors' bytes.
        """

class SamplingParams:
    """
    How image tokens are sampled. Raises InvalidRequest on an impossible value.
    """
    def __init__(
        self,
        *,
        num_tokens: typing.SupportsInt | typing.SupportsIndex,
        num_inference_steps: typing.SupportsInt | typing.SupportsIndex = 28,
        guidance_scale: typing.SupportsFloat | typing.SupportsIndex = 7.5,
        image_guidance_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        guidance_schedule: str = "constant",
        guidance_renorm: bool = False,
        timestep_shift: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        solver: str = "sde",
        noise_level: typing.SupportsFloat | typing.SupportsIndex = 0.8,
        last_step_size: typing.SupportsFloat | typing.SupportsIndex = 0.04,
        normalize_tokens: bool = True,
        branches: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> None: ...
    @property
    def branches(self) -> int: ...
    @property
    def guidance_renorm(self) -> bool: ...
    @property
    def guidance_scale(self) -> float: ...
    @property
    def guidance_schedule(self) -> str: ...
    @property
    def image_guidance_scale(self) -> float: ...
    @property
    def last_step_size(self) -> float: ...
    @property
    def noise_level(self) -> float: ...
    @property
    def normalize_tokens(self) -> bool: ...
    @property
    def num_inference_steps(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def solver(self) -> str: ...
    @property
    def timestep_shift(self) -> float: ...

class LentArray:
    """
    Memory of a GPU, lent for one call to whoever works on the call's stream; speaks DLPack.
    """
    def __dlpack__(
        self,
        *,
        stream: typing.Any = None,
        max_version: typing.Any = None,
        dl_device: typing.Any = None,
        copy: typing.Any = None,
    ) -> typing_extensions.CapsuleType:
        """
        stream: the call's, or -1. Raises InvalidRequest for another one, and after the call.
        """
    def __dlpack_device__(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

class Engine:
    """
    The decode loop: prefill rows of embeddings, then generate image tokens.
    """
    def __init__(
        self,
        config: ModelConfig,
        tensors: typing.Any,
        *,
        device: str = "cpu",
        dtype: str = "bfloat16",
        threads: typing.SupportsInt | typing.SupportsIndex | None = None,
    ) -> None:
        """
        tensors: a Checkpoint, or a mapping name -> array (float32 or bfloat16, borrowed). Raises CheckpointError on missing, unknown or misshapen tensors.
        """
    def decode(
        self,
        params: SamplingParams,
        count: typing.SupportsInt | typing.SupportsIndex | None = None,
        *,
        noise: typing.Any = None,
        seeds: typing.Any = None,
        callback: typing.Any = None,
    ) -> numpy.typing.NDArray[numpy.float32]:
        """
        Makes `count` more tokens (default: all that are left) of each image: float32 [images, made, token_dim]. noise float32 [count, 1 + steps, images, token_dim], or seeds, one integer an image. callback(position, num_tokens, tokens made by this call) may return False to stop.
        """
    def embed_tokens(self, ids: typing.Any) -> numpy.typing.NDArray[numpy.float32]:
        """
        int64 [n] -> float32 [n, hidden_size].
        """
    def memory(self) -> dict[str, int]:
        """
        Bytes held now, as in plan().
        """
    def plan(
        self,
        rows: typing.SupportsInt | typing.SupportsIndex,
        positions: typing.SupportsInt | typing.SupportsIndex,
        steps: typing.SupportsInt | typing.SupportsIndex,
    ) -> dict[str, int]:
        """
        Bytes a request would need: weights, converted, kv_cache, scratch.
        """
    def prefill(
        self,
        embeds: typing.Any,
        mask: typing.Any = None,
        *,
        max_new_tokens: typing.SupportsInt | typing.SupportsIndex,
        progress: typing.Any = None,
    ) -> None:
        """
        embeds float32 [rows, width, hidden_size]; mask bool [rows, width], False where a column is padding. progress(done, total) may return False to stop, which raises Cancelled.
        """
    def profile(self, on: bool) -> None:
        """
        From now on decode sums up the seconds of its stages, from zero; or no more. No number of a token changes. Raises InvalidRequest on a CUDA device, where a token is one launch.
        """
    def project_tokens(self, tokens: typing.Any) -> numpy.typing.NDArray[numpy.float32]:
        """
        Image tokens float32 [n, token_dim] -> embeddings float32 [n, hidden_size].
        """
    def reset(self) -> None:
        """
        Forgets the rows; memory is kept.
        """
    def set_prefill_attention(self, attention: typing.Any) -> None:
        """
        attention(q, k, v, out, stream) takes the place of the engine's kernel where prefill has many rows, called once a layer for each sequence; None returns to the kernel. It enqueues causal attention on the CUDA stream of that address: out = softmax(q k^T) v, where the last row of q sees all positions, the row before all but one, and so on. q (scaled already) and out [rows, heads, head_dim], k and v [kv heads, positions, head_dim], bfloat16 LentArrays. What it raises reaches the caller of prefill. Raises InvalidRequest for an engine without takes_prefill_attention.
        """
    def stage_barriers(self) -> dict[str, int]:
        """
        How often the engine's threads met at a barrier in each stage since profile(True).
        """
    def stage_seconds(self) -> dict[str, float]:
        """
        Seconds of each stage of the tokens made since profile(True): noise, image_in, norm_qkv, rope_append, attention, attn_out, mlp, condition, fm_modulation, fm_steps, finish, other; together, the tokens' time.
        """
    def state(self, name: str) -> numpy.typing.NDArray[numpy.float32]:
        """
        An intermediate of the last token, float32 [rows, width]: hidden, cond, modulation, velocity or latent.
        """
    @property
    def backend(self) -> str: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def dtype(self) -> str: ...
    @property
    def position(self) -> int:
        """
        Image tokens made since prefill.
        """
    @property
    def rows(self) -> int:
        """
        Rows prefilled; 0 before.
        """
    @property
    def takes_prefill_attention(self) -> bool:
        """
        Whether set_prefill_attention is for this engine: on a CUDA device, in bfloat16, in a build with CUTLASS.
        """
    @property
    def threads(self) -> int: ...

class roofs:
    """
    What this machine allows at most, measured with a team of threads.
    """
    @staticmethod
    def barrier_seconds(threads: typing.SupportsInt | typing.SupportsIndex) -> float:
        """
        Seconds of one barrier among the threads of an engine's team.
        """
    @staticmethod
    def copy_seconds(
        bytes: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex
    ) -> float:
        """
        Seconds in which they copy so many bytes to another array.
        """
    @staticmethod
    def peak_flops(dtype: str, threads: typing.SupportsInt | typing.SupportsIndex) -> float:
        """
        Operations per second on registers alone, a multiply-add counting as two: float32, or bfloat16 for the dot
        product of pairs. InvalidRequest where the instruction set has none.
        """
    @staticmethod
    def pool_wake_seconds(threads: typing.SupportsInt | typing.SupportsIndex) -> float:
        """
        Seconds to wake such a team for a task that does nothing, and to wait for it.
        """
    @staticmethod
    def read_seconds(
        bytes: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex
    ) -> float:
        """
        Seconds in which the threads read an array of so many bytes once, having written it before.
        """

def available_memory() -> int:
    """
    Bytes the machine can still give this process; 0 where it cannot be told.
    """

def build_info() -> dict[str, str]:
    """
    Compiler and features of this build.
    """

def cuda_devices() -> list[str]:
    """
    The GPUs by index: name, architecture, memory. Empty without CUDA.
    """

def isa() -> str:
    """
    The level in use: the best one, or that of the environment variable NSRT_ISA.
    """

def isa_levels() -> list[str]:
    """
    Instruction set levels this machine can run, best first.
    """

def normal_noise(
    seed: typing.SupportsInt | typing.SupportsIndex,
    token: typing.SupportsInt | typing.SupportsIndex,
    draw: typing.SupportsInt | typing.SupportsIndex,
    n: typing.SupportsInt | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.float32]:
    """
    Standard normals, float32 [n]: a pure function of its arguments (Philox-4x32-10, Box-Muller). Draw 0 starts token `token` of the image with this seed, draw 1 + k drives solver step k.
    """

def op_attention(
    q: typing.Any,
    k: typing.Any,
    v: typing.Any,
    lengths: typing.Any,
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
    isa: str | None = None,
) -> numpy.typing.NDArray[numpy.float32]: ...
def op_guidance(
    v: typing.Any,
    branches: typing.SupportsInt | typing.SupportsIndex,
    scale: typing.SupportsFloat | typing.SupportsIndex,
    image_scale: typing.SupportsFloat | typing.SupportsIndex,
    renorm: bool,
    isa: str | None = None,
) -> numpy.typing.NDArray[numpy.float32]: ...
def op_layer_norm(
    x: typing.Any,
    weight: typing.Any = None,
    bias: typing.Any = None,
    shift: typing.Any = None,
    scale: typing.Any = None,
    *,
    eps: typing.SupportsFloat | typing.SupportsIndex,
    isa: str | None = None,
) -> numpy.typing.NDArray[numpy.float32]: ...
def op_linear(
    x: typing.Any,
    weight: typing.Any,
    bias: typing.Any = None,
    residual: typing.Any = None,
    silu: bool = False,
    round_x: bool = False,
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
    isa: str | None = None,
) -> numpy.typing.NDArray[numpy.float32]: ...
def op_rms_norm(
    x: typing.Any, weight: typing.Any, eps: typing.SupportsFloat | typing.SupportsIndex, isa: str | None = None
) -> numpy.typing.NDArray[numpy.float32]: ...
def op_rope(
    x: typing.Any, positions: typing.Any, theta: typing.SupportsFloat | typing.SupportsIndex, isa: str | None = None
) -> numpy.typing.NDArray[numpy.float32]: ...
def op_silu_mul(gate: typing.Any, up: typing.Any, isa: str | None = None) -> numpy.typing.NDArray[numpy.float32]: ...
def op_solver_plan(params: SamplingParams) -> list[dict[str, typing.Any]]: ...
def op_solver_update(
    x: typing.Any,
    v: typing.Any,
    noise: typing.Any = None,
    *,
    cx: typing.SupportsFloat | typing.SupportsIndex,
    cv: typing.SupportsFloat | typing.SupportsIndex,
    ce: typing.SupportsFloat | typing.SupportsIndex,
    isa: str | None = None,
) -> numpy.typing.NDArray[numpy.float32]: ...
def op_time_sinusoid(
    times: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
) -> numpy.typing.NDArray[numpy.float32]: ...
def stage_cost(
    config: ModelConfig,
    dtype: str,
    rows: typing.SupportsInt | typing.SupportsIndex,
    steps: typing.SupportsInt | typing.SupportsIndex,
    positions: typing.SupportsInt | typing.SupportsIndex,
) -> dict[str, dict[str, int]]:
    """
    Of one image token, by the stages of Engine.stage_seconds(): bytes streamed, operations, and barriers of the CPU backend's threads. `steps` are network evaluations.
    """

def time_grid(params: SamplingParams) -> numpy.typing.NDArray[numpy.float32]:
    """
    The solver's knots, float32 [num_inference_steps + 1] (one fewer for sde-final-ode).
    """

def token_cost(
    config: ModelConfig,
    dtype: str,
    rows: typing.SupportsInt | typing.SupportsIndex,
    steps: typing.SupportsInt | typing.SupportsIndex,
    positions: typing.SupportsInt | typing.SupportsIndex,
) -> dict[str, int]:
    """
    Bytes one image token streams, by stage: backbone, kv, condition, fm_modulation, fm_steps, total.
    """

MAX_ROWS: int = 16
__version__: str = "0.1.0"
