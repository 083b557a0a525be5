"""`keras.optimizers.schedules`: a learning rate for every step, as parameters and as float32 arithmetic.

Frozen dataclasses with Keras' argument names, order and defaults. `rate(step)` copies what Keras computes on
TensorFlow, operation by operation, each rounded to float32. Judge: tests/test_decays.py, bit for bit but where a
power, a cosine or a logarithm of TensorFlow's own differs in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cbmon.errors import CannotReplay, KerasRefuses
from cbmon.policies import float32


class _Single(float):
    """A float32 scalar: every operation is rounded to float32, as TensorFlow's are.

    In double and then rounded is exact for the four operations, for a double has more than twice the digits.
    """

    def __add__(self, other: float) -> _Single:
        return single(float(self) + single(other))

    def __sub__(self, other: float) -> _Single:
        return single(float(self) - single(other))

    def __mul__(self, other: float) -> _Single:
        return single(float(self) * single(other))

    def __truediv__(self, other: float) -> _Single:
        return single(_divided(float(self), single(other)))

    def __pow__(self, other: float, modulo: None = None) -> _Single:
        return single(_quiet(math.pow, float(self), single(other)))


_SMALLEST_NORMAL = 2.0**-126


def single(value: float) -> _Single:
    """Round to float32; below its normal numbers TensorFlow has 0."""
    rounded = float32(float(value))
    return _Single(rounded if abs(rounded) >= _SMALLEST_NORMAL or rounded != rounded else 0.0)


def _divided(one: float, other: float) -> float:
    if other:
        return one / other
    return math.nan if one == 0 or one != one else math.copysign(math.inf, one) * math.copysign(1.0, other)


def _quiet(function: Callable[..., float], *arguments: float) -> float:
    """What C gives where Python raises."""
    try:
        return function(*arguments)
    except OverflowError:
        return math.inf
    except ValueError:
        is_pole = (function is math.log and arguments[0] == 0) or (function is math.pow and arguments[0] == 0)
        return (-math.inf if function is math.log else math.inf) if is_pole else math.nan


def _floor(value: float) -> _Single:
    return single(math.floor(value)) if math.isfinite(value) else single(value)


_PI = single(math.pi)


def _require_float(decay: object, name: str, value: object) -> None:
    """Keras takes the type of its arithmetic from this number: with an integer it computes in integers."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise CannotReplay(
            f"{type(decay).__name__}: {name}={value} is an integer, and Keras would compute in integers. "
            f"Write {value}.0"
        )
    if not isinstance(value, float):
        raise KerasRefuses("TypeError", f"{type(decay).__name__}: {name}={value!r} is not a float")
    if not math.isfinite(value):
        raise CannotReplay(f"{type(decay).__name__}: {name}={value} is no learning rate")


def _require_numbers(decay: object, *names: str) -> None:
    for name in names:
        value = getattr(decay, name)
        if not isinstance(value, int | float):
            raise KerasRefuses("TypeError", f"{type(decay).__name__}: {name}={value!r} is not a number")


def _is_step(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _require_steps(decay: object, name: str) -> None:
    _require_numbers(decay, name)
    steps = getattr(decay, name)
    if steps <= 0:
        raise KerasRefuses("ValueError", f"Argument `{name}` must be > 0. Received: {name}={steps}")


@dataclass(frozen=True, slots=True)
class ExponentialDecay:
    """`initial * decay_rate ** (step / decay_steps)`; with `staircase` whole powers only."""

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: object = False
    name: object = "ExponentialDecay"

    def __post_init__(self) -> None:
        _require_float(self, "initial_learning_rate", self.initial_learning_rate)
        _require_numbers(self, "decay_rate")
        _require_steps(self, "decay_steps")

    def rate(self, step: int) -> float:
        """In effect at this step, 0-based; float32."""
        part = single(step) / self.decay_steps
        if self.staircase:
            part = _floor(part)
        return single(self.initial_learning_rate) * single(self.decay_rate) ** part


@dataclass(frozen=True, slots=True)
class InverseTimeDecay:
    """`initial / (1 + decay_rate * step / decay_steps)`; with `staircase` whole fractions only."""

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: object = False
    name: object = "InverseTimeDecay"

    def __post_init__(self) -> None:
        _require_float(self, "initial_learning_rate", self.initial_learning_rate)
        _require_numbers(self, "decay_rate")
        _require_steps(self, "decay_steps")

    def rate(self, step: int) -> float:
        """In effect at this step, 0-based; float32."""
        part = single(step) / self.decay_steps
        if self.staircase:
            part = _floor(part)
        return single(self.initial_learning_rate) / (single(1.0) + single(self.decay_rate) * part)


@dataclass(frozen=True, slots=True)
class PiecewiseConstantDecay:
    """`values[i]` up to and with step `boundaries[i]`, the last value after the last one."""

    boundaries: Sequence[float]
    values: Sequence[float]
    name: object = "PiecewiseConstant"

    def __post_init__(self) -> None:
        for name in ("boundaries", "values"):
            if not isinstance(getattr(self, name), list | tuple):
                raise KerasRefuses("TypeError", f"PiecewiseConstantDecay: {name} is not a list")
        if len(self.boundaries) != len(self.values) - 1:
            raise KerasRefuses(
                "ValueError",
                "The length of boundaries should be 1 less than the length of values. Received: "
                f"boundaries={self.boundaries} of length {len(self.boundaries)}, and values={self.values} of "
                f"length {len(self.values)}.",
            )
        if not self.boundaries:
            raise KerasRefuses(
                "IndexError", "list index out of range (PiecewiseConstantDecay, no boundaries)"
            )
        for boundary in self.boundaries:
            if not _is_step(boundary):
                raise KerasRefuses(
                    "TypeError", f"PiecewiseConstantDecay: the boundary {boundary!r} is no step"
                )
        for value in self.values:
            _require_float(self, "a value", value)

    def rate(self, step: int) -> float:
        """In effect at this step, 0-based; float32. Keras adds up all pieces that claim the step."""
        boundaries = [int(boundary) for boundary in self.boundaries]
        values = [single(value) for value in self.values]
        total = single(0.0)
        if step <= boundaries[0]:
            total += values[0]
        if step > boundaries[-1]:
            total += values[-1]
        for low, high, value in zip(boundaries[:-1], boundaries[1:], values[1:-1], strict=True):
            if low < step <= high:
                total += value
        return total


@dataclass(frozen=True, slots=True)
class PolynomialDecay:
    """From the first rate to `end_learning_rate` along a power, once or, with `cycle`, ever longer."""

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: object = False
    name: object = "PolynomialDecay"

    def __post_init__(self) -> None:
        _require_float(self, "initial_learning_rate", self.initial_learning_rate)
        _require_numbers(self, "end_learning_rate", "power")
        _require_steps(self, "decay_steps")

    def rate(self, step: int) -> float:
        """In effect at this step, 0-based; float32."""
        done, steps = single(step), single(self.decay_steps)
        if self.cycle:
            steps *= single(math.ceil(done / self.decay_steps) if done else 1.0)
        else:
            done = min(done, steps)
        end = single(self.end_learning_rate)
        return (single(self.initial_learning_rate) - end) * (single(1.0) - done / steps) ** self.power + end


@dataclass(frozen=True, slots=True)
class CosineDecay:
    """Half a cosine down to the share `alpha`, after a linear warmup if there is a target."""

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    name: object = "CosineDecay"
    warmup_target: float | None = None
    warmup_steps: float = 0

    def __post_init__(self) -> None:
        _require_float(self, "initial_learning_rate", self.initial_learning_rate)
        _require_numbers(self, "alpha", "warmup_steps")
        if self.warmup_target is not None:
            _require_numbers(self, "warmup_target")
        _require_steps(self, "decay_steps")

    def rate(self, step: int) -> float:
        """In effect at this step, 0-based; float32."""
        first, steps = single(self.initial_learning_rate), single(self.decay_steps)
        if self.warmup_target is None:
            return self._decayed(min(single(step), steps), first)
        target, warmup = single(self.warmup_target), single(self.warmup_steps)
        done = min(single(step), steps + warmup)
        if done < warmup:
            return (target - first) * (done / warmup) + first
        return self._decayed(done - warmup, target)

    def _decayed(self, done: _Single, start: _Single) -> float:
        cosine = (single(math.cos(_PI * (done / self.decay_steps))) + 1.0) * 0.5
        return start * (cosine * (1 - self.alpha) + self.alpha)


@dataclass(frozen=True, slots=True)
class CosineDecayRestarts:
    """Half a cosine again and again, each `t_mul` times as long and `m_mul` times as high."""

    initial_learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0
    name: object = "SGDRDecay"

    def __post_init__(self) -> None:
        _require_float(self, "initial_learning_rate", self.initial_learning_rate)
        _require_numbers(self, "t_mul", "m_mul", "alpha")
        _require_steps(self, "first_decay_steps")

    def rate(self, step: int) -> float:
        """In effect at this step, 0-based; float32."""
        part = single(step) / self.first_decay_steps
        longer, one = single(self.t_mul), single(1.0)
        if longer == 1.0:
            restarts = _floor(part)
            part = part - restarts
        else:
            grown = single(_quiet(math.log, one - part * (one - longer)))
            restarts = _floor(grown / single(_quiet(math.log, longer)))
            power = longer**restarts
            part = (part - (one - power) / (one - longer)) / power
        height = single(self.m_mul) ** restarts
        cosine = height * 0.5 * (single(_quiet(math.cos, _PI * part)) + 1.0)
        alpha = single(self.alpha)
        return single(self.initial_learning_rate) * ((one - alpha) * cosine + alpha)


Decay: TypeAlias = (
    ExponentialDecay
    | PiecewiseConstantDecay
    | PolynomialDecay
    | InverseTimeDecay
    | CosineDecay
    | CosineDecayRestarts
)
"""What an optimizer may have for a learning rate."""
DECAYS: tuple[type[Decay], ...] = (
    *(ExponentialDecay, PiecewiseConstantDecay, PolynomialDecay, InverseTimeDecay),
    *(CosineDecay, CosineDecayRestarts),
)
