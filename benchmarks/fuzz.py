"""A million mutated inputs: every decoder, the wire and what is shown of a log; no crash, no hang, no control byte.

Run: python -m benchmarks.fuzz [INPUTS [SEED]]

The short run of it is in the tests (tests/test_fuzz.py, test_wire.py, test_receiver.py), which also has the
mutations. One input in fifty more goes over a real socket to a real Monitor, which has to serve the next watcher.
Prints how many inputs a second, the slowest one, and each input that did harm.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from functools import partial
from io import StringIO
from pathlib import Path

from benchmarks.trainers import CallbackList, Model
from cbmon.callbacks import Monitor
from cbmon.endpoint import (
    FRAME_MAX,
    Answer,
    Ask,
    Attach,
    Dropped,
    Goodbye,
    Hello,
    Lines,
    NoWire,
    connect,
    decode_from_trainer,
    decode_from_watcher,
    encode_frame,
    this_process,
)
from cbmon.formats.sniff import Format, decoder
from cbmon.receiver import Refusal, decode_epoch
from cbmon.run import Run, fold
from cbmon.sources import Log
from cbmon.wire import Line, Wires, _Link
from tests.test_fuzz import LIVE, RECORD, SEEDS, all_that_is_shown, is_safe, mutated

SLOW_S = 1.0
"""An input of some hundred bytes that takes longer hangs."""
FROM_WATCHER = b"".join(
    [
        encode_frame(Attach(run_id="a", who="ana@lab:7")),
        encode_frame(Ask(id=1, what="lr", value=3e-4)),
        encode_frame(Ask(id=2, what="stop")),
    ]
)
SAVE = encode_frame(Ask(id=3, what="save", path="/tmp/a.keras"))
"""Decoded only: a mutated path would be written to."""
FROM_TRAINER = b"".join(
    [
        encode_frame(Hello(run_id="a", name="run", process=this_process(), control=True, replays=True)),
        RECORD,
        LIVE % 1,
        encode_frame(Answer(id=1, done=True, words="set", old=0.1, new=3e-4)),
        encode_frame(Dropped(progress=3, events=2)),
        LIVE % 2,
        encode_frame(Goodbye(words="the fit has ended")),
    ]
)
BODIES = {
    "application/x-www-form-urlencoded": b"data=%7B%22epoch%22%3A+0%2C+%22loss%22%3A+0.5%2C+%22lr%22%3A+NaN%7D",
    "application/json": b'{"epoch": 3, "loss": 0.5, "val_loss": [0.25], "lr": 1e-3}',
}
"""By content type."""


def show(format: Format, data: bytes) -> None:
    """Read a log and show all of it."""
    reader, run = decoder(format), Run()
    for event in [
        *reader.feed(data[: len(data) // 2]),
        *reader.feed(data[len(data) // 2 :]),
        *reader.finish(),
    ]:
        fold(run, event)
    look_at(run, format)


def look_at(run: Run, format: Format) -> None:
    """Show all of a run."""
    for text in all_that_is_shown(Log(Path("run.csv"), "run", format), run):
        assert is_safe(text), f"a control in {text!r}"


def follow(data: bytes) -> None:
    """Take what a trainer sends as a watcher does, and show what it tells."""
    wires, run = Wires(), Run()
    link = wires._links[Path("run")] = _Link(Path("run"), at=Path("run.sock"))
    with suppress(NoWire):
        for line in link.lines.feed(data):
            wires._got(link, line)
    for event in wires.take(link.key).events:
        fold(run, event)
    look_at(run, Format.RECORD)


def speak(decode: Callable[[bytes], object], data: bytes) -> None:
    """Take what a peer sends."""
    with suppress(NoWire):
        for line in Lines(FRAME_MAX).feed(data):
            decode(line)


def receive(kind: str, body: bytes) -> None:
    """Take what RemoteMonitor posts."""
    with suppress(Refusal):
        fold(Run(), decode_epoch(body, kind, 1e9))


def knock(inputs: int, seed: int) -> None:
    """Send mutated frames to a run that trains; each hundredth watcher is a good one, and has to hear hello."""
    choices = random.Random(seed)
    with redirect_stderr(StringIO()), tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        path, monitor = Path(folder) / "run.sock", Monitor(f"unix://{folder}/run.sock")
        fit = CallbackList([monitor], Model(), 10, 10)
        fit.on_train_begin()
        monitor.on_epoch_begin(0)
        began, sent = time.perf_counter(), 0
        while not path.exists() and time.perf_counter() < began + SLOW_S:
            time.sleep(0.01)
        for number in range(inputs):
            with suppress(OSError, NoWire), connect(path, timeout_s=SLOW_S) as end:
                end.sendall(mutated(choices, FROM_WATCHER))
                sent += 1
            if number % 10 == 9:
                time.sleep(0.005)  # the door holds some
            monitor.on_train_batch_begin(number)
            monitor.on_train_batch_end(number, {"loss": 0.5})
            if number % 100 == 99:
                time.sleep(0.05)  # those at the door go in first
                Line(path, SLOW_S).close()  # NoWire if it is not served
        took = time.perf_counter() - began
        monitor.on_train_end()
        del fit
    print(
        f"{sent:,} of {inputs:,} more came in over a socket, in {took:.0f} s; it trained on and served the next"
    )


def main(inputs: int = 1_000_000, seed: int = 7) -> None:
    """Each input through one way, in turn."""
    ways: list[tuple[str, bytes, Callable[[bytes], None]]] = [
        *(
            (f"{name} as {format.value}", seed, partial(show, format))
            for name, seed in SEEDS.items()
            for format in Format
        ),
        ("wire, from a watcher", FROM_WATCHER + SAVE, partial(speak, decode_from_watcher)),
        ("wire, from a trainer", FROM_TRAINER, partial(speak, decode_from_trainer)),
        ("wire, as a watcher takes it", FROM_TRAINER, follow),
        *((f"RemoteMonitor, {kind}", body, partial(receive, kind)) for kind, body in BODIES.items()),
    ]
    choices, slowest, failed = random.Random(seed), (0.0, ""), 0
    began = time.perf_counter()
    for number in range(inputs):
        name, seed, way = ways[number % len(ways)]
        data = mutated(choices, seed)
        start = time.perf_counter()
        try:
            way(data)
        except Exception as error:  # noqa: BLE001  # what the run is about
            failed += 1
            print(f"{name}: {type(error).__name__}: {error}\n  {data!r}")
        took = time.perf_counter() - start
        slowest = max(slowest, (took, name))
    seconds = time.perf_counter() - began
    print(f"{inputs:,} inputs in {seconds:.0f} s, {inputs / seconds:,.0f} a second, {failed} did harm")
    print(f"slowest: {slowest[0] * 1000:.0f} ms ({slowest[1]}), a hang would be {SLOW_S * 1000:.0f} ms")
    knock(inputs // 50, seed)
    sys.exit(bool(failed) or slowest[0] > SLOW_S)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
