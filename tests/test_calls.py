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
    ReduceLROnPlateau,
    TerminateOnNaN,
    float32,
)
from cbmon.profiles import PROFILES, Profile
from cbmon.replay.calls import Listed, parse_calls, parse_variant
from cbmon.replay.observers import (
    BackupAndRestore,
    BaseLogger,
    CSVLogger,
    History,
    LambdaCallback,
    ProgbarLogger,
    RemoteMonitor,
    SwapEMAWeights,
    TensorBoard,
    UserClass,
)
from cbmon.replay.schedules import UserFunction

K3, K2 = PROFILES["3.15"], PROFILES["2"]


def build(text: str, profile: Profile = K3) -> Listed:
    (call,) = parse_calls(text, profile)
    return call.build(profile)


def rate(schedule: str, epoch: int = 3, lr: float | None = 0.1, profile: Profile = K3) -> float:
    policy = build(f"LearningRateScheduler({schedule})", profile)
    assert isinstance(policy, LearningRateScheduler)
    return policy.step(epoch, lr, profile)


READ: list[tuple[str, Listed, str]] = [
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
    ("CSVLogger('a:b(x', ';', True)", CSVLogger("a:b(x", ";", True), "a colon in a string is a string's"),
    ("tf.keras.callbacks.TensorBoard('d', 1)", TensorBoard("d", 1), "TensorBoard's order"),
    ("History()", History(), "no arguments"),
    ("ProgbarLogger()", ProgbarLogger(), "no arguments in Keras 3"),
    ("SwapEMAWeights(True)", SwapEMAWeights(True), "SwapEMAWeights"),
    (
        "BackupAndRestore('d', 5, True, False)",
        BackupAndRestore("d", 5, True, False),
        "with double_checkpoint",
    ),
    (
        "RemoteMonitor('r', 'p', 'f', {'a': 'b'}, True)",
        RemoteMonitor("r", "p", "f", {"a": "b"}, True),
        "a dict where Keras takes one",
    ),
    (
        "my.own_module:Mine(patience=3, sizes=[1, (2, {'a': None})])",
        UserClass("my.own_module", "Mine", {"patience": 3, "sizes": [1, (2, {"a": None})]}),
        "a class of the user's own, with any literals",
    ),
    (
        "LambdaCallback(on_epoch_end='m.n:f', on_train_begin=m:g, on_batch_end=None)",
        LambdaCallback(on_epoch_end=UserFunction("m.n", "f"), on_train_begin=UserFunction("m", "g")),
        "hooks as module:function, quoted or not, and nothing is imported",
    ),
    (
        "LambdaCallback(a:b, c:d)",
        LambdaCallback(on_epoch_begin=UserFunction("a", "b"), on_epoch_end=UserFunction("c", "d")),
        "hooks in order",
    ),
]


@pytest.mark.parametrize(("text", "policy", "sentence"), READ, ids=[row[2] for row in READ])
def test_a_call_is_read_as_python_would(text: str, policy: Listed, sentence: str) -> None:
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
    ("OrbaxCheckpoint('x')", "OrbaxCheckpoint is not replayed"),
    ("Mine(patience=3)", "no such callback. One of your own is written package.module:Mine(…)"),
    ("my.module.Mine(patience=3)", "a callback of your own is written with a colon: my.module:Mine(…)"),
    ("my.module:Mine(*x)", "instead of * or **"),
    ("EarlyStopping(5)", "the first argument of EarlyStopping is monitor. Did you mean patience=5?"),
    ("EarlyStopping(patience=range(1, 21))", "grids are for cbmon sweep"),
    ("EarlyStopping(min_delta=grid(0, 1e-3))", "grids are for cbmon sweep"),
    ("my.module:Mine(**x)", "write the arguments out"),
    ("my.module:Mine(a=print)", "a=print is no literal"),
    ("my.module:Mine(a={1, 2})", "is no literal"),
    ("my.module:Mine(a=b'x')", "is no literal"),
    ("my:module.Mine()", "as package.module:Class(argument=literal)"),
    ("my.module:Mine", "this is no call"),
    ("a: EarlyStopping()", "this is no call"),
    ("CSVLogger()", "CSVLogger needs filename"),
    ("CSVLogger('x', seperator=';')", "no argument seperator in Keras 3.15. Did you mean separator?"),
    ("BackupAndRestore()", "needs backup_dir"),
    ("BackupAndRestore('x', save_before_preemption=True)", "no argument save_before_preemption"),
    ("TensorBoard(write_grads=True)", "no argument write_grads"),
    ("History(1)", "History takes no arguments in Keras 3.15"),
    ("ProgbarLogger('steps')", "ProgbarLogger takes no arguments"),
    ("BaseLogger()", "Keras 3.15 has no BaseLogger"),
    ("RemoteMonitor(headers={'a': print})", "is no literal"),
    ("LambdaCallback(on_epoch_end=lambda epoch, logs: 1)", "on_epoch_end='module:function'"),
    ("LambdaCallback(on_epoch_end='print(1)')", "on_epoch_end='module:function'"),
    ("LambdaCallback(1, 2, 3, 4, 5, 6, 7)", "at most 6 arguments"),
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


def test_arguments_of_observers_differ_too() -> None:
    assert build("BackupAndRestore('d', 5, False, True)", K2) == (
        BackupAndRestore("d", 5, delete_checkpoint=False, save_before_preemption=True)
    )
    assert build("BackupAndRestore('d', 5, False)", PROFILES["3.6"]) == (
        BackupAndRestore("d", 5, delete_checkpoint=False)
    ), "double_checkpoint came with 3.7"
    assert build("BaseLogger(['a'])", K2) == BaseLogger(["a"])
    assert build("ProgbarLogger('steps', ['a'])", K2) == ProgbarLogger("steps", ["a"])
    call = "LambdaCallback(None, None, a:b)"
    assert build(call) == LambdaCallback(on_train_begin=UserFunction("a", "b"))
    assert build(call, K2) == LambdaCallback(on_batch_begin=UserFunction("a", "b")), "Keras 2's order"
    (found,) = parse_calls("TensorBoard(write_grads=True)", K2)
    assert (found.build(K2), found.notes) == (TensorBoard(), ("TensorBoard: Keras 2 ignores write_grads",))
    (found,) = parse_calls("LambdaCallback(on_epoch_ends=3)", K3)
    assert found.notes == (
        "LambdaCallback: there is no hook on_epoch_ends, and Keras never calls it. Did you mean on_epoch_end?",
    )
    with pytest.raises(BadCall, match="Keras 2 has no SwapEMAWeights"):
        parse_calls("SwapEMAWeights()", K2)


def test_the_call_of_a_class_of_the_users_own_is_bound_by_name() -> None:
    first, second, third = parse_calls(
        "[EarlyStopping(), a.b:C(x=1), LearningRateScheduler(lambda e: 0.1)]", K3
    )
    assert (first.policy, third.policy) == (EarlyStopping, LearningRateScheduler)
    assert second.policy is UserClass
    assert second.arguments == {"module": "a.b", "name": "C", "arguments": {"x": 1}, "positional": ()}
    (fourth,) = parse_calls("a:C(0.36, y=2)", K3)
    assert (fourth.arguments["positional"], fourth.arguments["arguments"]) == ((0.36,), {"y": 2})
    assert second.text == "a.b:C(x=1)"


@pytest.mark.parametrize(
    ("text", "name", "first"),
    [
        ("a:EarlyStopping()", "a", "EarlyStopping()"),
        ("a:[EarlyStopping()]", "a", "EarlyStopping()"),
        ("a.b:C(x=1)", "", "a.b:C(x=1)"),
        ("slow: a.b:C(x=1)", "slow", "a.b:C(x=1)"),
        ("slow:a.b:C(x=1)", "slow", "a.b:C(x=1)"),
        ("slow one:a.b:C()", "slow one", "a.b:C()"),
        ("a: C()", "a", None),
    ],
)
def test_a_variants_name_and_a_class_of_the_users_own(text: str, name: str, first: str | None) -> None:
    if first is None:
        with pytest.raises(BadCall, match="no such callback"):
            parse_variant(text, K3)
    else:
        found, calls = parse_variant(text, K3)
        assert (found, calls[0].text) == (name, first)


KERAS_REFUSES: list[tuple[str, Profile, str]] = [
    ("ReduceLROnPlateau(factor=2)", K3, "factor >= 1.0"),
    ("BackupAndRestore('')", K3, "Empty `backup_dir` argument passed"),
    ("BackupAndRestore(None)", K3, "Empty `backup_dir`"),
    (
        "BackupAndRestore('d', 'epochs')",
        K3,
        "Invalid value for argument `save_freq`. Received: save_freq=epochs.",
    ),
    ("BackupAndRestore('d', 1.5)", K3, "Invalid value for argument `save_freq`"),
    ("BackupAndRestore(5)", K3, "is not a path"),
    ("BackupAndRestore('d', False)", K2, "Either `save_freq` or `save_before_preemption` must be set."),
    ("TensorBoard(profile_batch='a')", K3, "invalid literal for int() with base 10: 'a'"),
    ("TensorBoard(profile_batch=-1)", K3, "profile_batch must be a non-negative integer"),
    ("TensorBoard(profile_batch=(3, 2))", K3, "profile_batch must be"),
    ("TensorBoard(profile_batch=1.5)", K3, "profile_batch must be"),
    ("TensorBoard(profile_batch=None)", K3, "profile_batch must be"),
    ("TensorBoard(update_freq='x')", K3, "TypeError: unsupported operand type(s) for %: 'int' and 'str'"),
    ("TensorBoard(update_freq=0)", K3, "ZeroDivisionError: integer modulo by zero"),
    ("ProgbarLogger('x')", K2, "Unknown `count_mode`: x."),
    ("BaseLogger(3)", K2, "object is not iterable"),
    ("CSVLogger(5)", K3, "is not a path"),
    ("CSVLogger('x', ';;')", K3, '"delimiter" must be a 1-character string'),
    ("RemoteMonitor(headers=[1])", K3, "is not a dict"),
    ("RemoteMonitor(root=5)", K3, "is not a string"),
]


@pytest.mark.parametrize(
    ("text", "profile", "words"), KERAS_REFUSES, ids=[f"{row[0]} {row[1].name}" for row in KERAS_REFUSES]
)
def test_what_keras_itself_refuses_is_no_bad_call(text: str, profile: Profile, words: str) -> None:
    (call,) = parse_calls(text, profile)
    with pytest.raises(KerasRefuses) as refusal:
        call.build(profile)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "BackupAndRestore('d', True)",
        "BackupAndRestore('d', 0)",
        "TensorBoard(profile_batch=(2, 5))",
        "TensorBoard(profile_batch='2,5')",
        "TensorBoard(update_freq=-2)",
    ],
)
def test_what_keras_takes_is_taken(text: str) -> None:
    build(text)


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
    with pytest.raises(BadCall, match="a callback of your own is written with a colon"):
        parse_calls("foo.callbacks.EarlyStopping(patience=3)", K3)
