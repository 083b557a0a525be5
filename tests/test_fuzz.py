"""Mutated input: no decoder raises or hangs, nothing that is shown of it carries a control."""

import json
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

from cbmon.events import (
    CheckpointSaved,
    EpochsEnded,
    LearningRateChanged,
    Process,
    Progress,
    RunEnded,
    RunStarted,
    Tick,
    encode_line,
)
from cbmon.formats.sniff import SNIFF_BYTES, Format, Refused, decoder, sniff
from cbmon.plots import chart_view, next_metric
from cbmon.run import Run, fold
from cbmon.sources import Log, Skipped
from cbmon.units import printable
from cbmon.views import (
    alert_lines,
    alert_sentence,
    epoch_sentence,
    facts_view,
    run_view,
    show_json,
    show_table,
    unreadable_view,
)

ROUNDS = 1500
"""Inputs a seed, each through every decoder and every view: some seconds in all."""
NOW = 2e9

CSV = (
    "\ufeffTrial 1, batch 50\r\nepoch,accuracy,learning_rate,loss,val_loss\r\n"
    '0,0.5,"<Variable path=sgd/learning_rate, value=0.01>",1.0,NA\r\n'
    '1,nan,0.1,"""[1, 2]""",inf\r\n3,0.6,0.1,0.5,\r\n3,0.6,0.01,0.5,1e999\r\n4\r\n0,0.5,0.1,1.0,2\r\n1,0.9'
).encode()
RECORD = b"".join(
    map(
        encode_line,
        [
            RunStarted(
                time=1e9,
                run_id="a",
                epochs=20,
                steps=100,
                keras="3.15.1",
                optimizer="Adam",
                process=Process(host="gpu1", pid=7),
            ),
            EpochsEnded(
                time=1e9 + 60,
                epochs=[0, 1],
                metrics={"loss": [1.0, float("nan")], "val_loss": [0.5, None]},
                learning_rate=[0.1, 0.1],
            ),
            Progress(time=1e9 + 70, epoch=2, step=10, steps=100, metrics={"loss": 0.5}),
            LearningRateChanged(epoch=3, old=0.1, new=0.01),
            CheckpointSaved(epoch=3, path="m-004.keras"),
            EpochsEnded(time=1e9 + 120, epochs=[2], metrics={"loss": [0.4]}, learning_rate=[0.01]),
            RunEnded(time=1e9 + 130, how="failed", by=["Fit"], error="ValueError: x"),
        ],
    )
)
HISTORY = json.dumps(
    {
        "loss": [1.0, 0.5, float("nan"), None],
        "val_loss": [0.5, 0.4],
        "lr": [0.1, 0.1, 0.01, 0.01],
        "é": ["x", [], {}, 1],
    }
).encode()
LIVE = b'{"event":"epochs_ended","epochs":[%d],"metrics":{"loss":[1]}}\n'
SEEDS = {"rows": CSV, "record": RECORD, "history": HISTORY}

PIECES = [
    *(
        b"\x1b[2J",
        b"\x1b]0;x\x07",
        b"\x9b",
        b"\xc2\x9b31m",
        b"\xe2\x80\xae",
        b"\xe2\x80\x8b",
        b"\xed\xa0\x80",
        b"\0",
        b"\xff",
    ),
    *(
        b'"',
        b'""',
        b"\\ud800",
        b"\\u001b",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b";",
        b"\t",
        b"\r",
        b"\n",
        b"\r\r\n",
        b" ",
        b"e",
        b"-",
    ),
    *(
        b"nan",
        b'"nan"',
        b"NaN",
        b"1e400",
        b"1e-400",
        b"9" * 30,
        b"9" * 400,
        b"null",
        b"true",
        b"epoch",
        b"loss",
        b"lr",
    ),
]


def mutated(random: random.Random, data: bytes) -> bytes:
    """A few cuts, copies, swaps and insertions."""
    found = bytearray(data)
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(found) + 1)
        end = min(len(found), at + random.choice([1, 1, 2, 5, 20, 200]))
        match random.randrange(5):
            case 0:
                del found[at:end]
            case 1:
                found[at:at] = random.choice(PIECES)
            case 2:
                found[at:end] = random.randbytes(end - at)
            case 3:
                found[at:at] = found[at:end]
            case _:
                found[at:end] = random.choice(PIECES)
    return bytes(found)


def inputs(data: bytes, seed: int) -> Iterator[bytes]:
    choices = random.Random(seed)
    return (mutated(choices, data) for _ in range(ROUNDS))


def is_safe(text: str) -> bool:
    """Nothing that moves a cursor, turns the writing or cannot be encoded."""
    return not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text)


def all_that_is_shown(log: Log, run: Run) -> Iterator[str]:
    view = run_view(log, run, planned=40)
    yield from show_table([view], [], NOW)
    yield epoch_sentence(view, run, NOW)
    yield from (alert_sentence(view, alert, NOW) for alert in [])
    yield from (text for _, text in alert_lines(run))
    facts = facts_view(run)
    yield from (name for name, _, _ in facts.metrics)
    yield from (text for pair in facts.info for text in pair)
    metric = None
    for _ in range(3):
        metric = next_metric(run, metric, 1)
        chart = chart_view(run, metric)
        yield chart.title
        yield from chart.names
        yield from (text for texts in chart.notes.values() for text in texts)
        yield from (curve.label for curve in chart.curves)
    document = show_json([(log, run)], [])
    yield json.dumps(document, allow_nan=False, ensure_ascii=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mutated_log_makes_anything_raise_or_reaches_the_screen_raw(seed: str) -> None:
    log = {format: Log(Path("run.csv"), "run", format) for format in Format}
    for number, data in enumerate(inputs(SEEDS[seed], 1)):
        for format in Format:
            reader, run = decoder(format), Run()
            middle = len(data) // 2
            for event in [*reader.feed(data[:middle]), *reader.feed(data[middle:]), *reader.finish()]:
                fold(run, event)
            fold(run, Tick(time=NOW, written=NOW - 1, process_gone=number % 2 == 0))
            for text in all_that_is_shown(log[format], run):
                assert is_safe(text), (data, ascii(text))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mutated_head_makes_the_sniffer_raise_or_is_refused_with_its_controls(seed: str) -> None:
    for data in inputs(SEEDS[seed], 2):
        for suffix in (".csv", ".json", ".txt"):
            found = sniff(data[:SNIFF_BYTES], PurePath(f"x{suffix}"))
            if isinstance(found, Refused):
                assert is_safe(found.reason), ascii(found.reason)
                assert is_safe(unreadable_view(Skipped(Path("x"), found.reason)).word)


def test_random_bytes_are_no_trouble_either() -> None:
    choices = random.Random(3)
    for _ in range(ROUNDS):
        data = choices.randbytes(choices.randrange(300))
        sniff(data, PurePath("x.csv"))
        for format in Format:
            reader, run = decoder(format), Run()
            for event in [*reader.feed(data), *reader.finish()]:
                fold(run, event)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'epoch,loss\n0,"' + b"x,\n" * 50_000, id="a quote that never closes"),
        pytest.param(b"epoch,loss\n" + b'0,"a\n' * 50_000, id="torn quotes"),
        pytest.param(b"epoch,loss\n" + b"<" * 1_000_000 + b"\n", id="a cell like an object"),
        pytest.param(b"epoch,loss\n0,<" + b" value=" * 100_000 + b"\n", id="an object with many values"),
        pytest.param(b"epoch,loss\n0," + b"9" * 1_000_000 + b"\n", id="a long number"),
        pytest.param(b"epoch,loss\n" + b"epoch,loss\n" * 20_000, id="headers"),
        pytest.param(b"epoch" + b",loss" * 20_000 + b"\n" + b"0" + b",1" * 20_000 + b"\n", id="many columns"),
        pytest.param(b"epoch,loss\n" + b"1,0.5\n\n" * 50_000, id="one epoch again and again"),
        pytest.param(b"epoch,loss\n" + b"".join(b"%d,0.5\n\n" % row for row in range(30_000)), id="blank lines"),
        pytest.param(b"epoch,loss\n" + b"1,0.5\n0,0.5\n" * 2_000, id="restarts"),
        pytest.param(b'{"loss":[' + b"1," * 200_000, id="a history without end"),
        pytest.param(b'{"loss":' * 50_000, id="a deep history"),
        pytest.param(b"".join(LIVE % row for row in range(20_000)), id="a long record"),
    ],
)  # fmt: skip
def test_what_is_large_and_strange_ends(data: bytes) -> None:
    """Each took minutes, or would, in a decoder that looks at everything again for each line."""
    for format in Format:
        reader, run = decoder(format), Run()
        for start in range(0, len(data), 1 << 16):
            for event in reader.feed(data[start : start + (1 << 16)]):
                fold(run, event)
        for event in reader.finish():
            fold(run, event)
        for attempt in run.attempts[:3]:
            assert len(attempt.epochs) <= data.count(b"\n")


def test_no_sign_that_a_terminal_obeys_is_printable() -> None:
    every = "".join(
        map(chr, [*range(0x3100), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0200)])
    )
    for start in range(0, len(every), 100):
        assert is_safe(printable(every[start : start + 100]))


@pytest.mark.parametrize(
    "text", ["val_loss", "[b]bold[/b]", "損失", "é", "🙂", "a\\x1b", "  two  spaces ", "100 %"]
)
def test_harmless_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_mutated_text_is_printable_and_short() -> None:
    choices = random.Random(4)
    for data in inputs(CSV, 5):
        text = data.decode("utf-8", choices.choice(["replace", "surrogateescape", "backslashreplace"]))
        limit = choices.randrange(1, 400)
        shown = printable(text, limit)
        assert is_safe(shown)
        assert shown.encode()
        assert len(shown) <= 10 * limit, "each sign may take an escape"
