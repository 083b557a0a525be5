"""The process at the other end: gone is said only where nothing else is possible; and the wire to it."""

import contextlib
import os
import re
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


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_a_runtime_folder_that_is_no_absolute_path_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert all(path.is_absolute() for path in runtime_folders())
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/somewhere")
    assert runtime_folders()[0] == Path("/run/somewhere/cbmon")


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


def connect_unchecked(path: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.connect(str(path))
    return end
