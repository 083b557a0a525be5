"""CALL: what is read, what is refused and in which words, and that nothing is ever evaluated."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbmon.errors import BadCall, CannotReplay, CbmonError, KerasRefuses, NeedsLearningRate
from cbmon.policies import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    Policy,
    ReduceLROnPlateau,
    TerminateOnNaN,
    float32,
)
from cbmon.profiles import PROFILES, Profile
from cbmon.replay.calls import parse_calls, parse_variant

K3, K2 = PROFILES["3.15"], PROFILES["2"]


def build(text: str, profile: Profile = K3) -> Policy:
    (call,) = parse_calls(text, profile)
    return call.build(profile)


def rate(schedule: str, epoch: int = 3, lr: float | None = 0.1, profile: Profile = K3) -> float:
    policy = build(f"LearningRateScheduler({schedule})", profile)
    assert isinstance(policy, LearningRateScheduler)
    return policy.step(epoch, lr, profile)


READ: list[tuple[str, Policy, str]] = [
    ("EarlyStopping()", EarlyStopping(), "all defaults"),
    ("keras.callbacks.EarlyStopping(patience=5)", EarlyStopping(patience=5), "with its module"),
    ("tf.keras.callbacks.EarlyStopping(patience=5)", EarlyStopping(patience=5), "with tf's"),
    ("tf_keras.callbacks.EarlyStopping(patience=5)", EarlyStopping(patience=5), "with tf_keras'"),
    ("callbacks.EarlyStopping(patience=5)", EarlyStopping(patience=5), "with a shorter one"),
    ("  EarlyStopping( patience = -1 )\n", EarlyStopping(patience=-1), "spaces and a negative number"),
    (
        "EarlyStopping('loss', 1e-3, 2)",
        EarlyStopping("loss", 1e-3, 2),
        "positional arguments in Keras' order",
    ),
    (
        "EarlyStopping(baseline=None, restore_best_weights=True)",
        EarlyStopping(restore_best_weights=True),
        "names",
    ),
    ("EarlyStopping(monitor='a; b')", EarlyStopping("a; b"), "a semicolon in quotes"),
    (
        "ReduceLROnPlateau('val_loss', 0.5, 3)",
        ReduceLROnPlateau(factor=0.5, patience=3),
        "the plateau's order",
    ),
    ("TerminateOnNaN(True)", TerminateOnNaN(True), "raise_error"),
    (
        "ModelCheckpoint('m-{epoch}.keras', 'loss', 1, True, False, 'min', 10, 0.5)",
        ModelCheckpoint("m-{epoch}.keras", "loss", 1, True, False, "min", 10, 0.5),
        "the checkpoint's order",
    ),
    ("EarlyStopping(patience=5),", EarlyStopping(patience=5), "a comma pasted with it"),
]


@pytest.mark.parametrize(("text", "policy", "sentence"), READ, ids=[row[2] for row in READ])
def test_a_call_is_read_as_python_would(text: str, policy: Policy, sentence: str) -> None:
    assert build(text) == policy, sentence


def test_the_text_stays_as_written() -> None:
    (call,) = parse_calls('EarlyStopping(monitor="val_loss",\n   patience=5)', K3)
    assert call.text == 'EarlyStopping(monitor="val_loss", patience=5)'


@pytest.mark.parametrize(
    "text",
    [
        "EarlyStopping(); ModelCheckpoint('a;b.keras')",
        "EarlyStopping()\nModelCheckpoint('a;b.keras')",
        "[EarlyStopping(), ModelCheckpoint('a;b.keras')]",
        "EarlyStopping(), ModelCheckpoint('a;b.keras')",
    ],
)
def test_several_calls_in_one_text(text: str) -> None:
    assert [call.policy for call in parse_calls(text, K3)] == [EarlyStopping, ModelCheckpoint]


def test_a_variant_may_have_a_name() -> None:
    assert parse_variant("slow one: EarlyStopping(); TerminateOnNaN()", K3)[0] == "slow one"
    assert len(parse_variant("a:EarlyStopping(); TerminateOnNaN()", K3)[1]) == 2
    assert parse_variant("EarlyStopping(monitor='a: b')", K3)[0] == ""
    assert parse_variant("LearningRateScheduler(lambda epoch: 0.1)", K3)[0] == ""


REFUSED: list[tuple[str, str]] = [
    ("EarlyStoping(patience=5)", "no such callback. Did you mean EarlyStopping?"),
    ("Frobnicate()", "no such callback."),
    ("EarlyStopping(patienc=5)", "no argument patienc in Keras 3.15. Did you mean patience?"),
    ("EarlyStopping(patience=1, patience=2)", "patience is given twice"),
    ("EarlyStopping('loss', monitor='loss')", "monitor is given twice"),
    ("EarlyStopping(1, 2, 3, 4, 5, 6, 7, 8, 9)", "at most 8 arguments"),
    ("EarlyStopping(*x)", "write the arguments out"),
    ("EarlyStopping(**x)", "write the arguments out"),
    ("EarlyStopping(patience=n)", "patience=n is no literal"),
    ("EarlyStopping(patience=2 + 3)", "is no literal"),
    ("EarlyStopping(patience=2j)", "is no literal"),
    ("EarlyStopping(patience={})", "is no literal"),
    ("EarlyStopping(patience=9**9**9)", "is no literal"),
    ("ReduceLROnPlateau(factor=np.sqrt(0.1))", "is no literal"),
    ("EarlyStopping(patience=__import__('os').system('true'))", "is no literal"),
    ("EarlyStopping", "this is no call"),
    ("5", "this is no call"),
    ("x = EarlyStopping()", "this is no call"),
    ("import os", "this is no call"),
    ("EarlyStopping(patience=1", "never closed"),
    ("", "an empty CALL"),
    ("[]", "an empty CALL"),
    ("ModelCheckpoint()", "needs filepath"),
    ("LearningRateScheduler()", "needs schedule"),
    ("CSVLogger('log.csv')", "CSVLogger is not replayed yet"),
    ("keras.callbacks.TensorBoard()", "TensorBoard is not replayed yet"),
    ("BackupAndRestore('x')", "not replayed yet"),
    ("History()", "not replayed yet"),
    ("my.module:Mine(patience=3)", "custom callbacks (package.module:Class) are not supported yet"),
    ("my.module.EarlyStopping(patience=3)", "custom callbacks are not supported yet"),
    ("ModelCheckpoint('m.keras', options=1)", "no argument options"),
    ("ModelCheckpoint('m.keras', period=2)", "no argument period"),
    ("LearningRateScheduler(schedule)", "give the schedule as a lambda"),
    ("LearningRateScheduler(lambda *a: 1.0)", "parameters are (epoch, lr) or (epoch)"),
    ("LearningRateScheduler(lambda: 1.0)", "parameters are (epoch, lr) or (epoch)"),
    ("LearningRateScheduler('no_such_module_at_all:f')", "cannot import it: ModuleNotFoundError"),
    ("LearningRateScheduler('math:pi')", "this is no function"),
    ("(" * 500 + ")" * 500, "Write it as in the training script"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[row[0][:40] for row in REFUSED])
def test_what_cannot_be_read_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(BadCall) as refusal:
        parse_calls(text, K3)
    assert words in str(refusal.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(CbmonError):
        parse_calls(text, K3)


def test_arguments_differ_from_version_to_version() -> None:
    assert build("ReduceLROnPlateau(epsilon=0.5)") == ReduceLROnPlateau(), "Keras 3 swallows epsilon"
    assert parse_calls("ReduceLROnPlateau(epsilon=0.5)", K3)[0].notes == (
        "ReduceLROnPlateau: Keras 3.15 ignores epsilon",
    )
    assert build("ReduceLROnPlateau(epsilon=0.5)", K2) == ReduceLROnPlateau(min_delta=0.5), (
        "Keras 2 renames it"
    )
    assert build("ModelCheckpoint('m', period=2)", K2) == ModelCheckpoint("m", period=2)
    assert build("ModelCheckpoint('m', 'loss', 0, False, False, 'auto', 'epoch', None, 0.5)", K2) == (
        ModelCheckpoint("m", "loss", initial_value_threshold=0.5)
    ), "Keras 2 has options before the threshold"
    assert parse_calls("ModelCheckpoint('m', load_weights_on_restart=True)", K2)[0].notes
    with pytest.raises(BadCall, match="no argument raise_error"):
        parse_calls("TerminateOnNaN(raise_error=True)", PROFILES["3.12"])


def test_what_keras_itself_refuses_is_no_bad_call() -> None:
    (call,) = parse_calls("ReduceLROnPlateau(factor=2)", K3)
    with pytest.raises(KerasRefuses):
        call.build(K3)


# --- schedules ------------------------------------------------------------------------------------

SCHEDULES: list[tuple[str, float, str]] = [
    ("lambda epoch, lr: lr * 0.9 if epoch > 10 else lr", 0.1, "a condition"),
    ("lambda e, rate: rate / (e + 1)", 0.025, "parameters of any name"),
    ("lambda epoch: 0.1 * 0.5 ** (epoch // 2)", 0.05, "one parameter"),
    ("schedule=lambda epoch, lr: lr", 0.1, "by keyword"),
    ("lambda epoch, lr: lr, verbose=1", 0.1, "verbose"),
    ("'lr * 0.5'", 0.05, "the body as a string"),
    ("'lambda epoch, lr: lr * 0.5'", 0.05, "a lambda as a string"),
    ("lambda epoch, lr: lr * math.exp(-0.1)", 0.1 * math.exp(-0.1), "math"),
    ("lambda epoch, lr: lr * np.exp(-0.1)", 0.1 * math.exp(-0.1), "np"),
    ("lambda epoch, lr: lr * numpy.cos(numpy.pi)", -0.1, "numpy and a constant"),
    ("lambda epoch, lr: float(lr * tf.math.exp(-0.1))", float32(0.1 * math.exp(-0.1)), "tf.math"),
    ("lambda epoch, lr: lr * exp(-0.1)", 0.1 * math.exp(-0.1), "a bare name"),
    (
        "lambda epoch, lr: 0.1 * math.pow(0.5, math.floor((1 + epoch) / 2))",
        0.025,
        "the step decay of the books",
    ),
    ("lambda epoch, lr: max(lr * 0.5, 0.08)", 0.08, "max"),
    ("lambda epoch, lr: float(epoch in_ 3)".replace("in_", "=="), 1.0, "a comparison"),
    ("lambda epoch, lr: 1.0 if 2 < epoch <= 3 and not lr > 1 else 2.0", 1.0, "chained comparisons, and, not"),
    ("lambda epoch, lr: round(lr, 1) + abs(-1.0) + int(2.7) % 2", 1.1, "round, abs, int"),
    ("lambda epoch, lr: np.log(0)", -math.inf, "NumPy's logarithm of 0"),
    ("lambda epoch, lr: np.exp(1000)", math.inf, "NumPy's overflow"),
]


@pytest.mark.parametrize(("schedule", "value", "sentence"), SCHEDULES, ids=[row[2] for row in SCHEDULES])
def test_a_schedule_is_an_expression(schedule: str, value: float, sentence: str) -> None:
    assert rate(schedule) == pytest.approx(value, rel=1e-6), sentence


@pytest.mark.parametrize(
    "body",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__",
        "lr.real",
        "lr.__class__",
        "'a' * 3",
        "[1.0][0]",
        "{1.0: 2.0}",
        "open('x')",
        "rand()",
        "randint(3)",
        "str(1)",
        "eval('1')",
        "math.factorial(10**6)",
        "np.random.rand()",
        "os.getpid()",
        "(lambda: 1.0)()",
        "[x for x in (1, 2)]",
        "1 << 10**9",
        "f'{lr}'",
        "math.exp(x=1)",
        "max(*(1, 2))",
        "(y := 1)",
        "unknown",
        "lr if lr is None else 1.0",
        "None",
        "1j",
        "-" * 3000 + "1",
    ],
)
def test_nothing_but_arithmetic_stands_in_a_schedule(body: str) -> None:
    for text in (f"LearningRateScheduler(lambda epoch, lr: {body})", f"LearningRateScheduler({body!r})"):
        with pytest.raises(BadCall):
            parse_calls(text, K3)


@pytest.mark.parametrize(
    "body",
    ["9**9**9", "pow(9, 9**9)", "10**4000000 * 1.0", "(9**999)**999", "round(1, -10**9)", "2**(2**40)"],
)
def test_absurd_numbers_are_refused_at_once(body: str) -> None:
    with pytest.raises(CannotReplay):  # Python would take hours
        rate(f"lambda epoch, lr: {body}")


def test_arithmetic_errors_are_what_they_are_in_keras() -> None:
    with pytest.raises(KerasRefuses, match="ZeroDivisionError"):
        rate("lambda epoch, lr: lr / epoch", epoch=0)
    with pytest.raises(KerasRefuses, match="OverflowError"):
        rate("lambda epoch, lr: math.exp(1000)")
    with pytest.raises(KerasRefuses, match="ValueError"):
        rate("lambda epoch, lr: math.sqrt(-1)")
    with pytest.raises(KerasRefuses, match="should be a float"):
        rate("lambda epoch, lr: (-1.0) ** 0.5")


def test_a_tensor_is_refused_by_keras_3_and_taken_by_keras_2() -> None:
    schedule = "lambda epoch, lr: lr * tf.math.exp(-0.1)"
    with pytest.raises(KerasRefuses, match=r"should be a float\. Got: a tensor"):
        rate(schedule)
    assert rate(schedule, profile=K2) == pytest.approx(0.1 * math.exp(-0.1))


def test_the_learning_rate_is_asked_for_only_when_it_is_read() -> None:
    assert rate("lambda epoch, lr: 0.1 if epoch < 5 else lr", lr=None) == 0.1
    with pytest.raises(NeedsLearningRate, match="--learning-rate"):
        rate("lambda epoch, lr: 0.1 if epoch < 5 else lr", epoch=5, lr=None)
    assert rate("lambda epoch: 0.1", lr=None) == 0.1


def test_a_function_of_the_users_own_is_imported_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_schedules_of_this_test.py").write_text(
        "def step(epoch, lr):\n    return lr * 0.5\n"
        "def only_epoch(epoch):\n    return 0.5\n"
        "def broken(epoch, lr):\n    raise LookupError('no table')\n"
    )
    monkeypatch.chdir(tmp_path)
    module = "my_schedules_of_this_test"
    (call,) = parse_calls(f"LearningRateScheduler('{module}:step')", K3)
    assert call.notes == (f"LearningRateScheduler: imports {module} to run its step()",)
    assert rate(f"'{module}:step'") == 0.05
    assert rate(f"'{module}:only_epoch'", lr=None) == 0.5
    with pytest.raises(NeedsLearningRate):
        rate(f"'{module}:step'", lr=None)
    with pytest.raises(KerasRefuses, match="LookupError: no table"):
        rate(f"'{module}:broken'")


@pytest.mark.parametrize(
    "expression",
    [
        "np.maximum(0.1, np.nan)",
        "np.minimum(np.nan, 0.1)",
        "np.power(0.0, -1.0)",
        "np.log1p(-1.0)",
        "np.round(2.675, 2)",
        "np.mod(-1.0, 0.0)",
        "np.clip(0.5, 0.1, 0.3)",
        "np.power(0.5, 3)",
        "np.exp(-0.1 * 3)",
        "np.cos(np.pi * 3 / 10)",
        "0.1 * 10 ** -2000",
    ],
)
def test_numpys_functions_give_what_numpy_gives(expression: str) -> None:
    np = pytest.importorskip("numpy")
    with np.errstate(all="ignore"):
        expected = float(eval(expression, {"np": np}))  # the test's own text, judged by the real numpy
    found = rate(f"lambda epoch: {expression}")
    assert found == pytest.approx(expected, nan_ok=True, rel=0, abs=0)


@pytest.mark.parametrize(
    "expression", ["np.abs(-1)", "np.minimum(1, 2)", "np.power(10, 2)", "np.clip(epoch, 0, 3)"]
)
def test_an_integer_from_numpy_is_refused_as_keras_refuses_it(expression: str) -> None:
    with pytest.raises(KerasRefuses, match="should be a float"):
        rate(f"lambda epoch: {expression}")


def test_a_stock_name_in_somebody_elses_module_is_not_kerass() -> None:
    with pytest.raises(BadCall, match="custom callbacks"):
        parse_calls("foo.callbacks.EarlyStopping(patience=3)", K3)
