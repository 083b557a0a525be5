"""`make pictures`: README's pictures, drawn from the sample logs by the application itself.

Each is Textual's own SVG of a real screen, without the web font it links. `python -m tests.pictures FOLDER NAME`
draws one of them elsewhere.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cbmon.sources import Follower
from cbmon.tui.app import WatchApp

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample_logs"
PICTURES = ROOT / "docs" / "pictures"
_RECORDS = "".join(path.read_text() for path in SAMPLES.glob("*/*.jsonl"))
CLOCK = 60 + max(map(float, re.findall(r'"time":([0-9.]+)', _RECORDS)))
"""The frozen time of every picture: a minute after the last sample was made, so that their own times fit."""
SMALL, LARGE = (80, 24), (160, 45)


@dataclass(frozen=True)
class Picture:
    """One screen: the runs in it, its size, and the keys pressed before."""

    runs: tuple[str, ...]
    size: tuple[int, int]
    keys: tuple[str, ...] = ()


PICTURES_OF = {
    "watch-80x24": Picture(("early-stop", "healthy", "nan", "overfitting"), SMALL, ("j",)),
    "watch-160x45": Picture(
        ("plateau", "overfitting", "early-stop", "healthy", "killed", "nan", "resumed"), LARGE, ("j",)
    ),
    "nan": Picture(("nan", "healthy"), SMALL),
    "learning-rate": Picture(("plateau",), SMALL),
    "resumed": Picture(("resumed",), SMALL),
    "empty": Picture((), SMALL),
    "alerts": Picture(("nan", "plateau"), SMALL, ("e",)),
    "help": Picture(("healthy",), SMALL, ("question_mark",)),
}


def lay_out(picture: Picture, folder: Path, now: float) -> None:
    """Link the samples into a folder and set their times, so that the picture does not depend on the day."""
    for age, name in enumerate(picture.runs):
        source = next(path for path in sorted((SAMPLES / name).iterdir()))
        target = folder / name / source.name
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
        os.utime(target, (now - 60 * age, now - 60 * age))


async def draw(picture: Picture, now: Callable[[], float] = lambda: CLOCK) -> str:
    """The SVG of a picture."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "logs"
        folder.mkdir()
        lay_out(picture, folder, now())
        here = Path.cwd()
        os.chdir(base)
        try:
            app = WatchApp(Follower(["logs"], poll=True, now=now))
            app.title = "cbmon watch logs"
            async with app.run_test(size=picture.size) as pilot:
                await app.first_read.wait()
                await pilot.press(*picture.keys)
                await pilot.pause()
                svg = app.export_screenshot()
        finally:
            os.chdir(here)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(
        r'<text ([^>]*?)x="([\d.]+)" ([^>]*?)textLength="([\d.]+)"([^>]*)>([^<]*)</text>', _place, svg
    )


def _place(text: re.Match[str]) -> str:
    """Give every character of a curve its own place: fonts disagree about the width of braille."""
    before, x, between, length, after, content = text.groups()
    glyphs = html.unescape(content)
    if not any("\u2800" <= glyph <= "\u28ff" for glyph in glyphs):
        return text[0].replace("<text ", '<text xml:space="preserve" ')
    step = float(length) / len(glyphs)
    return "".join(
        f'<text {before}x="{float(x) + index * step:.1f}" {between}{after}>{glyph}</text>'
        for index, glyph in enumerate(glyphs)
        if glyph not in "\xa0\u2800"
    )


def main(folder: Path = PICTURES, *names: str) -> None:
    """Draw all pictures, or those named."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TZ"] = "UTC"
    for name in names or PICTURES_OF:
        (folder / f"{name}.svg").write_text(asyncio.run(draw(PICTURES_OF[name])))
        print(folder / f"{name}.svg")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]), *sys.argv[2:])
