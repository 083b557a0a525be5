"""Schedules of the optimizer: each rate against the real one, and what Keras makes of them beside callbacks."""

from __future__ import annotations

import ctypes
import math
import random
from typing import Any

import pytest

from cbmon.errors import BadCall
from cbmon.profiles import PROFILES, Profile
from cbmon.replay import decays
from cbmon.replay.calls import parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.results import Decisions, Replay
from tests.driven import Rows

K3, K2 = PROFILES["3.15"], PROFILES["2"]


def steps_between(one: float, other: float) -> int:
    """How many float32 numbers lie from one to the other."""
    if math.isnan(one) or math.isnan(other):
        return 0 if math.isnan(one) and math.isnan(other) else 2**31
    bits = [ctypes.c_int32.from_buffer(ctypes.c_float(value)).value for value in (one, other)]
    return abs(bits[0] - bits[1])


def some(chance: random.Random, name: str) -> dict[str, Any]:
    """Arguments as in scripts, and some that nobody writes."""
    rate = chance.choice([0.1, 1e-3, 0.01, 3e-4, 0.5, chance.random()])
    steps = chance.choice([10, 100, 1000, 37, chance.randint(1, 5000), 12.5])
    known: dict[str, dict[str, Any]] = {
        "ExponentialDecay": {
            "initial_learning_rate": rate,
            "decay_steps": steps,
            "decay_rate": chance.choice([0.9, 0.96, 0.5, 1, chance.random()]),
            "staircase": chance.random() < 0.5,
        },
        "InverseTimeDecay": {
            "initial_learning_rate": rate,
            "decay_steps": steps,
            "decay_rate": chance.choice([0.9, 0.5, 2, chance.random()]),
            "staircase": chance.random() < 0.5,
        },
        "PolynomialDecay": {
            "initial_learning_rate": rate,
            "decay_steps": steps,
            "end_learning_rate": chance.choice([1e-4, 0.0, 0.01]),
            "power": chance.choice([1.0, 0.5, 2, 0.9]),
            "cycle": chance.random() < 0.5,
        },
        "CosineDecay": {
            "initial_learning_rate": rate,
            "decay_steps": steps,
            "alpha": chance.choice([0.0, 0.1, 0.01]),
            "warmup_target": chance.choice([None, 2 * rate]),
            "warmup_steps": chance.choice([0, 5, 50]),
        },
        "CosineDecayRestarts": {
            "initial_learning_rate": rate,
            "first_decay_steps": steps,
            "t_mul": chance.choice([2.0, 1.0, 1.5, 3]),
            "m_mul": chance.choice([1.0, 0.9, 0.5]),
            "alpha": chance.choice([0.0, 0.1]),
        },
        "PiecewiseConstantDecay": {
            "boundaries": [steps, 2 * steps, 5 * steps],
            "values": [rate, rate / 2, rate / 10, rate / 100],
        },
    }
    return known[name]


@pytest.mark.parametrize("module", ["keras", "tf_keras"])
@pytest.mark.parametrize("name", [decay.__name__ for decay in decays.DECAYS])
def test_rates_are_the_real_ones_bit_for_bit_or_within_two_places(name: str, module: str) -> None:
    keras = pytest.importorskip(module, reason=f"{module} is not installed: nothing to compare with")
    np = pytest.importorskip("numpy")
    chance, far, all_of = random.Random(name), 0, 0
    for _ in range(60):
        arguments = some(chance, name)
        if module == "tf_keras" and name == "PiecewiseConstantDecay":
            arguments["boundaries"] = [int(each) for each in arguments["boundaries"]]
        ours = getattr(decays, name)(**arguments)
        real = getattr(keras.optimizers.schedules, name)(**arguments)
        for epoch in (0, 1, 2, 3, 10, 99):
            step = epoch * chance.choice([1, 10, 37, 100])
            theirs = float(real(np.int64(step)))
            off = steps_between(ours.rate(step), theirs)
            assert off <= 2 or abs(ours.rate(step) - theirs) < 1e-9 * max(map(abs, _rates(arguments))), (
                f"{arguments} at step {step}: {ours.rate(step)!r}, not {theirs!r}"
            )
            far, all_of = far + (off > 0), all_of + 1
    assert far <= 0.02 * all_of, f"{far} of {all_of} are not the same to the bit"


def _rates(arguments: dict[str, Any]) -> list[float]:
    return [arguments["initial_learning_rate"]] if "values" not in arguments else arguments["values"]


# --- in a replay ----------------------------------------------------------------------------------------

FLAT = Rows(epochs=[0, 1, 2, 3], rows=[{"loss": 0.0}] * 4)
EXPONENTIAL = "ExponentialDecay(0.1, 4, 0.5)"
AT_FIRST_STEPS = (0.10000000149011612, 0.0707106813788414, 0.05000000074505806, 0.0353553406894207)
"""Of a real fit: two steps an epoch, read at the begin of each epoch."""


def run(text: str, profile: Profile = K3, log: Any = FLAT, **options: Any) -> Replay:
    return replay(log, parse_calls(text, profile), profile, **{"steps_per_epoch": 2, **options})


def decide(text: str, profile: Profile = K3, **options: Any) -> Decisions:
    result = run(text, profile, **options)
    assert result.decisions is not None, result.error
    return result.decisions


@pytest.mark.parametrize(
    "text",
    [
        EXPONENTIAL,
        f"keras.optimizers.schedules.{EXPONENTIAL}",
        f"SGD(learning_rate=tf.keras.optimizers.schedules.{EXPONENTIAL})",
        f"keras.optimizers.Adam({EXPONENTIAL}, beta_1=0.8)",
    ],
)
def test_the_rate_of_each_epoch_is_that_of_its_first_step(text: str) -> None:
    made = decide(text)
    assert made.learning_rate == AT_FIRST_STEPS
    assert made.learning_rate_next == pytest.approx(0.025)
    assert made.members[0].words == "gives 0.1 at first, 0.0354 at last"


def test_steps_are_asked_for_in_one_line() -> None:
    result = run(EXPONENTIAL, steps_per_epoch=None)
    assert str(result.error).endswith("Give them: --steps-per-epoch 100")


def test_trap_33_what_sets_the_rate_beside_a_schedule_is_a_type_error() -> None:
    assert "TypeError" in str(run(f"{EXPONENTIAL}; LearningRateScheduler(lambda epoch: 0.1)").error)
    plateau = "ReduceLROnPlateau(monitor='loss', patience={})"
    assert "not settable" in str(run(f"{EXPONENTIAL}; {plateau.format(1)}").error)
    assert run(f"{EXPONENTIAL}; {plateau.format(9)}").error is None, "only the first cut raises"
    csv = decide(f"{EXPONENTIAL}; {plateau.format(9)}; CSVLogger('x')").members[-1].course
    assert csv is not None
    assert [row["learning_rate"] for _, row in csv.rows][:3] == list(AT_FIRST_STEPS[1:]), (
        "what it logs is the rate of the next step"
    )


def test_keras_2_lets_them_set_it_and_the_next_step_overwrites_it() -> None:
    text = f"{EXPONENTIAL}; LearningRateScheduler(lambda epoch: 0.7); ReduceLROnPlateau('loss', patience=1)"
    result = run(text + "; CSVLogger('x')", K2)
    assert result.decisions is not None, result.error
    assert result.decisions.learning_rate == AT_FIRST_STEPS
    assert result.decisions.cuts == ()
    assert len([warning for warning in result.warnings if "overwrites" in warning]) == 2
    csv = result.decisions.members[-1].course
    assert csv is not None
    rates = [row["lr"] for _, row in csv.rows]
    real = [0.084089644, 0.059460353, 0.042044822, 0.029730177]  # of a real fit in tf_keras
    assert rates == pytest.approx(real, rel=1e-7)


def test_one_optimizer_has_one_schedule_and_its_own_first_rate() -> None:
    assert "an optimizer has one schedule" in str(run(f"{EXPONENTIAL}; CosineDecay(0.1, 5)").error)
    result = run(EXPONENTIAL, learning_rate=0.5)
    assert result.warnings == ("--learning-rate is not used: the optimizer has ExponentialDecay",)
    assert decide(EXPONENTIAL, learning_rate=0.5).learning_rate == AT_FIRST_STEPS


def test_a_run_recorded_under_the_schedule_is_exact() -> None:
    log = Rows(list(range(4)), [{"loss": 1.0}] * 4, learning_rate=[0.1, 0.07071068, 0.05, 0.035355338])
    made = decide(EXPONENTIAL, log=log)
    assert (made.exact, made.diverges_at) == (True, None)
    other = decide("ExponentialDecay(0.1, 5, 0.5)", log=log)
    assert (other.exact, other.diverges_at) == (False, 1)


REFUSED = [
    ("ExponentialDecay(0.1, 0, 0.9)", "ValueError: Argument `decay_steps` must be > 0"),
    ("ExponentialDecay(0.1, -5, 0.9)", "must be > 0"),
    ("ExponentialDecay(1, 10, 0.9)", "is an integer, and Keras would compute in integers. Write 1.0"),
    ("ExponentialDecay('a', 10, 0.9)", "is not a float"),
    ("ExponentialDecay(1e999, 10, 0.9)", "no learning rate"),
    ("InverseTimeDecay(0.1, 10, 'x')", "is not a number"),
    ("PiecewiseConstantDecay([1, 2], [0.1, 0.2])", "The length of boundaries should be 1 less"),
    ("PiecewiseConstantDecay([], [0.1])", "IndexError"),
    ("PiecewiseConstantDecay(5, [0.1])", "is not a list"),
    ("PiecewiseConstantDecay([1], [0.1, 1])", "is an integer"),
    ("PiecewiseConstantDecay(['a'], [0.1, 0.2])", "is no step"),
    ("CosineDecayRestarts(0.1, 0)", "Argument `first_decay_steps` must be > 0"),
    ("CosineDecay(0.1, 10, warmup_target='x')", "is not a number"),
    ("PolynomialDecay(0.1, 10, power=None)", "is not a number"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_keras_refuses_is_the_results_error(text: str, words: str) -> None:
    assert words in str(run(text).error)


@pytest.mark.parametrize(
    "text",
    [
        "ExponentialDecay()",
        "ExponentialDecay(0.1, 10)",
        "PiecewiseConstantDecay([1])",
        "CosineDecay(0.1, 10, warmup=3)",
        "SGD(0.1)",
        "SGD(learning_rate=EarlyStopping())",
        "SGD()",
        "foo.schedules.ExponentialDecay(0.1, 1, 0.5)",
    ],
)
def test_what_is_no_schedule_is_no_call(text: str) -> None:
    with pytest.raises(BadCall):
        parse_calls(text, K3)


def test_a_late_attempt_counts_its_steps_from_the_first_epoch() -> None:
    late = Rows(epochs=[2, 3], rows=[{"loss": 1.0}] * 2)
    result = run(EXPONENTIAL, log=late)
    assert result.decisions is not None
    assert result.decisions.learning_rate == AT_FIRST_STEPS[2:]
    assert "counted from epoch 1" in result.warnings[0]


def test_a_nan_within_an_epoch_leaves_the_next_rate_unsure() -> None:
    nan = Rows(epochs=[0, 1], rows=[{"loss": 1.0}, {"loss": math.nan}])
    assert any(
        "that of a whole epoch" in w for w in run(f"{EXPONENTIAL}; TerminateOnNaN()", log=nan).warnings
    )
