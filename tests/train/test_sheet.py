"""The contact sheet: what stands where, and in which colour."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nextstep_rt import InvalidRequest
from nextstep_rt.train import sheet
from nextstep_rt.train.sheet import FAINT, FRAME, GAP, HEADING, PICTURE, WRONG, Tile, draw_sheet

GREEN, BLUE = (0, 200, 0), (0, 0, 200)


def tile(ok: bool = True, category: str = "colours", colour: tuple[int, ...] = GREEN, **fields: object) -> Tile:
    picture = Image.new("RGB", (64, 64), colour)
    return Tile(category, "a green square", picture, ok, "" if ok else "expected this, saw that", **fields)  # type: ignore[arg-type]


def pixels(*tiles: Tile, columns: int = 8) -> NDArray[np.uint8]:
    return np.asarray(draw_sheet(tiles, columns))


def count(array: NDArray[np.uint8], colour: tuple[int, ...]) -> int:
    return int((array == colour).all(-1).sum())


TOP = GAP // 2 + HEADING


def test_a_right_picture_has_a_thin_frame() -> None:
    array = pixels(tile())
    assert count(array, GREEN) == PICTURE**2
    assert (array[TOP : TOP + PICTURE, GAP : GAP + PICTURE] == GREEN).all()
    assert tuple(array[TOP - 1, GAP + 5]) == FAINT
    assert tuple(array[TOP - 2, GAP + 5]) != FAINT
    assert count(array[TOP - 1 :], FAINT) == 4 * (PICTURE + 1)  # below the heading, whose letters blend to it too
    assert count(array, WRONG) == 0


def test_a_wrong_picture_has_a_red_frame_and_its_reason() -> None:
    array = pixels(tile(False))
    assert count(array, GREEN) == PICTURE**2
    frame = array[TOP - FRAME : TOP + PICTURE + FRAME, GAP - FRAME : GAP + PICTURE + FRAME]
    assert count(frame, WRONG) == (PICTURE + 2 * FRAME) ** 2 - PICTURE**2
    below = array[TOP + PICTURE + FRAME :]
    red = below[..., 0].astype(int) - below[..., 1] > 60  # the letters are anti-aliased
    assert red.sum() > 50
    # The reason takes lines of its own.
    assert array.shape[0] > pixels(tile()).shape[0]


def test_an_edit_shows_its_source_on_the_left() -> None:
    array = pixels(tile(source=Image.new("RGB", (128, 128), BLUE)))
    source, picture = ((array == colour).all(-1).nonzero()[1] for colour in (BLUE, GREEN))
    assert len(source) == len(picture) == PICTURE**2
    assert source.max() < picture.min()


def test_the_marker_is_not_shown() -> None:
    assert Tile("editing", "<image>make it red", Image.new("RGB", (8, 8)), True).lines == (["make it red"], [])


def test_rows_and_headings() -> None:
    one_row = pixels(*[tile()] * 4, columns=4)
    two_rows = pixels(*[tile()] * 5, columns=4)
    assert one_row.shape[1] == two_rows.shape[1] == 4 * (PICTURE + GAP) + GAP
    assert two_rows.shape[0] > one_row.shape[0] + PICTURE
    assert count(two_rows, GREEN) == 5 * PICTURE**2
    # Of another category: under a heading of its own, on a new row.
    two_headings = pixels(tile(), tile(category="position"), columns=4)
    assert two_headings.shape[0] == 2 * one_row.shape[0] - GAP // 2


def test_headings_say_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    text = ImageDraw.ImageDraw.text

    def recording(draw: ImageDraw.ImageDraw, xy: object, line: str, *rest: object) -> None:
        said.append(line)
        text(draw, xy, line, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recording)
    pixels(tile(), tile(False), tile(category="position"))
    assert said[0] == "colours: 1 of these 2 right"
    assert "position: 1 of these 1 right" in said
    assert said.count("a green square") == 3


def test_long_words_stay_in_their_column() -> None:
    made = Tile("colours", "m" * 60 + " end", Image.new("RGB", (8, 8), GREEN), True)
    prompt, _ = made.lines
    assert len(prompt) > 2
    assert "".join(prompt).replace(" ", "") == "m" * 60 + "end"
    array = pixels(made, columns=2)
    assert (array[TOP + PICTURE + FRAME :, GAP + PICTURE + 1 :] == sheet.PAPER).all()


def test_a_picture_of_another_ratio_keeps_it() -> None:
    made = Tile("colours", "wide", Image.new("L", (100, 50), 0), True)
    array = pixels(made)
    black = (array[TOP : TOP + PICTURE, GAP : GAP + PICTURE] == 0).all(-1)
    assert black.sum() == PICTURE * PICTURE // 2
    assert black[PICTURE // 2].all()
    assert not black[0].any()


def test_wrong_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="at least one picture"):
        draw_sheet([])
    with pytest.raises(InvalidRequest, match="columns is 0"):
        draw_sheet([tile()], columns=0)
    monkeypatch.setattr(sheet, "TALLEST", 300)
    with pytest.raises(InvalidRequest, match="draw fewer at a time"):
        draw_sheet([tile()] * 30, columns=4)
