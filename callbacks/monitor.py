"""`Monitor`, the Keras callback: turns what `fit` says into events and hands them to the recorder's thread.

A plain class without a Keras base: Keras 3 and tf_keras both take any object with these hooks, a subclass of
one crashes in the other, and importing this file loads no Keras. Hooks never raise into `fit`, never change
`logs`, never wait for a disk. What holds a handle is made at train begin and dropped by pickle and copy.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import sys
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from cbmon.callbacks.recorder import Recorder, say
from cbmon.endpoint import this_process
from cbmon.events import EpochsEnded, RunEnded, RunStarted

P = ParamSpec("P")

LEARNING_RATE_KEYS = ("learning_rate", "lr")
"""What callbacks put into the logs: no metrics; what they mean depends on the list's order."""

FRAMES_UP = 8
"""How far above a hook to look for the list of callbacks; Keras is one frame up, subclasses add some."""


def _guarded(hook: Callable[Concatenate[Monitor, P], None]) -> Callable[Concatenate[Monitor, P], None]:
    """The border to `fit`: a hook that fails is said once and costs what it would have recorded."""

    @functools.wraps(hook)
    def guarded(self: Monitor, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # law 5: nothing that goes wrong here may reach the training
            self._fail(error)

    return guarded


class Monitor:
    """Records a training run: `model.fit(..., callbacks=[Monitor("logs/")])`.

    Works at any place in the list. Several fits of one instance are attempts of one run in one file; a copy
    (deepcopy, pickle, fork) records a run of its own. A fit that ends by an exception or a kill leaves no end
    in the record; readers see that the process is gone once it is.
    """

    async_safe = True
    """Keras on JAX and torch: our batch hooks do not ask for synchronous dispatch."""
    _supports_tf_logs = True
    """tf_keras: our batch hooks do not ask for logs as numbers."""

    _model: Any = None
    _params: dict[str, Any] | None = None
    _recorder: Recorder | None = None
    _close: weakref.finalize[..., Monitor] | None = None
    """Closes the recorder: at the end of a fit, when this object goes after a fit that raised, or at exit."""
    _run_id = ""
    _rate: float | None = None
    """The learning rate in effect in the running epoch."""
    _is_rate_due = False
    _last: EpochsEnded | None = None
    _has_failed = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Take the place of the record; nothing is read or written before training begins.

        Args:
            path: a folder (no suffix, or ending in "/"), which gets one new file per run, or a `.jsonl` file,
                which is appended to if it exists.

        Raises:
            ValueError: any other suffix, or a URL.
        """
        self._path = os.fspath(path)
        suffix = "" if self._path.endswith("/") else Path(self._path).suffix
        if suffix not in ("", ".jsonl") or "://" in self._path or not self._path:
            raise ValueError(
                "Monitor takes a folder (if its name has a dot, end it in '/') or a .jsonl file. "
                f"Received: path={self._path!r}"
            )
        self._is_file = suffix == ".jsonl"
        self._is_copy = False

    def __getstate__(self) -> str:
        return self._path

    def __setstate__(self, path: str) -> None:
        self.__init__(path)  # type: ignore[misc]  # a copy begins as a new instance
        self._is_copy = True

    def set_model(self, model: Any) -> None:
        """Keras calls it before each fit."""
        self._model = model

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Keras calls it before each fit, after `set_model`."""
        self._params = params

    @_guarded
    def on_train_begin(self, logs: object = None) -> None:
        """Start the record of this fit."""
        if self._close:
            self._close()  # for a fit that raised; else it did already
        self._last = None
        path, is_new = self._next_path()
        keras, backend = _keras_of(self._model)
        params = self._params or {}
        optimizer = getattr(self._model, "optimizer", None)
        started = RunStarted(
            time=time.time(),
            run_id=self._run_id,
            epochs=_whole(params.get("epochs")),
            steps=_whole(params.get("steps")),
            keras=keras,
            backend=backend,
            optimizer=optimizer and type(optimizer).__name__,
            process=this_process(),
        )
        self._recorder = Recorder(path, started, is_new=is_new)
        self._close = weakref.finalize(self, self._recorder.close)

    def _next_path(self) -> tuple[Path, bool]:
        """Where this fit is recorded, and whether that has to be a new file."""
        if self._recorder and self._recorder.is_ours:
            return self._recorder.path, False
        is_copy = (
            self._is_copy or self._recorder is not None
        )  # somebody else's recorder: this is a forked child
        self._run_id = uuid.uuid4().hex
        path, mark = Path(self._path).absolute(), self._run_id[:4]
        if not self._is_file:
            return path / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{mark}.jsonl", True
        return (path.with_stem(f"{path.stem}-{mark}"), True) if is_copy else (path, False)

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Ask for the learning rate at the first batch: by then every callback of the list has set it."""
        self._is_rate_due = True

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        """Read the learning rate, once an epoch. Keras 3 makes this call in any case, in this thread."""
        if self._is_rate_due:
            self._read_rate()

    @_guarded
    def _read_rate(self) -> None:
        self._is_rate_due, self._rate = False, None
        self._rate = _learning_rate(self._model.optimizer)

    @_guarded
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the epoch: all its logs, exactly."""
        if self._is_rate_due:  # an epoch without a batch
            self._read_rate()
        logged = {str(key): value for key, value in (logs or {}).items() if key not in LEARNING_RATE_KEYS}
        numbers = {name: _number(value) for name, value in logged.items()}
        self._last = EpochsEnded(
            time=time.time(),
            epochs=[int(epoch)],
            metrics={name: [number] for name, number in numbers.items()},
            learning_rate=None if self._rate is None else [self._rate],
            not_numbers=[name for name in logged if numbers[name] is None is not logged[name]],
        )
        if self._recorder:
            self._recorder.put(self._last)

    @_guarded
    def on_train_end(self, logs: object = None) -> None:
        """Record how it ended and wait for the disk, two seconds at most."""
        if not (self._recorder and self._close):
            return
        is_stopped, by = bool(getattr(self._model, "stop_training", False)), []
        with suppress(Exception):  # other people's callbacks; who stopped it is a courtesy
            by = [
                type(callback).__name__
                for callback in _siblings_of(self)
                if is_stopped and self._stops(callback)
            ]
        how = "stopped" if is_stopped else "finished"
        self._recorder.put(RunEnded(time=time.time(), how=how, by=by))
        self._close()

    def _stops(self, callback: Any) -> bool:
        """Whether a callback of the same list has stopped this fit in its last epoch."""
        kinds = {kind.__name__ for kind in type(callback).__mro__}
        if self._last is None:
            return False
        if "EarlyStopping" in kinds:
            return bool(callback.stopped_epoch == self._last.epochs[0] > 0)  # 0: it did not stop
        loss = self._last.metrics.get("loss", [None])[0]
        return "TerminateOnNaN" in kinds and loss is not None and not math.isfinite(loss)

    def _fail(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            say(f"Monitor({self._path!r}) could not record something ({error!r}); training goes on")

    def _implements_train_batch_hooks(self) -> bool:
        return True  # tf_keras would leave out on_train_batch_begin otherwise

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    def _ignore(self, *args: object, **kwargs: object) -> None:
        """The hooks that Monitor has no use for."""

    on_batch_begin = on_batch_end = on_train_batch_end = _ignore
    on_test_begin = on_test_end = on_test_batch_begin = on_test_batch_end = _ignore
    on_predict_begin = on_predict_end = on_predict_batch_begin = on_predict_batch_end = _ignore


def _number(value: Any) -> float | None:
    """A logged value as a float, exactly; None if it is no single number."""
    try:
        return None if isinstance(value, str | bytes) or getattr(value, "ndim", 0) != 0 else float(value)
    except Exception:  # noqa: BLE001  # whatever somebody's object raises costs its own value
        return None


def _whole(value: Any) -> int | None:
    try:
        return operator.index(value)
    except TypeError:
        return None


def _learning_rate(optimizer: Any) -> float | None:
    """The learning rate of the next step; None if there is no single one."""
    rate: Any = getattr(optimizer, "learning_rate", None)
    schedule = getattr(optimizer, "_learning_rate", rate)
    if any(kind.__name__ == "LearningRateSchedule" for kind in type(schedule).__mro__):
        rate = schedule(optimizer.iterations)  # the property of tf_keras still has the previous step's
    number = _number(rate)  # not of a mirrored variable; but that has numpy()
    return _number(rate.numpy()) if number is None and hasattr(rate, "numpy") else number


def _keras_of(model: Any) -> tuple[str | None, str | None]:
    """Version and backend of the Keras that the model's class comes from, which is imported already."""
    for kind in type(model).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in ("keras", "tf_keras") and (keras := sys.modules.get(name)):
            backend = None
            with suppress(Exception):  # a Keras that we do not know
                backend = keras.backend.backend()
            return getattr(keras, "__version__", None), backend
    return None, None


def _siblings_of(callback: object) -> list[Any]:
    """The list of callbacks that is calling `callback`, found in the callers' frames; empty if not found."""
    frame = sys._getframe(1).f_back
    for _ in range(FRAMES_UP):
        callbacks = getattr(frame and frame.f_locals.get("self"), "callbacks", None)
        if isinstance(callbacks, list) and any(item is callback for item in callbacks):
            return callbacks
        frame = frame and frame.f_back
    return []
