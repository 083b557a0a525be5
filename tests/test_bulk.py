"""Rows taken as columns without polars are the rows that the line-by-line decoder takes, to the bit."""

from array import array
from collections.abc import Iterable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbmon.formats import bulk, csvlog
from cbmon.formats.bulk import PLAIN_BYTES, read_plain
from cbmon.formats.csvlog import CsvDecoder
from cbmon.run import Run, fold

HEADER = b"epoch,loss,lr,val_loss\n"


def folded(pieces: Iterable[bytes]) -> Run:
    reader, run = CsvDecoder(), Run()
    for piece in pieces:
        for event in reader.feed(piece):
            fold(run, event)
    for event in reader.finish():
        fold(run, event)
    return run


def line_by_line(pieces: Iterable[bytes]) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvDecoder, "_can_be_regular", lambda reader: False)
        return folded(pieces)


def taken(header: bytes, body: bytes) -> int:
    """How many pieces were taken as columns; the run is the same either way."""
    count = 0

    def counting(*arguments: Any) -> Any:
        nonlocal count
        table = read_plain(*arguments)
        count += table is not None
        return table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvlog, "sys", SimpleNamespace(modules={}))  # another test may have imported polars
        patch.setattr(csvlog, "read_plain", counting)
        fast = folded([header, body])
    assert fast == line_by_line([header + body])
    return count


@pytest.mark.parametrize(
    ("body", "is_taken", "sentence"),
    [
        (b"0,1,1,1\n", True, "one row, as a live log brings it"),
        (b"0,1,1,1\r\n1,1,1,1\r\n", True, "CRLF throughout"),
        (b"0,1,1,1\r\n1,1,1,1\n", False, "CRLF and LF"),
        (b"0,1,1,1\n\n1,1,1,1\n", False, "a blank line"),
        (b"0,1,1,1\r\n1,1,1,5\r3\n", False, "a carriage return within the last cell"),
        (b"0,1,1,-0\r3\n", False, "the same alone"),
        (b"0,1,1,1\n1,1,1\n", False, "a cell too few"),
        (b"0,1,1,1,1\n1,1,1\n", False, "one too many and one too few"),
        (b"0,1e-400,-0.0,0.5\n7,12345678901234567890123,-3,1E5\n", True, "spellings of numbers"),
        (b"0,1,.5,1\n", False, "spellings that JSON has not: no digit before the point"),
        (b"0,1,+5,1\n", False, "a plus"),
        (b"0,1,1e999,1\n", False, "too large for a number"),
        (b"0,1,-0,1\n", False, "an integer with a sign that JSON loses"),
        (b"0,1,1,-0\n", False, "the same at the end"),
        (b"007,1,1,1\n", False, "an epoch with zeros before it"),
        (b"0,1,NA,1\n1,NA,1,NA\n", True, "NA"),
        (b"0,1,nan,1\n1,nan,1,nan\n", True, "NaN"),
        (b"0,1,nan,1\n1,NA,1,1\n", False, "both"),
        (b"0,1,-nan,1\n", False, "NaN with a sign"),
        (b"NA,1,1,1\n", False, "an epoch that is absent"),
        (b"0,1,1NA,1\n", False, "half an absence"),
        (b"0,,1,1\n", False, "an empty cell"),
        (b"0,1_0,1,1\n", False, "an underscore"),
        (b"0,1,1,1e\n", False, "half a number"),
        (b"1.0,1,1,1\n", False, "an epoch with a point"),
        (b"-1,1,1,1\n", False, "an epoch below 0"),
        (b"9007199254740993,1,1,1\n", False, "an epoch too large"),
        (b"0,1,1,1\nepoch,loss,lr,val_loss\n0,1,1,1\n", False, "a header inside"),
        (b'0,"1",1,1\n', False, "quotes"),
        (b"0,1,1,1\n1,1", True, "a torn last line waits"),
        (b"0,1,1,1" + b"0" * (1 << 20) + b"\n", False, "a line too long"),
        (b"0,1,1,1\n" * 3, True, "an epoch again and again"),
        (b"5,1,1,1\n2,1,1,1\n", True, "a restart"),
    ],
)
def test_only_a_piece_of_plain_rows_is_taken_as_columns(body: bytes, is_taken: bool, sentence: str) -> None:
    assert (taken(HEADER, body) > 0) is is_taken, sentence


def test_a_file_is_taken_as_columns_from_its_header_on() -> None:
    body = b"".join(b"%d,0.5,0.1,0.25\n" % row for row in range(10_000))
    assert len(body) > 2 * PLAIN_BYTES
    count = 0

    def counting(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return read_plain(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvlog, "sys", SimpleNamespace(modules={}))  # another test may have imported polars
        patch.setattr(csvlog, "read_plain", counting)
        patch.setattr(CsvDecoder, "_take_record", no_row(CsvDecoder._take_record))
        run = folded([b"Training of today\n" + HEADER + body])
    assert count == len(body) // PLAIN_BYTES + 1, "a piece at a time, so that others get their turns"
    assert list(run.current.epochs) == list(range(10_000))
    assert run.warnings == []


def no_row(take: Any) -> Any:
    def guarded(reader: CsvDecoder, number: int, text: str, last: int) -> None:
        assert not text[0].isdigit(), "a row was taken by itself"
        take(reader, number, text, last)

    return guarded


def test_one_irregular_row_costs_its_piece_and_not_the_file() -> None:
    rows = [b"%d,0.5,0.1,0.25\n" % row for row in range(20_000)]
    rows[10_000] = b"10000,0.5\n"
    body = b"".join(rows)
    pieces = len(body) // PLAIN_BYTES + 1
    assert taken(HEADER, body) == pieces - 1


CELLS = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.text("0123456789.+-eE", max_size=8)
ODD = CELLS | st.sampled_from(
    ["nan", "NA", "", "inf", " 1", '"1"', "1_0", "text", "-nan", "1" * 400, "-0", "null", "5\r3", "5\r"]
)


@st.composite
def nearly_plain(draw: st.DrawFn) -> bytes:
    cells = draw(st.sampled_from([CELLS, CELLS | st.just("NA"), CELLS | st.just("nan"), ODD]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    epochs = st.integers(0, 3000).map(str) | st.sampled_from(
        ["007", "+3", "-0", "1e2", "00000000000000000000004"]
    )
    lines = draw(st.lists(st.tuples(epochs, cells, cells, cells).map(",".join), max_size=10))
    return "".join(line + end for line in lines).encode()


@given(nearly_plain(), st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=400)
def test_columns_and_lines_give_the_same_run_however_the_bytes_are_cut(body: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[start:stop] for start, stop in pairwise(places)]
    assert folded([HEADER, *pieces]) == line_by_line([HEADER + body])


def test_polars_takes_over_only_where_it_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def regular(data: bytes, separator: str, width: int) -> None:
        asked.append(len(data))

    monkeypatch.setattr(csvlog, "read_regular", regular)
    row = b"0,0.5,0.1,0.25\n"
    for modules, size, is_asked in [
        ({}, bulk.LOADED_BYTES, False),
        ({}, bulk.BULK_BYTES, True),
        ({"polars": None}, bulk.LOADED_BYTES, True),
        ({"polars": None}, bulk.LOADED_BYTES - len(row), False),
    ]:
        monkeypatch.setattr(csvlog, "sys", SimpleNamespace(modules=modules))
        reader = CsvDecoder()
        reader.feed(HEADER)
        asked.clear()
        reader.feed(row * (size // len(row) + (size % len(row) > 0)))
        assert bool(asked) is is_asked, (modules, size)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [[]],
        [[1.5]],
        [[1.5, -0.0, 4.9e-324], [1.7976931348623157e308]],
        [[1.0], [], [2.0, float("inf")], [float("nan")]],
    ],
)
def test_a_column_becomes_an_array_however_polars_keeps_it(pieces: list[list[float]]) -> None:
    import polars as pl

    from cbmon.formats.arrow import to_array

    column = pl.Series("x", [], dtype=pl.Float64)
    for piece in pieces:
        column = column.append(
            pl.Series("x", [9.0, *piece, 9.0], dtype=pl.Float64)[1:-1]
        )  # a slice has an offset
    values = to_array("d", column)
    assert values.tobytes() == array("d", [value for piece in pieces for value in piece]).tobytes()
    assert to_array("q", pl.Series([3, 2**53, -1])[1:]) == array("q", [2**53, -1])


def test_an_array_outlives_the_column_it_was_taken_from() -> None:
    import gc

    import polars as pl

    from cbmon.formats.arrow import to_array

    values = to_array("d", pl.Series(range(100_000), dtype=pl.Float64))
    gc.collect()
    assert values[-1] == 99_999.0
    assert len(values) == 100_000
