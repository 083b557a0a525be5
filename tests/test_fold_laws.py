"""The laws of the fold: however the bytes were cut, read again or decoded, the same rows give the same Run."""

import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cbmon.events import (
    CallbackStates,
    CheckpointSaved,
    ControlApplied,
    EpochsEnded,
    Event,
    Heartbeat,
    LearningRateChanged,
    Malformed,
    NonFinite,
    Process,
    Progress,
    RecordReplaced,
    RunEnded,
    RunStarted,
    StopRequested,
    Tick,
    encode_line,
)
from cbmon.formats import csvlog
from cbmon.formats.lines import LINE_MAX
from cbmon.formats.sniff import Decoder, Format, decoder
from cbmon.rules import alerts, status
from cbmon.run import Run, fold
from cbmon.sources import Log

# Reading


def folded(events: Iterable[Event], start: Run | None = None) -> Run:
    run = Run() if start is None else start
    for event in events:
        fold(run, event)
    return run


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[first:last] for first, last in pairwise(at)]


def read(format: Format, pieces: Iterable[bytes]) -> Run:
    """The run that bytes give when they come in these pieces."""
    reader: Decoder = decoder(format)
    events = [event for piece in pieces for event in reader.feed(piece)]
    return folded([*events, *reader.finish()])


def facts(run: Run) -> object:
    """All of a run as text, so that NaN equals NaN."""

    def text(value: object) -> object:
        return sorted(value) if isinstance(value, set) else repr(value)

    attempts = [[text(getattr(attempt, name)) for name in attempt.__slots__] for attempt in run.attempts]
    return [attempts, *(repr(getattr(run, name)) for name in run.__slots__ if name != "attempts")]


# What logs hold

NUMBERS = st.sampled_from(
    [
        "0.5",
        "1",
        "-3.25e-7",
        "0.1000000000000000055511151231257827",
        "NA",
        "",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "007",
    ]
) | st.floats().map(repr)
CELLS = NUMBERS | st.sampled_from(
    [
        *(
            '"""[0.1, 0.2]"""',
            '"""[[1. 0.],\n [0. 1.]]"""',
            '"[1, 2]',
            '5"',
            " 0.5 ",
            "text",
            "N/A",
            "None",
            "1_0",
        ),
        *("<Variable path=lr, value=0.01>", "\0\0\0", "é", "\x1b[2J", "=1+1", "\x0b", "\r"),
    ]
)
EPOCHS = st.integers(0, 6).map(str) | st.sampled_from(
    ["", "1.0", "-1", "x", "1e3", "99999999999999999999", "٣"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r\r\n", b"\n\n", b"\r\n \r\n"])
HEADERS = [
    "epoch,loss",
    "epoch,loss,val_loss",
    "epoch,lr,loss",
    "epoch,epoch,loss",
    "loss,val_loss",
    ",loss",
    "epoch",
    "epoch,loss,cbmon_time",
    "epoch,cbmon_time,cbmon_epoch_s",
    "epoch,cbmon_learning_rate_sgd,cbmon_tomorrow",
    "epoch,cbmon_tomorrow,cbmon_time",
    "epoch,cbmon_tomorrow,cbmon_host",
    ",loss,cbmon_time",
    "loss,cbmon_time,cbmon_step_s",
]


@st.composite
def rows(draw: st.DrawFn) -> str:
    """Mostly a good row of three cells."""
    cells = [draw(EPOCHS), *draw(st.lists(draw(st.sampled_from([NUMBERS, CELLS])), min_size=2, max_size=2))]
    return ",".join(cells[: draw(st.sampled_from([3, 3, 3, 3, 2, 1]))])


LINES = st.one_of(
    rows(),
    rows(),
    rows(),
    st.sampled_from(
        [*HEADERS, "\ufeffepoch,loss,val_loss", "Trial: 3, rate 0.1", "some words", "", "  ", ",,", "\0"]
    ),
    st.tuples(rows(), rows()).map("".join),  # glued
    st.text(max_size=8),
)


@st.composite
def dirty_csv(draw: st.DrawFn) -> bytes:
    lines = [draw(st.sampled_from(HEADERS)), *draw(st.lists(LINES, max_size=14))]
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "latin-1", "utf-16-le"]))
    data = b"".join(line.encode(encoding, "replace") + draw(ENDS) for line in lines)
    if draw(st.booleans()):
        data = data.rstrip(b"\r\n")  # torn
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + data


finite = st.floats(allow_nan=False, allow_infinity=False)
times = st.none() | st.floats()
values = st.none() | st.floats()
names = st.sampled_from(["loss", "val_loss", "acc", "lr", "[b]x[/b]\x1b[2J"])
epoch_numbers = st.integers(0, 9)


@st.composite
def batches(draw: st.DrawFn) -> EpochsEnded:
    size = draw(st.integers(0, 6))
    column = st.lists(values, min_size=size, max_size=size)
    return EpochsEnded(
        time=draw(times),
        epochs=draw(st.lists(epoch_numbers, min_size=size, max_size=size)),
        metrics=draw(st.dictionaries(names, column, max_size=3)),
        learning_rate=draw(st.none() | column),
        learning_rates=draw(st.dictionaries(st.sampled_from(["adam", "sgd"]), column, max_size=2)),
        seconds=draw(st.dictionaries(st.sampled_from(["epoch", "step"]), column, max_size=2)),
        times=draw(st.none() | column),
        first_line=draw(st.none() | st.integers(1, 100)),
        not_numbers=draw(st.lists(names, max_size=2)),
    )


recorded = st.one_of(
    st.builds(
        RunStarted,
        time=times,
        run_id=st.sampled_from("ab"),
        epochs=st.none() | st.integers(0, 100),
        process=st.none() | st.just(Process(host="h", pid=1)),
    ),
    batches(),
    batches(),
    batches(),
    st.builds(
        Progress,
        time=times,
        epoch=epoch_numbers,
        step=st.integers(0, 9),
        metrics=st.dictionaries(names, values),
    ),
    st.builds(LearningRateChanged, time=times, epoch=epoch_numbers, old=values, new=st.floats()),
    st.builds(CallbackStates, time=times, epoch=epoch_numbers),
    st.builds(CheckpointSaved, time=times, epoch=epoch_numbers, path=st.text(max_size=5)),
    st.builds(NonFinite, time=times, epoch=epoch_numbers, metric=names),
    st.builds(StopRequested, time=times, epoch=st.none() | epoch_numbers, by=st.lists(names, max_size=2)),
    st.builds(ControlApplied, time=times, command=st.sampled_from(["stop", "lr"])),
    st.builds(Heartbeat, time=times),
    st.builds(
        RunEnded, time=times, how=st.sampled_from(["finished", "stopped", "failed", "new"]), error=st.text()
    ),
)
any_event: st.SearchStrategy[Event] = st.one_of(
    recorded,
    recorded,
    recorded,
    st.builds(
        Malformed, line=st.none() | st.integers(1, 9), reason=st.sampled_from(["left out, a", "left out, b"])
    ),
    st.builds(Tick, time=times, written=times, process_gone=st.booleans()),
    st.builds(RecordReplaced),
)
event_lists = st.lists(any_event, max_size=12)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A cbmon record, here and there with something else in a line."""
    other = st.sampled_from(
        [b"\n", b"{}\n", b'{"event":"tomorrow"}\n', b"\xff\0\n", b'{"event":"heartbeat"', b"\r\n"]
    )
    lines = draw(st.lists(recorded.map(encode_line) | recorded.map(encode_line) | other, max_size=10))
    return b"".join(lines)


@st.composite
def histories(draw: st.DrawFn) -> bytes:
    """`json.dump(history.history)`, well or badly."""
    value = st.none() | st.floats() | st.integers() | st.sampled_from(["nan", "}", [1], {}, "é", True])
    history = draw(st.dictionaries(names, st.lists(value, max_size=5) | value, max_size=4))
    text = json.dumps(history, indent=draw(st.none() | st.integers(0, 2)), ensure_ascii=draw(st.booleans()))
    around = st.sampled_from(["", "", "\n", " }", "\ufeff", " tail", text])
    data = (draw(around) + text + draw(around)).encode()
    return data[: draw(st.sampled_from([len(data), len(data), len(data) // 2]))]


cuts = st.lists(st.integers(0, 10_000), max_size=8)

# Law: any cutting of the bytes


@given(dirty_csv(), cuts)
@example(b"epoch,loss,cbmon_time\n0,1,9\n1,1,NA\n2,1,nan\nepoch,loss\n3,1\n", [28, 35, 43])
@example(b"epoch,loss\r\r\n0,1\r\r\n", list(range(30)))
@example(b'epoch,a,loss\n0,"x\n1,0.5,2\n2,0.4,1\n', [14, 17])
def test_any_cutting_of_a_row_log_gives_the_same_run(data: bytes, cuts: list[int]) -> None:
    assert read(Format.KERAS_CSV, pieces_of(data, cuts)) == read(Format.KERAS_CSV, [data])


@given(st.integers(0, 100), st.sampled_from([Format.KERAS_CSV, Format.RECORD]), dirty_csv(), cuts)
@example(3, Format.KERAS_CSV, b"epoch,loss\n0,1\n", [1, 2, 3])
def test_any_cutting_of_what_begins_with_a_hole_gives_the_same_run(
    hole: int, format: Format, data: bytes, cuts: list[int]
) -> None:
    data = b"\0" * hole + data
    assert facts(read(format, pieces_of(data, cuts))) == facts(read(format, [data]))


@given(dirty_csv())
def test_a_row_log_byte_by_byte_gives_the_same_run(data: bytes) -> None:
    assert read(Format.KERAS_CSV, pieces_of(data, range(len(data)))) == read(Format.KERAS_CSV, [data])


@given(records(), cuts)
def test_any_cutting_of_a_record_gives_the_same_run(data: bytes, cuts: list[int]) -> None:
    assert facts(read(Format.RECORD, pieces_of(data, cuts))) == facts(read(Format.RECORD, [data]))


@given(histories(), cuts)
@example(b'{"loss":[1]}{"loss":[2]}', [12])
@example(b'{"loss":[1]} \xff', [12])
@example(b'{"}":[1],"loss":[1]}', [4])
def test_any_cutting_of_a_history_gives_the_same_run(data: bytes, cuts: list[int]) -> None:
    assert read(Format.HISTORY, pieces_of(data, cuts)) == read(Format.HISTORY, [data])


@pytest.mark.parametrize("size", [1 << 16, LINE_MAX - 1, LINE_MAX, LINE_MAX + 1, 1 << 22])
def test_a_giant_line_is_left_out_however_it_comes(size: int) -> None:
    giant = b"1," + b"1" * 3 * LINE_MAX
    data = b"epoch,loss\n0,0.5\n" + giant + b"\n2,0.3\n"
    run = read(Format.KERAS_CSV, [data[at : at + size] for at in range(0, len(data), size)])
    assert run == read(Format.KERAS_CSV, [data])
    assert list(run.current.epochs) == [0, 2]
    assert [str(warning) for warning in run.warnings] == [f"line 3: left out, longer than {LINE_MAX} bytes"]


# Laws of the fold itself


@given(event_lists, event_lists)
def test_folding_goes_on_from_any_state(first: list[Event], second: list[Event]) -> None:
    start = folded(first)
    before = facts(start)
    assert facts(folded(second, copy.deepcopy(start))) == facts(folded([*first, *second]))
    assert facts(start) == before, "a copy shares no buffer with the run it was taken from"


@given(event_lists)
def test_no_sequence_of_events_makes_the_fold_or_the_rules_raise(events: list[Event]) -> None:
    run = Run()
    for event in events:
        fold(run, event)
        status(run)
        alerts(run)


@given(event_lists)
def test_a_run_is_well_formed_whatever_was_folded(events: list[Event]) -> None:
    run = folded(events)
    for attempt in run.attempts:
        assert all(earlier < later for earlier, later in pairwise(attempt.epochs)), "strictly rising"
        for column in attempt._columns():
            assert len(column) == len(column.present) == len(attempt.epochs)
            assert column.count == sum(column.present)
            shown = [value for value in column if value is not None]
            assert column.last() == (shown[-1] if shown else None) or shown[-1] != shown[-1]


def split(batch: EpochsEnded, at: int) -> list[EpochsEnded]:
    def rows(part: slice) -> EpochsEnded:
        return EpochsEnded(
            time=batch.time,
            epochs=batch.epochs[part],
            metrics={name: column[part] for name, column in batch.metrics.items()},
            learning_rate=None if batch.learning_rate is None else batch.learning_rate[part],
            learning_rates={name: column[part] for name, column in batch.learning_rates.items()},
            seconds={name: column[part] for name, column in batch.seconds.items()},
            times=None if batch.times is None else batch.times[part],
            first_line=None if batch.first_line is None else batch.first_line + (part.start or 0),
            not_numbers=batch.not_numbers,
        )

    return [rows(slice(0, at)), rows(slice(at, None))]


@given(st.lists(batches(), max_size=5), st.integers(0, 6))
def test_a_batch_is_only_a_way_of_cutting(events: list[EpochsEnded], at: int) -> None:
    parts = [part for batch in events for part in split(batch, at)]
    whole = folded(events)
    cut = folded(parts)
    for attempt in (*whole.attempts, *cut.attempts):
        attempt.not_numbers.clear()  # a batch tells them for all its rows
    assert facts(cut) == facts(whole)


@given(st.lists(batches(), max_size=6))
def test_the_best_value_is_the_same_asked_once_or_at_every_step(events: list[EpochsEnded]) -> None:
    from cbmon.series import Direction

    asked = Run()
    for event in events:
        fold(asked, event)
        for column in asked.current.columns.values():
            for direction in Direction:
                column.best(direction)
    once = folded(events)
    for a, b in zip(asked.attempts, once.attempts, strict=True):
        for name, column in a.columns.items():
            for direction in Direction:
                assert column.best(direction) == b.columns[name].best(direction)


def test_time_is_no_part_of_what_rows_mean() -> None:
    """Two folds of one log at different times differ in what was seen from outside and in nothing else."""
    data = [EpochsEnded(epochs=[0, 1], metrics={"loss": [1.0, 0.5]})]
    early = folded([*data, Tick(time=1.0, written=1.0)])
    late = folded([*data, Tick(time=9e9, written=1.0)])
    early.seen = late.seen = None
    assert early == late


# Law: the bulk decoder is only another way of cutting


class Bulk:
    """The row decoder with polars from the first byte on; counts what polars took and refused."""

    def __init__(self) -> None:
        self.taken = 0
        self.refused = 0

    def read(self, pieces: Iterable[bytes]) -> Run:
        def counting(*arguments: Any) -> Any:
            table = read_regular(*arguments)
            self.taken += table is not None
            self.refused += table is None
            return table

        read_regular = csvlog.read_regular
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csvlog, "BULK_BYTES", 1)
            patch.setattr(csvlog, "read_regular", counting)
            return read(Format.KERAS_CSV, pieces)


def bulk_and_scalar(header: bytes, body: bytes) -> tuple[Bulk, Run, Run]:
    bulk = Bulk()
    return bulk, bulk.read([header, body]), read(Format.KERAS_CSV, [header + body])


HEADER = b"epoch,loss,lr,val_loss\n"
HEADERS_OF_4 = [
    *(HEADER, HEADER, b"epoch,loss,cbmon_time,cbmon_epoch_s\n", b"epoch,loss,cbmon_tomorrow,cbmon_time\n"),
    *(b"epoch,cbmon_time,lr,cbmon_learning_rate_sgd\n", b"epoch,cbmon_time,cbmon_step_s,cbmon_time\n"),
    b"epoch,cbmon_tomorrow,cbmon_host,cbmon_\n",
]
SPELLINGS = [
    *(
        "nan",
        "-nan",
        "NaN",
        "NAN",
        "nAn",
        "+nan",
        "inf",
        "-inf",
        "+inf",
        "+1.0",
        "1e999",
        "-1e999",
        "1e-400",
        ".5",
        "5.",
    ),
    *("007", "-0", "-0.0", "NA", "", "1E5", "1e+5", "5.e3", "4.9e-324", "2.4703282292062328e-324", "1" * 400),
    *(
        "0.1000000000000000055511151231257827",
        "9007199254740993",
        "1.7976931348623159e308",
        "0.5" + "0" * 300 + "1",
    ),
]
IRREGULAR = [
    *("--1", "1e", "-", "+", ".", "e", "na", "Na", "nanna", "1.2.3", "i"),
    *("0x1", "1_0", " 1", "1 ", '"1"', "٣"),
]


@pytest.mark.parametrize("cell", SPELLINGS)
def test_bulk_reads_a_number_to_the_bit_as_the_scalar_decoder(cell: str) -> None:
    bulk, fast, slow = bulk_and_scalar(HEADER, f"0,{cell},{cell},1.0\n1,0.5,0.1,{cell}\n".encode())
    assert fast == slow
    assert (bulk.taken, bulk.refused) == (1, 0), "a regular chunk is polars' business"


@pytest.mark.parametrize("cell", IRREGULAR)
def test_bulk_refuses_a_cell_that_only_the_scalar_decoder_can_judge(cell: str) -> None:
    bulk, fast, slow = bulk_and_scalar(HEADER, f"0,{cell},0.1,1.0\n1,0.5,0.1,0.2\n".encode())
    assert fast == slow
    assert bulk.taken == 0


@pytest.mark.parametrize(
    ("body", "taken", "sentence"),
    [
        (b"0,1,1,1\r\n1,1,1,1\r\n", True, "CRLF throughout"),
        (b"0,1,1,1\r\n1,1,1,1\n", False, "CRLF and LF"),
        (b"0,1,1,1\r\r\n1,1,1,1\r\r\n", False, "CR-CR-LF"),
        (b"0,1,1,1\n\n1,1,1,1\n", False, "a blank line"),
        (b"0,1,1,1\n1,1,1\n", False, "a cell too few"),
        (b"0,1,1,1\n1,1,1,1,1\n", False, "a cell too many"),
        (b"0,1,1,1,1\n1,1,1\n", False, "one too many and one too few"),
        (b"0,1,1\n1,1,1,1,1\n", False, "one too few and one too many"),
        (b"0,1,1,1\n,1,1,1\n", False, "a row without epoch"),
        (b"0,1,1,1\n-1,1,1,1\n", False, "an epoch below 0"),
        (b"0,1,1,1\n9007199254740993,1,1,1\n", False, "an epoch too large"),
        (b"0,1,1,1\n99999999999999999999,1,1,1\n", False, "an epoch beyond 64 bits"),
        (b"0,1,1,1\n1.0,1,1,1\n", False, "an epoch with a point"),
        (b"0,1,1,1\nNA,1,1,1\n", False, "no epoch"),
        (b"007,1,1,1\n+8,1,1,1\n", True, "epochs with zeros and a sign"),
        (b"3,1,1,1\n3,1,1,1\n0,1,1,1\n", True, "a repeated epoch and a restart"),
        (b"0,1,1,1\nepoch,loss,lr,val_loss\n0,1,1,1\n", False, "a header inside"),
        (b"0,1,1,1\n1,1", True, "a torn last line waits"),
        (b"0,,,\n1,,,\n", True, "nothing but empty cells"),
        (b"0,1,1,1\n1,1,1,1" + b"0" * LINE_MAX + b"\n", False, "a line too long"),
    ],
)
def test_bulk_takes_a_chunk_only_if_it_is_regular(body: bytes, taken: bool, sentence: str) -> None:
    bulk, fast, slow = bulk_and_scalar(HEADER, body)
    assert fast == slow, sentence
    assert (bulk.taken > 0) is taken, sentence


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        (b"epoch,loss\n", True),
        (b",loss\n", True),
        (b"epoch,learning_rate\n", True),
        (b"epoch,loss,Loss,loss\n", True),
        (b"loss,epoch\n", False),
        (b"loss,val_loss\n", False),
        (b"epoch,epoch,loss\n", False),
        (b"epoch\n", False),
        (b"epoch,loss,lr,cbmon_time,cbmon_epoch_s,cbmon_learning_rate_sgd\n", True),
        (b"epoch,loss,cbmon_tomorrow\n", True),
        (b"epoch,cbmon_time\n", True),
        (b"epoch,cbmon_tomorrow\n", False),
        (b"epoch,cbmon_time,epoch\n", False),
    ],
)
def test_bulk_is_for_logs_with_the_epoch_in_front(header: bytes, taken: bool) -> None:
    width = header.count(b",") + 1
    body = b"".join(b",".join([b"%d" % row, *[b"0.5"] * (width - 1)]) + b"\n" for row in range(4))
    bulk, fast, slow = bulk_and_scalar(header, body)
    assert fast == slow
    assert (bulk.taken > 0) is taken


def test_bulk_goes_on_after_what_it_refused_and_counts_lines_right() -> None:
    regular = b"".join(b"%d,0.5,0.1,0.4\n" % row for row in range(50))
    pieces = [HEADER, regular, b"50,0.5,0.1\n", b"51,0.5,0.1,0.4\n52,0.", b"5,0.1,0.4\n"]
    bulk = Bulk()
    fast = bulk.read(pieces)
    assert fast == read(Format.KERAS_CSV, [b"".join(pieces)])
    assert (bulk.taken, bulk.refused) == (3, 1)
    assert [str(warning) for warning in fast.warnings] == ["line 52: left out, 3 cells under a header of 4"]


def test_bulk_takes_no_row_from_the_end_of_a_line_that_was_too_long() -> None:
    pieces = [HEADER, b"0,1,1,1\n1,1,1," + b"1" * (LINE_MAX + 1), b"1,2,3,4\n", b"2,1,1,1\n"]
    assert Bulk().read(pieces) == read(Format.KERAS_CSV, [b"".join(pieces)])


REGULAR_CELLS = st.sampled_from(SPELLINGS) | st.floats().map(repr) | st.text("0123456789.+-eE", max_size=12)
ALMOST = REGULAR_CELLS | st.sampled_from(IRREGULAR) | st.text('0123456789.+-eEnaifNA\r, "', max_size=6)


@st.composite
def almost_regular(draw: st.DrawFn) -> bytes:
    """Rows that polars takes, or would if it were not for a small thing."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    epochs = st.integers(0, 2000).map(str) | st.sampled_from(
        ["007", "+3", "-0", "00000000000000000000004", "1e2"]
    )
    cells = draw(st.sampled_from([st.floats().map(repr), REGULAR_CELLS, ALMOST]))
    lines = draw(st.lists(st.tuples(epochs, cells, cells, cells).map(",".join), min_size=1, max_size=8))
    if draw(st.integers(0, 4)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(LINES))
    return "".join(line + end for line in lines).encode("utf-8", "replace")


@given(st.sampled_from(HEADERS_OF_4), almost_regular(), cuts)
@settings(max_examples=400)
def test_bulk_and_scalar_decoder_give_the_same_run(header: bytes, body: bytes, cuts: list[int]) -> None:
    assert Bulk().read([header, *pieces_of(body, cuts)]) == read(Format.KERAS_CSV, [header + body])


@pytest.mark.parametrize("cell", ["1700000000.25", "nan", "-nan", "inf", "-inf", "1e999", "NA", "", "-5"])
def test_bulk_judges_a_time_as_the_scalar_decoder(cell: str) -> None:
    body = f"0,0.5,7.5,1.5\n1,0.5,{cell},{cell}\n2,0.5,{cell},{cell}\n".encode()
    bulk, fast, slow = bulk_and_scalar(b"epoch,loss,cbmon_time,cbmon_epoch_s\n", body)
    assert fast == slow
    assert bulk.taken == 1
    assert fast.current.times[0] == 7.5
    assert fast.heard == (float(cell) if cell in ("1700000000.25", "-5") else 7.5)


@given(dirty_csv(), cuts)
def test_bulk_makes_no_difference_to_a_dirty_log(data: bytes, cuts: list[int]) -> None:
    assert Bulk().read(pieces_of(data, cuts)) == read(Format.KERAS_CSV, [data])


def test_a_large_log_takes_the_bulk_way_by_itself() -> None:
    from cbmon.formats.bulk import BULK_BYTES

    line = b"%d,0.5000000000000001,0.001,0.4000000000000001\n"
    body = b"".join(line % row for row in range(BULK_BYTES // 45 + 1))
    assert len(body) >= BULK_BYTES
    reader = decoder(Format.KERAS_CSV)
    reader.feed(HEADER)
    (batch,) = reader.feed(body)
    assert isinstance(batch, EpochsEnded)
    assert len(batch.epochs) == body.count(b"\n"), "one batch, not thousands"


# Law: reading on equals reading afresh


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def rewrite_in_place(path: Path, data: bytes) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(data)
        file.truncate()


def replace_by_rename(path: Path, data: bytes) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(data)
    other.replace(path)


def delete_and_create(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def truncate(path: Path, data: bytes) -> None:
    os.truncate(path, min(len(data), path.stat().st_size))


def empty_under_its_writer(path: Path, data: bytes) -> None:
    size = path.stat().st_size
    os.truncate(path, 0)
    with path.open("r+b") as file:
        file.seek(size)
        file.write(data)


CHANGES: list[Callable[[Path, bytes], None]] = [
    *(append, append, append),
    *(rewrite_in_place, replace_by_rename, delete_and_create, truncate, empty_under_its_writer),
]


def read_on(log: Log, run: Run, limit: int) -> bool:
    """Read what there is; False if the file is refused now (it does not begin as a log any more)."""
    try:
        while (events := log.read(limit)) is not None:
            folded(events, run)
    except OSError:
        return False
    return True


@given(
    st.sampled_from(
        [(Format.KERAS_CSV, dirty_csv()), (Format.RECORD, records()), (Format.HISTORY, histories())]
    ).flatmap(
        lambda pair: st.tuples(
            st.just(pair[0]),
            st.lists(st.tuples(st.sampled_from(CHANGES), pair[1], st.booleans()), min_size=1, max_size=5),
        )
    ),
    st.integers(1, 400),
)
def test_reading_on_through_any_change_of_the_file_equals_a_fresh_read(
    script: tuple[Format, list[tuple[Callable[[Path, bytes], None], bytes, bool]]], limit: int
) -> None:
    format, changes = script
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.csv"
        path.touch()
        log, run, clock = Log(path, "run", format), Run(), count(1)
        for change, data, is_looked_at in changes:
            change(path, data[:200])
            os.utime(path, ns=(0, next(clock)))  # time passes, though the test does not wait for it
            if is_looked_at:
                read_on(log, run, limit)
        is_read = read_on(log, run, limit)
        fresh = Run()
        if not read_on(Log(path, "run", format), fresh, 8 << 20):
            return
    assert is_read
    assert facts(run) == facts(fresh)
