"""Notices: what the file system tells of changes below some folders, merged into few sets of paths.

Owns watchdog and what can be wrong with it: limits of the system that are reached, folders that are deleted and
made again, and its own words, which would land on the screen. Knows nothing of logs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import queue
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver, ObservedWatch

Changed: TypeAlias = set[str]
"""Real paths that changed; those of folders that came, went or moved end with a slash."""

MERGE_S = 0.02
"""After a first notice the next are gathered so long: a row and the closing of its file are one change."""
CROWD = 8
"""Changed files at once, beyond which nobody follows each ..."""
CROWD_MERGE_S = 0.1
"""... and they are gathered as long as a screen takes from one drawing to the next."""

_KINDS = frozenset({"created", "modified", "moved", "deleted", "closed"})
"""Reading a file makes notices too (opened, closed without a write): only these mean that it changed."""
_DELETE_SELF = 0x400
"""IN_DELETE_SELF of inotify: comes rarely."""


class Notices:
    """Watches folders and hands over what changed below them, from a thread of its own.

    The first change after a calm comes at once, what follows it merged. Nothing is promised to come: whoever
    listens has to look for itself now and then.
    """

    def __init__(
        self, tell: Callable[[Changed], None], concerns: Callable[[str], bool] = lambda path: True
    ) -> None:
        """Take who is told, and what: whether a path is of interest; both are called in the thread of notices."""
        self._tell = tell
        self._concerns = concerns
        self._observer: BaseObserver | None = None
        self._watches: dict[str, tuple[ObservedWatch, tuple[object, ...]]] = {}
        """By folder: the watch, and which folder it was."""
        self._stopped = threading.Event()

    def watch(self, folders: Mapping[str, bool]) -> None:
        """Watch exactly these folders from now on, those that were made anew too; call it again at any time.

        Args:
            folders: real paths, and whether all that is below belongs to them.

        Raises:
            OSError: A limit of the system is reached, so that something would go unnoticed. Nothing is watched.
        """
        if self._stopped.is_set() or (not folders and self._observer is None):
            return
        try:
            observer = self._observer or self._start()
            alive = {emitter.watch for emitter in observer.emitters if emitter.is_alive()}
            for folder, (watch, facts) in list(self._watches.items()):
                if (
                    folders.get(folder) is not watch.is_recursive
                    or watch not in alive
                    or facts != _facts(folder)
                ):
                    del self._watches[folder]
                    with contextlib.suppress(KeyError, OSError):  # its folder is gone, and the watch with it
                        observer.unschedule(watch)
            for folder in folders.keys() - self._watches.keys():
                if facts := _facts(folder):
                    self._watches[folder] = (_schedule(observer, folder, folders[folder]), facts)
            if reason := reached_limit():
                raise OSError(errno.ENOSPC, reason)
        except OSError:
            self.stop()
            raise
        if self._stopped.is_set():
            observer.stop()

    def stop(self) -> None:
        """Watch nothing any more, for good; from any thread."""
        self._stopped.set()
        self._watches = {}
        if self._observer is not None:
            self._observer.stop()

    def join(self, timeout_s: float) -> None:
        """Wait until the threads have ended, after `stop`."""
        if self._observer is not None:
            self._observer.join(timeout_s)

    def _start(self) -> BaseObserver:
        """The observer, running; the import of watchdog costs 15 ms."""
        from watchdog.observers import Observer

        tell, concerns = self._tell, self._concerns
        # What watchdog has to say (it lost a race with a deleted folder, it was stopped) would land on the screen.
        logging.getLogger("watchdog").addHandler(logging.NullHandler())
        warnings.filterwarnings("ignore", "Callback with id .* already exists", RuntimeWarning)

        class Merging(Observer):  # type: ignore[misc, valid-type]  # which class it is depends on the platform
            """Takes what has come in one go, where watchdog would wake a thread for each notice."""

            def dispatch_events(self, event_queue: queue.Queue[Any]) -> None:
                entries = [event_queue.get()]
                with contextlib.suppress(queue.Empty):
                    while True:
                        entries.append(event_queue.get_nowait())
                paths = _paths(entry[0] for entry in entries if entry is not self.stop_event)
                if changed := {path for path in paths if concerns(path)}:
                    tell(changed)
                    self.stopped_event.wait(CROWD_MERGE_S if len(changed) > CROWD else MERGE_S)

        observer: BaseObserver = Merging()
        observer.start()
        self._observer = observer
        return observer


def reached_limit() -> str:
    """Whether no folder more could be watched: in words, empty if one could.

    watchdog says so of the folder it is given and keeps silent about those below it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        return ""
    handle = libc.inotify_init1(os.O_CLOEXEC)
    if handle < 0:
        return ""  # no instance more, but ours is there
    try:
        added = libc.inotify_add_watch(handle, b"/", _DELETE_SELF)
        return "inotify watch limit reached" if added < 0 and ctypes.get_errno() == errno.ENOSPC else ""
    finally:
        os.close(handle)


def _schedule(observer: BaseObserver, folder: str, is_recursive: bool) -> ObservedWatch:
    from watchdog import events

    # One filter for all: inotify has one per folder, and the last one that asks wins.
    kinds: list[type[events.FileSystemEvent]] = [
        *(events.FileCreatedEvent, events.FileModifiedEvent, events.FileMovedEvent, events.FileDeletedEvent),
        *(events.FileClosedEvent, events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent),
    ]
    return observer.schedule(
        events.FileSystemEventHandler(), folder, recursive=is_recursive, event_filter=kinds
    )


def _paths(events: Iterable[Any]) -> Changed:
    """The paths of watchdog's events that mean a change."""
    changed: Changed = set()
    for event in events:
        if event.event_type in _KINDS and not (event.is_directory and event.event_type == "modified"):
            end = os.sep if event.is_directory else ""
            for path in (event.src_path, event.dest_path):
                if path:
                    changed.add(os.fsdecode(path) + end)
    return changed


def _facts(folder: str) -> tuple[object, ...]:
    """Which folder it is; empty if there is none."""
    try:
        status = os.stat(folder)
    except OSError:
        return ()
    return status.st_dev, status.st_ino
