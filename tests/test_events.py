"""The codec: what one cbmon writes, any cbmon reads; what is not an event is said, never raised."""

import json
import math
from array import array
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbmon.events import (
    EPOCH_MAX,
    KINDS,
    RECORD_VERSION,
    CallbackState,
    CallbackStates,
    CheckpointSaved,
    ControlApplied,
    EpochsEnded,
    Heartbeat,
    LearningRateChanged,
    Malformed,
    NonFinite,
    Process,
    Progress,
    RecordedEvent,
    RunEnded,
    RunStarted,
    StopRequested,
    decode_line,
    encode_line,
)

ONE_OF_EACH: list[RecordedEvent] = [
    RunStarted(
        time=1.5,
        run_id="a",
        epochs=200,
        steps=None,
        keras="3.15.1",
        backend="jax",
        optimizer="Adam",
        process=Process(host="gpu1", boot_id="b", pid_namespace="pid:[1]", pid=7, start=9),
    ),
    EpochsEnded(
        time=2.5,
        epochs=[0, 1],
        metrics={"loss": [0.1, None], "val_loss": [None, None]},
        learning_rate=[1e-3, 1e-4],
        learning_rates={"adam": [1e-3, None]},
        seconds={"epoch": [2.0, 1.5], "first_step": [0.5, None]},
        not_numbers=["loss"],
    ),
    Progress(time=3.0, epoch=1, step=10, steps=100, metrics={"loss": 0.25, "mae": None}),
    LearningRateChanged(epoch=3, old=1e-3, new=1e-4),
    CheckpointSaved(epoch=3, path="m-004.keras"),
    CallbackStates(
        epoch=3,
        states=[CallbackState(name="EarlyStopping", monitor="val_loss", patience=5, wait=3, best=0.25)],
    ),
    NonFinite(epoch=4, step=12, metric="loss"),
    StopRequested(epoch=4, by=["EarlyStopping"], reason="no better for 5 epochs"),
    ControlApplied(epoch=None, command="lr", by="user", old=1e-3, new=1e-4),
    Heartbeat(time=60.0),
    RunEnded(time=61.0, how="failed", by=["X"], error="ValueError: ..."),
]

texts = st.text(st.characters())  # lone surrogates too
numbers = st.none() | st.floats(allow_nan=False)
epochs = st.integers(0, EPOCH_MAX)
times = st.none() | st.floats(allow_nan=False)


@st.composite
def batches(draw: st.DrawFn) -> EpochsEnded:
    rows = draw(st.integers(0, 5))
    column = st.lists(numbers, min_size=rows, max_size=rows)
    return EpochsEnded(
        time=draw(times),
        epochs=draw(st.lists(epochs, min_size=rows, max_size=rows)),
        metrics=draw(st.dictionaries(st.text(max_size=5), column, max_size=3)),
        learning_rate=draw(st.none() | column),
        learning_rates=draw(st.dictionaries(st.text(max_size=5), column, max_size=2)),
        seconds=draw(st.dictionaries(st.text(max_size=5), column, max_size=2)),
        not_numbers=draw(st.lists(st.text(max_size=5), max_size=2)),
    )


def line(**fields: Any) -> bytes:
    """A line as somebody else's JSON writer makes it: NaN and Infinity stand there as words."""
    return json.dumps(fields).encode()


def epochs_line(**fields: Any) -> bytes:
    return line(event="epochs_ended", **({"epochs": [0, 1]} | fields))


def taken(found: object) -> EpochsEnded:
    assert isinstance(found, EpochsEnded), found
    return found


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_number_comes_back_as_itself(value: float) -> None:
    written = encode_line(EpochsEnded(epochs=[0], metrics={"loss": [value]}, learning_rate=[value]))
    assert b"null" not in written, "msgspec alone writes null, which means absent"
    back = taken(decode_line(written))
    assert repr(back.metrics["loss"]) == repr([value])
    assert repr(back.learning_rate) == repr([value])


def test_a_kind_of_str_is_written_as_text() -> None:
    class Version(str):
        __slots__ = ()

    assert decode_line(encode_line(RunStarted(run_id="r", model=Version("2.13.0")))) == RunStarted(
        run_id="r", model="2.13.0"
    )


def test_an_absent_value_is_not_nan() -> None:
    back = taken(decode_line(encode_line(EpochsEnded(epochs=[0, 1], metrics={"loss": [None, math.nan]}))))
    assert repr(back.metrics["loss"]) == "[None, nan]"


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_every_kind_comes_back_as_it_was_written(event: RecordedEvent) -> None:
    written = encode_line(event)
    assert written.endswith(b"}\n")
    assert written.count(b"\n") == 1
    assert decode_line(written) == event


def test_the_list_above_has_every_kind_of_the_union() -> None:
    assert {type(event) for event in ONE_OF_EACH} == set(get_args(RecordedEvent))
    assert {json.loads(encode_line(event))["event"] for event in ONE_OF_EACH} == KINDS


@given(batches())
def test_any_batch_comes_back_to_the_bit(batch: EpochsEnded) -> None:
    assert decode_line(encode_line(batch)) == batch


def test_the_version_is_written_though_it_is_a_default() -> None:
    assert json.loads(encode_line(RunStarted(run_id="a")))["version"] == RECORD_VERSION


def test_what_a_bulk_decoder_made_can_be_written_too() -> None:
    batch = EpochsEnded(epochs=array("q", [3]), metrics={"loss": array("d", [0.5])})
    assert decode_line(encode_line(batch)) == EpochsEnded(epochs=[3], metrics={"loss": [0.5]})


@given(texts, texts)
def test_a_text_that_utf8_does_not_know_costs_no_line(name: str, error: str) -> None:
    for event in (RunEnded(how="failed", error=error), Progress(epoch=0, step=0, metrics={name: 1.0})):
        written = encode_line(event)
        assert not isinstance(decode_line(written), Malformed)
        assert written.count(b"\n") == 1


def test_a_lone_surrogate_is_written_escaped() -> None:
    written = encode_line(CheckpointSaved(epoch=0, path="m\udc80.keras"))
    assert decode_line(written) == CheckpointSaved(epoch=0, path="m\\udc80.keras")


def test_an_unknown_field_is_ignored() -> None:
    found = decode_line(line(event="heartbeat", time=1.0, mood="sunny", nested={"a": [1]}))
    assert found == Heartbeat(time=1.0)


@pytest.mark.parametrize(
    "event", ["from_the_future", "malformed", "tick", "record_replaced", "", None, 3, []]
)
def test_an_unknown_kind_is_malformed(event: object) -> None:
    found = decode_line(line(event=event, time=1.0, reason="x"), 12)
    assert isinstance(found, Malformed), (
        "tick, malformed and record_replaced come from readers, never from a file"
    )
    assert found.line == 12


@pytest.mark.parametrize("odd", [[1, 2], {"a": 1}, "text", True, 10**400, [[[]]]])
def test_a_value_that_is_no_number_costs_that_value_only(odd: object) -> None:
    found = taken(
        decode_line(epochs_line(metrics={"loss": [0.5, odd], "mae": [1, 2]}, learning_rate=[odd, 0.1]))
    )
    assert found.metrics == {"loss": [0.5, None], "mae": [1.0, 2.0]}
    assert found.learning_rate == [None, 0.1]
    assert found.not_numbers == ["loss"]


def test_a_column_that_is_no_list_costs_that_column_only() -> None:
    found = taken(decode_line(epochs_line(metrics={"loss": [0.5, 0.4], "mae": 3}, learning_rate=0.1)))
    assert found.metrics == {"loss": [0.5, 0.4]}
    assert found.learning_rate is None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"NaN", math.nan),
        (b"-Infinity", -math.inf),
        (b'"nan"', math.nan),
        (b'"-inf"', -math.inf),
        (b"1e400", math.inf),
        (b"1e-400", 0.0),
        (b"12345678901234567890123", 12345678901234567890123.0),
        (b"0.1000000000000000055511151231257827", 0.1),
        (b"null", None),
    ],
)
def test_a_number_is_read_however_another_writer_spells_it(written: bytes, read: float | None) -> None:
    found = decode_line(b'{"event":"epochs_ended","epochs":[0],"metrics":{"loss":[' + written + b"]}}")
    assert repr(taken(found).metrics["loss"]) == repr([read])


def test_a_lone_surrogate_of_another_writer_costs_no_line() -> None:
    found = decode_line(b'{"event":"epochs_ended","epochs":[0],"metrics":{"l\\ud800":[1]}}')
    assert list(taken(found).metrics.values()) == [[1.0]]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"metrics": {"loss": [0.5]}}, "a column shorter than the epochs"),
        ({"metrics": {"loss": [0.5, 0.4, 0.3]}}, "a column longer than the epochs"),
        ({"learning_rate": [0.1]}, "a learning rate shorter than the epochs"),
        ({"epochs": [0, -1]}, "an epoch below 0"),
        ({"epochs": [0, EPOCH_MAX + 1]}, "an epoch that no float could hold"),
        ({"epochs": [0, 10**400]}, "an epoch beyond all numbers"),
        ({"epochs": [0, 1.5]}, "half an epoch"),
        ({"epochs": [0, None]}, "no epoch"),
        ({"epochs": {"0": 1}}, "epochs that are no list"),
        ({"metrics": [["loss", 1]]}, "metrics that are no object"),
        ({"time": [1]}, "a time that is none"),
    ],
)
def test_a_batch_that_cannot_be_placed_is_malformed(fields: dict[str, Any], sentence: str) -> None:
    found = decode_line(epochs_line(**fields), 3)
    assert isinstance(found, Malformed), sentence
    assert found.line == 3


def test_columns_of_unequal_length_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="'loss' has 1 values for 2 epochs"):
        EpochsEnded(epochs=[0, 1], metrics={"loss": [0.5]})


@pytest.mark.parametrize("field", ["epochs", "steps"])
@pytest.mark.parametrize("value", [-1, 10**400, 1.5, "many"])
def test_a_plan_that_is_no_count_is_malformed(field: str, value: object) -> None:
    assert isinstance(decode_line(line(event="run_started", run_id="a", **{field: value})), Malformed)


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b" ",
            b"\n",
            b"{",
            b"}",
            b"[]",
            b"1",
            b'"x"',
            b"null",
            b"{}",
            b"\xff\xfe",
            b"\xef\xbb\xbf{}",
            b"\0" * 9,
        ),
        *(b"[" * 100_000, b'{"event":' * 5_000, b'{"event":"epochs_ended","epochs":' + b"[" * 5_000),
        b'{"event":"heartbeat","time":1' + b"0" * 5_000 + b"}",
        b'{"event":"heartbeat"} {"event":"heartbeat"}',
        encode_line(ONE_OF_EACH[1])[:-9],
    ],
)
def test_a_line_that_is_no_event_is_malformed(data: bytes) -> None:
    found = decode_line(data, 4)
    assert isinstance(found, Malformed)
    assert found.line == 4
    assert found.reason.startswith("no event of a cbmon record (")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({field for kind in get_args(RecordedEvent) for field in kind.__struct_fields__})


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_raise(data: bytes) -> None:
    decode_line(data)


@given(
    st.sampled_from(sorted(KINDS)),
    st.dictionaries(st.sampled_from(FIELDS), json_values | st.dictionaries(st.text(), st.lists(json_values))),
)
def test_no_fields_make_the_decoder_raise(kind: str, fields: dict[str, Any]) -> None:
    decode_line(line(**(fields | {"event": kind})))


@given(st.data())
def test_no_mutated_line_makes_the_decoder_raise(data: st.DataObject) -> None:
    written = bytearray(encode_line(data.draw(st.sampled_from(ONE_OF_EACH))))
    for _ in range(data.draw(st.integers(1, 4))):
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    decode_line(bytes(written))


def test_events_are_frozen() -> None:
    with pytest.raises(AttributeError):
        ONE_OF_EACH[0].time = 3.0  # type: ignore[misc]
    assert all(kind.__struct_config__.frozen for kind in get_args(RecordedEvent))
    assert issubclass(Malformed, msgspec.Struct)
