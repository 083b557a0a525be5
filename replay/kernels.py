"""The vectorised bodies of the policies: arrays in, arrays out, no policy objects and no Keras versions.

Everything is time-major, and the run is the last axis, so that one epoch is one contiguous operation. `T` rows,
`R` runs, `D` min_deltas, `S` starts, `B` baselines, `P` patiences, `C` cooldowns. Rows in which the metric is
absent are taken out beforehand (the callbacks do not see them), "max" is "min" of the negated series, and
padding below a shorter run is inert because it is never admitted. What each step means is in `cbmon.policies`;
tests/test_kernels.py folds the two over the same curves.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floating: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[np.signedinteger[Any]]

_SMALLEST_NORMAL = np.float32(2.0**-126)


def row_type(rows: int) -> type[np.int16] | type[np.int32]:
    """The smallest integer that numbers `rows` rows, and one more."""
    return np.int16 if rows < 2**15 - 1 else np.int32


def compared(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """What TensorFlow compares: float32, denormals as 0. What it refuses (finite, beyond) is the caller's."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    rounded[np.abs(rounded) < _SMALLEST_NORMAL] = 0
    return rounded


def improvements(value: Floating, reference: Floating, admitted: Flags, *, is_first_free: bool) -> Flags:
    """Where a value is better than the best one before it.

    A row improves if `value < best`, and then its `reference` becomes the best. So a shift by min_delta lies either
    in `value` (EarlyStopping) or in `reference` (ReduceLROnPlateau before Keras 3.11).

    Args:
        value: Shape (T, D or 1, R).
        reference: Shape (T, D or 1, R).
        admitted: Shape (T, S, R); rows that the policy sees. In each column a stretch.
        is_first_free: Whether the first admitted row improves whatever it is, even NaN; else it must beat +inf.

    Returns:
        Shape (T, D, S, R).
    """
    rows, starts, runs = admitted.shape
    deltas = max(value.shape[1], reference.shape[1])
    best = np.full((deltas, starts, runs), np.inf, reference.dtype)
    improved = np.empty((rows, deltas, starts, runs), np.bool_)
    seen = np.zeros((starts, runs), np.bool_)
    for row in range(rows):
        now = improved[row]
        np.less(value[row][:, None], best, out=now)
        if is_first_free and not seen.all():
            now |= ~seen
            seen |= admitted[row]
        now &= admitted[row]
        np.copyto(best, reference[row][:, None], where=now)
    return improved


def early_stops(
    improved: Flags, beats: Flags | None, admitted: Flags, checked: Flags, patiences: npt.NDArray[np.int64]
) -> Rows:
    """The first row at which each patience ends.

    Args:
        improved: Shape (T, D, S, R).
        beats: Shape (T, D, B, R); where the value is better than the baseline too. None: there is no baseline.
        admitted: Shape (T, S, R).
        checked: Shape (T, R); rows at which Keras would stop at all.
        patiences: Shape (P,); rising, at least 1.

    Returns:
        Shape (P, D, S, B, R): the row, T where there is none.
    """
    rows, deltas, starts, runs = improved.shape
    baselines = 1 if beats is None else beats.shape[2]
    shape, kind = (deltas, starts, baselines, runs), row_type(rows)
    # The largest patience that a wait of w rows satisfies, counted from 1; what a wait is compared with.
    rank_of = np.searchsorted(patiences, np.arange(rows + 1), side="right").astype(np.int32)
    first = np.where(admitted.any(axis=0), admitted.argmax(axis=0), rows)
    reset = np.empty(shape, kind)
    reset[:] = (first - 1)[None, :, None]
    reached = np.zeros(shape, np.int32)
    stops = np.full((len(patiences), *shape), rows, kind)
    flat_stops, flat_reached = stops.reshape(len(patiences), -1), reached.reshape(-1)
    waits, ranks, new = np.empty(shape, kind), np.empty(shape, np.int32), np.empty(shape, np.bool_)
    for row in range(rows):
        now = improved[row][:, :, None]
        np.copyto(reset, kind(row), where=now if beats is None else now & beats[row][:, None])
        np.subtract(kind(row), reset, out=waits)
        np.take(rank_of, waits, out=ranks, mode="clip")
        np.greater(ranks, reached, out=new)
        new &= ~now
        new &= (admitted[row] & checked[row])[None, :, None]
        cells = np.flatnonzero(new)
        if cells.size:
            rank = ranks.reshape(-1)[cells]
            flat_reached[cells] = rank
            flat_stops[rank - 1, cells] = row
    # A wait that jumped over a smaller patience (a baseline unbeaten at improving rows) ended it too.
    for patience in range(len(patiences) - 2, -1, -1):
        np.minimum(stops[patience], stops[patience + 1], out=stops[patience])
    return stops


def reductions(
    improved: Flags, lengths: Rows, patiences: npt.NDArray[np.int64], cooldowns: npt.NDArray[np.int64]
) -> tuple[Rows, Rows, Rows]:
    """Where ReduceLROnPlateau reduces, were there no floor.

    Args:
        improved: Shape (T, D, R).
        lengths: Shape (R,); rows of each run.
        patiences: Shape (P,); at least 1.
        cooldowns: Shape (C,); at least 1: with 0 it counts from the same row on.

    Returns:
        One entry a reduction, for each policy in the order of time: its cell (index into the flattened
        (D, P, C, R)), its row, and its number, from 0.
    """
    rows, deltas, runs = improved.shape
    kind = row_type(rows)
    # next_cut[s]: the row of the next reduction, where counting begins at row s.
    next_cut = np.full((rows + 1, deltas, len(patiences), runs), rows, kind)
    stretch = np.zeros((deltas, runs), kind)
    ends = patiences.clip(max=rows + 1).astype(kind)
    for row in range(rows - 1, -1, -1):
        stretch += 1
        stretch[improved[row] | (row >= lengths)] = 0
        due = np.greater_equal(stretch[:, None], ends[None, :, None])
        np.copyto(next_cut[row], next_cut[row + 1])
        np.copyto(next_cut[row], (row - 1 + ends)[None, :, None].astype(kind), where=due)
    shape = (deltas, len(patiences), len(cooldowns), runs)
    places = np.arange(deltas * len(patiences) * runs).reshape(deltas, len(patiences), 1, runs)
    column = np.broadcast_to(places, shape).reshape(-1)
    pause = np.broadcast_to(cooldowns.clip(max=rows + 1)[:, None], shape).reshape(-1)
    flat, stride = next_cut.reshape(-1), next_cut[0].size
    cells = np.arange(column.size)
    at = flat[column].astype(np.int64)
    found: list[tuple[Rows, Rows, Rows]] = []
    while True:
        cells, at = cells[keep := at < rows], at[keep]
        if not cells.size:
            break
        column, pause = column[keep], pause[keep]
        found.append((cells, at, np.full(cells.size, len(found), np.int32)))
        at = flat[np.minimum(at + pause, rows) * stride + column].astype(np.int64)
    if not found:
        nothing: npt.NDArray[np.int64] = np.empty(0, np.int64)
        return nothing, nothing, nothing
    joined = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return joined[0], joined[1], joined[2]


def record_lows(values: Floating, present: Flags, threshold: Floating, *, is_first_free: bool) -> Flags:
    """Where ModelCheckpoint finds the metric better than ever.

    Args:
        values: Shape (T, R).
        present: Shape (T, R).
        threshold: Shape (B, R); to be beaten; NaN: none was given.
        is_first_free: Whether without one the first value is the best whatever it is; else it must beat +inf.

    Returns:
        Shape (T, B, R).
    """
    is_open = np.isnan(threshold)
    best = np.where(is_open, values.dtype.type(np.inf), threshold)
    is_open &= is_first_free
    lows = np.empty((len(values), *threshold.shape), np.bool_)
    for row, now in enumerate(lows):
        np.less(values[row], best, out=now)
        now |= is_open
        now &= present[row]
        is_open &= ~present[row]
        np.copyto(best, values[row], where=now)
    return lows
