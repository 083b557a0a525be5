"""`cbmon doctor`: what will work here and what will not, a line each, with what to do about it.

Small functions gather facts, each from inputs that a test can give; `findings` makes lines of them and touches
nothing. Nobody's Keras is imported, no command is run, and what was tried is cleaned up again.
"""

from __future__ import annotations

import glob
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import import_module, metadata
from pathlib import Path
from threading import Event
from typing import Any

from cbmon import __version__
from cbmon.errors import CbmonError
from cbmon.mounts import Mount, mount_of
from cbmon.notices import Changed, Notices, reached_limit
from cbmon.profiles import find_profile
from cbmon.sources import POLL_S
from cbmon.units import plural, printable

NOTICE_S = 2.0
"""A notice that has not come by then does not come: they take a millisecond."""
FEW = 0.9
"""Share of a limit in use from which on the next program may be refused."""
FOLDERS_COUNTED = 100_000
"""Folders counted below the paths; a tree with more needs a better PATH, not a number."""
SMALLEST = (80, 24)
"""Columns and rows that the screen is made for."""
WATCHES_WANTED = 524_288
"""What distributions set max_user_watches to for people whose editors watch large trees."""
INSTANCES_WANTED = 1024


class Mark(Enum):
    """How well something works; the word says it without the glyph."""

    WORKS = "✓ works  "
    LIMITED = "▲ limited"
    FAILS = "✗ fails  "


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    mark: Mark
    what: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A path and the file system that it lies on."""

    text: str
    exists: bool
    mount: Mount | None = None
    """None where the platform does not tell."""
    comes: bool | None = None
    """Whether a notice came of a file made there; None: not tried."""
    reason: str = ""
    """Why it was not tried, or what was refused."""
    folders: int = 0
    """Folders at and below the path: each needs a watch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """inotify's limits for this user, and what is in use of them; None where that cannot be read."""

    watches: int | None = None
    instances: int | None = None
    watches_used: int | None = None
    instances_used: int | None = None
    reached: str = ""
    """Which limit is reached, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """Where the screen would be drawn."""

    is_tty: bool
    encoding: str
    size: tuple[int, int]
    """Columns, rows."""
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What the driver tells of the GPUs."""

    names: Sequence[str] = ()
    driver: str = ""
    is_there: bool = False
    """Whether there is an NVIDIA driver, seen without its library."""
    reason: str = ""
    """Why the library could not ask it; empty if it could, or is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that `findings` needs."""

    places: Sequence[Place]
    limits: Limits
    terminal: Terminal
    gpus: Gpus
    versions: Mapping[str, str]
    """Of what is installed, by distribution; "python" among them."""
    profile: str
    """What replay would decide as."""
    profile_note: str = ""
    runtime_folder: str | None
    """XDG_RUNTIME_DIR if it is set."""
    runtime_fault: str = ""
    """Why it cannot be used."""


# --- gathering ------------------------------------------------------------------------------------------------


def place(text: str, mounts: Sequence[Mount], try_notices: Callable[[str], bool] | None = None) -> Place:
    """Find out about a PATH argument; where it is a file or a glob, about the folder it lies in."""
    path = os.path.expanduser(text)
    if not os.path.lexists(path):
        path = next(iter(sorted(glob.glob(path, recursive=True))), path)
    if not os.path.lexists(path):
        return Place(text=text, exists=False)
    real = os.path.realpath(path)
    folder = real if os.path.isdir(real) else os.path.dirname(real)
    mount = mount_of(real, mounts)
    comes, reason = None, ""
    if mount is None or not mount.is_blind:
        try:
            comes = (try_notices or notices_come)(folder)
        except OSError as error:
            reason = (error.strerror or str(error)).casefold()
    count = 0 if mount and mount.is_blind else count_folders(real)
    return Place(text=text, exists=True, mount=mount, comes=comes, reason=reason, folders=count)


def notices_come(folder: str) -> bool:
    """Try it: watch a folder as `watch` would, and see whether a file made there (hidden, our own) is told of."""
    told = Event()

    def listen(changed: Changed) -> None:
        if any(path.endswith("tried") for path in changed):
            told.set()

    notices = Notices(listen)
    try:
        with tempfile.TemporaryDirectory(prefix=".cbmon-doctor-", dir=folder) as own:
            notices.watch({folder: True})
            Path(own, "tried").write_bytes(b"")
            return told.wait(NOTICE_S)
    finally:
        notices.stop()


def count_folders(root: str) -> int:
    """Folders at and below a path, as far as they are counted."""
    count = 0
    for _ in os.walk(root):
        count += 1
        if count == FOLDERS_COUNTED:
            break
    return count


def limits(proc: str = "/proc", reached: Callable[[], str] = reached_limit) -> Limits:
    """The limits of inotify, and what our own processes have of them."""
    folder = Path(proc, "sys")
    instances = list(_instances(proc)) if os.path.isdir(os.path.join(proc, "self", "fd")) else None
    return Limits(
        watches=_lower(folder / "fs/inotify/max_user_watches", folder / "user/max_inotify_watches"),
        instances=_lower(folder / "fs/inotify/max_user_instances", folder / "user/max_inotify_instances"),
        watches_used=None if instances is None else sum(text.count("inotify wd:") for text in instances),
        instances_used=None if instances is None else len(instances),
        reached=reached(),
    )


def _instances(proc: str) -> Iterator[str]:
    """The kernel's description of each inotify instance of our own processes, a line a watch."""
    for process in glob.glob(os.path.join(glob.escape(proc), "[0-9]*")):
        try:
            handles = (
                os.listdir(os.path.join(process, "fd")) if os.stat(process).st_uid == os.geteuid() else []
            )
        except OSError:
            continue  # it has ended, or is not for us to see
        for handle in handles:
            try:
                link = os.readlink(os.path.join(process, "fd", handle))
            except OSError:
                continue
            if link == "anon_inode:inotify":
                yield _text(Path(process, "fdinfo", handle))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _lower(*paths: Path) -> int | None:
    """The lowest of the limits that are there: a container may have its own."""
    texts = [_text(path).strip() for path in paths]
    return min((int(text) for text in texts if text.isdecimal()), default=None)


def gpus(load: Callable[[str], Any] = import_module, driver: str = "/proc/driver/nvidia/version") -> Gpus:
    """Ask NVIDIA's library, if its Python side (nvidia-ml-py) is installed; never `nvidia-smi`."""
    is_there = os.path.exists(driver)
    try:
        nvml = load("pynvml")
    except ImportError:
        return Gpus(is_there=is_there)
    try:
        nvml.nvmlInit()
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(at) for at in range(nvml.nvmlDeviceGetCount())]
            names = [_str(nvml.nvmlDeviceGetName(handle)) for handle in handles]
            return Gpus(names=names, driver=_str(nvml.nvmlSystemGetDriverVersion()), is_there=True)
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        return Gpus(is_there=is_there, reason=str(error))


def _str(text: str | bytes) -> str:
    """Text as both ages of the library give it."""
    return text.decode(errors="replace") if isinstance(text, bytes) else text


BACKENDS = ("tensorflow", "tensorflow-cpu", "jax", "torch")
DISTRIBUTIONS = ("keras", "tf_keras", *BACKENDS, "textual", "polars", "watchdog")


def versions(ask: Callable[[str], str] = metadata.version) -> dict[str, str]:
    """What is installed, by its distribution's facts: nothing is imported."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in DISTRIBUTIONS:
        try:
            found[name] = ask(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def runtime_fault(folder: str) -> str:
    """Why a runtime folder cannot be trusted with a socket; empty if it can."""
    try:
        status = os.lstat(folder)
    except OSError as error:
        return (error.strerror or str(error)).casefold()
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    return "others may enter it" if status.st_mode & 0o077 else ""


def gather(
    paths: Sequence[str],
    mounts: Sequence[Mount],
    terminal: Terminal,
    *,
    profile_of: Callable[[], tuple[str, str]] | None = None,
) -> Facts:
    """Everything, as it is on this machine now."""
    profile, note = (profile_of or _profile)()
    runtime = terminal.environment.get("XDG_RUNTIME_DIR") or None
    return Facts(
        places=[place(text, mounts) for text in paths],
        limits=limits(),
        terminal=terminal,
        gpus=gpus(),
        versions=versions(),
        profile=profile,
        profile_note=note,
        runtime_folder=runtime,
        runtime_fault=runtime_fault(runtime) if runtime else "",
    )


def _profile() -> tuple[str, str]:
    try:
        profile, note = find_profile()
    except CbmonError as error:
        return "", str(error)
    return profile.name, note or ""


# --- telling --------------------------------------------------------------------------------------------------


def findings(facts: Facts) -> list[Finding]:
    """What the facts mean, in order: the paths, what they need, the screen, the machine, the software."""
    return [
        *map(_place, facts.places),
        *_limits(facts),
        *_terminal(facts.terminal),
        _gpu(facts.gpus),
        _keras(facts),
        _runtime(facts),
        _versions(facts.versions),
    ]


def lines(found: Sequence[Finding]) -> list[str]:
    """One line each, safe for any terminal."""
    width = max((len(printable(each.what, 40)) for each in found), default=0)
    return [
        f"{each.mark.value}  {printable(each.what, 40):<{width}}  {printable(each.words, 400)}"
        for each in found
    ]


def _place(place: Place) -> Finding:
    if not place.exists:
        return Finding(Mark.FAILS, place.text, "no such file or directory")
    on = f"on {place.mount.kind}: " if place.mount else ""
    if place.mount and place.mount.is_blind:
        return Finding(
            Mark.LIMITED,
            place.text,
            f"{on}what others write there is not told; cbmon looks every {POLL_S:g} s by itself",
        )
    if place.comes is None:
        return Finding(Mark.LIMITED, place.text, f"{on}not tried whether changes are told ({place.reason})")
    if not place.comes:
        return Finding(Mark.LIMITED, place.text, f"{on}changes are not told: use cbmon watch --poll")
    return Finding(Mark.WORKS, place.text, f"{on}changes are told at once")


def _limits(facts: Facts) -> Iterator[Finding]:
    """The two limits of inotify, where the system has them."""
    limits = facts.limits
    needed = sum(place.folders for place in facts.places)
    advice = "cbmon would look every {:g} s instead. More: sudo sysctl fs.inotify.{}={}"
    if limits.watches is not None:
        used = limits.watches_used or 0
        words = f"{used:,} of {limits.watches:,} in use by you, {plural(needed, 'folder')} to watch here"
        lacks = limits.reached or used + needed > limits.watches
        if lacks or used >= FEW * limits.watches:
            words += "; " + advice.format(POLL_S, "max_user_watches", max(WATCHES_WANTED, 2 * limits.watches))
        yield Finding(Mark.FAILS if lacks else _mark(used, limits.watches), "inotify watches", words)
    if limits.instances is not None:
        used = limits.instances_used or 0
        words = f"{used:,} of {limits.instances:,} in use by you"
        if used >= FEW * limits.instances:
            wanted = max(INSTANCES_WANTED, 2 * limits.instances)
            words += "; " + advice.format(POLL_S, "max_user_instances", wanted)
        lacks = used >= limits.instances
        yield Finding(Mark.FAILS if lacks else _mark(used, limits.instances), "inotify instances", words)


def _mark(used: int, limit: int) -> Mark:
    return Mark.LIMITED if used >= FEW * limit else Mark.WORKS


def _terminal(terminal: Terminal) -> Iterator[Finding]:
    environment = terminal.environment
    term = environment.get("TERM", "")
    if not terminal.is_tty:
        yield Finding(Mark.LIMITED, "terminal", "there is none here: watch writes lines, as with --plain")
        return
    if term in ("", "dumb", "unknown"):
        shown = f"TERM={term}" if term else "TERM is not set"
        yield Finding(
            Mark.LIMITED, "terminal", f"{shown}: watch writes lines; if it can more: TERM=xterm-256color"
        )
        return
    is_tmux = bool(environment.get("TMUX"))
    if is_tmux and not term.startswith(("tmux", "screen")):
        yield Finding(
            Mark.LIMITED,
            "terminal",
            f"TERM={term} inside tmux: put `set -g default-terminal tmux-256color` into ~/.tmux.conf",
        )
    else:
        yield Finding(Mark.WORKS, "terminal", f"TERM={term}{' inside tmux' if is_tmux else ''}")
    columns, rows = terminal.size
    is_small = columns < SMALLEST[0] or rows < SMALLEST[1]
    advice = f": the screen is made for {SMALLEST[0]}x{SMALLEST[1]} and more" if is_small else ""
    yield Finding(Mark.LIMITED if is_small else Mark.WORKS, "size", f"{columns}x{rows}{advice}")
    if terminal.encoding.casefold().replace("-", "") == "utf8":
        yield Finding(Mark.WORKS, "text", "UTF-8: curves in braille")
    else:
        encoding = terminal.encoding or "unknown"
        yield Finding(Mark.LIMITED, "text", f"{encoding}: curves in ASCII; for braille: export LANG=C.UTF-8")
    yield _colors(environment)


def _colors(environment: Mapping[str, str]) -> Finding:
    if environment.get("NO_COLOR"):
        return Finding(
            Mark.WORKS, "colours", "NO_COLOR is set: the terminal's own, and nothing by colour alone"
        )
    if environment.get("COLORTERM", "").casefold() in ("truecolor", "24bit"):
        return Finding(Mark.WORKS, "colours", f"16 million (COLORTERM={environment['COLORTERM']})")
    many = "256" if "256" in environment.get("TERM", "") else "16"
    return Finding(
        Mark.WORKS, "colours", f"{many}; if the terminal can more: export COLORTERM=truecolor (SSH drops it)"
    )


def _gpu(gpus: Gpus) -> Finding:
    if gpus.names:
        return Finding(Mark.WORKS, "GPU", f"{', '.join(gpus.names)}; driver {gpus.driver}")
    if gpus.reason:
        return Finding(Mark.LIMITED, "GPU", f"none seen: NVIDIA's library says {gpus.reason}")
    if gpus.is_there:
        return Finding(
            Mark.LIMITED, "GPU", "an NVIDIA driver is here: pip install nvidia-ml-py to see its GPUs"
        )
    return Finding(Mark.LIMITED, "GPU", "no GPU seen")


def _keras(facts: Facts) -> Finding:
    versions = facts.versions
    backends = ", ".join(
        f"{name} {versions[name]}"
        for name in BACKENDS
        if name in versions and not (name == "tensorflow-cpu" and "tensorflow" in versions)
    )
    beside = f" with {backends}" if backends else ""
    if not facts.profile:
        return Finding(
            Mark.FAILS, "Keras", f"{facts.profile_note}: give replay a version, such as --keras 3.15"
        )
    decides = f"replay decides as Keras {facts.profile}"
    if "tf_keras" in versions:
        decides += f", with --keras 2 as tf_keras {versions['tf_keras']}"
    if "keras" not in versions:
        return Finding(Mark.WORKS, "Keras", f"none here{beside}, and watching needs none; {decides}")
    mark = Mark.LIMITED if facts.profile_note else Mark.WORKS
    note = f" ({facts.profile_note})" if facts.profile_note else ""
    return Finding(mark, "Keras", f"{versions['keras']}{beside}: {decides}{note}")


def _runtime(facts: Facts) -> Finding:
    what, folder = "XDG_RUNTIME_DIR", facts.runtime_folder
    instead = "the temporary folder takes its place"
    if folder is None:
        return Finding(Mark.LIMITED, what, f"not set: {instead}")
    if facts.runtime_fault:
        return Finding(Mark.LIMITED, what, f"{folder}: {facts.runtime_fault}; {instead}")
    return Finding(Mark.WORKS, what, folder)


def _versions(versions: Mapping[str, str]) -> Finding:
    names = {"python": "Python"}
    shown = [
        f"{names.get(name, name)} {versions[name]}"
        for name in ("python", "textual", "polars", "watchdog")
        if name in versions
    ]
    return Finding(Mark.WORKS, "versions", ", ".join([f"cbmon {__version__}", *shown]))
