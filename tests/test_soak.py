"""The soak: what it calls flat, and a short one of a real watch; pages that were closed leave nothing."""

from __future__ import annotations

import argparse
import gc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import soak
from benchmarks.trainers import Done
from cbmon.sources import Follower
from cbmon.tui.app import WatchApp

MIB = 1024
HOURS = 5


class _Day:
    def __init__(self, growth: float, trainer: float) -> None:
        self.samples = [
            soak.Sample(hour, 50 * MIB + int(growth * hour), 60, 10, 0, {7: 26 * MIB + int(trainer * hour)})
            for hour in range(HOURS + 1)
        ]


def _found(
    growth: float = 300.0, data: float = 250.0, trainer: float = 20.0, fresh: int = 50 * MIB, **rest: Any
) -> soak.Found:
    day: Any = _Day(growth, trainer)
    begun = soak.Sample(0, 40 * MIB, 16, 8, 0, {})
    return soak.Found(
        day=day,
        weights=[soak.Weight(50 * hour, 1000 * hour, 100_000 * hour) for hour in range(1, HOURS + 1)],
        done=[Done()], begun=begun, rest=replace(begun, rss=52 * MIB, **rest), fresh=fresh,
        fresh_first=fresh - int(data * (HOURS - 1)), left=[], words=[], cpu=1.0, took_s=10.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (_found(), ""),
        (_found(fds=19, threads=10), ""),
        (_found(growth=2000.0), "KiB an hour more than fresh watches"),
        (_found(growth=2000.0, data=1950.0), ""),
        (_found(fresh=40 * MIB), "more than a fresh watch"),
        (_found(fds=20), "4 fds more"),
        (_found(threads=11), "3 threads more"),
        (_found(children=1), "1 children"),
        (_found(trainer=500.0), "a trainer grows"),
        (replace(_found(), left=["run/cbmon/x.sock"]), "left: run/cbmon/x.sock"),
    ],
)
def test_what_is_not_flat_is_named(found: soak.Found, fault: str) -> None:
    faults = soak.judge(found)
    assert len(faults) == bool(fault)
    assert fault in "".join(faults)


def test_the_weight_of_logs_grows_with_their_rows(tmp_path: Path) -> None:
    log = tmp_path / "run" / "training.csv"
    log.parent.mkdir()
    rows = [f"{epoch},{1 / (epoch + 1)}\n" for epoch in range(5000)]
    log.write_text("epoch,loss\n" + "".join(rows))
    whole, half = log.stat().st_size, len("epoch,loss\n" + "".join(rows[:2500]))
    first, second, third = soak.weigh([{log: half}, {log: whole}, {log: half}])
    assert [first.runs, second.runs, third.runs] == [1, 1, 1]
    assert first.numbers >= 2 * 2500
    assert second.numbers == 2 * first.numbers
    assert second.bytes - first.bytes > 2500 * 8
    assert third.numbers == first.numbers  # one that was rewritten is read anew


def test_a_short_soak_of_a_real_watch_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "TOUR", ("e", "\x1b", "?", "\x1b", "j", "/", "a", "\r"))
    monkeypatch.setattr(soak, "LOAD_S", 1.5)
    options = argparse.Namespace(minutes=0.1, hours=2.0, runs=10, hz=20.0, rest=7.0)
    with soak.places() as (base, folder):
        found = soak.watched(base, folder, options)
    rest = found.rest
    assert sum(each.epochs for each in found.done) > 50
    assert sum(each.looks for each in found.done) > 5
    assert len(found.weights) == 2
    assert found.weights[-1].numbers > 100
    assert found.day.keys > 5
    assert max(each.fds for each in found.day.samples) > found.begun.fds + 3  # there were wires
    assert rest.fds <= found.begun.fds + soak.ONCE["fds"]
    assert rest.threads <= found.begun.threads + soak.ONCE["threads"]
    assert (rest.children, found.left, found.words) == (0, [], [])


@pytest.mark.parametrize(
    "keys", [("question_mark", "escape"), ("slash", "a", "enter"), ("w", "escape"), ("ctrl+p", "escape")]
)
async def test_a_page_that_was_closed_leaves_nothing(tmp_path: Path, keys: tuple[str, ...]) -> None:
    log = tmp_path / "a" / "training.csv"
    log.parent.mkdir()
    log.write_text("epoch,loss\n" + "".join(f"{epoch},{1 / (epoch + 1)}\n" for epoch in range(20)))
    app = WatchApp(Follower([str(tmp_path)]))
    counts = []
    async with app.run_test(size=(100, 30)) as pilot:
        await app.first_read.wait()
        for _ in range(4):
            await pilot.press(*keys)
            await pilot.pause(0.1)
            gc.collect()
            counts.append(Counter(type(each).__name__ for each in gc.get_objects()))
    for name in ("StylesCache", "Strip", "FilterPrompt", "Timer"):
        assert counts[3][name] <= counts[1][name], name
