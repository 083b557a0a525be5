"""How numbers, times and foreign text are shown: the one place where 0-based epochs become 1-based.

Pure functions. Unknown is "–", never 0.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

UNKNOWN = "–"

_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""C0, C1, zero-width and bidi controls, line and paragraph separators, surrogates, tags."""


def printable(text: str, limit: int = 300) -> str:
    """Make text from outside safe for any screen, line, notification or JSON.

    Controls are shown escaped (`\\x1b`), so no name, cell or exception can move a cursor or set a title;
    text longer than `limit` is cut with "…".
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def display_epoch(epoch: int) -> int:
    """The epoch as people and Keras' progress bar count it: 1-based. The only place that converts."""
    return epoch + 1


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`, `1,234 epochs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def clock(time_s: float | None, now_s: float | None = None) -> str:
    """A time of day in the local zone, `03:12`; with the date in front if that is not the day of `now_s`."""
    if time_s is None:
        return UNKNOWN
    try:
        moment = datetime.fromtimestamp(time_s)
        today = None if now_s is None else datetime.fromtimestamp(now_s).date()
    except (OverflowError, ValueError, OSError):
        return UNKNOWN
    return moment.strftime("%H:%M" if today in (None, moment.date()) else "%Y-%m-%d %H:%M")


def cells(text: str) -> int:
    """Columns that printable text takes on a terminal: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_char_cells(char) for char in text)


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Text in exactly `width` columns: padded, or cut with "…"."""
    if cells(text) > width:
        kept, room = "", width - 1
        for char in text:
            room -= _char_cells(char)
            if room < 0:
                break
            kept += char
        text = kept + "…" if width > 0 else ""
    room = width - cells(text)
    return " " * room + text if right else text + " " * room


def _char_cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
