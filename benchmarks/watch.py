"""`cbmon watch` measured behind a real pty, beside the peers that are installed: the watch rows of DESIGN §8.

Run: python -m benchmarks.watch [--peers BIN] [--runs N] [--only NAME]

`--peers` is the bin folder of an environment with epokio, terminalboard, lightning-metrics-tui (`ltui`; beside
plotext 6 it draws nothing: `plotext<6`) and wandb (`leet`); those that are not there are named. Start, memory and
idle figures come from shared/tools/pty_measure.py, the others from the pty here. What is measured is the `cbmon`
beside the interpreter: one installed from a wheel starts 25 ms sooner than an editable one.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import random
import re
import select
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parent.parent
MEASURE = ROOT.parent / "shared" / "tools" / "pty_measure.py"
COLUMNS, ROWS = 160, 45
CBMON = [str(Path(sys.executable).parent / "cbmon"), "watch"]
NAMES = ("loss", "val_loss", "accuracy", "val_accuracy", "mae")
UNITS = (("marker", "s"), ("peak", "MiB"), ("idle_cpu", "%"), ("bytes_s", "B/s"), ("exit_s", "s"))
"""What pty_measure tells: data on screen, most memory, while idle, until it ends."""
_ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]")
BRAILLE = re.compile(rb"\xe2[\xa0-\xa3][\x80-\xbf]")
_ANSWERS = {b"\x1b[?2026$p": b"\x1b[?2026;2$y", b"\x1b[c": b"\x1b[?62;22c"}


def write_log(path: Path, rows: int, metrics: int = 4) -> Path:
    """A log of falling, noisy curves."""
    noise = random.Random(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        file.write(",".join(("epoch", *NAMES[:metrics])) + "\n")
        for epoch in range(rows):
            values = (1 / (1 + epoch * 10 / rows) + noise.random() * 0.1 for _ in range(metrics))
            file.write(f"{epoch},{','.join(map(repr, values))}\n")
    return path


def write_lightning(path: Path, rows: int) -> None:
    """The same for ltui, which reads PyTorch Lightning's metrics.csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        file.write("epoch,step,train_loss,val_loss\n")
        file.writelines(f"{n},{n * 10},{1 / (n + 1)},{1.1 / (n + 1)}\n" for n in range(rows))


class Screen:
    """A command behind a pty, and what it writes."""

    def __init__(self, *command: str) -> None:
        """Start it."""
        self.started = time.monotonic()
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", LANG="C.UTF-8")
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            os.execvp(command[0], command)
        self.written = bytearray()

    def read(self, until: Callable[[bytes], bool], limit_s: float) -> float | None:
        """Read until what has come since the call is enough; the time of that moment, None if never."""
        begin, end = len(self.written), time.monotonic() + limit_s
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.file], [], [], left)[0]:
                break
            try:
                data = os.read(self.file, 1 << 16)
            except OSError:
                break
            now = time.monotonic()
            for question, answer in _ANSWERS.items():
                if question in data:
                    os.write(self.file, answer)
            self.written += data
            if until(bytes(self.written[begin:])):
                return now
        return None

    def wait_for(self, text: str, limit_s: float = 30) -> float:
        """When the text was first on the screen, in seconds from the start."""
        wanted = text.encode()
        if (moment := self.read(lambda data: wanted in _ESCAPES.sub(b"", data), limit_s)) is None:
            raise SystemExit(f"never on the screen: {text!r}")
        return moment - self.started

    def settle(self, limit_s: float = 30) -> float:
        """When it last wrote something before a second of silence, in seconds from the start."""
        last = self.started
        while (moment := self.read(lambda data: True, 1.0 if last > self.started else limit_s)) is not None:
            last = moment
        return last - self.started

    def rest(self, seconds: float) -> int:
        """Read on for so long; the bytes that came."""
        before = len(self.written)
        self.read(lambda data: False, seconds)
        return len(self.written) - before

    def cpu(self) -> float:
        """CPU seconds used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self) -> float:
        """The most memory held so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def quit(self) -> float:
        """Seconds from the key to the end of the process."""
        begin = time.monotonic()
        os.write(self.file, b"q")
        self.read(lambda data: False, 5)
        os.waitpid(self.pid, 0)
        os.close(self.file)
        return time.monotonic() - begin


def say(what: str, figure: str, target: str = "") -> None:
    """One line of the report."""
    print(f"  {what:72} {figure:>34}   {target}", flush=True)


def write_for_peers(folder: Path, peers: Path | None, runs: int, rows: int) -> None:
    """The same for terminalboard, and with wandb's own writer for leet; what cannot be written is left out."""
    writers = {"tensorboard": Path(sys.executable), "wandb": (peers or Path()) / "python"}
    for kind, python in writers.items():
        if peers and python.exists():
            command = [
                python,
                Path(__file__).with_name("peers.py"),
                kind,
                folder / kind,
                str(runs),
                str(rows),
            ]
            subprocess.run(list(map(str, command)), check=False, capture_output=True)


def starts(folder: Path, peers: Path | None, runs: int) -> None:
    """Start, memory and idle cost, ours and theirs, by pty_measure."""
    five, long = folder / "five", folder / "long"
    for number in range(5):
        write_log(five / f"run{number}" / "training.csv", 200)
        write_lightning(folder / "five-peers" / "lightning" / f"version_{number}" / "metrics.csv", 200)
    write_log(long / "run0" / "training.csv", 100_000)
    write_lightning(folder / "long-peers" / "lightning" / "version_0" / "metrics.csv", 100_000)
    write_for_peers(folder / "five-peers", peers, 5, 200)
    write_for_peers(folder / "long-peers", peers, 1, 100_000)
    commands = [
        ("5 runs x 200", "cbmon", [*CBMON, str(five)], "run3", "<= 0.25 s, <= 55 MiB, quit <= 0.2 s"),
        ("100,000 rows", "cbmon", [*CBMON, str(long)], "100000", "<= 0.5 s, <= 110 MiB, quit <= 0.2 s"),
    ]
    for what, own, other in (
        ("5 runs x 200", five, folder / "five-peers"),
        ("100,000 rows", long, folder / "long-peers"),
    ):
        commands += [
            (what, "epokio", ["epokio", "watch", "--root", str(own)], "run[03]", ""),
            (what, "ltui", ["ltui", str(other / "lightning")], r"metrics: \d", ""),
            (what, "terminalboard", ["terminalboard", str(other / "tensorboard")], "val_loss", ""),
            (what, "leet", ["wandb", "leet", str(other / "wandb" / "wandb")], "val_loss", ""),
        ]
    if not MEASURE.exists():
        print(f"  (no {MEASURE.name} beside the project: starts are not compared)")
        return
    for what, name, command, marker, target in commands:
        if name != "cbmon":
            program = peers and shutil.which(command[0], path=str(peers))
            if not program:
                say(f"{what}: {name}", "not installed")
                continue
            command[0] = program
        out = folder / "measured.json"
        subprocess.run(
            [sys.executable, str(MEASURE), "-n", str(runs), "--size", f"{COLUMNS}x{ROWS}", "--marker", marker,
             "--settle", "2", "--window", "5", "--json", str(out), "--", *command],
            check=False, capture_output=True,
        )  # fmt: skip
        found = json.loads(out.read_text()) if out.exists() else {}
        out.unlink(missing_ok=True)
        middle = found.get("median", found)
        figures = [
            f"{middle[key]:.2f} {unit}" if middle.get(key) is not None else f"never {unit}"
            for key, unit in UNITS
        ]
        say(f"{what}: {name}", "  ".join(figures), target)


def first_chart(folder: Path) -> None:
    """A million rows."""
    log = write_log(folder / "million" / "run0" / "training.csv", 1_000_000, 5)
    screen = Screen(*CBMON, str(log))
    moment = screen.read(lambda data: BRAILLE.search(data) is not None, 60)
    first = (moment or 0.0) - screen.started
    took = screen.settle(60)
    peak = screen.peak_mib()
    say(
        "1 M rows x 6 columns: its first chart, the last change",
        f"{first:.2f}, {took:.2f} s, peak {peak:.0f} MiB",
        "<= 1.0 s, <= 350 MiB",
    )
    screen.quit()
    for what, path, starts, target in (
        ("1 M rows", log, 3, "<= 100 ms"),
        ("100,000 rows", write_log(folder / "hundred" / "run0" / "training.csv", 100_000), 10, "<= 50 ms"),
    ):
        delays = key_delays(path, starts, presses=30 // starts)
        middle, worst = statistics.median(delays) * 1000, max(delays) * 1000
        say(
            f"{what}: keys while it loads, key to bytes: median, worst",
            f"{middle:.0f}, {worst:.0f} ms",
            target,
        )


def key_delays(log: Path, starts: int, presses: int) -> list[float]:
    """Seconds from a key to the page that it opens, pressed as soon as the run is on the screen."""
    delays = []
    for _ in range(starts):
        screen = Screen(*CBMON, str(log))
        screen.wait_for("run", 60)
        for press in range(presses):
            # Words that stand on one page alone: what a chart that grows writes meanwhile is no answer.
            answer = (b"warnings", b"train")[press % 2]
            begin = time.monotonic()
            os.write(screen.file, b"e")
            moment = screen.read(lambda data, wanted=answer: wanted in _ESCAPES.sub(b"", data), 2)
            delays.append((moment or begin + 2) - begin)
            screen.rest(0.03)
        screen.rest(1.5)
        screen.quit()
    return delays


def many(folder: Path) -> None:
    """A thousand runs, then a thousand updates a second."""
    paths = [write_log(folder / "many" / f"run{number:04}" / "training.csv", 200) for number in range(1000)]
    screen = Screen(*CBMON, str(folder / "many"))
    first = screen.wait_for("run0", 30)
    say(
        "1,000 runs x 200 epochs: runs on the screen, all of them",
        f"{first:.2f}, {screen.settle():.2f} s",
        "<= 1.5 s",
    )
    screen.rest(2)
    sent = 0
    for rate, seconds in ((50, 6.0), (1000, 20.0)):
        before, bytes_before, begin = screen.cpu(), len(screen.written), time.monotonic()
        until, already = begin + seconds, sent
        while (now := time.monotonic()) < until:
            due = already + int((now - begin) * rate)
            for number in range(sent, due):
                with paths[number % 1000].open("a") as file:
                    file.write(f"{200 + number // 1000},0.1,0.2,0.9,0.8\n")
            sent = due
            screen.rest(0.01)
        took = time.monotonic() - begin
        share, traffic = (screen.cpu() - before) / took, (len(screen.written) - bytes_before) / took
        target = "<= 6 % of a core, <= 1 KB/s" if rate == 1000 else ""
        say(f"1,000 runs, {rate} updates a second", f"{share:.1%} of a core, {traffic:,.0f} B/s", target)
        screen.rest(2)
    screen.quit()


def follow_epochs(screen: Screen, log: Path, first: int, count: int) -> tuple[list[float], list[int]]:
    """End epochs of the run on the chart; seconds until each is on the terminal, and its bytes."""

    def is_shown(data: bytes) -> bool:
        return len(data) > 40 or str(epoch + 1).encode() in _ESCAPES.sub(b"", data)

    pause = random.Random(1)
    delays, sizes = [], []
    for epoch in range(first, first + count):
        value = 0.09 + pause.random() * 0.01
        before = len(screen.written)
        with log.open("a") as file:
            file.write(f"{epoch},{value},{value},0.9,0.9\n")
            file.flush()
            begin = time.monotonic()
        moment = screen.read(is_shown, 2)
        delays.append((moment or begin + 2) - begin)
        screen.rest(0.15 + pause.random() * 0.1)
        sizes.append(len(screen.written) - before)
    return delays, sizes


def say_bytes(what: str, sizes: list[int]) -> None:
    """Bytes an epoch, apart for those at which an axis moved or a panel grew."""
    large = [size for size in sizes if size > 600]
    say(
        f"{what}: median; {len(large)} of {len(sizes)} moved an axis or a panel, most",
        f"{statistics.median(sizes):,.0f} B; {max(large, default=0):,} B",
        "<= 600 B; <= 4,200 B",
    )


def epochs(folder: Path, count: int = 60) -> None:
    """An epoch ends: how soon is it on the terminal, in how many bytes?"""
    write_log(folder / "live" / "run1" / "training.csv", 60)
    time.sleep(0.05)
    log = write_log(folder / "live" / "run0" / "training.csv", 60)  # the newest: on the chart
    screen = Screen(*CBMON, "--epochs", "200", str(folder / "live"))
    screen.wait_for("run1")
    screen.rest(2)
    follow_epochs(screen, log, 60, 3)  # until its pace is known, and has a line
    delays, sizes = follow_epochs(screen, log, 63, count)
    ordered = sorted(delays)
    middle, worst = ordered[len(ordered) // 2] * 1000, ordered[-1] * 1000
    say(
        "an epoch ends, to the terminal: median, worst",
        f"{middle:.1f}, {worst:.1f} ms",
        "p50 <= 10, p99 <= 30 ms",
    )
    say_bytes("bytes an epoch, --epochs 200", sizes)
    screen.quit()
    screen = Screen(*CBMON, str(folder / "live"))
    screen.wait_for("run1")
    screen.rest(2)
    _, sizes = follow_epochs(screen, log, 63 + count, count)
    say_bytes("bytes an epoch, the axis grows with the run", sizes)
    screen.quit()
    screen = Screen(*CBMON, str(folder / "live"))
    screen.settle()
    begin, before, traffic = time.monotonic(), screen.cpu(), screen.rest(20)
    share = (screen.cpu() - before) / (time.monotonic() - begin)
    say("nothing happens for 20 s", f"{traffic} B, {share:.2%} of a core", "0 B/s, <= 0.05 %")
    say("quit", f"{screen.quit():.2f} s", "<= 0.2 s")


def live(folder: Path, count: int = 60) -> None:
    """The same for a run that Monitor records, with its live wire attached."""
    folder = folder / "wired"
    folder.mkdir()
    picture = pyte.Screen(COLUMNS, ROWS)
    stream, fed = pyte.ByteStream(picture), 0
    command = [sys.executable, "-m", "benchmarks.one_run", str(folder / "run0.jsonl"), str(count), "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as training:
        while not list(folder.glob("*.jsonl")):
            time.sleep(0.01)
        screen = Screen(*CBMON, str(folder))
        screen.wait_for("run0")

        def is_shown(data: bytes) -> bool:
            nonlocal fed
            stream.feed(bytes(screen.written[fed:]))
            fed = len(screen.written)
            return f" {int(epoch) + 1}/" in picture.display[1]

        delays = []
        for line in training.stdout or ():
            epoch, moment = line.split()
            shown = screen.read(is_shown, 2)
            delays.append((shown or float(moment) + 2) - float(moment))
        screen.quit()
    ordered = sorted(delays[5:])
    say(
        "an epoch of Monitor's ends, hook to terminal: median, worst",
        f"{ordered[len(ordered) // 2] * 1000:.1f}, {ordered[-1] * 1000:.1f} ms",
        "p50 <= 10, p99 <= 30 ms",
    )


def main() -> None:
    """Measure all, or one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peers", type=Path, help="bin folder of an environment with the peers")
    parser.add_argument("--runs", type=int, default=3, help="runs of each start")
    parser.add_argument("--only", choices=["starts", "epochs", "live", "first_chart", "many"])
    options = parser.parse_args()
    print(f"cbmon watch at {COLUMNS}x{ROWS}: measured, and the target of DESIGN section 8")
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        if options.only in (None, "starts"):
            starts(folder, options.peers, options.runs)
        if options.only in (None, "epochs"):
            epochs(folder)
        if options.only in (None, "live"):
            live(folder)
        if options.only in (None, "first_chart"):
            first_chart(folder)
        if options.only in (None, "many"):
            many(folder)


if __name__ == "__main__":
    main()
