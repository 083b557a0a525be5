"""How a fit ended where Keras calls no hook: an exception left it, or the process ends.

Keras has no `finally` around its loop. Three looks find out, and none of them can disturb the script: the
hooks for uncaught exceptions (chained, holding nothing, put back), the recorder's thread, which asks now and
then whether the call of `fit` is still on its thread's stack, and the interpreter's exit.
"""

from __future__ import annotations

import sys
import threading
import weakref
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Protocol

FRAMES_UP = 24
"""How far above a hook to look for `fit`: Keras has three frames between, decorators and subclasses add some."""


class Whereabouts:
    """Where a call of `fit` runs, and whether it still does."""

    def __init__(self) -> None:
        """Find the `fit` that the caller runs in."""
        self.thread = threading.get_ident()
        frame = _frame_of_fit(sys._getframe(1))
        self._frame = frame and (id(frame), frame.f_code)  # not the frame: it holds the training data
        self._before = tuple(map(id, _exceptions(self.thread)))

    def is_running(self) -> bool | None:
        """Whether the call is still on its thread's stack; None if it was never seen: a loop of the user's own."""
        if self._frame is None:
            return None
        frame = sys._current_frames().get(self.thread)
        while frame is not None:
            if (id(frame), frame.f_code) == self._frame:
                return True
            frame = frame.f_back
        return False

    def exception(self) -> BaseException | None:
        """What left the fit, where Python still knows: it is being handled, or a notebook has shown it."""
        found = [error for error in _exceptions(self.thread) if id(error) not in self._before]
        return found[0] if found else None


def _frame_of_fit(frame: FrameType | None) -> FrameType | None:
    for _ in range(FRAMES_UP):
        if frame is None or (frame.f_code.co_name == "fit" and "self" in frame.f_code.co_varnames):
            return frame
        frame = frame.f_back
    return None


def _exceptions(thread: int) -> list[BaseException]:
    """The exception that a thread is handling, and the one that an interactive session showed last."""
    active: Any = None
    with suppress(Exception):
        active = sys._current_exceptions().get(thread)
    if isinstance(active, tuple):  # Python 3.11
        active = active[1]
    shown = getattr(sys, "last_value", None)
    return [error for error in (active, shown) if isinstance(error, BaseException)]


class Leavable(Protocol):
    """What has to be told: a recorder."""

    whereabouts: Whereabouts

    def leave(self, error: BaseException | None) -> None:
        """The fit was left by this exception."""


_watching: weakref.WeakSet[Leavable] = weakref.WeakSet()
_lock = threading.Lock()
_previous: list[Any] = []
"""`sys.excepthook` and `threading.excepthook` as they were; empty while ours are not set."""


def watch(recorder: Leavable) -> None:
    """Tell the recorder if an exception that nobody handles leaves its fit."""
    with _lock:
        _watching.add(recorder)
        if not _previous:
            _previous[:] = sys.excepthook, threading.excepthook
            sys.excepthook, threading.excepthook = _in_main_thread, _in_other_thread


def unwatch(recorder: Leavable) -> None:
    """The fit is over; with the last one the hooks are put back, unless somebody has set others since."""
    with _lock:
        _watching.discard(recorder)
        ours = sys.excepthook is _in_main_thread and threading.excepthook is _in_other_thread
        if _previous and not _watching and ours:
            sys.excepthook, threading.excepthook = _previous
            _previous.clear()


def _in_main_thread(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    before = _previous[0] if _previous else sys.__excepthook__
    _tell(threading.get_ident(), error)
    before(kind, error, trace)


def _in_other_thread(args: threading.ExceptHookArgs) -> None:
    before = _previous[1] if _previous else threading.__excepthook__
    _tell(threading.get_ident(), args.exc_value)
    before(args)


def _tell(thread: int, error: BaseException | None) -> None:
    with suppress(Exception):
        for recorder in list(_watching):
            if recorder.whereabouts.thread == thread:
                recorder.leave(error)
