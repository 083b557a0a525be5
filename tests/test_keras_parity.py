"""The replay against the real callbacks: random logs, random lists, every decision compared.

The real ones are driven as `--engine keras` drives them (`cbmon.replay.keras_child`), for the installed Keras 3
and for tf_keras, but built by Python from the text of each call. One example is a whole replay from the CALL's
text, so the parser is judged too.
"""

from __future__ import annotations

import math
import os
import random
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbmon.policies import EarlyStoppingState, PlateauState, _metric_direction
from cbmon.profiles import Profile, find_profile
from cbmon.replay.calls import parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.keras_child import Kit, Outcome, Setting, drive
from cbmon.replay.keras_child import Log as Recorded
from cbmon.replay.results import Replay

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
METRICS = ("accuracy", "auc_1", "mse", "mine")
"""Columns of every log; "mine" is a name that tells no direction."""


@dataclass(frozen=True)
class Log:
    """A recorded attempt, as the replay reads it."""

    epochs: list[int]
    rows: list[dict[str, float]]
    steps: int
    learning_rate: None = None
    not_numbers: frozenset[str] = frozenset()

    @property
    def columns(self) -> list[str]:
        return sorted({*METRICS, *(name for row in self.rows for name in row)})

    @property
    def metrics(self) -> dict[str, list[float | None]]:
        return {name: [row.get(name) for row in self.rows] for name in {n for row in self.rows for n in row}}


class RealKeras:
    """Drives the callbacks of keras or tf_keras, as the text of a list gives them."""

    def __init__(self, module: str) -> None:
        self.keras: Any = pytest.importorskip(
            module, reason=f"{module} is not installed: nothing to compare with"
        )
        if module == "keras" and self.keras.backend.backend() != "tensorflow":
            pytest.skip("the profiles are those of the TensorFlow backend")
        self.is_keras_3 = module == "keras"
        self.kit = Kit(module)
        version = self.keras.__version__ if self.is_keras_3 else "2"
        self.profile: Profile = find_profile(version)[0]

    def drive(self, texts: Sequence[str], log: Log, rate: float) -> tuple[Outcome, list[dict[str, Any]]]:
        """What the real callbacks do, and the state each is left in."""
        names: dict[str, Any] = {"math": math, **vars(self.keras.callbacks)}
        try:
            callbacks = [eval(text, names) for text in texts]  # this file's own text
        except (ValueError, TypeError, ArithmeticError) as error:
            return Outcome(error=(type(error).__name__, str(error))), []
        recorded = Recorded(log.epochs, log.columns, log.metrics)
        outcome = drive(self.kit, callbacks, recorded, Setting(rate=rate, steps=log.steps, planned=99))
        return outcome, [vars(callback) for callback in callbacks]


REALS: dict[str, RealKeras] = {}


@pytest.fixture(params=["keras", "tf_keras"])
def real(request: pytest.FixtureRequest) -> RealKeras:
    if request.param not in REALS:
        REALS[request.param] = RealKeras(request.param)
    return REALS[request.param]


def same(ours: float | None, theirs: Any) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return ours == float(theirs) or (math.isnan(ours) and math.isnan(float(theirs)))


def assert_same(ours: Replay, theirs: Outcome, states: list[dict[str, Any]], where: str) -> None:
    """Every decision, and the state that each callback is left in."""
    assert (ours.error is None) == (theirs.error is None), (
        f"{where}\nours {ours.error}\ntheirs {theirs.error}"
    )
    made = ours.decisions
    if made is None:
        return
    assert made.epochs_replayed == theirs.epochs, where
    assert (made.stopped and made.stopped.epoch) == theirs.stopped_epoch, where
    stoppers = [i for i, member in enumerate(made.members) if member.stopped_epoch is not None]
    assert stoppers == sorted(theirs.stoppers), where
    assert made.learning_rate is not None
    assert made.learning_rate_next is not None
    rates = theirs.rates[: theirs.epochs]
    assert len(made.learning_rate) == len(rates), where
    assert all(map(same, made.learning_rate, rates)), f"{where}\n{made.learning_rate}\n{rates}"
    saved = [(save.epoch, save.path) for save in theirs.saves]
    assert list(made.checkpoints) == saved, f"{where}\n{made.checkpoints}\n{saved}"
    assert [epoch for epoch, _ in made.cuts] == [epoch for epoch, _, _ in theirs.cuts], where
    assert all(map(same, [cut[1] for cut in made.cuts], [cut[1] for cut in theirs.cuts])), where
    if not theirs.is_raised:
        assert same(made.learning_rate_next, theirs.next_rate), where
    restored = {i: m.restored_epoch for i, m in enumerate(made.members) if m.restored_epoch is not None}
    assert restored == theirs.restored, where
    for member, their in zip(made.members, states, strict=True):
        state = member.state
        if state is None or "save_freq" in member.text:
            continue  # the best within an epoch is no value of the log
        assert same(state.best, their["best"]), f"{where}\n{member}\n{their}"
        if isinstance(state, EarlyStoppingState):
            assert state.wait == their["wait"], where
            assert (state.best_epoch or 0) == their["best_epoch"], where
            assert (state.stopped_epoch or 0) == their["stopped_epoch"], where
        elif isinstance(state, PlateauState):
            assert (state.wait, state.cooldown) == (their["wait"], their["cooldown_counter"]), where


# --- random cases ---------------------------------------------------------------------------------


def random_values(choose: random.Random, count: int) -> list[float | None]:
    """A curve with ties, near-ties of 1e-9 … 1e-3, gaps, NaN, ±inf, now and then denormal or huge values."""
    value, curve = choose.choice([1.0, 0.5, 2.0, 100.0, 1e-3, 0.0, -1.0]), list[float | None]()
    odd: list[float | None] = [None, math.nan, math.inf, -math.inf, 1e-40, -1e-42, 0.0, 3e38, 1e39]
    oddness = choose.choice([0, 0, 1, 3])
    for _ in range(count):
        step = choose.choice([0.0, 0.0, 1e-9, 1e-8, 6e-8, 1e-7, 1e-5, 1e-4, 1e-3, 0.01, 0.1])
        value += choose.choice([-1, -1, 1]) * step * choose.choice([1, 1, abs(value)])
        is_odd = choose.randint(1, 10) <= oddness
        curve.append(odd[choose.randint(0, len(odd) - 1 if oddness == 3 else 3)] if is_odd else value)
    return curve


def random_log(choose: random.Random) -> Log:
    count = choose.randint(1, 14)
    epoch, epochs = choose.choice([0, 0, 0, 1, 3]), []
    for _ in range(count):
        epochs.append(epoch)
        epoch += choose.choice([1, 1, 1, 1, 2])
    rows: list[dict[str, float]] = [{} for _ in epochs]
    for name in ("loss", "val_loss", "accuracy", "val_accuracy", "mine", "val_auc_1"):
        if name in ("loss", "val_loss") or choose.random() < 0.6:
            for row, value in zip(rows, random_values(choose, count), strict=True):
                if value is not None:
                    row[name] = value
    return Log(epochs, rows, choose.choice([1, 1, 3]))


def random_monitor(choose: random.Random, rate_key: str) -> str:
    """`monitor` and `mode`; often the default, seldom a name that Keras cannot resolve."""
    monitor = choose.choice(
        ["val_loss"] * 6 + ["loss", "val_accuracy", "accuracy", "val_auc_1", "mine", "nowhere", rate_key]
    )
    mode = choose.choice(["auto", "min", "max"])
    if mode == "auto" and monitor in ("mine", "nowhere", rate_key) and choose.random() < 0.9:
        mode = "min"
    return f"monitor={monitor!r}, mode={mode!r}"


SCHEDULES = (
    "lambda epoch, lr: lr",
    "lambda epoch, lr: lr * 0.9 if epoch > 2 else lr",
    "lambda epoch, lr: lr * math.exp(-0.1)",
    "lambda epoch: 0.1 * 0.5 ** (epoch // 3)",
    "lambda e, rate: max(rate / (1 + 0.3 * e), 1e-3)",
    "lambda epoch, lr: 0.03 if epoch == 2 or not epoch < 5 else 0.3",
    "lambda epoch, lr: 1",
    "lambda epoch, lr: lr / epoch",
    "lambda epoch, lr: 1e39 if epoch == 3 else 1e-42",
    "lambda epoch, lr: (-1.0) ** 0.5",
    "lambda epoch, lr: round(lr, 2) + abs(-1e-3) + float(int(lr))",
    "lambda epoch, lr: min(lr, 1e-4 * (1 + math.cos(math.pi * epoch / 10)) / 2 + 1e-9)",
)


def random_call(choose: random.Random, is_keras_3: bool) -> str:
    kind, rate_key = choose.choice("EEERRRMMLTB"), "learning_rate" if is_keras_3 else "lr"
    deltas = (0, 0, 1e-9, 1e-8, 1e-7, 1e-4, 1e-3, -1e-3, 0.1)
    monitored = random_monitor(choose, rate_key if is_keras_3 else "nowhere")
    if kind == "E":
        return (
            f"EarlyStopping({monitored}, min_delta={choose.choice(deltas)}, "
            f"patience={choose.choice([-1, 0, 1, 1, 1.5, 2, 3, 5])}, "
            f"baseline={choose.choice([None, None, None, 0.9, 1, 0.5, 1e39])}, "
            f"restore_best_weights={choose.choice([True, False])}, "
            f"start_from_epoch={choose.choice([0, 0, 2, 4])})"
        )
    if kind == "R":
        # No negative min_lr with a negative factor: TensorFlow takes -0.0 for its cached 0.0.
        factor, floor = choose.choice(
            [
                (
                    choose.choice([0.5, 0.1, 0.1, 0.3, 0, -0.5, 0.999, 1.0, 1e-30]),
                    choose.choice([0, 0, 0, 0.03, 0.1]),
                )
            ]
            * 4
            + [(0.5, -0.01), (0.1, 1e-40), (0.3, 0.001)]
        )
        return (
            f"ReduceLROnPlateau({monitored}, factor={factor}, "
            f"patience={choose.choice([0, 1, 1, 2, 3])}, min_delta={choose.choice(deltas)}, "
            f"cooldown={choose.choice([0, 0, 1, 2, 3, 1.5])}, "
            f"min_lr={floor})"
        )
    if kind == "M":
        path = choose.choice(
            ["m.keras"] * 4 + ["{epoch:02d}-{val_loss:.3f}.keras", f"{{{rate_key}:.5f}}.keras", "m.h5"]
        )
        path = choose.choice([path, path, path, f"{{{rate_key}}}.keras"])
        return (
            f"ModelCheckpoint({path!r}, {monitored}, save_best_only={choose.choice([True, True, False])}, "
            f"initial_value_threshold={choose.choice([None, None, 0.95, 0.33])})"
        )
    if kind == "B":
        return (
            "ModelCheckpoint('{epoch}-{batch}.keras', "
            f"monitor={choose.choice(['val_loss', 'loss'])!r}, "
            f"save_best_only={choose.choice([False, False, True])}, "
            f"save_freq={choose.choice([0, 1, 2, 3, 4, 7])})"
        )
    if kind == "L":
        return f"LearningRateScheduler({choose.choice(SCHEDULES[:6] * 3 + SCHEDULES)})"
    return f"TerminateOnNaN({choose.choice(['', '', 'raise_error=True']) if is_keras_3 else ''})"


def compare(choose: random.Random, real: RealKeras) -> bool:
    """One random log under one random list; whether it was a case in which the log can tell everything."""
    log = random_log(choose)
    texts = [random_call(choose, real.is_keras_3) for _ in range(choose.choice([1, 1, 2, 3, 5]))]
    rate = choose.choice([0.1, 0.1, 1.0, 1e-3, 0.25, 1e-38])
    ours = replay(
        log,
        [call for text in texts for call in parse_calls(text, real.profile)],
        real.profile,
        learning_rate=rate,
        steps_per_epoch=log.steps,
    )
    if ours.error and "within an epoch" in ours.error:
        return False  # a running value that no log has; the stub's batches repeat the epoch's
    if any("its saves within" in warning for warning in ours.warnings):
        return False  # likewise the batch at which the loss became NaN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, states = real.drive(texts, log, rate)
    assert_same(
        ours, theirs, states, f"{real.profile.name}: {texts}\nlr {rate}, {log}\n{ours.decisions}\n{theirs}"
    )
    return True


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(choose=st.randoms(use_true_random=False))
def test_random_lists_over_random_logs_decide_as_the_real_callbacks_do(
    real: RealKeras, choose: random.Random
) -> None:
    compare(choose, real)


HUGE = "1" + "0" * 400
CURVE = [1.0, 0.5, 0.75, 0.5, 0.625]


@pytest.mark.parametrize(
    "text",
    [
        f"EarlyStopping('loss', patience={HUGE})",
        f"EarlyStopping('loss', patience=-{HUGE})",
        f"EarlyStopping('loss', start_from_epoch={HUGE})",
        f"EarlyStopping('loss', start_from_epoch=-{HUGE})",
        f"EarlyStopping('loss', min_delta={HUGE})",
        f"EarlyStopping('loss', baseline={HUGE})",
        f"EarlyStopping('loss', baseline=-{HUGE}, mode='max')",
        f"EarlyStopping('loss', baseline={10**20})",
        f"ReduceLROnPlateau('loss', patience={HUGE})",
        f"ReduceLROnPlateau('loss', patience=1, cooldown={HUGE})",
        f"ReduceLROnPlateau('loss', factor={HUGE})",
        f"ReduceLROnPlateau('loss', factor=-{HUGE}, patience=1)",
        f"ReduceLROnPlateau('loss', min_lr={HUGE}, patience=1)",
        f"ReduceLROnPlateau('loss', min_delta={HUGE}, patience=1)",
        f"ModelCheckpoint('m.keras', 'loss', save_best_only=True, initial_value_threshold={HUGE})",
        f"ModelCheckpoint('m.keras', 'loss', save_best_only=True, initial_value_threshold={10**20})",
        f"ModelCheckpoint('m.keras', save_freq={HUGE})",
        *(
            f"{front} mode={mode})"
            for front in (
                "EarlyStopping('loss', patience=1,",
                "ReduceLROnPlateau('loss', patience=1,",
                "ModelCheckpoint('m.keras', 'loss', save_best_only=True,",
            )
            for mode in ("'minimum'", "'MAX'", "None", "['min']")
        ),
    ],
)
def test_arguments_out_of_all_bounds_do_what_they_do_in_keras(real: RealKeras, text: str) -> None:
    log = Log([*range(len(CURVE))], [{"loss": value} for value in CURVE], 1)
    calls = parse_calls(text, real.profile)
    ours = replay(log, calls, real.profile, learning_rate=0.1, steps_per_epoch=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mode that is none
        theirs, states = real.drive([text], log, 0.1)
    assert_same(ours, theirs, states, f"{real.profile.name}: {text}\n{ours.error}\n{theirs.error}")
    if theirs.error:
        assert f"Keras raises {theirs.error[0]}" in (ours.error or "")


@pytest.mark.parametrize("real", ["keras"], indirect=True)
@pytest.mark.parametrize("name", ["EarlyStopping", "ReduceLROnPlateau", "ModelCheckpoint"])
@pytest.mark.parametrize(
    ("mode", "is_known"), [("auto", True), ("min", True), ("minimum", False), (None, False)]
)
def test_of_which_mode_keras_warns_we_warn(
    real: RealKeras, name: str, mode: str | None, is_known: bool
) -> None:
    text = f"{name}({'filepath=' + repr('m.keras') + ',' if name == 'ModelCheckpoint' else ''} mode={mode!r})"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        eval(text, dict(vars(real.keras.callbacks)))  # this file's own text
    assert any("is unknown" in str(warning.message) for warning in caught) is not is_known
    (call,) = parse_calls(text, real.profile)
    assert any("is unknown" in note for note in call.notes) is not is_known


METRIC_ARGUMENTS: list[dict[str, Any]] = [
    *({}, {"num_classes": 2}, {"num_classes": 2, "target_class_ids": [0]}),
    *({name: 0.5} for name in ("recall", "precision", "specificity", "sensitivity")),
]
"""What the constructors of Keras' metrics need, one or the other."""


@pytest.mark.parametrize("real", ["keras"], indirect=True)  # Keras 2 goes by the name alone
def test_the_directions_of_keras_metrics_are_those_of_the_table(real: RealKeras) -> None:
    for name, kind in vars(real.keras.metrics).items():
        if not isinstance(kind, type) or name in ("MeanMetricWrapper", "Metric"):
            continue
        metric: Any = None
        for arguments in METRIC_ARGUMENTS:
            with suppress(TypeError, ValueError):
                metric = kind(**arguments)
                break
        theirs = {"up": "max", "down": "min", None: None}[getattr(metric, "_direction", None)]
        ours = _metric_direction(f"val_{metric.name}", {metric.name})
        assert (ours and ours.value) == theirs, f"{name} is called {metric.name}"
