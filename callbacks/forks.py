"""Descriptors and forks: a child must know each descriptor of its parent's recorders, to let go of its copy.

A file's lock and a listening socket belong to the open file, not to the process: a data worker that keeps a copy
keeps a dead trainer's lock, and answers for it at its door. So none is made while a fork is under way. Neither a
fork nor a fit waits here for longer than a moment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

WAIT_S = 0.05
"""The most that a fork waits for a descriptor to be noted, which takes microseconds unless a disk hangs."""

_lock = threading.RLock()
"""Whoever holds it may be called again within: by a signal's handler, or by the garbage collector."""


@contextmanager
def making() -> Iterator[None]:
    """While a descriptor is made and noted where a forked child finds it."""
    lock = _lock
    is_held = lock.acquire(timeout=WAIT_S)
    try:
        yield
    finally:
        if is_held:
            lock.release()


def in_child(let_go: Callable[[], object]) -> None:
    """Have this done in each forked child."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=let_go)


def _before() -> None:
    _lock.acquire(timeout=WAIT_S)


def _after_in_parent() -> None:
    with suppress(RuntimeError):  # this thread did not get it in time
        _lock.release()


def _after_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
