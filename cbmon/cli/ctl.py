"""`cbmon ctl`: ask something of a training that runs."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from cbmon.cli.logs import load, require_paths, several, tell_skipped
from cbmon.cli.terminal import complain
from cbmon.errors import BadCall, ExitCode, NoRunsFound
from cbmon.units import printable

if TYPE_CHECKING:
    from pathlib import Path

    from cbmon.run import Run
    from cbmon.wire import Line

HELLO_S = 5.0
"""How long a trainer may take to say hello before we look whether it can."""
HELLO_LEAST_S = 0.1
"""Of several runs each has this long, however little time is left: one that is awake needs a hundredth of it."""

_BELOW_ZERO = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)


class _Ctl(click.Command):
    """A rate below zero is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for word, value in pairwise(args):
            if word == "lr" and _BELOW_ZERO.match(value):
                from cbmon.wire import read_rate

                read_rate(value)
        return super().parse_args(ctx, args)


@click.command(cls=_Ctl)
@click.argument("path", metavar="RUN")
@click.argument("request", metavar="stop|lr|save", type=click.Choice(["stop", "lr", "save"]))
@click.argument("value", required=False, metavar="[X|FILE]")
@click.option("--now", is_flag=True, help="stop: with the present batch, not after the epoch.")
@click.option(
    "--timeout", metavar="TIME", default="5m",
    help="Wait so long for the answer: 90s, 5m (the default), 2h.",
)  # fmt: skip
def ctl(path: str, request: str, value: str | None, now: bool, timeout: str) -> int:
    """Ask something of a training that runs, as the keys of `watch` do.

    RUN is a record of Monitor's, a folder in which one run is live, or unix:///path.sock. `stop` ends the fit after
    this epoch, `lr 3e-4` or `lr x0.5` sets the learning rate, `save [FILE.keras]` saves the model. The answer comes
    between two batches, at the latest after a validation. Exit codes: 0 it is done; 1 the training refuses; 2 the
    request cannot be read, or several runs are live; 3 no such live run; 124 no answer within --timeout, from a
    training that may still do it, or that stands still.
    """
    from cbmon.endpoint import Ask, NoWire
    from cbmon.waiting import parse_timeout
    from cbmon.wire import Line, Silent, answer_words, read_rate, read_target

    limit_s = parse_timeout(timeout)
    if request == "lr" and value is None:
        raise BadCall("lr needs a learning rate or a factor: lr 3e-4, lr x0.5")
    if request == "stop" and value is not None:
        raise BadCall(f"stop takes no {value!r}; --now ends it at once")
    if now and request != "stop":
        raise BadCall(f"--now is for stop, not for {request}")
    rate, scale = read_rate(value) if request == "lr" and value is not None else (None, None)
    target = read_target(value) if request == "save" and value is not None else None
    what = "stop_now" if now else request
    until = time.monotonic() + limit_s
    run = _live_run(path, until)
    try:
        line = run.line
        if line is None:
            if (left := until - time.monotonic()) <= 0:
                raise Silent("", run.pid)
            complain(f"{run.name} does not answer yet; waiting up to {timeout}")
            line = run.line = Line(run.at, left)
        _require_same(run, line)
        answer = line.ask(
            Ask(id=1, what=what, value=rate, scale=scale, path=target), until - time.monotonic()
        )
    except Silent as error:
        complain(f"{run.name} does not answer: {_stands_still(error.pid or run.pid)}")
        return ExitCode.TIMED_OUT
    except TimeoutError:
        complain(f"{run.name}: no answer within {timeout}; it may still be done")
        return ExitCode.TIMED_OUT
    except NoWire as error:
        complain(f"{run.name}: no answer came: {printable(str(error), 1000)}")
        return ExitCode.NO_DATA
    finally:
        if run.line is not None:
            run.line.close()
    words = printable(f"{run.name}: {answer_words(answer)}", 2000)
    if answer.done:
        click.echo(words)
        return ExitCode.OK
    complain(words)
    return ExitCode.UNHEALTHY


def _stands_still(pid: int | None) -> str:
    """What is known of a process that listens and says nothing, and what to do."""
    which, how = (f" (pid {pid})", f"kill -CONT {pid}") if pid else ("", "kill -CONT and its pid")
    return (
        f"its process{which} is there but stands still? If it was stopped (Ctrl-Z, kill -STOP), {how} lets it "
        "go on. It was asked nothing"
    )


@dataclass(slots=True, kw_only=True)
class _Live:
    """A run that may be meant."""

    name: str
    """As the list of `watch` has it."""
    path: str
    """As ctl would take it."""
    sockets: list[Path]
    """Where its trainer would listen."""
    log: str | None = None
    """The record's path, of a run that has one."""
    line: Line | None = None
    """None: somebody listens and has not said hello."""
    pid: int | None = None

    @property
    def at(self) -> Path:
        """The socket that listens."""
        return self.sockets[0]

    def record(self) -> Run | None:
        """What its log tells."""
        runs, _ = load((self.log,)) if self.log is not None else ([], None)
        return runs[0][1] if runs else None


def _live_run(path: str, until: float) -> _Live:
    """The one training that PATH means, as far as somebody listens for it.

    Raises:
        NoRunsFound: there is none; the text says why.
        BadCall: there are several, be it that one of them does not answer.
    """
    from cbmon.wire import NOBODY, SOCKET

    is_log = not path.startswith(SOCKET)
    places = _of_logs(path) if is_log else _of_sockets(path.removeprefix(SOCKET))
    reasons: list[str] = []
    found = [each for each in places if _listens(each, until, reasons)]
    if len(found) > 1:
        for each in found:
            if each.line is not None:
                each.line.close()
        names = [each.path + ("" if each.line else " (does not answer)") for each in found]
        raise BadCall(f"{path}: here are {several(names, ' live runs')}; name one")
    if found:
        return found[0]
    words = reasons[0] if reasons else NOBODY
    if len(places) > 1:
        words = "no run here is live"
    elif places and is_log and (run := places[0].record()):
        from cbmon.views import no_control

        words = no_control(run) or words
    raise NoRunsFound(f"{path}: {words}")


def _listens(run: _Live, until: float, reasons: list[str]) -> bool:
    """Whether a trainer listens for this run: it says hello, or cannot though its process is there."""
    from cbmon.endpoint import NoWire
    from cbmon.wire import Line, Silent

    silent = []
    for at in run.sockets:
        try:
            run.line = Line(at, max(HELLO_LEAST_S, min(HELLO_S, until - time.monotonic())))
        except Silent as error:
            silent.append(at)
            run.pid = error.pid
        except NoWire as error:
            reasons.append(printable(str(error), 1000))
        else:
            if run.log is None:
                run.name = run.line.hello.name.removesuffix(".sock")
            run.sockets = [at]
            return True
    if not silent:
        return False
    record = run.record()
    if record is not None:
        from cbmon.rules import Status, status

        if record.current.ended or status(record) is Status.CRASHED:
            return False
        started = record.current.started
        run.pid = run.pid or (started.process.pid if started and started.process else None)
    run.sockets = silent
    return True


def _require_same(run: _Live, line: Line) -> None:
    """The one who listens has to be the run that the record tells of.

    Raises:
        NoRunsFound: it is another one.
    """
    record = run.record()
    started = record.current.started if record else None
    if started is not None and started.run_id != line.hello.run_id:
        raise NoRunsFound(f"{run.log}: another run listens for it")


def _of_sockets(given: str) -> list[_Live]:
    """The socket that `unix://` names, or all; each stands for its run."""
    from pathlib import Path

    from cbmon.endpoint import live_sockets
    from cbmon.wire import SOCKET

    sockets = [Path(os.path.expanduser(given))] if given else live_sockets()
    return [_Live(name=at.stem, path=f"{SOCKET}{at}", sockets=[at]) for at in sockets]


def _of_logs(path: str) -> list[_Live]:
    """Where the writer of each log would listen."""
    from cbmon.endpoint import socket_paths
    from cbmon.sources import find

    require_paths((path,))
    finding = find((path,))
    if not finding.logs:
        tell_skipped((path,), finding.logs, finding.skipped)
        raise NoRunsFound(f"{path}: no training log to find a live run by")
    return [
        _Live(
            name=log.name,
            path=str(log.path),
            sockets=[at for at in socket_paths(log.path) if at.exists()],
            log=str(log.path),
        )
        for log in finding.logs
    ]
