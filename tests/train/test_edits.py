"""Pairs for editing: what an instruction asks for is what happens, and nothing else does."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

import pytest
from kit.scene_words import BACKGROUNDS, COLOURS, NOUN, RELATIONS, SHAPES, either, noun_of, read_noun

from nextstep_rt.train import edits, world
from nextstep_rt.train.edits import Edit, reworded, sample_edit, undone
from nextstep_rt.train.world import Scene, Thing

KINDS = list(edits.KINDS)
Picture = tuple[str, list[tuple[str, str, str, str]]]  # all but the jitter

NAMED = rf"the (?:(?P<colour>{either(COLOURS)}) )?(?P<shape>{either(SHAPES)})(?P<plural>e?s)?"
FORMS = {
    "recolour": rf"(?:make|turn|change|colour|paint) {NAMED} (?:to )?(?P<new>{either(COLOURS)})",
    "remove": rf"(?:remove|delete|erase|take away) {NAMED}",
    "add": rf"(?:add|put|draw) (?P<noun>an? .+?|one .+?) (?P<relation>{either(RELATIONS)}) {NAMED}",
    "move": rf"(?:(?:move|shift) {NAMED} to|put {NAMED.replace('P<', 'P<put_')} (?:in|at|on)) the "
    rf"(?P<place>{either(world.PLACES)})(?: corner| side)?",
    "background": rf"(?:make the background|change the background to|turn the background) (?P<a>{either(BACKGROUNDS)})"
    rf"|use a (?P<b>{either(BACKGROUNDS)}) background",
}


def sampled(kind: str | None, count: int, *, held_out: bool = False) -> list[Edit]:
    rng = random.Random(f"{kind} {held_out}")
    return [edits.sample_edit(rng, held_out=held_out, kind=kind) for _ in range(count)]


def drawn(kind: str, count: int) -> list[Edit]:
    """Of either split."""
    rng = random.Random(f"drawn {kind}")
    changes = [edits.KINDS[kind](rng) for _ in range(count)]
    return [Edit(kind, edits.instruct(rng, kind, source, target), source, target) for source, target in changes]


def picture(scene: Scene) -> Picture:
    return scene.background, sorted((t.shape, t.colour, t.size, spot(t)) for t in scene.things)


def spot(thing: Thing) -> str:
    """Where it stands, to the nearest of a coarse grid that no jitter crosses."""
    return f"{round((thing.x - 64) / 32)} {round((thing.y - 64) / 32)} {thing.role.split(' on ')[0]}"


def parse(edit: Edit) -> dict[str, str]:
    match = re.fullmatch(FORMS[edit.kind], edit.instruction)
    assert match, edit.instruction
    return {name.removeprefix("put_"): word for name, word in match.groupdict().items() if word}


@pytest.mark.parametrize("kind", KINDS)
def test_instructions_name_one_kind_of_thing(kind: str) -> None:
    """By its shape, with its right colour if with any, in the plural exactly where there are several."""
    for edit in drawn(kind, 1500):
        assert edit.kind == kind
        words = parse(edit)
        if kind == "background":
            continue
        shape = SHAPES[words["shape"]]
        named = [t for t in edit.source.things if t.shape == shape]
        assert len({t.colour for t in named}) == 1, edit
        assert ("plural" in words) == (len(named) > 1), edit
        assert "colour" not in words or COLOURS[words["colour"]] == named[0].colour, edit


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_what_the_instruction_asks_for(kind: str) -> None:
    """Carried out here from its words on the source, by nothing else."""
    for edit in drawn(kind, 1500):
        words, source, target = parse(edit), edit.source, edit.target
        things = list(source.things)
        background = source.background
        shape = SHAPES[words["shape"]] if "shape" in words else None
        if kind == "recolour":
            things = [replace(t, colour=COLOURS[words["new"]]) if t.shape == shape else t for t in things]
        elif kind == "remove":
            things = [t for t in things if t.shape != shape]
            assert len(things) >= 1
        elif kind == "background":
            background = BACKGROUNDS[words.get("a") or words["b"]]
            assert background != source.background
        elif kind == "add":
            new = target.things[-1] if target.things[0] == things[0] else target.things[0]
            match = NOUN.fullmatch(words["noun"])
            assert match
            assert read_noun(match) == noun_of(new)
            assert new.role == RELATIONS[words["relation"]]
            assert things[0].role == world.INVERSE[new.role]
            things.append(new)
        elif kind == "move":
            x, y = world.PLACES[words["place"]]
            (moved,) = target.things
            assert abs(moved.x - x) <= world.JITTER
            assert abs(moved.y - y) <= world.JITTER
            assert moved.role == f"at {words['place']}" != things[0].role
            things = [replace(things[0], x=moved.x, y=moved.y, role=moved.role)]
        # Roles of single things name the background; all else, x, y and r included, is to be exact.
        assert target.background == background
        expected = [replace(t, role="") for t in things]
        assert sorted(map(repr, expected)) == sorted(repr(replace(t, role="")) for t in target.things), edit
        assert picture(target) != picture(source)


@pytest.mark.parametrize("kind", KINDS)
def test_bystanders_stay_in_place(kind: str) -> None:
    for edit in drawn(kind, 800):
        after = {t.shape: [] for t in edit.target.things}
        for thing in edit.target.things:
            after[thing.shape].append(thing)
        named = SHAPES[parse(edit)["shape"]] if kind in ("recolour", "remove", "move") else None
        for thing in edit.source.things:
            if thing.shape != named:
                same = [
                    t
                    for t in after[thing.shape]
                    if (t.x, t.y, t.r, t.colour) == (thing.x, thing.y, thing.r, thing.colour)
                ]
                assert len(same) == 1, edit
        if kind != "add":
            assert len(edit.target.things) <= len(edit.source.things)


def test_one_instruction_on_one_picture_has_one_result() -> None:
    """Up to jitter, and with the order of drawing left aside."""
    results: dict[object, Picture] = {}
    for kind in KINDS:
        for edit in drawn(kind, 5000):
            background, things = picture(edit.source)
            key = (edit.instruction, background, *things)
            assert results.setdefault(key, picture(edit.target)) == picture(edit.target), edit
    assert len(results) < 5000 * len(KINDS)


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_training_shows_no_side_that_is_held_out(kind: str | None) -> None:
    for edit in sampled(kind, 400):
        assert not edit.held_out
        for scene in (edit.source, edit.target):
            assert not any(world.is_held_out(t.colour, t.shape, t.role) for t in scene.things), edit
    for edit in sampled(kind, 80, held_out=True):
        assert edit.held_out
        assert any(world.is_held_out(t.colour, t.shape, t.role) for t in edit.target.things), edit


@pytest.mark.parametrize("held_out", [False, True])
def test_all_kinds_are_sampled(held_out: bool) -> None:
    counts = Counter(edit.kind for edit in sampled(None, 1000, held_out=held_out))
    assert set(counts) == set(KINDS)
    assert min(counts.values()) > 80
    assert sampled(None, 50, held_out=held_out) == sampled(None, 50, held_out=held_out)


def test_roles_stay_true() -> None:
    """A lone thing on another background is another triple of the split."""
    alone = [edit for edit in drawn("background", 600) if edit.source.layout == "alone"]
    assert alone
    for edit in alone:
        (thing,) = edit.target.things
        assert thing.role == f"alone {thing.size} on {edit.target.background}"


def test_what_is_inside_stays_visible() -> None:
    """Never recoloured to what lies around it, nor the other way."""
    inside = [edit for edit in drawn("recolour", 1500) if edit.source.layout == "inside"]
    assert len(inside) > 50
    assert all(edit.target.things[0].colour != edit.target.things[1].colour for edit in inside)


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_can_be_drawn(kind: str) -> None:
    for edit in drawn(kind, 15):
        before, after = world.render(edit.source), world.render(edit.target)
        assert (before != after).any()
        if kind in ("remove", "recolour", "add"):  # no more than the things named changes
            assert (before == after).all(-1).mean() > 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_undone_is_the_change_back(kind: str) -> None:
    rng = random.Random(f"back {kind}")
    found = 0
    for _ in range(200):
        edit = sample_edit(rng, held_out=False, kind=kind)
        back = undone(rng, edit)
        if back is None:
            assert kind == "remove"
            assert len(edit.source.things) > 2
            continue
        found += 1
        assert (back.source, back.target) == (edit.target, edit.source)
        words = parse(back)
        if back.kind == "add":
            (new,) = [thing for thing in edit.source.things if thing not in edit.target.things]
            assert noun_of(new) == read_noun(NOUN.fullmatch(words["noun"]))
        elif back.kind == "background":
            assert BACKGROUNDS[words.get("a") or words["b"]] == edit.source.background
    assert found > 100


def test_the_same_change_in_other_words() -> None:
    rng = random.Random(2)
    edit = sample_edit(rng, held_out=False, kind="remove")
    texts = {reworded(rng, edit).instruction for _ in range(60)}
    assert len(texts) > 4
    assert {replace(reworded(rng, edit), instruction="") for _ in range(5)} == {replace(edit, instruction="")}


def test_what_is_left_of_a_pair_or_a_group_is_not_held_out_by_its_looks() -> None:
    """A container left alone looks like a large thing, what was in it like a small or a medium one, one of four like a
    thing in a corner.
    """
    rng = random.Random(3)
    roles: set[str] = set()
    for _ in range(4000):
        edit = sample_edit(rng, held_out=False)
        for scene in (edit.source, edit.target):
            if len(scene.things) == 1:
                (thing,) = scene.things
                roles.add(thing.role.split()[0])
                if thing.role == "around":
                    assert not world.is_held_out(thing.colour, thing.shape, f"alone large on {scene.background}")
                if thing.role == "inside":
                    for size in ("small", "medium"):
                        assert not world.is_held_out(thing.colour, thing.shape, f"alone {size} on {scene.background}")
                if thing.role.startswith("among 4") and thing.x < 64 and thing.y < 64:
                    assert not world.is_held_out(thing.colour, thing.shape, "at top left")
    assert {"around", "inside", "among", "left", "at", "alone"} <= roles
