"""Pairs for editing: a scene, an instruction, the scene that follows; what is not named stays in place."""

from __future__ import annotations

import math
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


Change = tuple[Scene, Scene]  # what is there, what is to be

# ------------------------------------------------------------------------------------------------------ the changes


def _several(rng: random.Random) -> Scene:
    """A scene of at least two kinds of things, all told apart by their shape."""
    return sample_scene(rng, rng.choice(["row", "column", "inside", "list"]))


def _recolour(rng: random.Random) -> Change:
    """All things of one kind take another colour."""
    source = _several(rng) if rng.random() < 0.6 else sample_scene(rng, rng.choice(["alone", "count", "place"]))
    chosen = rng.choice(source.things)
    taken = {thing.colour for thing in source.things} if source.layout == "inside" else {chosen.colour}
    colour = rng.choice([name for name in COLOURS if name not in taken])
    things = tuple(replace(t, colour=colour) if t.shape == chosen.shape else t for t in source.things)
    return source, replace(source, things=things)


def _remove(rng: random.Random) -> Change:
    """All things of one kind go."""
    source = _several(rng)
    shape = rng.choice(source.things).shape
    return source, replace(source, things=tuple(t for t in source.things if t.shape != shape))


def _add(rng: random.Random) -> Change:
    """A second thing comes beside, above, below or inside the first."""
    target = sample_scene(rng, rng.choice(["row", "row", "column", "column", "inside"]))
    stays = target.things[0] if target.layout == "inside" else rng.choice(target.things)
    return replace(target, things=(stays,)), target


def _move(rng: random.Random) -> Change:
    """A single thing goes to a named place."""
    source = sample_scene(rng, "place")
    thing = source.things[0]
    place = rng.choice([place for place in PLACES if place != _place(thing)])
    moved = placed(rng, source.background, thing.shape, thing.colour, place)
    return source, replace(moved, things=(replace(moved.things[0], r=thing.r),))


def _background(rng: random.Random) -> Change:
    """Another background."""
    source = sample_scene(rng)
    name = rng.choice([name for name in BACKGROUNDS if name != source.background])
    things = source.things
    if source.layout == "alone":
        things = tuple(replace(t, role=f"alone {t.size} on {name}") for t in things)
    return source, replace(source, background=name, things=things)


KINDS = {"recolour": _recolour, "remove": _remove, "add": _add, "move": _move, "background": _background}

# -------------------------------------------------------------------------------------------------------- the words


def _place(thing: Thing) -> str:
    return thing.role.removeprefix("at ")


def _definite(words: Words, thing: Thing, count: int = 1) -> str:
    """`the circle`, or with its colour `the red circle`; the shapes of a scene differ, so that both name one thing."""
    shape = words.shape(thing.shape)
    shape = shape if count == 1 else captions.plural(shape)
    return f"the {words.colour(thing.colour)} {shape}" if words.chance(0.4) else f"the {shape}"


def instruct(rng: random.Random, kind: str, source: Scene, target: Scene) -> str:
    """One of many ways to ask for a change."""
    words = Words(rng)
    if kind == "background":
        forms = (
            "make the background {}",
            "change the background to {}",
            "turn the background {}",
            "use a {} background",
        )
        return words.pick(forms, 0.6).format(words.colour(target.background))
    if kind == "move":
        return _instruct_move(words, source.things[0], _place(target.things[0]))
    if kind == "add":
        (new,) = [thing for thing in target.things if thing not in source.things]
        where = words.pick(captions.PREPOSITIONS[new.role], 0.4)
        form = words.pick(("add {} {} {}", "put {} {} {}", "draw {} {} {}"), 0.4)
        return form.format(words.noun(new), where, _definite(words, source.things[0]))
    changed = [thing for thing in source.things if thing not in target.things]
    named = _definite(words, changed[0], len(changed))
    if kind == "remove":
        return words.pick(("remove {}", "delete {}", "erase {}", "take away {}"), 0.5).format(named)
    colour = next(thing.colour for thing in target.things if thing not in source.things)
    form = words.pick(("make {} {}", "turn {} {}", "change {} to {}", "colour {} {}", "paint {} {}"), 0.6)
    return form.format(named, words.colour(colour))


def _instruct_move(words: Words, thing: Thing, place: str) -> str:
    named = _definite(words, thing)
    if words.chance(0.2):
        return f"put {named} {captions.place_phrase(words, place)}"
    goal = f"{place} corner" if " " in place and words.chance(0.5) else place
    return words.pick(("move {} to the {}", "shift {} to the {}"), 0.3).format(named, goal)


def reworded(rng: random.Random, edit: Edit) -> Edit:
    """The same change in other words."""
    return replace(edit, instruction=instruct(rng, edit.kind, edit.source, edit.target))


def undone(rng: random.Random, edit: Edit) -> Edit | None:
    """The change back; None where it cannot be asked for (what was removed had no one place to name)."""
    kind = {"add": "remove", "remove": "add"}.get(edit.kind, edit.kind)
    if kind == "add" and len(edit.source.things) != 2:
        return None
    return Edit(kind, instruct(rng, kind, edit.target, edit.source), edit.target, edit.source)


# -------------------------------------------------------------------------------------------------------- the split

# What a thing left alone looks like, whatever it was a part of.
_LONE = {"left": "at left", "right": "at right", "above": "at top", "below": "at bottom"}


def _looks_like(thing: Thing, background: str) -> list[str]:
    """The roles that a thing left alone may be taken for, told from the picture only."""
    if thing.role == "inside":  # its radius lies between those of a small and a medium thing
        return [f"alone {size} on {background}" for size in ("small", "medium")]
    if thing.role == "around":
        return [f"alone large on {background}"]
    if thing.role.startswith("among"):
        return ["at " + min(PLACES, key=lambda place: math.dist(PLACES[place], (thing.x, thing.y)))]
    return [_LONE.get(thing.role, thing.role)]


def _seen_in_training(scene: Scene) -> bool:
    """Whether training may show the scene: no triple is held out, also none that a lone thing looks like."""
    if scene.held_out:
        return False
    if len(scene.things) > 1:
        return True
    (thing,) = scene.things
    return not any(is_held_out(thing.colour, thing.shape, role) for role in _looks_like(thing, scene.background))


def sample_edit(rng: random.Random, *, held_out: bool, kind: str | None = None) -> Edit:
    """A random edit of the test split, its target held out, or of the training split, neither picture held out.

    Of the test split what changes is held out: what stays could be copied. Where nothing changes but the background, or
    something goes, it is anything in the target.
    """
    while True:
        name = kind or rng.choice(list(KINDS))
        source, target = KINDS[name](rng)
        made = [thing for thing in target.things if thing not in source.things] or target.things
        if held_out and not any(thing.held_out for thing in made):
            continue
        if not held_out and not (_seen_in_training(source) and _seen_in_training(target)):
            continue
        return Edit(name, instruct(rng, name, source, target), source, target)
