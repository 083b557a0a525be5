"""`Monitor`, the Keras callback: turns what `fit` says into events and hands them to the recorder's thread.

A plain class without a Keras base: Keras 3 and tf_keras both take any object with these hooks, a subclass of
one crashes in the other, and importing this file loads no Keras. Hooks never raise into `fit`, never change
`logs`, never wait for a disk. What holds a handle is made at train begin and dropped by pickle and copy.
"""

from __future__ import annotations

import functools
import math
import os
import platform
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec

from cbmon.callbacks import facts
from cbmon.callbacks.control import Control
from cbmon.callbacks.exits import Whereabouts
from cbmon.callbacks.fit import Fit, Look
from cbmon.callbacks.layouts import CsvRows, JsonLines, Layout, NoFile
from cbmon.callbacks.recorder import Recorder, say
from cbmon.callbacks.siblings import siblings_of
from cbmon.callbacks.wire import History, Wire
from cbmon.endpoint import PATH_MAX, Hello, this_process
from cbmon.events import RunStarted

P = ParamSpec("P")


def _guarded(hook: Callable[Concatenate[Monitor, P], None]) -> Callable[Concatenate[Monitor, P], None]:
    """The border to `fit`: a hook that fails is said once and costs what it would have recorded."""

    @functools.wraps(hook)
    def guarded(self: Monitor, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # law 5: nothing that goes wrong here may reach the training
            self._fail(error)

    return guarded


LIVE_HZ_MAX = 50.0
"""Looks a second at the running epoch; a terminal shows fewer."""


class _Outer(NamedTuple):
    """A fit that waits while another one runs inside it."""

    fit: Fit
    inner: Whereabouts


_OF_A_FIT = (
    *("_model", "_params", "_fit", "_outer", "_recorder", "_history", "_close", "_run_id", "_has_failed"),
)
"""What a copy of a Monitor does not get; it gets what a subclass keeps beside them."""


_SOCKET = "unix://"


def _can_be_socket(path: str) -> bool:
    """Whether a path may be that of a socket; "" is: it gets a name of its own. What is called a log is a typo."""
    is_path = os.path.isabs(path) and not path.endswith(("/", ".jsonl", ".csv")) and "\0" not in path
    return not path or (is_path and len(os.fsencode(path)) <= PATH_MAX)


class Monitor:
    """Records a training run: `model.fit(..., callbacks=[Monitor("logs/")])`.

    Works at any place in the list. Several fits of one instance are attempts of one run in one file; a copy
    (deepcopy, pickle, fork) records a run of its own. Of several workers that train one model together the
    chief alone records. While a fit runs, `cbmon watch` on this machine sees the progress within its epochs, and
    its user may ask for a stop, another learning rate or a checkpoint.
    """

    async_safe = True
    """Keras on JAX and torch: our batch hooks do not ask for synchronous dispatch."""
    _supports_tf_logs = True
    """tf_keras: our batch hooks do not ask for logs as numbers."""

    _model: Any = None
    _params: dict[str, Any] | None = None
    _fit: Fit | None = None
    """The fit that runs, None between fits."""
    _outer: _Outer | None = None
    _recorder: Recorder | None = None
    """Of the latest fit: the next one goes on in its file."""
    _history: History | None = None
    """Of a run without a file: its fits so far."""
    _close: weakref.finalize[..., Monitor] | None = None
    """Ends the record when this object goes after a fit that raised, or at the interpreter's exit."""
    _run_id = ""
    _has_failed = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        record_argv: bool = True,
        all_workers: bool = False,
        control: bool = True,
        live_hz: float = 5.0,
    ) -> None:
        """Take the place of the record; nothing is read or written before training begins.

        Args:
            path: a folder (no suffix, or ending in "/"), which gets one new file per run; or a `.jsonl` file, the
                full record; or a `.csv` file, which every reader of CSVLogger files reads. An existing file is
                appended to if it is such a record (a `.csv`: with the same columns), else another name is taken.
                Or `unix:///path.sock`, a socket and no file: who watches gets the run from its start, and
                nothing is left when it has ended; `unix://` alone takes a name of its own, and says it.
            config: hyperparameters and whatever else to keep with the run. Values whose name holds "key", "token",
                "secret", "passw" or "credential" are masked.
            record_argv: keep the command line, masked likewise.
            all_workers: record in every worker of a distributed training, each into a file of its own.
            control: whether this user's other processes may ask for a stop, another learning rate or a checkpoint.
            live_hz: how often a second watchers are told of the progress within an epoch, at most.

        Raises:
            ValueError: any other suffix, another URL, or no such frequency.
            TypeError: a config that is no mapping.
        """
        self._path = os.path.expanduser(os.fspath(path))
        self._has_file = not self._path.startswith(_SOCKET)
        self._suffix = "" if self._path.endswith("/") else Path(self._path).suffix
        is_taken = self._suffix in ("", ".jsonl", ".csv") and "://" not in self._path and self._path != ""
        if not self._has_file:
            self._path = os.path.expanduser(self._path.removeprefix(_SOCKET))
            is_taken = _can_be_socket(self._path)
        if not is_taken:
            raise ValueError(
                "Monitor takes a folder (if its name has a dot, end it in '/'), a .jsonl file or a .csv file, or "
                f"{_SOCKET} and the absolute path of a socket, of {PATH_MAX} bytes at most. "
                f"Received: path={os.fspath(path)!r}"
            )
        if not (math.isfinite(live_hz) and 0 < live_hz <= LIVE_HZ_MAX):
            raise ValueError(f"Monitor takes a live_hz up to {LIVE_HZ_MAX:g}. Received: live_hz={live_hz!r}")
        if not isinstance(config, Mapping | None):
            raise TypeError(f"Monitor takes a mapping of names to values. Received: config={config!r}")
        self._config = facts.plain_config(config or {})
        self._record_argv = record_argv
        self._all_workers = all_workers
        self._is_controlled = bool(control)
        self._live_s = 1 / live_hz
        self._is_copy = False

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in _OF_A_FIT}
        return kept | {"_is_copy": True}

    def set_model(self, model: Any) -> None:
        """Keras calls it before each fit."""
        self._model = model

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Keras calls it before each fit, after `set_model`."""
        self._params = params

    @_guarded
    def on_train_begin(self, logs: object = None) -> None:
        """Start the record of this fit."""
        self._go_on_outside()
        whereabouts = Whereabouts()
        if self._outer:
            return
        if self._fit and (running := self._fit.recorder.whereabouts).is_running():
            if not running.is_same(whereabouts):  # else: this Monitor stands twice in the list
                self._outer, self._fit = _Outer(self._fit, whereabouts), None
                say(
                    f"Monitor({self._path!r}) records one fit at a time: one that begins meanwhile is left out"
                )
            return
        self._fit = None
        if self._close:
            self._close()  # for a fit that raised; else it did already
        siblings = siblings_of(self)
        started = self._started(siblings)
        if started.worker and not self._all_workers:
            return
        path, is_new = self._next_path(started.worker)
        layout: Layout = (
            NoFile() if not self._has_file else CsvRows() if self._suffix == ".csv" else JsonLines(started)
        )
        if self._recorder is None or not self._recorder.is_ours:
            self._history = None
        look, control = Look(self._live_s), Control(say) if self._is_controlled else None
        wire = self._wire(started, path, look, control)
        self._recorder = Recorder(path, layout, is_new=is_new, whereabouts=whereabouts, wire=wire)
        if control is not None:
            control.connect(self._recorder, beside=None if self._has_file else Path(path.name))
        if not self._has_file:
            self._recorder.put(started)
        self._close = weakref.finalize(self, self._recorder.abandon)
        self._fit = Fit(self._model, self._recorder, siblings, started.steps, started.epochs, look, control)

    def _wire(self, started: RunStarted, path: Path, look: Look, control: Control | None) -> Wire | None:
        """The live wire of a fit; None, and said, if this process may open no more files."""
        assert started.process is not None
        hello = Hello(
            run_id=started.run_id,
            started=started.time,
            name=path.name,
            process=started.process,
            control=control is not None,
            replays=not self._has_file,
        )
        given = None if self._has_file or not self._path else path
        try:
            wire = Wire(
                hello,
                control,
                look.progress,
                every_s=self._live_s,
                path=given,
                history=self._history,
                say=say,
            )
        except OSError as error:
            say(f"nobody can watch {path} live ({error.strerror or error}); training goes on")
            return None
        if not self._has_file:
            self._history = wire.history
        return wire

    def _started(self, siblings: list[Any]) -> RunStarted:
        """What is known of a fit when it begins."""
        if self._recorder is None or not self._recorder.is_ours:
            self._run_id = uuid.uuid4().hex
        keras, backend, backend_version = facts.keras_of(self._model)
        params = self._params or {}
        optimizer = getattr(self._model, "optimizer", None)
        return RunStarted(
            time=time.time(),
            run_id=self._run_id,
            epochs=facts.whole(params.get("epochs")),
            steps=facts.whole(params.get("steps")),
            keras=keras,
            backend=backend,
            backend_version=backend_version,
            python=platform.python_version(),
            model=str(getattr(self._model, "name", None) or type(self._model).__name__),
            parameters=facts.parameters(self._model),
            optimizer=None if optimizer is None else type(optimizer).__name__,
            callbacks=[type(callback).__name__ for callback in siblings],
            devices=facts.devices(backend),
            command=facts.command() if self._record_argv else [],
            config=self._config,
            worker=facts.worker(self._model, backend) or None,
            process=this_process(),
        )

    def _next_path(self, worker: int | None) -> tuple[Path, bool]:
        """Where this fit is recorded, and whether that has to be a new file."""
        if self._recorder and self._recorder.is_ours:
            return self._recorder.path, False
        is_copy = (
            self._is_copy or self._recorder is not None
        )  # somebody else's recorder: this is a forked child
        path, mark = Path(self._path or "live.sock").absolute(), self._run_id[:4]
        if worker:
            mark = f"{mark}-worker{worker}"
        if self._has_file and not self._suffix:
            return path / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{mark}.jsonl", True
        is_own = is_copy or worker is not None
        return (path.with_stem(f"{path.stem}-{mark}"), True) if is_own else (path, False)

    def _go_on_outside(self) -> None:
        """If a fit inside the recorded one is over, by its end or an exception, the outer one goes on."""
        if self._outer and not self._outer.inner.is_running():
            self._fit, self._outer = self._outer.fit, None

    @_guarded
    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Take the time; look at what the other callbacks made of the previous epoch."""
        self._go_on_outside()
        if self._fit:
            self._fit.begin_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        """Read the learning rate, once an epoch. Keras 3 makes this call in any case, in this thread."""
        if self._fit is not None:
            try:
                self._fit.begin_step()
            except Exception as error:  # noqa: BLE001  # as in _guarded, without its price
                self._fail(error)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the step. On JAX and torch in any thread and order; so nothing of the model is touched here."""
        if self._fit is not None:
            try:
                self._fit.end_step(batch, logs or {})
            except Exception as error:  # noqa: BLE001  # as in _guarded, without its price
                self._fail(error)

    @_guarded
    def on_test_begin(self, logs: object = None) -> None:
        """Take the time, if this is the validation of a fit."""
        if self._fit:
            self._fit.begin_test()

    def on_test_batch_begin(self, batch: int, logs: object = None) -> None:
        """Hear what was asked for: the only hook within a validation whose steps end in other threads."""
        if self._fit is not None:
            try:
                self._fit.begin_test_step()
            except Exception as error:  # noqa: BLE001  # as in _guarded, without its price
                self._fail(error)

    @_guarded
    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the step of validation."""
        if self._fit:
            self._fit.end_test_step(batch, logs or {})

    @_guarded
    def on_test_end(self, logs: object = None) -> None:
        """Take the time."""
        if self._fit:
            self._fit.end_test()

    @_guarded
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the epoch."""
        self._go_on_outside()
        if self._fit:
            self._fit.end_epoch(epoch, logs or {})

    @_guarded
    def on_train_end(self, logs: object = None) -> None:
        """Record how it ended and wait for the disk, two seconds at most."""
        self._go_on_outside()
        fit, self._fit = self._fit, None
        if fit:
            fit.end()
            fit.recorder.close()

    def _fail(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            say(f"Monitor({self._path!r}) could not record something ({error!r}); training goes on")

    def _implements_hooks(self) -> bool:
        """tf_keras asks; it would leave the batch hooks out otherwise."""
        return True

    def _ignore(self, *args: object, **kwargs: object) -> None:
        """The hooks that Monitor has no use for."""

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    _implements_train_batch_hooks = _implements_test_batch_hooks = _implements_hooks
    on_batch_begin = on_batch_end = _ignore
    on_predict_begin = on_predict_end = on_predict_batch_begin = on_predict_batch_end = _ignore
