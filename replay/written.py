"""What the callbacks that decide nothing would have written: CSVLogger's bytes, RemoteMonitor's requests, in words.

Pure functions of the parameters and of the logs as the callback saw them at its turn. Nothing is written or sent
here. Judges: tests/test_written.py drives the real CSVLogger and requests.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

from cbmon.errors import CannotReplay, NeedsLearningRate
from cbmon.profiles import Profile
from cbmon.replay.observers import (
    BackupAndRestore,
    BaseLogger,
    CSVLogger,
    History,
    Observer,
    ProgbarLogger,
    RemoteMonitor,
    SwapEMAWeights,
    TensorBoard,
)
from cbmon.units import display_epoch, plural

Row = tuple[int, Mapping[str, float | None]]
"""Epoch (0-based), and the logs as seen; None = the learning rate, which is there but unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How the training went, as far as the observers' words depend on it."""

    profile: Profile
    rows: Sequence[Row]
    """Logs at the observer's turn, one an epoch that ended."""
    not_numbers: frozenset[str]
    """Columns with cells that are lists or text."""
    steps: int | None
    """Batches an epoch."""
    has_ended: bool = True
    """Whether `on_train_end` came: not after TerminateOnNaN(raise_error=True)."""
    is_stopped_by_nan: bool = False


# --- CSVLogger -------------------------------------------------------------------------------------------


def csv_log(policy: CSVLogger, course: Course) -> bytes:
    """The file as Keras writes it on Linux and macOS, in UTF-8.

    Its columns are those of the first row, sorted; where none begins with `val_`, each is there twice (from
    2.13 on).

    Raises:
        NeedsLearningRate: A column holds the learning rate, and it is unknown.
        CannotReplay: A cell was a list or text, of which only that is known.
    """
    if course.not_numbers:
        name = min(course.not_numbers)
        raise CannotReplay(
            f"{_name(policy)}: some cells of {name!r} are lists or text, which are not kept: no file"
        )
    profile, text = course.profile, io.StringIO(newline="")
    keys: list[str] = sorted(course.rows[0][1]) if course.rows else []
    if profile.pads_csv and not any(key.startswith("val_") for key in keys):
        keys += [f"val_{key}" for key in keys]
    writer = csv.writer(text, delimiter=policy.separator)
    for number, (epoch, logs) in enumerate(course.rows):
        if not number:
            writer.writerow(["epoch", *keys])
        writer.writerow([epoch, *(_cell(key, logs, profile) for key in keys)])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _cell(key: str, logs: Mapping[str, float | None], profile: Profile) -> object:
    if key not in logs:
        return "NA"
    value = logs[key]
    if value is None:
        raise NeedsLearningRate(f"the column {key!r}")
    if key == profile.learning_rate_key and not profile.is_keras_3:
        import numpy as np  # only here

        return str(np.float32(value))  # Keras 2 logs the variable's float32, which prints as such
    return value


# --- RemoteMonitor ---------------------------------------------------------------------------------------


def requests(policy: RemoteMonitor, rows: Sequence[Row]) -> tuple[list[dict[str, Any]], int]:
    """What it would send, one an epoch, and how many `requests` refuses to send.

    As JSON it refuses NaN and infinity; as a form they go out as `NaN` and `Infinity`. An address without
    http:// is refused too. Keras then warns that it could not reach the server, and goes on.

    Raises:
        NeedsLearningRate: The logs hold the learning rate, and it is unknown.
    """
    url = policy.root + policy.path
    headers = dict(policy.headers or {})
    kind = "application/json" if policy.send_as_json else "application/x-www-form-urlencoded"
    kind = next((str(value) for name, value in headers.items() if str(name).lower() == "content-type"), kind)
    sent: list[dict[str, Any]] = []
    for epoch, logs in rows:
        if None in logs.values():
            raise NeedsLearningRate("the request of RemoteMonitor")
        payload = {"epoch": epoch, **logs}
        try:
            body = json.dumps(payload, allow_nan=not policy.send_as_json)
        except ValueError:
            continue
        if not policy.send_as_json:
            body = urlencode({policy.field: body})
        if re.match(r"\s*https?://[^/]", url, re.IGNORECASE):
            request = {"epoch": epoch, "method": "POST", "url": url, "content_type": kind}
            sent.append({**request, "headers": headers, "body": body})
    return sent, len(rows) - len(sent)


# --- words -----------------------------------------------------------------------------------------------


def words(policy: Observer, course: Course) -> str:
    """What an observer would have done, for people; epochs 1-based."""
    match policy:
        case CSVLogger():
            return _csv_words(course)
        case RemoteMonitor():
            return _remote_words(policy, course)
        case TensorBoard():
            return _board_words(policy, course)
        case BackupAndRestore():
            return _backup_words(policy, course)
        case SwapEMAWeights():
            return (
                "decides nothing here: it needs an optimizer with use_ema=True, which no log tells, and the "
                "validation would be that of averaged weights"
            )
        case BaseLogger() if not course.profile.is_keras_3:
            return "decides nothing; in a fit of TensorFlow 2 it raises KeyError: 'metrics'"
        case History() | ProgbarLogger():
            return "decides nothing, and Keras adds one by itself"
        case _:
            return "decides nothing"


def _csv_words(course: Course) -> str:
    if not course.rows:
        return "writes an empty file"
    columns = ", ".join(["epoch", *sorted(course.rows[0][1])])
    return f"writes {plural(len(course.rows), 'row')} ({columns}); --write FILE makes the file"


def _remote_words(policy: RemoteMonitor, course: Course) -> str:
    try:
        sent, refused = requests(policy, course.rows)
    except NeedsLearningRate:
        return "posts the learning rate too, and this log has none: --learning-rate tells the requests"
    if not sent:
        return (
            f"would post nothing: {plural(refused, 'request')} refused" if refused else "would post nothing"
        )
    first = sent[0]
    body = first["body"]
    if not policy.send_as_json:
        body = f"{policy.field}={parse_qs(body)[policy.field][0]}"  # as the server reads it
    text = f"would post {plural(len(sent), 'time')} to {first['url']} ({first['content_type']}), first {body}"
    return f"{text}; {refused} with NaN or infinity are dropped" if refused else text


def _board_words(policy: TensorBoard, course: Course) -> str:
    """Tags and steps (KERAS §6): epochs 0-based there, as TensorBoard shows them."""
    profile, rows = course.profile, course.rows
    names = list(dict.fromkeys(name for _, logs in rows for name in logs))
    rate = profile.learning_rate_key
    train = [f"epoch_{name}" for name in names if not name.startswith("val_")]
    if profile.is_keras_3 and f"epoch_{rate}" not in train:
        train.append(f"epoch_{rate}")
    tested = [f"epoch_{name.removeprefix('val_')}" for name in names if name.startswith("val_")]
    if not rows:
        return "writes no point"
    is_gated = profile.gates_board and policy.update_freq != "epoch"
    steps = _gated_steps(_board_every(policy), course) if is_gated else _all_steps(rows)
    text = f"writes {', '.join(train)} to {policy.log_dir}/train"
    if tested:
        text += f" and {', '.join(tested)} to {policy.log_dir}/validation"
    return "; ".join([f"{text}, {steps}", *_board_extras(policy, profile, bool(tested))])


def _board_every(policy: TensorBoard) -> float:
    """Batches between two points; "batch" and all that is no number are each batch."""
    return policy.update_freq if isinstance(policy.update_freq, int | float) else 1


def _all_steps(rows: Sequence[Row]) -> str:
    return f"at steps {rows[0][0]}-{rows[-1][0]}" if len(rows) > 1 else f"at step {rows[0][0]}"


def _board_extras(policy: TensorBoard, profile: Profile, is_tested: bool) -> Iterator[str]:
    """What comes beside the epochs' points; none of it hangs on the values in a log."""
    every, has_batches = _board_every(policy), policy.update_freq != "epoch"
    is_gated = profile.gates_board and has_batches and every != 1
    if profile.is_keras_3 and has_batches:
        at = f"every {every} batches" if is_gated else "at every batch"
        at += "" if profile.can_double_checkpoint else ", all at step 0"  # until 3.6
        yield f"the training metrics as batch_* {at}"
    if is_tested:
        at = (
            f"where the count of validation batches is a multiple of {every}"
            if is_gated
            else "each validation"
        )
        yield f"evaluation_*_vs_iterations {at}"
    if policy.write_graph:
        yield "the graph of a Sequential or functional model"
    if policy.histogram_freq:
        yield "histograms of the weights" + ("" if is_gated else f" (histogram_freq={policy.histogram_freq})")


def _gated_steps(every: float, course: Course) -> str:
    """Keras 3.15 with a number for `update_freq`: epochs are told only where it divides the count of batches."""
    if every == 1:
        return _all_steps(course.rows)
    if course.steps is None:
        return (
            f"after the epochs at whose end the count of batches is a multiple of {every} "
            "(--steps-per-epoch tells which)"
        )
    told = [epoch for row, (epoch, _) in enumerate(course.rows, 1) if row * course.steps % every == 0]
    if not told:
        return f"at no step: no epoch ends at a multiple of {every} batches"
    if len(told) == len(course.rows):
        return _all_steps(course.rows)
    return f"only at steps {', '.join(map(str, told[:5]))}{', …' if len(told) > 5 else ''}"


def _backup_words(policy: BackupAndRestore, course: Course) -> str:
    if not course.rows:
        return "saves nothing"
    if course.is_stopped_by_nan and policy.delete_checkpoint and course.has_ended:
        return f"TerminateOnNaN ends the training normally, so it deletes {policy.backup_dir}"
    last = course.rows[-1][0]
    resumed = _resumed_epoch(policy, course)
    if resumed is None:
        begins = "where a resume starts depends on the batches: --steps-per-epoch tells"
    elif resumed < 0:
        begins = "a resume would start from the beginning: nothing is saved by then"
    else:
        begins = f"a resume would start at epoch {display_epoch(resumed)}"
    text = f"after a crash in epoch {display_epoch(last)}, {begins}"
    if not course.has_ended:
        return text
    if policy.delete_checkpoint:
        return f"{text}; at the end of training it deletes {policy.backup_dir}"
    return f"{text}; it keeps {policy.backup_dir}, and the next fit starts at epoch {display_epoch(last + 1)}"


def _resumed_epoch(policy: BackupAndRestore, course: Course) -> int | None:
    """Where a resume starts after a crash at the end of the last epoch's batches; -1 = nothing is saved.

    What is saved is the number of epochs that had ended, also by a save within an epoch.
    """
    epochs = [epoch for epoch, _ in course.rows]
    if policy.save_freq == "epoch":
        return epochs[-2] + 1 if len(epochs) > 1 else -1
    if course.steps is None:
        return None
    every = max(1, int(policy.save_freq))  # type: ignore[call-overload]  # checked: an int
    saved = len(epochs) * course.steps // every * every
    if not saved:
        return -1
    row = (saved - 1) // course.steps
    return epochs[row - 1] + 1 if row else 0


def _name(policy: Observer) -> str:
    return type(policy).__name__
