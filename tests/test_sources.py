"""Files: what is found, under which name, and how a log is followed through all that happens to files."""

import errno
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import pytest

from cbmon import notices, sources
from cbmon.events import (
    EpochsEnded,
    Event,
    Malformed,
    RecordReplaced,
    RunEnded,
    RunStarted,
    Tick,
    encode_line,
)
from cbmon.formats.bulk import BULK_BYTES
from cbmon.formats.sniff import SNIFF_BYTES, Format
from cbmon.mounts import Mount
from cbmon.run import Run, fold
from cbmon.sources import Finding, Follower, Log, find, read_whole, run_name

if sys.platform == "linux":
    from inotify_simple import INotify

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux'")

LOG = b"epoch,loss\n0,1.0\n1,0.5\n"
PROSE = b"Training...\nColor space HLS\n"
PATIENCE_S = 20.0
"""How long a notice may take on a machine under load; a test that needs it all fails."""


def write(path: Path, data: bytes = LOG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(finding: Finding) -> list[str]:
    return [log.name for log in finding.logs]


def shown(finding: Finding) -> dict[str, str]:
    """What is skipped aloud, by file name."""
    return {skip.path.name: skip.reason for skip in finding.skipped if skip.looks_like_log}


def counted(finding: Finding) -> set[str]:
    return {skip.path.name for skip in finding.skipped if not skip.looks_like_log}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder with one good log in it."""
    write(tmp_path / "logs" / "run1" / "training.csv")
    return tmp_path / "logs"


def within(seconds: float, work: Callable[[], object]) -> None:
    """Fails, instead of hanging, if the work waits for something that never comes."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # handed to the test below
            errors.append(error)

    thread = Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


# Discovery


def test_a_folder_is_searched_to_its_depth_in_order(tmp_path: Path) -> None:
    for name in ("b/training.csv", "a/x/y/training.csv", "a/history.csv", "top.csv"):
        write(tmp_path / name)
    assert names(find([str(tmp_path)])) == ["top", "a", "a/x/y", "b"]


def test_a_fifo_in_a_folder_or_named_does_not_hang(logs: Path) -> None:
    os.mkfifo(logs / "pipe.csv")

    def look() -> None:
        assert names(find([str(logs)])) == ["run1"]
        finding = find([str(logs / "pipe.csv")])
        assert finding.logs == []
        assert shown(finding) == {"pipe.csv": "not a regular file"}

    within(PATIENCE_S, look)


def test_a_log_that_became_a_fifo_does_not_hang_its_reader(logs: Path) -> None:
    (log,) = find([str(logs)]).logs
    log.read()
    log.path.unlink()
    os.mkfifo(log.path)

    def look() -> None:
        with pytest.raises(OSError, match="not a regular file"):
            log.read()

    within(PATIENCE_S, look)


def test_devices_and_sockets_are_no_logs(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(logs)
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind("run.csv")
        assert names(find([str(logs)])) == ["run1"]
        assert shown(find([str(logs / "run.csv")])).keys() == {"run.csv"}
    assert shown(find(["/dev/zero"])) == {"zero": "not a regular file"}
    assert "can only be watched live" in shown(find(["unix:///tmp/x"]))["x"]


def test_hidden_names_are_passed_over(logs: Path) -> None:
    write(logs / ".hidden.csv")
    write(logs / ".git" / "training.csv")
    write(logs / "run1" / ".ipynb_checkpoints" / "training.csv")
    finding = find([str(logs)])
    assert names(finding) == ["run1"]
    assert finding.skipped == []


def test_a_hidden_file_or_folder_that_is_named_is_read(logs: Path) -> None:
    hidden = write(logs / ".hidden" / "training.csv")
    assert names(find([str(hidden)])) == [".hidden"]
    assert names(find([str(hidden.parent)])) == [".hidden"]


def test_a_link_out_of_the_folder_is_passed_over(logs: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "logs-of-others" / "secret.csv")
    (logs / "file.csv").symlink_to(outside)
    (logs / "folder").symlink_to(outside.parent)
    (logs / "up").symlink_to("..")
    (logs / "gone.csv").symlink_to(tmp_path / "gone.csv")
    finding = find([str(logs)])
    assert names(finding) == ["run1"]
    assert finding.skipped == []


def test_links_in_a_ring_end(logs: Path) -> None:
    (logs / "self.csv").symlink_to("self.csv")
    (logs / "ping").symlink_to("pong")
    (logs / "pong").symlink_to("ping")
    (logs / "run1" / "again").symlink_to("..")
    (logs / ".store").mkdir()
    (logs / ".store" / "self").symlink_to("self")
    (logs / "into").symlink_to(".store/self")
    assert names(find([str(logs)])) == ["run1"]


def test_a_log_that_a_link_shows_twice_is_one_log(logs: Path) -> None:
    (logs / "latest").symlink_to("run1")
    (logs / "latest.csv").symlink_to("run1/training.csv")
    assert names(find([str(logs)])) == ["run1"]


def test_a_link_into_a_hidden_store_under_the_folder_is_followed_once(logs: Path) -> None:
    write(logs / ".dvc" / "cache" / "9f" / "abc")
    write(logs / ".dvc" / "cache" / "dir" / "training.csv")
    (logs / "run2.csv").symlink_to(".dvc/cache/9f/abc")
    (logs / "run2-again.csv").symlink_to(".dvc/cache/9f/abc")
    (logs / "run3").symlink_to(".dvc/cache/dir")
    assert sorted(names(find([str(logs)]))) == ["run1", "run2-again", "run3"]


def test_a_root_that_is_a_link_is_followed(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to("logs")
    (finding,) = find([str(tmp_path / "here")]).logs
    assert finding.name == "run1"


def test_each_log_comes_once_however_often_it_is_named(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(logs.parent)
    (logs.parent / "link.csv").symlink_to("logs/run1/training.csv")
    paths = [
        "logs",
        "./logs/",
        str(logs),
        "logs/run1",
        "logs/../logs",
        "logs/*/*.csv",
        "link.csv",
        "logs/run1/training.csv",
    ]
    assert names(find(paths)) == ["run1"]


def test_what_is_no_log_is_counted_in_a_folder_and_refused_aloud_when_named(logs: Path) -> None:
    prose = write(logs / "console.txt", PROSE)
    write(logs / "model.keras", b"PK\3\4\0\0")
    write(logs / "notes.md", b"")
    finding = find([str(logs)])
    assert names(finding) == ["run1"]
    assert shown(finding) == {}
    assert counted(finding) == {"console.txt", "model.keras", "notes.md"}
    (skip,) = find([str(prose)]).skipped
    assert skip.looks_like_log
    assert skip.reason == "no header line with an 'epoch' column; it begins 'Training...'"


def test_a_continuation_without_header_is_shown_also_in_a_folder(logs: Path) -> None:
    write(logs / "run2" / "training.csv", b"40,0.5,0.6\n41,0.4,0.5\n")
    assert "Put the header in front" in shown(find([str(logs)]))["training.csv"]


def unreadable(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """As if other users had written these files: root, who runs containers, may read everything."""
    opening = os.open

    def guarded(path: object, *arguments: int) -> int:
        if Path(os.fsdecode(path)) in paths:  # type: ignore[arg-type]
            raise PermissionError(13, "Permission denied", path)
        return opening(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", guarded)


def test_an_unreadable_log_is_visible_and_hides_nothing(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = write(logs / "run0" / "training.csv")
    other = write(logs / "run0" / "model.bin")
    unreadable(monkeypatch, locked, other)
    finding = find([str(logs)])
    assert names(finding) == ["run1"]
    assert shown(finding) == {"training.csv": "permission denied"}
    assert counted(finding) == {"model.bin"}
    assert shown(find([str(other)])) == {"model.bin": "permission denied"}, "it was named"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_visible(logs: Path) -> None:
    locked = write(logs / "run0" / "training.csv")
    locked.chmod(0)
    assert shown(find([str(logs)])) == {"training.csv": "permission denied"}


def test_a_folder_that_cannot_be_listed_is_visible_and_hides_nothing(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (logs / "locked").mkdir()
    scanning = os.scandir

    def guarded(path: Path) -> object:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return scanning(path)

    monkeypatch.setattr(os, "scandir", guarded)
    finding = find([str(logs)])
    assert names(finding) == ["run1"]
    assert shown(finding) == {"locked": "permission denied"}


@pytest.mark.parametrize(
    "path",
    [
        "absent.csv",
        "absent/",
        "absent/*.csv",
        "~nobody-of-this-name/x.csv",
        "[",
        "a\tb",
        "",
        "x" * 300,
        "unix://",
    ],
)
def test_a_path_that_is_not_there_is_said(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finding = find([path])
    assert finding.logs == []
    assert len(finding.skipped) <= 1
    assert all(skip.looks_like_log and skip.reason for skip in finding.skipped)


def test_home_is_understood(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(logs.parent))
    assert names(find(["~/logs"])) == ["run1"]


def test_an_empty_file_is_a_log_that_has_not_begun_if_it_is_named_or_called_like_one(tmp_path: Path) -> None:
    for name in ("a/training.csv", "b.jsonl", "c.txt"):
        write(tmp_path / name, b"")
    finding = find([str(tmp_path)])
    assert {log.name: log.format for log in finding.logs} == {"a": Format.KERAS_CSV, "b": Format.RECORD}
    assert counted(finding) == {"c.txt"}
    assert names(find([str(tmp_path / "c.txt")])) == ["c"]


def test_no_more_than_the_head_of_a_file_is_read_to_know_it(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(logs / "run1" / "training.csv", LOG + b"2,0.25\n" * 10_000)
    heads = []

    def sniffing(head: bytes, path: Path) -> object:
        heads.append(len(head))
        return sniff(head, path)

    sniff = sources.sniff
    monkeypatch.setattr(sources, "sniff", sniffing)
    find([str(logs)])
    assert heads == [SNIFF_BYTES]


def test_a_file_name_that_is_no_text_is_no_trouble(logs: Path) -> None:
    name = os.fsencode(logs) + b"/run\xff\x1b[2J.csv"
    try:
        with open(name, "wb") as file:
            file.write(LOG)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    assert names(find([str(logs)])) == ["run\udcff\x1b[2J", "run1"]


# Names


@pytest.mark.parametrize(
    ("path", "root", "name"),
    [
        ("logs/run4/training.csv", "logs", "run4"),
        ("logs/run4/history.json", "logs", "run4"),
        ("logs/run4/train_log.csv", "logs", "run4"),
        ("logs/run4/training-metrics.csv", "logs", "run4"),
        ("logs/run4/fold1.csv", "logs", "run4/fold1"),
        ("logs/run4/result-log.csv", "logs", "run4/result-log"),
        ("logs/a/b/events.jsonl", "logs", "a/b"),
        ("logs/training.csv", "logs", "logs"),
        ("logs/resnet.csv", "logs", "resnet"),
        ("logs/v1.2.csv", "logs", "v1.2"),
        ("logs/run4/training.csv", "logs/run4", "run4"),
        ("logs/run4/training.csv", None, "run4"),
        ("logs/run4/resnet.csv", None, "resnet"),
        ("logs/x/../run4/training.csv", None, "run4"),
        ("logs/x/../run4/training.csv", "logs/x/..", "run4"),
        ("training.csv", None, "here"),
        ("training.csv", ".", "here"),
        ("../here/training.csv", "..", "here"),
        ("../here/training.csv", "../here", "here"),
        ("/training.csv", "/", "training"),
        ("/training.csv", None, "training"),
    ],
)
def test_a_run_is_called_after_what_tells_it_from_others(
    path: str, root: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run_name(Path(path), None if root is None else Path(root)) == name


def test_logs_that_would_share_a_name_keep_their_whole_ones(tmp_path: Path) -> None:
    for name in ("run1/training.csv", "run1/history.csv", "run1.csv", "run2/training.csv"):
        write(tmp_path / name)
    assert sorted(names(find([str(tmp_path)]))) == [
        "run1.csv",
        "run1/history.csv",
        "run1/training.csv",
        "run2",
    ]


def test_logs_of_several_roots_that_would_share_a_name_keep_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/run1/training.csv", "b/run1/training.csv", "c/run1/training.csv", "c/run2/training.csv"):
        write(tmp_path / name)
    assert names(find(["a/run1", "b/run1/training.csv", "c"])) == [
        "a/run1/training.csv",
        "b/run1/training.csv",
        "run1/training.csv",
        "run2",
    ]


def test_a_glob_finds_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("logs/run1/training.csv", "logs/run2/training.csv", "logs/x.csv"):
        write(tmp_path / name)
    write(tmp_path / "logs" / "y.txt", PROSE)
    assert names(find(["logs/*/training.csv"])) == ["run1", "run2"]
    assert names(find(["logs/run[2-9]"])) == ["run2"]
    assert names(find(["**/*.csv"])) == ["run1", "run2", "x"]
    assert shown(find(["logs/*.txt"])).keys() == {"y.txt"}, "a glob names its files"


def test_a_name_with_signs_of_a_glob_in_it_is_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "training_logs191017(3)[1].csv")
    assert names(find([str(path)])) == ["training_logs191017(3)[1]"]


# Reading on


def reading(path: Path) -> Log:
    (log,) = find([str(path)]).logs
    return log


def read_all(log: Log) -> list[Event]:
    events: list[Event] = []
    while (more := log.read()) is not None:
        events += more
    return events


def epochs(events: list[Event]) -> list[int]:
    return [epoch for event in events if isinstance(event, EpochsEnded) for epoch in event.epochs]


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "training.csv")


def test_a_log_is_read_on_where_the_last_read_ended(path: Path) -> None:
    log = reading(path)
    assert epochs(read_all(log)) == [0, 1]
    assert log.read() is None
    append(path, b"2,0.25\n")
    assert epochs(read_all(log)) == [2]


def test_a_torn_last_line_waits_for_its_rest(path: Path) -> None:
    log = reading(path)
    read_all(log)
    append(path, b"2,0.2")
    assert read_all(log) == []
    append(path, b"5\r\n3,")
    assert epochs(read_all(log)) == [2]
    assert [event.line for event in log.finish() if isinstance(event, Malformed)] == [5]


def test_a_log_is_read_in_pieces_of_any_size(path: Path) -> None:
    log = reading(path)
    events: list[Event] = []
    while (more := log.read(3)) is not None:
        events += more
    assert epochs(events) == [0, 1]


def test_a_large_log_gives_its_header_first_and_then_large_batches(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LARGE_BYTES", BULK_BYTES)
    rows = 220_000
    write(
        path,
        b"epoch,loss\n"
        + b"".join(b"%d,0.50000000000000000000000000000000001\n" % row for row in range(rows)),
    )
    assert path.stat().st_size > sources.FIRST_BYTES + BULK_BYTES
    batches = [event for event in read_all(reading(path)) if isinstance(event, EpochsEnded)]
    assert epochs(list(batches)) == list(range(rows))
    assert len(batches[0].epochs) < 5_000, "something to show at once"
    assert len(batches) < 10, "no large part of it was read row by row"


def test_a_log_for_which_polars_does_not_pay_is_read_without(path: Path) -> None:
    write(path, b"epoch,loss\n" + b"".join(b"%d,%.40f\n" % (row, 0.5) for row in range(200_000)))
    assert BULK_BYTES < path.stat().st_size < sources.LARGE_BYTES
    code = (
        "import sys; from cbmon.sources import load\n"
        "((_, run),), _ = load(sys.argv[1:])\n"
        "print(len(run.current.epochs), {'polars', 'numpy'} & {*sys.modules})"
    )
    told = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert told.stdout.split(maxsplit=1) == ["200000", "set()\n"]


NEW = b"epoch,acc\n0,0.9\n"
LONGER = b"epoch,loss\n0,0.9\n1,0.8\n2,0.7\n3,0.6\n"


def rewrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def rename_over(path: Path, data: bytes) -> None:
    write(path.with_suffix(".tmp"), data).replace(path)


def delete_and_create(path: Path, data: bytes) -> None:
    path.unlink()
    write(path, data)


@pytest.mark.parametrize("data", [NEW, LONGER, b"", LOG[:-7], b"epoch,loss\n0,0.9\n1,0.5\n"], ids=repr)
@pytest.mark.parametrize("change", [rewrite, rename_over, delete_and_create])
def test_a_file_that_is_another_one_now_is_read_afresh(
    path: Path, change: Callable[[Path, bytes], None], data: bytes
) -> None:
    log = reading(path)
    run = Run()
    for event in read_all(log):
        fold(run, event)
    change(path, data)
    os.utime(path, ns=(0, 1))  # another time of change, as every later write has one
    events = read_all(log)
    assert isinstance(events[0], RecordReplaced)
    for event in events:
        fold(run, event)
    fresh = Run()
    for event in read_all(reading(path)):
        fold(fresh, event)
    assert run == fresh


def test_a_file_that_is_only_touched_is_the_same_one(path: Path) -> None:
    log = reading(path)
    read_all(log)
    os.utime(path, ns=(0, 1))
    assert log.read() is None


def test_a_file_that_vanishes_is_said_and_read_again_when_it_is_back(path: Path) -> None:
    log = reading(path)
    read_all(log)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        log.read()
    write(path, LONGER)
    os.utime(path, ns=(0, 1))
    events = read_all(log)
    assert isinstance(events[0], RecordReplaced)
    assert epochs(events) == [0, 1, 2, 3]


def test_a_log_that_begins_after_it_was_found_needs_no_replacing(tmp_path: Path) -> None:
    path = write(tmp_path / "training.csv", b"")
    log = reading(path)
    assert log.read() is None
    append(path, LOG)
    events = read_all(log)
    assert epochs(events) == [0, 1]
    assert not any(isinstance(event, RecordReplaced) for event in events)


def test_no_file_is_held_open_between_reads(path: Path) -> None:
    log = reading(path)
    read_all(log)
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this platform does not list open files")
    open_files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert str(path.resolve()) not in open_files


def test_reading_the_whole_of_a_log_ends_with_how_it_looks_from_outside(path: Path) -> None:
    os.utime(path, (100.0, 100.0))
    append(path, b"2,0")
    os.utime(path, (100.0, 100.0))
    *_, torn, tick = read_whole(reading(path), now=500.0)
    assert isinstance(torn, Malformed)
    assert tick == Tick(time=500.0, written=100.0, process_gone=False)


def test_the_process_of_a_record_is_asked_only_while_the_record_has_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cbmon.events import Process

    monkeypatch.setattr(sources, "is_gone", lambda process: True)
    start = encode_line(RunStarted(run_id="a", process=Process(host="h", pid=1)))
    path = write(tmp_path / "training.jsonl", start)
    log = reading(path)
    assert not log.tick(1.0).process_gone, "nothing is known of it yet"
    read_all(log)
    assert log.tick(1.0).process_gone
    append(path, encode_line(RunEnded(how="finished")))
    read_all(log)
    assert not log.tick(1.0).process_gone


# Following


@pytest.fixture
def follower(logs: Path) -> Iterator[Follower]:
    follower = Follower([str(logs)])
    yield follower
    follower.stop()
    if follower._source is not None:
        follower._source.join(PATIENCE_S)


def taken(follower: Follower, changed: set[Path] | None = None) -> dict[str, list[int]]:
    """One look: the new epochs by run."""
    found: dict[str, list[int]] = {}
    for log, events in follower.read(changed):
        assert isinstance(events[-1], Tick), "each batch tells the time"
        found.setdefault(log.name, []).extend(epochs(events))
    return found


def until(follower: Follower, is_enough: Callable[[dict[str, list[int]]], bool]) -> dict[str, list[int]]:
    """Waits for notices and reads, until what was read is enough."""
    found: dict[str, list[int]] = {}

    def look() -> None:
        while not is_enough(found):
            for name, rows in taken(follower, follower.wait()).items():
                found.setdefault(name, []).extend(rows)

    within(PATIENCE_S, look)
    return found


@pytest.fixture
def notices_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read then was told by the file system."""
    monkeypatch.setattr(sources, "LOOK_S", 10 * PATIENCE_S)


@pytest.fixture
def started(follower: Follower, notices_only: object) -> Follower:
    assert taken(follower) == {"run1": [0, 1]}
    follower.start()
    assert follower.trouble == ""
    assert follower.wait() is None, "what changed before the first notice could come is looked at once"
    assert taken(follower) == {"run1": []}
    return follower


def test_an_appended_row_is_noticed(started: Follower, logs: Path) -> None:
    append(logs / "run1" / "training.csv", b"2,0.25\n")
    assert until(started, lambda found: bool(found.get("run1"))) == {"run1": [2]}


def test_a_new_log_in_a_new_folder_is_noticed(started: Follower, logs: Path) -> None:
    write(logs / "new" / "deep" / "training.csv")
    assert until(started, lambda found: bool(found.get("new/deep")))["new/deep"] == [0, 1]


def test_a_folder_of_logs_that_is_moved_in_is_noticed(started: Follower, logs: Path) -> None:
    write(logs.parent / "elsewhere" / "training.csv").parent.replace(logs / "run2")
    assert until(started, lambda found: bool(found.get("run2")))["run2"] == [0, 1]


def test_a_log_replaced_by_rename_is_noticed(started: Follower, logs: Path) -> None:
    rename_over(logs / "run1" / "training.csv", LONGER)
    assert until(started, lambda found: bool(found.get("run1")))["run1"] == [0, 1, 2, 3]


def test_a_file_that_becomes_a_log_is_noticed(started: Follower, logs: Path) -> None:
    path = write(logs / "late.txt", b"")
    append(path, LOG)
    assert until(started, lambda found: bool(found.get("late")))["late"] == [0, 1]


def test_a_deleted_log_stays_with_its_trouble_and_recovers(started: Follower, logs: Path) -> None:
    path = logs / "run1" / "training.csv"
    path.unlink()
    until(started, lambda found: bool(started.logs[path].trouble))
    assert started.logs[path].trouble == "no such file or directory"
    write(path, LONGER)
    until(started, lambda found: bool(found.get("run1")))
    assert started.logs[path].trouble == ""


def test_reading_a_log_gives_no_notice_of_its_own(started: Follower, logs: Path) -> None:
    """Notices come in order: those before a file that is made now tell of what was done before."""

    def noticed_before(marker: str) -> set[Path]:
        append(logs / marker, PROSE)
        found: set[Path] = set()

        def look() -> None:
            while logs / marker not in found:
                found.update(started.wait() or ())

        within(PATIENCE_S, look)
        return found

    append(logs / "run1" / "training.csv", b"2,0.25\n")
    assert logs / "run1" / "training.csv" in noticed_before("first.txt")
    list(started.read(set(started.logs)))
    find([str(logs)])
    assert {path.name for path in noticed_before("second.txt")} <= {"first.txt", "second.txt"}


def test_a_burst_of_notices_does_not_keep_the_reader_waiting(follower: Follower) -> None:
    """A writer that is always at work gives notices without a pause: `wait` ends all the same."""
    taken(follower)
    is_over = False

    def always() -> None:
        while not is_over:
            follower._notices.put({os.path.realpath(path) for path in follower.logs})

    writer = Thread(target=always, daemon=True)
    writer.start()
    try:
        within(PATIENCE_S, follower.wait)
    finally:
        is_over = True
        writer.join()


def test_a_log_named_itself_is_followed(logs: Path, notices_only: object) -> None:
    path = logs / "run1" / "training.csv"
    follower = Follower([str(path)])
    try:
        taken(follower)
        follower.start()
        append(path, b"2,0.25\n")
        write(logs / "run1" / "other.csv")
        found = until(follower, lambda found: bool(found.get("run1")))
        assert found == {"run1": [2]}
        assert list(follower.logs) == [path]
    finally:
        follower.stop()


def test_a_log_that_is_not_there_yet_is_followed_from_its_beginning(
    tmp_path: Path, notices_only: object
) -> None:
    follower = Follower([str(tmp_path / "*.csv")])
    try:
        assert taken(follower) == {}
        follower.start()
        write(tmp_path / "x.csv")
        assert until(follower, lambda found: bool(found)) == {"x": [0, 1]}
    finally:
        follower.stop()


def test_stop_ends_a_wait_at_once_from_any_thread(follower: Follower) -> None:
    waiter = Thread(target=follower.wait, daemon=True)
    waiter.start()
    follower.stop()
    waiter.join(PATIENCE_S)
    assert not waiter.is_alive(), "it would have waited for the next look at everything"
    assert follower.is_stopped


def test_stop_ends_a_long_read(logs: Path) -> None:
    write(logs / "run2" / "training.csv", LOG)
    follower = Follower([str(logs)])
    reader = follower.read()
    next(reader)
    follower.stop()
    assert list(reader) == []


def test_large_logs_take_turns(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Log.read
    monkeypatch.setattr(Log, "read", lambda log: read(log, 20))
    write(logs / "run2" / "training.csv", LOG)
    order = [log.name for log, _ in Follower([str(logs)]).read()]
    assert order[:4] == ["run1", "run2", "run1", "run2"]


def test_polling_finds_rows_and_new_logs_without_a_notice(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "POLL_S", 0.001)
    monkeypatch.setattr(sources, "LOOK_S", 0.05)
    follower = Follower([str(logs)], poll=True)
    assert taken(follower) == {"run1": [0, 1]}
    follower.start()
    assert follower._source is None, "polling asks for no notices"
    assert follower.trouble == "", "it was asked for"
    append(logs / "run1" / "training.csv", b"2,0.25\n")
    assert until(follower, lambda found: bool(found.get("run1")))["run1"] == [2]
    write(logs / "run2" / "training.csv")
    assert until(follower, lambda found: bool(found.get("run2")))["run2"] == [0, 1]


def test_without_notices_it_polls_and_says_why(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(notices.Notices, "_start", full)
    monkeypatch.setattr(sources, "POLL_S", 0.001)
    follower = Follower([str(logs)])
    taken(follower)
    follower.start()
    assert follower.trouble.startswith(
        "no notices from the file system (inotify watch limit reached): looking every"
    )
    assert follower.wait() == set(follower.logs)
    assert follower.wait() is None


def test_what_brings_notices_is_loaded_only_when_it_is_needed(logs: Path) -> None:
    code = (
        "import sys; from cbmon.sources import Follower;"
        f"list(Follower([{str(logs)!r}]).read()); print({{'watchdog', 'inotify_simple'}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


# --- found in use ---------------------------------------------------------------------------------------------


def test_an_empty_log_that_becomes_console_text_is_refused_as_a_cold_read_would(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.touch()
    follower = Follower([str(tmp_path)])
    assert [log.path for log, _ in follower.read()][:1] == [path]
    path.write_text("Training...\nEpoch 1/3\n")
    list(follower.read())
    assert "no header line" in follower.logs[path].trouble


def test_a_csv_rewritten_as_a_history_is_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("epoch,loss\n0,1.0\n")
    log, run = Log(path, "x", Format.KERAS_CSV), Run()
    for event in log.read() or []:
        fold(run, event)
    path.unlink()
    path.write_text('{"epoch": [5, 6], "loss": [0.5, 0.4]}')
    while (events := log.read()) is not None:
        for event in events:
            fold(run, event)
    assert log.format is Format.HISTORY
    assert list(run.current.epochs) == [5, 6], "an `epoch` list gives the epoch numbers"


def test_an_empty_csv_that_monitor_begins_is_a_record_of_cbmons(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.touch()
    (log,) = find([str(path)]).logs
    assert log.read() is None
    assert log.format is Format.KERAS_CSV
    path.write_text("epoch,loss,cbmon_time\n0,1.0,9\n")
    (batch,) = log.read() or []
    assert log.format is Format.CBMON_CSV
    assert batch == EpochsEnded(
        time=9.0,
        epochs=array("q", [0]),
        metrics={"loss": array("d", [1.0])},
        times=[9.0],
        first_line=2,
    )


def test_a_file_named_through_a_link_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "t.csv"
    real.parent.mkdir()
    real.write_text("epoch,loss\n0,1.0\n")
    link = tmp_path / "latest.csv"
    link.symlink_to(real)
    follower = Follower([str(link)])
    list(follower.read())
    follower.start()
    try:
        assert follower.wait() is None, "start asks for one more look"
        list(follower.read())
        with real.open("a") as file:
            file.write("1,0.5\n")
        assert follower.wait() == {link}
    finally:
        follower.stop()


def test_a_hidden_log_that_grows_is_not_looked_for_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / ".hidden" / "x.csv"
    hidden.parent.mkdir()
    hidden.write_text("epoch,loss\n0,1.0\n")
    follower = Follower([str(tmp_path)])
    list(follower.read())
    looks = []
    monkeypatch.setattr(sources, "find", lambda paths, *known: looks.append(paths) or find(paths, *known))
    for _ in range(3):
        list(follower.read({hidden}))
    assert len(looks) == 1


# Following through all that happens to files and folders


def at_least(name: str, rows: list[int]) -> Callable[[dict[str, list[int]]], bool]:
    return lambda found: found.get(name, [])[-len(rows) :] == rows


def test_a_log_that_is_truncated_and_written_anew_is_noticed(started: Follower, logs: Path) -> None:
    rewrite(logs / "run1" / "training.csv", LONGER)
    until(started, at_least("run1", [0, 1, 2, 3]))


def test_a_log_that_is_deleted_and_made_again_is_noticed(started: Follower, logs: Path) -> None:
    delete_and_create(logs / "run1" / "training.csv", LONGER)
    until(started, at_least("run1", [0, 1, 2, 3]))


def test_a_log_that_is_copied_in_by_rsync_is_noticed(
    follower: Follower, logs: Path, notices_only: object
) -> None:
    """A hidden temporary file, written and renamed over the log, again and again; inodes may come again."""
    run = Run()

    def look(changed: set[Path] | None = None) -> None:
        for _, events in follower.read(changed):
            for event in events:
                fold(run, event)

    def look_until_it_is_there() -> None:
        while list(run.current.epochs) != [0, 1, 2, 3, 4, 5]:
            look(follower.wait())

    look()
    follower.start()
    for epoch in range(2, 6):
        data = LOG + b"".join(b"%d,0.25\n" % row for row in range(2, epoch + 1))
        write(logs / "run1" / ".training.csv.Xy12", data).replace(logs / "run1" / "training.csv")
    within(PATIENCE_S, look_until_it_is_there)
    assert list(follower.logs) == [logs / "run1" / "training.csv"]
    assert run.warnings == []


def test_a_folder_of_a_log_that_is_deleted_and_made_again_is_noticed(started: Follower, logs: Path) -> None:
    path = logs / "run1" / "training.csv"
    shutil.rmtree(logs / "run1")
    until(started, lambda found: bool(started.logs[path].trouble))
    write(path, LONGER)
    until(started, at_least("run1", [0, 1, 2, 3]))
    append(path, b"4,0.5\n")
    until(started, at_least("run1", [4]))


def test_a_folder_of_a_log_that_is_moved_away_is_noticed(started: Follower, logs: Path) -> None:
    (logs / "run1").rename(logs.parent / "elsewhere")
    path = logs / "run1" / "training.csv"
    until(started, lambda found: bool(started.logs[path].trouble))
    assert started.logs[path].trouble == "no such file or directory"


def test_a_log_in_a_folder_that_is_renamed_is_a_run_of_that_name(started: Follower, logs: Path) -> None:
    (logs / "run1").rename(logs / "run2")
    until(started, at_least("run2", [0, 1]))
    append(logs / "run2" / "training.csv", b"2,0.25\n")
    until(started, at_least("run2", [2]))


@pytest.mark.parametrize("is_named_by_a_link", [False, True])
def test_the_watched_folder_itself_may_be_deleted_and_made_again(
    logs: Path, notices_only: object, is_named_by_a_link: bool
) -> None:
    named = logs
    if is_named_by_a_link:
        named = logs.parent / "link"
        named.symlink_to("logs")
    follower = Follower([str(named)])
    try:
        assert taken(follower) == {"run1": [0, 1]}
        follower.start()
        assert follower.wait() is None
        taken(follower)
        append(logs / "run1" / "training.csv", b"2,0.25\n")
        until(follower, at_least("run1", [2]))
        for data, rows in [(LONGER, [0, 1, 2, 3]), (LOG, [0, 1])]:
            shutil.rmtree(logs)
            until(follower, lambda found: all(log.trouble for log in follower.logs.values()))
            write(logs / "run1" / "training.csv", data)
            until(follower, at_least("run1", rows))
            append(logs / "run1" / "training.csv", b"9,0.25\n")
            until(follower, at_least("run1", [9]))
    finally:
        follower.stop()


def test_the_watched_folder_may_be_moved_away_and_back(started: Follower, logs: Path) -> None:
    logs.rename(logs.parent / "away")
    until(started, lambda found: all(log.trouble for log in started.logs.values()))
    append(logs.parent / "away" / "run1" / "training.csv", b"2,0.25\n")
    (logs.parent / "away").rename(logs)
    until(started, at_least("run1", [2]))
    append(logs / "run1" / "training.csv", b"3,0.25\n")
    until(started, at_least("run1", [3]))


def test_a_folder_that_is_not_there_yet_is_followed_from_its_beginning(
    tmp_path: Path, notices_only: object
) -> None:
    follower = Follower([str(tmp_path / "later" / "logs")])
    try:
        taken(follower)
        follower.start()
        write(tmp_path / "later" / "logs" / "run1" / "training.csv")
        until(follower, at_least("run1", [0, 1]))
        append(tmp_path / "later" / "logs" / "run1" / "training.csv", b"2,0.25\n")
        until(follower, at_least("run1", [2]))
    finally:
        follower.stop()


def test_a_link_that_leads_elsewhere_now_is_noticed(tmp_path: Path, notices_only: object) -> None:
    write(tmp_path / "run1" / "training.csv")
    write(tmp_path / "run2" / "training.csv", LONGER)
    link = tmp_path / "here" / "latest.csv"
    link.parent.mkdir()
    link.symlink_to("../run1/training.csv")
    follower = Follower([str(link)])
    try:
        assert taken(follower) == {"latest": [0, 1]}
        follower.start()
        new = link.with_name("new")
        new.symlink_to("../run2/training.csv")
        new.replace(link)
        until(follower, at_least("latest", [0, 1, 2, 3]))
    finally:
        follower.stop()


def test_a_log_in_a_hidden_store_under_the_folder_is_followed(logs: Path, notices_only: object) -> None:
    stored = write(logs / ".dvc" / "cache" / "ab12")
    (logs / "run2.csv").symlink_to(".dvc/cache/ab12")
    follower = Follower([str(logs)])
    try:
        assert taken(follower) == {"run1": [0, 1], "run2": [0, 1]}
        follower.start()
        append(stored, b"2,0.25\n")
        until(follower, at_least("run2", [2]))
    finally:
        follower.stop()


def test_of_files_that_change_beside_a_named_log_nothing_is_heard(logs: Path, notices_only: object) -> None:
    follower = Follower([str(logs / "run1" / "training.csv")])
    try:
        taken(follower)
        follower.start()
        assert follower.wait() is None
        taken(follower)
        write(logs / "run1" / "other.csv")
        append(logs / "run1" / "training.csv", b"2,0.25\n")
        assert follower.wait() == {logs / "run1" / "training.csv"}
    finally:
        follower.stop()


def test_an_absent_named_log_that_is_refused_beside_a_new_one_is_found_when_it_becomes_one(
    started: Follower, logs: Path
) -> None:
    late, other = write(logs / "late.txt", PROSE), write(logs / "run2" / "training.csv")
    list(started.read({late, other}))
    assert set(started.logs) == {logs / "run1" / "training.csv", other}
    write(late)
    list(started.read({late}))
    assert late in started.logs


# What is read, and how much of it


def test_a_notice_about_one_of_many_logs_reads_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        write(tmp_path / f"run{number}" / "training.csv")
    follower = Follower([str(tmp_path)])
    list(follower.read())
    changed = {tmp_path / f"run{number}" / "training.csv" for number in (3, 7)}
    for path in changed:
        append(path, b"2,0.25\n")
    read, stats = Log.read, []
    monkeypatch.setattr(Log, "read", lambda log: stats.append(log.path) or read(log))
    assert {log.path for log, _ in follower.read(changed)} == changed
    assert sorted(stats) == sorted(changed), "each once: it is known when a log is at its end"


def test_a_notice_without_a_change_is_no_news(logs: Path) -> None:
    follower = Follower([str(logs)])
    list(follower.read())
    assert list(follower.read(set(follower.logs))) == []


def test_a_look_at_everything_opens_no_file_that_has_not_changed(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(logs / "console.txt", PROSE)
    named = write(logs.parent / "named.txt", PROSE)
    follower = Follower([str(logs), str(named)])
    list(follower.read())
    refused = shown(Finding(skipped=follower.skipped)), counted(Finding(skipped=follower.skipped))
    opened: list[str] = []
    opening = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(str(path)) or opening(path, *rest))
    list(follower.read())
    assert opened == []
    assert (shown(Finding(skipped=follower.skipped)), counted(Finding(skipped=follower.skipped))) == refused
    append(logs / "console.txt", PROSE)
    list(follower.read())
    assert opened == [str(logs / "console.txt")]


def test_a_known_log_keeps_its_name_when_another_would_share_it(logs: Path) -> None:
    follower = Follower([str(logs)])
    list(follower.read())
    write(logs / "run1" / "history.csv")
    list(follower.read())
    assert [log.name for log in follower.logs.values()] == ["run1", "run1/history.csv"]


def test_a_row_is_read_with_few_calls_to_the_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = reading(path)
    read_all(log)
    append(path, b"2,0.25\n")
    calls: list[str] = []
    for name in ("stat", "open", "fstat", "pread", "close"):
        monkeypatch.setattr(os, name, counting(name, getattr(os, name), calls))
    assert epochs(log.read() or []) == [2]
    assert not log.has_more
    assert calls == ["stat", "open", "fstat", "pread", "pread", "pread", "close"], (
        "and the head and tail are compared"
    )
    calls.clear()
    assert log.read() is None
    assert calls == ["stat"]


def counting(name: str, call: Callable[..., object], calls: list[str]) -> Callable[..., object]:
    def counted(*arguments: object) -> object:
        calls.append(name)
        return call(*arguments)

    return counted


def test_a_process_is_asked_at_the_pulse_and_not_with_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cbmon.events import Process

    asked = []
    monkeypatch.setattr(sources, "is_gone", lambda process: asked.append(process) or len(asked) > 1)
    start = RunStarted(run_id="a", process=Process(host="h", pid=1))
    path = write(tmp_path / "training.jsonl", encode_line(start))
    follower = Follower([str(tmp_path)])
    list(follower.read())
    assert len(asked) == 1, "at first sight it is"
    for epoch in range(3):
        append(path, encode_line(EpochsEnded(epochs=[epoch], metrics={"loss": [0.5]})))
        ((_, events),) = follower.read({path})
        assert not events[-1].process_gone  # type: ignore[union-attr]
    assert len(asked) == 1
    monkeypatch.setattr(sources, "PULSE_S", 0.001)
    follower._wind(0.0)
    follower._look_at = math.inf
    assert follower.wait() == {path}
    ((_, events),) = follower.read({path})
    assert events == [Tick(time=events[-1].time, written=path.stat().st_mtime, process_gone=True)]
    assert list(follower.read({path})) == [], "it is said once"


# When to look without being told


def test_what_is_due_is_looked_at_however_many_notices_come(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One busy run must not hide that another one has died, or that a new one is there."""
    follower = Follower([str(logs)])
    list(follower.read())
    (path,) = follower.logs
    follower._notices.put({os.path.realpath(path)})
    assert follower.wait() == {path}
    follower._look_at = 0.0
    follower._notices.put({os.path.realpath(path)})
    assert follower.wait() is None
    assert follower._look_at > 0.0, "and not again at once"


def test_many_polled_logs_are_looked_at_less_often(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(logs / "run2" / "training.csv")
    follower = Follower([str(logs)], poll=True)
    list(follower.read())
    assert follower._pause() == sources.POLL_S
    monkeypatch.setattr(sources, "MANY", 1)
    assert follower._pause() == sources.POLL_MANY_S


def test_folders_that_come_and_go_without_a_pause_do_not_cost_a_look_each(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follower([str(logs)])
    list(follower.read())
    follower._look_not_before = 1000.0
    follower._look_at = 2000.0
    for number in range(100):
        assert follower._translate({f"{os.path.realpath(logs)}/checkpoint{number}/"}) == set()
    assert follower._look_at == 1000.0


@pytest.mark.parametrize(
    ("named", "changed", "is_heard"),
    [
        ("logs", "logs/new.csv", True),
        ("logs", "logs/a/b/new.csv", True),
        ("logs", "logs/.git/index", False),
        ("logs", "logs/a/.ipynb_checkpoints/x.csv", False),
        ("logs", "logs", True),
        ("logs", "other", False),
        ("logs", "logs2/x.csv", False),
        ("logs/run1/training.csv", "logs/run1/other.csv", False),
        ("logs/run1/absent.csv", "logs/run1/absent.csv", True),
        ("logs/absent/deep/x.csv", "logs/absent", True),
        ("logs/absent/deep/x.csv", "logs/other", False),
        ("logs/*/t.csv", "logs/run9/t.csv", True),
        ("logs/*/t.csv", "elsewhere/t.csv", False),
    ],
)
def test_of_unknown_paths_only_those_are_heard_that_may_bring_a_log(
    logs: Path, named: str, changed: str, is_heard: bool
) -> None:
    follower = Follower([str(logs.parent / named)])
    list(follower.read())
    assert follower._concerns(os.path.join(os.path.realpath(logs.parent), changed)) is is_heard


# A crowd


@pytest.fixture
def crowd(tmp_path: Path, notices_only: object, monkeypatch: pytest.MonkeyPatch) -> Follower:
    """A hundred logs of which the first two are on the screen; notices come from the test."""
    for number in range(100):
        write(tmp_path / f"run{number:02}" / "training.csv")
    follower = Follower([str(tmp_path)])
    list(follower.read())
    follower.seen = set(list(follower.logs)[:2])
    monkeypatch.setattr(sources, "HOLD_S", 10 * PATIENCE_S)
    return follower


def test_in_a_crowd_only_what_is_seen_is_read_at_once(crowd: Follower, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    crowd._notices.put({*map(os.path.realpath, crowd.logs), os.path.realpath(new)})
    assert crowd.wait() == {*(crowd.seen or ()), new}, "and what may be a new log"
    crowd._held_until = 0.0
    assert crowd.wait() == set(crowd.logs) - set(crowd.seen or ()), "the others after a while, once"
    assert crowd._held == set()
    assert crowd._held_until == math.inf, "nothing wakes it up any more"


def test_what_comes_into_view_waits_no_longer(crowd: Follower) -> None:
    crowd._notices.put(set(map(os.path.realpath, crowd.logs)))
    assert crowd.wait() == crowd.seen
    later = list(crowd.logs)[50]
    crowd.seen = {later}
    crowd._notices.put({os.path.realpath(later)})
    assert crowd.wait() == {later}


@pytest.mark.parametrize("seen", [None, frozenset()])
def test_who_sees_all_or_few_logs_waits_for_none(crowd: Follower, seen: frozenset[Path] | None) -> None:
    crowd.seen = seen
    changed = set(list(crowd.logs)[: sources.CROWD if seen is not None else 100])
    crowd._notices.put(set(map(os.path.realpath, changed)))
    assert crowd.wait() == changed


def test_a_look_at_everything_reads_those_that_wait(crowd: Follower) -> None:
    crowd._notices.put(set(map(os.path.realpath, crowd.logs)))
    assert crowd.wait() == crowd.seen
    crowd._notices.put(None)
    assert crowd.wait() is None
    assert crowd._held == set()


# Where notices are blind


def mounted(monkeypatch: pytest.MonkeyPatch, *points: tuple[Path, str]) -> None:
    table = [Mount("/", "ext4"), *(Mount(os.path.realpath(point), kind) for point, kind in points)]
    monkeypatch.setattr(sources, "read_mounts", lambda: table)


def test_on_a_network_file_system_it_polls_by_itself_and_says_so_once(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, (logs.parent, "nfs4"))
    monkeypatch.chdir(logs.parent)
    follower = Follower(["logs"])
    try:
        list(follower.read())
        assert follower.trouble == "logs/ is on nfs4: looking every 2 s"
        monkeypatch.setattr(sources, "POLL_S", 0.001)
        monkeypatch.setattr(sources, "LOOK_S", 0.05)
        follower.start()
        assert follower._source is not None
        assert follower._source._thread is None, "there is nothing to watch"
        append(logs / "run1" / "training.csv", b"2,0.25\n")
        until(follower, at_least("run1", [2]))
        write(logs / "run2" / "training.csv")
        until(follower, at_least("run2", [0, 1]))
        assert follower.trouble == "logs/ is on nfs4: looking every 2 s"
    finally:
        follower.stop()


def test_what_is_mounted_below_a_watched_folder_is_polled_and_the_rest_is_watched(
    logs: Path, notices_only: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = write(logs / "far" / "run2" / "training.csv")
    mounted(monkeypatch, (logs / "far", "fuse.sshfs"), (logs / "empty", "nfs"))
    monkeypatch.chdir(logs.parent)
    follower = Follower(["logs"])
    try:
        list(follower.read())
        assert follower.trouble == "logs/far/ is on fuse.sshfs: looking every 2 s"
        assert follower._polled() == [Path("logs/far/run2/training.csv")]
        follower.start()
        assert follower.wait() is None
        list(follower.read())
        append(logs / "run1" / "training.csv", b"2,0.25\n")
        until(follower, at_least("run1", [2]))
        follower._poll_at = 0.0
        assert follower.wait() == {Path("logs/far/run2/training.csv")}
        assert far.exists()
    finally:
        follower.stop()


@pytest.mark.parametrize(
    ("kind", "trouble"), [("xfs", ""), ("nfs", "run1/training.csv is on nfs: looking every 2 s")]
)
def test_a_local_disk_within_a_network_file_system_is_watched(
    logs: Path, monkeypatch: pytest.MonkeyPatch, kind: str, trouble: str
) -> None:
    mounted(monkeypatch, (logs.parent, "nfs"), (logs, kind))
    monkeypatch.chdir(logs)
    follower = Follower(["run1/training.csv"])
    list(follower.read())
    assert follower.trouble == trouble


def test_who_polls_anyway_is_told_of_no_file_system(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(monkeypatch, (logs, "nfs"))
    follower = Follower([str(logs)], poll=True)
    list(follower.read())
    assert follower.trouble == ""


# Limits of the system


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("Observer", OSError(24, "inotify instance limit reached")),
        ("schedule", OSError(28, "inotify watch limit reached")),
        ("start", OSError(28, "inotify watch limit reached")),
    ],
)
def test_wherever_watchdog_meets_a_limit_it_polls_and_says_so(
    logs: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: OSError
) -> None:
    from watchdog import observers

    def full(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(sources, "Notices", notices.WatchdogNotices)
    monkeypatch.setattr(observers.Observer, {"Observer": "__init__"}.get(where, where), full)
    follower = Follower([str(logs)])
    taken(follower)
    follower.start()
    assert follower.trouble == f"no notices from the file system ({error.strerror}): looking every 2 s"
    assert follower._source is None


@on_linux
@pytest.mark.parametrize(
    ("where", "code", "reason"),
    [
        ("__init__", errno.EMFILE, "inotify instance limit reached"),
        ("add_watch", errno.ENOSPC, "inotify watch limit reached"),
        ("add_watch", errno.ENOMEM, "cannot allocate memory"),
    ],
)
def test_wherever_inotify_meets_a_limit_it_polls_and_says_so(
    logs: Path, monkeypatch: pytest.MonkeyPatch, where: str, code: int, reason: str
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(INotify, where, full)
    follower = Follower([str(logs)])
    taken(follower)
    follower.start()
    assert follower.trouble == f"no notices from the file system ({reason}): looking every 2 s"
    assert follower._source is None


@pytest.fixture
def full_below(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder itself can be watched, none below it."""
    add = INotify.add_watch
    top = os.path.realpath(logs)

    def refuse(inotify: INotify, path: str, mask: int) -> int:
        if path.startswith(top) and path.rstrip("/") != top:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(add(inotify, path, mask))

    monkeypatch.setattr(INotify, "add_watch", refuse)


@on_linux
def test_a_limit_that_is_reached_below_the_folder_is_noticed(
    logs: Path, full_below: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "POLL_S", 0.001)
    follower = Follower([str(logs)])
    taken(follower)
    follower.start()
    assert "inotify watch limit reached" in follower.trouble
    append(logs / "run1" / "training.csv", b"2,0.25\n")
    until(follower, at_least("run1", [2]))


@on_linux
def test_a_limit_that_a_new_folder_reaches_is_noticed_at_once(
    started: Follower, logs: Path, full_below: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "POLL_S", 0.001)
    write(logs / "run2" / "training.csv")
    until(started, at_least("run2", [0, 1]))
    assert "inotify watch limit reached" in started.trouble
    append(logs / "run2" / "training.csv", b"2,0.25\n")
    until(started, at_least("run2", [2]))


@on_linux
def test_the_limit_is_asked_of_the_system() -> None:
    assert notices.reached_limit() == ""


@pytest.mark.parametrize(("limit", "is_reached"), [(4, True), (1000, False)])
def test_the_kernels_own_limit_is_noticed_wherever_it_is_reached(
    logs: Path, limit: int, is_reached: bool
) -> None:
    """In a user namespace with a limit of its own; the folder itself can be watched, not all below it."""
    for number in range(10):
        write(logs / f"more{number}" / "training.csv")
    code = (
        "import sys; from cbmon.sources import Follower; follower = Follower(sys.argv[1:]);"
        "list(follower.read()); follower.start(); print('trouble:', follower.trouble)"
    )
    shell = 'echo "$0" > /proc/sys/user/max_inotify_watches && echo ready && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", shell, str(limit)]
    try:
        done = subprocess.run(
            [*command, sys.executable, "-c", code, str(logs)], capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if not done.stdout.startswith("ready"):
        pytest.skip(f"no user namespace with limits of its own here: {done.stderr.strip()}")
    assert ("inotify watch limit reached" in done.stdout) is is_reached, done.stdout + done.stderr


def test_stopping_while_it_starts_leaves_nothing_running(logs: Path) -> None:
    follower = Follower([str(logs)])
    list(follower.read())
    follower.stop()
    follower.start()
    follower.stop()
    assert follower._source is not None
    follower._source.join(PATIENCE_S)
    assert follower.wait() is None


# A log that turns out to be none


@pytest.mark.parametrize("name", ["training.csv", "console.log"])
def test_a_header_above_prose_is_refused_live_as_a_cold_read_refuses_it(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"epoch,loss\n")
    follower = Follower([str(tmp_path)])
    list(follower.read())
    assert follower.logs[path].trouble == ""
    append(path, b"Starting training on 2 GPUs ...\n")
    list(follower.read({path}))
    assert follower.logs[path].trouble == "a header line, but no row of numbers under it"
    assert find([str(tmp_path)]).logs == []
    append(path, b"0,0.5\n")
    run = Run()
    for _, events in follower.read({path}):
        for event in events:
            fold(run, event)
    assert follower.logs[path].trouble == ""
    assert list(run.current.epochs) == [0]


def test_what_is_said_above_the_rows_of_a_log_is_no_reason_to_judge_it_anew(path: Path) -> None:
    log = reading(path)
    read_all(log)
    append(path, b"Epoch 00002: val_loss did not improve\n" * 200)
    assert epochs(read_all(log)) == []
    append(path, b"2,0.25\n")
    assert epochs(read_all(log)) == [2]


def test_a_header_that_comes_in_two_parts_tells_the_format_in_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "training.csv", b"epoch,loss")
    log = reading(path)
    read_all(log)
    assert log.format is Format.KERAS_CSV
    append(path, b",cbmon_time\n0,1.0,9\n")
    assert epochs(read_all(log)) == [0]
    assert log.format is Format.CBMON_CSV


# Notices

WAYS = [
    pytest.param(notices.InotifyNotices, marks=on_linux, id="inotify"),
    pytest.param(notices.WatchdogNotices, id="watchdog"),
]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    """Each way to watch: ours on Linux, and watchdog's elsewhere."""
    return request.param


@contextmanager
def told_by(
    way: Any, folders: Mapping[Path, bool], concerns: Callable[[str], bool] = lambda path: True
) -> Iterator[tuple[Any, SimpleQueue[set[str]]]]:
    told: SimpleQueue[set[str]] = SimpleQueue()
    source = way(told.put, concerns)
    try:
        source.watch({os.path.realpath(folder): is_all for folder, is_all in folders.items()})
        yield source, told
    finally:
        source.stop()
        source.join(PATIENCE_S)


def all_told(told: SimpleQueue[set[str]], last: Path) -> set[str]:
    """What is told up to a change of the last one, which is made now; without it."""
    append(last, b"x")
    found: set[str] = set()
    while os.path.realpath(last) not in found:
        found |= told.get(timeout=PATIENCE_S)
    return found - {os.path.realpath(last)}


def test_many_changes_are_told_in_few_sets(tmp_path: Path, way: Any) -> None:
    paths = [tmp_path / f"{number}.csv" for number in range(200)]
    with told_by(way, {tmp_path: True}) as (_, told):
        for _ in range(5):
            for path in paths:
                append(path, b"x")
        found: set[str] = set()
        sets = 0
        while found != {os.path.realpath(path) for path in paths}:
            found |= told.get(timeout=PATIENCE_S)
            sets += 1
        assert sets < 100, "2,200 notices"


def test_what_is_of_no_interest_is_not_told(tmp_path: Path, way: Any) -> None:
    with told_by(way, {tmp_path: True}, lambda path: path.endswith("last.csv")) as (_, told):
        for number in range(50):
            append(tmp_path / f"{number}.txt", b"x")
        append(tmp_path / "last.csv", b"x")
        assert told.get(timeout=PATIENCE_S) == {os.path.realpath(tmp_path / "last.csv")}


def test_folders_end_with_a_slash_and_reading_is_no_change(tmp_path: Path, way: Any) -> None:
    (tmp_path / "a.csv").touch()
    with told_by(way, {tmp_path: True}) as (_, told):
        (tmp_path / "a.csv").read_bytes()
        os.listdir(tmp_path)
        (tmp_path / "folder").mkdir()
        assert told.get(timeout=PATIENCE_S) == {os.path.join(os.path.realpath(tmp_path), "folder", "")}


def test_watching_other_folders_ends_the_watch_of_those_before(tmp_path: Path, way: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with told_by(way, {tmp_path / "a": True}) as (source, told):
        source.watch({os.path.realpath(tmp_path / "b"): True})
        append(tmp_path / "a" / "x.csv", b"x")
        append(tmp_path / "b" / "x.csv", b"x")
        assert told.get(timeout=PATIENCE_S) == {os.path.realpath(tmp_path / "b" / "x.csv")}


def test_folders_that_come_later_are_watched_however_deep(tmp_path: Path, way: Any) -> None:
    with told_by(way, {tmp_path: True}) as (_, told):
        (tmp_path / "a" / "b" / "c").mkdir(parents=True)
        folder = os.path.join(os.path.realpath(tmp_path), "a", "")
        assert folder in all_told(told, tmp_path / "first")
        append(tmp_path / "a" / "b" / "c" / "x.csv", b"x")
        assert os.path.realpath(tmp_path / "a/b/c/x.csv") in all_told(told, tmp_path / "second")


def test_below_a_folder_that_is_watched_alone_nothing_is_told(tmp_path: Path, way: Any) -> None:
    (tmp_path / "a").mkdir()
    with told_by(way, {tmp_path: False}) as (_, told):
        append(tmp_path / "a" / "x.csv", b"x")
        (tmp_path / "b").mkdir()
        append(tmp_path / "b" / "x.csv", b"x")
        assert all_told(told, tmp_path / "last") == {os.path.join(os.path.realpath(tmp_path), "b", "")}


def test_a_folder_that_was_moved_tells_by_its_new_name_alone(tmp_path: Path, way: Any) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    real = os.path.realpath(tmp_path)
    with told_by(way, {tmp_path: True}) as (_, told):
        (tmp_path / "a").rename(tmp_path / "b")
        found = all_told(told, tmp_path / "first")
        assert {f"{real}/a/", f"{real}/b/"} <= found
        append(tmp_path / "b" / "deep" / "x.csv", b"x")
        assert f"{real}/b/deep/x.csv" in all_told(told, tmp_path / "second")


@on_linux
def test_a_folder_that_was_moved_away_tells_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    with told_by(notices.InotifyNotices, {tmp_path / "in": True}) as (source, told):
        (tmp_path / "in" / "a").rename(tmp_path / "a")
        assert all_told(told, tmp_path / "in" / "first") == {os.path.realpath(tmp_path / "in") + "/a/"}
        append(tmp_path / "a" / "x.csv", b"x")
        # Of the first one its closing may be told by itself.
        assert all_told(told, tmp_path / "in" / "second") <= {os.path.realpath(tmp_path / "in" / "first")}
        assert len(source._folders) == len(source._numbers) == 1


@on_linux
def test_folders_that_come_and_go_leave_no_watch_behind(tmp_path: Path) -> None:
    with told_by(notices.InotifyNotices, {tmp_path: True}) as (source, told):
        for number in range(20):
            (tmp_path / f"checkpoint{number % 3}" / "deep").mkdir(parents=True)
            shutil.rmtree(tmp_path / f"checkpoint{number % 3}")
        all_told(told, tmp_path / "last")
        assert len(source._folders) == len(source._numbers) == 1


def test_a_watched_folder_that_was_made_anew_is_watched_again_when_asked(tmp_path: Path, way: Any) -> None:
    own = tmp_path / "own"
    own.mkdir()
    asked = {os.path.realpath(tmp_path): False, os.path.realpath(own): True}
    with told_by(way, {tmp_path: False, own: True}) as (source, told):
        own.rmdir()
        own.mkdir()
        assert os.path.realpath(own) + os.sep in all_told(told, tmp_path / "first")
        source.watch(asked)
        append(own / "x.csv", b"x")
        assert os.path.realpath(own / "x.csv") in all_told(told, tmp_path / "second")


@on_linux
def test_lost_notices_call_for_a_look_at_everything_and_lose_no_folder(tmp_path: Path) -> None:
    """What the kernel gives where its queue was full; what came meanwhile is watched from then on."""
    real = os.path.realpath(tmp_path)
    with told_by(notices.InotifyNotices, {tmp_path: True}) as (source, told):
        assert source._paths([(-1, notices._Q_OVERFLOW, 0, "")]) == {real + os.sep}
        with source._lock:  # the thread of notices waits, and its queue is emptied under it
            (tmp_path / "a" / "b").mkdir(parents=True)
            list(source._inotify.read(timeout=0))
            source._paths([(-1, notices._Q_OVERFLOW, 0, "")])
        append(tmp_path / "a" / "b" / "x.csv", b"x")
        assert f"{real}/a/b/x.csv" in all_told(told, tmp_path / "last")


@on_linux
def test_a_queue_that_overflows_costs_no_row(
    started: Follower, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More changes than the kernel keeps, while nobody takes them."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"the kernel keeps {limit} notices here")
    source = started._source
    assert isinstance(source, notices.InotifyNotices)
    overflows: list[set[str]] = []
    begin_anew = source._begin_anew
    monkeypatch.setattr(source, "_begin_anew", lambda: overflows.append(begin_anew()) or overflows[-1])
    with source._lock:
        for number in range(limit // 2 + 2):  # a write and a close each
            (logs / f"no{number % 7}.txt").write_bytes(b"x")
        append(logs / "run1" / "training.csv", b"2,0.25\n")
        write(logs / "run2" / "training.csv")
    found = until(started, lambda found: bool(found.get("run1") and found.get("run2")))
    assert (found["run1"], found["run2"]) == ([2], [0, 1])
    assert overflows


@pytest.mark.parametrize("times", [1, 2])
def test_after_stop_no_thread_is_left_and_nothing_is_told(tmp_path: Path, way: Any, times: int) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    with told_by(way, {tmp_path: True}) as (source, told):
        for _ in range(times):
            source.stop()
        source.join(PATIENCE_S)
        append(tmp_path / "x.csv", b"x")
        source.watch({os.path.realpath(tmp_path): True})
        assert told.empty()
    assert {thread.ident for thread in threading.enumerate()} <= before


@on_linux
def test_stop_closes_what_was_open(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with told_by(notices.InotifyNotices, {tmp_path: True}):
        assert set(os.listdir("/proc/self/fd")) > before
    assert set(os.listdir("/proc/self/fd")) <= before


def test_watchdogs_own_words_do_not_reach_the_screen(logs: Path) -> None:
    """It logs that it was stopped, or lost a race; without a handler Python writes that to stderr."""
    code = (
        "import sys, logging; from cbmon import notices, sources; sources.Notices = notices.WatchdogNotices;"
        "follower = sources.Follower(sys.argv[1:]); list(follower.read()); follower.start();"
        "logging.getLogger('watchdog.observers').error('x'); follower.stop()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(logs)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_deleted_log_is_missing_since_it_was_first_not_found(logs: Path) -> None:
    clock = iter(range(100, 200))
    follower = Follower([str(logs)], now=lambda: next(clock))
    path, run = logs / "run1" / "training.csv", Run()

    def missing_since() -> float | None:
        for log, events in follower.read():
            for event in events if log.path == path else ():
                fold(run, event)
        assert run.seen
        return run.seen.missing_since

    assert missing_since() is None
    path.unlink()
    since = missing_since()
    assert since is not None
    assert missing_since() == since, "not since the latest look"
    assert list(run.current.epochs) == [0, 1], "what it told stays"
    write(path)
    assert missing_since() is None
    path.unlink()
    path.parent.rmdir()
    write(path.parent)
    assert missing_since() is not None, "a file stands where its folder was"


@pytest.mark.parametrize("data", [PROSE, b"\x7fELF\0\0", b""])
def test_a_file_named_after_its_folder_is_judged_as_one_that_is_named(logs: Path, data: bytes) -> None:
    named = write(logs / "run1" / "notes.txt", data)
    found, alone = find([str(logs), str(named)]), find([str(named)])
    assert shown(found) == shown(alone)
    assert [log.path for log in found.logs if log.path == named] == [log.path for log in alone.logs]


# Logs that were emptied under their writer


def hole(size: int, rows: bytes, path: Path) -> Path:
    """What `> training.log` leaves: the writer goes on where it was."""
    with path.open("wb") as file:
        file.seek(size)
        file.write(rows)
    return path


@pytest.mark.parametrize("size", [1, 100, SNIFF_BYTES - 3, SNIFF_BYTES, 70_000, 9_000_001])
@pytest.mark.parametrize("name", ["training.log", "x.csv", "odd"])
def test_a_hole_at_the_beginning_is_passed_over_with_a_warning(tmp_path: Path, name: str, size: int) -> None:
    path = hole(size, LOG, tmp_path / name)
    (log,) = find([str(path)]).logs
    run = Run()
    for event in read_whole(log, 0.0):
        fold(run, event)
    assert list(run.current.epochs) == [0, 1]
    (warning,) = map(str, run.warnings)
    assert (
        warning
        == f"begins with {size:,} NUL bytes, as a file does that is emptied while it is written: passed over"
    )


def test_a_log_emptied_under_its_writer_is_read_on_as_a_cold_read_does(path: Path) -> None:
    log = reading(path)
    with path.open("r+b") as writer:
        writer.seek(0, os.SEEK_END)
        read_all(log)
        os.truncate(path, 0)
        assert isinstance(read_all(log)[0], RecordReplaced)
        writer.write(LOG)
        writer.flush()
        assert epochs(read_all(log)) == [0, 1]
        writer.write(b"2,0.25\n")
        writer.flush()
        assert epochs(read_all(log)) == [2]
    assert epochs(list(read_whole(reading(path), 0.0))) == [0, 1, 2]


def test_rows_behind_a_hole_without_their_header_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = hole(5000, b"7,0.5\n8,0.25\n", tmp_path / "training.log")
    for paths in ([str(path)], [str(tmp_path)]):
        reason = shown(find(paths))["training.log"]
        assert "emptied while it was written" in reason
        assert "tr -d" in reason


@pytest.mark.parametrize("data", [b"", b"\0" * 10, b"\x89PNG\0\0\n", b"prose\n", b"epoch,loss\n0,\0\n"])
def test_other_files_that_begin_with_nul_bytes_are_binary(tmp_path: Path, data: bytes) -> None:
    path = hole(5000, data, tmp_path / "x.csv")
    path.write_bytes(path.read_bytes() or b"\0" * 5000)
    assert shown(find([str(path)])) == {"x.csv": "a binary file"}
