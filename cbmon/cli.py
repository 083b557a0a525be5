"""The command line: arguments in, exit code out. The only place that prints, and where errors become one line.

Each command imports its layer inside, so that `cbmon show` loads no screen. stdout is data, stderr is words.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import IO, Any

import click

from cbmon import __version__
from cbmon.errors import CbmonError, ExitCode, NoRunsFound


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
@click.option("--poll", is_flag=True, help="Look every 2 s instead of trusting file system notices (NFS, FUSE).")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Planned epochs, for logs that cannot tell.")
@click.option("--ascii", "is_ascii", is_flag=True, help="No characters beyond ASCII.")
def watch(paths: tuple[str, ...], once: bool, plain: bool, poll: bool, epochs: int | None, is_ascii: bool) -> int:
    """Follow training live: runs, curves, learning rate, alerts. PATH defaults to the current folder."""
    from cbmon.sources import Follower

    paths = paths or (".",)
    _require_paths(paths)
    is_ascii = is_ascii or not _speaks_utf8(sys.stdout if once or plain else sys.__stderr__)
    if once:
        return _print_frame(paths, epochs, is_ascii)
    follower = Follower(paths, poll=poll)
    if plain or not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in ("dumb", "unknown"):
        from cbmon.plain import follow

        follow(follower, _say_line, epochs, time.time)
        return ExitCode.OK
    from cbmon.tui.app import WatchApp

    app = WatchApp(follower, planned=epochs, is_ascii=is_ascii)
    try:
        app.run()
    finally:
        follower.stop()
    return app.return_code or ExitCode.OK


@commands.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--check", is_flag=True, help="Exit with 1 if a run is unhealthy: NaN, diverged, failed or crashed.")
@click.option("--skipped", "list_skipped", is_flag=True, help="List the files that are no training logs, and why.")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Planned epochs, for logs that cannot tell.")
def show(paths: tuple[str, ...], as_json: bool, check: bool, list_skipped: bool, epochs: int | None) -> int:
    """Tell the state of every run once: a table, or JSON for scripts."""
    from cbmon import views

    runs, skipped = _load(paths)
    for skip in skipped:
        if skip.looks_like_log or list_skipped:
            _complain(f"{skip.path}: {skip.reason}")
    if as_json:
        click.echo(json.dumps(views.show_json(runs, skipped), indent=2, allow_nan=False))
    elif runs or any(skip.looks_like_log for skip in skipped):
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
        _complain(_no_runs(paths, len(skipped)))
        return ExitCode.NO_DATA
    return ExitCode.UNHEALTHY if check and any(views.is_unhealthy(run) for _, run in runs) else ExitCode.OK


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
    except Exception:  # the border: whatever else escapes is a bug of ours
        import traceback

        traceback.print_exc()
        _complain(f"this is a bug in cbmon {__version__}, please report it with the lines above")
        return ExitCode.BUG


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


def _print_frame(paths: Sequence[str], planned: int | None, is_ascii: bool) -> int:
    """`watch --once`: one frame as wide and high as the terminal."""
    import shutil

    from cbmon import frame, views

    runs, skipped = _load(paths)
    by_path = {log.path: run for log, run in runs}
    ordered = views.newest_first({log.path: views.run_view(log, run, planned) for log, run in runs})
    shown = [*ordered.values(), *(views.unreadable_view(skip) for skip in skipped if skip.looks_like_log)]
    width, height = shutil.get_terminal_size((80, 24))
    first = by_path[next(iter(ordered))] if ordered else None
    rows = frame.frame(
        shown,
        views.chart_view(first, planned=planned) if first else None,
        views.alert_lines(first) if first else [],
        " ".join(paths),
        width,
        height - 1,
        time.time(),
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
            raise NoRunsFound(f"{path}: no such file or folder")


def _no_runs(paths: Sequence[str], skipped: int) -> str:
    where = " ".join(paths)
    if skipped:
        files = "1 file" if skipped == 1 else f"{skipped} files"
        return f"{where}: no training log that can be read ({files} looked at; --skipped says why)"
    return f"{where}: no training log here. Keras' CSVLogger and cbmon's Monitor write them"


def _say_line(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _complain(words: str) -> None:
    from cbmon.units import printable

    click.echo(f"cbmon: {printable(words, limit=1000)}", err=True)


def _speaks_utf8(stream: IO[str] | None) -> bool:
    encoding = getattr(stream, "encoding", None) or "ascii"
    return encoding.casefold().replace("-", "") == "utf8"
