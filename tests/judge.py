"""The judge of what a terminal shows: pyte, and what it does not know of colours, wide text and other screens."""

import re

import pyte
from wcwidth import wcwidth

UNKNOWN = re.compile(r"\x1b\[[<=>?][0-9;]*\$?[a-zA-Z]")
"""Modes and queries; pyte would print some of them."""
KEPT = re.compile(r"\x1b\[\?(?:7|25)[hl]")
HALF = re.compile(r"(.*?)((?:\x1b[^a-zA-Z\x07\\]*)?)", re.DOTALL)


class Judge(pyte.Screen):
    """A screen to compare with others.

    Dim, which pyte does not know, is kept where it keeps blinking; bright backgrounds as their numbers of 256.
    A wide character of which half is overwritten goes as a whole.
    """

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self.reset_mode(7, private=True)  # as Textual has it: nothing wraps
        self._stream = pyte.Stream(self)
        self._half = ""

    def write(self, text: str) -> None:
        whole, self._half = HALF.fullmatch(self._half + text).groups()  # type: ignore[union-attr]
        self._stream.feed(UNKNOWN.sub(_known, whole))

    def select_graphic_rendition(self, *attrs: int) -> None:
        known: list[int] = []
        rest = iter(attrs)
        for code in rest:
            if code in (38, 48):
                kind = next(rest)
                known += [code, kind, *(next(rest) for _ in range(1 if kind == 5 else 3))]
            elif 100 <= code < 108:
                known += [48, 5, code - 92]
            else:
                known += {2: [5], 22: [22, 25], 5: [], 6: [], 25: []}.get(code, [code])
        if known or not attrs:
            super().select_graphic_rendition(*known)

    def draw(self, data: str) -> None:
        """Character by character: what is left of a half overwritten wide one is a blank, as terminals have it."""
        for character in data:
            line, x, width = self.buffer[self.cursor.y], self.cursor.x, wcwidth(character)
            if width == 0 and 1 < x <= self.columns and not line[x - 1].data:
                line[x - 2] = line[x - 2]._replace(data=line[x - 2].data + character)
                continue
            start = x - width if x == self.columns else x
            for edge, other in ((start, start - 1), (start + width, start + width)):
                if 0 < edge < self.columns and not line[edge].data and width:
                    line[other] = line[other]._replace(data=" ")
            super().draw(character)

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        super().resize(lines, columns)
        self.set_margins()
        self.cursor.y, self.cursor.x = (
            min(self.cursor.y, self.lines - 1),
            min(self.cursor.x, self.columns - 1),
        )

    @property
    def cells(self) -> list[list[pyte.screens.Char]]:
        """What is seen: the colour and the weight of a letter show on no blank."""
        return [[_seen(self.buffer[y][x]) for x in range(self.columns)] for y in range(self.lines)]

    @property
    def state(self) -> object:
        """All that a later text could show differently."""
        return self.cells, self.cursor.y, self.cursor.x, self.cursor.attrs


def _seen(cell: pyte.screens.Char) -> pyte.screens.Char:
    if cell.data != " " or cell.underscore or cell.strikethrough or cell.reverse:
        return cell
    return cell._replace(fg="default", bold=False, italics=False, blink=False)


def _known(match: re.Match[str]) -> str:
    if match[0] == "\x1b[?1049h":
        return "\x1b[2J"  # the other screen, empty
    return match[0] if KEPT.fullmatch(match[0]) else ""
