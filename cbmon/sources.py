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
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from cbmon.endpoint import LIVE_PREFIX, Hello, is_gone, is_here, live_sockets, runtime_folders
from cbmon.events import EpochsEnded, Event, Process, Progress, RecordReplaced, RunEnded, RunStarted, Tick
from cbmon.formats.sniff import SNIFF_BYTES, Decoder, Format, Refused, decoder, has_log_name, sniff
from cbmon.mounts import Mount, mount_of, read_mounts
from cbmon.notices import Changed, Notices
from cbmon.run import Run, fold
from cbmon.wire import SOCKET, Taken, Wires

READ_BYTES = 8 << 20
"""Bytes read at once: bounds how long one log keeps the others waiting (about 30 ms through polars) ..."""
SHORT_READ_BYTES = 1 << 20
"""... of files for which polars is not worth its import: these take 7 ms with their fold."""
LARGE_BYTES = 64 << 20
"""Of such a file it is: as fast as without it (and 80 MiB more), of one twice as large a quarter faster."""
FIRST_BYTES = 1 << 16
"""Bytes of a log read at first: most logs whole, and of a large one the header, so that the rest may go in bulk."""
FINGERPRINT_BYTES = 256
"""Bytes compared at both ends of what was read, to notice a file rewritten in place."""
LOOK_S = 30.0
"""Look at everything this often, whatever the notices say: new files on NFS, and whether a run has gone quiet."""
LOOK_SHARE = 0.1
"""Of the time may be spent on looking at everything where folders come and go without a pause (checkpoints)."""
HOLE_BLOCK_BYTES = 1 << 18
"""Read behind a hole at a file's beginning: the blocks of most file systems, ZFS' of 128 KiB too, and a head."""
POLL_S = 2.0
"""Where no notices come (NFS, FUSE, `--poll`), look at the known logs this often ..."""
POLL_MANY_S = 5.0
"""... and this often if they are many: each costs 3 µs here, and a question to the server there."""
MANY = 1000
CROWD = 64
"""Logs that change at once from which those that nobody sees wait ..."""
HOLD_S = 4.0
"""... so long: at 1,000 rows a second each is read a quarter as often. A notice of everything is not held."""
RECENT_S = 3600.0
"""A CSV of Monitor's names no process: one that grew so lately is asked whether somebody listens for it."""
PULSE_S = 5.0
"""A record whose process is known is asked this often whether that still lives: one stat and one /proc read."""
DYING_S = 0.5
"""After a wire ended: a process that is killed closes its sockets before it is gone."""

_GENERIC = frozenset({"training", "train", "log", "logs", "metrics", "history", "events"})
"""Words that say that a file is a log, not which run it is."""


class Skipped(msgspec.Struct, frozen=True):
    """A file that is not read."""

    path: Path
    reason: str
    looks_like_log: bool = True
    """Show it to people; False: it only lies in a folder and is counted."""
    is_missing: bool = False
    """There is no such path (yet)."""


class Log(msgspec.Struct):
    """One training log on disk: reads on where it stopped, notices when the file is another one."""

    path: Path
    name: str
    format: Format
    trouble: str = ""
    """Why it could not be read the last time, empty if it could."""
    missing_since: float | None = None
    """When it was first found deleted or moved away; None while it is there."""
    left: int = 0
    """Bytes that were there and that the last read left."""
    _offset: int = 0
    _facts: tuple[int, ...] = ()
    _head: bytes = b""
    _tail: bytes = b""
    _written: float | None = None
    _process: Process | None = None
    _is_gone: bool = False
    """What is known of the process."""
    _started: RunStarted | None = None
    """Of the fit that goes on, where the log tells it."""
    _last: tuple[int, float | None] | None = None
    """The latest epoch that has ended in it, and when."""
    _decoder: Decoder | None = None
    """None until there are bytes that say which format it is."""
    _is_judged: bool = False
    """More bytes cannot make it anything else: there is a row, or all that is judged by has been there."""
    _is_stale: bool = False
    """What was told so far is of another file."""

    def read(self, limit: int = READ_BYTES) -> list[Event] | None:
        """The events of the next bytes, `RecordReplaced` first if the file is not the one read so far.

        Returns None if there are no next bytes. Raises OSError if the file cannot be read (now).
        """
        self.left = 0
        status = os.stat(self.path)
        if status.st_size == self._offset and _facts(status) == self._facts:
            return None
        handle, status = _open_regular(self.path)
        try:
            self._written = status.st_mtime
            if self._decoder is not None and self._is_replaced(handle, status):
                self._forget()
            self._facts = _facts(status)
            rest = status.st_size - self._offset
            is_large = status.st_size >= LARGE_BYTES and rest >= READ_BYTES
            at_once = FIRST_BYTES if not self._offset else READ_BYTES if is_large else SHORT_READ_BYTES
            wanted = min(rest, limit, at_once)
            data = os.pread(handle, wanted, self._offset) if wanted > 0 else b""
            if data and not self._is_judged:
                self._judge(_first_bytes(handle))
        finally:
            os.close(handle)
        events: list[Event] = [RecordReplaced()] if self._is_stale else []
        self._is_stale = False
        if data:
            self._take(data, events)
            self.left = max(0, status.st_size - self._offset)
        return events if data or events else None

    def finish(self) -> list[Event]:
        """For those who will not read on: what the file's end leaves unfinished."""
        return self._decoder.finish() if self._decoder else []

    @property
    def has_more(self) -> bool:
        """Whether the last read left something that was there."""
        return self.left > 0

    @property
    def has_process(self) -> bool:
        """Whether the record names a process that may still write to it."""
        return self._process is not None

    def fit_to_attach(self, tick: Tick, *, has_grown: bool) -> tuple[str | None, float | None] | None:
        """Run id and start of the fit whose wire may be had; None if its process is gone or elsewhere.

        Args:
            tick: the latest look at it.
            has_grown: whether there was something new in it just now.
        """
        if self.format is Format.CBMON_CSV:
            age_s = (tick.time or 0.0) - (tick.written or 0.0)
            return (None, None) if has_grown and age_s < RECENT_S else None
        if self._started is None or self._process is None or tick.process_gone or self.missing_since:
            return None
        return (self._started.run_id, self._started.time) if is_here(self._process) else None

    def concerns(self, look: Progress, hello: Hello) -> bool:
        """Whether a look into an epoch is of the fit that goes on here, and of an epoch that is not over."""
        if self._started is not None and self._started.time != hello.started:
            return False
        if self._last is None:
            return True
        epoch, ended = self._last
        is_later = look.time is not None and ended is not None and look.time > ended
        return look.epoch > epoch or (look.epoch < epoch and is_later)  # below: a CSV that is begun again

    def tick(self, now: float, *, asks: bool = True) -> Tick:
        """How the log looks from outside at `now`; without `asks` its process is not asked again."""
        if asks and self._process is not None:
            self._is_gone = is_gone(self._process)
        return Tick(
            time=now,
            written=self._written,
            process_gone=self._is_gone,
            missing_since=self.missing_since,
        )

    def _take(self, data: bytes, events: list[Event]) -> None:
        """Decode the next bytes."""
        assert self._decoder is not None
        self._offset += len(data)
        if len(self._head) < FINGERPRINT_BYTES:
            self._head += data[: FINGERPRINT_BYTES - len(self._head)]
        self._tail = (self._tail + data[-FINGERPRINT_BYTES:])[-FINGERPRINT_BYTES:]
        new = self._decoder.feed(data)
        events += new
        for event in new:
            if isinstance(event, RunStarted | RunEnded):
                self._started = event if isinstance(event, RunStarted) else None
                self._process = self._started.process if self._started else None
                self._is_gone, self._last = False, None
            elif isinstance(event, EpochsEnded):
                self._is_judged = True
                if event.epochs:
                    self._last = event.epochs[-1], event.times[-1] if event.times else event.time

    def _judge(self, head: bytes) -> None:
        """Find out the format: what was empty, a header alone, or another file may be anything now."""
        found = sniff(head, self.path)
        if isinstance(found, Refused):
            if self._decoder is not None:
                self._forget()
            raise OSError(found.reason)
        if self._decoder is None:
            self._decoder = decoder(found)
        self.format = found
        self._is_judged = len(head) == SNIFF_BYTES

    def _forget(self) -> None:
        """Begin anew: what was read is not what the file is."""
        self._decoder, self._is_judged, self._is_stale = None, False, True
        self._offset, self._head, self._tail = 0, b"", b""
        self._process, self._is_gone = None, False
        self._started, self._last = None, None

    def _is_replaced(self, handle: int, status: os.stat_result) -> bool:
        """Whether this is not the file read so far: another inode, shorter, or other bytes at either end."""
        return (
            self._facts[:2] != (status.st_dev, status.st_ino)
            or status.st_size < self._offset
            or os.pread(handle, len(self._head), 0) != self._head
            or os.pread(handle, len(self._tail), self._offset - len(self._tail)) != self._tail
        )


class LiveLog(Log):
    """A run without a file, as it comes over its socket."""

    _lost_since: float | None = None
    """When the wire ended without a word, though its process lives."""

    def read(self, limit: int = READ_BYTES) -> list[Event] | None:
        """Nothing: what there is comes over the wire."""
        return None

    def heard(self, taken: Taken, now: float) -> None:
        """Something came over the wire, or it ended: whether its process is gone, or only out of sight."""
        if taken.is_there or taken.is_farewell:
            self._process, self._is_gone, self._lost_since = None, False, None
        elif taken.has_ended and taken.hello is not None:
            self._process, self._lost_since = taken.hello.process, now

    def tick(self, now: float, *, asks: bool = True) -> Tick:
        """How the run looks from outside: its process is asked for once the wire has ended without a word."""
        if asks and self._process is not None and is_gone(self._process):
            self._process, self._is_gone, self._lost_since = None, True, None
        return Tick(time=now, process_gone=self._is_gone, missing_since=self._lost_since)


def read_whole(log: Log, now: float) -> Iterator[Event]:
    """All events of a log as it is now, with its end judged: what `show` and `replay` read."""
    while (events := log.read()) is not None:
        yield from events
    yield from log.finish()
    yield log.tick(now)


def load(paths: Sequence[str]) -> tuple[list[tuple[Log, Run]], list[Skipped]]:
    """Every log under the paths, as it is now, folded into a run; and what was skipped."""
    finding, now = find(paths), time.time()
    runs: list[tuple[Log, Run]] = []
    for log in finding.logs:
        run = Run()
        try:
            for event in read_whole(log, now):
                fold(run, event)
        except OSError as error:
            finding.skipped.append(Skipped(log.path, words(error)))
        else:
            runs.append((log, run))
    return runs, finding.skipped


Refusals: TypeAlias = dict[tuple[Path, bool], tuple[tuple[int, ...], "Skipped"]]
"""Files that were opened and are no logs (named or in a folder), with their state at that time."""


class Finding(msgspec.Struct):
    """What lies under some paths."""

    logs: list[Log] = msgspec.field(default_factory=list)
    skipped: list[Skipped] = msgspec.field(default_factory=list)
    real: list[str] = msgspec.field(default_factory=list)
    """Real path of each log."""
    refusals: Refusals = msgspec.field(default_factory=dict)
    """What need not be opened the next time."""


def find(
    paths: Sequence[str], known: Mapping[Path, Log] | None = None, refusals: Refusals | None = None
) -> Finding:
    """Find the logs that are, lie under, or match the paths, by path; each once.

    A named file that is no log is skipped aloud (`looks_like_log`); in a folder only one that looks like a log.
    Nothing but regular files is opened; hidden names, and links out of the folder, are passed over.

    Args:
        paths: files, folders, globs.
        known: logs that were found before; they come again as they are and are not opened.
        refusals: those of the finding before; such a file is opened again only after a change.
    """
    finding, known, before = Finding(), known or {}, refusals or {}
    seen: set[str] = set()
    roots: list[Path | None] = []
    expanded = [each for text in paths for each in _expand(text, finding)]
    named = {real for _, root, real in expanded if root is None}  # also after the folder that it lies in
    for path, root, real in expanded:
        if real in seen:
            continue
        seen.add(real)
        found = known.get(path) or _judge_file(path, real in named, before, finding.refusals)
        if isinstance(found, Skipped):
            finding.skipped.append(found)
            continue
        finding.logs.append(found if isinstance(found, Log) else Log(path, run_name(path, root), found))
        finding.real.append(real)
        roots.append(root)
    longer_names: list[Callable[[Path, Path | None], str]] = [
        partial(run_name, full=True),
        lambda path, root: str(path),
    ]
    for longer in longer_names:
        taken = Counter(log.name for log in finding.logs)
        for log, root in zip(finding.logs, roots, strict=True):
            if taken[log.name] > 1 and log.path not in known:
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


def _expand(text: str, finding: Finding) -> Iterator[tuple[Path, Path | None, str]]:
    """The files that a PATH argument means, the folder it was found in (None: named itself), and really."""
    path = Path(os.path.expanduser(text))
    if text.startswith(SOCKET):
        finding.skipped.append(Skipped(Path(text), "a socket keeps nothing: it can only be watched live"))
    elif os.path.isdir(path):
        yield from _walk(path, finding)
    elif not os.path.lexists(path) and (matches := sorted(glob.glob(str(path), recursive=True))):
        for match in matches:
            if os.path.isdir(match):
                yield from _walk(Path(match), finding)
            else:
                yield Path(match), None, os.path.realpath(match)
    else:
        yield path, None, os.path.realpath(path)


def _walk(root: Path, finding: Finding) -> Iterator[tuple[Path, Path, str]]:
    """Regular files under a folder, sorted, with the folder and really; a folder that cannot be listed is said.

    A link is followed only to what lies in a hidden folder under the root (as DVC and git-annex store files):
    what lies there openly is found without it, and what lies outside was not asked for.
    """
    top = os.path.realpath(root)
    seen: set[str] = set()
    waiting = [(root, top)]
    while waiting:
        folder, real_folder = waiting.pop()
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
            real = os.path.join(real_folder, entry.name)
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
                inner.append((folder / entry.name, real))
            elif is_file:
                yield folder / entry.name, root, real
        waiting.extend(reversed(inner))


def _judge_file(path: Path, is_named: bool, before: Refusals, after: Refusals) -> Format | Skipped:
    """The format of a file, or why it is not read; what was refused `before` and has not changed is not opened."""
    key = path, is_named
    try:
        if key in before:
            status = os.stat(path)
            if before[key][0] == (*_facts(status), status.st_size):
                after[key] = before[key]
                return before[key][1]
        head, status = _head_of(path)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        return Skipped(path, words(error), is_named or has_log_name(path), is_missing)
    found = sniff(head, path)
    if isinstance(found, Format):
        return found
    if found.reason == "empty" and is_named:
        return Format.KERAS_CSV
    skipped = Skipped(path, found.reason, looks_like_log=is_named or found.looks_like_log)
    after[key] = (*_facts(status), status.st_size), skipped
    return skipped


def _head_of(path: Path) -> tuple[bytes, os.stat_result]:
    """The bytes that a file is judged by, and its state."""
    handle, status = _open_regular(path)
    try:
        return _first_bytes(handle), status
    finally:
        os.close(handle)


def _first_bytes(handle: int) -> bytes:
    """The first bytes of a file, `SNIFF_BYTES` of them if it has so many; a hole at its beginning is shortened."""
    head = os.pread(handle, SNIFF_BYTES, 0)
    if not head.startswith(b"\0"):
        return head
    at = 0
    if len(head) == SNIFF_BYTES == head.count(0):
        with suppress(OSError, AttributeError):  # no data behind it; no such question on this system
            at = os.lseek(handle, 0, os.SEEK_DATA)  # to its block, which may begin with NULs of its own
    behind = os.pread(handle, HOLE_BLOCK_BYTES, at).lstrip(b"\0")
    return (b"\0" + behind)[:SNIFF_BYTES]


def _facts(status: os.stat_result) -> tuple[int, ...]:
    """Which file it is, and in which state."""
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _open_regular(path: Path) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; a FIFO, socket or device is refused without waiting for it."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
    except OSError:
        os.close(handle)
        raise
    return handle, status


def words(error: OSError) -> str:
    """An OSError as people say it: "permission denied"."""
    return error.strerror.casefold() if error.strerror else str(error)


class _Root(msgspec.Struct, frozen=True):
    """A PATH argument as notices see it."""

    text: str
    real: str
    """Where the folder, the file, or what a glob begins with really lies."""
    link: str
    """The same before its last link is followed: that link may come to lead elsewhere."""
    is_folder: bool
    """Whether all below belongs to it."""

    @staticmethod
    def of(text: str) -> _Root:
        path = os.path.abspath(os.path.expanduser(text))
        is_folder = os.path.isdir(path)
        if not is_folder and not os.path.lexists(path) and any(sign in text for sign in "*?["):
            path, is_folder = _existing(path), True
        link = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        return _Root(text, os.path.realpath(path), link, is_folder)

    @property
    def name(self) -> str:
        """As people call it."""
        return os.path.join(self.text, "") if os.path.isdir(os.path.expanduser(self.text)) else self.text

    def holds(self, path: str) -> bool:
        """Whether a real path lies below it."""
        return self.is_folder and _is_below(path, self.real)

    def shown(self, folder: str) -> str:
        """A folder below it as people would name it."""
        return os.path.join(self.text, os.path.relpath(folder, self.real), "")

    def folders(self) -> dict[str, bool]:
        """Folders to watch, and whether with all that is below: also the ones above, where it comes and goes."""
        above = {_existing(os.path.dirname(path)): False for path in (self.real, self.link)}
        return above | ({self.real: True} if self.is_folder else {})

    def concerns(self, path: str) -> bool:
        """Whether a change of this path, real and unknown so far, may bring or take a log."""
        if self.holds(path):
            return "/." not in path[len(self.real) :]
        return any(path == own or _is_below(own, path) for own in (self.real, self.link))


def _existing(path: str) -> str:
    """The path, or the nearest folder above that is there."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


class Source(Protocol):
    """What hands out the events of logs to one consumer thread: `Follower`, or a player of recorded ones."""

    paths: list[str]
    logs: dict[Path, Log]
    skipped: list[Skipped]
    trouble: str
    seen: Collection[Path] | None

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""

    def read(self, changed: set[Path] | None = None) -> Iterator[tuple[Log, list[Event]]]:
        """What is new, log by log; of the changed ones, or of all."""

    def wait(self) -> set[Path] | None:
        """Wait until there is something to read; gives the changed paths, None for "look at everything"."""

    def start(self) -> None:
        """Ask for notices. Call it after the first read."""

    def stop(self) -> None:
        """End `wait` and `read` at once, from any thread."""


class Follower:
    """Keeps reading everything under some paths as it grows, for one consumer thread.

    Listens to the notices of the file system; what they do not tell it looks up: processes every `PULSE_S`,
    everything every `LOOK_S`, and the known logs every `POLL_S` where the notices are blind or a limit is hit.
    Hands over events; it never folds and never draws.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        poll: bool = False,
        now: Callable[[], float] = time.time,
        wires: Wires | None = None,
    ) -> None:
        """Take what is followed.

        Args:
            paths: files, folders, globs, sockets.
            poll: look at the known logs every few seconds, whatever the notices say.
            now: the time of day.
            wires: attach to the runs that listen; None: what stands in the files is all.
        """
        self.paths = list(paths)
        self.wires = wires
        self.logs: dict[Path, Log] = {}
        self.skipped: list[Skipped] = []
        self.trouble = ""
        """Why notices do not come, once it is known."""
        self.seen: Collection[Path] | None = None
        """The logs that are on a screen, said by it from any thread: in a crowd the others wait. None: all are."""
        self._held: set[Path] = set()
        """Those that wait."""
        self._held_until = inf
        self._now = now
        self._poll = poll
        """Whether all logs are polled."""
        self._blind: list[Path] = []
        """Logs on file systems that do not tell everything."""
        self._notices: queue.SimpleQueue[Changed | Path | None] = queue.SimpleQueue()
        """What changed, by real path; the key of a log whose wire has news; None: look at everything."""
        if wires is not None:
            wires.changed = self._notices.put
        self._sockets: dict[Path, Path] = {}
        """The sockets of runs without a file, by the key that such a run has as a log."""
        self._named_sockets: set[Path] = set()
        self._skipped_files: list[Skipped] = []
        self._socket_files: frozenset[str] = frozenset()
        """Those that were named, really."""
        self._socket_folders: frozenset[str] = frozenset()
        """The runtime folders, where all are meant."""
        self._source: Notices | None = None
        self._roots: list[_Root] = []
        self._mounts: list[Mount] = []
        """What the paths lie on and what is mounted below them; empty if none of it is blind."""
        self._by_real: dict[str, Path] = {}
        """The known logs by what notices call them."""
        self._passed_over: set[Path] = set()
        """Paths that changed and that `find` does not take: links to what is known or lies elsewhere."""
        self._refusals: Refusals = {}
        self._told: dict[Path, tuple[object, ...]] = {}
        """How each log looked from outside when that was last handed over."""
        self._asks = False
        """Whether the next reading asks for processes."""
        self._look_at = self._pulse_at = self._poll_at = inf
        """When, by the monotonic clock, everything, processes and known logs are looked at again."""
        self._look_not_before = 0.0
        self._stopped = False
        self._wind(time.monotonic())

    def read(self, changed: set[Path] | None = None) -> Iterator[tuple[Log, list[Event]]]:
        """Everything new, log by log: of the changed ones, or of all, looking for new logs as well.

        Large logs come in several batches, in turn with the others; of the changed ones only those about which
        there is something to say.
        """
        is_all = changed is None
        asks, self._asks = self._asks or is_all, False
        self._meet()
        hopeful = {
            path
            for path in changed or ()
            if path not in self.logs and path not in self._sockets and self._may_be_log(path)
        }
        if changed is None or hopeful:
            new = self._look()
            self._passed_over |= {path for path in hopeful if path not in self.logs}
            changed = None if changed is None else changed | new
        waiting = deque(
            self.logs.values()
            if changed is None
            else (self.logs[path] for path in changed if path in self.logs)
        )
        while waiting and not self._stopped:
            log = waiting.popleft()
            events: list[Event] = []
            try:
                events = log.read() or []
                log.trouble, log.missing_since = "", None
            except OSError as error:
                log.trouble = words(error)
                is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
                log.missing_since = (log.missing_since or self._now()) if is_missing else None
            if log.has_more:
                waiting.append(log)
            live, has_ended = self._over_wire(log, events)
            if has_ended:
                self._pulse_at = min(self._pulse_at, time.monotonic() + DYING_S)
            tick = log.tick(self._now(), asks=(asks or has_ended) and not log.has_more)
            if not log.has_more:
                self._attach(log, tick, has_grown=bool(events))
            events += live
            told = tick.written, tick.process_gone, tick.missing_since, log.trouble
            is_live = asks and self._is_wired(log.path)  # it may stand still by now
            if events or is_all or is_live or self._told.get(log.path) != told:
                self._told[log.path] = told
                yield log, [*events, tick]

    def wait(self) -> set[Path] | None:
        """Wait until there is something to read; gives the changed paths, None for "look at everything"."""
        while not self._stopped:
            now = time.monotonic()
            changed = self._due(now)
            if changed is None:
                return None
            ends = min(self._look_at, self._pulse_at, self._poll_at, self._held_until)
            left = 0.0 if changed else ends - now
            try:
                notices = [self._notices.get(timeout=max(0.0, left))]
            except queue.Empty:
                notices = []
            notices += [self._notices.get() for _ in range(self._notices.qsize())]
            told: set[Path] = set()
            for notice in notices:
                if notice is None:
                    self._look_at = 0.0
                elif isinstance(notice, Path):
                    told.add(notice)
                else:
                    told |= self._translate(notice)
            changed |= self._urgent(told)
            if changed:
                return changed
        return None

    def start(self) -> None:
        """Ask the file system for notices. Call it after the first read.

        The next `wait` ends at once: something may have changed between that read and the first notice.
        """
        if not self._poll:
            self._source = Notices(self._notices.put, self._concerns)
            self._watch()
            self._notices.put(None)

    def stop(self) -> None:
        """End `wait` and `read` at once, from any thread."""
        self._stopped = True
        self._notices.put(None)
        if self._source is not None:
            self._source.stop()
        if self.wires is not None:
            self.wires.stop()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    # --- live wires ---------------------------------------------------------------------------------------

    def _attach(self, log: Log, tick: Tick, *, has_grown: bool) -> None:
        """Have a wire to the fit that goes on in a record."""
        if self.wires is None or isinstance(log, LiveLog):
            return
        fit = log.fit_to_attach(tick, has_grown=has_grown)
        if fit is not None:
            self.wires.follow(log.path, *fit)
        elif log.format is not Format.CBMON_CSV:
            self.wires.leave(log.path)

    def _is_wired(self, path: Path) -> bool:
        return self.wires is not None and self.wires.is_there(path)

    def _over_wire(self, log: Log, events: Sequence[Event]) -> tuple[list[Event], bool]:
        """What came over a log's wire, to be folded after what stands in the file; whether the wire has ended.

        Of a record that is the latest look into the epoch. It is handed out again behind what the file tells: that
        is older, be it the end of the epoch before or a look of its own.
        """
        if self.wires is None:
            return [], False
        taken = self.wires.take(log.path)
        if isinstance(log, LiveLog):
            log.heard(taken, self._now())
            return taken.events, taken.has_ended
        look, hello = taken.latest, taken.hello
        if look is None or hello is None or log.has_more or not (taken.is_news or events):
            return [], taken.has_ended
        return [look] if log.concerns(look, hello) else [], taken.has_ended

    def _find_sockets(self) -> None:
        """Look for runs without a file: those named, and with a bare `unix://` all in the runtime folders."""
        assert self.wires is not None
        named: set[str] = set()
        for text in self.paths:
            if not text.startswith(SOCKET):
                continue
            given = os.path.expanduser(text.removeprefix(SOCKET))
            if given:
                real = os.path.realpath(os.path.dirname(os.path.abspath(given)))
                named.add(os.path.join(real, os.path.basename(given)))
            else:
                self._socket_folders = frozenset(os.path.realpath(folder) for folder in runtime_folders())
            for path in [Path(os.path.abspath(given))] if given else live_sockets():
                key = Path(f"{SOCKET}{path}")
                self._sockets[key] = path
                self._named_sockets |= {key} if given else set()
                if os.path.lexists(path):
                    self.wires.follow(key, at=path)
        self._socket_files = frozenset(named)
        self._meet()

    def _meet(self) -> None:
        """Runs without a file become logs once they have said who they are; a named one that does not is said."""
        found: list[Skipped] = []
        for key, path in self._sockets.items():
            if self.wires is None or key in self.logs:
                continue
            if hello := self.wires.hello(key):
                taken, name = {log.name for log in self.logs.values()}, hello.name.removesuffix(".sock")
                self.logs[key] = LiveLog(key, path.stem if name in taken else name, Format.RECORD)
            elif key in self._named_sockets and self.wires.has_settled(key):
                is_missing = not os.path.lexists(path)
                found.append(Skipped(path, self.wires.why_not(key), is_missing=is_missing))
        if self._sockets:
            self.skipped = [*self._skipped_files, *found]  # at once: a screen reads it from another thread

    def _may_be_socket(self, path: str) -> bool:
        """Whether a changed path, real, may bring a run without a file."""
        if path.endswith(os.sep):
            places = self._socket_files | self._socket_folders
            return any(place == path.rstrip(os.sep) or place.startswith(path) for place in places)
        folder, name = os.path.split(path)
        return path in self._socket_files or (folder in self._socket_folders and name.startswith(LIVE_PREFIX))

    # --- when to look without being told ------------------------------------------------------------------

    def _wind(self, now: float) -> None:
        """Everything is looked at now: when that and each part of it is due again."""
        self._look_at, self._pulse_at = now + LOOK_S, now + PULSE_S
        self._held, self._held_until = set(), inf
        self._poll_at = now + self._pause()

    def _due(self, now: float) -> set[Path] | None:
        """What to look at now; None for everything."""
        if now >= self._look_at:
            self._wind(now)
            return None
        due: set[Path] = set()
        if now >= self._pulse_at:
            self._pulse_at, self._asks = now + PULSE_S, True
            due.update(path for path, log in self.logs.items() if log.has_process or self._is_wired(path))
        if now >= self._poll_at:
            self._poll_at = now + self._pause()
            due.update(self._polled())
        return due

    def _pause(self) -> float:
        """How long polled logs wait; for ever if there are none."""
        return self._interval() if self._poll or self._blind else inf

    def _interval(self) -> float:
        return POLL_S if len(self._polled()) <= MANY else POLL_MANY_S

    def _polled(self) -> Collection[Path]:
        return self.logs.keys() if self._poll else self._blind

    # --- what notices mean --------------------------------------------------------------------------------

    def _translate(self, notice: Changed) -> set[Path]:
        """The paths to read; a folder that came, went or moved calls for a look at everything, soon."""
        changed = set()
        for path in notice:
            if path.endswith(os.sep) or self._may_be_socket(path):
                self._look_at = min(self._look_at, self._look_not_before)
            else:
                changed.add(self._by_real.get(path) or Path(path))
        return changed

    def _urgent(self, told: set[Path]) -> set[Path]:
        """What to read now of what changed; in a crowd what nobody sees waits: several rows cost one reading."""
        told |= self._held
        now, seen = time.monotonic(), self.seen
        if seen is None or len(told) <= CROWD or now >= self._held_until:
            self._held, self._held_until = set(), inf
            return told
        self._held = {path for path in told if path in self.logs and path not in seen}
        if self._held:
            self._held_until = min(self._held_until, now + HOLD_S)
        return told - self._held

    def _concerns(self, path: str) -> bool:
        """Whether a changed path is a known log, or may bring or take one; asked in the thread of notices."""
        if path in self._by_real or any(root.concerns(path.rstrip(os.sep)) for root in self._roots):
            return True
        return self._may_be_socket(path)

    def _may_be_log(self, path: Path) -> bool:
        """Whether a path that was not known changed in a way that calls for looking at everything."""
        if path in self._passed_over:
            return False
        return os.path.isdir(path) or isinstance(_judge_file(path, False, self._refusals, {}), Format)

    # --- looking at everything ----------------------------------------------------------------------------

    def _look(self) -> set[Path]:
        """Look for new logs, and where they lie; gives their paths."""
        began = time.monotonic()
        self._roots = [_Root.of(text) for text in self.paths if not text.startswith(SOCKET)]
        finding = find(self.paths, self.logs, self._refusals)
        self._refusals = finding.refusals
        new = {log.path: log for log in finding.logs if log.path not in self.logs}
        self.logs |= new
        self._skipped_files = [
            skip for skip in finding.skipped if self.wires is None or not str(skip.path).startswith("unix:")
        ]
        if self.wires is not None and any(text.startswith(SOCKET) for text in self.paths):
            self._find_sockets()
        if not self._sockets:
            self.skipped = self._skipped_files
        self._by_real.update((real, log.path) for log, real in zip(finding.logs, finding.real, strict=True))
        self._by_real.update((_Root.of(str(path)).link, path) for path in new if path.is_symlink())
        if not self._poll:
            self._find_blind(finding)
        if self._source is not None:
            self._watch()
        self._look_not_before = began + (time.monotonic() - began) / LOOK_SHARE
        return set(new)

    def _find_blind(self, finding: Finding) -> None:
        """Find out which logs lie where notices do not tell everything, and say so the first time."""
        mounts, blind, told = read_mounts(), [], {}
        near = set()
        for root in self._roots:
            near |= {mount for mount in mounts if _is_below(mount.point, root.real)}
            if mount := mount_of(root.real, mounts):
                near.add(mount)
                if mount.is_blind:
                    told[root.name] = mount.kind
        self._mounts = [mount for mount in mounts if mount in near] if any(m.is_blind for m in near) else []
        for log, real in zip(finding.logs, finding.real, strict=True):
            mount = mount_of(real, self._mounts)
            if mount and mount.is_blind:
                blind.append(log.path)
                told |= {
                    root.shown(mount.point): mount.kind for root in self._roots if root.holds(mount.point)
                }
        self._blind = blind
        self._poll_at = min(self._poll_at, time.monotonic() + self._pause())
        if told and not self.trouble:
            places = ", ".join(f"{place} is on {kind}" for place, kind in told.items())
            self.trouble = f"{places}: looking every {self._interval():g} s"

    def _watch(self) -> None:
        """Have notices of all that they tell of; where they cannot be had, poll everything."""
        assert self._source is not None
        sockets = {*map(os.path.dirname, self._socket_files), *self._socket_folders}
        folders: dict[str, bool] = {_existing(folder): False for folder in sockets}
        for root in self._roots:
            for folder, is_all in root.folders().items():
                mount = mount_of(folder, self._mounts)
                if mount is None or not mount.is_blind:
                    folders[folder] = is_all or folders.get(folder, False)
        whole = [folder for folder, is_all in folders.items() if is_all]
        inner = {folder for folder in folders if any(_is_below(folder, other) for other in whole)}
        try:
            self._source.watch({folder: folders[folder] for folder in folders.keys() - inner})
        except OSError as error:
            self._poll, self._source, self._poll_at = True, None, 0.0
            reason = words(error)
            self.trouble = f"no notices from the file system ({reason}): looking every {self._interval():g} s"
