"""What is said of a scene: many ways of saying the same, and never less than the picture shows.

`caption` paraphrases, `canonical` says it in the one full form that refinement aims at, `terse` as a hurried user
would.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import groupby

from .world import DEFAULT_BACKGROUND, DEFAULT_COLOUR, INVERSE, Scene, Thing

SHAPE_WORDS = {
    "circle": ("disc", "dot"),
    "square": ("box",),
    "ring": ("donut",),
    "cross": ("plus sign",),
    "diamond": ("rhombus",),
}
COLOUR_WORDS = {"purple": ("violet",), "cyan": ("turquoise",), "gray": ("grey",)}
SIZE_WORDS = {"small": ("tiny", "little"), "large": ("big", "huge"), "medium": ("medium-sized",)}
NUMBERS = ("zero", "one", "two", "three", "four")
PREPOSITIONS = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
    "inside": ("inside", "in", "within"),
    "around": ("around", "surrounding"),
}
TERSE = {"left": "left of", "right": "right of", "above": "over", "below": "under", "inside": "in", "around": "around"}
OPENINGS = ("a picture of {}", "an image of {}", "a drawing of {}", "draw {}", "show {}")


class Words:
    """The choice of words for one caption: common ones mostly, synonyms in a share of the places."""

    def __init__(self, rng: random.Random | None, synonyms: float = 0.15, *, name_default_colour: bool = True) -> None:
        self.rng, self.synonyms, self.name_default_colour = rng, synonyms, name_default_colour

    def chance(self, share: float) -> bool:
        """True in about this share of the calls; never where the wording is the canonical one."""
        return self.rng is not None and self.rng.random() < share

    def pick(self, options: Sequence[str], share: float | None = None) -> str:
        """The first option, or in a share of the calls another."""
        if self.rng is None or len(options) == 1 or not self.chance(self.synonyms if share is None else share):
            return options[0]
        return self.rng.choice(options[1:])

    def shape(self, shape: str) -> str:
        """A shape's name or synonym."""
        return self.pick((shape, *SHAPE_WORDS.get(shape, ())))

    def colour(self, colour: str) -> str:
        """A colour's name or synonym."""
        return self.pick((colour, *COLOUR_WORDS.get(colour, ())))

    def size(self, size: str) -> str:
        """A size's word; of the default one, mostly none."""
        if size == "medium":
            return "medium-sized" if self.chance(0.03) else ""
        return self.pick((size, *SIZE_WORDS[size]), 0.4)

    def adjectives(self, thing: Thing) -> str:
        """Size and colour, with a trailing space where there is any."""
        colour = "" if thing.colour == DEFAULT_COLOUR and not self.name_default_colour else self.colour(thing.colour)
        return "".join(f"{word} " for word in (self.size(thing.size), colour) if word)

    def noun(self, thing: Thing, count: int = 1) -> str:
        """The thing with its article or number: `a red circle`, `three small stars`."""
        words = self.adjectives(thing)
        shape = self.shape(thing.shape)
        if count == 1:
            return f"one {words}{shape}" if self.chance(0.06) else article(f"{words}{shape}")
        number = self.pick((NUMBERS[count], str(count)))
        return f"{number} {words}{plural(shape)}"


def article(phrase: str) -> str:
    """`a` or `an` before a phrase."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    """A noun in the plural."""
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def parts(scene: Scene) -> list[tuple[int, Thing]]:
    """A group's things as (how many, which), in order."""
    runs = [list(run) for _, run in groupby(scene.things, key=lambda thing: (thing.shape, thing.colour))]
    return [(len(run), run[0]) for run in runs]


def canonical(scene: Scene) -> str:
    """The one full wording: every colour and the background said, no synonyms."""
    return f"{_body(scene, Words(None))} on a {scene.background} background"


def caption(rng: random.Random, scene: Scene, *, name_default_colour: bool | None = None) -> str:
    """A paraphrase. Defaults may stay unsaid; `name_default_colour` decides it for the colour."""
    if name_default_colour is None:
        name_default_colour = any(thing.colour != DEFAULT_COLOUR for thing in scene.things) or rng.random() < 0.5
    words = Words(rng, name_default_colour=name_default_colour)
    text = _body(scene, words)
    opened = words.chance(0.15)
    if scene.background != DEFAULT_BACKGROUND or words.chance(0.2):
        name = words.colour(scene.background)
        ways = ("{} on a {} background", "{} on {}", "{} against a {} background", "{} with a {} background")
        if not opened and words.chance(0.1):
            text = f"on a {name} background, {text}"
        else:
            text = words.pick(ways, 0.45).format(text, name)
    if opened:
        text = rng.choice(OPENINGS).format(text)
    return written(rng, text)


def written(rng: random.Random, text: str) -> str:
    """A text as some people write it: with a capital, or a period at the end."""
    if rng.random() < 0.1:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.08 else text


def terse(rng: random.Random, scene: Scene) -> str:
    """What a hurried user types: no articles, synonyms, short prepositions; defaults unsaid."""
    words = Words(rng, synonyms=0.4, name_default_colour=any(t.colour != DEFAULT_COLOUR for t in scene.things))

    def bare(thing: Thing, count: int = 1) -> str:
        shape = words.shape(thing.shape)
        return words.adjectives(thing) + shape if count == 1 else f"{count} {words.adjectives(thing)}{plural(shape)}"

    if scene.layout in ("row", "column", "inside"):
        relation = scene.things[0].role
        first, second = scene.things
        if words.chance(0.3):
            first, second, relation = second, first, INVERSE[relation]
        comma = scene.layout == "row" and relation == "left" and words.chance(0.5)
        text = f"{bare(first)}, {bare(second)}" if comma else f"{bare(first)} {TERSE[relation]} {bare(second)}"
    elif scene.layout == "place":
        text = f"{bare(scene.things[0])} {scene.things[0].role.removeprefix('at ')}"
    else:
        text = ", ".join(bare(thing, count) for count, thing in parts(scene))
    if scene.background != DEFAULT_BACKGROUND:
        ways = ("{}, {} bg", "{} on {}", "{}, {} background")
        text = words.pick(ways, 0.5).format(text, words.colour(scene.background))
    return text


def place_phrase(words: Words, place: str) -> str:
    """Where on the canvas: `in the top left corner`, `at the top`, `on the left`."""
    if " " in place:
        return words.pick((f"in the {place} corner", f"in the {place}", f"at the {place}"), 0.4)
    preposition = "at" if place in ("top", "bottom") else "on"
    return words.pick((f"{preposition} the {place}", f"{preposition} the {place} side"), 0.2)


def _body(scene: Scene, words: Words) -> str:
    """The things and how they stand, without the background."""
    if scene.layout == "alone":
        return words.noun(scene.things[0])
    if scene.layout == "place":
        thing = scene.things[0]
        where = place_phrase(words, thing.role.removeprefix("at "))
        return f"{where}, {words.noun(thing)}" if words.chance(0.1) else f"{words.noun(thing)} {where}"
    if scene.layout == "group":
        return _listed([words.noun(thing, count) for count, thing in parts(scene)], words)
    return _related(scene, words)


def _listed(nouns: list[str], words: Words) -> str:
    if len(nouns) < 3:
        return " and ".join(nouns)
    return f"{', '.join(nouns[:-1])}{words.pick((' and ', ', and '))}{nouns[-1]}"


def _related(scene: Scene, words: Words) -> str:
    """Two things and their relation, told from either side."""
    first, second = scene.things
    relation = first.role
    if relation == "around":  # the inner thing leads
        first, second, relation = second, first, "inside"
    if scene.layout == "row" and words.chance(0.45):
        forms = ("{a} and {b}", "{a} next to {b}", "{a} beside {b}", "{a} on the left and {b} on the right")
        return words.pick(forms, 0.4).format(a=words.noun(first), b=words.noun(second))
    if words.chance(0.45):
        first, second, relation = second, first, INVERSE[relation]
    a, b = words.noun(first), words.noun(second)
    where = words.pick(PREPOSITIONS[relation], 0.45)
    if words.chance(0.12) and relation != "around":
        return f"{b} with {a} {where} it"
    return f"{a} {where} {b}"
