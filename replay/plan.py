"""What of a grid is proven to be independent, and which arrays stand for its policies.

Callbacks of one list meet in three places only: the stop, the learning rate, and the logs (the learning rate's
key). So EarlyStopping and TerminateOnNaN join by the earliest epoch, ReduceLROnPlateau decides by itself up to
the stop, ModelCheckpoint and what only watches (CSVLogger, TensorBoard) change nothing; whoever decides becomes
a group of arrays for `kernels`. Whatever else is in a list sends the grid to the scalar engine, with the reason
in words. Policies that decide the same on any log (patience 0 and 1) are one: `canonical`.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

import numpy as np

from cbmon.errors import BadCall, KerasRefuses
from cbmon.policies import EarlyStopping, ModelCheckpoint, Monitor, ReduceLROnPlateau, TerminateOnNaN
from cbmon.profiles import Profile
from cbmon.replay.canonical import Indices, Monitored, Numbers, Varied
from cbmon.replay.grid import Grid
from cbmon.replay.observers import STOCK, Foreign

Kind: TypeAlias = Literal["stop", "cut", "save"]
Keep: TypeAlias = Literal["restored", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopper:
    """One EarlyStopping of the list: its own policies are the product monitored × P × D × S × B."""

    monitored: tuple[Monitored, ...]
    patiences: Indices
    """Shape (P,); rising, at least 1."""
    deltas: Numbers
    """Shape (D,); at least 0."""
    starts: Indices
    """Shape (S,)."""
    baselines: Numbers
    """Shape (B,); NaN: none."""
    own: Indices
    """Shape (policy,); index into the flattened product."""
    held: Indices
    """Shape (policy,); index into monitored × D × S, on which alone the best epoch depends."""
    restores: bool
    """Whether the kept weights are those of its best epoch."""
    restores_unstopped: bool
    in_float32: bool
    is_first_free: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutter:
    """The ReduceLROnPlateau of the list: its rows are the product monitored × D × P × C; rates cut them short."""

    monitored: tuple[Monitored, ...]
    deltas: Numbers
    """Shape (D,); at least 0 where they shift the value."""
    patiences: Indices
    cooldowns: Indices
    """Shape (C,); at least 1."""
    rates: tuple[tuple[float, float], ...]
    """(factor, min_lr)."""
    own: Indices
    """Shape (policy,)."""
    rate: Indices
    """Shape (policy,); index into `rates`."""
    shifts_value: bool
    """Whether min_delta shifts the value, rounded to float32; else the best, in float64 (before 3.11)."""
    float32_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Saver:
    """A ModelCheckpoint of the best only, alone: its policies are the product monitored × B."""

    monitored: tuple[Monitored, ...]
    thresholds: Numbers
    """Shape (B,); NaN: none."""
    own: Indices
    in_float32: bool
    saves_when_absent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One member that monitors: which of its columns each policy has."""

    monitored: tuple[Monitored, ...]
    column: Indices
    """Shape (policy,); index into `monitored`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The policies as arrays: all that a work unit needs."""

    kind: Kind
    keep: Keep
    count: int
    """Policies."""
    looks: tuple[Look, ...]
    """Every member that monitors, those that only may refuse included."""
    stoppers: tuple[Stopper, ...] = ()
    ends_on_nan: bool = False
    cutter: Cutter | None = None
    saver: Saver | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A grid, taken apart."""

    grid: Grid
    profile: Profile
    kind: Kind
    keep: Keep
    is_as_if_restored: bool
    """Whether the kept weights are the best though no callback of the list restores them."""
    judged: Monitored
    """What best and regret are about."""
    choices: Indices
    """Shape (policy, axis); the values of each canonical policy."""
    numbers: tuple[int, ...]
    """The same as numbers of the grid's policies."""
    equivalents: tuple[tuple[int, ...], ...]
    """Numbers of the grid's policies that each canonical policy stands for, in CALL order."""
    monitored: tuple[Monitored, ...]
    """Every column that some member looks at, those of members that only may refuse included."""
    text_refuses: frozenset[Monitored]
    """Those whose text cells make `replay` refuse."""
    reach: Mapping[Monitored, float]
    """Those compared in float32, and the largest min_delta added to their values."""
    groups: Groups | None
    """None: the grid leaves the vector road."""
    scalar: tuple[str, ...]
    """Why, in words."""

    @property
    def cuts(self) -> bool:
        """Whether some member reduces the learning rate."""
        return any(member.call.policy is ReduceLROnPlateau for member in self.grid.members)

    def __len__(self) -> int:
        return len(self.choices)


def make_plan(grid: Grid, profile: Profile, keep: Keep | None = None) -> Plan:
    """Take a grid apart.

    Args:
        grid: From `parse_grid`.
        profile: Which Keras decides.
        keep: Whose weights the regret is about; None = as restore_best_weights says.

    Raises:
        BadCall: There is nothing to judge, or no one way to judge it.
        KerasRefuses: Keras' constructor refuses a value of the grid.
    """
    _build_all(grid, profile)
    policies = [member.call.build(profile) for member in grid.members]
    kind = _kind(policies)
    varied = Varied(grid, profile, policies)
    scalar = tuple(dict.fromkeys(_reasons(varied, policies, profile)))
    for axis in grid.axes:
        if axis.argument == "restore_best_weights" and len({bool(value) for value in axis.values}) > 1:
            raise BadCall(
                "restore_best_weights says what the policies are judged by and takes no grid: sweep each by itself"
            )
    restores = [
        isinstance(policy, EarlyStopping) and bool(policy.restore_best_weights) for policy in policies
    ]
    if keep is None:
        keep = "restored" if any(restores) or kind == "save" else "last"
    is_as_if = keep == "restored" and kind == "stop" and not any(restores)
    monitored = [varied.monitored(place) for place in range(len(policies))]
    groups = None if scalar else _groups(varied, kind, keep, restores, is_as_if)
    return Plan(
        grid=grid,
        profile=profile,
        kind=kind,
        keep=keep,
        is_as_if_restored=is_as_if,
        judged=_judged(kind, policies, monitored),
        choices=varied.choices,
        numbers=varied.standing,
        equivalents=varied.equivalents,
        monitored=tuple(dict.fromkeys(one for some in monitored for one in some)),
        text_refuses=frozenset(
            one
            for policy, some in zip(policies, monitored, strict=True)
            for one in some
            if getattr(policy, "save_best_only", True)
        ),
        reach=_reach(varied, policies, monitored, profile),
        groups=groups,
        scalar=scalar,
    )


def _groups(varied: Varied, kind: Kind, keep: Keep, restores: Sequence[bool], is_as_if: bool) -> Groups:
    stoppers, looks = list[Stopper](), list[Look]()
    cutter, saver, ends_on_nan = None, None, False
    for place, policy in enumerate(varied.policies):
        if isinstance(policy, EarlyStopping):
            is_held = keep == "restored" and (restores[place] or is_as_if)
            stoppers.append(_stopper(varied, place, is_held, is_as_if or varied.profile.restores_unstopped))
        elif isinstance(policy, TerminateOnNaN):
            ends_on_nan = True
            nowhere = np.zeros(len(varied.choices), np.int64)
            looks.append(Look(monitored=tuple(varied.monitored(place)), column=nowhere))
        elif isinstance(policy, ReduceLROnPlateau):
            cutter = _cutter(varied, place)
        elif isinstance(policy, ModelCheckpoint) and kind == "save":
            saver = _saver(varied, place)
        if isinstance(policy, Monitor):
            looks.append(Look(monitored=tuple(varied.monitored(place)), column=_column(varied, place)[1]))
    return Groups(
        kind=kind,
        keep=keep,
        count=len(varied.choices),
        looks=tuple(looks),
        stoppers=tuple(stoppers),
        ends_on_nan=ends_on_nan,
        cutter=cutter,
        saver=saver,
    )


def _build_all(grid: Grid, profile: Profile) -> None:
    """What a constructor refuses, it refuses before any log is looked at; it looks at one argument at a time."""
    for place, member in enumerate(grid.members):
        if member.call.policy is ModelCheckpoint:  # or at two: the path's suffix goes by save_weights_only
            choices = [
                dict(zip(member.axes, c, strict=True))
                for c in product(*(range(grid.shape[a]) for a in member.axes))
            ]
        else:
            choices = [{axis: number} for axis in member.axes for number in range(grid.shape[axis])] or [{}]
        for choice in choices:
            call = grid.calls([choice.get(axis, 0) for axis in range(len(grid.axes))])[place]
            try:
                call.build(profile)
            except KerasRefuses as refusal:
                raise BadCall(f"{call.text}: {refusal}") from None


def _kind(policies: Sequence[object]) -> Kind:
    if any(isinstance(policy, EarlyStopping | TerminateOnNaN) for policy in policies):
        return "stop"
    if any(isinstance(policy, ReduceLROnPlateau) for policy in policies):
        return "cut"
    if any(isinstance(policy, ModelCheckpoint) for policy in policies):
        return "save"
    raise BadCall(
        "nothing here to judge: give EarlyStopping, TerminateOnNaN, ReduceLROnPlateau or ModelCheckpoint, "
        "such as EarlyStopping(patience=range(1, 31))"
    )


def _judged(kind: Kind, policies: Sequence[object], monitored: Sequence[Sequence[Monitored]]) -> Monitored:
    """The metric of the first callback that decides and monitors one."""
    deciding: dict[Kind, type] = {"stop": EarlyStopping, "cut": ReduceLROnPlateau, "save": ModelCheckpoint}
    for policy, some in zip(policies, monitored, strict=True):
        if isinstance(policy, deciding[kind]):
            return some[0]
    return Monitored("TerminateOnNaN", "loss", "min")


def _maybe(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _product(*parts: tuple[int, Indices]) -> Indices:
    """The index into a flattened product, of (length, index) an axis."""
    index = np.zeros_like(parts[0][1])
    for length, which in parts:
        index = index * length + which
    return index


# --- groups ------------------------------------------------------------------------------------------------


def _column(varied: Varied, place: int) -> tuple[int, Indices]:
    monitors, monitor = varied.values(place, "monitor")
    modes, mode = varied.values(place, "mode")
    return len(monitors) * len(modes), monitor * len(modes) + mode


def _stopper(varied: Varied, place: int, restores: bool, restores_unstopped: bool) -> Stopper:
    patiences, patience = varied.numbers(place, "patience", int)
    deltas, delta = varied.numbers(place, "min_delta")
    starts, start = varied.numbers(place, "start_from_epoch", int)
    baselines, baseline = varied.numbers(place, "baseline", _maybe)
    column = _column(varied, place)
    by_delta, by_start = (len(deltas), delta), (len(starts), start)
    return Stopper(
        monitored=tuple(varied.monitored(place)),
        patiences=patiences.astype(np.int64),
        deltas=deltas,
        starts=starts.astype(np.int64),
        baselines=baselines,
        own=_product(column, (len(patiences), patience), by_delta, by_start, (len(baselines), baseline)),
        held=_product(column, by_delta, by_start),
        restores=restores,
        restores_unstopped=restores_unstopped,
        in_float32=varied.profile.float32_stopping,
        is_first_free=varied.profile.empty_stopping_best,
    )


def _cutter(varied: Varied, place: int) -> Cutter:
    patiences, patience = varied.numbers(place, "patience", int)
    deltas, delta = varied.numbers(place, "min_delta")
    cooldowns, cooldown = varied.numbers(place, "cooldown", int)
    factors, factor = varied.values(place, "factor")
    floors, floor = varied.values(place, "min_lr")
    return Cutter(
        monitored=tuple(varied.monitored(place)),
        deltas=deltas,
        patiences=patiences.astype(np.int64),
        cooldowns=cooldowns.astype(np.int64),
        rates=tuple((float(one), float(other)) for one, other in product(factors, floors)),
        own=_product(
            _column(varied, place),
            (len(deltas), delta),
            (len(patiences), patience),
            (len(cooldowns), cooldown),
        ),
        rate=factor * len(floors) + floor,
        shifts_value=varied.profile.shared_monitor,
        float32_cut=varied.profile.float32_cut,
    )


def _saver(varied: Varied, place: int) -> Saver:
    thresholds, threshold = varied.numbers(place, "initial_value_threshold", _maybe)
    return Saver(
        monitored=tuple(varied.monitored(place)),
        thresholds=thresholds,
        own=_product(_column(varied, place), (len(thresholds), threshold)),
        in_float32=varied.profile.shared_monitor,
        saves_when_absent=varied.profile.saves_when_absent,
    )


def _reach(
    varied: Varied, policies: Sequence[object], monitored: Sequence[Sequence[Monitored]], profile: Profile
) -> dict[Monitored, float]:
    reach: dict[Monitored, float] = {}
    for place, policy in enumerate(policies):
        if isinstance(policy, EarlyStopping):
            is_rounded = profile.float32_stopping
        else:
            is_rounded = isinstance(policy, Monitor) and profile.shared_monitor
        if is_rounded:
            deltas = (
                varied.values(place, "min_delta")[0] if not isinstance(policy, ModelCheckpoint) else [0.0]
            )
            for one in monitored[place]:
                reach[one] = max(reach.get(one, 0.0), *(float(abs(delta)) for delta in deltas), 0.0)
    return reach


# --- what leaves the vector road ---------------------------------------------------------------------------


def _reasons(varied: Varied, policies: Sequence[object], profile: Profile) -> list[str]:
    """Why the grid is not proven to be independent, in words; none: it is."""
    reasons = []
    for place, policy in enumerate(policies):
        name = type(policy).__name__
        if isinstance(policy, EarlyStopping | ReduceLROnPlateau):
            for argument in (
                "patience",
                "min_delta",
                "cooldown",
                "start_from_epoch",
                "baseline",
                "factor",
                "min_lr",
            ):
                if hasattr(policy, argument):
                    varied.values(place, argument)
        elif isinstance(policy, TerminateOnNaN):
            if any(varied.values(place, "raise_error")[0]):
                reasons.append("TerminateOnNaN(raise_error=True) ends training without its last callbacks")
        elif isinstance(policy, ModelCheckpoint):
            reasons += _checkpoint_reasons(varied, place, policies)
        elif not isinstance(policy, STOCK) or isinstance(policy, Foreign):
            reasons.append(f"{name} is not proven to be independent of the others")
        if any(one.monitor == profile.learning_rate_key for one in varied.monitored(place)):
            reasons.append(f"{name} monitors the learning rate, which the list may change")
    if sum(isinstance(policy, ReduceLROnPlateau) for policy in policies) > 1:
        reasons.append("two ReduceLROnPlateau change one learning rate")
    reasons += [f"{number} is no number that an array holds exactly" for number in varied.odd]
    limit = float(np.finfo(np.float32).max)
    for place, policy in enumerate(policies):
        for argument in ("min_delta", "baseline", "initial_value_threshold"):
            values = varied.values(place, argument)[0] if hasattr(policy, argument) else []
            if any(value is not None and abs(value) > limit for value in values):
                reasons.append(f"{argument} is beyond float32")
    return reasons


def _checkpoint_reasons(varied: Varied, place: int, policies: Sequence[object]) -> list[str]:
    reasons = []
    if any(freq != "epoch" for freq in varied.values(place, "save_freq")[0]) or any(
        period != 1 for period in varied.values(place, "period")[0]
    ):
        reasons.append("ModelCheckpoint(save_freq=…) counts batches or epochs")
    axis = next((a for a in varied.grid.axes if (a.member, a.argument) == (place, "filepath")), None)
    for path in axis.values if axis else [getattr(policies[place], "filepath")]:  # noqa: B009  # of one kind here
        try:
            names = {name for _, name, _, _ in string.Formatter().parse(path) if name is not None}
            path.format(epoch=1)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError):
            names = {""}
        if names - {"epoch"}:
            reasons.append(f"the path {path!r} asks for more than the epoch")
    is_judged = _kind(policies) == "save"
    if is_judged and not all(varied.values(place, "save_best_only")[0]):
        reasons.append("ModelCheckpoint without save_best_only saves every epoch")
    if is_judged and sum(isinstance(policy, ModelCheckpoint) for policy in policies) > 1:
        reasons.append("only the first ModelCheckpoint of several is judged")
    return reasons
