"""What is said of scenes, read back by a reader that shares no word list with the writer."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from kit import scene_words
from kit.scene_words import meaning_of, read

from nextstep_rt.train import captions, world
from nextstep_rt.train.world import Scene, Thing

LAYOUTS = list(world.LAYOUT_WEIGHTS)
Style = Callable[[random.Random, Scene], str]
STYLES: dict[str, Style] = {
    "caption": captions.caption,
    "terse": captions.terse,
    "canonical": lambda _, scene: captions.canonical(scene),
}


def written(style: str, layout: str | None, count: int) -> list[tuple[Scene, str]]:
    rng = random.Random(f"{style} {layout}")
    scenes = [world.sample_scene(rng, layout) for _ in range(count)]
    return [(scene, STYLES[style](rng, scene)) for scene in scenes]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("style", STYLES)
def test_nothing_but_defaults_is_left_out(style: str, layout: str) -> None:
    """Colours, shapes, numbers, sizes, relation, place and background are all recovered from the words."""
    for scene, text in written(style, layout, 2500):
        assert read(text) == meaning_of(scene), (text, scene)


def test_one_text_means_one_scene() -> None:
    """Across layouts and styles, at the frequencies of training; only the jitter remains open."""
    meanings: dict[str, tuple[str, str, list[tuple[str, ...]]]] = {}
    texts = 0
    for style in STYLES:
        for scene, text in written(style, None, 12000):
            meaning = (scene.layout, scene.background, [(t.shape, t.colour, t.size, t.role) for t in scene.things])
            assert meanings.setdefault(text, meaning) == meaning, text
            texts += 1
    assert len(meanings) < 0.9 * texts  # many were said twice, so something was compared


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_canonical_wording_says_everything(layout: str) -> None:
    """And it is one wording: no synonyms, nothing unsaid but the medium size."""
    wordings: dict[object, str] = {}
    for scene, text in written("canonical", layout, 800):
        assert text.endswith(f" on a {scene.background} background")
        for thing in scene.things:
            size = "" if thing.size == "medium" else f"{thing.size} "
            assert re.search(rf"\b(an?|two|three|four) {size}{thing.colour} {thing.shape}(e?s)?\b", text)
        assert wordings.setdefault(meaning_of(scene), text) == text
    assert len(set(wordings.values())) == len(wordings)


def test_canonical_examples() -> None:
    rng = random.Random(0)
    for expected, scene in (
        ("a large orange ring on a navy background", world.alone(rng, "navy", "ring", "orange", "large")),
        (
            "a red star in the top left corner on a white background",
            world.placed(rng, "white", "star", "red", "top left"),
        ),
        ("three blue crosses on a mint background", world.group(rng, "mint", [(3, "cross", "blue")])),
        (
            "two red hearts, a pink ring and a cyan square on a black background",
            world.group(rng, "black", [(2, "heart", "red"), (1, "ring", "pink"), (1, "square", "cyan")]),
        ),
        (
            "a red circle above a small blue square on a gray background",
            world.pair(rng, "gray", "above", ("circle", "red", "medium"), ("square", "blue", "small")),
        ),
        (
            "a red circle inside a blue diamond on a beige background",
            world.pair(rng, "beige", "inside", ("circle", "red", "medium"), ("diamond", "blue", "medium")),
        ),
    ):
        assert captions.canonical(scene) == expected


def test_the_default_colour_is_named_where_asked() -> None:
    """Said of every thing or of none."""
    rng = random.Random(0)
    for _ in range(600):
        scene = world.sample_scene(rng)
        things = [Thing(t.shape, "red", t.x, t.y, t.r, t.role, t.size) for t in scene.things]
        scene = Scene(scene.layout, scene.background, tuple(things))
        silent = captions.caption(rng, scene, name_default_colour=False)
        spoken = captions.caption(rng, scene, name_default_colour=True)
        nouns = len(captions.parts(scene))
        assert len(re.findall(r"\bred\b", silent)) == 0
        assert len(re.findall(r"\bred\b", spoken)) == nouns
        assert len(re.findall(r"\bred\b", captions.caption(rng, scene))) in (0, nouns)
        assert read(silent) == read(spoken) == meaning_of(scene)


def test_every_word_is_in_use() -> None:
    """The common form mostly, every synonym sometimes: a reader of prompts learns them all."""
    texts = [text.lower() for style in ("caption", "terse") for _, text in written(style, None, 12000)]
    said = " ".join(texts)
    words = {*scene_words.SHAPES, *scene_words.COLOURS, *scene_words.BACKGROUNDS, *scene_words.SIZES}
    words |= {*scene_words.COUNTS, *scene_words.RELATIONS, *map(str.strip, scene_words.OPENINGS)} - {"a", "an"}
    missing = [word for word in sorted(words) if not re.search(rf"\b{word}(e?s)?\b", said)]
    assert not missing
    for common, synonyms in captions.SHAPE_WORDS.items():
        counts = [len(re.findall(rf"\b{word}(?:e?s)?\b", said)) for word in (common, *synonyms)]
        assert counts[0] > 2 * max(counts[1:]) > 40, common


def test_most_defaults_stay_unsaid() -> None:
    """What a user leaves out is left out in training too."""
    plain = [(scene, text) for scene, text in written("caption", None, 4000) if scene.background == "white"]
    assert 0.1 < sum("white" in text for _, text in plain) / len(plain) < 0.3
    red = [text for scene, text in written("caption", None, 4000) if {t.colour for t in scene.things} == {"red"}]
    assert 0.4 < sum("red" in text for text in red) / len(red) < 0.6
    assert not any("white" in text for _, text in written("terse", None, 2000))


def test_the_same_draw_gives_the_same_words() -> None:
    for style in STYLES:
        assert written(style, None, 300) == written(style, None, 300)


@pytest.mark.parametrize(
    ("noun", "several"),
    [
        ("circle", "circles"),
        ("box", "boxes"),
        ("cross", "crosses"),
        ("plus sign", "plus signs"),
        ("rhombus", "rhombuses"),
    ],
)
def test_plurals(noun: str, several: str) -> None:
    assert captions.plural(noun) == several


def test_articles() -> None:
    assert captions.article("orange ring") == "an orange ring"
    assert captions.article("huge ring") == "a huge ring"
