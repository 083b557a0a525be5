"""What watchers ask for: done in the training thread, answered with what was done, and never a fit's trouble."""

import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cbmon.callbacks import Monitor, facts
from cbmon.callbacks import control as control_module
from cbmon.endpoint import Answer, Ask, Goodbye
from cbmon.events import CheckpointSaved, ControlApplied, EpochsEnded, RunEnded, StopRequested
from tests.test_monitor import begin, events, flat_cut, python, run_epoch, wait_for
from tests.test_monitor import keras as keras  # a fixture
from tests.test_monitor_faults import Trainer
from tests.test_monitor_faults import said as said  # fixtures
from tests.test_monitor_faults import unharmed as unharmed
from tests.test_wire import Client, step, wire_of
from tests.test_wire import client as client
from tests.test_wire import runtime as runtime

WHO = "ana@lab:7"


def applied(path: Path) -> list[tuple[Any, ...]]:
    """What the record says was done."""
    return [
        (event.command, event.epoch, event.by, event.old, event.new)
        for event in events(path)
        if isinstance(event, ControlApplied)
    ]


class Asker:
    """Asks one thing after the other and reads the answers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.number = 0

    def ask(self, what: str, **options: Any) -> int:
        self.number += 1
        self.client.send(Ask(id=self.number, what=what, **options))
        return self.number

    def answer(self, number: int | None = None) -> Answer:
        number = number or self.number
        found = self.client.until(lambda event: isinstance(event, Answer) and event.id == number)
        assert isinstance(found, Answer)
        return found


@pytest.fixture
def asker(client: Any) -> Callable[[Path], Asker]:
    """Somebody who may ask the run of a record."""
    return lambda path: Asker(client(path, role="ctl", who=WHO))


def pending(monitor: Monitor) -> int:
    control = wire_of(monitor)._control
    assert control is not None
    return len(control.pending)


def settle(monitor: Monitor, count: int = 1) -> None:
    """Until so many requests wait for the training thread."""
    wait_for(lambda: pending(monitor) == count)


def model_of(monitor: Monitor) -> Any:
    return monitor._model


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Monitor]:
    """A fit by hand, in its first epoch."""
    monitor = Monitor(tmp_path / "run.jsonl")
    begin(monitor)
    monitor.on_epoch_begin(0)
    yield monitor
    monitor.on_train_end()


# By hand: when, and in what words.


def test_a_stop_waits_for_the_end_of_the_epoch(run: Monitor, asker: Any, tmp_path: Path, said: Any) -> None:
    path = tmp_path / "run.jsonl"
    who = asker(path)
    who.ask("stop")
    settle(run)
    step(run, 0)
    assert who.answer() == Answer(id=1, done=True, words="training ends after epoch 1")
    assert not model_of(run).stop_training
    run.on_epoch_end(0, {"loss": 1.0})
    assert model_of(run).stop_training
    run.on_train_end()
    assert applied(path) == [("stop", 0, WHO, None, None)]
    (asked,) = [event for event in events(path) if isinstance(event, StopRequested)]
    assert (asked.epoch, asked.by) == (0, [WHO])
    last = events(path)[-1]
    assert isinstance(last, RunEnded)
    assert (last.how, last.by) == ("stopped", [WHO])
    assert said() == f"cbmon: {WHO} asked for a stop after this epoch: training ends after epoch 1\n"


@pytest.mark.parametrize(
    ("what", "hook", "is_cut"),
    [
        ("stop", lambda run: run.on_train_batch_end(0, {}), False),
        ("stop", lambda run: run.on_epoch_end(2, {"loss": 1.0}), False),
        ("stop_now", lambda run: run.on_test_batch_end(0, {}), False),
        ("stop_now", lambda run: run.on_train_batch_end(0, {}), True),
    ],
)
def test_a_run_that_did_all_it_had_planned_was_stopped_by_nobody(
    run: Monitor, asker: Any, tmp_path: Path, what: str, hook: Any, is_cut: bool
) -> None:
    who = asker(tmp_path / "run.jsonl")
    for epoch in range(2):
        run_epoch(run, epoch)
    run.on_epoch_begin(2)
    who.ask(what)
    settle(run)
    hook(run)
    assert who.answer().done
    run.on_epoch_end(2, {"loss": 1.0})
    assert model_of(run).stop_training
    run.on_train_end()
    last = events(tmp_path / "run.jsonl")[-1]
    assert isinstance(last, RunEnded)
    assert (last.how, last.by) == (("stopped", [WHO]) if is_cut else ("finished", []))


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (lambda run: run.on_train_batch_begin(0), "training ends with this batch; epoch 1 is validated"),
        (lambda run: run.on_train_batch_end(0, {}), "training ends with this batch; epoch 1 is validated"),
        (lambda run: run.on_test_batch_begin(0), "training ends after the validation of epoch 1"),
        (lambda run: run.on_test_batch_end(0, {}), "training ends after the validation of epoch 1"),
        (lambda run: run.on_epoch_end(0, {}), "training ends now, after epoch 1"),
        (lambda run: run.on_epoch_begin(1), "training ends after one batch of epoch 2"),
    ],
)
def test_a_stop_now_is_done_at_the_next_hook(
    run: Monitor, asker: Any, tmp_path: Path, hook: Any, words: str
) -> None:
    who = asker(tmp_path / "run.jsonl")
    who.ask("stop_now")
    settle(run)
    hook(run)
    assert model_of(run).stop_training
    assert who.answer().words.startswith(words)


def test_a_learning_rate_waits_for_a_step_and_the_order_of_requests_is_kept(
    run: Monitor, asker: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    who = asker(path)
    who.ask("lr", value=0.25)
    who.ask("stop")
    who.ask("lr", scale=0.5)
    settle(run, 3)
    run.on_test_begin()
    run.on_test_batch_end(0, {})
    assert pending(run) == 2
    run.on_epoch_end(0, {"loss": 1.0})
    run.on_epoch_begin(1)
    assert model_of(run).optimizer.learning_rate == 0.5
    run.on_train_batch_begin(0)
    assert model_of(run).optimizer.learning_rate == 0.125
    assert who.answer(2).done
    assert who.answer(1) == Answer(id=1, done=True, words="learning rate 0.5 → 0.25", old=0.5, new=0.25)
    assert who.answer(3) == Answer(id=3, done=True, words="learning rate 0.25 → 0.125", old=0.25, new=0.125)
    run.on_epoch_end(1, {"loss": 1.0})
    run.on_train_end()
    assert applied(path) == [
        ("stop", 0, WHO, None, None),
        ("lr", 1, WHO, 0.5, 0.25),
        ("lr", 1, WHO, 0.25, 0.125),
    ]
    rates = [event.learning_rate for event in events(path) if isinstance(event, EpochsEnded)]
    assert rates == [[0.5], [0.125]]  # in effect at the first step


def test_the_rate_of_an_epoch_in_which_somebody_set_it_is_the_one_it_ends_with(
    run: Monitor, asker: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    who = asker(path)
    assert run._fit is not None
    for epoch, value in enumerate([None, 0.25, 0.125]):
        run.on_epoch_begin(epoch)
        step(run, 0)
        model_of(run).optimizer.learning_rate = 0.5  # a schedule of somebody's own: as before
        if value is not None:
            who.ask("lr", value=value)
            settle(run)
        step(run, 1)
        assert run._fit._look.rate == (value or 0.5)
        step(run, 2)
        model_of(run).optimizer.learning_rate = 1.0  # a callback that is asked before Monitor
        run.on_epoch_end(epoch, {"loss": 1.0})
    run.on_train_end()
    rates = [event.learning_rate for event in events(path) if isinstance(event, EpochsEnded)]
    assert rates == [[0.5], [0.25], [0.125]]


def test_where_batches_end_in_other_threads_requests_wait_for_the_training_thread(
    run: Monitor, asker: Any, tmp_path: Path
) -> None:
    who = asker(tmp_path / "run.jsonl")
    who.ask("lr", value=0.25)
    settle(run)
    run.on_train_batch_begin(0)  # takes it
    who.answer()
    who.ask("stop_now")
    settle(run)
    other = threading.Thread(target=run.on_train_batch_end, args=(0, {"loss": 1.0}))
    other.start()
    other.join()
    assert pending(run) == 1
    assert not model_of(run).stop_training
    run.on_train_batch_begin(1)
    assert who.answer().done


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "one of the two"),
        ({"value": 0.1, "scale": 0.5}, "one of the two"),
        ({"value": -1.0}, "from 0 on"),
        ({"scale": -0.5}, "from 0 on"),
        ({"value": 1e39}, "from 0 on"),
        ({"scale": 1e308}, "from 0 on"),
    ],
)
def test_what_is_no_learning_rate_is_refused(
    run: Monitor, asker: Any, tmp_path: Path, options: Any, words: str
) -> None:
    who = asker(tmp_path / "run.jsonl")
    who.ask("lr", **options)
    settle(run)
    step(run, 0)
    answer = who.answer()
    assert not answer.done
    assert words in answer.words
    assert model_of(run).optimizer.learning_rate == 0.5
    run.on_train_end()
    assert applied(tmp_path / "run.jsonl") == []


def test_what_is_not_known_or_too_much_is_refused_at_once(run: Monitor, asker: Any, tmp_path: Path) -> None:
    who = asker(tmp_path / "run.jsonl")
    who.ask("dance")
    assert who.answer().words == "this version of cbmon knows no 'dance'"
    for _ in range(control_module.PENDING_MAX + 1):
        who.ask("stop")
    assert "too many" in who.answer().words


def test_a_monitor_without_control_refuses_all_with_words(tmp_path: Path, asker: Any) -> None:
    monitor = Monitor(tmp_path / "run.jsonl", control=False)
    begin(monitor)
    who = asker(tmp_path / "run.jsonl")
    for what in ("stop", "stop_now", "lr", "save", "dance"):
        who.ask(what)
        answer = who.answer()
        assert not answer.done
        assert "control=False" in answer.words
    run_epoch(monitor, 0)
    assert not model_of(monitor).stop_training
    monitor.on_train_end()
    assert not who.client.seen[0].control


def test_what_comes_too_late_is_answered_too(run: Monitor, asker: Any, tmp_path: Path) -> None:
    who = asker(tmp_path / "run.jsonl")
    who.ask("lr", value=0.1)
    settle(run)
    run.on_train_end()
    assert who.answer() == Answer(id=1, done=False, words="the fit has ended")
    assert isinstance(who.client.next(), Goodbye)


def test_who_asked_and_left_is_obeyed_all_the_same(run: Monitor, asker: Any, tmp_path: Path) -> None:
    who = asker(tmp_path / "run.jsonl")
    who.ask("lr", value=0.25)
    settle(run)
    who.client.close()
    wait_for(lambda: not wire_of(run)._watchers)
    step(run, 0)
    assert model_of(run).optimizer.learning_rate == 0.25
    run.on_train_end()
    assert applied(tmp_path / "run.jsonl") == [("lr", 0, WHO, 0.5, 0.25)]


def test_a_name_that_is_no_word_is_made_one(tmp_path: Path, client: Any, said: Any, run: Monitor) -> None:
    path = tmp_path / "run.jsonl"
    odd = Asker(client(path, who="\x1b]0;x\x07" + "é" * 500))
    odd.ask("stop")
    settle(run)
    step(run, 0)
    odd.answer()
    nameless = Asker(client(path, who=""))
    nameless.ask("stop")
    settle(run)
    step(run, 0)
    nameless.answer()
    run.on_train_end()
    names = [each[2] for each in applied(path)]
    assert names[0].startswith("?]0;x?é")
    assert len(names[0]) == 100
    assert names[1].startswith("pid ")
    assert "\x1b" not in said()


def test_of_several_processes_none_is_changed_alone(
    run: Monitor, asker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "is_one_of_several", lambda model: True)
    who = asker(tmp_path / "run.jsonl")
    for what, options in {"stop": {}, "stop_now": {}, "lr": {"value": 0.1}, "save": {}}.items():
        who.ask(what, **options)
        settle(run)
        step(run, 0)
        answer = who.answer()
        assert not answer.done
        assert "several processes" in answer.words
    run.on_epoch_end(0, {"loss": 1.0})
    assert not model_of(run).stop_training


@pytest.mark.parametrize("is_several", [True, False])
def test_several_processes_are_known_by_the_strategy(is_several: bool) -> None:
    extended = SimpleNamespace(_in_multi_worker_mode=lambda: is_several)
    model = SimpleNamespace(distribute_strategy=SimpleNamespace(extended=extended))
    assert facts.is_one_of_several(model) is is_several
    assert not facts.is_one_of_several(None)


@pytest.mark.parametrize(
    ("module", "found"),
    [
        ("horovod.tensorflow.keras", SimpleNamespace(size=lambda: 2)),
        ("torch", SimpleNamespace(distributed=SimpleNamespace(get_world_size=lambda: 2))),
    ],
)
def test_several_processes_are_known_by_their_library(
    monkeypatch: pytest.MonkeyPatch, module: str, found: Any
) -> None:
    monkeypatch.setitem(sys.modules, module, found)
    assert facts.is_one_of_several(None)


class Broken:
    """An optimizer that takes one change and no second one."""

    def __init__(self) -> None:
        self.__dict__["learning_rate"] = 0.5

    def __setattr__(self, name: str, value: float) -> None:
        if value != 0.5:
            raise RuntimeError("no")


def test_of_several_optimizers_all_are_set_or_none(run: Monitor, asker: Any, tmp_path: Path) -> None:
    first, second = SimpleNamespace(learning_rate=0.5), SimpleNamespace(learning_rate=0.5)
    model_of(run).optimizer = SimpleNamespace(optimizers=[first, second])
    who: Asker = asker(tmp_path / "run.jsonl")

    def ask(**options: Any) -> Answer:
        who.ask("lr", **options)
        settle(run)
        step(run, 0)
        return who.answer()

    assert ask(value=0.25).words == "learning rate 0.5 → 0.25, 0.5 → 0.25"
    second.learning_rate = 1.0
    assert "rates of their own (0.25, 1)" in ask(value=0.1).words
    assert ask(scale=0.5).done
    assert (first.learning_rate, second.learning_rate) == (0.125, 0.5)
    model_of(run).optimizer.optimizers = [first, Broken()]
    assert "takes no other" in ask(scale=0.5).words
    assert first.learning_rate == 0.125
    model_of(run).optimizer = None
    assert "no optimizer" in ask(scale=0.5).words
    model_of(run).optimizer = SimpleNamespace(learning_rate="?")
    assert "does not tell" in ask(scale=0.5).words


# Saves, by hand.


def saver(content: str = "model", error: Exception | None = None) -> Callable[[str], None]:
    def save(path: str) -> None:
        Path(path).write_text(content)
        if error:
            raise error

    return save


@pytest.fixture
def save(run: Monitor, asker: Any, tmp_path: Path) -> Callable[..., Answer]:
    """Ask for a save between two batches."""
    who: Asker = asker(tmp_path / "run.jsonl")

    def ask(path: Any = None) -> Answer:
        who.ask("save", path=path and str(path))
        settle(run)
        step(run, 0)
        return who.answer()

    return ask


def test_a_save_is_a_new_file_beside_the_record(run: Monitor, save: Any, tmp_path: Path) -> None:
    model_of(run).save = saver()
    (tmp_path / "run-epoch1-2.keras").symlink_to(tmp_path / "nothing")
    answers = [save(), save()]
    assert [answer.path for answer in answers] == [
        str(tmp_path / "run-epoch1.keras"),
        str(tmp_path / "run-epoch1-3.keras"),
    ]
    assert answers[0].words == f"saved {tmp_path / 'run-epoch1.keras'}"
    assert Path(answers[0].path).read_text() == "model"
    run.on_train_end()
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {"run.jsonl", "run-epoch1.keras", "run-epoch1-2.keras", "run-epoch1-3.keras"}
    saved = [event.path for event in events(tmp_path / "run.jsonl") if isinstance(event, CheckpointSaved)]
    assert saved == [answer.path for answer in answers]
    assert [each[0] for each in applied(tmp_path / "run.jsonl")] == ["save", "save"]


def test_a_save_to_a_path_of_ones_own_overwrites_nothing(run: Monitor, save: Any, tmp_path: Path) -> None:
    model_of(run).save = model_of(run).save_weights = saver()
    (tmp_path / "best.keras").write_text("precious")
    assert save(tmp_path / "best.keras").path == str(tmp_path / "best-2.keras")
    assert (tmp_path / "best.keras").read_text() == "precious"
    assert save(tmp_path / "best.weights.h5").path == str(tmp_path / "best.weights.h5")
    for odd in ("best.keras", tmp_path / "best", tmp_path / "run.jsonl", ""):
        assert not save(odd).done


def test_a_model_that_cannot_be_saved_whole_leaves_its_weights(
    run: Monitor, save: Any, tmp_path: Path
) -> None:
    model_of(run).save = saver(error=NotImplementedError("no config"))
    model_of(run).save_weights = saver("weights")
    answer = save()
    assert answer.path == str(tmp_path / "run-epoch1.weights.h5")
    assert "the weights alone" in answer.words
    assert "no config" in answer.words
    assert {each.name for each in tmp_path.iterdir()} == {"run.jsonl", "run-epoch1.weights.h5"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("x" * 5000)])
def test_a_save_that_fails_leaves_nothing_and_reaches_no_fit(
    run: Monitor, save: Any, tmp_path: Path, error: Exception
) -> None:
    model_of(run).save = model_of(run).save_weights = saver(error=error)
    answer = save()
    assert not answer.done
    why = getattr(error, "strerror", None) or f"RuntimeError: {error}"[:200] + "…"
    assert answer.words == f"the model cannot be saved: {why}"
    assert [each.name for each in tmp_path.iterdir()] == ["run.jsonl"]
    del model_of(run).save
    assert not save().done


def test_a_disk_without_hard_links_is_saved_to_as_well(
    run: Monitor, save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    model_of(run).save = saver()
    assert [save().path, save().path] == [
        str(tmp_path / "run-epoch1.keras"),
        str(tmp_path / "run-epoch1-2.keras"),
    ]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_name_that_somebody_takes_at_the_last_moment_is_his(
    run: Monitor, save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    link, opened, exists = os.link, os.open, os.path.lexists
    theirs = tmp_path / "run-epoch1.keras"

    def take(path: Any) -> None:
        if Path(path) == theirs and not exists(theirs):
            theirs.write_text("precious")

    def linked(part: Any, path: Any) -> None:
        if not has_links:
            raise OSError(95, "Operation not supported")
        take(path)
        link(part, path)

    def taken(path: Any, *rest: Any, **options: Any) -> int:
        take(path)
        return opened(path, *rest, **options)

    def looked(path: Any) -> bool:
        is_there = exists(path)
        take(path)
        return is_there

    monkeypatch.setattr(os, "link", linked)
    monkeypatch.setattr(os, "open", taken)
    monkeypatch.setattr(os.path, "lexists", looked)
    model_of(run).save = saver()
    assert save().path == str(tmp_path / "run-epoch1-2.keras")
    assert theirs.read_text() == "precious"
    assert (tmp_path / "run-epoch1-2.keras").read_text() == "model"


def test_without_hard_links_a_name_that_was_taken_is_given_back_if_nothing_comes(
    run: Monitor, save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    model_of(run).save = model_of(run).save_weights = lambda path: None
    assert not save().done
    assert [each.name for each in tmp_path.iterdir()] == ["run.jsonl"]


def test_where_nothing_can_be_saved_is_said_in_short_and_before_the_model_is_asked(
    run: Monitor, save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    model_of(run).save = model_of(run).save_weights = asked.append
    assert save("/nonexistent/best.keras").words == "/nonexistent: no such folder"
    assert save("/nonexistent/best.weights.h5").words == "/nonexistent: no such folder"
    (tmp_path / "file").touch()
    assert save(tmp_path / "file" / "best.keras").words == f"{tmp_path / 'file'}: not a folder"
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    assert save().words == f"{tmp_path}: not writable"
    assert asked == []


def test_what_a_killed_save_left_is_cleared_away_by_a_later_one(
    run: Monitor, save: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    saved: list[str] = []

    def die(path: str) -> None:
        saved.append(path)
        raise SystemExit

    with pytest.raises(SystemExit):
        control_module._saved(die, folder / "best.keras", ".keras")
    days = {"dead": 2, "alive": 0, "precious": 2}
    names = {
        "dead": Path(saved[0]).name,
        "alive": Path(saved[0]).name.replace("-", "-a", 1),
        "precious": ".best.keras",
    }
    for kind, name in names.items():
        (folder / name).touch()
        then = (folder / name).stat().st_mtime - days[kind] * 86400
        os.utime(folder / name, (then, then))
    model_of(run).save = saver()
    assert save(folder / "best.keras").done
    found = {each.name for each in folder.iterdir()}
    assert found == {"best.keras", names["alive"], names["precious"]}


@pytest.mark.parametrize("path", ["unix://", "unix:///{runtime}/x.sock"])
def test_a_run_without_a_file_saves_into_the_working_directory(
    tmp_path: Path, runtime: Path, client: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Not beside its socket: that may be in memory."""
    monkeypatch.chdir(tmp_path)
    monitor = Monitor(path.format(runtime=runtime))
    begin(monitor)
    monitor.on_epoch_begin(0)
    model_of(monitor).save = saver()
    wait_for(lambda: wire_of(monitor)._path is not None)
    there = wire_of(monitor)._path
    assert there is not None
    who = Asker(client(there, role="ctl"))
    who.ask("save")
    settle(monitor)
    step(monitor, 0)
    name = "x-epoch1.keras" if path.endswith("x.sock") else "live-epoch1.keras"
    assert who.answer().path == str(tmp_path / name)
    assert (tmp_path / name).exists()
    monitor.on_train_end()


def test_on_jax_the_state_is_fetched_first(run: Monitor, save: Any) -> None:
    calls: list[str] = []
    model_of(run).jax_state_sync = lambda: calls.append("sync")

    def keep(path: str) -> None:
        calls.append("save")
        Path(path).touch()

    model_of(run).save = keep
    assert save().done
    assert calls == ["sync", "save"]


class Schedule:
    """What keeps the rate of an optimizer of Keras on JAX: nothing of it can be read while the state is away."""

    is_away = True

    @property
    def learning_rate(self) -> float:
        if self.is_away:
            raise TypeError("'NoneType' object is not callable")
        return 0.5

    def _learning_rate(self) -> float:
        return 0.5


def test_on_jax_a_rate_is_looked_at_after_the_state_was_fetched(
    run: Monitor, asker: Any, tmp_path: Path
) -> None:
    optimizer = model_of(run).optimizer = Schedule()
    model_of(run).jax_state_sync = lambda: setattr(optimizer, "is_away", False)
    who = asker(tmp_path / "run.jsonl")
    who.ask("lr", value=0.25)
    settle(run)
    step(run, 0)
    assert who.answer().words.startswith("the optimizer's learning rate comes from method at every step")


# Real fits.


@pytest.fixture(scope="module")
def trainer(keras: Any) -> Trainer:
    return Trainer(keras)


def at_batch(keras: Any, epoch: int, batch: int, do: Callable[[], object]) -> Any:
    """A callback that does something before this batch."""

    class At(keras.callbacks.Callback):  # type: ignore[misc]
        epoch = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_begin(self, number: int, logs: Any = None) -> None:
            if (self.epoch, number) == (epoch, batch):
                do()

    return At()


def test_a_fit_is_the_one_that_a_callback_of_ones_own_would_have_made(
    keras: Any, trainer: Trainer, tmp_path: Path, asker: Any
) -> None:
    """Set and saved in the middle of an epoch: to the bit."""
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    optimizer = trainer.model.optimizer
    answers: list[Asker] = []

    def ask() -> None:
        who = asker(path)
        who.ask("lr", scale=0.5)
        who.ask("save")
        settle(monitor, 2)
        answers.append(who)

    def cut() -> None:
        optimizer.learning_rate = 0.05

    def train(*callbacks: Any) -> Any:
        optimizer.learning_rate = 0.1
        return trainer.train(list(callbacks))

    expected = train(at_batch(keras, 1, 1, cut))
    assert train(at_batch(keras, 1, 1, ask), monitor) == expected
    assert train() != expected
    who = answers[0]
    rate, saved = who.answer(1), who.answer(2)
    assert [rate.old, rate.new] == pytest.approx([0.1, 0.05])
    assert saved.path is not None
    assert Path(saved.path).name == "run-epoch2.keras"
    again = keras.models.load_model(saved.path)
    assert float(again.optimizer.learning_rate) == rate.new
    assert applied(path) == [("lr", 1, WHO, rate.old, rate.new), ("save", 1, WHO, None, None)]


@pytest.mark.parametrize("kind", ["LearningRateScheduler", "ReduceLROnPlateau"])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_recorded_rates_are_those_of_the_history_when_somebody_sets_one(
    keras: Any, trainer: Trainer, tmp_path: Path, asker: Any, kind: str, is_first: bool
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    trainer.model.optimizer.learning_rate = 0.1

    def ask() -> None:
        asker(path).ask("lr", value=0.01)
        settle(monitor)

    other = {
        "LearningRateScheduler": keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
        "ReduceLROnPlateau": flat_cut(keras),
    }[kind]
    callbacks = [monitor, other] if is_first else [other, monitor]
    _, _, history, _ = trainer.train([at_batch(keras, 1, 1, ask), *callbacks])
    rates = [event.learning_rate for event in events(path) if isinstance(event, EpochsEnded)]
    assert rates == [[rate] for rate in history["learning_rate"]]
    assert rates[1] == pytest.approx([0.01])
    assert rates[0] != rates[2]


@pytest.mark.parametrize(("what", "batches"), [("stop", 6), ("stop_now", 5)])
def test_a_fit_that_is_stopped_has_its_last_epoch_validated_and_in_its_history(
    keras: Any, trainer: Trainer, tmp_path: Path, asker: Any, what: str, batches: int
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    seen: list[int] = []

    def ask() -> None:
        asker(path).ask(what)
        settle(monitor)

    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    callbacks = [count, at_batch(keras, 1, 1, ask), monitor]
    _, epochs, history, _ = trainer.train(callbacks)
    assert epochs == [0, 1]
    assert {len(column) for column in history.values()} == {2}
    assert "val_loss" in history
    assert len(seen) == batches
    (asked,) = [event for event in events(path) if isinstance(event, StopRequested)]
    assert asked.by == [WHO]
    last = events(path)[-1]
    assert isinstance(last, RunEnded)
    assert (last.how, last.by) == ("stopped", [WHO])


def test_what_a_scheduler_will_make_of_it_is_said(
    keras: Any, trainer: Trainer, tmp_path: Path, asker: Any
) -> None:
    path = tmp_path / "run.jsonl"
    monitor, askers = Monitor(path), []

    def ask() -> None:
        askers.append(asker(path))
        askers[0].ask("lr", value=0.01)
        settle(monitor)

    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    trainer.train([at_batch(keras, 1, 1, ask), monitor, schedule, flat_cut(keras)])
    words = askers[0].answer().words
    assert words.startswith("learning rate 0.1 → 0.01; LearningRateScheduler sets it again at the next epoch")
    assert words.endswith("ReduceLROnPlateau goes on from it")


OPTIMIZERS = """
import sys, time, threading, os
import numpy as np
import {keras} as keras
from cbmon.callbacks import Monitor
from cbmon.endpoint import *
from cbmon.callbacks.control import Control, Request, Training, At

x, y = np.zeros((8, 2), "float32"), np.zeros((8, 1), "float32")

class Put:
    path = __import__("pathlib").Path(sys.argv[1]) / "run.jsonl"
    def put(self, item):
        if callable(item):
            list(item())

class Now(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            control.obey(Training(self.model, [], 0), At.STEP)

def fit(name, optimizer, **options):
    global control
    keras.backend.clear_session()
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", **options)
    control, answers = Control(lambda words: None), []
    control.connect(Put())
    for number, ask in enumerate([dict(value=3e-4), dict(scale=0.5)]):
        control.take(Request(Ask(id=number, what="lr", **ask), "me", answers.append))
    control.take(Request(Ask(id=9, what="save"), "me", answers.append))
    model.fit(x, y, batch_size=2, epochs=1, verbose=0, callbacks=[Now()])
    print(name, *(f"{{a.done}} {{a.words}}" for a in answers[:2]), answers[2].done, sep="|")

o = keras.optimizers
fit("plain", o.Adam(0.5))
fit("schedule", o.SGD(o.schedules.ExponentialDecay(0.5, 10, 0.9)))
{more}
"""


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_every_kind_of_optimizer_is_set_or_refused_with_words(tmp_path: Path, name: str) -> None:
    if not importlib.util.find_spec(name):
        pytest.skip(f"needs {name}")
    more = {
        "keras": """
fit("function", o.SGD(lambda: 0.5))
fit("scaled", o.LossScaleOptimizer(o.SGD(0.5)))
""",
        "tf_keras": """
fit("scaled", keras.mixed_precision.LossScaleOptimizer(o.SGD(0.5)))
fit("legacy", o.legacy.SGD(0.5))
fit("legacy schedule", o.legacy.SGD(o.schedules.ExponentialDecay(0.5, 10, 0.9)))
""",
    }
    ended = python(OPTIMIZERS.format(keras=name, more=more[name]), tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = {line.split("|")[0]: line.split("|")[1:] for line in ended.stdout.splitlines()}
    done = ["True learning rate 0.5 → 0.0003", "True learning rate 0.0003 → 0.00015", "True"]
    for each in found.keys() & {"plain", "scaled", "legacy"}:
        assert found[each] == done, each
    for each in found.keys() & {"schedule", "legacy schedule"}:
        assert "comes from ExponentialDecay at every step" in found[each][0]
        assert found[each][0].startswith("False")
        assert found[each][2] == "True"
    if name == "keras":
        assert found["function"][0].startswith("False the optimizer's learning rate comes from function")
    assert len(found) == 2 + more[name].count("fit(")


def test_several_real_optimizers_are_set_by_a_factor(tmp_path: Path) -> None:
    if not importlib.util.find_spec("keras"):
        pytest.skip("needs Keras")
    more = """
if hasattr(o, "MultiOptimizer"):
    first, second = o.SGD(0.5), o.SGD(0.1)
    class Map:
        default_optimizer = second
        def values(self):
            return [first]
        def __call__(self, variable):
            return first if "bias" in variable.path else second
    fit("several", o.MultiOptimizer(Map()))
"""
    ended = python(OPTIMIZERS.format(keras="keras", more=more), tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = [line for line in ended.stdout.splitlines() if line.startswith("several")]
    if not found:
        pytest.skip("needs a Keras with MultiOptimizer")
    words = found[0].split("|")
    assert words[1].startswith("False 2 optimizers have rates of their own (0.5, 0.1)")
    assert words[2] == "True learning rate 0.5 → 0.25, 0.1 → 0.05"


def test_the_hooks_look_at_requests_without_a_lock_or_a_call(run: Monitor) -> None:
    fit = run._fit
    assert fit is not None
    control = wire_of(run)._control
    assert control is not None
    assert fit._asked is control.pending
