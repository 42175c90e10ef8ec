"""Pairs to learn editing from: a scene, an instruction, the scene that follows; what is not named stays in place."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from . import captions
from .captions import Words
from .world import BACKGROUNDS, COLOURS, PLACES, Scene, Thing, is_held_out, placed, sample_scene


@dataclass(frozen=True)
class Edit:
    """kind is recolour, remove, add, move or background."""

    kind: str
    instruction: str
    source: Scene
    target: Scene

    @property
    def held_out(self) -> bool:
        """Whether the picture asked for is one that training never shows."""
        return self.target.held_out


def _other(rng: random.Random, options: list[str], than: str) -> str:
    return rng.choice([option for option in options if option != than])


def _definite(words: Words, thing: Thing, count: int = 1) -> str:
    """`the circle`, or with its colour `the red circle`; the shapes of a scene differ, so that both name one thing."""
    shape = words.shape(thing.shape)
    shape = shape if count == 1 else captions.plural(shape)
    return f"the {words.colour(thing.colour)} {shape}" if words.chance(0.4) else f"the {shape}"


def _several(rng: random.Random) -> Scene:
    """A scene of at least two kinds of things, all told apart by their shape."""
    return sample_scene(rng, rng.choice(["row", "column", "inside", "list"]))


def recolour(rng: random.Random, words: Words) -> Edit:
    """All things of one kind take another colour."""
    source = _several(rng) if rng.random() < 0.6 else sample_scene(rng, rng.choice(["alone", "count", "place"]))
    shape = rng.choice(source.things).shape
    chosen = [thing for thing in source.things if thing.shape == shape]
    taken = {thing.colour for thing in source.things} if source.layout == "inside" else {chosen[0].colour}
    colour = rng.choice([name for name in COLOURS if name not in taken])
    things = tuple(replace(t, colour=colour) if t.shape == shape else t for t in source.things)
    form = words.pick(("make {} {}", "turn {} {}", "change {} to {}", "colour {} {}", "paint {} {}"), 0.6)
    text = form.format(_definite(words, chosen[0], len(chosen)), words.colour(colour))
    return Edit("recolour", text, source, replace(source, things=things))


def remove(rng: random.Random, words: Words) -> Edit:
    """All things of one kind go."""
    source = _several(rng)
    shape = rng.choice(source.things).shape
    chosen = [thing for thing in source.things if thing.shape == shape]
    form = words.pick(("remove {}", "delete {}", "erase {}", "take away {}"), 0.5)
    text = form.format(_definite(words, chosen[0], len(chosen)))
    return Edit("remove", text, source, replace(source, things=tuple(t for t in source.things if t.shape != shape)))


def add(rng: random.Random, words: Words) -> Edit:
    """A second thing comes beside, above, below or inside the first."""
    target = sample_scene(rng, rng.choice(["row", "row", "column", "column", "inside"]))
    stays, new = rng.sample(target.things, 2) if target.layout != "inside" else target.things
    where = words.pick(captions.PREPOSITIONS[new.role], 0.4)
    text = words.pick(("add {} {} {}", "put {} {} {}", "draw {} {} {}"), 0.4)
    text = text.format(words.noun(new), where, _definite(words, stays))
    return Edit("add", text, replace(target, things=(stays,)), target)


def move(rng: random.Random, words: Words) -> Edit:
    """A single thing goes to a named place."""
    source = sample_scene(rng, "place")
    thing = source.things[0]
    place = _other(rng, list(PLACES), thing.role.removeprefix("at "))
    target = placed(rng, source.background, thing.shape, thing.colour, place)
    target = replace(target, things=(replace(target.things[0], r=thing.r),))
    goal = f"{place} corner" if " " in place and words.chance(0.5) else place
    goal = captions.place_phrase(words, place) if words.chance(0.2) else f"to the {goal}"
    form = "put {} {}" if not goal.startswith("to") else words.pick(("move {} {}", "shift {} {}"), 0.3)
    return Edit("move", form.format(_definite(words, thing), goal), source, target)


def background(rng: random.Random, words: Words) -> Edit:
    """Another background."""
    source = sample_scene(rng)
    name = _other(rng, list(BACKGROUNDS), source.background)
    things = source.things
    if source.layout == "alone":
        things = tuple(replace(t, role=f"alone {t.size} on {name}") for t in things)
    forms = ("make the background {}", "change the background to {}", "turn the background {}", "use a {} background")
    text = words.pick(forms, 0.6).format(words.colour(name))
    return Edit("background", text, source, replace(source, background=name, things=things))


KINDS = {"recolour": recolour, "remove": remove, "add": add, "move": move, "background": background}


# What a thing left alone looks like, whatever pair it comes from.
_LONE = {"left": "at left", "right": "at right", "above": "at top", "below": "at bottom"}


def _seen_in_training(scene: Scene) -> bool:
    """Whether training may show the scene: no triple is held out, also not the one that a lone thing looks like."""
    if scene.held_out:
        return False
    if len(scene.things) > 1:
        return True
    (thing,) = scene.things
    role = f"alone small on {scene.background}" if thing.role == "inside" else _LONE.get(thing.role, thing.role)
    return not is_held_out(thing.colour, thing.shape, role)


def sample_edit(rng: random.Random, *, held_out: bool, kind: str | None = None) -> Edit:
    """A random edit of the test split, its target held out, or of the training split, neither picture held out."""
    while True:
        edit = KINDS[kind or rng.choice(list(KINDS))](rng, Words(rng))
        if held_out and edit.target.held_out:
            return edit
        if not held_out and _seen_in_training(edit.source) and _seen_in_training(edit.target):
            return edit
