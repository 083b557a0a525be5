"""The other callbacks of the same fit, as far as they can be seen: what they count, who stopped it, what was saved.

Keras has no way to ask for them: the list is found in the frames above a hook. All of it is a courtesy: one that
cannot be asked costs its own answer. A callback is known by the names of its classes, so that no Keras is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from cbmon.callbacks.facts import is_finite, number, whole
from cbmon.events import CallbackState, CheckpointSaved, EpochsEnded

AnswerT = TypeVar("AnswerT")

FRAMES_UP = 8
"""How far above a hook to look for the list of callbacks; Keras is one frame up, subclasses add some."""

CLOCKS_APART_S = 2.0
"""A file server's clock may be behind ours by this much."""


def siblings_of(callback: object) -> list[Any]:
    """The list whose `on_train_begin` is calling that of `callback`, itself included; empty if not found.

    Looks into frames of that name alone: reading a frame's `f_locals` keeps all its locals alive until it ends.
    """
    frame = sys._getframe(1).f_back
    for _ in range(FRAMES_UP):
        if frame and frame.f_code.co_name == "on_train_begin" and "self" in frame.f_code.co_varnames:
            callbacks = getattr(frame.f_locals["self"], "callbacks", None)
            if isinstance(callbacks, list) and any(item is callback for item in callbacks):
                return callbacks
        frame = frame and frame.f_back
    return []


def _is(callback: object, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(callback).__mro__)


def _answers(callbacks: Iterable[Any], ask: Callable[[Any], AnswerT | None]) -> list[AnswerT]:
    """What each of them tells, without those that tell nothing and those that cannot be asked."""
    found = []
    for callback in callbacks:
        with suppress(Exception):  # other people's callbacks
            answer = ask(callback)
            if answer is not None:
                found.append(answer)
    return found


def states(callbacks: Iterable[Any]) -> list[CallbackState]:
    """What the callbacks that wait for an improvement have counted so far."""
    return _answers(callbacks, _state)


def _state(callback: Any) -> CallbackState | None:
    if not (_is(callback, "EarlyStopping") or _is(callback, "ReduceLROnPlateau")):
        return None
    return CallbackState(
        name=type(callback).__name__,
        monitor=str(callback.monitor),
        patience=number(getattr(callback, "patience", None)),
        wait=whole(getattr(callback, "wait", None)),
        best=number(callback.best),
        best_epoch=whole(getattr(callback, "best_epoch", None)),
        cooldown=whole(getattr(callback, "cooldown_counter", None)),
    )


def stopped_by(callbacks: Iterable[Any], last: EpochsEnded | None) -> list[str]:
    """The callbacks that stopped the fit in its last epoch."""
    return _answers(
        callbacks, lambda each: type(each).__name__ if last and _has_stopped(each, last) else None
    )


def _has_stopped(callback: Any, last: EpochsEnded) -> bool:
    if _is(callback, "EarlyStopping"):
        return bool(callback.stopped_epoch == last.epochs[0] > 0)  # 0: it did not stop
    return _is(callback, "TerminateOnNaN") and not is_finite(last.metrics.get("loss", [None])[0])


def restored_epoch(callbacks: Iterable[Any]) -> int | None:
    """The epoch whose weights an EarlyStopping puts back when training ends; the last one in the list decides."""
    restored = _answers(callbacks, _restored)
    return restored[-1] if restored else None


def _restored(callback: Any) -> int | None:
    restores = _is(callback, "EarlyStopping") and callback.restore_best_weights
    return whole(callback.best_epoch) if restores and callback.best_weights is not None else None


def checkpoint_paths(callbacks: Iterable[Any], epoch: int, logs: dict[str, Any]) -> list[str]:
    """The files that ModelCheckpoints write for this epoch, if they write it."""
    return _answers(callbacks, lambda each: _checkpoint_path(each, epoch, logs))


def _checkpoint_path(callback: Any, epoch: int, logs: dict[str, Any]) -> str | None:
    if not _is(callback, "ModelCheckpoint"):
        return None
    path: str = os.fspath(callback._get_file_path(epoch, None, logs))  # or KeyError: one for each batch
    return path


Signature: TypeAlias = tuple[int, int, int]
"""Of a file: changed when (ns), bytes, inode."""

_looked: dict[str, tuple[Signature, float]] = {}
"""What this process knows of the files, and since when: a fit may begin right after another one's last save."""


class Checkpoints:
    """Which checkpoints were written, asked of the disk; so this belongs into the recorder's thread.

    A ModelCheckpoint does not tell whether it saved. A file that has changed since the fit began, and since the
    last look at it, was saved.
    """

    def __init__(self, since: float) -> None:
        """Remember when the fit began, Unix seconds."""
        self._since = since
        self._seen: dict[str, Signature] = {}

    def saved(self, epoch: int, paths: Iterable[str], time: float) -> list[CheckpointSaved]:
        """The ones of these files that were written for `epoch`, looked at now."""
        found = []
        for path in paths:
            now = self._signature(path)
            if now is not None and self._seen.get(path) != now:
                self._seen[path] = now
                if not self._is_older(path, now, time):
                    found.append(CheckpointSaved(time=time, epoch=epoch, path=path))
        return found

    def _is_older(self, path: str, now: Signature, time: float) -> bool:
        """Whether the file was like this when the fit began."""
        known, since = _looked.get(path, (None, time))
        if known != now:
            since = time
            _looked[path] = now, time
        return since < self._since or now[0] < (self._since - CLOCKS_APART_S) * 1e9

    def _signature(self, path: str) -> Signature | None:
        for name in (path, f"{path}.index"):  # the second: TensorFlow's own format of weights
            try:
                facts = Path(name).stat()
            except (OSError, ValueError):
                continue
            return facts.st_mtime_ns, facts.st_size, facts.st_ino
        return None
