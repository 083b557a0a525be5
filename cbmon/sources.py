"""Where bytes come from: files are found, read on, and watched here. The only core module that reads a clock.

Owns everything that can be wrong with a file system: what cannot be read is said, never raised past `find`
and `Log.read`, and hides nothing else. No file is held open between reads.
"""

from __future__ import annotations

import glob
import os
import queue
import re
import stat
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbmon.endpoint import is_gone
from cbmon.events import Event, Process, RecordReplaced, RunEnded, RunStarted, Tick
from cbmon.formats.sniff import SNIFF_BYTES, Decoder, Format, Refused, decoder, has_log_name, sniff

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

READ_BYTES = 8 << 20
"""Bytes read at once: bounds how long one log keeps the others waiting (about 50 ms through polars)."""
FIRST_BYTES = 1 << 16
"""Bytes of a log read at first: most logs whole, and of a large one the header, so that the rest may go in bulk."""
FINGERPRINT_BYTES = 256
"""Bytes compared at both ends of what was read, to notice a file rewritten in place."""
LOOK_S = 30.0
"""Without any notice, look at everything this often: new files on NFS, and whether a run has gone quiet."""
POLL_S = 2.0
"""Where no notices come (NFS, FUSE, `--poll`), look at the known logs this often."""
PULSE_S = 5.0
"""A record whose process is known is asked this often whether that still lives: one stat and one /proc read."""
SETTLE_S = 0.02
"""After a notice, let the writer finish its line, so that one row is one read."""

_GENERIC = frozenset({"training", "train", "log", "logs", "metrics", "history", "events"})
"""Words that say that a file is a log, not which run it is."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not read."""

    path: Path
    reason: str
    looks_like_log: bool = True
    """Show it to people; False: it only lies in a folder and is counted."""


@dataclass(slots=True)
class Log:
    """One training log on disk: reads on where it stopped, notices when the file is another one."""

    path: Path
    name: str
    format: Format
    trouble: str = ""
    """Why it could not be read the last time, empty if it could."""
    _offset: int = 0
    _facts: tuple[int, ...] = ()
    _head: bytes = b""
    _tail: bytes = b""
    _written: float | None = None
    _process: Process | None = None
    _decoder: Decoder | None = None
    """None until there are bytes that say which format it is."""
    _is_stale: bool = False
    """What was told so far is of another file."""

    def read(self, limit: int = READ_BYTES) -> list[Event] | None:
        """The events of the next bytes, `RecordReplaced` first if the file is not the one read so far.

        Returns None if there are no next bytes. Raises OSError if the file cannot be read (now).
        """
        status = os.stat(self.path)
        if status.st_size == self._offset and _facts(status) == self._facts:
            return None
        with _open_regular(self.path) as file:
            status = os.fstat(file.fileno())
            self._written = status.st_mtime
            if self._decoder is not None and self._is_replaced(file, status):
                self._decoder, self._is_stale = None, True
                self._offset, self._head, self._tail, self._process = 0, b"", b"", None
            self._facts = _facts(status)
            if self._decoder is None:
                file.seek(0)
                head = file.read(SNIFF_BYTES)
            file.seek(self._offset)
            data = file.read(limit if self._offset else min(limit, FIRST_BYTES))
        if data and self._decoder is None:
            # What was empty, or another file, when it was found may be anything now.
            found = sniff(head, self.path)
            if isinstance(found, Refused):
                raise OSError(found.reason)
            self.format, self._decoder = found, decoder(found)
        events: list[Event] = [RecordReplaced()] if self._is_stale else []
        self._is_stale = False
        if not data and not events:
            return None
        if data:
            self._offset += len(data)
            self._head = (self._head + data)[:FINGERPRINT_BYTES]
            self._tail = (self._tail + data[-FINGERPRINT_BYTES:])[-FINGERPRINT_BYTES:]
            assert self._decoder is not None
            events += self._decoder.feed(data)
        for event in events:
            if isinstance(event, RunStarted):
                self._process = event.process
            elif isinstance(event, RunEnded):
                self._process = None
        return events

    def finish(self) -> list[Event]:
        """For those who will not read on: what the file's end leaves unfinished."""
        return self._decoder.finish() if self._decoder else []

    @property
    def has_process(self) -> bool:
        """Whether the record names a process that may still write to it."""
        return self._process is not None

    def tick(self, now: float) -> Tick:
        """How the log looks from outside at `now`."""
        gone = self._process is not None and is_gone(self._process)
        return Tick(time=now, written=self._written, process_gone=gone)

    def _is_replaced(self, file: Any, status: os.stat_result) -> bool:
        """Whether this is not the file read so far: another inode, shorter, or other bytes at either end."""
        if self._facts[:2] != _facts(status)[:2] or status.st_size < self._offset:
            return True
        if file.read(len(self._head)) != self._head:
            return True
        file.seek(self._offset - len(self._tail))
        return bool(file.read(len(self._tail)) != self._tail)


def read_whole(log: Log, now: float) -> Iterator[Event]:
    """All events of a log as it is now, with its end judged: what `show` and `replay` read."""
    while (events := log.read()) is not None:
        yield from events
    yield from log.finish()
    yield log.tick(now)


@dataclass(slots=True)
class Finding:
    """What lies under some paths."""

    logs: list[Log] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def find(paths: Sequence[str]) -> Finding:
    """Find the logs that are, lie under, or match the paths, by path; each once.

    A named file that is no log is skipped aloud (`looks_like_log`); in a folder only one that looks like a log.
    Nothing but regular files is opened; hidden names, and links out of the folder, are passed over.
    """
    finding = Finding()
    seen: set[str] = set()
    roots: list[Path | None] = []
    for text in paths:
        for path, root in _expand(text, finding):
            real = os.path.realpath(path)
            if real in seen:
                continue
            seen.add(real)
            found = _sniff_file(path, named=root is None)
            if isinstance(found, Format):
                finding.logs.append(Log(path, run_name(path, root), found))
                roots.append(root)
            else:
                finding.skipped.append(found)
    longer_names: list[Callable[[Path, Path | None], str]] = [
        partial(run_name, full=True),
        lambda path, root: str(path),
    ]
    for longer in longer_names:
        taken = Counter(log.name for log in finding.logs)
        for log, root in zip(finding.logs, roots, strict=True):
            if taken[log.name] > 1:
                log.name = longer(log.path, root)
    return finding


def run_name(path: Path, root: Path | None, *, full: bool = False) -> str:
    """The run's name: the path below the watched root without suffix and generic stem.

    `logs/run4/training.csv` under `logs` is `run4`; a file named directly takes its folder's name where its own
    is generic. With `full` the file's whole name stays, for logs that would share a name.
    """
    absolute = Path(os.path.abspath(path))
    base = absolute.parent if root is None else Path(os.path.abspath(root))
    parts = list(absolute.relative_to(base).parts)
    words = re.split(r"[-_. ]+", absolute.stem.casefold())
    if full:
        return "/".join(parts)
    if all(word in _GENERIC for word in words):
        parts.pop()
        return "/".join(parts) or base.name or absolute.stem
    return "/".join([*parts[:-1], absolute.stem])


def _expand(text: str, finding: Finding) -> Iterator[tuple[Path, Path | None]]:
    """The files that a PATH argument means, each with the folder it was found in (None: named itself)."""
    path = Path(os.path.expanduser(text))
    if text.startswith("unix://"):
        finding.skipped.append(
            Skipped(Path(text), "sockets are not watched yet: name the record's file or folder")
        )
    elif os.path.isdir(path):
        yield from ((file, path) for file in _walk(path, finding))
    elif not os.path.lexists(path) and (matches := sorted(glob.glob(str(path), recursive=True))):
        for match in matches:
            if os.path.isdir(match):
                yield from ((file, Path(match)) for file in _walk(Path(match), finding))
            else:
                yield Path(match), None
    else:
        yield path, None


def _walk(root: Path, finding: Finding) -> Iterator[Path]:
    """Regular files under a folder, sorted; a folder that cannot be listed is said.

    A link is followed only to what lies in a hidden folder under the root (as DVC and git-annex store files):
    what lies there openly is found without it, and what lies outside was not asked for.
    """
    top = os.path.realpath(root)
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            finding.skipped.append(Skipped(folder, words(error)))
            continue
        inner = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                if real in seen or not real.startswith(os.path.join(top, "")) or "/." not in real[len(top) :]:
                    continue
                seen.add(real)
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # links in a ring
                continue
            if is_folder:
                inner.append(folder / entry.name)
            elif is_file:
                yield folder / entry.name
        waiting.extend(reversed(inner))


def _sniff_file(path: Path, *, named: bool) -> Format | Skipped:
    """The format of a file, or why it is not read."""
    try:
        with _open_regular(path) as file:
            found = sniff(file.read(SNIFF_BYTES), path)
            if isinstance(found, Refused) and found.reason == "empty" and named:
                return Format.KERAS_CSV
    except OSError as error:
        return Skipped(path, words(error), looks_like_log=named or has_log_name(path))
    if isinstance(found, Refused):
        return Skipped(path, found.reason, looks_like_log=named or found.looks_like_log)
    return found


def _facts(status: os.stat_result) -> tuple[int, ...]:
    """Which file it is, and in which state."""
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _open_regular(path: Path) -> Any:
    """Open a regular file for reading; a FIFO, socket or device is refused without waiting for it."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("not a regular file")
        return os.fdopen(handle, "rb", buffering=0)
    except OSError:
        os.close(handle)
        raise


def _may_be_log(path: Path) -> bool:
    """Whether a path that was not known changed in a way that calls for looking at everything."""
    return os.path.isdir(path) or isinstance(_sniff_file(path, named=False), Format)


def words(error: OSError) -> str:
    """An OSError as people say it: "permission denied"."""
    return (error.strerror or str(error)).casefold()


class Follower:
    """Keeps reading everything under some paths as it grows, for one consumer thread.

    Owns the notices of the file system (watchdog; none where it is blind or its limits are hit, then known logs
    are looked at every `POLL_S`). Hands over events; it never folds and never draws.
    """

    def __init__(
        self, paths: Sequence[str], *, poll: bool = False, now: Callable[[], float] = time.time
    ) -> None:
        self.paths = list(paths)
        self.logs: dict[Path, Log] = {}
        self.skipped: list[Skipped] = []
        self.trouble = ""
        """Why notices do not come, once it is known."""
        self._now = now
        self._poll = poll
        self._notices: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._looks = 0
        """Waits that ended without a notice."""
        self._passed_over: set[Path] = set()
        """Paths that changed and that `find` does not take: hidden ones, links to what is known."""
        self._links: dict[Path, Path] = {}
        """Real path of each log that was named through a link."""
        self._observer: BaseObserver | None = None
        self._stopped = False

    def read(self, changed: set[Path] | None = None) -> Iterator[tuple[Log, list[Event]]]:
        """Everything new, log by log: of the changed ones, or of all, looking for new logs as well.

        Large logs come in several batches, in turn with the others.
        """
        if changed is None or any(map(_may_be_log, changed - self.logs.keys() - self._passed_over)):
            finding = find(self.paths)
            self.skipped = finding.skipped
            new = {log.path: log for log in finding.logs if log.path not in self.logs}
            self.logs |= new
            if changed is not None:
                self._passed_over |= changed - self.logs.keys()
                changed = changed | new.keys()
        waiting = deque(log for path, log in self.logs.items() if changed is None or path in changed)
        while waiting and not self._stopped:
            log = waiting.popleft()
            events: list[Event] = []
            try:
                more = log.read()
                log.trouble = ""
            except OSError as error:
                more, log.trouble = None, words(error)
            if more is not None:
                events = more
                waiting.append(log)
            yield log, [*events, log.tick(self._now())]

    def wait(self) -> set[Path] | None:
        """Wait until something changed; gives the changed paths, None for "look at everything"."""
        changed: set[Path] = set()
        alive = set() if self._poll else {path for path, log in self.logs.items() if log.has_process}
        end = time.monotonic() + self._pause(alive)
        while (left := end - time.monotonic()) > 0:
            try:
                notice = self._notices.get(timeout=left)
            except queue.Empty:
                break
            if notice is None:
                return None
            if not changed:
                end = time.monotonic() + SETTLE_S
            changed.add(self._links.get(Path(notice), Path(notice)))
        return changed or self._due(set(self.logs) if self._poll else alive)

    def _due(self, known: set[Path]) -> set[Path] | None:
        """Without a notice: these logs each time, everything (new logs as well) once in `LOOK_S`."""
        self._looks += 1
        return None if not known or self._looks % round(LOOK_S / self._pause(known)) == 0 else known

    def _pause(self, alive: set[Path]) -> float:
        return POLL_S if self._poll else PULSE_S if alive else LOOK_S

    def start(self) -> None:
        """Ask the file system for notices. Call it after the first read, the import costs 15 ms.

        The next `wait` ends at once: something may have changed between that read and the first notice.
        """
        if self._poll:
            return
        from watchdog.events import FileSystemEvent, FileSystemEventHandler
        from watchdog.observers import Observer

        notices = self._notices

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                # Reading a file makes events too (opened, closed_no_write): only these mean that it changed.
                if event.event_type in {"created", "modified", "moved", "deleted", "closed"}:
                    for path in (event.src_path, event.dest_path):
                        if path and not (event.is_directory and event.event_type == "modified"):
                            notices.put(os.fsdecode(path))

        # Folders made one in the other while they are being watched: watchdog's own race, and harmless.
        warnings.filterwarnings("ignore", "Callback with id .* already exists", RuntimeWarning)
        observer = Observer()
        try:
            for folder, recursive in self._folders().items():
                observer.schedule(Handler(), str(folder), recursive=recursive)
            observer.start()
        except OSError as error:
            self.trouble = f"no notices from the file system ({words(error)}): looking every {POLL_S:g} s"
            self._poll = True
            observer.unschedule_all()
            return
        self._observer = observer
        notices.put(None)

    def stop(self) -> None:
        """End `wait` and `read` at once, from any thread."""
        self._stopped = True
        self._notices.put(None)
        if self._observer is not None:
            self._observer.stop()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def _folders(self) -> dict[Path, bool]:
        """Folders to watch, and whether with all that is below."""
        folders: dict[Path, bool] = {}
        for text in self.paths:
            path = Path(os.path.expanduser(text))
            if os.path.isdir(path):
                folders[path] = True
            else:
                if path.is_symlink() and path.is_file():
                    real = path.resolve()
                    self._links[real] = path
                    folders.setdefault(real.parent, False)
                while not os.path.isdir(path.parent):
                    path = path.parent
                folders.setdefault(path.parent, any(sign in text for sign in "*?["))
        return folders
