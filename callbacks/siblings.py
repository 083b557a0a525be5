"""The other callbacks of the same fit, as far as they can be seen: what they count, who stopped it, what was saved.

Keras has no way to ask for them: the list is found in the frames above a hook. All of it is a courtesy, and every
caller guards it; a callback is known by the names of its classes, so that no Keras is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cbmon.callbacks.facts import is_finite, number, whole
from cbmon.events import CallbackState, CheckpointSaved, EpochsEnded

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


def states(callbacks: Iterable[Any]) -> list[CallbackState]:
    """What the callbacks that wait for an improvement have counted so far."""
    return [
        CallbackState(
            name=type(callback).__name__,
            monitor=str(callback.monitor),
            patience=number(getattr(callback, "patience", None)),
            wait=whole(getattr(callback, "wait", None)),
            best=number(callback.best),
            best_epoch=whole(getattr(callback, "best_epoch", None)),
            cooldown=whole(getattr(callback, "cooldown_counter", None)),
        )
        for callback in callbacks
        if _is(callback, "EarlyStopping") or _is(callback, "ReduceLROnPlateau")
    ]


def stopped_by(callbacks: Iterable[Any], last: EpochsEnded | None) -> list[str]:
    """The callbacks that stopped the fit in its last epoch."""
    return [type(callback).__name__ for callback in callbacks if last and _has_stopped(callback, last)]


def _has_stopped(callback: Any, last: EpochsEnded) -> bool:
    if _is(callback, "EarlyStopping"):
        return bool(callback.stopped_epoch == last.epochs[0] > 0)  # 0: it did not stop
    return _is(callback, "TerminateOnNaN") and not is_finite(last.metrics.get("loss", [None])[0])


def restored_epoch(callbacks: Iterable[Any]) -> int | None:
    """The epoch whose weights an EarlyStopping puts back when training ends; the last one in the list decides."""
    restoring = [
        callback
        for callback in callbacks
        if _is(callback, "EarlyStopping")
        and callback.restore_best_weights
        and callback.best_weights is not None
    ]
    return whole(restoring[-1].best_epoch) if restoring else None


def checkpoint_paths(callbacks: Iterable[Any], epoch: int, logs: dict[str, Any]) -> list[str]:
    """The files that ModelCheckpoints write for this epoch, if they write it."""
    return [
        os.fspath(callback._get_file_path(epoch, None, logs))
        for callback in callbacks
        if _is(callback, "ModelCheckpoint")
    ]


class Checkpoints:
    """Which checkpoints were written, asked of the disk; so this belongs into the recorder's thread.

    A ModelCheckpoint does not tell whether it saved. A file that has changed since the fit began, and since the
    last look at it, was saved.
    """

    def __init__(self, since: float) -> None:
        """Remember when the fit began, Unix seconds."""
        self._since = since - CLOCKS_APART_S
        self._seen: dict[str, tuple[int, int, int]] = {}

    def saved(self, epoch: int, paths: Iterable[str], time: float) -> list[CheckpointSaved]:
        """The ones of these files that were written for `epoch`, looked at now."""
        found = []
        for path in paths:
            now = self._signature(path)
            if now is not None and now[0] >= self._since * 1e9 and self._seen.get(path) != now:
                self._seen[path] = now
                found.append(CheckpointSaved(time=time, epoch=epoch, path=path))
        return found

    def _signature(self, path: str) -> tuple[int, int, int] | None:
        for name in (path, f"{path}.index"):  # the second: TensorFlow's own format of weights
            try:
                facts = Path(name).stat()
            except (OSError, ValueError):
                continue
            return facts.st_mtime_ns, facts.st_size, facts.st_ino
        return None
