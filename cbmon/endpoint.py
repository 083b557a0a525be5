"""The process at the other end of a record: who writes it, and whether it is known to be gone.

A pid alone says nothing after a reboot, in another container or on another machine, and pids are used again.
So a record names all of host, boot, pid namespace, pid and start time, and `is_gone` says True only where all
of them can be compared and match. Standard library only; what the platform does not tell is None.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from cbmon.events import Process

_STATE, _START = 0, 19
"""Places of "state" and "starttime" among the fields of /proc/PID/stat that follow the command's name."""


def this_process() -> Process:
    """The facts of the calling process, as a record's `RunStarted` carries them."""
    pid = os.getpid()
    stat = _stat(pid)
    return Process(
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=pid,
        start=int(stat[_START]) if stat else None,
    )


def is_gone(process: Process) -> bool:
    """Whether the process is known to have ended; anything that cannot be compared means False.

    A zombie is gone: it will write no more.
    """
    here = (socket.gethostname(), _boot_id(), _pid_namespace())
    if None in here or (process.host, process.boot_id, process.pid_namespace) != here or process.pid <= 0:
        return False
    try:
        os.kill(
            process.pid, 0
        )  # 0: no signal, only the question; /proc may hide the processes of other users
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    stat = _stat(process.pid)
    if stat is None:
        return False
    return stat[_STATE] in "ZX" or process.start not in (None, int(stat[_START]))


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except (OSError, AttributeError):  # AttributeError: no links on this platform
        return None


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command's name, which may itself hold blanks and brackets."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None
    return fields if len(fields) > _START and fields[_START].isdecimal() else None
