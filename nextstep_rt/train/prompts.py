"""ShapeEval's prompts and its judge: GenEval's six categories for the world of shapes, and editing.

Every prompt tells of a scene of the test split, so no training caption says what it says. What a category is about is
judged, and always the background and that nothing is there that was not asked for. Sizes are not judged.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import choice, whole
from ..errors import InvalidRequest
from ..tokenizer import IMAGE_MARKER
from . import captions, edits
from .world import DEFAULT_COLOUR, Scene, Thing, sample_split

if TYPE_CHECKING:
    from .reader import Reading, Seen

GENERATION = ("single object", "two objects", "counting", "colours", "position", "colour attribution")
EDITING = "editing"
CATEGORIES = (*GENERATION, EDITING)
MAX_PROMPTS = 10_000
FIRST_DRAWS, DRAWS = 2000, 50  # and for each prompt more: a category may hold fewer prompts than are wanted

# What is judged beside background, shapes and their number.
COLOUR, RELATION, PLACE = "colour", "relation", "place"
JUDGED: dict[str, frozenset[str]] = {
    "single object": frozenset(),
    "two objects": frozenset(),
    "counting": frozenset({COLOUR}),
    "colours": frozenset({COLOUR}),
    "position": frozenset({RELATION}),
    "colour attribution": frozenset({COLOUR}),
    EDITING: frozenset({COLOUR, PLACE}),
}
MAX_MOVE = 16.0  # pixels of the canvas: half the way from one named place to the next
# GenEval: centres must differ by more than this share of the boxes' sides, and mostly in the relation's direction.
POSITION_MARGIN, MIN_DIRECTION = 0.1, 0.5


@dataclass(frozen=True)
class Prompt:
    """A text and the scene it asks for; of an edit also the scene to change and the kind of change.

    judged: any of "colour", "relation", "place"; background, shapes and their number always are.
    """

    category: str
    text: str
    scene: Scene
    judged: frozenset[str]
    source: Scene | None = None
    kind: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows what its prompt asks for, and if not, what is wrong."""

    ok: bool
    reason: str = ""


# ---------------------------------------------------------------------------------------------------------- prompts


def make_prompts(count: int = 100, categories: Iterable[str] = CATEGORIES, seed: int = 0) -> list[Prompt]:
    """`count` different prompts for each category: texts, or for edits texts with pictures. The same for a seed.

    Raises `InvalidRequest` for an unknown category, or where a category has not so many prompts.
    """
    whole("count", count, 1, MAX_PROMPTS)
    whole("seed", seed, 0, 2**64 - 1)
    names = [choice("category", category, CATEGORIES) for category in dict.fromkeys(categories)]
    if not names:
        raise InvalidRequest(f"no category was given: choose some of {', '.join(CATEGORIES)}")
    return [prompt for name in names for prompt in _distinct(name, count, random.Random(f"{name} {seed}"))]


def _distinct(category: str, count: int, rng: random.Random) -> list[Prompt]:
    """Each form of a category in turn, so that they come in equal parts."""
    forms = _FORMS[category]
    made: dict[object, Prompt] = {}
    draws = FIRST_DRAWS + DRAWS * count
    for _ in range(draws):
        prompt = forms[len(made) % len(forms)](rng)
        if prompt is not None:
            made.setdefault(_identity(prompt), prompt)
        if len(made) == count:
            return list(made.values())
    raise InvalidRequest(
        f"count is {count}, but {draws} draws gave only {len(made)} different prompts of {category!r}: "
        f"ask for {len(made)} or fewer"
    )


def _identity(prompt: Prompt) -> object:
    """The text, and of an edit what the picture shows: `make the background navy` is said of many."""
    if prompt.source is None:
        return prompt.text
    things = tuple((thing.shape, thing.colour, thing.role) for thing in prompt.source.things)
    return prompt.text, prompt.source.background, things


Form = Callable[[random.Random], Prompt | None]


def _told(
    category: str,
    layouts: Sequence[str],
    wanted: Callable[[Scene], bool] = lambda scene: True,
    *,
    named: bool | None = None,
    said: Sequence[str] = (),
) -> Form:
    """Captions of scenes that are `wanted`; `named` is caption's name_default_colour; one of `said` must be in it."""

    def form(rng: random.Random) -> Prompt | None:
        scene = sample_split(rng, held_out=True, layout=rng.choice(layouts))
        if not wanted(scene):
            return None
        text = captions.caption(rng, scene, name_default_colour=named)
        if said and not any(re.search(rf"\b{re.escape(phrase)}\b", text.lower()) for phrase in said):
            return None
        return Prompt(category, text, scene, JUDGED[category])

    return form


def _all_default(scene: Scene) -> bool:
    return all(thing.colour == DEFAULT_COLOUR for thing in scene.things)


def _two_colours(scene: Scene) -> bool:
    return len({thing.colour for thing in scene.things}) == 2


def _holds(count: int) -> Callable[[Scene], bool]:
    return lambda scene: len(scene.things) == count


def _edit(kind: str) -> Form:
    def form(rng: random.Random) -> Prompt:
        edit = edits.sample_edit(rng, held_out=True, kind=kind)
        return Prompt(EDITING, IMAGE_MARKER + edit.instruction, edit.target, JUDGED[EDITING], edit.source, kind)

    return form


_ROWS = ("row", "column")


def _related(relation: str) -> Form:
    layout = {"left": "row", "right": "row", "inside": "inside", "around": "inside"}.get(relation, "column")
    return _told("position", (layout,), said=captions.PREPOSITIONS[relation])


# Without a colour said a prompt means the default one, and few such scenes are of the test split; so every other prompt
# of the first two categories may name colours. They are not judged there.
_FORMS: dict[str, tuple[Form, ...]] = {
    "single object": (
        _told("single object", ("alone",), _all_default, named=False),
        _told("single object", ("alone",)),
    ),
    "two objects": (_told("two objects", _ROWS, _all_default, named=False), _told("two objects", _ROWS)),
    "counting": tuple(_told("counting", ("count",), _holds(n)) for n in (2, 3, 4)),
    "colours": (_told("colours", ("alone",), named=True),),
    "position": tuple(_related(relation) for relation in ("left", "right", "above", "below", "inside")),
    "colour attribution": (_told("colour attribution", _ROWS, _two_colours, named=True),),
    EDITING: tuple(_edit(kind) for kind in edits.KINDS),
}


# ---------------------------------------------------------------------------------------------------------- verdicts


def judge(prompt: Prompt, reading: Reading) -> Verdict:
    """Whether what was read is what the prompt asks for; the first thing that is wrong is the reason."""
    scene, judged = prompt.scene, prompt.judged
    if reading.background != scene.background:
        seen = "one of no known colour" if reading.background is None else captions.article(reading.background) + " one"
        return Verdict(False, f"expected {captions.article(scene.background)} background, saw {seen}")
    colours = COLOUR in judged
    wanted = Counter(_key(thing, colours) for thing in scene.things)
    found = Counter(_key(thing, colours) for thing in reading.objects)
    if wanted != found:
        return Verdict(False, f"expected {_listed(wanted)}, saw {_listed(found)}")
    if RELATION in judged:
        return _judge_relation(scene, reading)
    if PLACE in judged:
        return _judge_places(scene, reading)
    return Verdict(True)


Key = tuple[str | None, str | None]


def _key(thing: Thing | Seen, colours: bool) -> Key:
    """Shape, and colour where it matters ("" where not; None where the reader knows it not)."""
    return thing.shape, thing.colour if colours else ""


def _listed(things: Counter[Key]) -> str:
    """`a red circle and two blue stars`; `nothing`."""
    parts = []
    for (shape, colour), count in things.items():
        words = [word for word in ("off-colour" if colour is None else colour, shape or "blob") if word]
        noun = " ".join(words)
        parts.append(captions.article(noun) if count == 1 else f"{_number(count)} {captions.plural(noun)}")
    return " and ".join(parts) or "nothing"


def _number(count: int) -> str:
    return captions.NUMBERS[count] if count < len(captions.NUMBERS) else str(count)


def _judge_relation(scene: Scene, reading: Reading) -> Verdict:
    """The first of the two things to the second; the shapes of a related pair differ."""
    first, second = scene.things
    by_shape = {seen.shape: seen for seen in reading.objects}
    relations = relations_of(by_shape[first.shape], by_shape[second.shape], reading)
    if first.role in relations:
        return Verdict(True)
    saw = " and ".join(_where(relation) for relation in relations) or "neither beside, above nor inside"
    return Verdict(False, f"expected the {first.shape} {_where(first.role)} the {second.shape}, saw it {saw} it")


def _where(relation: str) -> str:
    return captions.PREPOSITIONS[relation][0]


def relations_of(first: Seen, second: Seen, reading: Reading) -> tuple[str, ...]:
    """How the first stands to the second: "inside" or "around", or else by GenEval's rule any of the four directions.

    The boxes' centres are compared: past a margin of a tenth of the sides, and mostly along the direction.
    """
    for inner, outer, name in ((first, second, "inside"), (second, first, "around")):
        if inner.within is not None and reading.objects[inner.within] == outer:
            return (name,)
    offset = [(a0 + a1 - b0 - b1) / 2 for (a0, a1), (b0, b1) in zip(_spans(first), _spans(second), strict=True)]
    sides = [a1 - a0 + b1 - b0 for (a0, a1), (b0, b1) in zip(_spans(first), _spans(second), strict=True)]
    x, y = (math.copysign(max(abs(o) - POSITION_MARGIN * s, 0.0), o) for o, s in zip(offset, sides, strict=True))
    length = math.hypot(*offset)
    if length == 0.0:
        return ()
    x, y = x / length, y / length
    directions = {"left": -x, "right": x, "above": -y, "below": y}
    return tuple(name for name, share in directions.items() if share > MIN_DIRECTION)


def _spans(seen: Seen) -> tuple[tuple[float, float], tuple[float, float]]:
    left, top, right, bottom = seen.box
    return (left, right), (top, bottom)


def _judge_places(scene: Scene, reading: Reading) -> Verdict:
    """Every thing within MAX_MOVE of where it is expected, things of one kind paired so that the total way is least."""
    for key in dict.fromkeys(_key(thing, True) for thing in scene.things):
        things = [thing for thing in scene.things if _key(thing, True) == key]
        seen = [thing for thing in reading.objects if _key(thing, True) == key]
        pairings = (list(zip(things, order, strict=True)) for order in itertools.permutations(seen))
        for thing, at in min(pairings, key=lambda pairs: sum(_distance(a, b) for a, b in pairs)):
            if _distance(thing, at) > MAX_MOVE:
                where = f"({thing.x:.0f}, {thing.y:.0f}), saw it at ({at.x:.0f}, {at.y:.0f})"
                return Verdict(False, f"expected the {thing.colour} {thing.shape} at about {where}")
    return Verdict(True)


def _distance(thing: Thing, seen: Seen) -> float:
    return math.hypot(thing.x - seen.x, thing.y - seen.y)
