"""One block of runs under every policy of a plan: from recorded columns to cells and sums.

Rows are raw rows of the log here; `T` as a row means "not within". Nothing is random, and the sums are integers
and maxima, so blocks may be cut and ordered in any way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cbmon.replay import kernels
from cbmon.replay.blocks import (
    NO_OBSERVATION,
    NOT_WITHIN,
    REFUSED,
    Block,
    Bools,
    Cells,
    Floats,
    Ints,
    Judged,
    Longs,
    Looked,
    Totals,
    Whole,
    no_totals,
)
from cbmon.replay.canonical import Monitored
from cbmon.replay.plan import Cutter, Groups, Saver, Stopper

_CHUNK = 2**17
"""Cells joined at a time: their arrays of 8 bytes stay in a core's cache."""


def judge(groups: Groups, block: Block, with_cells: bool) -> Judged:
    """Judge every policy on every run of a block."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and ±inf are values
        return _Bench(groups, block).judge(with_cells)


@dataclass(slots=True)
class _Part:
    """The cells of some policies, shape (q, R)."""

    rows: Whole
    """Row of the stop (the first cut, the last save); T: none."""
    unobserved: Bools | None = None
    refused: Bools | None = None
    regret: Floats | None = None
    reductions: Whole | None = None
    lr_final: Floats | None = None
    saves: Whole | None = None
    exact: Bools | None = None


class _Bench:
    """A block with what all policies share."""

    def __init__(self, groups: Groups, block: Block) -> None:
        self.groups, self.block = groups, block
        self.rows, self.runs = block.epochs.shape
        self.run = np.arange(self.runs)
        self.live = np.arange(self.rows)[:, None] < block.lengths
        self.last = np.maximum(block.lengths - 1, 0)
        regret = block.seen - block.best
        regret[~np.isfinite(regret)] = np.nan
        self.regret_at = regret
        """Shape (T, R); if the weights of that row are kept."""
        self.no_best = bool(np.isnan(block.best).any())
        self.no_refusal = not any(looked.refused.any() for looked in block.looked.values())
        self.stopped = [_Stopped(stopper, self) for stopper in groups.stoppers]
        self.cuts = None if groups.cutter is None else _Cuts(groups.cutter, self, groups.kind == "stop")
        self.saves = None if groups.saver is None else _Saves(groups.saver, self)
        self.nan_rows, self.no_loss = None, None
        if groups.ends_on_nan:
            loss = block.looked[Monitored("TerminateOnNaN", "loss", "min")]
            bad = loss.present & ~np.isfinite(loss.values)
            self.nan_rows = np.where(bad.any(axis=0), bad.argmax(axis=0), self.rows)
            self.no_loss = ~loss.present.any(axis=0)
        self.kept_regret, self.kept_cell = self._kept_table() if groups.kind == "stop" else (None, None)

    def judge(self, with_cells: bool) -> Judged:
        count = self.groups.count
        totals, refused = no_totals(count), np.zeros(self.runs, np.int64)
        cells = self._empty_cells() if with_cells else None
        step = max(1, _CHUNK // self.runs)
        for start in range(0, count, step):
            chunk = slice(start, min(count, start + step))
            part = self._part(chunk, with_cells)
            self._refuse(part, chunk)
            self._add(totals, chunk, part)
            if part.refused is not None:
                refused += part.refused.sum(axis=0)
            if cells is not None:
                self._fill(cells, chunk, part)
        return Judged(numbers=self.block.numbers, totals=totals, refused=refused, cells=cells)

    def at_end(self, rows: Whole) -> Whole:
        """The row whose weights the model ends with: the stop's, or the run's last."""
        return np.where(rows < self.rows, rows, self.last)

    # -- the three kinds

    def _part(self, chunk: slice, with_cells: bool) -> _Part:
        if self.saves is not None:
            return self.saves.part(chunk, self)
        if self.groups.kind == "cut":
            assert self.cuts is not None
            return self.cuts.part(chunk, with_cells)
        rows, unobserved = self._stops(chunk)
        part = _Part(rows, unobserved, regret=self._regret(rows, chunk))
        if self.cuts is not None:
            self.cuts.join(part, chunk, with_cells)
        return part

    def _stops(self, chunk: slice) -> tuple[Whole, Bools | None]:
        """The earliest of all members; whoever has seen a value has an observation."""
        rows: Whole | None = None
        blind: Bools | None = None
        is_blind = True
        for stopped in self.stopped:
            own = stopped.rows[stopped.stopper.own[chunk]]
            rows = own if rows is None else np.minimum(rows, own)
            if not stopped.is_blind:
                is_blind = False
            elif is_blind:
                unseen = stopped.unobserved[stopped.stopper.held[chunk]]
                blind = unseen if blind is None else blind & unseen
        if self.nan_rows is not None and self.no_loss is not None:
            size = chunk.stop - chunk.start
            nan_rows = np.broadcast_to(self.nan_rows, (size, self.runs))
            rows = nan_rows.astype(np.int32) if rows is None else np.minimum(rows, nan_rows)
            unseen = np.broadcast_to(self.no_loss, (size, self.runs))
            blind = unseen if blind is None else blind & unseen
            is_blind = is_blind and bool(self.no_loss.any())
        assert rows is not None
        return rows, blind if is_blind else None

    def _kept_table(self) -> tuple[Floats | None, Longs | None]:
        """Regret by (row of the stop, held cell, run), where one member alone says what is kept.

        Shape (T + 1, cells, R); None where several members do.
        """
        ends = self.at_end(np.broadcast_to(np.arange(self.rows + 1)[:, None], (self.rows + 1, self.runs)))
        restoring = [stopped for stopped in self.stopped if stopped.stopper.restores]
        if not restoring:
            return self.regret_at.reshape(-1)[ends * self.runs + self.run][:, None], None
        (one, *others), is_lone = restoring, len(self.stopped) == 1 and self.nan_rows is None
        if others or not (is_lone or one.stopper.restores_unstopped):
            return None, None
        kept = np.where(one.held >= 0, one.held, ends[:, None])
        return self.regret_at.reshape(-1)[kept * self.runs + self.run], one.stopper.held

    def _regret(self, rows: Whole, chunk: slice) -> Floats:
        if self.kept_regret is not None:
            at = rows * np.int64(self.kept_regret[0].size) + self.run
            if self.kept_cell is not None:
                at += self.kept_cell[chunk, None] * self.runs
            return self.kept_regret.reshape(-1).take(at)
        kept = self.at_end(rows)
        for stopped in self.stopped:
            stopper = stopped.stopper
            if stopper.restores:
                held = stopped.held[rows, stopper.held[chunk, None], self.run]
                is_back = held >= 0
                if not stopper.restores_unstopped:
                    is_back &= (stopped.rows[stopper.own[chunk]] == rows) & (rows < self.rows)
                kept = np.where(is_back, held, kept)
        return self.regret_at[kept, self.run]

    # -- what is done with the cells

    def _refuse(self, part: _Part, chunk: slice) -> None:
        if self.no_refusal:
            return
        refused = np.zeros(part.rows.shape, np.bool_) if part.refused is None else part.refused
        for look in self.groups.looks:
            by_column = np.stack([self.block.looked[monitored].refused for monitored in look.monitored])
            refused |= by_column[look.column[chunk]]
        part.refused = refused

    def _add(self, totals: Totals, chunk: slice, part: _Part) -> None:
        """Sum the part up over its runs."""
        fired = part.rows < self.rows
        saved = np.maximum(self.last - part.rows, 0) if self.groups.kind == "stop" else None
        judged = None if not self.no_best else np.broadcast_to(~np.isnan(self.block.best), fired.shape)
        if part.refused is not None:
            fired &= ~part.refused
            judged = ~part.refused if judged is None else judged & ~part.refused
            if part.unobserved is not None:
                part.unobserved = part.unobserved & ~part.refused
            if saved is not None:
                saved[part.refused] = 0
            totals.refused[chunk] = part.refused.sum(axis=1)
        if part.unobserved is not None:
            judged = ~part.unobserved if judged is None else judged & ~part.unobserved
            totals.unobserved[chunk] = part.unobserved.sum(axis=1)
        totals.runs[chunk] = self.runs if judged is None else judged.sum(axis=1)
        totals.fired[chunk] = fired.sum(axis=1)
        if saved is not None:
            totals.saved[chunk] = saved.sum(axis=1, dtype=np.int64)
        if part.exact is not None:
            totals.counterfactual[chunk] = (fired & ~part.exact).sum(axis=1)
        if part.regret is not None:
            if part.exact is not None:
                part.regret[~part.exact] = np.nan
            regret = part.regret
            fine = regret <= self.block.allowed
            if self.groups.keep == "last":
                fine |= ~fired
            fine = fine if judged is None else fine | ~judged
            totals.harmful[chunk] = self.runs - fine.sum(axis=1)
            within = regret if judged is None else np.where(judged, regret, 0.0)
            totals.worst[chunk] = np.fmax(np.fmax.reduce(within, axis=1), 0.0)

    def _empty_cells(self) -> Cells:
        shape, kind = (self.groups.count, self.runs), self.groups.kind
        has_cuts = self.cuts is not None
        return Cells(
            stops=np.empty(shape, np.int32),
            saved=np.zeros(shape, np.int32),
            regret=None if kind == "cut" else np.empty(shape),
            reductions=np.empty(shape, np.int32) if has_cuts else None,
            lr_final=np.empty(shape) if has_cuts else None,
            saves=np.empty(shape, np.int32) if kind == "save" else None,
            exact=np.empty(shape, np.bool_) if has_cuts and kind == "stop" else None,
        )

    def _fill(self, cells: Cells, chunk: slice, part: _Part) -> None:
        """Copy the part into the block's cells, as `Sweep` shows them."""
        fired = part.rows < self.rows
        numbers = np.vstack([self.block.epochs, np.full((1, self.runs), NOT_WITHIN)])
        stops = numbers.reshape(-1).take(part.rows * np.int64(self.runs) + self.run)
        if part.unobserved is not None:
            stops[part.unobserved & ~fired] = NO_OBSERVATION
        for name in ("regret", "reductions", "lr_final", "saves", "exact"):
            target, source = getattr(cells, name), getattr(part, name)
            if target is not None:
                target[chunk] = source
                if part.refused is not None:
                    target[chunk][part.refused] = np.nan if target.dtype == np.float64 else 0
        if self.groups.kind == "stop":
            cells.saved[chunk] = np.maximum(self.last - part.rows, 0)
        if part.refused is not None:
            stops[part.refused] = REFUSED
            cells.saved[chunk][part.refused] = 0
        cells.stops[chunk] = stops


# --- what a member sees --------------------------------------------------------------------------------------


class _Seen:
    """A monitored column without the rows in which it is absent."""

    def __init__(self, looked: Looked, bench: _Bench) -> None:
        self.values, self.epochs, self.counts = looked.values, bench.block.epochs, bench.block.lengths
        self.sign, self.rows, self.runs = looked.sign, bench.rows, bench.runs
        self.raw_of: Longs | None = None
        """Shape (T + 1, R); the raw row of each row left, T of T; None: no row is taken out."""
        self.left_until: Longs | None = None
        """Shape (T, R); the last row left up to each raw row, -1: none."""
        if not np.array_equal(looked.present, bench.live):
            order = np.argsort(~looked.present, axis=0, kind="stable")
            self.counts = looked.present.sum(axis=0)
            self.values = np.take_along_axis(self.values, order, axis=0)
            self.epochs = np.take_along_axis(self.epochs, order, axis=0)
            self.raw_of = np.vstack([order, np.full((1, self.runs), self.rows)])
            self.left_until = np.cumsum(looked.present, axis=0) - 1
        self.live = np.arange(self.rows)[:, None] < self.counts

    def raw(self, rows: Whole) -> Whole:
        """Raw rows; the last axis is the run."""
        if self.raw_of is None:
            return rows
        flat: Any = self.raw_of.astype(kernels.row_type(self.rows)).reshape(-1)
        found: Whole = np.take(flat, rows * np.int64(self.runs) + np.arange(self.runs))
        return found

    def shifted(self, deltas: Floats, in_float32: bool) -> tuple[kernels.Floating, kernels.Floating]:
        """The values plus each min_delta, shape (T, D, R), and the values, as Keras compares them."""
        values = self.values[:, None] + deltas[:, None]
        if in_float32:
            return kernels.compared(values), kernels.compared(self.values)
        return values, self.values


def _nothing(present: Bools) -> Bools:
    """Runs without a single value; shape (R,)."""
    nothing: Bools = np.logical_and.reduce(~present, axis=0)
    return nothing


class _Stopped:
    """One EarlyStopping on a block."""

    def __init__(self, stopper: Stopper, bench: _Bench) -> None:
        self.stopper = stopper
        parts = [self._column(_Seen(bench.block.looked[one], bench), bench) for one in stopper.monitored]
        rows, held, unobserved = zip(*parts, strict=True)
        self.rows: Whole = rows[0] if len(rows) == 1 else np.concatenate(rows)
        """Shape (own policy, R); T: none."""
        self.held: Whole = held[0] if len(held) == 1 else np.concatenate(held, axis=1)
        """Shape (T + 1, held cell, R); the row whose weights are held after that row (T: at the end), -1: none."""
        self.unobserved: Bools = np.concatenate(unobserved)
        """Shape (held cell, R)."""
        self.is_blind = bool(self.unobserved.any())

    def _column(self, seen: _Seen, bench: _Bench) -> tuple[Whole, Whole, Bools]:
        stopper, runs = self.stopper, bench.runs
        admitted = seen.live[:, None] & (seen.epochs[:, None] >= stopper.starts[:, None])
        value, reference = seen.shifted(stopper.deltas, stopper.in_float32)
        improved = kernels.improvements(
            value, reference[:, None], admitted, is_first_free=stopper.is_first_free
        )
        beats = None
        if not np.isnan(stopper.baselines).all():
            baselines = stopper.baselines[:, None] * seen.sign
            rounded = kernels.compared(baselines) if stopper.in_float32 else baselines
            beats = (value[:, :, None] < rounded) | np.isnan(baselines)
        stops = kernels.early_stops(improved, beats, admitted, seen.epochs > 0, stopper.patiences)
        unobserved = np.broadcast_to(~admitted.any(axis=0), (len(stopper.deltas), *admitted.shape[1:]))
        held = (
            self._held(improved, admitted, seen, bench)
            if stopper.restores
            else np.empty((0, 0, runs), np.int32)
        )
        # The baselines that are None share one place; the kernel has as many as there are.
        return seen.raw(stops).reshape(-1, runs), held, unobserved.reshape(-1, runs)

    def _held(self, improved: Bools, admitted: Bools, seen: _Seen, bench: _Bench) -> Whole:
        rows, cells, runs = bench.rows, improved[0].size // bench.runs, bench.runs
        kind = kernels.row_type(rows)
        is_first = admitted.copy()
        is_first[1:] &= ~admitted[:-1]
        number = np.arange(rows, dtype=kind)[:, None, None, None]
        held = np.where(improved | is_first[:, None], number, kind(-1)).reshape(rows, cells, runs)
        np.maximum.accumulate(held, axis=0, out=held)
        if seen.left_until is not None:
            until = seen.left_until[:, None]
            held = np.where(until >= 0, np.take_along_axis(held, until.clip(min=0), axis=0), kind(-1))
            held = np.where(held >= 0, seen.raw(held.clip(min=0)), kind(-1))
        at_end = np.full((1, cells, runs), -1, kind)
        if self.stopper.restores_unstopped:
            at_end = np.take_along_axis(held, bench.last[None, None], axis=0)
        return np.concatenate([held, at_end])


class _Cuts:
    """ReduceLROnPlateau on a block."""

    def __init__(self, cutter: Cutter, bench: _Bench, is_joined: bool) -> None:
        self.cutter, self.bench = cutter, bench
        block, runs = bench.block, bench.runs
        parts = [self._column(_Seen(block.looked[one], bench), one, bench) for one in cutter.monitored]
        per_column = len(cutter.deltas) * len(cutter.patiences) * len(cutter.cooldowns)
        shape = (len(parts) * per_column, runs)
        cell = np.concatenate(
            [cells + number * per_column * runs for number, (cells, _, _) in enumerate(parts)]
        )
        row = np.concatenate([rows for _, rows, _ in parts])
        order = np.concatenate([numbers for _, _, numbers in parts])
        self.count = np.bincount(cell, minlength=shape[0] * runs).astype(np.int32).reshape(shape)
        """Shape (own policy, R); reductions, were there no floor."""
        self.first = np.full(shape, bench.rows, np.int32)
        self.first.reshape(-1)[cell[order == 0]] = row[order == 0]
        self.unobserved = np.concatenate(
            [
                np.repeat(_nothing(block.looked[one].present)[None], per_column, axis=0)
                for one in cutter.monitored
            ]
        )
        self.is_blind = bool(self.unobserved.any())
        most = int(self.count.max(initial=0))
        self.rates, self.limit = self._rates(most)
        factors, floors = np.array(cutter.rates).T
        is_needed = (floors > 0) | ((factors <= 0) & (floors < 0))
        self.needs = is_needed[:, None] & ~block.is_rate_known
        """Shape (rate, R); whether a first cut cannot be told without the learning rate."""
        self.may_need = bool(self.needs.any())
        self.until: Ints | None = None
        """Shape (T + 1, own policy, R); reductions up to and with each row (T: in all)."""
        self.pair = np.zeros(0, np.int64)
        self.diverges = np.zeros((0, runs), np.int64)
        if is_joined:
            until = np.zeros((bench.rows + 1, shape[0] * runs), np.int32)
            until[row, cell] = 1
            self.until = np.cumsum(until, axis=0, dtype=np.int32, out=until).reshape(-1, *shape)
            self._find_divergence()

    def _column(self, seen: _Seen, monitored: Monitored, bench: _Bench) -> tuple[Whole, Whole, Whole]:
        cutter = self.cutter
        value: kernels.Floating
        reference: kernels.Floating
        if cutter.shifts_value:
            value, plain = seen.shifted(cutter.deltas, in_float32=True)
            reference = plain[:, None]
        else:
            value, reference = seen.values[:, None], seen.values[:, None] - cutter.deltas[:, None]
        improved = kernels.improvements(
            value, reference, seen.live[:, None], is_first_free=cutter.shifts_value
        )
        cells, rows, numbers = kernels.reductions(
            improved[:, :, 0], seen.counts, cutter.patiences, cutter.cooldowns
        )
        if seen.raw_of is not None:
            rows = seen.raw_of[rows, cells % bench.runs]
        return cells, rows, numbers

    def _rates(self, most: int) -> tuple[Floats, Ints]:
        """The learning rate after each number of cuts, (most + 1, rate, R), and how many there are at most.

        `max(lr · factor, min_lr)`, rounded to float32 each time, while it lies above the floor. Unknown rates
        (NaN) have no floor, but a cut to 0 is the last.
        """
        block, cutter = self.bench.block, self.cutter
        factor, floor = (column[:, None] for column in np.array(cutter.rates).T)
        rounded_floor = floor.astype(np.float32).astype(np.float64)
        shape = (len(cutter.rates), self.bench.runs)
        rates, limit = np.empty((most + 1, *shape)), np.zeros(shape, np.int32)
        rates[0] = block.first_rate
        known = np.broadcast_to(block.is_rate_known, shape)
        for number in range(most):
            rate = rates[number]
            is_cut = rate > rounded_floor
            if cutter.float32_cut:
                product = (
                    (rate * factor.astype(np.float32).astype(np.float64))
                    .astype(np.float32)
                    .astype(np.float64)
                )
            else:
                product = rate * factor
            reduced = np.where(floor > product, floor, product).astype(np.float32)
            rates[number + 1] = np.where(is_cut, reduced, rate)
            limit += is_cut
        unlimited = np.where((factor > 0) & (floor <= 0), np.iinfo(np.int32).max, 1)
        return rates, np.where(known, limit, unlimited).astype(np.int32)

    def _find_divergence(self) -> None:
        """The first row trained at another learning rate than the recorded one (without one: than the first)."""
        cutter, bench, block = self.cutter, self.bench, self.bench.block
        assert self.until is not None
        pairs, self.pair = np.unique(cutter.own * len(cutter.rates) + cutter.rate, return_inverse=True)
        own, rate = pairs // len(cutter.rates), pairs % len(cutter.rates)
        diverges = np.full((len(pairs), bench.runs), bench.rows, np.int64)
        for row in range(bench.rows):
            made = np.minimum(self.until[row - 1][own], self.limit[rate]) if row else np.zeros_like(diverges)
            now = self.rates[np.minimum(made, len(self.rates) - 1), rate[:, None], bench.run]
            expected = np.broadcast_to(block.first_rate, now.shape)
            if block.recorded is not None and block.is_recorded is not None:
                has_any = block.is_recorded.any(axis=0)
                expected = np.where(
                    block.is_recorded[row], block.recorded[row], np.where(has_any, now, expected)
                )
            is_other = (now != expected) & ~(np.isnan(now) & np.isnan(expected))
            is_other = np.where(block.is_rate_known, is_other, made > 0)
            is_other &= bench.live[row]
            diverges[is_other & (diverges == bench.rows)] = row
        self.diverges = diverges

    def part(self, chunk: slice, with_cells: bool) -> _Part:
        """Alone."""
        own, rate = self.cutter.own[chunk], self.cutter.rate[chunk]
        limit, count = self.limit[rate], self.count[own]
        rows = np.where(limit > 0, self.first[own], self.bench.rows)
        part = _Part(rows, self.unobserved[own] if self.is_blind else None)
        self._cut(part, count, own, rate, with_cells)
        return part

    def join(self, part: _Part, chunk: slice, with_cells: bool) -> None:
        """Beside what stops: up to the stop, its epoch included."""
        assert self.until is not None
        own, rate = self.cutter.own[chunk], self.cutter.rate[chunk]
        count = self.until[part.rows, own[:, None], self.bench.run]
        diverges = self.diverges[self.pair[chunk]]
        part.exact = (diverges > part.rows) | (diverges == self.bench.rows)
        self._cut(part, count, own, rate, with_cells)

    def _cut(self, part: _Part, count: Ints, own: Longs, rate: Longs, with_cells: bool) -> None:
        if self.may_need:
            needs = self.needs[rate] & (count > 0)
            part.refused = needs
        if with_cells:
            part.reductions = np.minimum(count, self.limit[rate])
            made = np.minimum(part.reductions, len(self.rates) - 1)
            part.lr_final = self.rates[made, rate[:, None], self.bench.run]


class _Saves:
    """ModelCheckpoint alone on a block."""

    def __init__(self, saver: Saver, bench: _Bench) -> None:
        self.saver = saver
        lasts, counts, unobserved = [], [], []
        for one in saver.monitored:
            looked = bench.block.looked[one]
            thresholds = saver.thresholds[:, None] * looked.sign
            if saver.in_float32:
                lows = kernels.record_lows(
                    kernels.compared(looked.values),
                    looked.present,
                    kernels.compared(thresholds),
                    is_first_free=True,
                )
            else:
                lows = kernels.record_lows(looked.values, looked.present, thresholds, is_first_free=False)
            if saver.saves_when_absent:
                lows |= (bench.live & ~looked.present)[:, None]
            last = bench.rows - 1 - lows[::-1].argmax(axis=0)
            lasts.append(np.where(lows.any(axis=0), last, bench.rows))
            counts.append(lows.sum(axis=0, dtype=np.int32))
            unobserved.append(np.repeat(_nothing(looked.present)[None], len(thresholds), axis=0))
        self.last, self.count = np.concatenate(lasts), np.concatenate(counts)
        self.unobserved = np.concatenate(unobserved)

    def part(self, chunk: slice, bench: _Bench) -> _Part:
        own = self.saver.own[chunk]
        rows = self.last[own]
        regret = bench.regret_at[bench.at_end(rows), bench.run]
        if bench.groups.keep == "last":
            regret = np.broadcast_to(bench.regret_at[bench.last, bench.run], rows.shape).copy()
        else:
            regret[rows == bench.rows] = np.nan
        unobserved = self.unobserved[own] & (rows == bench.rows)
        return _Part(rows, unobserved if unobserved.any() else None, regret=regret, saves=self.count[own])
