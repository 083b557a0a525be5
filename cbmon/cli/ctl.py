"""`cbmon ctl`: ask something of a training that runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cbmon.cli.logs import load, require_paths, several, tell_skipped
from cbmon.cli.terminal import complain
from cbmon.errors import BadCall, ExitCode, NoRunsFound
from cbmon.units import printable

if TYPE_CHECKING:
    from pathlib import Path

    from cbmon.wire import Line

HELLO_S = 5.0
"""How long a trainer may take to say hello."""


@click.command()
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
    between two batches, at the latest after a validation. Exit codes: 0 it is done; 1 the training refuses; 3 no
    such live run; 124 no answer within --timeout, though it may still be done.
    """
    from cbmon.endpoint import Ask, NoWire
    from cbmon.waiting import parse_timeout
    from cbmon.wire import read_rate

    limit_s = parse_timeout(timeout)
    if request == "lr" and value is None:
        raise BadCall("lr needs a learning rate or a factor: lr 3e-4, lr x0.5")
    if request == "stop" and value is not None:
        raise BadCall(f"stop takes no {value!r}; --now ends it at once")
    if now and request != "stop":
        raise BadCall(f"--now is for stop, not for {request}")
    rate, scale = read_rate(value) if request == "lr" and value else (None, None)
    target = os.path.abspath(os.path.expanduser(value)) if request == "save" and value else None
    line = _live_run(path)
    what = "stop_now" if now else request
    try:
        answer = line.ask(Ask(id=1, what=what, value=rate, scale=scale, path=target), limit_s)
    except TimeoutError:
        complain(f"{line.hello.name}: no answer within {timeout}; it may still be done")
        return ExitCode.TIMED_OUT
    except NoWire as error:
        complain(f"{line.hello.name}: no answer came: {printable(str(error), 1000)}")
        return ExitCode.NO_DATA
    finally:
        line.close()
    words = printable(f"{line.hello.name}: {answer.words}", 2000)
    if answer.done:
        click.echo(words)
        return ExitCode.OK
    complain(words)
    return ExitCode.UNHEALTHY


def _live_run(path: str) -> Line:
    """A connection to the one training that PATH means.

    Raises:
        NoRunsFound: there is none; the text says why.
        BadCall: there are several.
    """
    from cbmon.endpoint import NoWire
    from cbmon.views import no_control
    from cbmon.wire import NOBODY, SOCKET, Line

    is_log = not path.startswith(SOCKET)
    places = _sockets_of_logs(path) if is_log else _sockets(path.removeprefix(SOCKET))
    found: dict[Path, Line] = {}
    reasons = []
    for key, sockets in places.items():
        for at in sockets:
            try:
                found[key] = Line(at, HELLO_S)
                break
            except NoWire as error:
                reasons.append(printable(str(error), 1000))
    if len(found) > 1:
        for line in found.values():
            line.close()
        raise BadCall(f"{path}: ctl is for one run, here are {several(found, ' live ones')}")
    if not found:
        words = reasons[0] if reasons else NOBODY
        if len(places) > 1:
            words = "no run here is live"
        elif places and is_log:
            runs, _ = load((path,))
            words = next((why for _, run in runs if (why := no_control(run))), words)
        raise NoRunsFound(f"{path}: {words}")
    ((key, line),) = found.items()
    if is_log:
        runs, _ = load((str(key),))
        started = runs[0][1].current.started if runs else None
        if started is not None and started.run_id != line.hello.run_id:
            line.close()
            raise NoRunsFound(f"{key}: another run listens for it")
    return line


def _sockets(given: str) -> dict[Path, list[Path]]:
    """The socket that `unix://` names, or all; each stands for its run."""
    from pathlib import Path

    from cbmon.endpoint import live_sockets

    return {at: [at] for at in ([Path(os.path.expanduser(given))] if given else live_sockets())}


def _sockets_of_logs(path: str) -> dict[Path, list[Path]]:
    """Where the writer of each log would listen."""
    from cbmon.endpoint import socket_paths
    from cbmon.sources import find

    require_paths((path,))
    finding = find((path,))
    if not finding.logs:
        tell_skipped((path,), finding.logs, finding.skipped)
        raise NoRunsFound(f"{path}: no training log to find a live run by")
    return {log.path: [at for at in socket_paths(log.path) if at.exists()] for log in finding.logs}
