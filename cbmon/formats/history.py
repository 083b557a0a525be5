"""`History.history` as people dump it: one JSON object of equally long lists, a list per metric."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cbmon.events import EPOCH_MAX, EpochsEnded, Event, Malformed, Values, is_number
from cbmon.series import is_learning_rate

SIZE_MAX = 64 << 20
"""64 MiB: such a file is read whole; a History of 100,000 epochs and 20 metrics has 40 MB."""


class HistoryDecoder:
    """Decodes the one JSON object as soon as it is complete."""

    def __init__(self) -> None:
        self._data = bytearray()
        """The object as far as it has come."""
        self._done = False
        self._has_more = False
        """Something follows the object."""

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes; gives the one batch once the object is complete."""
        if self._done:
            self._has_more |= bool(data.strip())
            return []
        self._data += data[: SIZE_MAX + 1 - len(self._data)]
        if b"}" not in data:
            return []
        text = self._data.decode("utf-8-sig", "replace").lstrip()
        try:
            history, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return []
        self._done, self._has_more = True, bool(text[end:].strip())
        self._data.clear()
        return decode_history(history)

    def finish(self) -> list[Event]:
        """The file ends here: an object that is not complete, and text after it, are named."""
        if self._done:
            return [Malformed(reason="left out, more text after the JSON object")] if self._has_more else []
        if len(self._data) > SIZE_MAX:
            return [Malformed(reason=f"larger than {SIZE_MAX >> 20} MiB: not read as a Keras History")]
        return [Malformed(reason="the JSON object is not complete")] if self._data.strip() else []


def decode_history(history: object) -> list[Event]:
    """Events of a decoded `History.history`: `{"loss": [...], "val_loss": [...]}`, one value an epoch.

    A list shorter than the longest one (validation every n-th epoch) is placed where only one n explains its
    length; otherwise which epochs it belongs to is unknown and it is left out by name.
    """
    if not isinstance(history, dict):
        return [Malformed(reason="no JSON object of lists")]
    lists = {name: column for name, column in history.items() if isinstance(column, list)}
    count = max(map(len, lists.values()), default=0)
    events: list[Event] = []
    epochs: Sequence[int] = range(count)
    numbers = lists.get("epoch", [])
    if len(numbers) == count and all(type(number) is int and 0 <= number <= EPOCH_MAX for number in numbers):
        epochs = lists.pop("epoch", [])
    metrics: dict[str, Values] = {}
    not_numbers: list[str] = []
    for name, column in lists.items():
        placed = _place(column, count)
        if placed is None:
            reason = f"{name!r} has {len(column)} values for {count} epochs: left out, which epochs is not recorded"
            events.append(Malformed(reason=reason))
            continue
        metrics[name] = [float(value) if is_number(value) else None for value in placed]
        if any(value is not None and not is_number(value) for value in placed):
            not_numbers.append(name)
    rate = next((metrics.pop(name) for name in list(metrics) if is_learning_rate(name)), None)
    if count:
        events.append(
            EpochsEnded(epochs=epochs, metrics=metrics, learning_rate=rate, not_numbers=not_numbers)
        )
    return events


def _place(column: list[object], count: int) -> list[object] | None:
    """A list as long as the run, absent where validation did not run; None if its places are unknown."""
    if len(column) == count:
        return column
    steps = [step for step in range(2, count + 1) if count // step == len(column)] if column else []
    if len(steps) != 1:
        return None
    placed: list[object] = [None] * count
    placed[steps[0] - 1 :: steps[0]] = column
    return placed
