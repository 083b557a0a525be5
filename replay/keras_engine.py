"""`--engine keras` and `both`: the real callbacks decide, in a child process that imports Keras.

This is the parent's side. It finds the Keras that was asked for, hands one child all tasks of a command, turns
the answers into the same `Replay` as our own engine's, and names every difference between the two. What a log
cannot tell (a learning rate, the batches of an epoch, what happened within one) is no matter of Keras: there our
own engine refuses for both. A child that crashes or hangs costs the list it was at, not the others.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from threading import Thread
from typing import Any

from cbmon.errors import CbmonError, KerasRefuses
from cbmon.policies import (
    CheckpointState,
    EarlyStopping,
    EarlyStoppingState,
    LearningRateScheduler,
    ModelCheckpoint,
    Monitor,
    PlateauState,
    ReduceLROnPlateau,
    float32,
    resolve,
)
from cbmon.profiles import Profile, find_profile
from cbmon.replay.calls import Call, Listed
from cbmon.replay.cases import Beginning
from cbmon.replay.decays import DECAYS
from cbmon.replay.engine import replay
from cbmon.replay.evidence import steps_of
from cbmon.replay.observers import LambdaCallback, RemoteMonitor, UserClass
from cbmon.replay.results import Best, Decisions, Member, Recording, Replay, Stop
from cbmon.units import display_epoch, plural, printable

SILENCE_S = 180.0
"""A child that says nothing for so long hangs: it tells once a second that epochs go by, and importing
TensorFlow takes 3 to 9 s, a minute from a cold network disk."""
_LOOK_S = 1.0
"""How often it is looked whether a silent child still lives."""
_CRASHES = 3
"""Children that may die before the rest of a command is given up."""
_FOREIGN = (LambdaCallback, UserClass)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A list of callbacks, and the text it was read from: the child reads the same text."""

    calls: Sequence[Call]
    texts: Sequence[str]
    is_variant: bool = False
    """One text, as `--variant` takes it."""

    @property
    def foreign(self) -> list[Call]:
        """The calls that are code of the user's own."""
        return [call for call in self.calls if call.is_foreign]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One replay of our own engine, to be asked of Keras too."""

    ours: Replay
    written: Written
    planned: int | None = None
    """`epochs=` of the training, where the log tells."""


# --- which Keras -----------------------------------------------------------------------------------------


def find_keras(profile: Profile) -> str:
    """The module that is this Keras: "keras" or "tf_keras"; nothing is imported.

    Raises:
        CbmonError: It is not installed; the message says how to get it.
    """
    from importlib import metadata

    versions: dict[str, str] = {}
    for module in ("keras", "tf_keras"):
        with suppress(metadata.PackageNotFoundError):
            versions[module] = metadata.version(module)
            if find_profile(versions[module])[0] == profile:
                return module
    here = ", ".join(f"{module} {version}" for module, version in versions.items())
    if profile.is_keras_3:
        install = f"'keras=={profile.name}.*' tensorflow" if here else "'cbmon[tensorflow]'"
    else:
        install = "tf_keras" if profile.name == "2" else f"'tf_keras=={profile.name}.*'"
    raise CbmonError(
        f"--engine keras runs the installed Keras, and Keras {profile.name} is not installed "
        f"({here or 'there is none'}): pip install {install}"
    )


# --- the child -------------------------------------------------------------------------------------------


def replay_with_keras(
    tasks: Sequence[Task],
    profile: Profile,
    *,
    learning_rate: float | None = None,
    steps_per_epoch: int | None = None,
    silence_s: float = SILENCE_S,
) -> list[Replay]:
    """Ask the real callbacks, all tasks of one child.

    Args:
        tasks: Our own engine's answers and the lists they are about.
        profile: Which Keras; it has to be the installed one.
        learning_rate: The first one, for logs that have none.
        steps_per_epoch: Batches of an epoch; None = the record's own, where it tells.
        silence_s: For how long a child may say nothing, once Keras is imported.

    Returns:
        One result a task, in that order.

    Raises:
        CbmonError: There is no such Keras, or it cannot be imported.
    """
    module = find_keras(profile)
    asked = {i: task for i, task in enumerate(tasks) if task.written.foreign or not _is_unknowable(task.ours)}
    logs: list[dict[str, Any]] = []
    places: dict[int, int] = {}
    jobs = []
    for number, task in asked.items():
        recording = task.ours.recording
        if id(recording) not in places:
            places[id(recording)] = len(logs)
            logs.append(_as_json(recording))
        jobs.append(
            {
                "number": number,
                "log": places[id(recording)],
                "texts": list(task.written.texts),
                "is_variant": task.written.is_variant,
                "rate": _first_rate(recording, learning_rate),
                "planned": task.planned,
                "steps": steps_per_epoch or steps_of(recording),
            }
        )
    job = {"module": module, "profile": profile.name, "logs": logs}
    answers: dict[int, Any] = {}
    with tempfile.TemporaryDirectory(prefix="cbmon-keras-") as folder:
        for number, answer in _answers({**job, "folder": folder}, jobs, silence_s):
            answers[number] = answer
    return [
        _result(task, answers[i], profile, learning_rate, steps_per_epoch)
        if i in asked
        else replace(task.ours, decisions=None)
        for i, task in enumerate(tasks)
    ]


def _is_unknowable(ours: Replay) -> bool:
    """Whether the log cannot tell: no matter of who decides."""
    return ours.error is not None and not ours.error.startswith("Keras raises ")


def _as_json(recording: Recording) -> dict[str, Any]:
    rows, rates = range(len(recording.epochs)), recording.learning_rate
    return {
        "epochs": list(recording.epochs),
        "columns": list(recording.columns),
        "metrics": {name: [column[row] for row in rows] for name, column in recording.metrics.items()},
        "learning_rate": None if rates is None else [rates[row] for row in rows],
    }


def _first_rate(recording: Recording, learning_rate: float | None) -> float | None:
    """As our own engine: a log's own stands."""
    rates = recording.learning_rate
    if rates is not None:
        learning_rate = next((rate for row in range(len(rates)) if (rate := rates[row]) is not None), None)
    return None if learning_rate is None else float32(learning_rate)


def _answers(
    job: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]], silence_s: float
) -> Iterator[tuple[int, Any]]:
    """Number and answer of each task; in place of an answer the words of how the child died."""
    pending, crashes = list(tasks), 0
    while pending:
        current, death = None, None
        for words in _listen({**job, "tasks": pending}, silence_s):
            if "fatal" in words:
                raise CbmonError(
                    f"{job['module']} cannot be imported ({words['fatal']}): pip install 'cbmon[tensorflow]'"
                )
            current = words.get("begins", current)
            death = words.get("death", death)
            if "answer" in words:
                pending.pop(0)
                yield words["number"], words["answer"]
        if pending and current is None:
            raise CbmonError(f"the process that runs Keras {death or 'ended'} before it could begin")
        if pending:
            crashes += 1
            yield pending.pop(0)["number"], f"the process that runs Keras {death or 'ended'} here"
        if crashes == _CRASHES:
            for task in pending:
                yield task["number"], f"not asked: the process that runs Keras died {crashes} times"
            return


def _listen(job: Mapping[str, Any], silence_s: float) -> Iterator[dict[str, Any]]:
    """What a child says, line by line; at last `death`, unless it ends as it should."""
    child = subprocess.Popen(
        # -P: no file of the working directory may stand for a module before the user's own code is asked for.
        [sys.executable, "-P", "-m", "cbmon.replay.keras_child"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(str(job["module"])),
        start_new_session=True,  # Ctrl-C is ours to answer
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    stdout = child.stdout

    def read() -> None:
        for line in stdout:
            lines.put(line)
        lines.put(b"")

    reader = Thread(target=read, daemon=True)
    reader.start()
    try:
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(job).encode())
            child.stdin.close()
        silent, is_over = 0.0, False
        bound = max(silence_s, SILENCE_S)  # until the imports are done
        while not is_over:
            try:
                line = lines.get(timeout=_LOOK_S)
            except queue.Empty:
                silent += _LOOK_S
                if silent >= bound:
                    yield {"death": f"said nothing for {bound:g} s and was stopped"}
                    return
                is_over = child.poll() is not None
                continue
            silent, bound = 0.0, silence_s
            is_over = not line
            if line:
                words = json.loads(line)
                yield words
                if "done" in words or "fatal" in words:
                    return
        yield {"death": _how(child.wait())}
    finally:
        child.kill()
        child.wait()
        reader.join(_LOOK_S)
        stdout.close()


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _environment(module: str) -> dict[str, str]:
    root = str(Path(__file__).absolute().parent.parent)
    if Path(root).name == "cbmon":
        root = str(Path(root).parent)
    known = [part for part in (os.environ.get("PYTHONPATH"), root) if part]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(known),
        # A replay computes nothing worth a GPU, and TensorFlow would take all its memory from a training.
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        # So that `tf.keras` of the user's own code is the Keras that runs.
        "TF_USE_LEGACY_KERAS": "1" if module == "tf_keras" else "0",
    }


# --- the result ------------------------------------------------------------------------------------------


def _result(
    task: Task, answer: Any, profile: Profile, learning_rate: float | None, steps: int | None
) -> Replay:
    """Keras' answer as a `Replay`; warnings, and what the log cannot tell, are our own engine's."""
    ours, calls, foreign = task.ours, task.written.calls, task.written.foreign
    if isinstance(answer, str):
        return replace(ours, decisions=None, error=answer)
    reference, notes = ours, list[str]()
    if foreign:
        stock = [_as_answered(call, ours, answer) for call in calls if call.policy not in _FOREIGN]
        seen = Beginning(ours.recording, min(len(answer["rates"]), len(ours.recording.epochs)))
        reference = replay(seen, stock, profile, learning_rate=learning_rate, steps_per_epoch=steps)
        notes = [_note(call, note) for call in foreign for note in (call.notes or ("",))]
        is_own = any(call.policy in _FOREIGN for call in calls)
        if is_own and _first_rate(ours.recording, learning_rate) is None and answer["error"] is None:
            notes.append(
                "no learning rate in this log: your own code sees 0.001 in its place. "
                "Give the first one: --learning-rate 1e-3"
            )
        for index in answer["in_batches"] if not (steps or steps_of(ours.recording)) else ():
            notes.append(f"{_own_name(calls[index])}: without --steps-per-epoch it sees one batch an epoch")
        for index in answer["weighed"]:
            notes.append(
                f"{_own_name(calls[index])}: model.get_weights() is empty, for a replay has no model"
            )
    # Of a list that it cannot run, our engine has told what it knows before it looked at the callbacks.
    warnings = dict.fromkeys((*ours.warnings, *map(printable, notes), *reference.warnings))
    whole = replace(ours, warnings=tuple(warnings), decisions=None)
    if _is_unknowable(reference):
        return replace(whole, error=reference.error)
    if answer["error"] is not None:
        return replace(whole, error=_error(answer, calls))
    return replace(whole, error=None, decisions=_decisions(task, answer, reference, profile, learning_rate))


def _as_answered(call: Call, ours: Replay, answer: Mapping[str, Any]) -> Call:
    """A schedule that only the child imported: what it gave, epoch by epoch."""
    if not call.is_foreign:
        return call
    given = dict(zip(ours.recording.epochs, answer["rates"], strict=False))
    return replace(call, arguments={**call.arguments, "schedule": given.__getitem__})


def _own_name(call: Call) -> str:
    return str(call.arguments["name"]) if call.policy is UserClass else call.policy.__name__


def _note(call: Call, note: str) -> str:
    if note:
        return note
    if call.policy is UserClass:
        module, name = call.arguments["module"], call.arguments["name"]
        return f"{name}: imports {module} and runs it, with your rights"
    return (
        "LambdaCallback: imports "
        + ", ".join(dict.fromkeys(hook.module for hook in call.arguments.values()))
        + " and runs its hooks, with your rights"
    )


def _error(answer: Mapping[str, Any], calls: Sequence[Call]) -> str:
    (kind, message), by = answer["error"], answer["error_by"]
    if not kind:
        words = message
    elif by is not None and by < len(calls) and calls[by].is_foreign:
        words = f"{calls[by].text} raises {kind}: {message}"
    else:
        words = str(KerasRefuses(kind, message))
    return printable(words, limit=1000)


def _decisions(
    task: Task, answer: Mapping[str, Any], reference: Replay, profile: Profile, learning_rate: float | None
) -> Decisions:
    recording, calls = task.ours.recording, task.written.calls
    recorded, rates = recording.learning_rate, answer["rates"]
    epochs, stopped_epoch = answer["epochs"], answer["stopped_epoch"]
    setters = (ReduceLROnPlateau, LearningRateScheduler, *DECAYS)
    is_set = answer["is_rate_set"] or any(call.policy in setters for call in calls)
    changed_row = _first_changed(recording, answer, learning_rate) if is_set else None
    changed_at = None if changed_row is None else recording.epochs[changed_row]
    next_rate = answer["next_rate"]
    if recorded is not None and not is_set:
        rates = [recorded[row] for row in range(epochs)]
        first = _first_rate(recording, learning_rate)
        next_rate = next((rate for rate in reversed(rates) if rate is not None), first)
    rates = rates[:epochs]
    is_known = next_rate is not None and (recorded is not None or None not in rates)
    members = _members(calls, answer, reference, profile, recording)
    stop = stopped_epoch is not None and Stop(
        epoch=stopped_epoch,
        by=tuple(_name(calls[i]) for i in answer["stoppers"] if i < len(calls)),
        exact=changed_at is None,
    )
    exact: bool | None = changed_at is None
    if recorded is None:
        exact = None if answer["is_changed"] else True
    return Decisions(
        epochs_replayed=epochs,
        stopped=stop or None,
        learning_rate=tuple(rates) if is_known else None,
        learning_rate_next=next_rate if is_known else None,
        cuts=tuple((epoch, factor) for epoch, factor, _ in answer["cuts"]),
        checkpoints=tuple((epoch, path) for epoch, path, _ in answer["saves"]),
        best=tuple(member.best for member in members if member.best),
        exact=exact,
        diverges_at=None if recorded is None else changed_at,
        changed_at=changed_at,
        members=members,
    )


def _first_changed(
    recording: Recording, answer: Mapping[str, Any], learning_rate: float | None
) -> int | None:
    """First row trained at another rate than the recorded one, without one than the first."""
    first, recorded = _first_rate(recording, learning_rate), recording.learning_rate
    for row, rate in enumerate(answer["rates"]):
        expected = first
        if recorded is not None:
            cell = recorded[row]
            expected = rate if cell is None else float32(cell)
        if expected is None:
            is_other = answer["changed_row"] is not None and row >= answer["changed_row"]
        else:
            is_other = not _same(expected, rate)
        if is_other:
            return row
    return None


def _name(call: Call) -> str:
    return str(call.arguments["name"]) if call.policy is UserClass else call.policy.__name__


def _members(
    calls: Sequence[Call],
    answer: Mapping[str, Any],
    reference: Replay,
    profile: Profile,
    recording: Recording,
) -> tuple[Member, ...]:
    best = {index: (epoch, value) for index, epoch, value in answer["best"]}
    restored, stoppers = dict(answer["restored"]), answer["stoppers"]
    known = iter(reference.decisions.members) if reference.decisions else iter(())
    members = []
    for index, call in enumerate(calls):
        like = None if call.policy in _FOREIGN else next(known, None)
        policy = like.policy if like and not call.is_foreign else _built(call, profile, recording)
        stopped = answer["stopped_epoch"] if index in stoppers else None
        cuts = tuple((epoch, factor) for epoch, factor, by in answer["cuts"] if by == index)
        saved = tuple(epoch for epoch, _, by in answer["saves"] if by == index)
        words = like.words if like else ""
        if call.policy in _FOREIGN:
            words = _words(stopped, len(cuts), len(saved), answer["epochs"])
        elif call.policy is RemoteMonitor:
            posts = answer["posts"]
            words = f"would post {plural(len(posts), 'time')}" + (f" to {posts[0]}" if posts else "")
        members.append(
            Member(
                text=call.text,
                policy=policy,
                state=None,
                restored_epoch=restored.get(index),
                best=_best(policy, best[index], profile) if index in best else None,
                stopped_epoch=stopped,
                cuts=cuts,
                saved_epochs=saved,
                words=words,
            )
        )
    return tuple(members)


def _built(call: Call, profile: Profile, recording: Recording) -> Listed:
    """The parameters, with the mode resolved where our engine can."""
    try:
        policy = call.build(profile)
    except KerasRefuses:  # Keras has not: `differences` tells
        return UserClass("keras.callbacks", call.policy.__name__, {})
    if isinstance(policy, Monitor):
        with suppress(KerasRefuses):
            return resolve(policy, profile, recording.columns)
    return policy


def _best(policy: Listed, seen: tuple[int, float], profile: Profile) -> Best | None:
    epoch, value = seen
    found = None
    if isinstance(policy, EarlyStopping):
        found = policy.best(EarlyStoppingState(value, best_epoch=epoch), profile)
    elif isinstance(policy, ReduceLROnPlateau):
        found = policy.best(PlateauState(value, best_epoch=epoch), profile)
    elif isinstance(policy, ModelCheckpoint):
        found = policy.best(CheckpointState(value, best_epoch=epoch), profile)
    if found is None or not isinstance(policy, Monitor):
        return None
    return Best(callback=type(policy).__name__, monitor=policy.monitor, epoch=found[0], value=found[1])


def _words(stopped: int | None, cuts: int, saves: int, epochs: int) -> str:
    """What the user's own code does."""
    does = [f"stops after epoch {display_epoch(stopped)}"] if stopped is not None else []
    does += [f"lowers the learning rate {plural(cuts, 'time')}"] if cuts else []
    does += [f"saves {plural(saves, 'time')}"] if saves else []
    return ", ".join(does) or f"stops and changes nothing in {plural(epochs, 'epoch')}"


# --- both ------------------------------------------------------------------------------------------------


def differences(ours: Replay, theirs: Replay) -> list[str]:
    """Every decision in which our engine and Keras differ, a sentence each, epochs from 1."""
    made, real = ours.decisions, theirs.decisions
    if made is None or real is None:
        if (made is None) == (real is None):
            return []
        return [f"cbmon: {ours.error or 'no error'}. Keras: {theirs.error or 'no error'}"]
    found: list[str] = []

    def compare(what: str, one: Any, other: Any) -> None:
        if one != other:
            found.append(f"{what}: cbmon {one}, Keras {other}")

    compare("the stop", _stop(made), _stop(real))
    compare("epochs replayed", made.epochs_replayed, real.epochs_replayed)
    found += _rate_differences(made, real)
    for what, words in (("cuts", _cuts), ("checkpoints", _saves), ("best", _bests)):
        one, other = words(made), words(real)
        pairs = enumerate(zip_longest(one, other, fillvalue="none"), 1)
        number, pair = next(((i, pair) for i, pair in pairs if pair[0] != pair[1]), (0, ("", "")))
        compare(f"{what}, number {number} of {len(one)} and {len(other)}", *pair)
    for mine, its in zip(made.members, real.members, strict=True):
        compare(f"{mine.text} restores", _epoch(mine.restored_epoch), _epoch(its.restored_epoch))
    return found


def _rate_differences(made: Decisions, real: Decisions) -> list[str]:
    """Learning rates, bit for bit as the optimizer holds them."""
    ours, its = made.learning_rate, real.learning_rate
    if ours is None or its is None:
        if ours is its:
            return []
        return ["learning rates: " + ("cbmon unknown, Keras known" if its else "cbmon known, Keras unknown")]
    pairs = [*zip(ours, its, strict=False), (made.learning_rate_next, real.learning_rate_next)]
    for row, (mine, theirs) in enumerate(pairs):
        if not _same_rate(mine, theirs):
            where = "the next epoch" if row == len(pairs) - 1 else f"row {row + 1}"
            return [f"learning rate of {where}: cbmon {mine!r}, Keras {theirs!r}"]
    return []


def _stop(made: Decisions) -> str:
    if made.stopped is None:
        return "none"
    return f"after epoch {display_epoch(made.stopped.epoch)} by {', '.join(made.stopped.by)}"


def _cuts(made: Decisions) -> list[str]:
    return [f"×{factor!r} after epoch {display_epoch(epoch)}" for epoch, factor in made.cuts]


def _saves(made: Decisions) -> list[str]:
    return [f"{path} after epoch {display_epoch(epoch)}" for epoch, path in made.checkpoints]


def _bests(made: Decisions) -> list[str]:
    return [f"{b.callback} {b.monitor} {b.value!r} ★{display_epoch(b.epoch)}" for b in made.best]


def _epoch(epoch: int | None) -> str:
    return "none" if epoch is None else f"epoch {display_epoch(epoch)}"


def _same(one: float, other: float | None) -> bool:
    return one == other or (other is not None and math.isnan(one) and math.isnan(other))


def _same_rate(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return _same(float32(one), float32(other))
