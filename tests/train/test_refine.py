"""What the text head writes, and weights taken over from a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kit.recipes import SMALL_GENERATOR

from nextstep_rt.errors import InvalidRequest
from nextstep_rt.reference.weights import expected_shapes
from nextstep_rt.train import captions, generator, refine
from nextstep_rt.train.generator import write_layout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    config, prompts = write_layout(SMALL_GENERATOR, tmp_path_factory.mktemp("model"))
    generator_ = torch.Generator().manual_seed(0)
    shapes = expected_shapes(config) | {"lm_head.weight": (config.vocab_size, config.hidden_size)}
    weights = {name: torch.randn(shape, generator=generator_) * 0.1 for name, shape in shapes.items()}
    return SimpleNamespace(config=config, prompts=prompts, weights=weights)


def always(layout: SimpleNamespace, token: int) -> dict[str, torch.Tensor]:
    """Weights under which the most likely token is always the given one."""
    weights = {name: torch.zeros_like(weight) for name, weight in layout.weights.items()}
    weights["embed_tokens.weight"][:] = 1.0
    weights["norm.weight"][:] = 1.0
    weights["lm_head.weight"][token] = 1.0
    return weights


def test_a_refinement_ends_at_its_token(layout: SimpleNamespace) -> None:
    begin, end = refine.refinement_ids(layout.prompts)
    assert begin != end
    assert refine.refine(always(layout, end), layout.config, layout.prompts, "dot") == []


def test_a_refinement_without_end_is_cut(layout: SimpleNamespace) -> None:
    written = refine.refine(always(layout, 77), layout.config, layout.prompts, "dot")
    assert written == [77] * refine.LONGEST


def test_a_refinement_is_right_where_it_is_the_canonical_caption(
    layout: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = iter([True, False, True])
    made: list[str] = []
    canonical = captions.canonical

    def remembered(scene: Any) -> str:
        made.append(canonical(scene))
        return made[-1]

    def written(*_: Any) -> list[int]:
        return layout.prompts.encode_text(made[-1] if next(expected) else "a blue dot")

    monkeypatch.setattr(captions, "canonical", remembered)
    monkeypatch.setattr(refine, "refine", written)
    results = refine.score_refinement(layout.weights, layout.config, layout.prompts, count=3)
    assert [result.right for result in results] == [True, False, True]
    assert [result.expected for result in results] == made


def test_weights_and_words_are_taken_over(layout: SimpleNamespace, tmp_path: Path) -> None:
    """The tokenizer of the model that is gone on from is kept, also where this version would write another."""
    start, out = tmp_path / "start", tmp_path / "out"
    for folder in (start, out):
        folder.mkdir()
    _, fewer = write_layout(replace(SMALL_GENERATOR, vocab_size=400), start)
    generator.save_generator(layout.weights, start)
    model = generator.Generator(layout.config, 4)
    generator.load_generator(model, start)
    for name, weight in layout.weights.items():
        assert torch.equal(model.weights[name], weight.bfloat16().float())
    _, prompts = write_layout(SMALL_GENERATOR, out, start)
    assert prompts.encode_text("a red circle") == fewer.encode_text("a red circle")
    assert len(layout.prompts.encode_text("beige rhombus")) < len(prompts.encode_text("beige rhombus"))
    wider = generator.Generator(write_layout(replace(SMALL_GENERATOR, intermediate_size=48), out)[0], 4)
    with pytest.raises(InvalidRequest, match="other weights than these settings"):
        generator.load_generator(wider, start)
