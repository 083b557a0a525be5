"""Notices: what the file system tells of changes below some folders, merged into few sets of paths.

Owns what can be wrong with it: limits of the system that are reached, folders that are deleted and made again, a
queue that overflows. On Linux inotify is read directly; elsewhere it is watchdog, which hands each notice through
Python: with 1,000 updates a second that was half of what `watch` cost. Knows nothing of logs.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import select
import sys
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
CROWD_MERGE_S = 0.25
"""... and they are gathered as long as a screen in a crowd takes from one drawing to the next."""

# Of <sys/inotify.h>; the kernel keeps them.
_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_Q_OVERFLOW, _IGNORED, _ISDIR = 0x4000, 0x8000, 0x40000000
_ONLYDIR, _DONT_FOLLOW, _EXCL_UNLINK = 0x01000000, 0x02000000, 0x04000000
_CAME, _LEFT = _CREATE | _MOVED_TO, _MOVED_FROM | _DELETE
_ASKED = _MODIFY | _CLOSE_WRITE | _CAME | _LEFT | _ONLYDIR | _DONT_FOLLOW | _EXCL_UNLINK
"""Reading a file is no change; nor is what is still written to a file without a name."""

_WATCH_LIMIT = "inotify watch limit reached"
_INSTANCE_LIMIT = "inotify instance limit reached"
_KINDS = frozenset({"created", "modified", "moved", "deleted", "closed"})
"""Reading a file makes notices too (opened, closed without a write): of watchdog's only these mean a change."""


class _Notices:
    """What both ways to watch share.

    The first change after a calm comes at once, what follows it merged, in a thread of its own. Nothing is promised
    to come: whoever listens has to look for itself now and then.
    """

    def __init__(
        self, tell: Callable[[Changed], None], concerns: Callable[[str], bool] = lambda path: True
    ) -> None:
        """Take who is told, and what: whether a path is of interest; both are called in the thread of notices."""
        self._tell = tell
        self._concerns = concerns
        self._stopped = threading.Event()

    def _hand_over(self, paths: Iterable[str]) -> None:
        """Tell of the paths that are of interest, and let the next ones gather."""
        if changed := {path for path in paths if self._concerns(path)}:
            self._tell(changed)
            self._stopped.wait(CROWD_MERGE_S if len(changed) > CROWD else MERGE_S)


class InotifyNotices(_Notices):
    """Watches folders through Linux' inotify; one watch for each folder, those below them too."""

    def __init__(
        self, tell: Callable[[Changed], None], concerns: Callable[[str], bool] = lambda path: True
    ) -> None:
        """Take who is told, and what is of interest."""
        super().__init__(tell, concerns)
        self._inotify: Any = None
        self._thread: threading.Thread | None = None
        self._wake: int | None = None
        """Written to when the thread is to end."""
        self._wake_lock = threading.Lock()
        """Never held for long: `stop` takes it. It guards `_wake` alone, `_lock` all else."""
        self._lock = threading.Lock()
        self._roots: dict[str, tuple[bool, tuple[object, ...]]] = {}
        """What was asked for: whether with all below, and which folder it was."""
        self._folders: dict[int, tuple[str, bool]] = {}
        """By the number of its watch: the folder, with a slash at its end, and whether all below is watched too."""
        self._numbers: dict[str, int] = {}
        """The other way round."""
        self._refusal: OSError | None = None
        """Which limit was reached when a folder that came was to be watched."""

    def watch(self, folders: Mapping[str, bool]) -> None:
        """Watch exactly these folders from now on, those that were made anew too; call it again at any time.

        Args:
            folders: real paths, and whether all that is below belongs to them.

        Raises:
            OSError: A limit of the system is reached, so that something would go unnoticed. Nothing is watched.
        """
        if self._stopped.is_set() or (not folders and self._inotify is None):
            return
        try:
            if self._inotify is None:
                self._start()
            with self._lock:
                if not self._inotify.closed:
                    self._settle(folders)
            if self._refusal is not None:
                raise self._refusal
        except OSError as error:
            self.stop()
            told = {errno.ENOSPC: _WATCH_LIMIT, errno.EMFILE: _INSTANCE_LIMIT}
            raise OSError(error.errno, told.get(error.errno or 0, error.strerror)) from error

    def _settle(self, folders: Mapping[str, bool]) -> None:
        """Forget what is not asked for any more or is another folder now, and watch what is not watched."""
        for folder, (is_recursive, facts) in list(self._roots.items()):
            if folders.get(folder) is not is_recursive or facts != _facts(folder):
                del self._roots[folder]
                self._forget(os.path.join(folder, ""))
        for folder, is_recursive in folders.items():
            path = os.path.join(folder, "")
            if path not in self._numbers and (facts := _facts(folder)):
                self._roots[folder] = is_recursive, facts
                self._add(path, is_recursive)

    def stop(self) -> None:
        """Watch nothing any more, for good; from any thread."""
        self._stopped.set()
        with self._wake_lock:
            if self._wake is not None:
                os.eventfd_write(self._wake, 1)

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended, after `stop`."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _start(self) -> None:
        """Begin to listen, to nothing yet."""
        from inotify_simple import INotify  # type: ignore[import-untyped]  # it has no stubs

        self._inotify = INotify(nonblocking=True)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._listen, name="cbmon-notices", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        """The thread: sleep until something comes, take all that has come, tell it."""
        assert self._wake is not None
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._stopped.is_set():
            poll.poll()
            with self._lock:
                paths = self._paths(self._inotify.read(timeout=0))
            self._hand_over(paths)
        with self._lock, self._wake_lock:
            self._inotify.close()
            os.close(self._wake)
            self._wake = None

    def _paths(self, notices: Iterable[tuple[int, int, int, str]]) -> Changed:
        """The paths that notices mean; folders that came are watched from here on, those that left no more."""
        changed: Changed = set()
        for number, mask, _, name in notices:
            if mask & _Q_OVERFLOW:
                changed |= self._begin_anew()
                continue
            folder, is_recursive = self._folders.get(number, ("", False))
            if not folder:
                continue  # it was forgotten since
            if mask & _IGNORED:
                del self._folders[number]
                if self._numbers.get(folder) == number:
                    del self._numbers[folder]
            elif not mask & _ISDIR:
                changed.add(folder + name)
            elif mask & (_CAME | _LEFT):
                path = folder + name + os.sep
                changed.add(path)
                if mask & _LEFT:
                    self._forget(path)
                elif is_recursive:
                    self._try_to_add(path, True)
        return changed

    def _begin_anew(self) -> Changed:
        """Notices were lost: folders may have come of which nobody told, and anything may have changed."""
        for folder, (is_recursive, _) in self._roots.items():
            self._try_to_add(os.path.join(folder, ""), is_recursive)
        return {os.path.join(folder, "") for folder in self._roots}

    def _try_to_add(self, folder: str, is_recursive: bool) -> None:
        """Watch a folder that came; a limit is said by `watch`, which is called because it came."""
        try:
            self._add(folder, is_recursive)
        except OSError as error:
            self._refusal = error

    def _add(self, folder: str, is_recursive: bool) -> None:
        """Watch a folder, and all below it: first watched, then listed, so that nothing comes in between.

        Raises OSError if a limit is reached. What is gone again or closed to us is passed over: `find` says so.
        """
        waiting = [folder]
        while waiting and not self._stopped.is_set():
            folder = waiting.pop()
            try:
                number = self._inotify.add_watch(folder, _ASKED)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM):
                    raise
                continue
            self._folders[number] = folder, is_recursive
            self._numbers[folder] = number
            if is_recursive:
                with contextlib.suppress(OSError), os.scandir(folder) as scan:
                    waiting += [entry.path + os.sep for entry in scan if entry.is_dir(follow_symlinks=False)]

    def _forget(self, folder: str) -> None:
        """Watch a folder no more, nor what is below it."""
        for path in [path for path in self._numbers if path.startswith(folder)]:
            number = self._numbers.pop(path)
            self._folders.pop(number, None)
            with contextlib.suppress(OSError):  # it is gone, and its watch with it
                self._inotify.rm_watch(number)


class WatchdogNotices(_Notices):
    """The same through watchdog, where there is no inotify; its own words would land on the screen."""

    def __init__(
        self, tell: Callable[[Changed], None], concerns: Callable[[str], bool] = lambda path: True
    ) -> None:
        """Take who is told, and what is of interest."""
        super().__init__(tell, concerns)
        self._observer: BaseObserver | None = None
        self._watches: dict[str, tuple[ObservedWatch, tuple[object, ...]]] = {}
        """By folder: the watch, and which folder it was."""

    def watch(self, folders: Mapping[str, bool]) -> None:
        """As `InotifyNotices.watch`."""
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

        hand_over = self._hand_over
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
                hand_over(paths)

        observer: BaseObserver = Merging()
        observer.start()
        self._observer = observer
        return observer


def reached_limit() -> str:
    """Whether no folder more could be watched: in words, empty if one could, or where there is no inotify."""
    if sys.platform != "linux":
        return ""
    from inotify_simple import INotify

    try:
        with INotify() as inotify:
            inotify.add_watch(os.sep, _DELETE)
    except OSError as error:
        return _WATCH_LIMIT if error.errno == errno.ENOSPC else ""  # no instance more, but ours is there
    return ""


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


if sys.platform == "linux":
    Notices = InotifyNotices
else:
    Notices = WatchdogNotices
