"""`cbmon wait`: one run's end, or a condition, as an exit code."""

from __future__ import annotations

import click

from cbmon.cli import options
from cbmon.cli.logs import require_paths, several, tell_skipped
from cbmon.cli.terminal import complain
from cbmon.errors import BadCall, ExitCode


@click.command()
@click.argument("path", metavar="RUN")
@click.option(
    "--until",
    metavar="CONDITION",
    help="End with 0 once an epoch meets it: 'val_loss < 0.2', 'best(val_auc) > .9 and epoch >= 10'.",
)
@click.option("--timeout", metavar="TIME", help="Give up after so long, with exit code 124: 90s, 30m, 2h.")
@options.poll
def wait(path: str, until: str | None, timeout: str | None, poll: bool) -> int:
    """Wait until a run has ended, or until one of its epochs meets a condition.

    RUN is a log, or a folder with one. Exit codes: 0 it finished, or met the condition; 1 it failed or was
    interrupted, or ended (or is NaN or diverged) without meeting it; 3 no such log; 124 --timeout is over. In a
    condition stand metrics, best(metric), epoch (from 1), lr, numbers, comparisons, and, or, not. All epochs of
    the latest attempt count, those already there too.
    """
    from threading import Timer

    from cbmon import waiting
    from cbmon.sources import Follower, find

    limit_s = None if timeout is None else waiting.parse_timeout(timeout)
    condition = None if until is None else waiting.Condition(until)
    require_paths((path,))
    finding = find((path,))
    if not finding.logs:
        tell_skipped((path,), finding.logs, finding.skipped)
        return ExitCode.NO_DATA
    if len(finding.logs) > 1:
        raise BadCall(f"{path}: wait is for one run, here are {several(log.path for log in finding.logs)}")
    (log,) = finding.logs
    follower = Follower([str(log.path)], poll=poll)
    waiter = waiting.Waiter(log.name, condition, complain, has_limit=limit_s is not None)
    timer = None if limit_s is None else Timer(limit_s, follower.stop)
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
