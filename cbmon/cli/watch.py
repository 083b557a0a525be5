"""`cbmon watch`: follow runs live, on the screen, in lines, or as one frame."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from cbmon.cli import options
from cbmon.cli.logs import load, require_paths
from cbmon.cli.terminal import complain, has_screen, prepare_screen, speaks_utf8
from cbmon.errors import BadCall, ExitCode
from cbmon.units import printable

if TYPE_CHECKING:
    from cbmon.events import CallbackState
    from cbmon.replay.results import Recording
    from cbmon.replay.shadow import Shadow
    from cbmon.sources import Follower
    from cbmon.word import Notes, Way, Word


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--once", is_flag=True, help="Print one frame and end.")
@options.plain
@options.poll
@options.epochs
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="CALL",
    help="An EarlyStopping or ReduceLROnPlateau to follow beside the run: 'EarlyStopping(patience=5)'.",
)
@click.option("--max-fps", type=click.FloatRange(0.1, 60), default=10, help="Pictures a second at most (10).")
@click.option(
    "--listen",
    "address",
    metavar="HOST:PORT",
    help="Also take in what keras.callbacks.RemoteMonitor sends there; its records go into PATH, a folder.",
)
@options.token
@click.option("--notify", is_flag=True, help="Ring, and have the desktop notified, at each new alert.")
@click.option(
    "--on-alert",
    "command",
    metavar="CMD",
    help="Run CMD at each new alert, which comes as JSON on its standard input; no shell is between.",
)
@click.option(
    "--alert-level",
    type=click.Choice(["info", "warning", "error"]),
    default="warning",
    help="What --notify and --on-alert tell: warnings, errors and ends of runs (warning), errors alone, or all.",
)
@click.option("--read-only", is_flag=True, help="Without the keys that ask something of a training.")
@options.is_ascii
def watch(
    paths: tuple[str, ...],
    once: bool,
    plain: bool,
    poll: bool,
    epochs: int | None,
    policies: tuple[str, ...],
    max_fps: float,
    address: str | None,
    token: str | None,
    notify: bool,
    command: str | None,
    alert_level: str,
    read_only: bool,
    is_ascii: bool,
) -> int:
    """Follow training live: runs, curves, learning rate, alerts. PATH defaults to the current folder.

    unix:///path.sock is the socket of a run without a file, unix:// all of them.
    """
    paths = paths or (".",)
    if math.isnan(max_fps):  # click lets it pass between any bounds
        raise BadCall("--max-fps nan: give a number from 0.1 to 60")
    on_screen = not (once or plain) and has_screen()
    if once and (address or notify or command):
        raise BadCall("--once prints one frame: leave out --listen, --notify and --on-alert")
    if address is not None:
        from cbmon.cli.listen import listening, make_folder

        make_folder(paths)
    require_paths(paths, waits=on_screen, is_live=not once)
    make_policies = _policies(policies)
    if once:
        return _print_frame(paths, epochs, make_policies(), is_ascii or not speaks_utf8(sys.stdout))

    from cbmon.sources import Follower
    from cbmon.wire import Wires

    follower = Follower(paths, poll=poll, wires=Wires())
    with ExitStack() as stack:
        notes = _notes(stack) if on_screen and (address or command) else None
        say: Callable[[str], None] = notes or complain
        make_word = _word(stack, say, notify=notify, command=command, level=alert_level)
        if address is not None:
            stack.enter_context(listening(address, token, paths[0], notes))
        return follow(
            follower,
            plain=plain,
            planned=epochs,
            is_ascii=is_ascii,
            make_word=make_word,
            notes=notes,
            is_awaited=address is not None,
            asks=not read_only,
            policies=make_policies,
            max_fps=max_fps,
        )


def follow(
    follower: Follower,
    *,
    plain: bool,
    is_ascii: bool,
    planned: int | None = None,
    make_word: Callable[[Callable[[str], None], bool], Word] | None = None,
    notes: Notes | None = None,
    is_awaited: bool = False,
    asks: bool = True,
    policies: Callable[[], Sequence[Shadow]] = tuple,
    **screen: Any,
) -> int:
    """Watch until the user ends it: on the screen, or in lines where there is none."""
    if plain or not has_screen():
        if policies():
            complain("--policy is followed on the screen and by --once, not in lines")
        from cbmon.plain import follow as follow_in_lines
        from cbmon.views import ascii_only

        is_narrow = is_ascii or not speaks_utf8(sys.stdout)
        follow_in_lines(
            follower,
            lambda line: _say_line(ascii_only(line) if is_narrow else line),
            planned,
            time.time,
            make_word(_ring, is_narrow) if make_word else None,
        )
        return ExitCode.OK
    prepare_screen()
    from cbmon.tui.app import WatchApp

    is_narrow = is_ascii or not speaks_utf8(sys.__stderr__)  # Textual draws there
    app = WatchApp(follower, planned=planned, is_ascii=is_narrow, policies=policies, **screen)
    app.word = make_word(app.send_control, is_narrow) if make_word else None
    app.notes, app.is_awaited = notes, is_awaited
    app.wires = follower.wires if asks else None
    try:
        app.run()
    finally:
        follower.stop()
    return app.return_code or ExitCode.OK


def _say_line(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _ring(text: str) -> None:
    """Control text to the terminal; click would take it out where it thinks there is none."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _notes(stack: ExitStack) -> Notes:
    """Takes lines for the screen; the latest are told on stderr too, when the screen is gone."""
    from cbmon.word import Notes

    notes = Notes()

    def tell() -> None:
        for line in notes.latest:
            complain(line)

    stack.callback(tell)
    return notes


def _word(
    stack: ExitStack, say: Callable[[str], None], *, notify: bool, command: str | None, level: str
) -> Callable[[Callable[[str], None], bool], Word] | None:
    """What makes the sender of word of alerts, given how to write to the terminal; None if nobody wants it."""
    if not notify and command is None:
        return None
    from cbmon.rules import Severity
    from cbmon.word import CommandWay, Word, read_command, terminal_way

    ways: list[Way] = []
    if command is not None:
        runner = CommandWay(read_command(command), say)
        stack.callback(runner.close)
        ways.append(runner)
    rings = notify and bool(sys.stdout and sys.stdout.isatty())
    if notify and not rings:
        complain("--notify: no terminal here that could ring (--on-alert CMD needs none)")

    def make(write: Callable[[str], None], is_narrow: bool) -> Word:
        bell = [terminal_way(write, os.environ, is_ascii=is_narrow)] if rings else []
        return Word([*bell, *ways], Severity(level))

    return make


def _policies(texts: Sequence[str]) -> Callable[[], Sequence[Shadow]]:
    """What makes the policies to follow beside each run; they are tried once, so that a bad CALL is told here."""
    if not texts:
        return tuple
    from cbmon.profiles import find_profile
    from cbmon.replay.calls import parse_calls
    from cbmon.replay.shadow import Shadow

    profile, _ = find_profile()
    calls = [call for text in texts for call in parse_calls(text, profile)]

    def make() -> Sequence[Shadow]:
        return [Shadow(call, profile) for call in calls]

    make()
    for note in dict.fromkeys(note for call in calls for note in call.notes):
        complain(note)
    return make


def _print_frame(paths: Sequence[str], planned: int | None, shadows: Sequence[Shadow], is_ascii: bool) -> int:
    """`--once`: one frame as wide and high as the terminal."""
    import shutil

    from cbmon import frame, plots, views

    runs, skipped = load(paths)
    by_path = {log.path: run for log, run in runs}
    ordered = views.newest_first({log.path: views.run_view(log, run, planned) for log, run in runs})
    shown = [*ordered.values(), *(views.unreadable_view(skip) for skip in skipped if skip.looks_like_log)]
    width, height = shutil.get_terminal_size((80, 24))
    first, now = by_path[next(iter(ordered))] if ordered else None, time.time()
    picture, alerts, strip = None, [], []
    if first is not None:
        states = [_caught_up(shadow, first.current) for shadow in shadows]
        fired = {call: epochs for call, _, _, epochs in states}
        picture = plots.chart_view(first, planned=planned, fired=fired)
        alerts, strip = views.alert_lines(first), views.strip_lines(first, states, now)
    rows = frame.frame(
        shown,
        picture,
        alerts,
        " ".join(map(printable, paths)),
        width,
        height - 1,
        now,
        strip=strip,
        folder=paths[0],
        ascii=is_ascii,
    )
    click.echo(frame.text(rows))
    return ExitCode.OK


def _caught_up(shadow: Shadow, recording: Recording) -> tuple[str, CallbackState, str, Sequence[int]]:
    """What `views.strip_lines` tells of a policy that has seen all epochs."""
    while True:
        state = shadow.look(recording)
        if not shadow.is_behind(recording):
            return shadow.name, state, shadow.trouble, shadow.fired
