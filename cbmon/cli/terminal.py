"""What the command line says, and to whom: whether a screen, colours and more than ASCII can be shown there."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from cbmon.units import printable

if TYPE_CHECKING:
    from cbmon.replay.report import Page


def complain(words: str) -> None:
    """A line of words on stderr."""
    click.echo(f"cbmon: {printable(words, limit=1000)}", err=True)


def say_lines(lines: Sequence[str], *, is_ascii: bool = False) -> None:
    """The answer for people on stdout, in its colours; in ASCII if asked for, or if nothing else can be said."""
    if is_ascii or not speaks_utf8(sys.stdout):
        from cbmon.views import ascii_only

        lines = [ascii_only(line.replace("×", "x")) for line in lines]
    click.echo("\n".join(lines), color=True)


def say_json(document: Any, *, indent: int | None = 2) -> None:
    """The answer for scripts on stdout."""
    import json

    click.echo(json.dumps(document, indent=indent, allow_nan=False))


def speaks_utf8(stream: IO[str] | None) -> bool:
    """Whether more than ASCII can be written there."""
    encoding = getattr(stream, "encoding", None) or "ascii"
    return encoding.casefold().replace("-", "") == "utf8"


def has_terminal() -> bool:
    """Whether somebody reads what we write, and types."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty())


def has_screen() -> bool:
    """Whether there is a terminal that can show more than lines."""
    return has_terminal() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def prepare_screen() -> None:
    """What makes the first picture come sooner and cost less; to be called before Textual is imported."""
    import gc
    import threading

    gc.disable()  # until the first picture, then the app has it again: 10 ms
    if "ssl" not in sys.modules and threading.active_count() == 1:  # another thread may be importing it
        sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio does without, and we: 6 ms
        try:
            import asyncio  # noqa: F401
        finally:
            del sys.modules["ssl"]
    os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")  # whole lines: a tenth of the bytes; read at import


def page_shape() -> Page:
    """How wide stdout is, and whether it takes colours and more than ASCII."""
    import shutil

    from cbmon.replay.report import WIDTH, Page

    is_terminal, columns = sys.stdout.isatty(), shutil.get_terminal_size((WIDTH, 24)).columns
    return Page(
        width=max(20, min(WIDTH, columns)),
        columns=columns,
        ascii=not speaks_utf8(sys.stdout),
        colours=is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
    )
