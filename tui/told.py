"""What is told below the chart and on the page of alerts: lines cut into rows, and what was answered. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from cbmon.chart import Role, Row
from cbmon.rules import Severity
from cbmon.units import cells, clock

Line: TypeAlias = tuple[Severity, str]

ANSWERS_KEPT = 5
"""Of each run, to be read later; what was done stands in its record too."""
NOTICE_ROWS = 3
"""Rows below the chart that the answer to a key may take: more, and the chart would jump."""
SIGN_COLUMNS = 3
"""Before a line's text: its sign, with a blank at either side."""
WRAP_MIN = 20
"""Columns below which a line is cut and not wrapped."""


class Answered(msgspec.Struct, frozen=True):
    """What a training answered."""

    at: float | None
    """Unix seconds; None if nobody knows."""
    is_done: bool
    words: str

    @property
    def line(self) -> Line:
        """It as a line of the page."""
        when = "" if self.at is None else f"{clock(self.at)} "
        return severity(is_good=self.is_done), f"{when}answered: {self.words}"


class Told(msgspec.Struct, frozen=True):
    """Lines that each have room in a row, and which of them go on with what the line before them says."""

    lines: Sequence[Line]
    going_on: frozenset[int] = frozenset()

    def unsigned(self, rows: Sequence[Row], first: int = 0) -> tuple[Row, ...]:
        """The rows drawn of the lines from the `first` one on, without the signs of those that only go on."""
        is_cut = len(rows) < len(self.lines) - first
        last = len(rows) - 1 if is_cut and len(rows) > 1 else len(rows)  # how many more there are is no line
        return tuple(
            ((" " * SIGN_COLUMNS, Role.TEXT), *row[1:])
            if first + place in self.going_on and place < last
            else row
            for place, row in enumerate(rows)
        )


def severity(*, is_good: bool) -> Severity:
    """Of what came of a key."""
    return Severity.INFO if is_good else Severity.WARNING


def tell(lines: Sequence[Line], width: int, most: int | None = None) -> Told:
    """The lines for so many columns, each over at most so many rows."""
    cut: list[Line] = []
    going_on: set[int] = set()
    for kind, text in lines:
        parts = wrap(text, width - SIGN_COLUMNS, most)
        going_on.update(range(len(cut) + 1, len(cut) + len(parts)))
        cut += [(kind, part) for part in parts]
    return Told(cut, frozenset(going_on))


def wrap(text: str, width: int, most: int | None = None) -> list[str]:
    """The text in parts of at most so many columns, between words where it can be; the rest is in the last one."""
    if width < WRAP_MIN or most == 1:
        return [text]
    parts: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and cells(line) + 1 + cells(word) <= width:
            line += f" {word}"
            continue
        if line:
            parts.append(line)
        line = word
        while cells(line) > width:
            start = _start(line, width)
            parts.append(start)
            line = line[len(start) :]
    parts.append(line)
    if most is not None and len(parts) > most:
        parts[most - 1 :] = [" ".join(parts[most - 1 :])]
    return parts


def _start(word: str, width: int) -> str:
    """What of a long word has room; a path is cut behind a slash if there is one in its second half."""
    kept = len(word)
    while kept > 1 and cells(word[:kept]) > width:
        kept -= 1
    slash = word.rfind("/", kept // 2, kept)
    return word[: slash + 1 if slash >= 0 else kept]
