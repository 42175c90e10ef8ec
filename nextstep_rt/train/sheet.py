"""A contact sheet of an evaluation: pictures by category, each over its prompt; wrong ones in red, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from ..config import whole
from ..errors import InvalidRequest
from ..tokenizer import IMAGE_MARKER

PICTURE = 128  # pixels of a picture's side on the sheet
GAP = 14
FRAME = 3  # a wrong picture's; a right one's is 1
LINE = 14
HEADING = 34
FONT_SIZE, HEADING_SIZE = 11, 17
WIDEST, TALLEST = 16, 60_000  # columns; pixels, near what viewers open
PAPER, INK, FAINT, WRONG = (250, 250, 250), (40, 40, 40), (190, 190, 190), (205, 25, 25)


@dataclass(frozen=True)
class Tile:
    """A picture and its verdict; `source` is the picture an edit began with, shown on its left."""

    category: str
    prompt: str
    picture: Image.Image
    ok: bool
    reason: str = ""
    source: Image.Image | None = None

    @property
    def width(self) -> int:
        """Pixels on the sheet."""
        return PICTURE if self.source is None else 2 * PICTURE + GAP // 2

    @property
    def lines(self) -> tuple[list[str], list[str]]:
        """The prompt's lines and the reason's, wrapped to the tile's width."""
        return _wrapped(self.prompt.removeprefix(IMAGE_MARKER), self.width), _wrapped(self.reason, self.width)

    @property
    def height(self) -> int:
        """Pixels on the sheet."""
        return PICTURE + GAP // 2 + LINE * sum(len(lines) for lines in self.lines)


def draw_sheet(tiles: Sequence[Tile], columns: int = 8) -> Image.Image:
    """An RGB picture of all tiles, in their order, under a heading for each category with its share of right ones.

    Raises `InvalidRequest` where there is no tile, for columns outside 1..16, and where the sheet would be too tall.
    """
    whole("columns", columns, 1, WIDEST)
    if not tiles:
        raise InvalidRequest("a sheet needs at least one picture: none was given")
    inner = max(columns * (PICTURE + GAP) - GAP, *(tile.width for tile in tiles))
    placed, height = _laid_out(tiles, inner)
    if height > TALLEST:
        raise InvalidRequest(f"a sheet of {len(tiles)} pictures would be {height} pixels tall: draw fewer at a time")
    sheet = Image.new("RGB", (inner + 2 * GAP, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for item, x, y in placed:
        if isinstance(item, str):
            draw.text((x, y + 8), item, INK, _font(HEADING_SIZE))
        else:
            _draw_tile(sheet, draw, item, x, y)
    return sheet


def _laid_out(tiles: Sequence[Tile], inner: int) -> tuple[list[tuple[str | Tile, int, int]], int]:
    """Headings and tiles with their places, and the sheet's height."""
    placed: list[tuple[str | Tile, int, int]] = []
    y = GAP // 2
    for category in dict.fromkeys(tile.category for tile in tiles):
        chosen = [tile for tile in tiles if tile.category == category]
        placed.append((f"{category}: {sum(tile.ok for tile in chosen)} of these {len(chosen)} right", GAP, y))
        y += HEADING
        for row in _rows(chosen, inner):
            x = GAP
            for tile in row:
                placed.append((tile, x, y))
                x += tile.width + GAP
            y += max(tile.height for tile in row) + GAP
    return placed, y


def _rows(tiles: Sequence[Tile], inner: int) -> Iterator[list[Tile]]:
    row: list[Tile] = []
    for tile in tiles:
        if row and sum(t.width + GAP for t in row) + tile.width > inner:
            yield row
            row = []
        row.append(tile)
    yield row


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, x: int, y: int) -> None:
    left = x
    if tile.source is not None:
        _paste(sheet, tile.source, left, y)
        draw.rectangle((left - 1, y - 1, left + PICTURE, y + PICTURE), outline=FAINT)
        left += tile.width - PICTURE
    _paste(sheet, tile.picture, left, y)
    width = 1 if tile.ok else FRAME
    box = (left - width, y - width, left + PICTURE + width - 1, y + PICTURE + width - 1)
    draw.rectangle(box, outline=FAINT if tile.ok else WRONG, width=width)
    at = y + PICTURE + GAP // 2 - 1
    for lines, ink in zip(tile.lines, (INK, WRONG), strict=True):
        for line in lines:
            draw.text((x, at), line, ink, _font(FONT_SIZE))
            at += LINE


def _paste(sheet: Image.Image, picture: Image.Image, x: int, y: int) -> None:
    """Scaled to the tile; a picture of another ratio stands in its middle."""
    scale = PICTURE / max(picture.size)
    width, height = (max(round(side * scale), 1) for side in picture.size)
    fitted = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    sheet.paste(fitted, (x + (PICTURE - width) // 2, y + (PICTURE - height) // 2))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, width: int) -> list[str]:
    """The text's words in lines no wider than `width` pixels; a longer word is cut."""
    font = _font(FONT_SIZE)
    lines: list[str] = []
    for word in text.split():
        while font.getlength(word) > width:
            cut = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines.append(word[:cut])
            word = word[cut:]
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines
