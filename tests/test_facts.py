"""What a record knows of a fit beside its epochs: command, config, worker, devices, learning rates; no secrets."""

import dataclasses
import enum
import json
import math
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path, PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbmon.callbacks import Monitor, facts
from cbmon.events import EPOCH_MAX, RunStarted, decode_line, encode_line
from cbmon.formats.lines import LINE_MAX
from tests.test_monitor import RATES, begin, drive, epochs, events, flat_cut, kinds, only_file, run_epoch
from tests.test_monitor import keras as keras  # a fixture


def first(path: Path) -> RunStarted:
    """The first event of a record."""
    started = events(path)[0]
    assert isinstance(started, RunStarted)
    return started


# The command line.

COMMANDS: list[tuple[list[str], list[str]]] = [
    (["--token", "abc"], ["--token", "***"]),
    (["--token=abc"], ["--token=***"]),
    (["-token", "abc"], ["-token", "***"]),
    (["--api-key", "abc", "--lr", "0.1"], ["--api-key", "***", "--lr", "0.1"]),
    (["--password", "-x"], ["--password", "***"]),
    (["--password", "-key", "abc"], ["--password", "***", "***"]),
    (["--use-token", "--lr", "0.1"], ["--use-token", "--lr", "0.1"]),
    (["--token"], ["--token"]),
    (["API_KEY=x"], ["API_KEY=***"]),
    (["a.b.secret=1"], ["a.b.secret=***"]),
    (["+a.b.secret_name=1", "~c"], ["+a.b.secret_name=***", "~c"]),
    (["--password=two words; and, more & [signs]}"], ["--password=***"]),
    (["--password='quoted' and more"], ["--password=***"]),
    (["PGPASSWORD=a,b psql"], ["PGPASSWORD=***"]),
    (["--AWS_SECRET_ACCESS_KEY=abc/def+g="], ["--AWS_SECRET_ACCESS_KEY=***"]),
    (["--credentials", "file.json"], ["--credentials", "***"]),
    (["https://user:pw@host/x"], ["https://***@host/x"]),
    (["https://user:p@w@host/x?q=a@b"], ["https://***@host/x?q=a@b"]),
    (["https://host/x?token=abc&epochs=3"], ["https://host/x?token=***"]),
    (["--to=s3://me:pw@bucket", "git+ssh://git@host/x"], ["--to=s3://***@bucket", "git+ssh://***@host/x"]),
    (['{"lr": 0.1, "api_key": "x", "b": 2}'], ['{"lr": 0.1, "api_key": ***, "b": 2}']),
    (['{"token": "a\\"b", "b": 2}'], ['{"token": ***, "b": 2}']),
    (['{"token":"a","b":{"password" : "c"}}'], ['{"token":***,"b":{"password" : ***}}']),
    (["{'token': 'it', 'b': 2}"], ["{'token': ***, 'b': 2}"]),
    (['{"tokens": ["a", "b"], "lr": 1}'], ['{"tokens": ***']),
    (['{"secrets": {"a": "b"}}'], ['{"secrets": ***']),
    (['{"env": "{\\"token\\": \\"a\\"}"}'], ['{"env": "{\\"token\\": ***']),
    (["-H", "X-Api-Key: abc def"], ["-H", "X-Api-Key: ***"]),
    (["--env", "TOKEN=a b"], ["--env", "TOKEN=***"]),
    (["token =\n abc"], ["token =\n ***"]),
    (["caf\udce9"], ["caf\\udce9"]),
]
HARMLESS = [
    ["train.py", "--lr=0.1", "--epochs", "10", "-v", "data/*.csv", "a=b", "model.layers.0.units=64"],
    ["https://host:8080/x@y?a=b", "user@host:path", "s3://bucket/x", "epoch:3", "C:\\data"],
    [
        '{"lr": 0.1, "layers": [1, 2]}',
        "{'a': 'b'}",
        "the key is in the name",
        "",
        " ",
        "-",
        "--",
        "==",
        "größe=1",
    ],
]


@pytest.mark.parametrize(
    ("arguments", "shown"), [*COMMANDS, *((line, line) for line in HARMLESS)], ids=lambda line: line[0][:30]
)
def test_a_command_line_is_kept_without_what_looks_like_a_secret(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], shown: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    assert facts.command() == ["train.py", *shown]


def test_a_long_command_line_is_cut_and_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    nasty = ["a" * 10**6, "key" * 10**5, "a.-_" * 10**5, "https://" + "u" * 10**6, '"token":"' + "\\" * 10**5]
    monkeypatch.setattr(sys, "argv", [*nasty, *["x"] * 1000])
    start = time.monotonic()
    shown = facts.command()
    assert time.monotonic() - start < 5  # a pattern that looks back took minutes for the first one
    assert len(shown) == facts.ARGUMENTS_MAX
    assert max(map(len, shown)) <= facts.TEXT_MAX


@pytest.mark.parametrize("argv", [[], [b"bytes", None, 7, PurePosixPath("x")]])
def test_an_odd_argv_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch, argv: list[Any]) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert len(facts.command()) == len(argv)
    monkeypatch.delattr(sys, "argv")  # an interpreter within another program
    assert facts.command() == []


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_record_has_the_command_line_unless_it_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--token", "hunter2"])
    drive(Monitor(tmp_path / "run.jsonl", record_argv=is_kept))
    assert first(tmp_path / "run.jsonl").command == (["train.py", "--token", "***"] if is_kept else [])
    assert b"hunter2" not in (tmp_path / "run.jsonl").read_bytes()


# The config.


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Broken(Mapping[str, int]):
    """A mapping that fails when it is looked into."""

    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("not today")

    def __len__(self) -> int:
        return 1


@dataclasses.dataclass
class Options:
    api_key: str = "hunter2"
    rate: float = 0.1


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Own(float):
    pass


def cyclic() -> dict[str, Any]:
    """A config that holds itself in many places: as a tree it never ends."""
    one: dict[str, Any] = {}
    one |= {f"child {number}": one for number in range(50)}
    one["list"] = [one] * 50
    return one


CONFIGS: dict[str, tuple[Any, Any]] = {
    "plain": (
        {"a": 1, "b": 0.5, "c": True, "d": None, "e": "x"},
        {"a": 1, "b": 0.5, "c": True, "d": None, "e": "x"},
    ),
    "nested": ({"a": {"b": [1, (2, {"c": 3})]}}, {"a": {"b": [1, [2, {"c": 3}]]}}),
    "mappings": (OrderedDict(a=MappingProxyType({"b": 1})), {"a": {"b": 1}}),
    "a set": ({"a": {1}, "b": frozenset()}, {"a": [1], "b": []}),
    "secrets": (
        {"api_key": "x", "Token": 1, "a": {"passwd": [1], "secrets": {"b": 2}}, "credentials": None},
        {"api_key": "***", "Token": "***", "a": {"passwd": "***", "secrets": "***"}, "credentials": "***"},
    ),
    "logins": (
        {"a": ["redis://me:pw@host"], "redis://me:pw@host": 1},
        {"a": ["redis://***@host"], "redis://***@host": 1},
    ),
    "text is not searched": ({"note": "key: C minor"}, {"note": "key: C minor"}),
    "an object's text is": ({"a": Options()}, {"a": "Options(api_key=***, rate=0.1)"}),
    "keys that are no text": ({1: "a", None: "b", (2, 3): "c"}, {"1": "a", "None": "b", "(2, 3)": "c"}),
    "not finite": ({"a": math.nan, "b": [math.inf, -math.inf]}, {"a": "nan", "b": ["inf", "-inf"]}),
    "large numbers": (
        {"a": 2**53 - 1, "b": 2**53, "c": -(2**80), "d": 10**5000},
        {"a": 2**53 - 1, "b": str(2**53), "c": str(-(2**80)), "d": "<int>"},
    ),
    "subclasses": ({"a": Level.LOW, "b": Own(0.5), "c": Colour.RED}, {"a": 1, "b": 0.5, "c": "Colour.RED"}),
    "lone surrogates": ({"\ud800": ["\udfff"]}, {"\\ud800": ["\\udfff"]}),
    "a long text": ({"a": "x" * 5000}, {"a": "x" * 1000}),
    "what cannot be printed": ({"a": Unprintable(), "b": 1}, {"a": "<Unprintable>", "b": 1}),
    "a key that cannot be printed": ({Unprintable(): 1}, {"<Unprintable>": 1}),
    "what cannot be looked into": ({"a": Broken(), "b": 1}, {"a": "<Broken>", "b": 1}),
    "nothing but that": (Broken(), {}),
    "other objects": (
        {"a": PurePosixPath("x/y"), "b": Decimal("0.5"), "c": 1j, "d": b"x", "e": dict},
        {"a": "x/y", "b": 0.5, "c": "1j", "d": "b'x'", "e": "<class 'dict'>"},
    ),
}


@pytest.mark.parametrize(("config", "plain"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_becomes_json_without_its_secrets(config: Any, plain: Any) -> None:
    found = facts.plain_config(config)
    assert found == plain
    assert json.loads(json.dumps(found, allow_nan=False)) == plain


def test_the_scalars_of_numpy_are_numbers_and_its_arrays_text() -> None:
    np = pytest.importorskip("numpy")
    config = {
        "int": np.int64(3),
        "float32": np.float32(0.1),
        "float64": np.float64(0.1),
        "bool": np.bool_(True),
        "str": np.str_("x"),
        "nan": np.float16("nan"),
        "zero_d": np.array(2),
        "array": np.zeros(2),
        "date": np.datetime64("2026-11-23"),
    }
    found = facts.plain_config(config)
    assert found == {
        "int": 3,
        "float32": 0.10000000149011612,
        "float64": 0.1,
        "bool": True,
        "str": "x",
        "nan": "nan",
        "zero_d": 2,
        "array": "[0. 0.]",
        "date": "2026-11-23",
    }
    assert {name: type(value) for name, value in found.items()} == {
        name: {"int": int, "zero_d": int, "float32": float, "float64": float, "bool": bool}.get(name, str)
        for name in found
    }


def test_a_secret_below_the_deepest_level_that_is_kept_is_masked() -> None:
    config: dict[str, Any] = {"token": "hunter2", "x": Options()}
    for _ in range(20):
        config = {"a": config, "b": [config]}
    assert "hunter2" not in json.dumps(facts.plain_config(config))


@pytest.mark.parametrize(
    "config",
    [cyclic(), {"a": list(range(10**6))}, {f"{number}": "x" * 2000 for number in range(10**4)}],
    ids=["cyclic", "a long list", "many long texts"],
)
def test_a_config_of_any_size_gives_a_line_that_readers_take(config: dict[str, Any]) -> None:
    plain = facts.plain_config(config)
    assert plain
    assert len(encode_line(RunStarted(run_id="r", config=plain))) < LINE_MAX


odd = st.sampled_from(
    [Unprintable(), Broken(), Options(), Colour.RED, Level.LOW, Own(1), object(), 1j, b"x", cyclic()]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)  # lone surrogates, too
    | odd
)
configs = st.dictionaries(
    st.text(st.characters(), max_size=9) | st.integers() | st.none(),
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(st.characters(), max_size=5) | st.integers(), inner, max_size=3)
            | st.tuples(inner)
        ),
        max_leaves=12,
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=150)
@given(configs)
def test_any_config_comes_back_from_the_record_as_it_was_taken(config: dict[Any, Any]) -> None:
    plain = facts.plain_config(config)
    started = decode_line(encode_line(RunStarted(run_id="r", config=plain)))
    assert isinstance(started, RunStarted)
    assert started.config == plain


def test_a_config_is_in_the_record_of_each_fit_as_it_was_when_the_monitor_was_made(tmp_path: Path) -> None:
    config = {"batch": 32, "wandb": {"api_key": "hunter2"}}
    monitor = Monitor(tmp_path / "run.jsonl", config=config)
    config["batch"] = 64
    drive(monitor)
    drive(monitor)
    starts = [event for event in events(tmp_path / "run.jsonl") if isinstance(event, RunStarted)]
    assert [start.config for start in starts] == [{"batch": 32, "wandb": {"api_key": "***"}}] * 2
    assert b"hunter2" not in (tmp_path / "run.jsonl").read_bytes()


@pytest.mark.parametrize("config", [["a"], "batch=32", 7, SimpleNamespace(a=1), [("a", 1)], Options()])
def test_a_config_that_is_no_mapping_is_refused_at_once(tmp_path: Path, config: Any) -> None:
    with pytest.raises(TypeError, match=r"a mapping of names to values\. Received"):
        Monitor(tmp_path, config=config)


def test_no_config_is_an_empty_one(tmp_path: Path) -> None:
    drive(Monitor(tmp_path / "run.jsonl", config=None))
    assert first(tmp_path / "run.jsonl").config == {}


# Workers.


def strategy(task: str | None, number: int | None, jobs: list[str], is_several: bool = True) -> Any:
    """What a model of TensorFlow says of the cluster that it is trained in."""
    resolver = SimpleNamespace(
        task_type=task, task_id=number, cluster_spec=lambda: SimpleNamespace(jobs=jobs)
    )
    extended = SimpleNamespace(_in_multi_worker_mode=lambda: is_several)
    return SimpleNamespace(extended=extended, cluster_resolver=resolver)


RANKS: list[tuple[str | None, int | None, list[str], int]] = [
    ("chief", 0, ["chief", "worker"], 0),
    ("worker", 0, ["chief", "worker"], 1),
    ("worker", 1, ["chief", "worker"], 2),
    ("worker", 0, ["worker"], 0),
    ("worker", 1, ["worker"], 1),
    ("evaluator", 0, ["worker", "evaluator"], 1),
    (None, None, [], 0),
]


@pytest.mark.parametrize(("task", "number", "jobs", "rank"), RANKS)
def test_one_worker_of_tensorflow_is_the_chief(task: Any, number: Any, jobs: list[str], rank: int) -> None:
    model = SimpleNamespace(distribute_strategy=strategy(task, number, jobs))
    assert facts.worker(model, "tensorflow") == rank
    alone = SimpleNamespace(distribute_strategy=strategy(task, number, jobs, is_several=False))
    assert facts.worker(alone, "tensorflow") == 0


@pytest.mark.parametrize("model", [None, SimpleNamespace(), SimpleNamespace(distribute_strategy=None)])
def test_a_model_that_tells_nothing_is_trained_alone(model: Any) -> None:
    assert facts.worker(model, "tensorflow") == facts.worker(model, None) == 0


def test_the_rank_on_jax_is_that_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(process_index=lambda: 3))
    assert facts.worker(None, "jax") == 3


@pytest.mark.parametrize(
    ("is_available", "is_initialized", "rank"), [(True, True, 2), (True, False, 0), (False, True, 0)]
)
def test_the_rank_on_torch_is_that_in_its_group(
    monkeypatch: pytest.MonkeyPatch, is_available: bool, is_initialized: bool, rank: int
) -> None:
    group = SimpleNamespace(
        is_available=lambda: is_available, is_initialized=lambda: is_initialized, get_rank=lambda: 2
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(distributed=group))
    assert facts.worker(None, "torch") == rank


def test_a_backend_that_is_not_loaded_or_fails_is_trained_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("jax", "torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        assert facts.worker(None, name) == 0
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(process_index=lambda: 1 / 0))
    assert facts.worker(None, "jax") == 0


def train_as(monitor: Monitor, rank: int) -> None:
    """A fit by hand of one of three workers without a chief of its own."""
    begin_model = SimpleNamespace(
        optimizer=SimpleNamespace(learning_rate=0.5),
        stop_training=False,
        distribute_strategy=strategy("worker", rank, ["worker"]),
    )
    monitor.set_model(begin_model)
    monitor.set_params({"epochs": 1, "steps": 1})
    monitor.on_train_begin({})
    run_epoch(monitor, 0)
    monitor.on_train_end()


@pytest.mark.parametrize("name", ["logs", "run.jsonl", "run.csv"])
def test_of_several_workers_the_chief_alone_writes(tmp_path: Path, name: str) -> None:
    for rank in (1, 2):
        train_as(Monitor(tmp_path / name), rank)
    assert list(tmp_path.iterdir()) == []
    train_as(Monitor(tmp_path / name), 0)
    (path,) = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert path.suffix == ".csv" or first(path).worker is None


def test_all_workers_write_into_a_file_each_if_that_is_wanted(tmp_path: Path) -> None:
    for rank in (1, 0, 2):
        train_as(Monitor(tmp_path / "run.jsonl", all_workers=True), rank)
    by_worker = {first(path).worker: path for path in tmp_path.iterdir()}
    assert set(by_worker) == {None, 1, 2}
    assert by_worker[None].name == "run.jsonl"
    assert all(f"-worker{rank}" in by_worker[rank].name for rank in (1, 2))
    assert {kinds(path) for path in tmp_path.iterdir()} == {"se."}


def test_all_workers_write_into_one_folder_under_names_of_their_own(tmp_path: Path) -> None:
    for rank in range(3):
        train_as(Monitor(tmp_path, all_workers=True), rank)
    assert sorted(str(first(path).worker) for path in tmp_path.iterdir()) == ["1", "2", "None"]


def test_several_fits_of_a_worker_are_attempts_in_its_file(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "run.jsonl", all_workers=True)
    train_as(monitor, 1)
    train_as(monitor, 1)
    assert kinds(only_file(tmp_path)) == "se.se."


# Learning rates, parameters, devices: real fits.


@pytest.fixture
def tf_keras(keras: Any) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("tf_keras")


def rates(path: Path) -> list[float | None]:
    return [rate for event in epochs(path) for rate in event.learning_rate or [None]]


def halving(keras: Any) -> Any:
    """0.1 at first, half of it three steps later."""
    return keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=3, decay_rate=0.5)


def train(keras: Any, optimizer: Any, *callbacks: Any, **options: Any) -> Any:
    """Four epochs of three steps, two layers."""
    np = pytest.importorskip("numpy")
    x = np.random.default_rng(0).random((48, 4)).astype("float32")
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(3, name="first"),
            layers.Dense(1, activation="sigmoid", name="last"),
        ]
    )
    model.compile(optimizer, "binary_crossentropy", run_eagerly=True)  # tracing takes longer than all steps
    model.fit(
        x, x[:, :1], callbacks=list(callbacks), **({"epochs": 4, "batch_size": 16, "verbose": 0} | options)
    )
    return model


def several_optimizers(keras: Any, first: Any) -> Any:
    """One for the first layer, an SGD for the rest."""
    optimizers = keras.optimizers
    if not hasattr(optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    table = optimizers.OptimizerMap(optimizers.SGD(0.1, name="slow"), {".*/first/.*": first})
    return optimizers.MultiOptimizer(table)


def rates_by_name(path: Path) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {}
    for event in epochs(path):
        assert event.learning_rate is None
        for name, (rate,) in event.learning_rates.items():
            found.setdefault(name, []).append(rate)
    return found


def test_the_rates_of_several_optimizers_are_recorded_by_name(keras: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    optimizer = several_optimizers(keras, keras.optimizers.Adam(halving(keras), name="quick"))
    train(keras, optimizer, Monitor(path), Monitor(tmp_path / "run.csv"))
    found = rates_by_name(path)
    assert found == {
        "quick": pytest.approx([0.1, 0.05, 0.025, 0.0125], rel=1e-6),
        "slow": pytest.approx([0.1] * 4, rel=1e-7),
    }
    assert first(path).optimizer == "MultiOptimizer"
    header = (tmp_path / "run.csv").read_text().splitlines()[0].split(",")
    assert header[-2:] == ["cbmon_learning_rate_quick", "cbmon_learning_rate_slow"]


def test_the_rates_of_several_optimizers_are_those_in_effect_when_a_callback_cuts_them(
    keras: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    optimizer = several_optimizers(keras, keras.optimizers.Adam(0.2, name="quick"))
    train(keras, optimizer, Monitor(path), flat_cut(keras))
    found = rates_by_name(path)
    assert found["slow"] == pytest.approx(RATES, rel=1e-6)
    assert found["quick"] == pytest.approx([2 * rate for rate in RATES], rel=1e-6)


def test_the_rates_that_a_callback_writes_for_several_optimizers_are_no_metrics(
    keras: Any, tmp_path: Path
) -> None:
    optimizer = several_optimizers(keras, keras.optimizers.Adam(0.2, name="quick"))
    train(keras, optimizer, flat_cut(keras), Monitor(tmp_path / "run.jsonl"))
    assert {name for event in epochs(tmp_path / "run.jsonl") for name in event.metrics} == {"loss"}


def test_a_loss_scaled_optimizer_has_the_rates_of_those_within(keras: Any, tmp_path: Path) -> None:
    scaled = keras.optimizers.LossScaleOptimizer
    train(keras, scaled(keras.optimizers.SGD(halving(keras))), Monitor(tmp_path / "schedule.jsonl"))
    assert rates(tmp_path / "schedule.jsonl") == pytest.approx([0.1, 0.05, 0.025, 0.0125], rel=1e-6)
    train(keras, scaled(keras.optimizers.SGD(0.1)), Monitor(tmp_path / "cut.jsonl"), flat_cut(keras))
    assert rates(tmp_path / "cut.jsonl") == pytest.approx(RATES, rel=1e-7)
    several = several_optimizers(keras, keras.optimizers.Adam(0.5, name="quick"))
    train(keras, scaled(several), Monitor(tmp_path / "several.jsonl"), epochs=1)
    assert rates_by_name(tmp_path / "several.jsonl") == {"quick": [0.5], "slow": [0.10000000149011612]}


def test_a_mirrored_learning_rate_is_read_also_where_it_is_a_schedule(keras: Any, tmp_path: Path) -> None:
    distribute = pytest.importorskip("tensorflow").distribute
    with distribute.MirroredStrategy(["CPU:0"]).scope():
        train(keras, keras.optimizers.SGD(0.1), Monitor(tmp_path / "cut.jsonl"), flat_cut(keras))
        train(keras, keras.optimizers.SGD(halving(keras)), Monitor(tmp_path / "schedule.jsonl"), epochs=2)
    assert rates(tmp_path / "cut.jsonl") == pytest.approx(RATES, rel=1e-7)
    assert rates(tmp_path / "schedule.jsonl") == pytest.approx([0.1, 0.05], rel=1e-6)
    assert first(tmp_path / "cut.jsonl").worker is None  # one process


def test_a_loss_scaled_optimizer_of_tf_keras_has_the_rate_of_the_one_within(
    tf_keras: Any, tmp_path: Path
) -> None:
    scaled, optimizers = tf_keras.mixed_precision.LossScaleOptimizer, tf_keras.optimizers
    train(tf_keras, scaled(optimizers.SGD(0.1)), Monitor(tmp_path / "cut.jsonl"), flat_cut(tf_keras))
    assert rates(tmp_path / "cut.jsonl") == pytest.approx(RATES, rel=1e-7)
    train(tf_keras, scaled(optimizers.SGD(halving(tf_keras))), Monitor(tmp_path / "schedule.jsonl"), epochs=2)
    assert rates(tmp_path / "schedule.jsonl") == pytest.approx([0.1, 0.05], rel=1e-6)
    train(tf_keras, scaled(optimizers.legacy.SGD(0.1)), Monitor(tmp_path / "legacy.jsonl"), epochs=1)
    assert rates(tmp_path / "legacy.jsonl") == [0.10000000149011612]


class Refusing:
    """An optimizer that raises what nobody expects."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class WithoutRate:
    """As MultiOptimizer within another one."""

    @property
    def learning_rate(self) -> float:
        raise ValueError("there are several")


OPTIMIZERS: dict[str, tuple[Any, Any]] = {
    "none": (None, None),
    "a number": (SimpleNamespace(learning_rate=0.5), 0.5),
    "no number": (SimpleNamespace(learning_rate="fast"), None),
    "nothing": (SimpleNamespace(), None),
    "an empty list": (SimpleNamespace(optimizers=[], learning_rate=0.5), 0.5),
    "a list of something": (SimpleNamespace(optimizers=[7]), {"int": None}),
    "two of one name": (
        SimpleNamespace(optimizers=[SimpleNamespace(name="a", learning_rate=rate) for rate in (0.5, 0.25)]),
        {"a": 0.5, "a_1": 0.25},
    ),
    "scaled": (SimpleNamespace(learning_rate=0.0, inner_optimizer=SimpleNamespace(learning_rate=0.5)), 0.5),
    "one that raises": (Refusing(), None),
    "one of two that raises": (
        SimpleNamespace(optimizers=[SimpleNamespace(name="a", learning_rate=0.5), WithoutRate()]),
        {"a": 0.5, "WithoutRate": None},
    ),
}


@pytest.mark.parametrize(("optimizer", "rate"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_learning_rate_is_a_number_or_unknown(optimizer: Any, rate: Any) -> None:
    assert facts.learning_rates(optimizer) == rate


def test_a_record_has_the_models_name_its_parameters_and_the_devices(keras: Any, tmp_path: Path) -> None:
    model = train(keras, "sgd", Monitor(tmp_path / "run.jsonl"), epochs=1)
    started = first(tmp_path / "run.jsonl")
    assert (started.model, started.parameters) == (model.name, 4 * 3 + 3 + 3 + 1)
    assert started.devices == ["CPU"]
    assert started.keras == keras.__version__
    assert started.backend_version == pytest.importorskip("tensorflow").__version__
    assert started.python == ".".join(map(str, sys.version_info[:3]))


def test_a_model_that_is_not_built_has_no_number_of_parameters_yet(keras: Any, tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    assert facts.parameters(model) is None
    model.fit(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0, callbacks=[Monitor(tmp_path / "run.jsonl")])
    assert first(tmp_path / "run.jsonl").parameters is None  # Keras builds it in the first step


def gpu(name: str | None) -> Any:
    return SimpleNamespace(device_type="GPU", name=name)


def fake_tensorflow(*devices: Any) -> Any:
    details = lambda device: {} if device.name is None else {"device_name": device.name}  # noqa: E731
    config = SimpleNamespace(
        get_visible_devices=lambda: [SimpleNamespace(device_type="CPU", name="cpu"), *devices],
        experimental=SimpleNamespace(get_device_details=details),
    )
    return SimpleNamespace(config=config)


def fake_torch(*names: str, is_in_use: bool = True) -> Any:
    cuda = SimpleNamespace(
        is_initialized=lambda: is_in_use,
        device_count=lambda: len(names),
        get_device_name=lambda at: names[at] if is_in_use else pytest.fail("takes the GPU"),
    )
    return SimpleNamespace(cuda=cuda)


DEVICES: list[tuple[str, Any, list[str]]] = [
    ("tensorflow", fake_tensorflow(), ["CPU"]),
    ("tensorflow", fake_tensorflow(gpu("NVIDIA H100"), gpu(None)), ["GPU: NVIDIA H100", "GPU"]),
    ("torch", fake_torch(), ["CPU"]),
    ("torch", fake_torch("NVIDIA H100"), ["GPU: NVIDIA H100"]),
    ("torch", fake_torch("NVIDIA H100", is_in_use=False), ["CPU"]),
    (
        "jax",
        SimpleNamespace(local_devices=lambda: [SimpleNamespace(device_kind="TPU v4")] * 2),
        ["TPU v4"] * 2,
    ),
    ("jax", SimpleNamespace(local_devices=lambda: 1 / 0), []),
    ("torch", SimpleNamespace(), []),
]


@pytest.mark.parametrize(("backend", "library", "names"), DEVICES)
def test_devices_are_named_as_far_as_the_backend_tells(
    monkeypatch: pytest.MonkeyPatch, backend: str, library: Any, names: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, backend, library)
    assert facts.devices(backend) == names


@pytest.mark.parametrize("backend", [None, "numpy", "mlx"])
def test_another_backend_tells_no_devices(backend: str | None) -> None:
    assert facts.devices(backend) == []


class Odd:
    """No number, whatever is asked."""

    def __index__(self) -> int:
        raise RuntimeError("a tensor of a graph")

    __float__: Callable[..., float] = __index__


@pytest.mark.parametrize(
    ("value", "count"),
    [
        *((count, count) for count in (0, 7, EPOCH_MAX)),
        *((value, None) for value in (sys.maxsize, -1, 2.0, None, "7", Odd(), math.inf)),
    ],
)
def test_a_count_is_one_that_a_record_can_hold_or_unknown(value: Any, count: int | None) -> None:
    assert facts.whole(value) == count


@pytest.mark.parametrize("plan", [sys.maxsize, 10**30])
def test_a_plan_without_an_end_is_no_plan_and_the_start_of_the_record_can_be_read(
    tmp_path: Path, plan: int
) -> None:
    monitor = Monitor(tmp_path / "run.jsonl")
    begin(monitor, plan)
    monitor.on_train_end()
    assert first(tmp_path / "run.jsonl").epochs is None
