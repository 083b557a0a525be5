"""`watch` in lines: one sentence a change, nothing twice, nothing that moves a cursor."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cbmon.events import EpochsEnded, Event, Malformed, RecordReplaced, RunEnded, RunStarted, Tick
from cbmon.formats.sniff import Format
from cbmon.plain import Narrator, follow
from cbmon.run import Run, fold
from cbmon.sources import Follower, Log, Skipped

NOON = 1_700_049_600.0
"""2023-11-15 12:00 UTC."""


@pytest.fixture(autouse=True, scope="module")
def in_utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def told(*batches: list[Event], name: str = "run4") -> list[list[str]]:
    """What is said after each batch."""
    said: list[str] = []
    narrator, run, log = Narrator(said.append), Run(), Log(Path(name), name, Format.KERAS_CSV)
    after = []
    for batch in batches:
        for event in batch:
            fold(run, event)
        said.clear()
        narrator.take(log, run, NOON)
        after.append(list(said))
    return after


def epoch(number: int, loss: float = 1.0, rate: float | None = None) -> EpochsEnded:
    rates = None if rate is None else [rate]
    return EpochsEnded(epochs=[number - 1], metrics={"loss": [loss]}, learning_rate=rates, time=NOON)


START = RunStarted(run_id="r", epochs=9, time=NOON)
QUIET = Tick(time=NOON + 9999)
GONE = Tick(time=NOON, process_gone=True)
SENTENCES: dict[str, list[tuple[list[Event], list[str]]]] = {
    "each new epoch is one line": [
        ([START, epoch(1)], ["12:00 run4 epoch 1/9 loss 1.000 (best 1.000 at 1)"]),
        ([epoch(2, 0.5)], ["12:00 run4 epoch 2/9 loss .5000 (best .5000 at 2)"]),
        ([Tick(time=NOON)], []),
    ],
    "a run without an epoch is told by its first": [
        ([START], []),
        ([epoch(1)], ["12:00 run4 epoch 1/9 loss 1.000 (best 1.000 at 1)"]),
    ],
    "several new epochs at once are one line": [
        ([epoch(1)], ["12:00 run4 epoch 1 loss 1.000 (best 1.000 at 1)"]),
        ([epoch(2), epoch(3, 0.1)], ["12:00 run4 epoch 3 loss .1000 (best .1000 at 3)"]),
    ],
    "an alert is told once": [
        ([epoch(1)], ["12:00 run4 epoch 1 loss 1.000 (best 1.000 at 1)"]),
        (
            [epoch(2, math.nan)],
            ["12:00 run4 epoch 2 loss nan (best 1.000 at 1)", "12:00 run4 ERROR NaN loss at epoch 2"],
        ),
        ([epoch(3, math.nan)], ["12:00 run4 epoch 3 loss nan (best 1.000 at 1)"]),
    ],
    "old alerts are not told at the start": [
        (
            [epoch(1, rate=0.1), epoch(2, rate=0.01)],
            ["12:00 run4 epoch 2 loss 1.000 (best 1.000 at 1) lr 0.01"],
        ),
        (
            [epoch(3, rate=0.001)],
            [
                "12:00 run4 epoch 3 loss 1.000 (best 1.000 at 1) lr 1e-3",
                "12:00 run4 learning rate 0.01 → 1e-3 at epoch 3",
            ],
        ),
    ],
    "an error that a run still suffers from is told at the start": [
        (
            [epoch(1, math.inf)],
            ["12:00 run4 epoch 1 loss inf", "12:00 run4 ERROR infinite loss at epoch 1"],
        ),
    ],
    "an error of an attempt that is over is not": [
        ([epoch(2, math.inf), epoch(1)], ["12:00 run4 epoch 1 loss 1.000 (best 1.000 at 1)"]),
    ],
    "the end is told": [
        ([START, epoch(1)], ["12:00 run4 epoch 1/9 loss 1.000 (best 1.000 at 1)"]),
        ([RunEnded(how="finished", time=NOON + 60)], ["12:01 run4 finished after epoch 1"]),
    ],
    "a stop is told once, by its alert": [
        ([START, epoch(1)], ["12:00 run4 epoch 1/9 loss 1.000 (best 1.000 at 1)"]),
        (
            [RunEnded(how="stopped", by=["EarlyStopping"], time=NOON + 60)],
            ["12:01 run4 stopped by EarlyStopping after epoch 1"],
        ),
    ],
    "a stop before the start is told as a state": [
        (
            [START, epoch(1), RunEnded(how="stopped", by=["EarlyStopping"], time=NOON)],
            ["12:00 run4 epoch 1/9 loss 1.000 (best 1.000 at 1)", "12:00 run4 stopped by EarlyStopping"],
        ),
    ],
    "a crash is told once, by its alert": [
        ([START, epoch(1)], ["12:00 run4 epoch 1/9 loss 1.000 (best 1.000 at 1)"]),
        (
            [GONE],
            ["12:00 run4 ERROR crashed after epoch 1: the training process is gone and wrote no end"],
        ),
        ([GONE], []),
    ],
    "a log at rest is told, and that it goes on by its epoch": [
        ([epoch(1)], ["12:00 run4 epoch 1 loss 1.000 (best 1.000 at 1)"]),
        ([QUIET], ["12:00 run4 quiet since 12:00"]),
        ([Tick(time=NOON + 99999)], []),
        ([epoch(2), Tick(time=NOON)], ["12:00 run4 epoch 2 loss 1.000 (best 1.000 at 1)"]),
    ],
    "a Monitor run without a word is a warning": [
        ([START, epoch(1)], ["12:00 run4 epoch 1/9 loss 1.000 (best 1.000 at 1)"]),
        ([QUIET], ["12:00 run4 WARNING no word from the training process after epoch 1"]),
    ],
    "a new attempt is told from its first epoch": [
        ([epoch(2)], ["12:00 run4 epoch 2 loss 1.000 (best 1.000 at 2)"]),
        ([epoch(1)], ["12:00 run4 epoch 1 loss 1.000 (best 1.000 at 1)"]),
    ],
    "a record that begins anew is told anew": [
        ([epoch(1), epoch(2, math.nan)], ["12:00 run4 epoch 2 loss nan (best 1.000 at 1)",
                                          "12:00 run4 ERROR NaN loss at epoch 2"]),
        ([RecordReplaced(), epoch(1)], ["12:00 run4 epoch 1 loss 1.000 (best 1.000 at 1)"]),
        ([epoch(2, math.nan)], ["12:00 run4 epoch 2 loss nan (best 1.000 at 1)",
                                "12:00 run4 ERROR NaN loss at epoch 2"]),
    ],
    "a trend is told once while it lasts": [
        ([START, *map(epoch, range(1, 13))], ["12:00 run4 epoch 12/9 loss 1.000 (best 1.000 at 1)"]),
        ([epoch(13)], ["12:00 run4 epoch 13/9 loss 1.000 (best 1.000 at 1)",
                       "12:00 run4 WARNING plateau: loss has not improved since epoch 1"]),
        ([epoch(14)], ["12:00 run4 epoch 14/9 loss 1.000 (best 1.000 at 1)"]),
        ([epoch(15, 0.5)], ["12:00 run4 epoch 15/9 loss .5000 (best .5000 at 15)"]),
    ],
    "an empty log says nothing": [([Tick(time=NOON)], []), ([Malformed(reason="left out", line=1)], [])],
}  # fmt: skip


@pytest.mark.parametrize("case", SENTENCES)
def test_one_sentence_a_change(case: str) -> None:
    batches = SENTENCES[case]
    assert told(*(events for events, _ in batches)) == [expected for _, expected in batches]


def test_a_log_that_cannot_be_read_any_more_is_told_once() -> None:
    said: list[str] = []
    narrator, run, log = Narrator(said.append), Run(), Log(Path("x"), "run4", Format.KERAS_CSV)
    fold(run, epoch(1))
    narrator.take(log, run, NOON)
    said.clear()
    log.trouble = "permission denied"
    narrator.take(log, run, NOON)
    narrator.take(log, run, NOON)
    assert said == ["12:00 run4 ERROR cannot be read: permission denied"]


def test_a_file_that_looks_like_a_log_and_cannot_be_read_is_told_once() -> None:
    said: list[str] = []
    narrator = Narrator(said.append)
    refused = [Skipped(Path("a.csv"), "permission denied"), Skipped(Path("b.txt"), "prose", False)]
    narrator.refuse(refused, NOON)
    narrator.refuse(refused, NOON)
    assert said == ["– a.csv ERROR cannot be read: permission denied"]


def test_no_line_has_a_control_byte_whatever_the_names() -> None:
    evil = "\x1b[31mred\x07\u202e\x9b\r\n"
    ((*first,), (*second,)) = told(
        [EpochsEnded(epochs=[0], metrics={f"{evil}_loss": [math.nan]})],
        [RunEnded(how="failed", error=evil), RunStarted(run_id=evil), RunEnded(how="stopped", by=[evil])],
        name=evil,
    )
    lines = [*first, *second]
    assert len(lines) >= 3
    assert not [line for line in lines if set(line) & set("\x1b\x07\u202e\x9b\r\n")]


def test_following_tells_what_is_there_then_what_changes_until_it_is_stopped(tmp_path: Path) -> None:
    log = tmp_path / "run1.csv"
    log.write_text("epoch,loss\n0,1.0\n")
    (tmp_path / "notes.txt").write_text("prose\n")
    follower = Follower([str(tmp_path)], now=lambda: NOON)
    said: list[str] = []

    def say(line: str) -> None:
        """Act on what was said, as a training would go on meanwhile."""
        said.append((line.partition(" run1 ")[2] or line).partition(" done")[0])
        if line.startswith("watching"):
            with log.open("a") as file:
                file.write("1,0.5\n2,nan\n")
        elif "ERROR" in line:
            follower.stop()

    follow(follower, say, 5, lambda: NOON)
    assert said == [
        "epoch 1/5 loss 1.000 (best 1.000 at 1)",
        "watching 1 run",
        "epoch 3/5 loss nan (best .5000 at 2)",
        "ERROR NaN loss at epoch 3",
    ]


def test_why_no_notices_come_is_told_whenever_that_comes_up_and_once(tmp_path: Path) -> None:
    log = tmp_path / "run1.csv"
    log.write_text("epoch,loss\n0,1.0\n")
    follower = Follower([str(tmp_path)], poll=True, now=lambda: NOON)
    waits = iter(("", "no notices: limit reached", "no notices: limit reached", "no notices: another", ""))

    def wait() -> set[Path]:
        follower.trouble = next(waits, "")
        if not follower.trouble:
            follower.stop()
        return set()

    follower.wait = wait  # type: ignore[method-assign]
    next(waits)
    said: list[str] = []
    follow(follower, said.append, None, lambda: NOON)
    assert said[-2:] == ["no notices: limit reached", "no notices: another"]


def test_a_deleted_log_is_told_once_and_again_when_it_is_back() -> None:
    missing = Tick(time=NOON, missing_since=NOON)
    first, gone, still, back = told(
        [epoch(1)], [missing], [missing], [RecordReplaced(), epoch(1), Tick(time=NOON)]
    )
    assert len(first) == 1
    assert gone == ["12:00 run4 WARNING the file is gone since 12:00: deleted or moved away"]
    assert (still, back) == ([], ["12:00 run4 growing"])
