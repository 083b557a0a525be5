"""Frames reduced to the cells that change: the screen is remembered; text goes in, less text comes out.

Textual compares no cells: a refreshed widget is written whole, every piece of it with its full colours. Here such a
frame is read (cursor positions, SGR, newlines and text are all there is in one), compared with what the terminal
shows, and written anew: changed cells, the shortest way between them, differences of colours.
What is not understood passes unchanged, and the memory with it goes: the next frame writes all it touches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby, islice
from typing import Final, NamedTuple, cast

from rich.cells import cell_len  # what Textual measures with: both must agree on every width


class Style(NamedTuple):
    """SGR codes; empty: the terminal's own."""

    attributes: frozenset[str] = frozenset()
    foreground: str = ""
    background: str = ""


PLAIN: Final = Style()


class Row(NamedTuple):
    """What the columns of a row show: two lists, for most of them are compared and replaced as slices."""

    texts: list[str | None]
    """A character and what combines with it; empty: the right half of a wide one; None: not known."""
    styles: list[Style]


NOWHERE: Final = (-1, -1)
"""A cursor of which the place is not known."""
LONGEST_BRIDGE: Final = 5
"""Columns that may be cheaper to write again than to jump over: a jump is three to five bytes."""

FEW_CHANGES: Final = 4
"""Of style in a row: no other order is looked for to save one of them."""

OFF: Final = {
    "1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "6": "25", "7": "27", "8": "28", "9": "29",
    "21": "24", "51": "54", "52": "54", "53": "55",
}  # fmt: skip
"""The attributes Rich knows, and what ends each."""
SEEN_ON_BLANKS: Final = frozenset({"4", "7", "9", "21", "51", "52", "53"})
"""The attributes that show where there is no letter: lines, and the exchange of the colours."""
FOREGROUNDS: Final = frozenset(map(str, (*range(30, 38), *range(90, 98))))
BACKGROUNDS: Final = frozenset(map(str, (*range(40, 48), *range(100, 108))))
COLOR_NUMBERS: Final = {"5": 1, "2": 3}
"""How many numbers follow `38;5` and `38;2`."""

SEQUENCE: Final = re.compile(r"\x1b\[([0-9;]*)([Hm])")
UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
CONTROL: Final = re.compile(
    r"(?:\x07|\x1b\[[<=>?][0-9;]*\$?[a-zA-Z]|\x1b\](?!8;)[^\x00-\x1f]*(?:\x07|\x1b\\)|\x1bPtmux;(?:[^\x1b]|\x1b[^\\])*\x1b\\)+"
)
"""BEL, modes and queries, OSC but for links, tmux's wrapping of these."""
ALTERNATE: Final = "\x1b[?1049"
"""The mode that exchanges the screen."""

_narrow = set(map(chr, range(0x20, 0x7F)))
"""Characters known to be one column wide; grows with what is seen."""


class NotUnderstood(Exception):
    """Something in a frame that is not modelled here."""


def is_control(text: str) -> bool:
    """Whether a text changes no cell: modes, queries, BEL, titles, notifications."""
    return CONTROL.fullmatch(text) is not None


class FrameDiff:
    """What a terminal shows, and frames reduced to what they change of it."""

    def __init__(self, width: int = 0, height: int = 0) -> None:
        self.size = (width, height)
        self.passed = 0
        """How many frames passed unchanged because they were not understood."""
        self.forget()

    def resize(self, width: int, height: int) -> None:
        """Another size: nobody knows what the terminal made of what was there."""
        self.size = (width, height)
        self.forget()

    def forget(self) -> None:
        """Take nothing on the screen as known."""
        width, height = self.size
        self._rows = [Row([None] * width, [PLAIN] * width) for _ in range(height)]
        self._cursor = NOWHERE

    def reduce(self, text: str) -> str:
        """What to write instead of a text: the same effect on the screen; empty if it has none.

        Args:
            text: A frame of Textual's compositor, or a control text, which passes.
        """
        if is_control(text):
            if ALTERNATE in text:
                self.forget()
            return text
        try:
            rows, cursor = self._read(text)
        except NotUnderstood:
            self.forget()
            self.passed += 1
            return text
        return self._write(rows, cursor)

    # --- reading ------------------------------------------------------------------------------------------

    def _read(self, frame: str) -> tuple[dict[int, Row], tuple[int, int]]:
        """The rows a frame touches, as they will be, and where it leaves the cursor."""
        pieces = SEQUENCE.split(frame)
        if pieces[-1] or pieces[-2:-1] != ["H"]:
            raise NotUnderstood  # Textual's frames end with a cursor position; no other text does
        rows: dict[int, Row] = {}
        (y, x), style = self._cursor, PLAIN
        for text, codes, kind in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=False):
            for number, part in enumerate(text.split("\n")):
                if number:
                    y, x = y + 1, -1  # the column depends on the modes of the terminal; a position follows
                    if not 0 < y < self.size[1]:
                        raise NotUnderstood  # it would scroll
                if part:
                    x = self._put(rows, y, x, _columns(part), style)
            if kind == "m":
                style = _styled(style, codes)
            else:
                y, x = self._position(codes)
        if style != PLAIN:
            raise NotUnderstood
        return rows, (y, x)

    def _position(self, codes: str) -> tuple[int, int]:
        row, _, column = codes.partition(";")
        if not (row.isdecimal() and column.isdecimal()):
            raise NotUnderstood
        y, x = int(row) - 1, int(column) - 1
        if not (0 <= y < self.size[1] and 0 <= x < self.size[0]):
            raise NotUnderstood
        return y, x

    def _put(self, rows: dict[int, Row], y: int, x: int, columns: Sequence[str], style: Style) -> int:
        """Put text into a row; the column after it."""
        end = x + len(columns)
        if not 0 <= x < end <= self.size[0]:
            raise NotUnderstood  # no place, or over the edge
        before = self._rows[y]
        if y not in rows:
            rows[y] = Row(before.texts.copy(), before.styles.copy())
        texts, styles = rows[y]
        for at, other in ((x, x - 1), (end, end)):
            if texts[at : at + 1] == [""]:
                # Half of a wide character is written over; what is left of the other half is the terminal's choice.
                if (texts[other], styles[other]) != (before.texts[other], before.styles[other]):
                    raise NotUnderstood  # of one that will never be written
                texts[other] = None
        texts[x:end] = columns
        bare = _bare(style)
        styles[x:end] = [bare if text == " " else style for text in columns]
        return end

    # --- writing ------------------------------------------------------------------------------------------

    def _write(self, rows: dict[int, Row], cursor: tuple[int, int]) -> str:
        """The text that makes the terminal show the rows and put its cursor there."""
        out = ["\x1b[m"] if self._cursor == NOWHERE else []
        pen, at = PLAIN, NOWHERE
        for y in sorted(rows):
            if columns := _changed(self._rows[y], rows[y]):
                is_whole = len(columns) == self.size[0] and _narrow.issuperset(rows[y].texts)
                way = _whole_row(rows[y], y, pen) if is_whole else _row_written(rows[y], y, columns, at, pen)
                # Not where a wide character is: half of one is not written alone.
                if way.changes > FEW_CHANGES and "" not in rows[y].texts:
                    other = _row_written(rows[y], y, _by_style(rows[y], columns, pen), at, pen)
                    way = min(way, other, key=lambda each: len(each.text))
                out.append(way.text)
                at, pen = way.at, way.pen
            self._rows[y] = rows[y]
        if not out and cursor == self._cursor:
            return ""
        if pen != PLAIN:
            out.append("\x1b[m")
        out.append(_jump(*cursor))
        self._cursor = cursor
        return "".join(out)


def _changed(old: Row, new: Row) -> list[int]:
    """The columns that differ."""
    if old == new:
        return []
    cells = enumerate(zip(*old, *new, strict=True))
    return [x for x, (was, was_style, text, style) in cells if was != text or was_style != style]


def _by_style(row: Row, columns: Sequence[int], pen: Style) -> list[int]:
    """The columns in the order in which the fewest colours change: a change takes more bytes than a jump."""
    groups: dict[Style, list[int]] = {pen: []}
    last, bare, group = pen, _bare(pen), groups[pen]
    for x in columns:
        style = row.styles[x]
        if style is not last and style != (bare if row.texts[x] == " " else last):
            last, bare = style, _bare(style)
            group = groups.setdefault(style, [])
        group.append(x)
    return [x for group in groups.values() for x in group]


class _Way(NamedTuple):
    """The text that writes columns of a row, and what it leaves."""

    text: str
    at: tuple[int, int]
    pen: Style
    changes: int
    """How often it changes the style."""


def _row_written(row: Row, y: int, columns: Sequence[int], at: tuple[int, int], pen: Style) -> _Way:
    """Write columns of a row in this order, from this place and with this style."""
    texts, styles = row
    out: list[str] = []
    bare, changes = _bare(pen), 0
    for x in columns:
        text, style = texts[x], styles[x]
        if not text:  # not known, or the half of a wide one: its halves only change together
            continue
        if at != (y, x):
            out.append(_way(row, at, y, x, pen))
        if style is not pen and style != (bare if text == " " else pen):
            out.append(_change(pen, style))
            pen, bare = style, _bare(style)
            changes += 1
        out.append(text)
        written = x + (2 if texts[x + 1 : x + 2] == [""] else 1)
        # After what combines, terminals disagree about the column; at the edge, about the cursor.
        at = (y, written) if len(text) == 1 and written < len(texts) else NOWHERE
    return _Way("".join(out), at, pen, changes)


def _columns(text: str) -> Sequence[str]:
    """What a text puts into each column it takes."""
    if _narrow.issuperset(text):
        return text
    if UNPRINTABLE.search(text):
        raise NotUnderstood
    _narrow.update(character for character in set(text) - _narrow if cell_len(character) == 1)
    if _narrow.issuperset(text):
        return text
    clusters: list[str] = []
    for character in text:
        if clusters and (not cell_len(character) or clusters[-1].endswith("\u200d")):  # a joiner
            clusters[-1] += character
        else:
            clusters.append(character)
    columns: list[str] = []
    for cluster in clusters:
        width = cell_len(cluster)
        if width not in (1, 2):
            raise NotUnderstood  # also what combines with nothing
        columns += [cluster, ""][:width]
    return columns


def _whole_row(row: Row, y: int, pen: Style) -> _Way:
    """Write all of a row of narrow characters, from the left: as `_row_written` does, in a third of the time."""
    out, x, changes = [_jump(y, 0)], 0, 0
    for style, cells in groupby(row.styles):
        text = "".join(cast(list[str], row.texts[x : (x := x + len(list(cells)))]))
        if style != (_bare(pen) if not text.strip(" ") else pen):
            out.append(_change(pen, style))
            pen, changes = style, changes + 1
        out.append(text)
    return _Way("".join(out), NOWHERE, pen, changes)


@lru_cache(maxsize=4096)
def _styled(style: Style, codes: str) -> Style:
    """A style after an SGR sequence."""
    attributes, foreground, background = style
    rest = iter(codes.split(";"))
    for code in rest:
        if code in ("", "0"):
            attributes, foreground, background = PLAIN
        elif code in OFF:
            attributes |= {code}
        elif code in ("38", "48"):
            kind = next(rest, "")
            color = ";".join((code, kind, *islice(rest, COLOR_NUMBERS.get(kind, 0))))
            if color.count(";") != 1 + COLOR_NUMBERS.get(kind, -1):
                raise NotUnderstood
            foreground, background = (color, background) if code == "38" else (foreground, color)
        elif code in FOREGROUNDS or code == "39":
            foreground = "" if code == "39" else code
        elif code in BACKGROUNDS or code == "49":
            background = "" if code == "49" else code
        else:
            raise NotUnderstood
    return Style(attributes, foreground, background)


@lru_cache(maxsize=4096)
def _bare(style: Style) -> Style:
    """What of a style shows on a blank."""
    return style if style.attributes & SEEN_ON_BLANKS else Style(background=style.background)


@lru_cache(maxsize=4096)
def _change(old: Style, new: Style) -> str:
    """The shortest SGR sequence from a style to another one."""
    colors = [code for code in (new.foreground, new.background) if code]
    whole = ["", *sorted(new.attributes, key=int), *colors]  # an empty code is 0, which ends everything
    ended = sorted({OFF[code] for code in old.attributes - new.attributes})
    begun = [code for code in new.attributes if code not in old.attributes or OFF[code] in ended]
    parts = [*ended, *sorted(begun, key=int)]
    if new.foreground != old.foreground:
        parts.append(new.foreground or "39")
    if new.background != old.background:
        parts.append(new.background or "49")
    return min((f"\x1b[{';'.join(codes)}m" for codes in (parts, whole)), key=len)


def _way(row: Row, at: tuple[int, int], y: int, x: int, pen: Style) -> str:
    """The shortest text that brings the cursor to a place and changes nothing."""
    gap = x - at[1]
    if at[0] != y or gap < 0:
        return _jump(y, x)
    move = "\x1b[C" if gap == 1 else f"\x1b[{gap}C"
    if gap <= LONGEST_BRIDGE:
        cells = zip(row.texts[at[1] : x], row.styles[at[1] : x], strict=True)
        bare = _bare(pen)
        between = [
            text for text, style in cells if text is not None and style == (bare if text == " " else pen)
        ]
        if len(between) == gap and len("".join(between).encode()) <= len(move):
            return "".join(between)
    return move


def _jump(y: int, x: int) -> str:
    if x == 0:
        return "\x1b[H" if y == 0 else f"\x1b[{y + 1}H"
    return f"\x1b[{y + 1};{x + 1}H"
