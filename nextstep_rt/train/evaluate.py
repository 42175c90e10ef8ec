"""ShapeEval: how often a model draws what its prompt asks for, judged by a reader of pictures, in GenEval's manner.

report = evaluate(Pipeline.from_pretrained(folder))
report.write("report.json")
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import __version__
from ..config import whole
from ..errors import InvalidRequest
from ..images import to_model, to_pil
from ..options import SamplingOptions
from .files import git_commit, sha256
from .prompts import CATEGORIES, Prompt, Verdict, judge, make_prompts
from .reader import read
from .report import Outcome, Report, Score, overall, score
from .world import render

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..pipeline import Pipeline

MAX_BATCH = 1024


OnImage = Callable[[Prompt, Outcome, Image.Image], None]
Progress = Callable[[int, int], Any]


def evaluate(
    pipeline: Pipeline,
    *,
    count: int = 100,
    categories: Iterable[str] = CATEGORIES,
    seeds: Sequence[int] = (0, 1),
    prompt_seed: int = 0,
    batch_size: int = 64,
    ceiling: bool = True,
    progress: Progress | None = None,
    on_image: OnImage | None = None,
    **settings: Unpack[SamplingOptions],
) -> Report:
    """Draw `count` prompts of each category with each of the seeds, at the model's native size, and judge them.

    prompt_seed chooses the prompts; batch_size is images a call; progress gets (done, total) images, on_image every
    prompt, outcome and RGB picture as it is judged; settings are the pipeline's, by its names.
    Raises `InvalidRequest` for a wrong argument before anything is drawn, and what the pipeline raises.
    """
    prompts = make_prompts(count, categories, prompt_seed)
    chosen = _checked_seeds(seeds)
    size = whole("batch_size", batch_size, 1, MAX_BATCH)
    resolved = pipeline.defaults.merged(settings)
    total = len(prompts) * len(chosen)
    outcomes: list[Outcome] = []
    for number, seed, picture in _drawn(pipeline, prompts, chosen, size, settings):
        prompt, picture = prompts[number], picture.convert("RGB")
        outcome = _outcome(number, prompt, seed, judge(prompt, read(np.asarray(picture))))
        outcomes.append(outcome)
        if on_image is not None:
            on_image(prompt, outcome, picture)
        if progress is not None:
            progress(len(outcomes), total)
    about = {
        **_about(pipeline),
        "count": count,
        "seeds": list(chosen),
        "prompt_seed": prompt_seed,
        "settings": dataclasses.asdict(resolved),
    }
    limits = evaluate_ceiling(pipeline, prompts) if ceiling else {}
    return Report(score(outcomes), overall(outcomes), tuple(outcomes), limits, about)


def _checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(whole(f"seeds[{i}]", seed, 0, 2**32 - 1) for i, seed in enumerate(seeds))
    if not chosen or len(set(chosen)) != len(chosen):
        raise InvalidRequest(f"seeds are {list(chosen)}: give one or more, all different")
    return chosen


def noise_seed(number: int, seed: int) -> int:
    """The pipeline's seed for a prompt: each has noise of its own, or one lucky draw would move all scores."""
    return (seed << 32) + number


def _drawn(
    pipeline: Pipeline, prompts: Sequence[Prompt], seeds: Sequence[int], size: int, settings: SamplingOptions
) -> Iterator[tuple[int, int, Image.Image]]:
    """(number of the prompt, seed, picture). A call takes many prompts but one picture, so edits go one by one."""
    plain = [number for number, prompt in enumerate(prompts) if prompt.source is None]
    # Image guidance needs an image: it is for the edits only.
    without = {name: value for name, value in settings.items() if name != "image_guidance_scale"}
    calls: list[tuple[list[int], Any]] = [(plain, without)]
    for number, prompt in enumerate(prompts):
        if prompt.source is not None:
            source = Image.fromarray(render(prompt.source, pipeline.geometry.native_height))
            calls.append(([number], {**settings, "image": source}))
    for numbers, options in calls:
        pairs = [(number, seed) for number in numbers for seed in seeds]
        for start in range(0, len(pairs), size):
            part = pairs[start : start + size]
            texts = [prompts[number].text for number, _ in part]
            noise = [noise_seed(number, seed) for number, seed in part]
            images = pipeline(texts, **options, seed=noise).images
            yield from ((number, seed, image) for (number, seed), image in zip(part, images, strict=True))


def _outcome(number: int, prompt: Prompt, seed: int, verdict: Verdict) -> Outcome:
    things = sorted(f"{thing.colour} {thing.shape} {thing.role}" for thing in prompt.scene.things)
    scene = f"{prompt.kind} {prompt.scene.background}: {', '.join(things)}".strip()
    return Outcome(number, prompt.category, prompt.kind, prompt.text, seed, verdict.ok, verdict.reason, scene)


# ---------------------------------------------------------------------------------------------------------- ceilings


def evaluate_ceiling(pipeline: Pipeline, prompts: Sequence[Prompt]) -> dict[str, dict[str, Score]]:
    """The scores of the prompts' own scenes at the model's native size: by "reader" rendered, by "autoencoder" encoded
    and decoded too.
    """
    made: dict[str, list[Outcome]] = {"reader": [], "autoencoder": []}
    for number, prompt in enumerate(prompts):
        pixels = render(prompt.scene, pipeline.geometry.native_height)
        made["reader"].append(_outcome(number, prompt, 0, judge(prompt, read(pixels))))
        decoded = _reconstructed(pipeline, pixels)
        made["autoencoder"].append(_outcome(number, prompt, 0, judge(prompt, read(decoded))))
    return {name: score(outcomes) for name, outcomes in made.items()}


def _reconstructed(pipeline: Pipeline, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Through the VAE and back, by the posterior's mean."""
    import torch

    vae, geometry = pipeline.vision.load(), pipeline.geometry
    sides = [side // geometry.vae_factor for side in pixels.shape[:2]]
    image = torch.from_numpy(to_model(Image.fromarray(pixels)))[None]
    latent = vae.encode(image, noise=torch.zeros(1, geometry.channels, *sides))
    return np.asarray(to_pil(pipeline.vision.decode(latent[0].cpu().numpy())))


# ---------------------------------------------------------------------------------------------------------- about


def _about(pipeline: Pipeline) -> dict[str, Any]:
    """What makes the report repeatable, elsewhere too: a model below the working folder is named from there."""
    name, here = os.path.basename(sys.argv[0]), os.path.relpath(pipeline.folder)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
        "commit": git_commit(),
        "command": shlex.join(["nextstep-rt" if name == "__main__.py" else name, *sys.argv[1:]]),
        "model": pipeline.folder if here.startswith("..") else here,
        "weights_sha256": {os.path.relpath(path, pipeline.folder): sha256(path) for path in _weights(pipeline)},
        "backend": pipeline.engine.backend,
        "dtype": pipeline.engine.dtype,
        "size": [pipeline.geometry.native_height, pipeline.geometry.native_width],
    }


def _weights(pipeline: Pipeline) -> list[str]:
    """The model's weight files and the VAE's."""
    vae = Path(pipeline.vision.folder)
    own = [os.path.join(pipeline.folder, os.path.basename(name)) for name in pipeline.checkpoint.files]
    return own + sorted(str(path) for path in (*vae.glob("*.safetensors"), *vae.glob("checkpoint.pt")))
