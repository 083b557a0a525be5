"""`cbmon wait`: one run's end, or a condition, as an exit code."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from cbmon.cli import options
from cbmon.cli.logs import require_paths, several, tell_skipped
from cbmon.cli.terminal import complain
from cbmon.errors import BadCall, ExitCode, NoRunsFound
from cbmon.units import duration

if TYPE_CHECKING:
    from cbmon.sources import Finding

APPEAR_S = 0.5
"""How often a log is looked for that is not there yet: soon enough for who starts it, and next to no work."""
APPEAR_SHARE = 0.1
"""Of the time that may be spent on it, where a folder is large."""


@click.command()
@click.argument("path", metavar="RUN")
@click.option(
    "--until",
    metavar="CONDITION",
    help="End with 0 once an epoch meets it: 'val_loss < 0.2', 'best(val_auc) > .9 and epoch >= 10'.",
)
@click.option(
    "--timeout",
    metavar="TIME",
    help="Give up after so long, with exit code 124: 90s, 30m, 2h. Within it a log that is not there yet may come.",
)
@options.poll
def wait(path: str, until: str | None, timeout: str | None, poll: bool) -> int:
    """Wait until a run has ended, or until one of its epochs meets a condition.

    RUN is a log, or a folder with one. Exit codes: 0 it finished, or met the condition; 1 it failed or was
    interrupted, or ended (or is NaN or diverged) without meeting it; 3 no such log, or none came within --timeout;
    124 --timeout is over. In a condition stand metrics, best(metric), epoch (from 1), lr, numbers, comparisons,
    and, or, not. All epochs of the latest attempt count, those already there too.

    A RUN that is not there yet is waited for only with --timeout: without, a typo would never end. So after
    'python train.py &' write: cbmon wait logs/run4 --timeout 2h.
    """
    from threading import Timer

    from cbmon import waiting
    from cbmon.sources import Follower, find

    limit_s = None if timeout is None else waiting.parse_timeout(timeout)
    ends = None if limit_s is None else time.monotonic() + limit_s
    condition = None if until is None else waiting.Condition(until)
    _refuse_absent(path, has_limit=ends is not None)
    finding = find((path,))
    if ends is not None and _may_come(path, finding):
        complain(f"{path}: no log there yet; waiting for one, {duration(limit_s)} at most")
        finding = _appeared(path, ends)
    if not finding.logs:
        tell_skipped((path,), finding.logs, finding.skipped)
        return ExitCode.NO_DATA
    if len(finding.logs) > 1:
        raise BadCall(f"{path}: wait is for one run, here are {several(log.path for log in finding.logs)}")
    (log,) = finding.logs
    follower = Follower([str(log.path)], poll=poll)
    waiter = waiting.Waiter(log.name, condition, complain, has_limit=limit_s is not None)
    timer = None if ends is None else Timer(max(0.0, ends - time.monotonic()), follower.stop)
    try:
        if timer is not None:
            timer.daemon = True
            timer.start()
        outcome = waiting.wait(follower, waiter, limit_s)
    finally:
        if timer is not None:
            timer.cancel()
        follower.stop()
    complain(outcome.words)
    return outcome.code


def _refuse_absent(path: str, *, has_limit: bool) -> None:
    """Refuse a path that is not there, unless the waiting for it ends by itself."""
    from cbmon.wire import SOCKET

    try:
        require_paths((path,))
    except NoRunsFound as error:
        if path.startswith(SOCKET):
            raise
        if not has_limit:
            raise NoRunsFound(f"{error} (--timeout 2m waits for it)") from None


def _may_come(path: str, finding: Finding) -> bool:
    """Whether a log may still come where none is: nothing is there, or a folder."""
    is_open = os.path.isdir(os.path.expanduser(path)) or all(skip.is_missing for skip in finding.skipped)
    return not finding.logs and is_open


def _appeared(path: str, ends: float) -> Finding:
    """What is there once something came, or when the time is over."""
    from cbmon.sources import find

    while True:
        began = time.monotonic()
        finding, now = find((path,)), time.monotonic()
        if now >= ends or not _may_come(path, finding):
            return finding
        time.sleep(min(ends - now, max(APPEAR_S, (now - began) / APPEAR_SHARE)))
