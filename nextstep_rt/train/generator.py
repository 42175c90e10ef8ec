"""Trains the generator: backbone, text head and flow-matching head, on the oracle's own mathematics.

Loss (NextStep-1): 0.01 * cross entropy of the text + 1.0 * mean squared error of the velocity, t logit-normal, several
noise draws per image token, one in ten conditions dropped for guidance.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from .._core import ModelConfig
from ..errors import InvalidRequest
from ..reference.backbone import Columns, Sequences, lm_logits, run_backbone
from ..reference.fm_head import NET, modulate, time_embedding, velocity
from ..reference.types import linear
from ..reference.weights import expected_shapes
from ..tokenizer import PromptTokenizer
from .batches import Batch, Sampler
from .digest import world_digest
from .files import save_weights, sha256
from .latents import load_dataset
from .optim import learning_rate, make_optimizers
from .run import Metrics, can_compile, compiled, pick_device, scaled, train
from .tokenizer import FILES as TOKENIZER_FILES
from .tokenizer import MAX_LENGTH, write_tokenizer
from .world import CANVAS


@dataclass(frozen=True)
class GeneratorTraining:
    """Everything that decides the generator."""

    hidden_size: int = 256
    intermediate_size: int = 448
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 32
    fm_head_dim: int = 192
    fm_head_layers: int = 3
    vocab_size: int = 640
    scenes: int = 24576
    edits: int = 20480
    steps: int = 5000
    batch: int = 28  # drawings in a step
    edit_batch: int = 20  # 0: drawings only
    # How often scenes of a layout, also an edit's, and edits of a kind are taken; the others once.
    scene_weights: tuple[tuple[str, float], ...] = ()
    edit_weights: tuple[tuple[str, float], ...] = ()
    # At first so many edits' image tokens are drowned in noise when they are read, ever fewer until `drowned_until` of
    # the steps: given what is drawn so far a token hardly needs its source, and the model would not look there.
    drowned: float = 0.8
    drowned_until: float = 0.5
    # The same of the drawings, where the token before tells more of a shape than the prompt does.
    drowned_drawings: float = 0.0
    draws: int = 4  # of noise and time for one image token: the released fm_head_batch_mul
    drop: float = 0.1
    # A deviation from the released recipe: the tokens read are perturbed by a * eps, a ~ U[0, this], and normalized
    # again, since in generation the tokens read are the generator's own.
    input_noise: float = 0.15
    text_weight: float = 0.01
    lr: float = 2e-3
    ema: float = 0.998
    seed: int = 0

    def going_on(self, course: int) -> GeneratorTraining:
        """The same for weights that are trained already: a gentler course, with more of what a first one leaves worst.

        Those are things inside others and edits: a thing has to be found in the picture by its name, and where it is to
        go the prompt names what must not be drawn. Drawings are drowned as well. course: its number, the second being
        2; each has draws of its own.
        """
        return replace(
            self,
            seed=self.seed + course - 1,
            lr=self.lr / 2,
            drowned=0.5,
            drowned_drawings=0.4,
            drowned_until=0.8,
            batch=18,
            edit_batch=30,
            scene_weights=(("inside", 3.0),),
            edit_weights=(("remove", 3.0), ("recolour", 2.0), ("background", 2.0)),
        )

    def scaled(self, factor: float) -> GeneratorTraining:
        """The same with `factor` times the steps."""
        return replace(self, steps=scaled(self.steps, factor))

    def drowned_at(self, step: int) -> tuple[float, float]:
        """The parts of a step's drawings and edits that are drowned."""
        left = max(0.0, 1.0 - (step - 1) / (self.drowned_until * self.steps))
        return self.drowned_drawings * left, self.drowned * left

    def rate_at(self, step: int) -> float:
        """The learning rate of a step in units of `lr`."""
        return learning_rate((step - 1) / self.steps)

    def config(self) -> dict[str, object]:
        """config.json in the released layout; the ids are those of `write_tokenizer`."""
        return {
            "architectures": ["NextStep"],
            "model_type": "nextstep",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "vocab_size": self.vocab_size,
            "attention_bias": True,
            "o_attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
            "max_position_embeddings": MAX_LENGTH,
            "latent_size": CANVAS // 8,
            "latent_patch_size": 2,
            "latent_channels": 16,
            "boi": 2,
            "eoi": 3,
            "image_placeholder_id": 4,
            "pad_token_id_added": 0,
            "fm_head_dim": self.fm_head_dim,
            "fm_head_layers": self.fm_head_layers,
            "fm_head_mlp_ratio": 1.0,
            "use_gen_pos_embed": False,
            "vae_name_or_path": "vae/",
        }


class Generator(nn.Module):
    """The released tensors as parameters; computes a batch's losses with the functions of the reference backend."""

    def __init__(self, config: ModelConfig, draws: int) -> None:
        super().__init__()
        self.config, self.draws = config, draws
        self.weights: dict[str, nn.Parameter] = {}
        shapes = expected_shapes(config) | {"lm_head.weight": (config.vocab_size, config.hidden_size)}
        for name, shape in shapes.items():
            self.weights[name] = nn.Parameter(_initial(name, shape))
            self.register_parameter(name.replace(".", "/"), self.weights[name])  # torch allows no dots in a name

    def columns(self, batch: Batch) -> Columns:
        """Rotations and mask of a batch; not in `forward`, whose compiled loops would make them in every layer."""
        dtype = self.weights["embed_tokens.weight"].dtype
        return Columns.of(self.config, batch.keep_all(), batch.ids.shape[1] + batch.read.shape[1], dtype)

    def forward(self, batch: Batch, columns: Columns | None = None) -> tuple[Tensor, Tensor]:
        """(Summed cross entropy of the text, mean squared error of the velocity), of one format's batch.

        columns: `self.columns(batch)`, where it is there already.
        """
        w, c = self.weights, self.config
        prompt = batch.ids.shape[1]
        embeds = functional.embedding(batch.ids, w["embed_tokens.weight"])
        if batch.source is not None:
            is_image = batch.ids == c.image_placeholder_id
            order = (is_image.cumsum(dim=1) - 1).clamp(min=0)[:, :, None].expand_as(embeds)
            source = linear(w, "image_in_projector", batch.source).to(embeds.dtype)
            embeds = torch.where(is_image[:, :, None], source.gather(1, order), embeds)
        embeds = torch.cat([embeds, linear(w, "image_in_projector", batch.read)], dim=1)
        hidden, _ = run_backbone(w, c, embeds, Sequences(batch.keep_all()), columns)
        logits = lm_logits(w, c, hidden[:, : prompt - 1]).float()
        text = functional.cross_entropy(
            logits.flatten(0, 1), batch.next_ids.flatten(), ignore_index=-100, reduction="sum"
        )
        return text, self._velocity_loss(hidden[:, prompt - 1 :], batch)

    def _velocity_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Flow matching of every image token from the hidden state before it; hidden [b, 64, d_model]."""
        w, c = self.weights, self.config
        cond = linear(w, NET + "cond_embed", linear(w, "image_out_projector", hidden)).flatten(0, 1)
        data, noise, t = batch.target.flatten(0, 1).repeat(self.draws, 1), batch.noise, batch.times
        x = t[:, None] * data + (1 - t[:, None]) * noise
        modulation = modulate(w, c, time_embedding(w, t) + cond.repeat(self.draws, 1))
        return (velocity(w, c, x, modulation).float() - (data - noise)).square().mean()


def _initial(name: str, shape: tuple[int, ...]) -> Tensor:
    """Norms one, biases zero, tables small; the velocity and every modulation start at zero, as in DiT."""
    if len(shape) == 1:
        return torch.ones(shape) if name.endswith("norm.weight") or "in_ln.weight" in name else torch.zeros(shape)
    if "adaLN_modulation" in name or name.endswith("final_layer.linear.weight"):
        return torch.zeros(shape)
    if name in ("embed_tokens.weight", "lm_head.weight"):
        return torch.randn(shape) * 0.02
    branch_end = name.endswith(("o_proj.weight", "down_proj.weight"))
    return torch.randn(shape) * (0.3 if branch_end else 1.0) / math.sqrt(shape[1])


class GeneratorTask:
    """One step: a batch of drawings and, unless there are none, a batch of edits."""

    def __init__(
        self, settings: GeneratorTraining, sampler: Sampler, config: ModelConfig, device: torch.device
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.sampler, self.device = settings, sampler, device
        self.model = Generator(config, settings.draws).to(device)
        tables = ("embed_tokens", "lm_head", "image_head/net/input_proj", "image_head/net/final_layer")
        self.optimizers = make_optimizers(dict(self.model.named_parameters()), settings.lr, tables)
        self._losses = compiled(self.model)
        self.is_compiled = can_compile()

    def loss(self, step: int) -> tuple[Tensor, Metrics]:
        """The weighted sum over both batches, every image alike."""
        s = self.settings
        batches = [batch.to(self.device) for batch in self.sampler.batches(step)]
        inputs = [(batch, self.model.columns(batch)) for batch in batches]
        with torch.autocast(self.device.type, torch.bfloat16):
            pairs = [self._losses(batch, columns) for batch, columns in inputs]
        words = sum(int((batch.next_ids != -100).sum()) for batch in batches)
        images = sum(len(batch.ids) for batch in batches)
        text = sum((pair[0] for pair in pairs), torch.zeros((), device=self.device)) / words
        mse = sum((pair[1] * len(batch.ids) for pair, batch in zip(pairs, batches, strict=True)), text * 0) / images
        metrics = {"ce": text.item(), "mse": mse.item()}
        if len(pairs) > 1:
            metrics["edit_mse"] = pairs[-1][1].item()
        return s.text_weight * text + mse, metrics


def train_generator(settings: GeneratorTraining, run: Path, cache: Path, out: Path, start: Path | None = None) -> None:
    """Trains in folder `run` on the VAE at `out`/vae, then writes the model in the released layout to `out`.

    start: a model of the same shape whose weights are the first and whose tokenizer is kept; `out` itself, where the
    course before wrote it. Raises InvalidRequest where it has another shape.
    """
    config, prompts = write_layout(settings, out, start)
    dataset = load_dataset(out / "vae", cache, scene_count=settings.scenes, edit_count=settings.edits)
    sampler = Sampler(settings, dataset, prompts)
    task = GeneratorTask(settings, sampler, config, pick_device())
    stated: dict[str, object] = {**asdict(settings), "world": world_digest()}
    if start is not None:
        stated["start"] = load_generator(task.model, start)
    average = train(
        task,
        run,
        steps=settings.steps,
        ema=settings.ema,
        settings=stated,
        title="generator",
        rate=settings.rate_at,
    )
    save_generator(average.weights, out)


def load_generator(model: Generator, start: Path) -> str:
    """Copies the weights of the model in `start`; returns their file's hash.

    Raises InvalidRequest where shapes differ.
    """
    path = start / "model.safetensors"
    found = load_file(path)
    wanted = {name: weight.shape for name, weight in model.weights.items()}
    if {name: tensor.shape for name, tensor in found.items()} != wanted:
        raise InvalidRequest(f"{path} has other weights than these settings: go on with the settings that made it")
    with torch.no_grad():
        for name, weight in model.weights.items():
            weight.copy_(found[name])
    return sha256(path)


def write_layout(
    settings: GeneratorTraining, out: Path, start: Path | None = None
) -> tuple[ModelConfig, PromptTokenizer]:
    """Writes the tokenizer's files and config.json; returns them as the runtime reads them.

    start: a model whose tokenizer is copied, since its weights know words by their ids.
    """
    if start is None:
        write_tokenizer(out, vocab_size=settings.vocab_size)
    elif start != out:
        for name in TOKENIZER_FILES:
            shutil.copyfile(start / name, out / name)
    text = json.dumps(settings.config(), indent=1) + "\n"
    (out / "config.json").write_text(text)
    config = ModelConfig.from_json(text)
    return config, PromptTokenizer(out, config)


def save_generator(weights: dict[str, Tensor], out: Path) -> None:
    """Writes model.safetensors in bfloat16 under the released names."""
    save_weights({name.replace("/", "."): weight for name, weight in weights.items()}, out / "model.safetensors")
