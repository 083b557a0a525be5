"""The optimizer's learning rate on its way through a replay, and where it leaves the recorded one.

It is float32, as the optimizer's variable; None = unknown. Three things move it: LearningRateScheduler at the
beginning of an epoch, ReduceLROnPlateau at its end, or, at every step, a schedule of the optimizer's own, beside
which the other two are refused (Keras 3) or undone (Keras 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cbmon.errors import CannotReplay, KerasRefuses
from cbmon.policies import Cut, LearningRateScheduler, ReduceLROnPlateau, float32
from cbmon.profiles import Profile
from cbmon.replay.calls import Listed
from cbmon.replay.decays import DECAYS, Decay
from cbmon.replay.evidence import InEffect
from cbmon.replay.results import Recording
from cbmon.units import display_epoch

SETS_RATE: tuple[type[Listed], ...] = (ReduceLROnPlateau, LearningRateScheduler, *DECAYS)
"""What sets the learning rate; without any of them the recorded one stands."""
_UNDERFLOW = 1e-30
"""A product of cuts below which no usual learning rate is far from float32's smallest number, 1.4e-45."""


class Rates:
    """The learning rate of one replay under way."""

    def __init__(
        self,
        recording: Recording,
        policies: Sequence[Listed],
        profile: Profile,
        given: float | None,
        steps: int | None,
        warnings: list[str],
    ) -> None:
        """Start from the first recorded rate, else from the given one.

        Raises:
            CannotReplay: Two schedules, or one without the number of steps of an epoch.
        """
        self._recording, self._profile, self._warnings = recording, profile, warnings
        self.recorded = recording.learning_rate
        self._decay = _find_decay(policies)
        self._steps = steps or 0
        self.is_set = any(isinstance(policy, SETS_RATE) for policy in policies)
        """Whether something in the list sets it; else the recorded one stands."""
        if self._decay is not None:
            self._require_steps(type(self._decay).__name__, steps, given)
            given = None
        if self.recorded is not None:
            if given is not None:
                warnings.append("--learning-rate is not used: this log has its own")
            known = _first(self.recorded[row] for row in range(len(self.recorded)))
            given = (
                given if known is None else known
            )  # None: these are the first rows of a log, with NA in them
        self._first = None if given is None else float32(given)
        self.now = self._first
        self._relative = 1.0
        """Product of all cuts."""
        self.is_changed = False
        """Whether a callback of the list has changed it."""
        self.first_changed: int | None = None
        """First epoch trained at another rate than the recorded (without one: than the first) rate."""
        self.cuts: list[tuple[int, float]] = []

    def _require_steps(self, name: str, steps: int | None, given: float | None) -> None:
        if steps is None:
            raise CannotReplay(
                f"{name} counts steps, and this log does not tell how many an epoch has. Give them: "
                "--steps-per-epoch 100"
            )
        if given is not None:
            self._warnings.append(f"--learning-rate is not used: the optimizer has {name}")
        if self._recording.epochs and self._recording.epochs[0]:
            self._warnings.append(
                f"{name}: steps are counted from epoch 1, as in a training that was resumed with its optimizer"
            )

    @property
    def has_decay(self) -> bool:
        """Whether the optimizer has a schedule of its own."""
        return self._decay is not None

    def _decayed(self, epoch: int, step: int = 0) -> float | None:
        """The schedule's rate at a step of an epoch; without one, the rate as it is."""
        return self.now if self._decay is None else self._decay.rate(epoch * self._steps + step)

    def schedule(self, policy: LearningRateScheduler, epoch: int, text: str) -> None:
        """LearningRateScheduler's `on_epoch_begin`."""
        rate = float32(policy.step(epoch, self._decayed(epoch), self._profile))
        if not self._is_undone(text):
            self._set(rate)

    def begin_epoch(self, row: int, epoch: int) -> None:
        """After all `on_epoch_begin`: note whether this epoch is trained as it was recorded."""
        if self._decay is not None:
            self._set(self._decayed(epoch))
        if self.first_changed is not None or not self.is_set:
            return
        expected = self._first
        if self.recorded is not None:
            recorded = self.recorded[row]
            expected = self.now if recorded is None else float32(recorded)
        is_same = _is_close if self._decay is not None else _is_same
        if self.is_changed if expected is None else not is_same(expected, self.now):
            self.first_changed = epoch

    def used(self, row: int) -> float | None:
        """The rate at the first step of this epoch."""
        return self.now if self.is_set or self.recorded is None else self.recorded[row]

    def end_batches(self, epoch: int) -> None:
        """What the optimizer answers from now on: of its schedule Keras 3 the next step's, Keras 2 the last's."""
        self.now = self._decayed(epoch, self._steps - (0 if self._profile.is_keras_3 else 1))

    def reduce(self, epoch: int, cut: Cut, text: str) -> bool:
        """ReduceLROnPlateau's cut; whether it takes effect."""
        if self._is_undone(text):
            return False
        self.cuts.append((epoch, cut.factor))
        before, self._relative = self._relative, self._relative * cut.factor
        self._set(None if cut.learning_rate is None else float32(cut.learning_rate))
        if self.now is None and self._relative < _UNDERFLOW <= before:
            self._warnings.append(
                f"after the cut at epoch {display_epoch(epoch)} the learning rate, unknown here, may be 0 in "
                "float32, and Keras would cut no more. --learning-rate tells"
            )
        return True

    def after(self, used: Sequence[float | None]) -> float | None:
        """What is in effect after the last of these epochs; None if unknown."""
        if not used:
            return self.now
        last = len(used) - 1
        if self._decay is not None:
            return self._decayed(self._recording.epochs[last] + 1)
        if self.recorded is None or self.is_set:
            return self.now
        if isinstance(self._recording, InEffect):
            return self._recording.rate_after(last)
        known = _first(reversed(used))
        return self._first if known is None else known

    def _set(self, rate: float | None) -> None:
        self.is_changed = self.is_changed or rate is None or not _is_same(rate, self.now)
        self.now = rate

    def _is_undone(self, text: str) -> bool:
        """Whether the optimizer's schedule undoes what this callback sets; Keras 3 does not let it."""
        if self._decay is None:
            return False
        if self._profile.is_keras_3:
            raise KerasRefuses(
                "TypeError",
                "This optimizer was created with a `LearningRateSchedule` object as its `learning_rate` "
                f"constructor argument, hence its learning rate is not settable ({text})",
            )
        note = f"{text}: what it sets, the optimizer's schedule overwrites at the next step"
        if note not in self._warnings:
            self._warnings.append(note)
        return True


def _find_decay(policies: Sequence[Listed]) -> Decay | None:
    decays = [policy for policy in policies if isinstance(policy, Decay)]
    if len(decays) > 1:
        names = " and ".join(type(decay).__name__ for decay in decays[:2])
        raise CannotReplay(f"{names}: an optimizer has one schedule")
    return decays[0] if decays else None


def _first(rates: Iterable[float | None]) -> float | None:
    return next((rate for rate in rates if rate is not None), None)


def _is_close(one: float, other: float | None) -> bool:
    """Whether two rates of a schedule are one: its powers and cosines may differ in the last places."""
    return other is not None and (_is_same(one, other) or abs(one - other) <= 2.0**-21 * abs(one))


def _is_same(one: float, other: float | None) -> bool:
    return one == other or (one != one and other is not None and other != other)
