"""`cbmon sweep`: every policy of a grid, judged on recorded logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from cbmon.cli import options
from cbmon.cli.logs import load, tell_skipped
from cbmon.cli.terminal import complain, page_shape, say_json, say_lines
from cbmon.errors import ExitCode
from cbmon.units import plural


@click.command()
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@click.option(
    "-c",
    "--callback",
    "calls",
    multiple=True,
    required=True,
    metavar="CALL",
    help="A callback with grids for arguments: 'EarlyStopping(patience=range(1, 31))'.",
)
@click.option(
    "--tolerance", default="1%", metavar="X", help="How much worse than its best a run may end: 1% or 0.002."
)
@click.option(
    "--may-harm", "allowed", type=click.IntRange(0), default=0, metavar="N",
    help="Runs that the recommended policy may harm (0).",
)  # fmt: skip
@options.learning_rate
@options.keras
@options.attempt
@click.option("--workers", type=click.IntRange(1), default=1, metavar="N", help="Processes (1).")
@click.option("--parts", metavar="FOLDER", help="Also write every cell there: Parquet, one file a block.")
@options.as_json
@click.option("--cells", is_flag=True, help="With --json: where each policy stops each run.")
@options.html
def sweep(
    logs: tuple[str, ...],
    calls: tuple[str, ...],
    tolerance: str,
    allowed: int,
    learning_rate: float | None,
    version: str | None,
    attempt: int | None,
    workers: int,
    parts: str | None,
    as_json: bool,
    cells: bool,
    html: str | None,
) -> int:
    """Judge every policy of a grid on recorded logs: epochs saved, regret, which patience each run needed.

    In CALL an argument may be a grid: grid(0, 1e-4), range(1, 31), linspace(0, 1, 5), logspace(-5, -2, 4). Ctrl-C
    ends it early and keeps what is done.
    """
    from pathlib import Path

    from cbmon.profiles import find_profile
    from cbmon.replay.ranking import parse_tolerance, rank
    from cbmon.replay.sweep_report import document, report
    from cbmon.replay.sweeping import sources_of
    from cbmon.replay.sweeping import sweep as sweep_sources

    profile, note = find_profile(version)
    within = parse_tolerance(tolerance)
    if note:
        complain(note)
    runs, skipped = load(logs)
    tell_skipped(logs, runs, skipped)
    if not runs:
        return ExitCode.NO_DATA
    sources = [
        source
        for log, run in runs
        for source in sources_of(str(log.path), str(log.path.parent), run.attempts)
        if attempt in (None, source.attempt)
    ]
    if not sources:
        complain(f"no epochs to judge{'' if attempt is None else f' in attempt {attempt}'}")
        return ExitCode.NO_DATA
    with _progress() as progress:
        found = sweep_sources(
            sources, "; ".join(calls), profile, tolerance=within.amount if within.is_share else 0.0,
            learning_rate=learning_rate, workers=workers, parts=Path(parts) if parts else None, progress=progress,
        )  # fmt: skip
    ranking = rank(found, sources, tolerance=within, allowed=allowed)
    if doubt := ranking.doubt_of_tolerance:
        complain(f"--tolerance {tolerance}: {doubt}")
    if as_json:
        say_json(document(ranking, with_cells=cells), indent=None)
    else:
        page = page_shape()
        say_lines(report(ranking, ascii=page.ascii, width=page.width))
    if html is not None:
        from cbmon.cli.page import write_page
        from cbmon.replay.sweep_page import sweep_page

        write_page(html, sweep_page(ranking))
    for warning in found.warnings:
        complain(warning)
    for run in found.runs:
        if run.error:
            complain(f"{run.log}: {run.error}")
    if found.is_partial:
        complain(f"interrupted: {found.done:,} of {found.total:,} runs judged")
        return ExitCode.INTERRUPTED
    return ExitCode.USAGE if any(run.error for run in found.runs) else ExitCode.OK


_BAR = 30
"""Columns of the progress bar."""


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr while somebody looks; it comes only after half a second."""
    if not sys.stderr.isatty():
        yield None
        return
    began, width = time.monotonic(), 0

    def show(done: int, asked: int) -> None:
        nonlocal width
        if time.monotonic() - began > 0.5:
            filled = _BAR * done // max(asked, 1)
            words = f"\r[{'#' * filled}{'-' * (_BAR - filled)}] {done:,} of {plural(asked, 'run')}"
            width = max(width, len(words))
            click.echo(words, err=True, nl=False)

    try:
        yield show
    finally:
        if width:
            click.echo("\r" + " " * width + "\r", err=True, nl=False)
