"""Monitor under the tools that copy, clone and pickle callbacks: Keras Tuner, and scikit-learn through scikeras.

Each tool runs once, in a process of its own (both import much, with warnings); the tests read what it left.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cbmon.events import EpochsEnded, RunEnded, RunStarted
from tests.test_monitor import events, kinds, python

DATA = """
import json, pickle, sys
from pathlib import Path
import numpy as np
import keras
from cbmon.callbacks import Monitor

folder = Path(sys.argv[1])
x = np.random.default_rng(0).random((48, 4)).astype("float32")
y = (x.sum(axis=1) > 2).astype("int64")

def network(width):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(width), keras.layers.Dense(1, activation="sigmoid")]
    )
    model.compile("sgd", "binary_crossentropy")
    return model
"""

TUNERS = (
    DATA
    + """
import keras_tuner

def search(tuner, name, monitor, **options):
    tuner = tuner(
        lambda hp: network(hp.Int("width", 1, 8)), objective="val_loss",
        directory=folder / "trials" / name, project_name="p", seed=1, **options,
    )
    epochs = {} if "max_epochs" in options else {"epochs": 2}
    tuner.search(x, y, validation_data=(x, y), verbose=0, callbacks=[monitor], **epochs)
    return [trial.hyperparameters.values for trial in tuner.oracle.trials.values()]

random = keras_tuner.RandomSearch
search(random, "random", Monitor(folder / "random" / "logs"), max_trials=3)
search(random, "twice", Monitor(folder / "twice" / "logs"), max_trials=2, executions_per_trial=2)
file = Monitor(folder / "file" / "run.jsonl")
search(random, "file", file, max_trials=2)
network(2).fit(x, y, epochs=1, verbose=0, callbacks=[file])  # what the user does next with the best one
trials = search(keras_tuner.Hyperband, "hyperband", Monitor(folder / "hyperband" / "logs"), max_epochs=2, factor=2)
print(json.dumps([[trial["tuner/initial_epoch"], trial["tuner/epochs"]] for trial in trials]))
"""
)

SEARCHES = (
    DATA
    + """
from scikeras.wrappers import KerasClassifier
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

class KerasMonitor(Monitor, keras.callbacks.Callback):
    pass  # scikeras, unlike Keras, asks for a subclass of Keras' own

def classifier(name, kind=KerasMonitor):
    return KerasClassifier(
        model=network, width=2, epochs=2, verbose=0, callbacks=[kind(folder / name / "logs")]
    )

def search(name, jobs):
    grid = GridSearchCV(classifier(name), {"width": [1, 2]}, cv=2, n_jobs=jobs, error_score="raise")
    return grid.fit(x, y).best_estimator_

refused = ""
try:
    classifier("plain", Monitor).fit(x, y)
except TypeError as error:
    refused = str(error)

search("one job", 1)
search("two jobs", 2)
original = classifier("clones")
for _ in range(2):
    clone(original).fit(x, y)
fitted = classifier("pickle").fit(x, y)
again = pickle.loads(pickle.dumps(fitted))
again.fit(x, y)
same = bool((fitted.predict(x) == pickle.loads(pickle.dumps(fitted)).predict(x)).all())
classifier("refit").fit(x, y).fit(x, y)
print(json.dumps({"refused": refused, "same": same}))
"""
)


class Searched(NamedTuple):
    """What a script left and what it said in its last line."""

    folder: Path
    said: Any

    def records(self, name: str) -> list[Path]:
        return sorted((self.folder / name).rglob("*.jsonl"))


def needs(*modules: str) -> pytest.MarkDecorator:
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {' and '.join(absent)}")


def run(script: str, folder: Path) -> Searched:
    result = python(script, folder)
    assert result.returncode == 0, result.stderr[-5000:]
    assert "cbmon:" not in result.stderr
    return Searched(folder, json.loads(result.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return run(TUNERS, tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return run(SEARCHES, tmp_path_factory.mktemp("searched"))


def run_ids(paths: list[Path]) -> set[str]:
    return {event.run_id for path in paths for event in events(path) if isinstance(event, RunStarted)}


# On TensorFlow Keras Tuner imports tensorboard, which neither of them installs.
keras_tuner = needs("keras_tuner", "tensorflow", "tensorboard")
scikeras = needs("scikeras", "sklearn", "tensorflow")


@keras_tuner
@pytest.mark.parametrize(("name", "count"), [("random", 3), ("twice", 4)])
def test_each_execution_of_each_trial_is_a_record_of_its_own(tuned: Searched, name: str, count: int) -> None:
    paths = tuned.records(name)
    assert [kinds(path) for path in paths] == ["see."] * count
    assert len(run_ids(paths)) == count


@keras_tuner
def test_a_monitor_of_one_file_gives_each_trial_a_file_beside_it_and_the_file_to_its_owner(
    tuned: Searched,
) -> None:
    paths = tuned.records("file")
    assert [kinds(path) for path in paths if path.name != "run.jsonl"] == ["see."] * 2
    assert kinds(tuned.folder / "file" / "run.jsonl") == "se."
    assert len(run_ids(paths)) == 3


@keras_tuner
def test_hyperband_goes_on_from_a_later_epoch_and_the_record_counts_from_there(tuned: Searched) -> None:
    paths = tuned.records("hyperband")
    assert len(run_ids(paths)) == len(paths) == len(tuned.said)
    assert any(first > 0 for first, _ in tuned.said)
    recorded = []
    for path in paths:
        started, *middle, ended = events(path)
        assert isinstance(started, RunStarted)
        assert isinstance(ended, RunEnded)
        assert ended.how == "finished"
        numbers = [event.epochs[0] for event in middle if isinstance(event, EpochsEnded)]
        recorded.append([numbers[0], started.epochs])
        assert numbers == list(range(numbers[0], started.epochs or 0))
    assert sorted(recorded) == sorted(tuned.said)


@scikeras
@pytest.mark.parametrize("name", ["one job", "two jobs"])
def test_each_fit_of_a_grid_search_is_a_record_of_its_own(searched: Searched, name: str) -> None:
    paths = searched.records(name)
    assert [kinds(path) for path in paths] == ["see."] * 5  # two values, two folds; the best one once more
    assert len(run_ids(paths)) == 5
    processes = {event.process for path in paths for event in events(path) if isinstance(event, RunStarted)}
    assert (len(processes) > 1) == (name == "two jobs")


@scikeras
@pytest.mark.parametrize("name", ["clones", "pickle"])
def test_a_clone_and_an_unpickled_fitted_estimator_record_runs_of_their_own(
    searched: Searched, name: str
) -> None:
    paths = searched.records(name)
    assert [kinds(path) for path in paths] == ["see.", "see."]
    assert len(run_ids(paths)) == 2
    assert searched.said["same"]


@scikeras
def test_fitting_an_estimator_again_is_a_second_attempt_in_its_file(searched: Searched) -> None:
    (path,) = searched.records("refit")
    assert kinds(path) == "see.see."


@scikeras
def test_scikeras_still_asks_for_a_subclass_of_keras_callback(searched: Searched) -> None:
    assert "keras.callbacks.Callback" in searched.said["refused"]
    assert not searched.records("plain")
