"""A million mutated inputs: every decoder, the wire and what is shown of a log; no crash, no hang, no control byte.

Run: python -m benchmarks.fuzz [INPUTS]

The short run of it is in the tests (tests/test_fuzz.py, test_wire.py, test_receiver.py), which also has the
mutations. Prints how many inputs a second, the slowest one, and each input that did harm.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from cbmon.endpoint import (
    Answer,
    Ask,
    Attach,
    Dropped,
    Goodbye,
    Lines,
    NoWire,
    decode_from_trainer,
    decode_from_watcher,
    encode_frame,
)
from cbmon.formats.sniff import Format, decoder
from cbmon.receiver import Refusal, decode_epoch
from cbmon.run import Run, fold
from cbmon.sources import Log
from tests.test_fuzz import LIVE, RECORD, SEEDS, all_that_is_shown, is_safe, mutated

SLOW_S = 1.0
"""An input of some hundred bytes that takes longer hangs."""
FRAMES = b"".join(
    [
        encode_frame(Attach(run_id="a", who="ana@lab:7")),
        encode_frame(Ask(id=1, what="lr", value=3e-4)),
        encode_frame(Ask(id=2, what="save", path="/tmp/a.keras")),
        encode_frame(Answer(id=1, done=True, words="set", old=0.1, new=3e-4)),
        encode_frame(Dropped(progress=3)),
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
    for text in all_that_is_shown(Log(Path("run.csv"), "run", format), run):
        assert is_safe(text), f"a control in {text!r}"


def speak(decode: Callable[[bytes], object], data: bytes) -> None:
    """Take what a peer sends."""
    with suppress(NoWire):
        for line in Lines(1 << 20).feed(data):
            decode(line)


def receive(kind: str, body: bytes) -> None:
    """Take what RemoteMonitor posts."""
    with suppress(Refusal):
        fold(Run(), decode_epoch(body, kind, 1e9))


def main(inputs: int = 1_000_000) -> None:
    """Each input through one way, in turn."""
    ways: list[tuple[str, bytes, Callable[[bytes], None]]] = [
        *(
            (f"{name} as {format.value}", seed, partial(show, format))
            for name, seed in SEEDS.items()
            for format in Format
        ),
        ("wire, from a watcher", FRAMES, partial(speak, decode_from_watcher)),
        ("wire, from a trainer", FRAMES + RECORD + LIVE % 1, partial(speak, decode_from_trainer)),
        *((f"RemoteMonitor, {kind}", body, partial(receive, kind)) for kind, body in BODIES.items()),
    ]
    choices, slowest, failed = random.Random(7), (0.0, ""), 0
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
    sys.exit(bool(failed) or slowest[0] > SLOW_S)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
