"""How numbers, times and foreign text are shown: the one place where 0-based epochs become 1-based.

Pure functions. Unknown is "–", never 0.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from math import floor, isfinite, log10

UNKNOWN = "–"


def printable(text: str, limit: int = 300) -> str:
    r"""Make text from outside safe for any screen, line, notification or JSON.

    Controls, bidi and zero-width signs, odd spaces and lone surrogates are shown escaped (`\x1b`), so no name,
    cell or exception can move a cursor, turn the writing or set a title; text longer than `limit` is cut with "…".
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


_DURATIONS = (
    (0.9995e-3, 1e6, "µs"),
    (0.9995, 1e3, "ms"),
    (99.5, 1.0, "s"),
    (99.5 * 60, 1 / 60, "min"),
    (48 * 3600.0, 1 / 3600, "h"),
    (float("inf"), 1 / 86400, "d"),
)
"""Below which size a duration is told in which unit."""


def display_epoch(epoch: int) -> int:
    """The epoch as people and Keras' progress bar count it: 1-based. The only place that converts."""
    return epoch + 1


def short(value: float | None) -> str:
    """A metric in 4 significant digits (3 with an exponent): .4120, 1.203, 1234, 1.2e27; None is "–"."""
    if value is None or not isfinite(value):
        return UNKNOWN if value is None else str(float(value))
    size = abs(value)
    if not size:
        return "0"
    if not 0.001 <= size < 999_999.5:
        return exponent(value, 3)
    size = abs(float(f"{value:.4g}"))  # rounded first: .99996 is 1.000, not 1.0000
    return bare(f"{value:.{max(0, 3 - floor(log10(size)))}f}")


def short_lr(value: float | None) -> str:
    """A learning rate in 3 significant digits without trailing zeros: 1e-3, 2.5e-4, 0.01, 1; None is "–"."""
    if value is None or not isfinite(value):
        return short(value)
    return f"{value:.3g}" if not value or 0.00999 < abs(value) < 999.5 else exponent(value, 3)


def exponent(value: float, digits: int) -> str:
    """A finite number as `1.2e27`, in at most so many significant digits."""
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(power)}"


def bare(text: str) -> str:
    """`0.41` without the zero."""
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def duration(seconds: float | None) -> str:
    """A duration in its natural unit, 2 to 3 digits: 340 µs, 4.2 ms, 12 s, 3.5 min, 7.5 h, 2.1 d; None is "–"."""
    if seconds is None or not isfinite(seconds):
        return UNKNOWN
    if not seconds:
        return "0 s"
    scale, unit = next((scale, unit) for limit, scale, unit in _DURATIONS if abs(seconds) < limit)
    size = seconds * scale
    if abs(size) >= 99_999.5:
        return f"{exponent(size, 3)} {unit}"
    return f"{size:.0f} {unit}" if abs(size) >= 9.95 else f"{size:.1f} {unit}"


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`, `1,234 epochs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def clock(time_s: float | None, now_s: float | None = None) -> str:
    """A time in the local zone: `03:12`, on another day than `now_s` `22 Nov 03:12`, in another year the date."""
    if time_s is None:
        return UNKNOWN
    try:
        moment = datetime.fromtimestamp(time_s)
        now = None if now_s is None else datetime.fromtimestamp(now_s)
    except (OverflowError, ValueError, OSError):
        return UNKNOWN
    if now is None or now.date() == moment.date():
        return moment.strftime("%H:%M")
    if now.year == moment.year:
        return f"{moment.day} {moment.strftime('%b %H:%M')}"
    return moment.strftime("%Y-%m-%d")


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
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
