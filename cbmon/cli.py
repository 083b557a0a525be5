"""The command line: arguments in, exit code out. The only place that prints, and where errors become one line.

Each command imports its layer inside, so that `cbmon show` loads no screen. stdout is data, stderr is words.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO, Any

import click

from cbmon import __version__
from cbmon.errors import BadCall, CbmonError, ExitCode, NoRunsFound
from cbmon.units import plural, printable


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
    "--epochs", type=click.IntRange(1), metavar="N", help="Planned epochs, for logs that cannot tell."
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="CALL",
    help="An EarlyStopping or ReduceLROnPlateau to follow beside the run: 'EarlyStopping(patience=5)'.",
)
@click.option("--max-fps", type=click.FloatRange(0.1, 60), default=10, help="Pictures a second at most (10).")
@click.option("--ascii", "is_ascii", is_flag=True, help="No characters beyond ASCII.")
def watch(
    paths: tuple[str, ...],
    once: bool,
    plain: bool,
    poll: bool,
    epochs: int | None,
    policies: tuple[str, ...],
    max_fps: float,
    is_ascii: bool,
) -> int:
    """Follow training live: runs, curves, learning rate, alerts. PATH defaults to the current folder."""
    from cbmon.sources import Follower

    paths = paths or (".",)
    _require_paths(paths)
    make_policies = _policies(policies)
    if once:
        return _print_frame(paths, epochs, make_policies(), is_ascii or not _speaks_utf8(sys.stdout))
    return _follow(
        Follower(paths, poll=poll),
        plain=plain,
        planned=epochs,
        is_ascii=is_ascii,
        policies=make_policies,
        max_fps=max_fps,
    )


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
    "--epochs", type=click.IntRange(1), metavar="N", help="Planned epochs, for logs that cannot tell."
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
    help="Batches an epoch, for an integer save_freq.",
)
@click.option(
    "--keras",
    "version",
    metavar="VERSION",
    help="3.15 ... 3.0, 2 (tf_keras), 2.15, 2.12; default: the installed one.",
)
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Only the N-th attempt of each log.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def replay(
    logs: tuple[str, ...],
    calls: tuple[str, ...],
    variants: tuple[str, ...],
    learning_rate: float | None,
    steps_per_epoch: int | None,
    version: str | None,
    attempt: int | None,
    as_json: bool,
) -> int:
    """Tell what Keras callbacks would have decided on recorded logs, epoch by epoch.

    CALL is what stands in the training script, such as 'EarlyStopping(patience=5)'. It is read, never run; only
    'module:function' as a schedule is imported, with your rights.
    """
    from cbmon.profiles import find_profile
    from cbmon.replay.calls import parse_calls, parse_variant
    from cbmon.replay.engine import replay as replay_attempt
    from cbmon.replay.report import report
    from cbmon.replay.results import document
    from cbmon.views import warning_lines

    profile, note = find_profile(version)
    lists = [("1", [call for text in calls for call in parse_calls(text, profile)])] if calls else []
    for number, text in enumerate(variants, len(lists) + 1):
        name, members = parse_variant(text, profile)
        lists.append((name or str(number), members))
    if not lists:
        raise BadCall("nothing to replay: give a callback, such as -c 'EarlyStopping(patience=5)'")
    if note:
        _complain(note)
    if learning_rate is not None and not math.isfinite(learning_rate):
        raise BadCall(f"--learning-rate {learning_rate}: give a finite number, such as 1e-3")
    runs, skipped = _load(logs)
    _tell_skipped(logs, runs, skipped)
    results = []
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
                    learning_rate=learning_rate, steps_per_epoch=steps_per_epoch,
                )  # fmt: skip
                results.append(replace(result, warnings=(*warning_lines(run), *result.warnings)))
    if as_json:
        click.echo(json.dumps(document(results, profile), indent=2, allow_nan=False))
    elif results:
        click.echo("\n".join(report(results, profile)))
    told = set()
    for result in results:
        for words in ([result.error] if result.error else []) + list(result.warnings):
            if (result.log, words) not in told:
                told.add((result.log, words))
                _complain(f"{result.log}: {words}")
    if not runs:
        return ExitCode.NO_DATA
    return ExitCode.USAGE if is_refused or any(result.error for result in results) else ExitCode.OK


@commands.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--ascii", "is_ascii", is_flag=True, help="No characters beyond ASCII.")
def doctor(paths: tuple[str, ...], is_ascii: bool) -> int:
    """Tell what will work here and what will not: files, terminal, GPU, Keras. PATH defaults to the current folder.

    It tries whether changes of files are told, with a file of its own that it takes away again.
    """
    import shutil

    from cbmon import doctor as doctors
    from cbmon.mounts import read_mounts
    from cbmon.views import ascii_only

    size = shutil.get_terminal_size((80, 24))
    terminal = doctors.Terminal(
        is_tty=sys.stdin.isatty() and sys.stdout.isatty(),
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

    if find_spec("keras") is None:
        raise CbmonError(
            "the demo trains a Keras model and there is no Keras here: pip install 'cbmon[tensorflow]'"
        )
    folder = folder or tempfile.mkdtemp(prefix="cbmon-demo-")
    os.makedirs(folder, exist_ok=True)
    follower = Follower([folder])
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


WARNINGS_SHOWN = 5
"""Warnings of one log told on stderr: enough to see what is wrong, few enough to keep the table in sight."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code. The console script's entry point."""
    try:
        result = commands.main(arguments, prog_name="cbmon", standalone_mode=False)
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception:  # noqa: BLE001  # the last border: whatever else escapes is a bug of ours, and said so
        import traceback

        traceback.print_exc()
        _complain(f"this is a bug in cbmon {__version__}, please report it with the lines above")
        return ExitCode.BUG


def _has_screen() -> bool:
    """Whether there is a terminal that can show more than lines."""
    return (
        sys.stdin.isatty()
        and sys.stdout.isatty()
        and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    )


def _follow(follower: Any, *, plain: bool, planned: int | None, is_ascii: bool, **screen: Any) -> int:
    """Watch until the user ends it: on the screen, or in lines where there is none."""
    if plain or not _has_screen():
        if screen.get("policies", tuple)():
            _complain("--policy is followed on the screen and by --once, not in lines")
        from cbmon.plain import follow
        from cbmon.views import ascii_only

        is_narrow = is_ascii or not _speaks_utf8(sys.stdout)
        follow(follower, lambda line: _say_line(ascii_only(line) if is_narrow else line), planned, time.time)
        return ExitCode.OK
    import gc

    gc.disable()  # until the first picture, then the app has it again: 10 ms
    os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")  # whole lines: a tenth of the bytes; read at import
    from cbmon.tui.app import WatchApp

    # Textual draws on stderr.
    is_narrow = is_ascii or not _speaks_utf8(sys.__stderr__)
    app = WatchApp(follower, planned=planned, is_ascii=is_narrow, **screen)
    try:
        app.run()
    finally:
        follower.stop()
    return app.return_code or ExitCode.OK


def _load(paths: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Every log under the paths folded into a run, and what was skipped."""
    from cbmon.run import Run, fold
    from cbmon.sources import Skipped, find, read_whole, words

    finding = find(paths)
    now = time.time()
    runs = []
    for log in finding.logs:
        run = Run()
        try:
            for event in read_whole(log, now):
                fold(run, event)
        except OSError as error:
            finding.skipped.append(Skipped(log.path, words(error)))
        else:
            runs.append((log, run))
    return runs, finding.skipped


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
        states.append((shadow.call.text, state, shadow.trouble, shadow.fired))
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


def _require_paths(paths: Sequence[str]) -> None:
    """Refuse a path that is not there: waiting for it for ever would look like an empty folder."""
    import glob

    for path in paths:
        if path.startswith("unix://"):
            raise NoRunsFound(f"{path}: sockets are not watched yet, name the record's file or folder")
        full = os.path.expanduser(path)
        if not os.path.lexists(full) and not glob.glob(full, recursive=True):
            raise NoRunsFound(f"{path}: no such file or directory")


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


def _complain(words: str) -> None:
    click.echo(f"cbmon: {printable(words, limit=1000)}", err=True)


def _speaks_utf8(stream: IO[str] | None) -> bool:
    encoding = getattr(stream, "encoding", None) or "ascii"
    return encoding.casefold().replace("-", "") == "utf8"
