"""The policies of a grid in canonical form: what decides the same on any log (patience 0 and 1) is one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from cbmon.policies import EarlyStopping, Monitor, ReduceLROnPlateau, TerminateOnNaN
from cbmon.profiles import Profile
from cbmon.replay.grid import Grid
from cbmon.replay.observers import STOCK

Indices: TypeAlias = npt.NDArray[np.int64]
Numbers: TypeAlias = npt.NDArray[np.float64]


class Monitored(NamedTuple):
    """What a callback looks at; how "auto" resolves depends on the callback and on the log."""

    callback: str
    monitor: str
    mode: str
    """"min", "max" or "auto"."""


def _whole(value: float) -> int:
    return math.ceil(value)


def _at_least_one(value: float) -> int:
    return max(1, math.ceil(value))


def _mode(value: object) -> str:
    return value if isinstance(value, str) and value in ("min", "max") else "auto"


_IGNORED = frozenset(("verbose", "save_weights_only", "filepath"))
"""What no decision depends on; a path is looked at by itself."""


def _canonical(policy: object, argument: str, profile: Profile) -> Any:
    """What an argument's value comes to; a function of the value."""
    if argument in _IGNORED or isinstance(policy, STOCK):
        return lambda value: None
    if argument == "mode":
        return _mode
    if isinstance(policy, EarlyStopping | ReduceLROnPlateau):
        if argument == "min_delta" and (isinstance(policy, EarlyStopping) or profile.shared_monitor):
            return abs
        forms = {"patience": _at_least_one, "cooldown": _at_least_one, "start_from_epoch": _whole}
        return forms.get(argument, lambda value: value)
    return lambda value: value


class Varied:
    """The grid's axes in canonical form, and the policies that differ in them."""

    def __init__(self, grid: Grid, profile: Profile, policies: Sequence[Any]) -> None:
        self.grid, self.profile, self.policies = grid, profile, policies
        self._places = {(axis.member, axis.argument): number for number, axis in enumerate(grid.axes)}
        self.odd: list[str] = []
        """Numbers that no array holds as Python does."""
        self._values: list[list[Any]] = []
        self._codes: list[Indices] = []
        """One an axis: which of its canonical values each of its values is."""
        for axis in grid.axes:
            form = (lambda value: None) if axis.argument is None else self._form(axis.member, axis.argument)
            found: dict[Any, int] = {}
            codes = []
            for value in axis.values:
                canonical = form(value)
                key = (type(canonical) in (int, float, bool), canonical)
                codes.append(found.setdefault(key, len(found)))
            self._values.append([canonical for _, canonical in found])
            self._codes.append(np.array(codes, np.int64))
        self._merge()

    def _form(self, place: int, argument: str) -> Any:
        form = _canonical(self.policies[place], argument, self.profile)

        def guarded(value: Any) -> Any:
            if type(value) in (int, float) and not abs(value) <= 2**53:
                self.odd.append(f"{argument}={value!r}")
                return value
            return form(value)

        return guarded

    def _merge(self) -> None:
        """Number the policies in CALL order and put those of equal codes together."""
        shape = self.grid.shape
        every = np.indices(shape, np.int64).reshape(len(shape), len(self.grid))
        key = np.zeros(len(self.grid), np.int64)
        for axis, codes in enumerate(self._codes):
            key = key * len(self._values[axis]) + codes[every[axis]]
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        group = place[group]
        members: list[list[int]] = [[] for _ in order]
        for number, which in enumerate(group.tolist()):
            members[which].append(number)
        self.equivalents = tuple(map(tuple, members))
        self.standing = tuple(some[0] if len(some) == 1 else self._most_patient(some) for some in members)
        self.choices: Indices = every.T[np.array(self.standing, np.int64)]

    def _most_patient(self, some: Sequence[int]) -> int:
        """The policy that stands for its equals: the greatest patience, else the last."""
        patient = [axis for axis, a in enumerate(self.grid.axes) if a.argument == "patience"]

        def patience(number: int) -> tuple[float, int]:
            choice = np.unravel_index(number, self.grid.shape)
            return sum(float(self.grid.axes[axis].values[choice[axis]]) for axis in patient), number

        return max(some, key=patience)

    def values(self, place: int, argument: str) -> tuple[list[Any], Indices]:
        """The canonical values of a member's argument, and which of them each canonical policy has."""
        axis = self._places.get((place, argument))
        if axis is None:
            value = self._form(place, argument)(getattr(self.policies[place], argument))
            return [value], np.zeros(len(self.choices), np.int64)
        return self._values[axis], self._codes[axis][self.choices[:, axis]]

    def monitored(self, place: int) -> list[Monitored]:
        """The columns that a member looks at, monitors × modes."""
        name = type(self.policies[place]).__name__
        if isinstance(self.policies[place], TerminateOnNaN):
            return [Monitored(name, "loss", "min")]
        if not isinstance(self.policies[place], Monitor):
            return []
        monitors, modes = self.values(place, "monitor")[0], self.values(place, "mode")[0]
        return [Monitored(name, monitor, mode) for monitor in monitors for mode in modes]

    def numbers(self, place: int, argument: str, form: Any = float) -> tuple[Numbers, Indices]:
        """The same as an array of rising numbers, NaN (for None) last."""
        values, which = self.values(place, argument)
        array = np.array([form(value) for value in values])
        order = np.argsort(array)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return array[order], rank[which]
