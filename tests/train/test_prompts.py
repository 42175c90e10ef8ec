"""The held-out prompts, and what the judge says of right and wrong pictures."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from nextstep_rt import InvalidRequest
from nextstep_rt.tokenizer import IMAGE_MARKER
from nextstep_rt.train import edits, prompts
from nextstep_rt.train.prompts import CATEGORIES, EDITING, GENERATION, JUDGED, Prompt, Verdict, judge, make_prompts
from nextstep_rt.train.reader import Reading, Seen, read
from nextstep_rt.train.world import COLOURS, DEFAULT_COLOUR, SHAPES, Scene, Thing, group, pair, render

Change = Callable[[Scene], Scene]


def verdict(prompt: Prompt, scene: Scene) -> Verdict:
    return judge(prompt, read(render(scene)))


def asking(category: str, scene: Scene, **fields: object) -> Prompt:
    return Prompt(category, "a prompt", scene, JUDGED[category], **fields)  # type: ignore[arg-type]


def alone(shape: str = "star", colour: str = "blue", background: str = "white") -> Scene:
    return Scene("alone", background, (Thing(shape, colour, 64, 64, 27),))


def related(relation: str, first: tuple[str, str] = ("circle", "red"), second: tuple[str, str] = ("square", "blue")):
    return pair(random.Random(3), "white", relation, (*first, "medium"), (*second, "medium"))


def three(shape: str = "star", colour: str = "green", count: int = 3) -> Scene:
    return group(random.Random(4), "white", [(count, shape, colour)])


# ---- the prompts


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_hundred_prompts_of_every_category(category: str) -> None:
    made = make_prompts(100, [category])
    assert len(made) == 100
    assert {prompt.category for prompt in made} == {category}
    assert all(prompt.judged == JUDGED[category] for prompt in made)
    if category != EDITING:
        assert len({prompt.text for prompt in made}) == 100
        assert not any(prompt.source or prompt.kind or IMAGE_MARKER in prompt.text for prompt in made)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_scene_is_of_the_test_split(category: str) -> None:
    assert all(prompt.scene.held_out for prompt in make_prompts(100, [category]))


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_scene_itself_is_right(category: str) -> None:
    wrong = [(p.text, v.reason) for p in make_prompts(30, [category]) if not (v := verdict(p, p.scene)).ok]
    assert wrong == []


def test_prompts_depend_on_the_seed_alone() -> None:
    assert make_prompts(20) == make_prompts(20)
    assert make_prompts(20, seed=1) != make_prompts(20)
    # Neither the other categories nor the number of prompts change them.
    assert make_prompts(20, ["position"]) == [p for p in make_prompts(20) if p.category == "position"]
    assert make_prompts(5, ["counting"]) == make_prompts(20, ["counting"])[:5]


def test_order_of_categories() -> None:
    assert list(dict.fromkeys(p.category for p in make_prompts(2))) == [*GENERATION, "editing"]
    assert [p.category for p in make_prompts(1, ["position", "colours", "position"])] == ["position", "colours"]


def test_what_each_category_asks() -> None:
    made = {category: make_prompts(60, [category]) for category in CATEGORIES}
    assert Counter(len(p.scene.things) for p in made["counting"]) == {2: 20, 3: 20, 4: 20}
    assert {len(p.scene.things) for p in made["single object"] + made["colours"]} == {1}
    for prompt in made["colour attribution"]:
        first, second = prompt.scene.things
        assert first.colour != second.colour
        assert {first.shape} != {second.shape}
    relations = Counter(p.scene.things[0].role for p in made["position"])
    assert relations == {"left": 24, "above": 24, "around": 12}
    assert Counter("left of" in p.text.lower() or "on the left of" in p.text for p in made["position"])[True] == 12


def test_colours_are_said_where_they_are_judged() -> None:
    words = {*COLOURS, "violet", "turquoise"}
    for prompt in make_prompts(60, ["colours", "colour attribution"]):
        assert sum(word in words for word in prompt.text.lower().split()) == len(prompt.scene.things)
    for prompt in make_prompts(60, ["single object", "two objects"])[::2]:
        assert not words & set(prompt.text.lower().split())
        assert {thing.colour for thing in prompt.scene.things} == {DEFAULT_COLOUR}


def test_edits_come_in_equal_parts_with_their_sources() -> None:
    made = make_prompts(50, [EDITING])
    assert Counter(prompt.kind for prompt in made) == dict.fromkeys(edits.KINDS, 10)
    for prompt in made:
        assert prompt.text.startswith(IMAGE_MARKER)
        assert prompt.text.count(IMAGE_MARKER) == 1
        assert prompt.source is not None
        assert not verdict(prompt, prompt.source).ok


def test_more_prompts_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "FIRST_DRAWS", 50)
    monkeypatch.setattr(prompts, "DRAWS", 0)
    with pytest.raises(InvalidRequest, match=r"count is 60, but 50 draws gave only \d+ different prompts of 'colours'"):
        make_prompts(60, ["colours"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"count": 1.5}, "whole number"),
        ({"categories": ["color"]}, "did you mean 'colours'"),
        ({"categories": []}, "no category"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        make_prompts(**arguments)  # type: ignore[arg-type]


# ---- the judge


def extra(scene: Scene) -> Scene:
    return replace(scene, things=(*scene.things, Thing("heart", "pink", 110, 110, 13)))


SCENES = {
    "single object": alone(),
    "two objects": related("left"),
    "counting": three(),
    "colours": alone(),
    "position": related("above"),
    "colour attribution": related("left"),
    "editing": related("left"),
}


@pytest.mark.parametrize("category", CATEGORIES)
def test_another_background_is_wrong(category: str) -> None:
    scene = SCENES[category]
    assert verdict(asking(category, scene), replace(scene, background="navy")) == Verdict(
        False, "expected a white background, saw a navy one"
    )


@pytest.mark.parametrize("category", CATEGORIES)
def test_an_extra_object_is_wrong(category: str) -> None:
    answer = verdict(asking(category, SCENES[category]), extra(SCENES[category]))
    assert not answer.ok
    assert "saw" in answer.reason
    assert "heart" in answer.reason


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_missing_object_is_wrong(category: str) -> None:
    scene = SCENES[category]
    answer = verdict(asking(category, scene), replace(scene, things=scene.things[1:]))
    assert not answer.ok
    if len(scene.things) == 1:
        assert answer.reason.endswith("saw nothing")


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_wrong_shape_is_wrong(category: str) -> None:
    scene = SCENES[category]
    first, *others = scene.things
    shape = next(s for s in SHAPES if s not in {thing.shape for thing in scene.things})
    answer = verdict(asking(category, scene), replace(scene, things=(replace(first, shape=shape), *others)))
    assert not answer.ok
    assert shape in answer.reason


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_wrong_colour_is_wrong_where_colour_is_judged(category: str) -> None:
    scene = SCENES[category]
    first, *others = scene.things
    answer = verdict(asking(category, scene), replace(scene, things=(replace(first, colour="yellow"), *others)))
    assert answer.ok == (category in ("single object", "two objects", "position"))
    assert ("yellow" in answer.reason) == (not answer.ok)


def test_reasons() -> None:
    assert verdict(asking("colours", alone()), alone(colour="cyan")).reason == "expected a blue star, saw a cyan star"
    assert verdict(asking("single object", alone()), alone("cross")).reason == "expected a star, saw a cross"
    four = verdict(asking("counting", three()), three(count=4))
    assert four.reason == "expected three green stars, saw four green stars"
    mixed = verdict(asking("two objects", related("left")), related("left", ("cross", "red"), ("cross", "blue")))
    assert mixed.reason == "expected a circle and a square, saw two crosses"


def test_what_the_reader_cannot_name() -> None:
    blob = Seen(None, None, 64, 64, 20, 1200, (44, 44, 84, 84), 0.6)
    assert judge(asking("colours", alone()), Reading("white", (blob,))).reason == (
        "expected a blue star, saw an off-colour blob"
    )
    assert judge(asking("colours", alone()), Reading(None, ())).reason == (
        "expected a white background, saw one of no known colour"
    )


@pytest.mark.parametrize(
    ("relation", "other", "reason"),
    [
        ("left", "right", "expected the circle to the left of the square, saw it to the right of it"),
        ("above", "below", "expected the circle above the square, saw it below it"),
        ("left", "above", "expected the circle to the left of the square, saw it above it"),
        ("inside", "left", "expected the square around the circle, saw it to the right of it"),
        ("left", "inside", "expected the circle to the left of the square, saw it inside it"),
    ],
)
def test_position(relation: str, other: str, reason: str) -> None:
    prompt = asking("position", related(relation))
    assert verdict(prompt, related(relation)) == Verdict(True)
    assert verdict(prompt, related(other)) == Verdict(False, reason)


def test_position_is_judged_in_position_alone() -> None:
    for category in ("two objects", "colour attribution"):
        assert verdict(asking(category, related("left")), related("below")).ok


def test_a_diagonal_counts_for_both_directions_as_in_geneval() -> None:
    def at(x: float, y: float) -> Scene:
        return Scene("row", "white", (Thing("circle", "red", x, y, 15), Thing("square", "blue", 90, 90, 15)))

    left, above = asking("position", related("left")), asking("position", related("above"))
    assert verdict(left, at(35, 35)).ok
    assert verdict(above, at(35, 35)).ok
    assert not verdict(above, at(30, 80)).ok
    # Within the margin of a tenth of the sides there is no relation.
    touching = Scene("row", "white", (Thing("ring", "red", 64, 64, 50), Thing("circle", "blue", 68, 64, 10)))
    assert not verdict(left, touching).ok


def test_swapped_colours() -> None:
    swapped = related("left", ("circle", "blue"), ("square", "red"))
    answer = verdict(asking("colour attribution", related("left")), swapped)
    assert answer == Verdict(False, "expected a red circle and a blue square, saw a blue circle and a red square")


def moved(scene: Scene, index: int, dx: float, dy: float) -> Scene:
    things = list(scene.things)
    things[index] = replace(things[index], x=things[index].x + dx, y=things[index].y + dy)
    return replace(scene, things=tuple(things))


def test_a_moved_bystander_of_an_edit() -> None:
    prompt = asking(EDITING, related("left"))
    assert verdict(prompt, moved(prompt.scene, 1, 0, 5)).ok
    answer = verdict(prompt, moved(prompt.scene, 1, 0, 30))
    assert not answer.ok
    assert answer.reason.startswith("expected the blue square at about (")
    assert "saw it at (" in answer.reason


def test_things_of_one_kind_are_paired_by_place() -> None:
    prompt = asking(EDITING, three(count=4))
    assert verdict(prompt, replace(prompt.scene, things=prompt.scene.things[::-1])).ok
    assert not verdict(prompt, moved(prompt.scene, 2, 0, -25)).ok


@pytest.mark.parametrize("kind", edits.KINDS)
def test_an_edit_that_was_not_made(kind: str) -> None:
    """The source picture is no answer; the reason tells what is missing."""
    made = [prompt for prompt in make_prompts(25, [EDITING], seed=7) if prompt.kind == kind]
    assert len(made) == 5
    for prompt in made:
        assert prompt.source is not None
        assert verdict(prompt, prompt.scene).ok
        assert verdict(prompt, prompt.source).reason.startswith("expected ")
