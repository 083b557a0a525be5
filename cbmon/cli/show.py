"""`cbmon show`: the state of every run, once."""

from __future__ import annotations

import sys
import time

import click

from cbmon.cli import options
from cbmon.cli.logs import load, tell_skipped
from cbmon.cli.terminal import complain, say_json, speaks_utf8
from cbmon.errors import ExitCode

WARNINGS_SHOWN = 5
"""Warnings of one log told on stderr: enough to see what is wrong, few enough to keep the table in sight."""


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@options.as_json
@click.option(
    "--check", is_flag=True, help="Exit with 1 if a run is unhealthy: NaN, diverged, failed or crashed."
)
@click.option(
    "--skipped", "list_skipped", is_flag=True, help="List the files that are no training logs, and why."
)
@options.epochs
def show(paths: tuple[str, ...], as_json: bool, check: bool, list_skipped: bool, epochs: int | None) -> int:
    """Tell the state of every run once: a table, or JSON for scripts."""
    from cbmon import views

    runs, skipped = load(paths)
    tell_skipped(paths, runs, skipped, with_all=list_skipped)
    if as_json:
        say_json(views.show_json(runs, skipped))
    elif runs:
        shown = [views.run_view(log, run, epochs) for log, run in runs]
        shown += [views.unreadable_view(skip) for skip in skipped if skip.looks_like_log]
        lines = views.show_table(shown, skipped, time.time(), ascii=not speaks_utf8(sys.stdout))
        click.echo("\n".join(lines))
        for log, run in runs:
            for warning in views.warning_lines(run)[:WARNINGS_SHOWN]:
                complain(f"{log.path}: {warning}")
            if (more := len(run.warnings) - WARNINGS_SHOWN) > 0:
                complain(f"{log.path}: {more} more warnings (show --json lists them)")
    if not runs:
        return ExitCode.NO_DATA
    return ExitCode.UNHEALTHY if check and any(views.is_unhealthy(run) for _, run in runs) else ExitCode.OK
