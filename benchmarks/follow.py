"""What following costs: a row from disk to reader, 1,000 updates a second, polling, a log of a million rows.

CPU is that of the whole watching process, with the thread of notices; the writer is another one. Beside each figure
stands what is wanted of it (DESIGN §8). About 40 s.

Run: python -m benchmarks.follow
"""

from __future__ import annotations

import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from cbmon.events import EpochsEnded
from cbmon.run import Run, fold
from cbmon.sources import POLL_S, Follower, find

RUNS = 1000
ROWS = 1_000_000
HEADER = "epoch,accuracy,loss,learning_rate,val_accuracy,val_loss\n"
ROW = "{},0.8125,0.41230,0.001,0.79687,0.48217\n"

WRITER = """
import sys, time
rate, seconds = float(sys.argv[1]), float(sys.argv[2])
files = [open(name, "a", buffering=1) for name in sys.argv[3:]]
start, count = time.perf_counter(), 0
while (passed := time.perf_counter() - start) < seconds:
    while count < passed * rate:
        files[count % len(files)].write(f"{1000 + count},0.8125,0.41230,0.001,0.79687,0.48217\\n")
        count += 1
    time.sleep(0.001)
print(count)
"""


def tell(what: str, figure: str, wanted: str = "") -> None:
    """One line of the report."""
    print(f"{what:<58} {figure:<26} {wanted}", flush=True)


def make_runs(folder: Path, count: int, rows: int) -> list[Path]:
    """So many small logs, a folder each."""
    text = HEADER + "".join(ROW.format(epoch) for epoch in range(rows))
    paths = [folder / f"run{number}" / "training.csv" for number in range(count)]
    for path in paths:
        path.parent.mkdir()
        path.write_text(text)
    return paths


@contextmanager
def following(folder: Path, take: Callable[[int], None]) -> Iterator[Follower]:
    """A follower at work in a thread; `take` gets the number of rows of each batch as it is handed over."""
    follower = Follower([str(folder)])

    def follow() -> None:
        changed: set[Path] | None = None
        is_first = True
        while not follower.is_stopped:
            for _, events in follower.read(changed):
                take(sum(len(event.epochs) for event in events if isinstance(event, EpochsEnded)))
            if is_first:
                follower.start()
                is_first = False
            changed = follower.wait()

    thread = Thread(target=follow, daemon=True)
    thread.start()
    time.sleep(1.0)
    try:
        yield follower
    finally:
        follower.stop()
        thread.join()


def first_look(folder: Path) -> None:
    """Find and read everything; read a row of each; look at each without a change; look at everything again."""
    follower = Follower([str(folder)])
    start = time.perf_counter()
    list(follower.read())
    logs = list(follower.logs.values())
    tell(f"{len(logs)} runs x 200 epochs, found and read", f"{time.perf_counter() - start:.2f} s")
    spent = []
    for epoch in range(200, 205):
        for log in logs:
            with log.path.open("a") as file:
                file.write(ROW.format(epoch))
        spent.append(cpu_of(lambda: [log.read() for log in logs]))
    tell("one row read and decoded (Log.read), CPU", f"{min(spent) / len(logs) * 1e6:.1f} µs", "<= 40 µs")
    known = set(follower.logs)
    poll = min(cpu_of(lambda: list(follower.read(known))) for _ in range(5))
    tell(
        f"{len(logs)} known logs polled every {POLL_S:g} s, nothing new",
        f"{poll * 1e3:.1f} ms = {100 * poll / POLL_S:.2f} % of a core",
        "< 2 %",
    )
    look = min(cpu_of(lambda: list(follower.read())) for _ in range(3))
    tell(
        "looking at everything again (every 30 s)", f"{look * 1e3:.0f} ms = {100 * look / 30:.2f} % of a core"
    )


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def latency(count: int = 80) -> None:
    """From the end of `write` until the reader has the row, at random moments."""
    with tempfile.TemporaryDirectory() as name:
        (path,) = make_runs(Path(name), 1, 20)
        arrived: SimpleQueue[float] = SimpleQueue()
        with following(Path(name), lambda rows: arrived.put(time.perf_counter()) if rows else None):
            arrived.get()
            waits = []
            for epoch in range(20, 20 + count):
                time.sleep(random.uniform(0.06, 0.14))
                with path.open("a") as file:
                    file.write(ROW.format(epoch))
                written = time.perf_counter()
                waits.append(arrived.get(timeout=60) - written)
    waits.sort()
    p50, p99 = statistics.median(waits) * 1e3, waits[int(0.99 * len(waits))] * 1e3
    tell(
        "append -> events handed over, p50 / p99", f"{p50:.1f} / {p99:.1f} ms", "<= 10 / 30 ms on the screen"
    )


def load(runs: int, rate: float, seconds: float = 5.0) -> None:
    """CPU while another process appends."""
    with tempfile.TemporaryDirectory() as name:
        paths = make_runs(Path(name), runs, 20)
        taken = [0, 0]

        def take(rows: int) -> None:
            taken[0] += 1
            taken[1] += rows

        with following(Path(name), take):
            before = taken[1]
            command = [sys.executable, "-c", WRITER, str(rate), str(seconds + 0.5), *map(str, paths)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
                time.sleep(0.5)
                start, cpu, batches = time.perf_counter(), time.process_time(), taken[0]
                time.sleep(seconds - 0.5)
                passed, cpu, batches = (
                    time.perf_counter() - start,
                    time.process_time() - cpu,
                    taken[0] - batches,
                )
                written = int(writer.communicate()[0])
            deadline = time.perf_counter() + 5
            while taken[1] - before < written and time.perf_counter() < deadline:
                time.sleep(0.05)
    lost = "" if taken[1] - before == written else f", {written - (taken[1] - before)} of {written} rows lost"
    tell(
        f"{rate:g} updates/s over {runs} file{'s' if runs > 1 else ''}",
        f"{100 * cpu / passed:.1f} % of a core",
        f"{batches / passed:.0f} batches/s{lost}",
    )


def million(path: Path) -> None:
    """Load a large log in a thread and fold it, as `watch` does; how late a second thread's ticks are meanwhile."""
    (log,) = find([str(path)]).logs
    times: list[float] = []
    run = Run()
    folding = 0.0

    def work() -> None:
        nonlocal folding
        times.append(time.perf_counter())
        while (events := log.read()) is not None:
            times.append(time.perf_counter())
            for event in events:
                fold(run, event)
            folding += time.perf_counter() - times[-1]

    end = time.perf_counter() + 0.5
    idle = ticks(lambda: time.perf_counter() < end)
    thread = Thread(target=work)
    thread.start()
    late = ticks(thread.is_alive)
    rows = len(run.current.epochs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tell(f"{rows:,} rows x 6 columns: first events", f"{(times[1] - times[0]) * 1e3:.0f} ms")
    reading = times[-1] - times[1] - folding
    tell("  first to last events; beside that, their fold", f"{reading:.2f} s; {folding:.2f} s", "<= 0.5 s")
    tell("  peak memory", f"{peak:.0f} MiB", "<= 350 MiB")
    tell("  longest wait of another thread", f"{late * 1e3:.0f} ms", f"<= 25 ms (idle: {idle * 1e3:.0f} ms)")


def ticks(goes_on: Callable[[], bool]) -> float:
    """The longest time that this thread had to wait for a millisecond."""
    longest, last = 0.0, time.perf_counter()
    while goes_on():
        time.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last - 0.001), now
    return longest


def main() -> None:
    """Print all figures."""
    with tempfile.TemporaryDirectory() as name:
        make_runs(Path(name), RUNS, 200)
        first_look(Path(name))
    latency()
    load(1, 50)
    load(RUNS, 1000)
    load(1, 1000)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "training.csv")
        values = random.Random(1)
        with path.open("w") as file:
            file.write(HEADER)
            for epoch in range(ROWS):
                a, b = values.random(), values.random()
                file.write(f"{epoch},{a!r},{b!r},0.001,{1 - a!r},{1 - b!r}\n")
        for _ in range(3):
            subprocess.run([sys.executable, "-m", "benchmarks.follow", os.fspath(path)], check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        million(Path(sys.argv[1]))
    else:
        main()
