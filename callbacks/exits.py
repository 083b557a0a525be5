"""How a fit ended where Keras calls no hook: an exception left it, or the process ends.

Keras has no `finally` around its loop. Four looks find out, and none of them can disturb the script: the end of
the list of callbacks, which Keras makes for each call of `fit` and holds in its frame alone; the hooks for
uncaught exceptions (chained, holding nothing, put back); the recorder's thread, which asks now and then whether
the call is still on its thread's stack; and the interpreter's exit.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol, TypeVar

FRAMES_UP = 24
"""How far above a hook to look for `fit`: Keras has three frames between, decorators and subclasses add some."""

AnswerT = TypeVar("AnswerT")

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_lock = threading.RLock()
"""Whoever holds it may be called again within: by a signal's handler, or by the garbage collector."""


class Whereabouts:
    """Where a call of `fit` runs, and whether it still does."""

    def __init__(self) -> None:
        """Find the `fit` that the caller runs in."""
        self.thread = threading.get_ident()
        frame, callbacks = _fit_above(sys._getframe(1))
        self._frame = frame and (id(frame), frame.f_code)  # not the frame: it holds the training data
        self._callbacks = callbacks
        self._at_end: weakref.ref[Any] | None = None
        self._before = tuple(map(id, _exceptions(self.thread)))

    def is_running(self) -> bool | None:
        """Whether the call is still on its thread's stack; None if it was never seen: a loop of the user's own."""
        if self._callbacks and self._callbacks() is None:
            return False  # the next call's frame often gets the address of this one
        if self._frame is None:
            return None
        frame = _by_thread(sys._current_frames).get(self.thread)
        last = frame
        while frame is not None:
            if (id(frame), frame.f_code) == self._frame:
                return True
            last, frame = frame, frame.f_back
        # Below a generator that has yielded while we looked there is nothing to be seen.
        return bool(last and last.f_code.co_flags & _GENERATORS)

    def is_same(self, other: Whereabouts) -> bool:
        """Whether both are of one call of `fit`: somebody stands twice in its list."""
        return self._frame is not None and (self.thread, self._frame) == (other.thread, other._frame)

    def exception(self) -> BaseException | None:
        """What left the fit, where Python still knows: it is being handled, or a notebook has shown it."""
        found = [error for error in _exceptions(self.thread) if id(error) not in self._before]
        return found[0] if found else None

    def tell_at_end(self, recorder: Leavable) -> None:
        """Tell the recorder when the list of callbacks goes: an exception left the fit and has been handled."""
        callbacks = self._callbacks and self._callbacks()
        known = weakref.ref(recorder)

        def left(_: object) -> None:
            with suppress(Exception):
                if still := known():
                    still.leave(None)  # the frames went, so the exception went before

        if callbacks is not None:
            self._at_end = weakref.ref(callbacks, left)


def _fit_above(frame: FrameType | None) -> tuple[FrameType | None, weakref.ref[Any] | None]:
    """The call of `fit` around a hook, and the list of callbacks that it calls: each None if not found.

    As in `siblings`, frames of that name alone are looked into: `f_locals` keeps a frame's locals alive.
    """
    callbacks = None
    for _ in range(FRAMES_UP):
        if frame is None:
            break
        code = frame.f_code
        if "self" in code.co_varnames:
            # One that yields is off the stack between its steps, which says nothing.
            if code.co_name == "fit" and not code.co_flags & _GENERATORS:
                return frame, callbacks
            if code.co_name == "on_train_begin":
                with suppress(Exception):  # not every class can be weakly referred to
                    owner = frame.f_locals["self"]
                    if isinstance(owner.callbacks, list):
                        callbacks = weakref.ref(owner)
        frame = frame.f_back
    return None, callbacks


def _by_thread(ask: Callable[[], dict[int, AnswerT]]) -> dict[int, AnswerT]:
    """What Python tells of all threads.

    A garbage collection within such a call may hang the whole process, on Python 3.11 (cpython issue 106883).
    """
    if sys.version_info >= (3, 12):
        return ask()
    with _lock:
        is_collecting = gc.isenabled()
        try:
            gc.disable()  # within: a Ctrl-C right after it must not leave it so
            return ask()
        finally:
            if is_collecting:
                gc.enable()


def _exceptions(thread: int) -> list[BaseException]:
    """The exception that a thread is handling, and the one that an interactive session showed last."""
    active: Any = None
    with suppress(Exception):
        active = _by_thread(sys._current_exceptions).get(thread)
    if isinstance(active, tuple):  # Python 3.11
        active = active[1]
    is_session = thread == threading.main_thread().ident
    shown = getattr(sys, "last_value", None) if is_session else None
    return [error for error in (active, shown) if isinstance(error, BaseException)]


def in_words(error: BaseException | None, limit: int) -> tuple[str, str]:
    """How an exception ended a fit, and its text: whoever stops a script with it meant to; None: nobody knows."""
    if error is None:
        return "interrupted", ""
    how = "failed" if isinstance(error, Exception) else "interrupted"
    name = type(error).__name__
    text = ""
    with suppress(Exception):  # somebody's __str__
        text = str(error)
    if len(text) > limit:  # TensorFlow tells the cause below a stack trace
        text = f"{text[: limit // 4]} … {text[-limit * 3 // 4 :]}"
    return how, f"{name}: {text}" if text else name


class Leavable(Protocol):
    """What has to be told: a recorder."""

    whereabouts: Whereabouts

    def leave(self, error: BaseException | None) -> None:
        """The fit was left by this exception."""


class _Hook:
    """One of Python's hooks for uncaught exceptions, with ours before it while fits run."""

    def __init__(self, module: Any, error_of: Callable[..., BaseException | None]) -> None:
        """Set nothing yet: the module keeps the hook as `excepthook`, `error_of` takes what it is called with."""
        self._module = module
        self._error_of = error_of
        self._ours: Any = None
        self._before: Any = None

    def set(self) -> None:
        """Put ours in front of what is there now, unless it is in front."""
        if self._ours is not None and self._module.excepthook is self._ours:
            return
        before, error_of = self._module.excepthook, self._error_of

        def ours(*args: Any) -> None:
            _tell(error_of(*args))
            before(*args)

        self._module.excepthook = ours
        self._ours, self._before = ours, before

    def put_back(self) -> None:
        """Take ours away, unless somebody has set another one since: that may call ours, which passes on."""
        if self._ours is not None and self._module.excepthook is self._ours:
            self._module.excepthook = self._before
        self._ours = self._before = None


_watching: weakref.WeakSet[Leavable] = weakref.WeakSet()
_hooks = (
    _Hook(sys, lambda kind, error, trace: error),
    _Hook(threading, lambda args: args.exc_value),
)


def watch(recorder: Leavable) -> None:
    """Tell the recorder if an exception leaves its fit."""
    recorder.whereabouts.tell_at_end(recorder)
    with _lock:
        _watching.add(recorder)
        for hook in _hooks:
            hook.set()


def unwatch(recorder: Leavable) -> None:
    """The fit is over; with the last one the hooks are put back."""
    with _lock:
        _watching.discard(recorder)
        if not _watching:
            for hook in _hooks:
                hook.put_back()


def _tell(error: BaseException | None) -> None:
    """Tell those whose fit is left: some code also calls the hook to show an exception that it handles."""
    with suppress(Exception):
        with _lock:
            watching = list(_watching)
        for recorder in watching:
            here = recorder.whereabouts.thread == threading.get_ident()
            if here and not recorder.whereabouts.is_running():
                recorder.leave(error)


def _forget() -> None:
    """In a forked child: the fits are its parent's, and so may be a lock that is held."""
    global _lock
    _lock = threading.RLock()
    _watching.clear()
    for hook in _hooks:
        hook.put_back()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
