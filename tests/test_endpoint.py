"""The process at the other end: gone is said only where nothing else is possible; and the wire to it."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbmon.endpoint import (
    Answer,
    Ask,
    Attach,
    Dropped,
    FromTrainer,
    FromWatcher,
    Goodbye,
    Hello,
    Lines,
    NoAnswer,
    NoWire,
    connect,
    decode_from_trainer,
    decode_from_watcher,
    encode_frame,
    is_gone,
    own_folder,
    peer_pid,
    peer_uid,
    runtime_folders,
    socket_name,
    socket_paths,
    this_process,
    who,
)
from cbmon.events import Process

pytestmark = pytest.mark.skipif(
    this_process().boot_id is None, reason="this platform does not tell its boot id"
)


def but(process: Process, **facts: object) -> Process:
    return msgspec.structs.replace(process, **facts)


def facts_of(pid: int) -> Process:
    """What the process itself would have recorded."""
    with open(f"/proc/{pid}/stat") as stat:
        start = int(stat.read().rpartition(")")[2].split()[19])
    return but(this_process(), pid=pid, start=start)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_this_process_names_itself_completely() -> None:
    here = this_process()
    assert here.pid == os.getpid()
    assert here.host
    assert here.pid_namespace
    assert here.start is not None
    assert here == this_process()


def test_a_living_process_is_not_gone(child: subprocess.Popen[bytes]) -> None:
    assert not is_gone(this_process())
    assert not is_gone(facts_of(child.pid))


def test_an_ended_process_is_gone(child: subprocess.Popen[bytes]) -> None:
    process = facts_of(child.pid)
    child.kill()
    child.wait()
    assert is_gone(process)


def test_a_zombie_is_gone(child: subprocess.Popen[bytes]) -> None:
    process = facts_of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, not collected
    assert is_gone(process)


def test_a_pid_that_another_process_has_now_is_gone() -> None:
    here = this_process()
    assert here.start is not None
    assert is_gone(but(here, start=here.start - 1))


@pytest.mark.parametrize(
    "facts",
    [
        {"host": "elsewhere"},
        {"boot_id": "another boot"},
        {"pid_namespace": "pid:[1]"},
        {"boot_id": None},
        {"pid_namespace": None},
    ],
)
def test_a_process_that_cannot_be_seen_from_here_is_not_called_gone(
    child: subprocess.Popen[bytes], facts: dict[str, object]
) -> None:
    process = facts_of(child.pid)
    child.kill()
    child.wait()
    assert is_gone(process)
    assert not is_gone(but(process, **facts))


@pytest.mark.parametrize("pid", [0, -1, 2**80])
def test_a_number_that_is_no_pid_is_not_called_gone(pid: int) -> None:
    assert not is_gone(but(this_process(), pid=pid))


def test_a_living_pid_of_unknown_start_is_not_called_gone() -> None:
    assert not is_gone(but(this_process(), start=None))


def test_a_platform_that_tells_nothing_never_says_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    process = but(this_process(), boot_id=None)
    monkeypatch.setattr("cbmon.endpoint._boot_id", lambda: None)
    assert this_process().boot_id is None
    assert not is_gone(process)


# The protocol of the live wire.


FRAMES: list[FromTrainer] = [
    Hello(run_id="r", started=1.5, name="run.jsonl", process=this_process(), control=True, replays=False),
    Answer(id=3, done=True, words="learning rate 0.1 → 0.05", old=0.1, new=0.05, path="/a.keras"),
    Dropped(progress=3, events=2),
    Goodbye(words="the fit has ended"),
]
ASKS: list[FromWatcher] = [
    Attach(run_id="r", who="ana@lab:7", role="ctl"),
    Ask(id=1, what="lr", value=3e-4),
    Ask(id=2, what="save", path="/a.keras"),
]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_to_a_watcher_comes_back_as_it_was(frame: FromTrainer) -> None:
    line = encode_frame(frame)
    assert line.startswith(b'{"frame":')
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    assert decode_from_trainer(line) == decode_from_trainer(line[:-1]) == frame


@pytest.mark.parametrize("frame", ASKS)
def test_a_frame_to_a_trainer_comes_back_as_it_was(frame: FromWatcher) -> None:
    assert decode_from_watcher(encode_frame(frame)) == frame


def test_what_a_newer_cbmon_adds_is_ignored() -> None:
    assert decode_from_trainer(b'{"frame":"goodbye","words":"x","new":[1]}') == Goodbye(words="x")
    assert decode_from_trainer(b'{"frame":"fanfare"}') is None
    assert decode_from_trainer(b'{"event":"fanfare"}') is None
    assert decode_from_watcher(b'{"what":"stop","new":{},"id":1,"frame":"ask"}') == Ask(id=1, what="stop")
    assert decode_from_watcher(b'{"frame":"fanfare","id":[]}') is None


@pytest.mark.parametrize("frame", [b'{"frame":"goodbye","words":"x"}', b'{"event":"heartbeat"}'])
def test_each_side_takes_what_is_meant_for_it_alone(frame: bytes) -> None:
    assert decode_from_trainer(frame) is not None
    if frame.startswith(b'{"event"'):
        with pytest.raises(NoWire):
            decode_from_watcher(frame)
    else:
        assert decode_from_watcher(frame) is None


GARBAGE = [b"", b"\0", b"[]", b"7", b"{", b'{"frame":7}', b"\xff\xfe", b'{"id":1}', b"[" * 9999, b'"' * 3]


@pytest.mark.parametrize(
    "line", [*GARBAGE, b'{"frame":"ask","id":"1","what":"stop"}', b'{"frame":"ask","id":1}']
)
def test_garbage_from_a_watcher_is_no_frame(line: bytes) -> None:
    with pytest.raises(NoWire, match="a watcher sent what is no frame"):
        decode_from_watcher(line)


@pytest.mark.parametrize("line", [*GARBAGE, b'{"frame":"answer","id":1}'])
def test_garbage_from_a_trainer_is_no_frame(line: bytes) -> None:
    with pytest.raises(NoWire, match="the trainer sent what is no frame"):
        decode_from_trainer(line)


def mutated(line: bytes, cuts: list[tuple[int, bytes]]) -> bytes:
    for at, with_ in cuts:
        line = line[: at % (len(line) + 1)] + with_ + line[at % (len(line) + 1) + len(with_) % 3 :]
    return line


@settings(max_examples=3000, deadline=None)
@given(
    st.sampled_from([encode_frame(each) for each in [*ASKS, *FRAMES]]),
    st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=5)), max_size=4),
)
def test_any_line_is_a_frame_or_ignored_or_refused(line: bytes, cuts: list[tuple[int, bytes]]) -> None:
    line = mutated(line, cuts)
    with contextlib.suppress(NoWire):
        frame = decode_from_watcher(line)
        assert frame is None or isinstance(frame, Attach | Ask)
        if isinstance(frame, Ask):
            assert isinstance(frame.id, int)
            assert all(value is None or isinstance(value, float) for value in (frame.value, frame.scale))
    with contextlib.suppress(NoWire):
        decode_from_trainer(line)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=30)), st.lists(st.integers(1, 20)))
def test_how_the_bytes_were_cut_does_not_matter(parts: list[bytes], sizes: list[int]) -> None:
    data, lines, found = b"\n".join(parts), Lines(1000), []
    for size in [*sizes, len(data) + 1]:
        found += lines.feed(data[:size])
        data = data[size:]
    assert found == b"\n".join(parts).split(b"\n")[:-1]


def test_a_line_longer_than_the_limit_is_refused_before_it_ends() -> None:
    lines = Lines(10)
    assert lines.feed(b"123456789\n") == [b"123456789"]
    assert lines.feed(b"123456789") == []
    with pytest.raises(NoWire, match="more than 10 bytes"):
        lines.feed(b"0")
    with pytest.raises(NoWire):
        Lines(10).feed(b"1234567890\n1\n")


def test_a_name_with_a_lone_surrogate_can_be_sent() -> None:
    frame = decode_from_trainer(encode_frame(Goodbye(words="a\udc80b")))
    assert frame == Goodbye(words="a\\udc80b")


def test_who_names_user_host_and_process() -> None:
    assert who().endswith(f":{os.getpid()}")
    assert "@" in who()


def test_a_socket_is_named_after_the_real_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run.jsonl")
    (tmp_path / "run.jsonl").touch()
    assert socket_name(tmp_path / "link") == socket_name(tmp_path / "run.jsonl")
    assert socket_name(tmp_path / "run.jsonl") != socket_name(tmp_path / "other.jsonl")
    assert re.fullmatch(r"[0-9a-f]{32}\.sock", socket_name("a" * 9999))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="cb") as folder:
        yield Path(folder)


def test_own_folder_is_made_private_and_of_several_the_first_usable_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "file").touch()
    (place / "wide").mkdir()
    (place / "wide").chmod(0o777)
    folders = [place / "file", place / "none" / "deep", place / "wide", place / "new"]
    monkeypatch.setattr("cbmon.endpoint.runtime_folders", lambda: folders)
    assert own_folder() == place / "new"
    assert (place / "new").stat().st_mode & 0o777 == 0o700
    assert socket_paths("run.jsonl") == [place / "new" / socket_name("run.jsonl")]
    folders.pop()
    with pytest.raises(NoWire) as refused:
        own_folder()
    for words in ("file: not a folder", "deep: No such file", "wide: open to others"):
        assert words in str(refused.value)


@pytest.fixture
def folders(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sockets may be, all below one folder: "own", "login", "tmp", "job"."""
    for name, mode in (("own", 0o700), ("login", 0o755), ("tmp", 0o1777), ("job", 0o700)):
        (place / name).mkdir()
        (place / name).chmod(mode)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "own"))
    monkeypatch.setenv("TMPDIR", str(place / "job"))
    monkeypatch.setattr("cbmon.endpoint._LOGIN_FOLDERS", str(place / "login"))
    monkeypatch.setattr("cbmon.endpoint._COMMON", str(place / "tmp"))
    return place


def test_the_folder_that_all_share_comes_before_a_job_s_own(folders: Path) -> None:
    uid = os.geteuid()
    names = ["own/cbmon", f"login/{uid}/cbmon", f"tmp/cbmon-{uid}", f"job/cbmon-{uid}"]
    expected = [name for name in names if sys.platform == "linux" or not name.startswith("login")]
    assert [str(path.relative_to(folders)) for path in runtime_folders()] == expected


def test_who_logs_in_finds_the_socket_of_a_job_with_a_tmpdir_of_its_own(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    trainers = own_folder()
    monkeypatch.delenv("TMPDIR")
    assert [path.parent for path in socket_paths("run.jsonl")] == [trainers]
    assert trainers.parent == folders / "tmp"


@pytest.mark.parametrize("fault", ["a file", "open to others", "missing"])
def test_a_job_s_own_folder_is_better_than_none(
    folders: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    common = folders / "tmp" / f"cbmon-{os.geteuid()}"
    if fault == "a file":
        common.touch()
    elif fault == "open to others":
        common.mkdir()
        common.chmod(0o755)
    else:
        shutil.rmtree(folders / "tmp")
    assert own_folder().parent == folders / "job"


@pytest.mark.parametrize(
    "fault",
    ["empty", "relative", "missing", "a file", "a link", "writable by others", "somebody else's", "NUL"],
)
def test_a_runtime_folder_that_is_not_the_users_own_is_left_alone(
    folders: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.chdir(folders)
    given = folders / "own"
    if fault in ("missing", "a file", "a link"):
        given.rmdir()
    if fault == "a file":
        given.touch()
    elif fault == "a link":
        given.symlink_to(folders / "job")
    elif fault == "writable by others":
        given.chmod(0o770)
    elif fault == "somebody else's":
        os.chown(given, 12345, -1) if os.geteuid() == 0 else pytest.skip("needs root")
    value = {"empty": "", "relative": "own", "NUL": "/x\0y"}.get(fault, str(given))
    if fault == "NUL":  # no environment has one
        monkeypatch.setattr("cbmon.endpoint.os.environ", {"XDG_RUNTIME_DIR": value})
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert own_folder().parent == folders / "tmp"
    assert not os.path.lexists(folders / "own" / "cbmon")
    assert not os.path.lexists(folders / "job" / "cbmon")


def test_a_runtime_folder_that_others_may_only_read_is_taken(folders: Path) -> None:
    (folders / "own").chmod(0o755)
    assert own_folder() == folders / "own" / "cbmon"


def test_a_trainer_imports_nothing_to_listen_so_a_fork_meets_no_half_imported_module() -> None:
    asks = """
import sys, cbmon.callbacks
from cbmon.endpoint import own_folder, socket_name
before = set(sys.modules)
own_folder(), socket_name("run.jsonl")
print(sorted(set(sys.modules) - before))
"""
    found = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.fixture
def listener(place: Path) -> Iterator[tuple[socket.socket, Path]]:
    """Somebody who listens."""
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(place / "a.sock"))
        end.listen()
        yield end, place / "a.sock"


def test_connect_gives_a_connection_to_a_process_of_the_same_user(
    listener: tuple[socket.socket, Path],
) -> None:
    end, path = listener
    with connect(path) as ours:
        theirs, _ = end.accept()
        with theirs:
            assert peer_uid(ours) == peer_uid(theirs) == os.geteuid()
            if sys.platform == "linux":
                assert peer_pid(theirs) == os.getpid()


@pytest.mark.parametrize("there", ["nothing", "a link", "a file", "a dead socket", "too long", "no path"])
def test_connect_refuses_what_is_no_socket_of_the_users_own(
    listener: tuple[socket.socket, Path], place: Path, there: str
) -> None:
    end, path = listener
    odd = place / "odd"
    if there == "a link":
        odd.symlink_to(path)
    elif there == "a file":
        odd.touch()
    elif there == "a dead socket":
        end.close()
        odd = path
    elif there == "too long":
        odd = place / ("x" * 200)
    with pytest.raises(NoWire):
        connect("a\0b" if there == "no path" else odd)


@pytest.mark.parametrize("uid", [12345, None])
def test_connect_refuses_a_listener_of_another_user(
    listener: tuple[socket.socket, Path], monkeypatch: pytest.MonkeyPatch, uid: int | None
) -> None:
    monkeypatch.setattr("cbmon.endpoint.peer_uid", lambda end: uid)
    with pytest.raises(NoWire, match="somebody else listens"):
        connect(listener[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_connect_does_not_even_knock_at_a_socket_of_another_user(
    listener: tuple[socket.socket, Path],
) -> None:
    end, path = listener
    os.chown(path, 12345, -1)
    with pytest.raises(NoWire, match="somebody else's"):
        connect(path)
    end.setblocking(False)
    with pytest.raises(BlockingIOError):
        end.accept()


def test_a_platform_that_does_not_tell_its_peers_is_asked_another_way(
    listener: tuple[socket.socket, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbmon.endpoint._PEERCRED", None)
    with connect_unchecked(listener[1]) as ours:
        assert peer_uid(ours) in (None, os.geteuid())  # None: no getpeereid, as on Linux
        assert peer_pid(ours) is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses like nobody")
def test_a_listener_that_lets_nobody_in_is_told_from_none(place: Path) -> None:
    path = place / "full.sock"
    with socket.socket(socket.AF_UNIX) as end, contextlib.ExitStack() as before:
        end.bind(str(path))
        end.listen(0)
        before.enter_context(connect_unchecked(path))
        with pytest.raises(NoAnswer, match="lets nobody in"):
            connect(path, timeout_s=0.1)
    with pytest.raises(NoWire) as refused:
        connect(path, timeout_s=0.1)
    assert not isinstance(refused.value, NoAnswer)


def connect_unchecked(path: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.connect(str(path))
    return end
