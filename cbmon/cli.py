"""The command line: arguments in, exit code out. The only place that prints, and where errors become one line.

Each command imports its layer inside, so that `cbmon show` loads no screen. stdout is data, stderr is words.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import IO, Any

import click

from cbmon import __version__
from cbmon.errors import BadCall, CbmonError, ExitCode, NoRunsFound
from cbmon.units import plural, printable

EPOCHS_MAX = 2**53
"""Of a plan: what a record may hold."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cbmon")
def commands() -> None:
    """Watch Keras training from a terminal, and backtest training callbacks on recorded logs.

    PATHs are log files (Keras CSVLogger, cbmon's Monitor, History as JSON), folders, or globs.
    """


@commands.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--once", is_flag=True, help="Print one frame and end.")
@click.option("--plain", is_flag=True, help="Lines instead of a screen, as also without a terminal.")
@click.option(
    "--poll", is_flag=True, help="Look every 2 s instead of trusting file system notices (NFS, FUSE)."
)
@click.option(
    "--epochs",
    type=click.IntRange(1, EPOCHS_MAX),
    metavar="N",
    help="Planned epochs, for logs that cannot tell.",
)
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
@click.option(
    "--token",
    metavar="T",
    envvar="CBMON_TOKEN",
    help="What trainers have to show, needed beyond this machine: RemoteMonitor(headers={'X-Token': T}). "
    "Better in CBMON_TOKEN: others see a command line.",
)
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
@click.option("--ascii", "is_ascii", is_flag=True, help="No characters beyond ASCII.")
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
    from cbmon.sources import Follower
    from cbmon.wire import Wires

    paths = paths or (".",)
    if math.isnan(max_fps):  # click lets it pass between any bounds
        raise BadCall("--max-fps nan: give a number from 0.1 to 60")
    has_screen = not (once or plain) and _has_screen()
    if once and (address or notify or command):
        raise BadCall("--once prints one frame: leave out --listen, --notify and --on-alert")
    if address is not None:
        _make_folder(paths)
    _require_paths(paths, waits=has_screen, is_live=not once)
    make_policies = _policies(policies)
    if once:
        return _print_frame(paths, epochs, make_policies(), is_ascii or not _speaks_utf8(sys.stdout))
    follower = Follower(paths, poll=poll, wires=Wires())
    with ExitStack() as stack:
        say: Callable[[str], None] = _complain
        if has_screen and (address or command):
            say = _screen_notes(stack)
        make_word = _word(stack, say, notify=notify, command=command, level=alert_level)
        if address is not None:
            stack.enter_context(_listening(address, token, paths[0], say, tells=not has_screen))
        return _follow(
            follower,
            plain=plain,
            planned=epochs,
            is_ascii=is_ascii,
            make_word=make_word,
            notes=None if say is _complain else say,
            is_awaited=address is not None,
            asks=not read_only,
            policies=make_policies,
            max_fps=max_fps,
        )


@commands.command()
@click.argument("address", metavar="HOST:PORT")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option(
    "--token",
    metavar="T",
    envvar="CBMON_TOKEN",
    help="What trainers have to show; needed beyond this machine.",
)
def listen(address: str, folder: str, token: str | None) -> int:
    """Take in what keras.callbacks.RemoteMonitor sends, and write it as records into FOLDER, without a screen.

    A record for each path: RemoteMonitor(root="http://localhost:9000", path="/run7"). Ctrl-C ends it.
    """
    from threading import Event

    _make_folder((folder,))
    with _listening(address, token, folder, _complain, tells=True):
        Event().wait()
    return ExitCode.OK


@commands.command("wait")
@click.argument("path", metavar="RUN")
@click.option(
    "--until",
    metavar="CONDITION",
    help="End with 0 once an epoch meets it: 'val_loss < 0.2', 'best(val_auc) > .9 and epoch >= 10'.",
)
@click.option("--timeout", metavar="TIME", help="Give up after so long, with exit code 124: 90s, 30m, 2h.")
@click.option("--poll", is_flag=True, help="Look every 2 s instead of trusting file system notices.")
def wait_for(path: str, until: str | None, timeout: str | None, poll: bool) -> int:
    """Wait until a run has ended, or until one of its epochs meets a condition.

    RUN is a log, or a folder with one. Exit codes: 0 it finished, or met the condition; 1 it failed or was
    interrupted, or ended (or is NaN or diverged) without meeting it; 3 no such log; 124 --timeout is over. In a
    condition stand metrics, best(metric), epoch (from 1), lr, numbers, comparisons, and, or, not. All epochs of
    the latest attempt count, those already there too.
    """
    from threading import Timer

    from cbmon.sources import Follower, find
    from cbmon.waiting import Condition, Waiter, parse_timeout
    from cbmon.waiting import wait as wait_with

    limit_s = None if timeout is None else parse_timeout(timeout)
    condition = None if until is None else Condition(until)
    _require_paths((path,), waits=False)
    finding = find((path,))
    if not finding.logs:
        _tell_skipped((path,), finding.logs, finding.skipped)
        return ExitCode.NO_DATA
    if len(finding.logs) > 1:
        names = ", ".join(printable(str(log.path), 100) for log in finding.logs[:5])
        more = ", …" if len(finding.logs) > 5 else ""
        raise BadCall(f"{path}: wait is for one run, here are {len(finding.logs)}: {names}{more}")
    (log,) = finding.logs
    follower = Follower([str(log.path)], poll=poll)
    timer = None if limit_s is None else Timer(limit_s, follower.stop)
    try:
        if timer is not None:
            timer.daemon = True
            timer.start()
        outcome = wait_with(
            follower, Waiter(log.name, condition, _complain, has_limit=limit_s is not None), limit_s
        )
    finally:
        if timer is not None:
            timer.cancel()
        follower.stop()
    _complain(outcome.words)
    return outcome.code


@commands.command()
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
    if (request == "lr") != (value is not None) and request != "save":
        raise BadCall("lr needs a learning rate or a factor: lr 3e-4, lr x0.5" if request == "lr" else
                      f"stop takes no {value!r}; --now ends it at once")  # fmt: skip
    if now and request != "stop":
        raise BadCall(f"--now is for stop, not for {request}")
    rate, scale = read_rate(value) if request == "lr" and value else (None, None)
    target = os.path.abspath(os.path.expanduser(value)) if request == "save" and value else None
    line = _live_run(path)
    what = "stop_now" if now else request
    try:
        answer = line.ask(Ask(id=1, what=what, value=rate, scale=scale, path=target), limit_s)
    except TimeoutError:
        _complain(f"{line.hello.name}: no answer within {timeout}; it may still be done")
        return ExitCode.TIMED_OUT
    except NoWire as error:
        _complain(f"{line.hello.name}: no answer came: {printable(str(error), 1000)}")
        return ExitCode.NO_DATA
    finally:
        line.close()
    words = f"{line.hello.name}: {answer.words}"
    if answer.done:
        click.echo(printable(words, 2000))
        return ExitCode.OK
    _complain(printable(words, 2000))
    return ExitCode.UNHEALTHY


HELLO_S = 5.0
"""How long a trainer may take to say hello to `ctl`."""


def _live_run(path: str) -> Any:
    """A connection to the one training that PATH means.

    Raises:
        NoRunsFound: there is none; the text says why.
        BadCall: there are several.
    """
    from pathlib import Path

    from cbmon.endpoint import NoWire, live_sockets, socket_paths
    from cbmon.sources import find
    from cbmon.views import no_control
    from cbmon.wire import NOBODY, SOCKET, Line

    if path.startswith(SOCKET):
        given = os.path.expanduser(path.removeprefix(SOCKET))
        places = {at: [at] for at in ([Path(given)] if given else live_sockets())}
    else:
        _require_paths((path,), waits=False)
        finding = find((path,))
        if not finding.logs:
            _tell_skipped((path,), finding.logs, finding.skipped)
            raise NoRunsFound(f"{path}: no training log to find a live run by")
        places = {log.path: [at for at in socket_paths(log.path) if at.exists()] for log in finding.logs}
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
        names = ", ".join(printable(str(key), 100) for key in list(found)[:5])
        more = ", …" if len(found) > 5 else ""
        raise BadCall(f"{path}: ctl is for one run, here are {len(found)} live ones: {names}{more}")
    if not found:
        words = reasons[0] if reasons else NOBODY
        if len(places) == 1 and not path.startswith(SOCKET):
            runs, _ = _load((path,))
            words = next((why for _, run in runs if (why := no_control(run))), words)
        elif len(places) > 1:
            words = "no run here is live"
        raise NoRunsFound(f"{path}: {words}")
    ((key, line),) = found.items()
    if not path.startswith(SOCKET):
        runs, _ = _load((str(key),))
        started = runs[0][1].current.started if runs else None
        if started is not None and started.run_id != line.hello.run_id:
            line.close()
            raise NoRunsFound(f"{key}: another run listens for it")
    return line


def _make_folder(paths: Sequence[str]) -> None:
    """What `--listen` writes into: one folder, made if only it is missing."""
    _refuse_empty(paths)
    if len(paths) > 1:
        raise BadCall(f"--listen writes its records into one folder, here are {len(paths)} paths")
    folder = paths[0]
    if os.path.isdir(folder):
        return
    try:
        os.mkdir(folder)
    except OSError as error:
        reason = "this is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise BadCall(f"{folder}: {reason}; records are written into a folder") from None


@contextmanager
def _listening(
    address: str, token: str | None, folder: str, say: Callable[[str], None], *, tells: bool
) -> Iterator[None]:
    """Take in what RemoteMonitor sends; at the end, also by SIGTERM, what was taken in is written."""
    import signal

    from cbmon.receiver import Listening, Receiver, bind

    if token is not None and not (token and all("!" <= sign <= "~" for sign in token)):
        raise BadCall("--token: one or more letters, digits and signs of ASCII, no blanks")
    receiver = Receiver(folder, token=token, say=say, now=time.time, monotonic=time.monotonic)
    listening = Listening(bind(address, has_token=token is not None), receiver)
    before = {
        number: signal.signal(number, lambda number, _: sys.exit(128 + number))
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL  # not under nohup
    }
    before[signal.SIGTSTP] = signal.signal(
        signal.SIGTSTP, lambda *_: None
    )  # stopped, it would stop the trainings
    listening.start()
    if tells:
        say(f"RemoteMonitor(root={listening.url!r}, path='/NAME') is recorded in {folder}")
    try:
        yield
    finally:
        listening.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        if tells or receiver.taken or receiver.refused:
            say(receiver.summary())


def _screen_notes(stack: ExitStack) -> Callable[[str], None]:
    """Takes lines for the screen; the latest are told on stderr too, when the screen is gone."""
    from cbmon.word import Notes

    notes = Notes()

    def tell() -> None:
        for line in notes.lines:
            _complain(line)

    stack.callback(tell)
    return notes


def _word(
    stack: ExitStack, say: Callable[[str], None], *, notify: bool, command: str | None, level: str
) -> Callable[[Callable[[str], None], bool], Any] | None:
    """What makes the sender of word of alerts, given how to write to the terminal; None if nobody wants it."""
    if not notify and command is None:
        return None
    from cbmon.rules import Severity
    from cbmon.word import CommandWay, Word, read_command, terminal_way

    ways: list[Any] = []
    if command is not None:
        runner = CommandWay(read_command(command), say)
        stack.callback(runner.close)
        ways.append(runner)
    if notify and not (sys.stdout and sys.stdout.isatty()):
        _complain("--notify: no terminal here that could ring (--on-alert CMD needs none)")

    def make(write: Callable[[str], None], is_narrow: bool) -> Any:
        rings = notify and bool(sys.stdout and sys.stdout.isatty())
        bell = [terminal_way(write, os.environ, is_ascii=is_narrow)] if rings else []
        return Word([*bell, *ways], Severity(level))

    return make


def _policies(texts: Sequence[str]) -> Callable[[], Sequence[Any]]:
    """What makes the policies to follow beside each run; they are tried once, so that a bad CALL is told here."""
    if not texts:
        return tuple
    from cbmon.profiles import find_profile
    from cbmon.replay.calls import parse_calls
    from cbmon.replay.shadow import Shadow

    profile, _ = find_profile()
    calls = [call for text in texts for call in parse_calls(text, profile)]

    def make() -> Sequence[Any]:
        return [Shadow(call, profile) for call in calls]

    make()
    for note in dict.fromkeys(note for call in calls for note in call.notes):
        _complain(note)
    return make


@commands.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option(
    "--check", is_flag=True, help="Exit with 1 if a run is unhealthy: NaN, diverged, failed or crashed."
)
@click.option(
    "--skipped", "list_skipped", is_flag=True, help="List the files that are no training logs, and why."
)
@click.option(
    "--epochs",
    type=click.IntRange(1, EPOCHS_MAX),
    metavar="N",
    help="Planned epochs, for logs that cannot tell.",
)
def show(paths: tuple[str, ...], as_json: bool, check: bool, list_skipped: bool, epochs: int | None) -> int:
    """Tell the state of every run once: a table, or JSON for scripts."""
    from cbmon import views

    runs, skipped = _load(paths)
    _tell_skipped(paths, runs, skipped, with_all=list_skipped)
    if as_json:
        click.echo(json.dumps(views.show_json(runs, skipped), indent=2, allow_nan=False))
    elif runs:
        shown = [views.run_view(log, run, epochs) for log, run in runs]
        shown += [views.unreadable_view(skip) for skip in skipped if skip.looks_like_log]
        lines = views.show_table(shown, skipped, time.time(), ascii=not _speaks_utf8(sys.stdout))
        click.echo("\n".join(lines))
        for log, run in runs:
            for warning in views.warning_lines(run)[:WARNINGS_SHOWN]:
                _complain(f"{log.path}: {warning}")
            if (more := len(run.warnings) - WARNINGS_SHOWN) > 0:
                _complain(f"{log.path}: {more} more warnings (show --json lists them)")
    if not runs:
        return ExitCode.NO_DATA
    return ExitCode.UNHEALTHY if check and any(views.is_unhealthy(run) for _, run in runs) else ExitCode.OK


@commands.command()
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@click.option(
    "-c",
    "--callback",
    "calls",
    multiple=True,
    metavar="CALL",
    help="A callback as in the script; in list order.",
)
@click.option(
    "--variant", "variants", multiple=True, metavar="'NAME: CALL; CALL'", help="Another list, for comparison."
)
@click.option(
    "--learning-rate", type=float, metavar="X", help="The first learning rate, where the log has none."
)
@click.option(
    "--steps-per-epoch",
    type=click.IntRange(1),
    metavar="N",
    help="Batches an epoch, for an integer save_freq and for optimizers' schedules.",
)
@click.option(
    "--keras",
    "version",
    metavar="VERSION",
    help="3.15 ... 3.0, 2 or tf_keras, 2.15, 2.12; default: the installed one.",
)
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Only the N-th attempt of each log.")
@click.option(
    "--engine",
    type=click.Choice(["cbmon", "keras", "both"]),
    default="cbmon",
    help="Who decides: cbmon's own copy (the default), the installed Keras, which can also run callbacks of your "
    "own (package.module:Class(...)), or both, compared: exit code 1 if they differ.",
)
@click.option(
    "--explain",
    type=click.IntRange(1),
    metavar="EPOCH",
    help="Why each callback did what it did there, and what would have changed it.",
)
@click.option(
    "--html",
    "page",
    metavar="FILE",
    help="Also write a report as one file, which opens offline; an older report is replaced.",
)
@click.option(
    "--write",
    "target",
    metavar="FILE",
    help="Write the log that the list's CSVLogger would have written; FILE must be new.",
)
@click.option(
    "--epochs", type=click.IntRange(1), metavar="N", help="Planned epochs, for logs that cannot tell."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--play", "plays", is_flag=True, help="Play one log on the screen, as if it were trained now.")
def replay(
    logs: tuple[str, ...],
    calls: tuple[str, ...],
    variants: tuple[str, ...],
    learning_rate: float | None,
    steps_per_epoch: int | None,
    version: str | None,
    attempt: int | None,
    engine: str,
    target: str | None,
    epochs: int | None,
    explain: int | None,
    page: str | None,
    as_json: bool,
    plays: bool,
) -> int:
    """Tell what Keras callbacks would have decided on recorded logs, epoch by epoch.

    CALL is what stands in the training script, such as 'EarlyStopping(patience=5)'. It is read, never run; only
    'module:function' as a schedule is imported, with your rights, and with --engine keras or both callbacks of your
    own, 'package.module:Class(...)'. There stock callbacks write nothing outside a temporary folder.
    """
    from cbmon.profiles import find_profile
    from cbmon.replay.calls import parse_calls, parse_variant
    from cbmon.replay.cases import Case
    from cbmon.replay.engine import replay as replay_attempt
    from cbmon.replay.results import document
    from cbmon.views import warning_lines

    profile, note = find_profile(version)
    imports = engine != "keras"  # there the child process does, and once is enough
    listed = [call for text in calls for call in parse_calls(text, profile, imports=imports)]
    lists = [("1", listed)] if calls else []
    for number, text in enumerate(variants, len(lists) + 1):
        name, members = parse_variant(text, profile, imports=imports)
        lists.append((name or str(number), members))
    if len(twice := [name for name, _ in lists]) > len(set(twice)):
        name = next(each for each in twice if twice.count(each) > 1)
        raise BadCall(f"two lists are called {name!r}: give each --variant its own name")
    if plays:
        if as_json or page is not None or explain or target is not None or engine != "cbmon":
            raise BadCall(
                "--play shows a log on the screen; give --json, --html, --explain, --write and --engine without it"
            )
        return _play(logs, [call for _, members in lists for call in members], profile, attempt)
    if not lists:
        raise BadCall("nothing to replay: give a callback, such as -c 'EarlyStopping(patience=5)'")
    if note:
        _complain(note)
    _require_rate(learning_rate)
    if explain and as_json:
        raise BadCall("--explain tells people why; scripts find every decision in --json alone")
    if page is not None:
        _require_page(page)
    if target is not None:
        _require_new_log(target, [members for _, members in lists])
    if engine != "cbmon":
        _require_keras(profile, explains=explain is not None, writes=target is not None)
    runs, skipped = _load(logs)
    _tell_skipped(logs, runs, skipped)
    results, cases = [], []
    is_refused = False
    for log, run in runs:
        recorded = [
            (number, each)
            for number, each in enumerate(run.attempts, 1)
            if each.epochs or len(run.attempts) == 1
        ]
        chosen = [pair for pair in recorded if attempt in (None, pair[0])]
        if not chosen:
            _complain(f"{log.path}: no attempt {attempt}; it has {len(run.attempts)}")
            is_refused = True
        for number, each in chosen:
            for name, members in lists:
                result = replay_attempt(
                    each, members, profile, log=str(log.path), attempt=number, variant=name,
                    learning_rate=learning_rate, steps_per_epoch=steps_per_epoch, planned=epochs,
                )  # fmt: skip
                results.append(replace(result, warnings=(*warning_lines(run), *result.warnings)))
                cases.append(
                    Case(
                        recording=each, calls=tuple(members), profile=profile,
                        learning_rate=learning_rate, steps_per_epoch=steps_per_epoch, planned=epochs,
                    )
                )  # fmt: skip
    differences: list[list[str] | None] = []
    if engine != "cbmon":
        texts = [(calls, False)] * bool(calls) + [((text,), True) for text in variants]
        results, differences = _ask_keras(engine, results, cases, texts, profile, epochs)
    if as_json:
        told_json = document(results, profile)
        for each_json, found in zip(told_json["results"], differences, strict=False):
            each_json["differences"] = found
        click.echo(json.dumps(told_json, indent=2, allow_nan=False))
    elif explain and results:
        is_refused = not _explain(results, cases, explain - 1) or is_refused
    elif results:
        _report(results, profile, cases)
    if page is not None and results:
        from cbmon.replay.replay_page import replay_page

        _write_page(page, replay_page(results, cases, profile))
    if target is not None and runs:
        is_refused = not _write_log(target, results) or is_refused
    _tell_of_logs(results)
    if not runs:
        return ExitCode.NO_DATA
    if engine == "both" and _tell_differences(results, differences):
        return ExitCode.UNHEALTHY
    return ExitCode.USAGE if is_refused or any(result.error for result in results) else ExitCode.OK


LINES_A_WARNING = 5
"""Logs that are named one by one where all have the same to say; of more, how many they are."""


def _tell_of_logs(results: Sequence[Any]) -> None:
    """Errors and warnings, a line each; what many logs share, in one."""
    from cbmon.replay.engine import HAS

    logs: dict[str, dict[str, list[str]]] = {}
    for result in results:
        for words in ([result.error] if result.error else []) + list(result.warnings):
            lines = logs.setdefault(words.partition(HAS)[0], {}).setdefault(result.log, [])
            if words not in lines:
                lines.append(words)
    for shared, said in logs.items():
        if len(said) > LINES_A_WARNING:
            _complain(f"{len(said)} logs: {shared}")
            continue
        for log, each in said.items():
            for words in each:
                _complain(f"{log}: {words}")


def _require_keras(profile: Any, *, explains: bool, writes: bool) -> None:
    """Refuse before any log is read what only our own engine can tell, and a Keras that is not installed."""
    from cbmon.replay.keras_engine import find_keras

    if explains or writes:
        flag = "--explain" if explains else "--write"
        raise BadCall(f"{flag} tells what cbmon's own engine does: leave out --engine")
    find_keras(profile)


def _ask_keras(
    engine: str,
    ours: Sequence[Any],
    cases: Sequence[Any],
    texts: Sequence[tuple[Sequence[str], bool]],
    profile: Any,
    planned: int | None,
) -> tuple[list[Any], list[list[str] | None]]:
    """The results to tell, and of `both` their differences: None where only Keras has an answer.

    Args:
        engine: "keras" or "both".
        ours: Our own engine's results, all lists of a log together.
        cases: What each of them was asked.
        texts: Of each list, what it was read from, and whether that is a `--variant`.
        profile: Which Keras.
        planned: Epochs of the recorded trainings.
    """
    from cbmon.replay.keras_engine import Task, Written, differences, replay_with_keras

    if not ours:
        return [], []
    tasks = [
        Task(
            ours=result,
            written=Written(
                calls=case.calls, texts=texts[i % len(texts)][0], is_variant=texts[i % len(texts)][1]
            ),
            planned=planned,
        )
        for i, (result, case) in enumerate(zip(ours, cases, strict=True))
    ]
    rate, steps = cases[0].learning_rate, cases[0].steps_per_epoch
    theirs = replay_with_keras(tasks, profile, learning_rate=rate, steps_per_epoch=steps)
    if engine == "keras":
        return theirs, []
    pairs = list(zip(tasks, ours, theirs, strict=True))
    return (
        [other if task.written.foreign else one for task, one, other in pairs],
        [None if task.written.foreign else differences(one, other) for task, one, other in pairs],
    )


def _tell_differences(results: Sequence[Any], differences: Sequence[list[str] | None]) -> bool:
    """One line a difference, or one line that there is none; whether there is any."""
    found = False
    for result, lines in zip(results, differences, strict=True):
        where = f"{result.log}: attempt {result.attempt}, variant {result.variant}"
        if lines is None:
            _complain(f"{where}: not compared, for only Keras can run code of your own")
        for line in lines or ():
            found = True
            _complain(f"{where}: {line}")
    compared = sum(lines is not None for lines in differences)
    if not found and compared:
        _complain(f"no difference between cbmon and Keras in {plural(compared, 'replay')}")
    return found


@commands.command()
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
@click.option(
    "--learning-rate", type=float, metavar="X", help="The first learning rate, where the logs have none."
)
@click.option(
    "--keras",
    "version",
    metavar="VERSION",
    help="3.15 ... 3.0, 2 (tf_keras), 2.15, 2.12; default: the installed one.",
)
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Only the N-th attempt of each log.")
@click.option("--workers", type=click.IntRange(1), default=1, metavar="N", help="Processes (1).")
@click.option("--parts", metavar="FOLDER", help="Also write every cell there: Parquet, one file a block.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--cells", is_flag=True, help="With --json: where each policy stops each run.")
@click.option("--html", metavar="FILE", help="Also a report of one file, which opens offline.")
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
    from cbmon.views import ascii_only

    profile, note = find_profile(version)
    within = parse_tolerance(tolerance)
    if html:
        _require_page(html)
    if note:
        _complain(note)
    _require_rate(learning_rate)
    runs, skipped = _load(logs)
    _tell_skipped(logs, runs, skipped)
    if not runs:
        return ExitCode.NO_DATA
    sources = [
        source
        for log, run in runs
        for source in sources_of(str(log.path), str(log.path.parent), run.attempts)
        if attempt in (None, source.attempt)
    ]
    if not sources:
        _complain(f"no epochs to judge{'' if attempt is None else f' in attempt {attempt}'}")
        return ExitCode.NO_DATA
    with _progress(len(sources)) as progress:
        found = sweep_sources(
            sources, "; ".join(calls), profile, tolerance=within.amount if within.is_share else 0.0,
            learning_rate=learning_rate, workers=workers, parts=Path(parts) if parts else None, progress=progress,
        )  # fmt: skip
    ranking = rank(found, sources, tolerance=within, allowed=allowed)
    if doubt := ranking.doubt_of_tolerance:
        _complain(f"--tolerance {tolerance}: {doubt}")
    if as_json:
        click.echo(json.dumps(document(ranking, with_cells=cells), allow_nan=False))
    else:
        is_narrow = not _speaks_utf8(sys.stdout)
        lines = report(ranking, ascii=is_narrow, width=_page_shape().width)
        click.echo("\n".join(map(ascii_only, lines) if is_narrow else lines))
    if html:
        from cbmon.replay.sweep_page import sweep_page

        _write_page(html, sweep_page(ranking))
    for warning in found.warnings:
        _complain(warning)
    for run in found.runs:
        if run.error:
            _complain(f"{run.log}: {run.error}")
    if found.is_partial:
        _complain(f"interrupted: {found.done:,} of {found.total:,} runs judged")
        return ExitCode.INTERRUPTED
    return ExitCode.USAGE if any(run.error for run in found.runs) else ExitCode.OK


_BAR = 30
"""Columns of the progress bar."""


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None] | None]:
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


@commands.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--ascii", "is_ascii", is_flag=True, help="No characters beyond ASCII.")
def doctor(paths: tuple[str, ...], is_ascii: bool) -> int:
    """Tell what will work here and what will not: files, terminal, GPU, Keras. PATH defaults to the current folder.

    It tries whether changes of files are told, with a file of its own that it takes away again.
    """
    import shutil

    _refuse_empty(paths)
    from cbmon import doctor as doctors
    from cbmon.mounts import read_mounts
    from cbmon.views import ascii_only

    size = shutil.get_terminal_size((80, 24))
    terminal = doctors.Terminal(
        is_tty=bool(sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()),
        encoding=getattr(sys.__stderr__, "encoding", None) or "",  # Textual draws there
        size=(size.columns, size.lines),
        environment=os.environ,
    )
    facts = doctors.gather(paths or (".",), read_mounts(), terminal)
    is_narrow = is_ascii or not _speaks_utf8(sys.stdout)
    for line in doctors.lines(doctors.findings(facts)):
        click.echo(ascii_only(line) if is_narrow else line)
    return ExitCode.OK


@commands.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False))
@click.option("--plain", is_flag=True, help="Lines instead of a screen, as also without a terminal.")
@click.option("--ascii", "is_ascii", is_flag=True, help="No characters beyond ASCII.")
def demo(folder: str | None, plain: bool, is_ascii: bool) -> int:
    """Train two small Keras models for real and watch them: one stops early, one diverges.

    The records go into FOLDER, by default a new temporary one.
    """
    import subprocess
    import tempfile
    from importlib.util import find_spec
    from threading import Thread

    from cbmon.sources import Follower
    from cbmon.wire import Wires

    if find_spec("keras") is None:
        raise CbmonError(
            "the demo trains a Keras model and there is no Keras here: pip install 'cbmon[tensorflow]'"
        )
    folder = folder or tempfile.mkdtemp(prefix="cbmon-demo-")
    os.makedirs(folder, exist_ok=True)
    follower = Follower([folder], wires=Wires())
    with tempfile.TemporaryFile() as words:
        child = subprocess.Popen(
            [sys.executable, "-m", "cbmon.sample_logs.demo", folder],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words,
        )  # fmt: skip
        _complain(f"training two small models (importing Keras takes some seconds); records in {folder}")

        def end_with_training() -> None:
            child.wait()
            follower.stop()

        is_plain = plain or not _has_screen()
        if is_plain:
            Thread(target=end_with_training, daemon=True).start()
        try:
            _follow(follower, plain=is_plain, planned=None, is_ascii=is_ascii)
        finally:
            is_stopped_by_us = child.poll() is None
            child.terminate()
            child.wait()
        if child.returncode and not is_stopped_by_us:
            words.seek(0)
            lines = words.read().decode(errors="replace").strip().splitlines()
            raise CbmonError(
                f"the demo's training ended with {child.returncode}: {lines[-1] if lines else 'no word'}"
            )
    _complain(f"the records stay in {folder}; look again with: cbmon watch {folder}")
    return ExitCode.OK


def _require_new_log(path: str, lists: Sequence[Sequence[Any]]) -> None:
    """`--write` makes one new file, of one CSVLogger."""
    from cbmon.replay.observers import CSVLogger

    if len(lists) > 1 or sum(call.policy is CSVLogger for call in lists[0]) != 1:
        raise BadCall(
            "--write is for one list with one CSVLogger: -c 'EarlyStopping()' -c 'CSVLogger(\"log.csv\")'"
        )
    if os.path.lexists(path):
        raise BadCall(f"--write {path}: it exists already, and nothing is overwritten. Name a new file")


def _write_log(path: str, results: Sequence[Any]) -> bool:
    """Write what the one CSVLogger of the one result would have; whether it could be."""
    from cbmon.replay.observers import CSVLogger
    from cbmon.replay.written import csv_log

    if len(results) != 1:
        _complain(
            f"--write {path}: not written, it is for one log and one attempt, not {len(results)} "
            "(--attempt N picks one)"
        )
        return False
    made = results[0].decisions
    if made is None:
        return False
    member = next((each for each in made.members if isinstance(each.policy, CSVLogger) and each.course), None)
    if member is None:
        _complain(f"--write {path}: not written, it is for --engine cbmon")
        return False
    try:
        data = csv_log(member.policy, member.course)
        with open(path, "xb") as file:  # x: it must be new, also against somebody who is faster
            file.write(data)
    except (CbmonError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        _complain(f"--write {path}: not written, {reason}")
        return False
    _complain(f"{path}: written, {plural(len(member.course.rows), 'row')}")
    return True


def _require_rate(learning_rate: float | None) -> None:
    if learning_rate is not None and not math.isfinite(learning_rate):
        raise BadCall(f"--learning-rate {learning_rate}: give a finite number, such as 1e-3")


WARNINGS_SHOWN = 5
"""Warnings of one log told on stderr: enough to see what is wrong, few enough to keep the table in sight."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code. The console script's entry point."""
    try:
        result = commands.main(arguments, prog_name="cbmon", standalone_mode=False)
        if sys.stdout is not None:  # None: closed by who called us
            sys.stdout.flush()
        return int(result or 0)
    except CbmonError as error:
        _complain(str(error))
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return ExitCode.USAGE
    except click.ClickException as error:
        where = f"{error.ctx.command_path}" if isinstance(error, click.UsageError) and error.ctx else "cbmon"
        _complain(f"{error.format_message()} (see {where} --help)")
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`): nothing to say, and nothing to flush at exit.
        _drop_output()
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001  # the last border: what else escapes is a bug of ours, and said so
        if isinstance(error, OSError) and (fault := _fault_of_the_place(error)):
            _complain(fault)
            return ExitCode.USAGE
        import traceback

        traceback.print_exc()
        _complain(f"this is a bug in cbmon {__version__}, please report it with the lines above")
        return ExitCode.BUG


def _fault_of_the_place(error: OSError) -> str:
    """What is wrong with where the output goes, or where we stand; empty if neither explains the error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and error.filename is None:
        _drop_output()
        return f"cannot write the output: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        try:
            os.getcwd()
        except FileNotFoundError:
            return "the current folder is gone (deleted, or made again): cd into one that is there"
    return ""


def _drop_output() -> None:
    """Let what is still to be flushed at exit go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _has_screen() -> bool:
    """Whether there is a terminal that can show more than lines."""
    return (
        bool(sys.stdin and sys.stdin.isatty())
        and bool(sys.stdout and sys.stdout.isatty())
        and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    )


def _follow(
    follower: Any,
    *,
    plain: bool,
    planned: int | None,
    is_ascii: bool,
    make_word: Callable[[Callable[[str], None], bool], Any] | None = None,
    notes: Any = None,
    is_awaited: bool = False,
    asks: bool = True,
    **screen: Any,
) -> int:
    """Watch until the user ends it: on the screen, or in lines where there is none."""
    if plain or not _has_screen():
        if screen.get("policies", tuple)():
            _complain("--policy is followed on the screen and by --once, not in lines")
        from cbmon.plain import follow
        from cbmon.views import ascii_only

        is_narrow = is_ascii or not _speaks_utf8(sys.stdout)
        follow(
            follower,
            lambda line: _say_line(ascii_only(line) if is_narrow else line),
            planned,
            time.time,
            make_word(_ring, is_narrow) if make_word else None,
        )
        return ExitCode.OK
    import gc

    gc.disable()  # until the first picture, then the app has it again: 10 ms
    os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")  # whole lines: a tenth of the bytes; read at import
    from cbmon.tui.app import WatchApp

    # Textual draws on stderr.
    is_narrow = is_ascii or not _speaks_utf8(sys.__stderr__)
    app = WatchApp(follower, planned=planned, is_ascii=is_narrow, **screen)
    app.word = make_word(app.send_control, is_narrow) if make_word else None
    app.notes, app.is_awaited = notes, is_awaited
    app.wires = follower.wires if asks else None
    try:
        app.run()
    finally:
        follower.stop()
    return app.return_code or ExitCode.OK


def _play(paths: Sequence[str], calls: Sequence[Any], profile: Any, attempt: int | None) -> int:
    """`replay --play`: one log on the screen of `watch`."""
    from cbmon.sources import find, read_whole, words

    _refuse_empty(paths)
    finding = find(paths)
    _tell_skipped(paths, finding.logs, finding.skipped)
    if not finding.logs:
        return ExitCode.NO_DATA
    if len(finding.logs) > 1:
        names = ", ".join(str(log.path) for log in finding.logs[:3])
        raise BadCall(f"--play plays one log, here are {len(finding.logs)}: {names} …")
    if not _has_screen():
        raise CbmonError("--play needs a terminal; without --play the same is told in lines")
    import gc

    gc.disable()  # as in `watch`
    os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    from cbmon.tui.playback import play

    (log,) = finding.logs
    try:
        events = list(read_whole(log, time.time()))
    except OSError as error:
        raise NoRunsFound(f"{log.path}: {words(error)}") from None
    app = play(log, events, calls, profile, attempt=attempt, is_ascii=not _speaks_utf8(sys.__stderr__))
    app.run()
    return app.return_code or ExitCode.OK


def _load(paths: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Every log under the paths folded into a run, and what was skipped."""
    from cbmon.sources import load

    _refuse_empty(paths)
    return load(paths)


def _print_frame(paths: Sequence[str], planned: int | None, shadows: Sequence[Any], is_ascii: bool) -> int:
    """`watch --once`: one frame as wide and high as the terminal."""
    import shutil

    from cbmon import frame, plots, views

    runs, skipped = _load(paths)
    by_path = {log.path: run for log, run in runs}
    ordered = views.newest_first({log.path: views.run_view(log, run, planned) for log, run in runs})
    shown = [*ordered.values(), *(views.unreadable_view(skip) for skip in skipped if skip.looks_like_log)]
    width, height = shutil.get_terminal_size((80, 24))
    first = by_path[next(iter(ordered))] if ordered else None
    states = []
    for shadow in shadows if first else ():
        assert first is not None
        while True:
            state = shadow.look(first.current)
            if not shadow.is_behind(first.current):
                break
        states.append((shadow.name, state, shadow.trouble, shadow.fired))
    fired = {call: epochs for call, _, _, epochs in states}
    rows = frame.frame(
        shown,
        plots.chart_view(first, planned=planned, fired=fired) if first else None,
        views.alert_lines(first) if first else [],
        " ".join(map(printable, paths)),
        width,
        height - 1,
        time.time(),
        strip=views.strip_lines(first, states, time.time()) if first else [],
        folder=paths[0],
        ascii=is_ascii,
    )
    click.echo(frame.text(rows))
    return ExitCode.OK


def _require_paths(paths: Sequence[str], *, waits: bool, is_live: bool = False) -> None:
    """Refuse a path that is not there, unless it may come and the screen says that it is waited for.

    A script gets its exit code; and where not even the folder above is there, it is a typo. `is_live`: sockets too.
    """
    import glob

    from cbmon.wire import SOCKET

    _refuse_empty(paths)
    for path in paths:
        if path.startswith(SOCKET) and not is_live:
            raise NoRunsFound(f"{path}: a socket keeps nothing, it can only be watched: cbmon watch {path}")
        if path == SOCKET:
            continue
        full = os.path.expanduser(path.removeprefix(SOCKET))
        if os.path.lexists(full) or glob.glob(full, recursive=True):
            continue
        above = os.path.dirname(os.path.abspath(full))
        while glob.has_magic(above):
            above = os.path.dirname(above)
        if not waits or not os.path.isdir(above):
            raise NoRunsFound(f"{path}: no such file or directory")


def _refuse_empty(paths: Sequence[str]) -> None:
    """An empty PATH is an unset variable of a shell; it does not mean the current folder."""
    if "" in paths:
        raise BadCall("an empty PATH (an unset variable?): write . for the current folder")


def _tell_skipped(
    paths: Sequence[str], runs: Sequence[Any], skipped: Sequence[Any], *, with_all: bool = False
) -> None:
    """One line for each file that is refused aloud; where nothing can be read, at least one line."""
    told = [skip for skip in skipped if skip.looks_like_log or with_all]
    for skip in told:
        _complain(f"{skip.path}: {skip.reason}")
    if not runs and not told:
        looked = f" ({plural(len(skipped), 'file')} looked at; --skipped says why)" if skipped else ""
        _complain(
            f"{' '.join(paths)}: no training log here{looked}. Keras' CSVLogger and cbmon's Monitor write them"
        )


def _say_line(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _ring(text: str) -> None:
    """Control text to the terminal; click would take it out where it thinks there is none."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _complain(words: str) -> None:
    click.echo(f"cbmon: {printable(words, limit=1000)}", err=True)


def _page_shape() -> Any:
    """How wide stdout is, and whether it takes colours and more than ASCII."""
    import shutil

    from cbmon.replay.report import WIDTH, Page

    is_terminal, columns = sys.stdout.isatty(), shutil.get_terminal_size((WIDTH, 24)).columns
    return Page(
        width=max(20, min(WIDTH, columns)),
        columns=columns,
        ascii=not _speaks_utf8(sys.stdout),
        colours=is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
    )


def _say_lines(lines: Sequence[str]) -> None:
    from cbmon.views import ascii_only

    is_narrow = not _speaks_utf8(sys.stdout)
    said = [ascii_only(line.replace("×", "x")) if is_narrow else line for line in lines]
    click.echo("\n".join(said), color=True)


def _report(results: Sequence[Any], profile: Any, cases: Sequence[Any]) -> None:
    """The answer of `replay` for people."""
    from cbmon.replay.report import report

    _say_lines(report(results, profile, cases, _page_shape()))


def _require_page(path: str) -> None:
    """Refuse before any work what the report could not be written to, and never overwrite what is none."""
    from cbmon.replay.webpage import MARKER

    above = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(above):
        raise BadCall(f"--html {path}: there is no folder {above}")
    try:
        with open(path, "rb") as file:
            is_ours = file.read(len(MARKER)) == MARKER.encode()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadCall(f"--html {path}: {error.strerror}") from None
    if not is_ours:
        raise BadCall(f"--html {path}: this file is no report of cbmon and is not overwritten. Name another")


def _write_page(path: str, text: str) -> None:
    """The whole file or none: who has the old report open, or a full disk, sees no half of a new one."""
    import tempfile

    handle, name = tempfile.mkstemp(
        prefix=".cbmon-", suffix=".html", dir=os.path.dirname(os.path.abspath(path))
    )
    try:
        with open(handle, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except OSError as error:
        os.unlink(name)
        raise CbmonError(f"--html {path}: {error.strerror}") from None
    _complain(f"report written to {path}")


def _explain(results: Sequence[Any], cases: Sequence[Any], epoch: int) -> bool:
    """`replay --explain`; whether every log has that epoch, in one attempt at least."""
    from cbmon.replay.explain import row_of
    from cbmon.replay.report import explanation

    width, recorded, told = _page_shape().width, dict[str, set[int]](), set[str]()
    for result, case in zip(results, cases, strict=True):
        recorded.setdefault(result.log, set()).update(case.recording.epochs)
        row = row_of(case, epoch)
        if row is not None:
            told.add(result.log)
            _say_lines(explanation(result, case, row, width))
    for log, epochs in recorded.items():
        if log not in told:
            which = f"it has epochs {min(epochs) + 1} to {max(epochs) + 1}" if epochs else "it has none"
            _complain(f"{log}: no epoch {epoch + 1} in this log; {which}")
    return len(told) == len(recorded)


def _speaks_utf8(stream: IO[str] | None) -> bool:
    encoding = getattr(stream, "encoding", None) or "ascii"
    return encoding.casefold().replace("-", "") == "utf8"
