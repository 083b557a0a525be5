"""How long a whole `cbmon replay` takes, beside what importing TensorFlow alone costs: medians and the ratio.

Run: python -m benchmarks.replay_process [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

LOG = Path(__file__).resolve().parent.parent / "sample_logs" / "overfitting" / "training.csv"


def seconds(*command: str) -> float:
    """Wall time of a process that must succeed."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - start


def main(runs: int = 5) -> None:
    """Alternate the two, so that a drifting machine moves both."""
    call = "EarlyStopping(patience=5)"
    ours, theirs = [], []
    for _ in range(runs + 1):
        ours.append(seconds("-m", "cbmon", "replay", str(LOG), "-c", call))
        theirs.append(seconds("-c", "import tensorflow"))
    replay, tensorflow = statistics.median(ours[1:]), statistics.median(theirs[1:])
    print(f"cbmon replay, whole process   {replay:.2f} s (median of {runs}, after a warm-up)")
    print(f"import tensorflow alone       {tensorflow:.2f} s   {tensorflow / replay:.0f} times as long")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
