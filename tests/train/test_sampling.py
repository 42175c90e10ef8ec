"""Which scenes and edits a step draws, how often, and what of them is drowned."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from kit.recipes import SMALL_GENERATOR as SETTINGS
from kit.recipes import noise_dataset

from nextstep_rt.errors import InvalidRequest
from nextstep_rt.train import edits
from nextstep_rt.train.batches import Batch, Sampler
from nextstep_rt.train.generator import write_layout
from nextstep_rt.train.latents import Dataset


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return SimpleNamespace(prompts=write_layout(SETTINGS, tmp_path_factory.mktemp("model"))[1])


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return noise_dataset()


def test_edits_of_a_kind_are_taken_as_often_as_they_weigh(layout: SimpleNamespace, dataset: Dataset) -> None:
    def kinds(**weights: float) -> list[str]:
        settings = replace(SETTINGS, edit_batch=64, edit_weights=tuple(weights.items()))
        targets = Sampler(settings, dataset, layout.prompts).batches(1)[1].target
        gaps = (dataset.edit_tokens.float()[None] - targets[:, None, None]).abs().sum(dim=(3, 4)).amin(dim=2)
        return [dataset.edits[index].kind for index in gaps.argmin(dim=1).tolist()]

    assert set(kinds()) == {edit.kind for edit in dataset.edits}
    others = {kind: 0.0 for kind in edits.KINDS if kind != "remove"}
    assert set(kinds(**others)) == {"remove"}
    assert kinds(remove=50.0).count("remove") > 48 > kinds(move=50.0).count("remove")


def test_scenes_of_a_layout_are_taken_as_often_as_they_weigh(layout: SimpleNamespace, dataset: Dataset) -> None:
    def layouts(**weights: float) -> list[str]:
        settings = replace(SETTINGS, batch=64, scene_weights=tuple(weights.items()))
        targets = Sampler(settings, dataset, layout.prompts).batches(1)[0].target
        gaps = (dataset.scene_tokens.float()[None] - targets[:, None]).abs().sum(dim=(2, 3))
        return [dataset.scenes[index].layout for index in gaps.argmin(dim=1).tolist()]

    there = {scene.layout for scene in dataset.scenes}
    first = sorted(there)[0]
    assert len(set(layouts())) > 1
    assert set(layouts(**{name: 0.0 for name in there if name != first})) == {first}
    with pytest.raises(InvalidRequest, match="spiral"):
        layouts(spiral=2.0)


def test_an_edit_weighs_as_its_layout_does(layout: SimpleNamespace, dataset: Dataset) -> None:
    settings = replace(SETTINGS, edit_batch=64, scene_weights=(("inside", 50.0),))
    targets = Sampler(settings, dataset, layout.prompts).batches(1)[1].target
    gaps = (dataset.edit_tokens.float()[None] - targets[:, None, None]).abs().sum(dim=(3, 4)).amin(dim=2)
    found = [dataset.edits[index].source.layout for index in gaps.argmin(dim=1).tolist()]
    assert 0 < sum(edit.source.layout == "inside" for edit in dataset.edits) < len(dataset.edits) / 2
    assert found.count("inside") > 48


@pytest.mark.parametrize("drawings_too", [False, True])
def test_what_is_read_of_the_picture_itself_is_drowned_at_first(
    layout: SimpleNamespace, dataset: Dataset, drawings_too: bool
) -> None:
    """In about half of the edits' rows, and in the drawings' where they are asked for."""
    settings = replace(SETTINGS, steps=100, batch=64, edit_batch=64, drowned=0.5, drowned_until=0.5, input_noise=0.0)
    settings = replace(settings, drowned_drawings=0.4 if drawings_too else 0.0)
    assert [settings.drowned_at(step)[1] for step in (1, 26, 51, 100)] == [0.5, 0.25, 0.0, 0.0]
    assert [settings.drowned_at(step)[0] for step in (1, 26, 51)] == ([0.4, 0.2, 0.0] if drawings_too else [0.0] * 3)
    sampler = Sampler(settings, dataset, layout.prompts)

    def kept(batch: Batch) -> torch.Tensor:
        """How much each row's read tokens are like the target's [b]."""
        return torch.nn.functional.cosine_similarity(batch.read, batch.target[:, :-1], dim=-1).mean(dim=1)

    drawings, editing = (kept(batch) for batch in sampler.batches(1))
    for alike in (drawings, editing):
        assert bool(((alike > 0.99) | (alike < 0.4)).all())
    assert 16 <= int((editing < 0.4).sum()) <= 48
    assert int((drawings < 0.4).sum()) in (range(12, 44) if drawings_too else [0])
    assert all(bool((kept(batch) > 0.99).all()) for batch in sampler.batches(51))
