"""A reader of captions and instructions that shares no words and no grammar with the code that writes them."""

from __future__ import annotations

import re
from typing import Any

from nextstep_rt.train.world import Scene, Thing


def meanings(names: str, **synonyms: str) -> dict[str, str]:
    """What each word means: the names themselves, and of some names other words, between commas."""
    same = {name: name for name in names.split()}
    return same | {word: name for name, words in synonyms.items() for word in words.split(", ")}


SHAPES = meanings(
    "circle square triangle star ring cross heart diamond",
    circle="disc, dot",
    square="box",
    ring="donut",
    cross="plus sign",
    diamond="rhombus",
)
COLOURS = meanings("red green blue yellow orange purple pink cyan", purple="violet", cyan="turquoise")
BACKGROUNDS = meanings("white black gray beige navy mint", gray="grey")
SIZES = meanings("small large", small="tiny, little", medium="medium-sized", large="big, huge")
RELATIONS = meanings(
    "above below inside around",
    left="to the left of, left of, on the left of",
    right="to the right of, right of, on the right of",
    above="over, on top of",
    below="under, beneath",
    inside="in, within",
    around="surrounding",
)
COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "2": 2, "three": 3, "3": 3, "four": 4, "4": 4}
OPPOSITE = {"right": "left", "below": "above", "around": "inside"}
OPENINGS = ("a picture of ", "an image of ", "a drawing of ", "draw ", "show ")


def either(words: Any) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


NOUN = re.compile(
    rf"\b(?:(?P<count>{either(COUNTS)}) )?(?:(?P<size>{either(SIZES)}) )?(?:(?P<colour>{either(COLOURS)}) )?"
    rf"(?P<shape>{either(SHAPES)})(?P<plural>e?s)?\b"
)
BACKGROUND = re.compile(
    rf"^on a (?P<a>{either(BACKGROUNDS)}) background, | (?:on|against|with) a (?P<b>{either(BACKGROUNDS)}) background$"
    rf"| on (?P<c>{either(BACKGROUNDS)})$|, (?P<d>{either(BACKGROUNDS)}) (?:bg|background)$"
)
PLACE = re.compile(
    r"in the (?P<a>(?:top|bottom) (?:left|right))(?: corner)?|at the (?P<b>(?:top|bottom) (?:left|right))"
    r"|at the (?P<c>top|bottom)(?: side)?|on the (?P<d>left|right)(?: side)?"
    r"|(?P<e>(?:top|bottom) (?:left|right)|top|bottom|left|right)"  # as terse as that
)

Noun = tuple[int, str, str, str]  # how many, size, colour, shape
Meaning = tuple[str, str, tuple[Noun, ...]]  # the relation or place or nothing, the background, the things in order


def read_noun(match: re.Match[str]) -> Noun:
    """What a noun phrase says; its article and its plural must be right."""
    count = COUNTS[match["count"] or "a"]
    assert bool(match["plural"]) == (count > 1), match[0]
    if match["count"] in ("a", "an"):
        assert (match["count"] == "an") == (match[0].split()[1][0] in "aeiou"), match[0]
    size, colour = SIZES.get(match["size"], "medium"), COLOURS.get(match["colour"], "red")
    return count, size, colour, SHAPES[match["shape"]]


def read(text: str) -> Meaning:
    """What a caption says. Every word of it must be understood."""
    text = (text[0].lower() + text[1:]).removesuffix(".")
    for opening in OPENINGS:
        text = text.removeprefix(opening)
    background = "white"
    if match := BACKGROUND.search(text):
        background = BACKGROUNDS[next(word for word in match.groups() if word)]
        text = text[: match.start()] + text[match.end() :]
    nouns = tuple(map(read_noun, NOUN.finditer(text)))
    return _arrange(NOUN.sub("#", text), nouns, background)


def _arrange(frame: str, nouns: tuple[Noun, ...], background: str) -> Meaning:
    """From what stands between the nouns to how the things stand."""
    single = all(count == 1 for count, *_ in nouns)
    relation = None
    beside = ("# next to #", "# beside #", "# on the left and # on the right")
    if frame in beside or (single and frame in ("#, #", "# and #")):
        relation = "left"
    elif match := re.fullmatch(r"# (.*) #", frame):
        relation = RELATIONS.get(match[1])
    elif match := re.fullmatch(r"# with # (.*) it", frame):
        nouns, relation = nouns[::-1], RELATIONS[match[1]]
    if relation:
        assert single
        if relation in OPPOSITE:
            nouns, relation = nouns[::-1], OPPOSITE[relation]
        return relation, background, nouns
    if match := re.fullmatch(r"# (?P<last>.+)|(?P<first>.+), #", frame):
        place = PLACE.fullmatch(match["last"] or match["first"])
        if place:
            return f"at {next(word for word in place.groups() if word)}", background, nouns
    assert frame in ("#", "# and #", "#, #", "#, # and #", "#, #, and #", "#, #, #"), frame
    return "", background, nouns


def noun_of(thing: Thing, count: int = 1) -> Noun:
    return count, thing.size, thing.colour, thing.shape


def meaning_of(scene: Scene) -> Meaning:
    """What must be said of a scene: all but the jitter."""
    things = list(scene.things)
    role = things[0].role
    if role == "around":
        things, role = things[::-1], "inside"
    if role.startswith(("alone", "one of", "among")):
        role = ""
    nouns: list[Noun] = []
    for thing in things:
        if nouns and nouns[-1][1:] == noun_of(thing)[1:]:
            nouns[-1] = noun_of(thing, nouns[-1][0] + 1)
        else:
            nouns.append(noun_of(thing))
    return role, scene.background, tuple(nouns)
