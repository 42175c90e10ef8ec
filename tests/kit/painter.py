"""A pipeline that draws its prompts' scenes exactly, or as a test changes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from nextstep_rt.config import GenerationConfig
from nextstep_rt.train.prompts import Prompt
from nextstep_rt.train.world import Scene, render

Paint = Callable[[Prompt, int], Scene]


class Painter:
    """What an evaluation asks of a `Pipeline`; its autoencoder changes nothing. `calls` holds (texts, options)."""

    def __init__(self, folder: Path, prompts: Sequence[Prompt], paint: Paint = lambda prompt, seed: prompt.scene):
        (folder / "vae").mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "vae" / "model.safetensors").write_bytes(b"autoencoder")
        self.folder, self.paint = str(folder), paint
        self.calls: list[tuple[list[str], dict[str, Any]]] = []
        self.defaults = GenerationConfig()
        self.engine = SimpleNamespace(backend="painter", dtype="float32")
        self.geometry = SimpleNamespace(native_height=128, native_width=128, channels=3, vae_factor=1)
        self.checkpoint = SimpleNamespace(files=[str(folder / "model.safetensors")])
        self.vision = SimpleNamespace(
            folder=str(folder / "vae"),
            load=lambda: SimpleNamespace(encode=lambda pixels, noise: pixels + noise),
            decode=lambda latent: latent,
        )
        self._prompts = {(p.text, None if p.source is None else render(p.source).tobytes()): p for p in prompts}

    def __call__(self, texts: list[str], **options: Any) -> SimpleNamespace:
        self.calls.append((texts, options))
        image = options.get("image")
        source = None if image is None else np.asarray(image).tobytes()
        seeds = [seed >> 32 for seed in options["seed"]]  # below it, the prompt's number
        scenes = [self.paint(self._prompts[text, source], seed) for text, seed in zip(texts, seeds, strict=True)]
        return SimpleNamespace(images=[Image.fromarray(render(scene)) for scene in scenes])
