"""How long a chart of 112 × 30 takes: long curves as they lie in memory, and the small charts of every day.

Run: python -m benchmarks.chart [REPEATS]

`read through` is what a curve of two lists costs, whose points are looked at one by one: the ratio is to that.
Each figure is the best of the repeats, after one to warm up: the others tell what else the machine did.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable
from functools import partial
from math import exp
from random import Random

from cbmon import thin
from cbmon.chart import Curve, Row, chart, fit_y
from cbmon.series import Column

LENGTHS = (10_000, 100_000, 1_000_000)
NEVER = sys.maxsize


def falling(length: int, seed: int, missing: Callable[[int], bool] = lambda row: False) -> Column:
    """A noisy loss."""
    noise, column = Random(seed), Column()
    values = (0.3 + 2 * exp(-4 * row / length) + noise.gauss(0, 0.05) for row in range(length))
    column.extend([None if missing(row) else value for row, value in enumerate(values)])
    return column


def milliseconds(repeats: int, draw: Callable[[], object]) -> float:
    """The best of the repeats."""
    draw()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        draw()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def drawn(*curves: Curve, end: int, first: int = 1, ascii: bool = False) -> tuple[Row, ...]:
    """The whole work of a redraw: y limits and chart."""
    x_limits = (first, end)
    return chart(
        curves,
        width=112,
        height=30,
        x_limits=x_limits,
        y_limits=fit_y(curves, x_limits),
        marks=(),
        ascii=ascii,
    )


def long_curve(length: int, repeats: int) -> dict[str, str]:
    """One curve of this length, by each way of thinning."""
    noise = Random(3)
    columns = {
        "": falling(length, 1),
        ", a value every 5 epochs": falling(length, 1, lambda row: row % 5 > 0),
        ", 10 % missing at random": falling(length, 1, lambda row: noise.random() < 0.1),
    }
    lists = Curve(label="", x=list(range(1, length + 1)), y=list(columns[""]))
    slowest = milliseconds(min(repeats, 3), lambda: drawn(lists, end=length))
    found = {"read through": f"{slowest:13.1f}"}
    epochs = array("q", range(length))
    curves = {name: Curve(label="", x=epochs, y=column, x_offset=1) for name, column in columns.items()}
    for way, large in (("NumPy", 0), ("slices", NEVER)):
        thin.LARGE = thin.LARGE_ALONE = large
        for name, curve in curves.items():
            took = milliseconds(repeats, partial(drawn, curve, end=length))
            found[way + name] = f"{took:8.2f}{slowest / took:4.0f}×"
    middle = length // 2
    took = milliseconds(repeats, lambda: drawn(curves[""], first=middle, end=middle + 200))
    found["200 epochs of it"] = f"{took:13.2f}"
    return found


def small_charts(repeats: int) -> None:
    """What is redrawn when an epoch ends."""
    runs = [falling(200, seed) for seed in range(5)]
    x = range(1, 201)
    five = [Curve(label="", x=x, y=run, letter=letter) for run, letter in zip(runs, "abcde", strict=True)]
    pair = [Curve(label="", x=x, y=runs[0]), Curve(label="", x=x, y=runs[1], dashed=True)]
    rates = array("d", [1e-3] * 120 + [1e-4] * 80)
    steps = Curve(label="", x=x, y=rates, steps=True)
    print("\nsmall charts, ms")
    for name, draw in {
        "5 runs × 200 epochs": lambda: drawn(*five, end=200),
        "the same in ASCII": lambda: drawn(*five, end=200, ascii=True),
        "train and val, 200 epochs": lambda: drawn(*pair, end=200),
        "axes without a curve": lambda: drawn(end=200),
        "learning rate in 3 rows": lambda: chart([steps], width=112, height=3, log=True, axis=False),
    }.items():
        print(f"  {name:<32}{milliseconds(repeats * 10, draw):13.2f}")


def main(repeats: int = 20) -> None:
    """Long curves, small charts."""
    large, alone = thin.LARGE, thin.LARGE_ALONE
    found = [long_curve(length, repeats) for length in LENGTHS]
    thin.LARGE, thin.LARGE_ALONE = large, alone
    print(f"{'one curve, ms':<34}" + "".join(f"{length:13,}" for length in LENGTHS))
    for name in found[0]:
        print(f"  {name:<32}" + "".join(figures[name] for figures in found))
    small_charts(repeats)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
