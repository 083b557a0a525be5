"""`make pictures`: README's pictures, drawn from the sample logs by the application itself.

Each is Textual's own SVG of a real screen, without the web font it links. `python -m tests.pictures FOLDER NAME`
draws one of them elsewhere.
"""

from __future__ import annotations

import asyncio
import html
import json
import math
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec import to_builtins

from cbmon.endpoint import this_process
from cbmon.events import ControlApplied, Progress
from cbmon.profiles import NEWEST
from cbmon.replay.calls import Call, parse_calls
from cbmon.replay.shadow import Shadow
from cbmon.sources import Follower, find, read_whole
from cbmon.tui.app import WatchApp
from cbmon.tui.playback import play
from cbmon.wire import Wires
from tests.fake_trainer import FakeTrainer, append, hello, until

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample_logs"
PICTURES = ROOT / "docs" / "pictures"
_RECORDS = "".join(path.read_text() for path in SAMPLES.glob("*/*.jsonl"))
CLOCK = 60 + max(map(float, re.findall(r'"time":([0-9.]+)', _RECORDS)))
"""The frozen time of every picture: a minute after the last sample was made, so that their own times fit."""
SMALL, LARGE = (80, 24), (160, 45)
EPOCH_S = 62.0
"""What an epoch of the live run takes."""


@dataclass(frozen=True)
class Picture:
    """One screen: the runs in it, its size, and the keys pressed before."""

    runs: tuple[str, ...]
    size: tuple[int, int]
    keys: tuple[str, ...] = ()
    copies: int = 0
    """So many made-up runs instead: for the picture of a crowd."""
    policies: tuple[str, ...] = ()
    plays_to: int | None = None
    """A recording that is played instead, and stands after so many epochs."""
    is_live: bool = False
    """A run under way instead, with its wire: the healthy one in slow motion."""


PICTURES_OF = {
    "watch-80x24": Picture(("early-stop", "healthy", "nan", "overfitting"), SMALL, ("j",)),
    "watch-160x45": Picture(
        ("plateau", "overfitting", "early-stop", "healthy", "killed", "nan", "resumed"), LARGE, ("j",)
    ),
    "nan": Picture(("nan", "healthy"), SMALL),
    "learning-rate": Picture(("plateau",), SMALL, ("left_square_bracket",) * 3),
    "resumed": Picture(("continued", "resumed"), SMALL, ("j",)),
    "compare": Picture(
        ("plateau", "overfitting", "early-stop", "healthy"),
        LARGE,
        ("space", "j", "space", "j", "space", "j", "space"),
    ),
    "policy": Picture(
        ("overfitting", "healthy"), SMALL, policies=("EarlyStopping(patience=5, restore_best_weights=True)",)
    ),
    "what-if": Picture(("plateau",), SMALL, ("w", "3")),
    "play": Picture(("overfitting",), SMALL, policies=("EarlyStopping(patience=5)",), plays_to=40),
    "live": Picture((), SMALL, ("L", *"x0.5"), is_live=True),
    "table": Picture(("plateau",), SMALL, ("left", "t")),
    "empty": Picture((), SMALL),
    "thousand": Picture((), LARGE, ("o", "o", "home"), copies=1000),
    "alerts": Picture(("nan", "plateau"), SMALL, ("e",)),
    "help": Picture(("healthy",), SMALL, ("question_mark",)),
}


def made_up(number: int) -> bytes:
    """A run of a sweep that nobody trained: curves that fall as the number says."""
    noise = random.Random(number)
    floor, pace, epochs = noise.uniform(0.2, 0.6), noise.uniform(5, 40), noise.randint(20, 200)
    rows = []
    for epoch in range(epochs):
        loss = floor + math.exp(-epoch / pace)
        rows.append(f"{epoch},{loss:.4f},{loss + 0.05 + noise.gauss(0, 0.01):.4f},1e-3")
    return "\n".join(("epoch,loss,val_loss,lr", *rows, "")).encode()


def lay_out(picture: Picture, folder: Path, now: float) -> None:
    """Copy the samples into a folder and set their times, so that the picture does not depend on the day."""
    for number in range(picture.copies):
        target = folder / f"sweep-{number:04}" / "training.csv"
        target.parent.mkdir()
        target.write_bytes(made_up(number))
        os.utime(target, (now - number, now - number))
    for age, name in enumerate(picture.runs):
        source = next(path for path in sorted((SAMPLES / name).iterdir()))
        target = folder / name / source.name
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
        os.utime(target, (now - 60 * age, now - 60 * age))


def begin_live(folder: Path, now: float) -> FakeTrainer:
    """The healthy run at a minute an epoch, within its 26th; somebody has halved its learning rate before."""
    (source,) = (SAMPLES / "healthy").iterdir()
    began, process = now - 25 * EPOCH_S - 32, this_process()
    events = [json.loads(line) for line in source.read_text().splitlines()[:26]]
    for ended, event in enumerate(events):
        event["time"] = began + ended * EPOCH_S
        if ended:
            event["seconds"] = {"epoch": [EPOCH_S], "validation": [4.0], "step": [0.15]}
            event["learning_rate"] = [1e-3 if ended < 18 else 5e-4]
    events[0] |= {"steps": 400, "process": to_builtins(process), "run_id": "live"}
    record = folder / "digits" / "training.jsonl"
    record.parent.mkdir()
    record.write_text("".join(json.dumps(event) + "\n" for event in events))
    asked = ControlApplied(
        time=began + 17.2 * EPOCH_S, epoch=17, command="lr", old=1e-3, new=5e-4, by="ana@gpu-box:7"
    )
    append(record, asked)
    look = Progress(time=now, epoch=25, step=214, steps=400, steps_per_second=6.7, step_seconds=0.15,
                    learning_rate=5e-4, begun=now - 32, metrics={"accuracy": 0.8391, "loss": 0.4822})  # fmt: skip
    return FakeTrainer(record, greeting=hello("live", began, process=process), first=(look,))


def _app(picture: Picture, calls: list[Call], now: Callable[[], float]) -> WatchApp:
    if picture.plays_to is None:
        wires = Wires() if picture.is_live else None
        app = WatchApp(
            Follower(["logs"], poll=True, now=now, wires=wires),
            policies=lambda: [Shadow(call, NEWEST) for call in calls],
        )
        app.wires = wires
        return app
    (log,) = find(["logs"]).logs
    app = play(log, list(read_whole(log, now())), calls, NEWEST)
    app._player.pause_at(picture.plays_to)
    return app


async def draw(picture: Picture, now: Callable[[], float] = lambda: CLOCK) -> str:
    """The SVG of a picture."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "logs"
        folder.mkdir()
        lay_out(picture, folder, now())
        here = Path.cwd()
        os.chdir(base)
        os.environ["XDG_RUNTIME_DIR"] = base
        trainer = begin_live(folder, now()) if picture.is_live else None
        try:
            calls = [call for text in picture.policies for call in parse_calls(text, NEWEST)]
            app = _app(picture, calls, now)
            app.title = "cbmon watch logs" if picture.plays_to is None else "cbmon replay --play"
            async with app.run_test(size=picture.size) as pilot:
                await app.first_read.wait()
                if trainer is not None:
                    await asyncio.to_thread(until, lambda: trainer.attached)
                    await pilot.pause(1.0)
                await pilot.press(*picture.keys)
                await pilot.pause()
                svg = app.export_screenshot()
        finally:
            os.chdir(here)
            if trainer is not None:
                trainer.end()
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
