"""Every published Keras log under lists of all kinds: our engine and the installed Keras decide the same."""

from importlib.util import find_spec

import pytest

from cbmon.profiles import find_profile
from cbmon.replay.calls import parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.keras_engine import Task, Written, differences, replay_with_keras
from tests.test_corpus import INDEX, entries, look

pytestmark = pytest.mark.skipif(
    not INDEX.is_file(), reason="the corpus of published logs is not beside the checkout (../shared/corpus)"
)

SCHEDULE = "LearningRateScheduler(lambda epoch, lr: lr * 0.99 if epoch > 5 else 0.01)"
LISTS = (
    "EarlyStopping(patience=3)",
    "EarlyStopping('loss', patience=10, min_delta=0.01, restore_best_weights=True)",
    "EarlyStopping('loss', patience=5, mode='min', baseline=0.5)",
    "EarlyStopping('val_acc', patience=4, mode='max', start_from_epoch=3)",
    "ReduceLROnPlateau('loss', factor=0.5, patience=2, min_delta=0.001, cooldown=2)",
    "LearningRateScheduler(lambda epoch: 0.1 * 0.9 ** epoch); TerminateOnNaN()",
    "ModelCheckpoint('m/{epoch:03d}-{loss:.4f}.keras', 'loss', save_best_only=True)",
    f"ReduceLROnPlateau('loss', patience=1); {SCHEDULE}; EarlyStopping('loss', patience=20)",
    f"{SCHEDULE}; ReduceLROnPlateau('loss', patience=1); EarlyStopping('loss', patience=20)",
    "TerminateOnNaN(); EarlyStopping('loss', patience=30); ModelCheckpoint('best.keras', save_best_only=True)",
)
ROWS = 100_000
"""Epochs of all replays together, at most: 0.5 ms each in Keras."""


@pytest.mark.parametrize("module", ["keras", "tf_keras"])
def test_no_log_of_the_corpus_makes_a_difference(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed: nothing to compare with")
    profile, _ = find_profile("2" if module == "tf_keras" else None)
    tasks = []
    for entry in entries("keras_csv"):
        _, (run,) = look(entry.path)
        for attempt in run.attempts:
            for text in LISTS:
                calls = parse_calls(text, profile)
                ours = replay(attempt, calls, profile, log=entry.file, variant=text)
                tasks.append(Task(ours=ours, written=Written(calls=calls, texts=[text])))
    assert len(tasks) > 45 * len(LISTS)
    assert sum(len(task.ours.recording.epochs) for task in tasks) < ROWS
    theirs = replay_with_keras(tasks, profile)
    for task, other in zip(tasks, theirs, strict=True):
        assert differences(task.ours, other) == [], f"{task.ours.log}: {task.ours.variant}"
    answered = [other for other in theirs if other.decisions]
    assert len(answered) > 0.9 * len(tasks), "and hardly any is a refusal of both"
    assert any(made.cuts for other in answered if (made := other.decisions))
    assert any(made.stopped for other in answered if (made := other.decisions))
