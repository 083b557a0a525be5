"""The process at the other end: gone is said only where nothing else is possible."""

import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from cbmon.endpoint import is_gone, this_process
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
