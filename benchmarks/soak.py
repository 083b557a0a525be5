"""A working day of `cbmon watch` in some minutes: eight simulated hours, fifty runs at a time; is its memory flat?

Run: python -m benchmarks.soak [--minutes 4.8] [--hours 8] [--runs 50] [--hz 20]

A real watch on a real pty follows a folder, with `--listen`, `--on-alert` and a policy. Beside it train six
processes (`benchmarks.trainers`): most runs are written by the real Monitor with its wire, others by CSVLogger and
through RemoteMonitor. Where one ends the next begins; some meet NaN or an exception, one file is emptied and begun
anew again and again, each hour a process is killed with -9. Every page is visited twice an hour, runs are
asked for other learning rates and for a stop. Epochs and runs are as many as in eight hours; looks within the epoch
(`--hz`) and what happens by the clock (every 5 and 30 s) are as many as in the real minutes: `--minutes 480` is
the day itself.

Flat means, and exit code 1 says that it is not so:
- After the first hour, in which each page was open once, the watcher grows by no more an hour than `SLACK_KIB` and
  what there is more to know. That is measured: a fresh watch visits the same pages over the folder as it was after
  the first hour, another one over the folder at the end. What the runs alone occupy is told beside it: the logs as
  they were at each hour are folded anew, by tracemalloc.
- When all trainings have ended it holds no more than `HANGOVER_MIB` above the fresh watch.
- It has then the files and threads open that it had before the first one, but for what it makes once (`ONCE`), no
  child, and nobody has left a socket or a temporary file.
- A trainer that lives through it all grows by no more than `SLACK_KIB` an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.trainers import Done, Plan
from benchmarks.watch import CBMON, COLUMNS, ROOT, ROWS, Screen, say
from cbmon.endpoint import Ask, NoWire
from cbmon.formats.sniff import Decoder, Refused, decoder, sniff
from cbmon.run import Run, fold
from cbmon.sources import Log
from cbmon.views import RunView, run_view
from cbmon.wire import Line

SLACK_KIB = 256.0
"""An hour: 2 MiB in eight. Two fresh watches of one folder differ by as much; each page that stayed is 200 KiB."""
HANGOVER_MIB = 4.0
"""What the allocator may keep in pieces after a day beyond what it keeps after one reading."""
ONCE = {"fds": 3, "threads": 2}
"""Made with the first run or alert and kept: the wires' selector and bell, their thread, that of --on-alert."""
LOAD_S, TOUR_S = 3.0, 0.25
"""For a fresh watch to read all; the shortest time between two keys: a lone Esc must not look like Alt."""
TOUR = (
    "e", "\x1b", "t", "\x1b[6~", "\x1b", "a", "j", "\x1b", "j", "\r", "+", "+", "<", "0", "\x1b[D", "\x1b", "\r",
    "\x1b", " ", "j", " ", "m", "M", "x", "y", "y", "]", "\x1b", "w", "\x1b[B", "\x1b[C", "\x1b", "?", "\x1b", "o",
    "o", "o", "o", "\x10", "\x1b", "/", "a", "1", "\r", "/", "\x7f", "\x7f", "\r", "\x1b", "G", "k", "g", "j", "L",
    "x", ".", "9", "\r", "y", "S", "\r", "j", "j", "\t", "k", "\x0c",
)  # fmt: skip
"""Each page once: alerts, epochs, summary, chart, marks, what-if, help, orders, palette, filter, a request."""
TOURS = 2
"""An hour, if they fit."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The watcher and its trainers at a moment."""

    hour: float
    rss: int
    """KiB."""
    fds: int
    threads: int
    children: int
    trainers: Mapping[int, int]
    """KiB by process."""


def status(pid: int, name: str) -> int:
    """A number of /proc/PID/status."""
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:  # a zombie has no memory
        raise SystemExit(f"process {pid} has ended by itself")
    return int(found[1])


def children(pid: int) -> int:
    """How many processes it has begun and not waited for."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(len(Path(task, "children").read_text().split()) for task in tasks if task.exists())


def sample(hour: float, pid: int, trainers: Sequence[int] = ()) -> Sample:
    """Look at the processes."""
    return Sample(
        hour,
        status(pid, "VmRSS"),
        len(os.listdir(f"/proc/{pid}/fd")),
        status(pid, "Threads"),
        children(pid),
        {each: status(each, "VmRSS") for each in trainers},
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Growth an hour, by least squares."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 1 else 0.0


# --- what the data occupy -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Folded:
    """A log as far as it was read."""

    log: Log
    decoder: Decoder
    run: Run = field(default_factory=Run)
    offset: int = 0
    view: RunView | None = None


@dataclass(frozen=True, slots=True)
class Weight:
    """What runs, decoders and their rows in the list occupy."""

    runs: int
    numbers: int
    bytes: int


def sizes(folder: Path) -> dict[Path, int]:
    """The logs as they are now."""
    return {path: path.stat().st_size for path in folder.rglob("*") if path.suffix in (".jsonl", ".csv")}


def weigh(hours: Sequence[Mapping[Path, int]]) -> list[Weight]:
    """Fold the logs as they were at each hour. One that was rewritten since has its last bytes at each."""
    held: dict[Path, Folded] = {}
    found = []
    tracemalloc.start()
    for logs in hours:
        for path, size in logs.items():
            read_on(held, path, size)
        occupied, _ = tracemalloc.get_traced_memory()
        attempts = [attempt for each in held.values() for attempt in each.run.attempts]
        columns = [c for a in attempts for table in (a.columns, a.seconds) for c in table.values()]
        columns += [column for a in attempts for column in (a.rate, a.times)]
        numbers = sum(map(len, columns)) + sum(len(attempt.epochs) for attempt in attempts)
        found.append(Weight(len(held), numbers, occupied))
    tracemalloc.stop()
    return found


def read_on(held: dict[Path, Folded], path: Path, size: int) -> None:
    """Fold a log up to a size, as the watcher does."""
    with path.open("rb") as file:
        head = file.read(1 << 12)
        form = sniff(head, path)
        if isinstance(form, Refused):
            return
        if path not in held or size < held[path].offset:
            held[path] = Folded(Log(path, path.stem, form), decoder(form))
        known = held[path]
        file.seek(known.offset)
        data = file.read(max(0, size - known.offset))
    for event in known.decoder.feed(data):
        fold(known.run, event)
    known.offset += len(data)
    known.view = run_view(known.log, known.run)


# --- the day --------------------------------------------------------------------------------------------------


class Trainers:
    """The processes that train: five that stay and one that is killed each hour."""

    def __init__(self, folder: Path, runs: int, hour_s: float, hz: float, url: str, words: Path) -> None:
        """Start them."""
        self._plan = Plan(folder=str(folder), name="", runs=0, hour_s=hour_s, hz=hz, url=url)
        self._words = words
        self._mayflies = 0
        share = max(1, runs // 10)
        stays = min(5, max(1, runs - share))
        counts = [(runs - share + at) // stays for at in range(stays)]
        self.staying = [
            self._start(name, count, url) for name, count in zip("abcde", counts, strict=False) if count
        ]
        self._share = share
        self.mayfly = self._start("f", share, "")

    def _start(self, name: str, runs: int, url: str) -> subprocess.Popen[bytes]:
        plan = json.dumps(asdict(self._plan) | {"name": name, "runs": runs, "url": url})
        with self._words.open("ab") as words:
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.trainers", plan],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=words, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def kill_one(self) -> None:
        """Kill the short-lived process, and begin another one in its place."""
        self._end(self.mayfly, signal.SIGKILL)
        self._mayflies += 1
        self.mayfly = self._start(f"f{self._mayflies}-", self._share, "")

    def _end(self, process: subprocess.Popen[bytes], number: int) -> bytes:
        process.send_signal(number)
        try:
            return process.communicate(timeout=30)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return process.communicate()[0]

    def end(self) -> list[Done]:
        """Have them end their fits and themselves; what they say they did."""
        told = [self._end(each, signal.SIGTERM) for each in [*self.staying, self.mayfly]]
        return [Done(**json.loads(text)) for text in told if text]

    def close(self) -> None:
        """Whatever happened: nothing of ours is left running."""
        for each in [*self.staying, self.mayfly]:
            if each.poll() is None:
                each.kill()
                each.communicate()


class Day:
    """What happens in a soak, by the simulated clock."""

    def __init__(self, screen: Screen, trainers: Trainers, hours: float, hour_s: float, folder: Path) -> None:
        """Take what is watched."""
        self.samples: list[Sample] = []
        self.by_hour: list[tuple[Sample, dict[Path, int]]] = []
        self.keys = self.bytes = self.asked = self.answered = 0
        self._screen, self._trainers, self._folder = screen, trainers, folder
        self._hours, self._hour_s = hours, hour_s
        self.first = folder.with_name("first")
        """A copy of the folder as it was after the first hour."""
        self._began = time.monotonic()
        self._choice = random.Random(0)
        self._tours = iter(TOUR * 10_000)
        key_s = max(TOUR_S, hour_s / (TOURS * len(TOUR)))
        self._due: list[tuple[float, float, Callable[[], None]]] = [
            (0.0, 1.0, self._sample),
            (key_s, key_s, self._press),
            (hour_s / 2, hour_s, self._trainers.kill_one),
            (hour_s / 3, hour_s / 2, lambda: self._ask("lr")),
            (hour_s / 1.5, hour_s, lambda: self._ask("stop")),
            (hour_s / 4, hour_s, self._resize),
            (hour_s, hour_s, self._keep_hour),
        ]
        """When next, how often, what."""

    def pass_by(self) -> None:
        """All of it."""
        while (now := time.monotonic() - self._began) < self._hours * self._hour_s:
            for at, (due, every, what) in enumerate(self._due):
                if now >= due:
                    self._due[at] = (due + every, every, what)
                    what()
            self.bytes += self._screen.rest(0.05)
            self._screen.written.clear()
        while len(self.by_hour) < int(self._hours):
            self._keep_hour()

    def now(self) -> Sample:
        """All processes, as they are."""
        hour = (time.monotonic() - self._began) / self._hour_s
        return sample(hour, self._screen.pid, [each.pid for each in self._trainers.staying])

    def _sample(self) -> None:
        self.samples.append(self.now())

    def _keep_hour(self) -> None:
        self.by_hour.append((self.now(), sizes(self._folder)))
        if len(self.by_hour) == 1:
            shutil.copytree(self._folder, self.first)

    def _press(self) -> None:
        os.write(self._screen.file, next(self._tours).encode())
        self.keys += 1

    def _resize(self) -> None:
        """To another size and back."""
        for rows in (ROWS - 10, ROWS):
            size = struct.pack("HHHH", rows, COLUMNS - 60 * (rows < ROWS), 0, 0)
            fcntl.ioctl(self._screen.file, termios.TIOCSWINSZ, size)
            self.bytes += self._screen.rest(0.3)

    def _ask(self, what: str) -> None:
        """Ask one of the runs for something, as `cbmon ctl` does."""
        folder = Path(os.environ["XDG_RUNTIME_DIR"], "cbmon")
        sockets = sorted(folder.glob("*.sock"))
        if not sockets:
            return
        self.asked += 1
        with contextlib.suppress(NoWire, TimeoutError, OSError):
            line = Line(self._choice.choice(sockets), 2.0)
            try:
                scale = 0.9 if what == "lr" else None
                self.answered += line.ask(Ask(id=1, what=what, scale=scale), 2.0).done
            finally:
                line.close()


def leave(screen: Screen) -> None:
    """Quit, whatever is open."""
    for _ in range(3):
        os.write(screen.file, b"\x1b")
        screen.rest(TOUR_S)
    screen.quit()


def fresh_watch(folder: Path) -> int:
    """KiB of a watch that reads the folder now, and visits each page."""
    screen = Screen(*CBMON, "--policy", "EarlyStopping(patience=20)", str(folder))
    try:
        screen.rest(LOAD_S)
        for key in TOUR:
            os.write(screen.file, key.encode())
            screen.rest(TOUR_S)
        screen.rest(LOAD_S)
        return status(screen.pid, "VmRSS")
    finally:
        leave(screen)


def free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as end:
        return int(end.getsockname()[1])


@contextlib.contextmanager
def places() -> Iterator[tuple[Path, Path]]:
    """A folder for everything and the one that is watched; sockets and temporary files go there as well."""
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as name:  # short: for the sockets' paths
        base = Path(name)
        for folder in ("logs", "run", "tmp"):
            (base / folder).mkdir(mode=0o700)
        before = dict(os.environ)
        tempfile.gettempdir()  # Python asks once, and this process has its own
        os.environ.update(XDG_RUNTIME_DIR=str(base / "run"), TMPDIR=str(base / "tmp"))
        try:
            yield base, base / "logs"
        finally:
            os.environ.clear()
            os.environ.update(before)


# --- the report -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All that was measured."""

    day: Day
    weights: list[Weight]
    done: list[Done]
    begun: Sample
    """Before the first training."""
    rest: Sample
    """After the last one."""
    fresh: int
    """KiB of a fresh watch at the end."""
    fresh_first: int
    """Of one over the folder as it was after the first hour."""
    left: list[str]
    """Sockets and temporary files."""
    words: list[str]
    """What the trainers said that is no answer to a request."""
    cpu: float
    took_s: float


def watched(base: Path, folder: Path, options: argparse.Namespace) -> Found:
    """Live through the day, and look at what is left."""
    port, hour_s = free_port(), options.minutes * 60 / options.hours
    screen = Screen(
        *CBMON, "--listen", f"127.0.0.1:{port}", "--on-alert", "cat", "--notify",
        "--policy", "EarlyStopping(patience=20)", str(folder),
    )  # fmt: skip
    try:
        screen.rest(LOAD_S)
        begun = sample(0, screen.pid)
        words = base / "words"
        trainers = Trainers(folder, options.runs, hour_s, options.hz, f"http://127.0.0.1:{port}", words)
        try:
            day, cpu = Day(screen, trainers, options.hours, hour_s, folder), screen.cpu()
            day.pass_by()
            cpu = screen.cpu() - cpu
            done = trainers.end()
        finally:
            trainers.close()
        screen.rest(options.rest)
        rest = sample(options.hours, screen.pid)
    finally:
        leave(screen)
    fresh_first, fresh = fresh_watch(day.first), fresh_watch(folder)
    own = Path(os.environ["XDG_RUNTIME_DIR"])
    left = [str(path.relative_to(base)) for place in (own, base / "tmp") for path in place.rglob("*.*")]
    return Found(
        day=day, weights=weigh([logs for _, logs in day.by_hour]), done=done, begun=begun, rest=rest,
        fresh=fresh, fresh_first=fresh_first, left=left, words=unexpected(words), cpu=cpu,
        took_s=options.hours * hour_s,
    )  # fmt: skip


def unexpected(words: Path) -> list[str]:
    """The lines of the trainers' stderr that answer nobody."""
    return [line for line in words.read_text().splitlines() if " asked for " not in line]


def judge(found: Found) -> list[str]:
    """What is not flat; [] if all is."""
    day, rest = found.day, found.rest
    later = [each for each in day.samples if each.hour >= 1]
    more = slope([(each.hour, each.rss) for each in later]) - fresh_slope(found)
    faults = [f"{more:,.0f} KiB an hour more than fresh watches"] if more > SLACK_KIB else []
    if (hangover := (rest.rss - found.fresh) / 1024) > HANGOVER_MIB:
        faults.append(f"{hangover:.1f} MiB more than a fresh watch")
    for name, spare in ONCE.items():
        before, after = getattr(found.begun, name), getattr(rest, name)
        if after > before + spare:
            faults.append(f"{after - before} {name} more than before the first training")
    faults += [f"{rest.children} children"] * (rest.children > 0)
    faults += [f"left: {', '.join(found.left[:5])}"] * bool(found.left)
    worst = max(trainer_slopes(later), default=0.0)
    faults += [f"a trainer grows {worst:,.0f} KiB an hour"] * (worst > SLACK_KIB)
    return faults


def fresh_slope(found: Found) -> float:
    """KiB an hour by which fresh watches grow: what there is more to know."""
    return (found.fresh - found.fresh_first) / max(1, len(found.weights) - 1)


def data_slope(found: Found) -> float:
    """KiB an hour by which the runs grow, from the first hour on."""
    return slope([(at, each.bytes / 1024) for at, each in enumerate(found.weights, 1)])


def trainer_slopes(samples: Sequence[Sample]) -> list[float]:
    """KiB an hour, of each process that stayed."""
    pids = samples[0].trainers if samples else ()
    return [
        slope([(each.hour, each.trainers[pid]) for each in samples if pid in each.trainers]) for pid in pids
    ]


def report(found: Found) -> None:
    """Print it all."""
    day, begun, rest = found.day, found.begun, found.rest
    print("  hour   RSS, MiB   runs' own   runs   numbers kept   fds   threads   a trainer, MiB")
    for at, ((seen, _), weight) in enumerate(zip(day.by_hour, found.weights, strict=True), 1):
        trainer = statistics.mean(seen.trainers.values()) / 1024
        print(
            f"  {at:4} {seen.rss / 1024:10.1f} {weight.bytes / 2**20:11.1f} {weight.runs:6} "
            f"{weight.numbers:14,} {seen.fds:5} {seen.threads:9} {trainer:16.1f}"
        )
    later = [each for each in day.samples if each.hour >= 1]
    own, data = slope([(each.hour, each.rss) for each in later]), data_slope(found)
    numbers = slope([(at, each.numbers) for at, each in enumerate(found.weights, 1)])
    say("growth an hour, from the first on", f"{own:,.0f} KiB")
    say("the same of fresh watches", f"{fresh_slope(found):,.0f} KiB", f"<= {SLACK_KIB:.0f} KiB less")
    say("of that the runs alone, folded anew", f"{data:,.0f} KiB")
    say("the bare numbers in them, 9 bytes each", f"{numbers:,.0f}, {numbers * 9 / 1024:,.0f} KiB")
    say(
        "all trainings over: this watch, a fresh one on the folder",
        f"{rest.rss / 1024:.1f}, {found.fresh / 1024:.1f} MiB",
        f"<= {HANGOVER_MIB:.0f} MiB more",
    )
    say("most memory of all samples", f"{max(each.rss for each in day.samples) / 1024:.1f} MiB")
    for name, spare in ONCE.items():
        most = max(getattr(each, name) for each in day.samples)
        figures = f"{getattr(begun, name)}, {most}, {getattr(rest, name)}"
        say(f"{name}: before the first run, most, after the last", figures, f"<= {spare} more")
    say(
        "children at the end; sockets and temporary files left", f"{rest.children}; {len(found.left)}", "0; 0"
    )
    slopes = trainer_slopes(later)
    say(
        "growth of the trainers an hour: median, most",
        f"{statistics.median(slopes or [0]):,.0f}, {max(slopes, default=0):,.0f} KiB",
        f"<= {SLACK_KIB:.0f} KiB",
    )
    looks, dropped = sum(each.looks for each in found.done), sum(each.dropped for each in found.done)
    say("looks into epochs sent over the wires, and dropped", f"{looks:,}, {dropped:,}")
    say("epochs that the receiver did not take", f"{sum(each.unposted for each in found.done)}")
    say("keys; requests by socket, done", f"{day.keys:,}; {day.asked}, {day.answered}")
    say("to the terminal", f"{day.bytes / found.took_s:,.0f} B/s")
    say("CPU of the watcher", f"{found.cpu / found.took_s:.1%} of a core")
    for line in sorted(set(found.words))[:10]:
        print(f"  a trainer said: {line}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Live through a day, and say whether it left something."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=4.8, help="real ones that the whole takes")
    parser.add_argument("--hours", type=float, default=8.0, help="simulated ones")
    parser.add_argument("--runs", type=int, default=50, help="at a time")
    parser.add_argument("--hz", type=float, default=20.0, help="looks a second into each epoch, at most")
    parser.add_argument(
        "--rest", type=float, default=8.0, help="seconds between the last training and the end"
    )
    options = parser.parse_args(arguments)
    if options.hours < 2:
        parser.error("--hours: two at least, growth is measured from the first one on")
    print(
        f"{options.hours:g} simulated hours of {options.runs} runs at a time in {options.minutes:g} minutes, "
        f"{options.hours * 60 / options.minutes:.0f} times as fast"
    )
    with places() as (base, folder):
        found = watched(base, folder, options)
    report(found)
    faults = judge(found)
    print(f"  not flat: {'; '.join(faults)}" if faults else "  flat")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
