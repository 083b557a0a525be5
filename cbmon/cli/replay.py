"""`cbmon replay`: what Keras callbacks would have decided on recorded logs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cbmon.cli import options
from cbmon.cli.logs import load, refuse_empty, several, tell_skipped
from cbmon.cli.terminal import (
    complain,
    has_screen,
    page_shape,
    prepare_screen,
    say_json,
    say_lines,
    speaks_utf8,
)
from cbmon.errors import BadCall, CbmonError, ExitCode, NoRunsFound
from cbmon.units import plural

if TYPE_CHECKING:
    from cbmon.profiles import Profile
    from cbmon.replay.calls import Call
    from cbmon.replay.cases import Case
    from cbmon.replay.results import Replay
    from cbmon.run import Run

Lists = Sequence[tuple[str, Sequence["Call"]]]
"""Lists of callbacks, by the names of their variants."""
Differences = Sequence[Sequence[str] | None]
"""Between the two engines, of each result; None where only Keras has an answer."""


@click.command()
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
@options.learning_rate
@click.option(
    "--steps-per-epoch",
    type=click.IntRange(1),
    metavar="N",
    help="Batches an epoch, for an integer save_freq and for optimizers' schedules.",
)
@options.keras
@options.attempt
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
@options.html
@click.option(
    "--write",
    "target",
    metavar="FILE",
    help="Write the log that the list's CSVLogger would have written; FILE must be new.",
)
@options.epochs
@options.as_json
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
    html: str | None,
    as_json: bool,
    plays: bool,
) -> int:
    """Tell what Keras callbacks would have decided on recorded logs, epoch by epoch.

    CALL is what stands in the training script, such as 'EarlyStopping(patience=5)'. It is read, never run; only
    'module:function' as a schedule is imported, with your rights, and with --engine keras or both callbacks of your
    own, 'package.module:Class(...)'. There stock callbacks write nothing outside a temporary folder.
    """
    from cbmon.profiles import find_profile
    from cbmon.replay.results import document

    profile, note = find_profile(version)
    # With --engine keras the child process imports the user's code, and once is enough.
    lists = _lists(calls, variants, profile, imports=engine != "keras")
    if plays:
        if as_json or html is not None or explain or target is not None or engine != "cbmon":
            raise BadCall(
                "--play shows a log on the screen; give --json, --html, --explain, --write and --engine without it"
            )
        return _play(logs, [call for _, members in lists for call in members], profile, attempt)
    if not lists:
        raise BadCall("nothing to replay: give a callback, such as -c 'EarlyStopping(patience=5)'")
    if note:
        complain(note)
    if explain and as_json:
        raise BadCall("--explain tells people why; scripts find every decision in --json alone")
    if target is not None:
        _require_new_log(target, lists)
    if engine != "cbmon":
        _require_keras(profile, explains=explain is not None, writes=target is not None)
    runs, skipped = load(logs)
    tell_skipped(logs, runs, skipped)
    results: list[Replay] = []
    cases: list[Case] = []
    is_refused = False
    for log, run in runs:
        found = _replayed(
            str(log.path), run, attempt, lists, profile,
            learning_rate=learning_rate, steps_per_epoch=steps_per_epoch, planned=epochs,
        )  # fmt: skip
        if not found:
            which = "" if attempt is None else f" {attempt}"
            complain(f"{log.path}: no attempt{which} with an epoch; it has {len(run.attempts)}")
            is_refused = True
        for result, case in found:
            results.append(result)
            cases.append(case)
    differences: Differences = []
    if engine != "cbmon":
        texts = [(calls, False)] * bool(calls) + [((text,), True) for text in variants]
        results, differences = _ask_keras(engine, results, cases, texts, profile)
    if as_json:
        told = document(results, profile)
        for each, lines in zip(told["results"], differences, strict=False):
            each["differences"] = lines
        say_json(told)
    elif explain and results:
        is_refused = not _explain(results, cases, explain - 1) or is_refused
    elif results:
        from cbmon.replay.report import report

        say_lines(report(results, profile, cases, page_shape()))
    if html is not None and results:
        from cbmon.cli.page import write_page
        from cbmon.replay.replay_page import replay_page

        write_page(html, replay_page(results, cases, profile))
    if target is not None and runs:
        is_refused = not _write_log(target, results) or is_refused
    _tell_of_logs(results)
    if not runs:
        return ExitCode.NO_DATA
    if engine == "both" and _tell_differences(results, differences):
        return ExitCode.UNHEALTHY
    return ExitCode.USAGE if is_refused or any(result.error for result in results) else ExitCode.OK


def _lists(calls: Sequence[str], variants: Sequence[str], profile: Profile, *, imports: bool) -> Lists:
    """The list of `-c`, if any, and those of `--variant`, each with its name."""
    from cbmon.replay.calls import parse_calls, parse_variant

    listed = [call for text in calls for call in parse_calls(text, profile, imports=imports)]
    lists = [("1", listed)] if calls else []
    for number, text in enumerate(variants, len(lists) + 1):
        name, members = parse_variant(text, profile, imports=imports)
        lists.append((name or str(number), members))
    names = [name for name, _ in lists]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadCall(f"two lists are called {twice[0]!r}: give each --variant its own name")
    return lists


def _replayed(
    log: str, run: Run, attempt: int | None, lists: Lists, profile: Profile, **asked: Any
) -> list[tuple[Replay, Case]]:
    """Our own engine's answers on one log, and what each came from; none if it has no such attempt."""
    from dataclasses import replace

    from cbmon.replay import engine
    from cbmon.replay.cases import Case
    from cbmon.views import warning_lines

    found = []
    for number, each in enumerate(run.attempts, 1):
        if attempt not in (None, number) or not (each.epochs or len(run.attempts) == 1):
            continue
        for name, members in lists:
            result = engine.replay(each, members, profile, log=log, attempt=number, variant=name, **asked)
            result = replace(result, warnings=(*warning_lines(run), *result.warnings))
            found.append((result, Case(recording=each, calls=tuple(members), profile=profile, **asked)))
    return found


LINES_A_WARNING = 5
"""Logs that are named one by one where all have the same to say; of more, how many they are."""


def _tell_of_logs(results: Sequence[Replay]) -> None:
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
            complain(f"{len(said)} logs: {shared}")
            continue
        for log, each in said.items():
            for words in each:
                complain(f"{log}: {words}")


# --- --engine keras, --engine both ------------------------------------------------------------------------


def _require_keras(profile: Profile, *, explains: bool, writes: bool) -> None:
    """Refuse before any log is read what only our own engine can tell, and a Keras that is not installed."""
    from cbmon.replay.keras_engine import find_keras

    if explains or writes:
        flag = "--explain" if explains else "--write"
        raise BadCall(f"{flag} tells what cbmon's own engine does: leave out --engine")
    find_keras(profile)


def _ask_keras(
    engine: str,
    ours: Sequence[Replay],
    cases: Sequence[Case],
    texts: Sequence[tuple[Sequence[str], bool]],
    profile: Profile,
) -> tuple[list[Replay], Differences]:
    """The results to tell, and of `both` their differences.

    Args:
        engine: "keras" or "both".
        ours: Our own engine's results, all lists of a log together.
        cases: What each of them was asked.
        texts: Of each list, what it was read from, and whether that is a `--variant`.
        profile: Which Keras.
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
            planned=case.planned,
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


def _tell_differences(results: Sequence[Replay], differences: Differences) -> bool:
    """One line a difference, or one line that there is none; whether there is any."""
    found = False
    for result, lines in zip(results, differences, strict=True):
        where = f"{result.log}: attempt {result.attempt}, variant {result.variant}"
        if lines is None:
            complain(f"{where}: not compared, for only Keras can run code of your own")
        for line in lines or ():
            found = True
            complain(f"{where}: {line}")
    compared = sum(lines is not None for lines in differences)
    if not found and compared:
        complain(f"no difference between cbmon and Keras in {plural(compared, 'replay')}")
    return found


# --- --play, --explain, --write ---------------------------------------------------------------------------


def _play(paths: Sequence[str], calls: Sequence[Call], profile: Profile, attempt: int | None) -> int:
    """`--play`: one log on the screen of `watch`."""
    from cbmon.sources import find, read_whole, words

    refuse_empty(paths)
    finding = find(paths)
    tell_skipped(paths, finding.logs, finding.skipped)
    if not finding.logs:
        return ExitCode.NO_DATA
    if len(finding.logs) > 1:
        raise BadCall(f"--play plays one log, here are {several(log.path for log in finding.logs)}")
    if not has_screen():
        raise CbmonError("--play needs a terminal; without --play the same is told in lines")
    prepare_screen()
    from cbmon.tui.playback import play

    (log,) = finding.logs
    try:
        events = list(read_whole(log, time.time()))
    except OSError as error:
        raise NoRunsFound(f"{log.path}: {words(error)}") from None
    app = play(log, events, calls, profile, attempt=attempt, is_ascii=not speaks_utf8(sys.__stderr__))
    app.run()
    return app.return_code or ExitCode.OK


def _explain(results: Sequence[Replay], cases: Sequence[Case], epoch: int) -> bool:
    """`--explain`; whether every log has that epoch, in one attempt at least."""
    from cbmon.replay.explain import row_of
    from cbmon.replay.report import explanation

    width, recorded, told = page_shape().width, dict[str, set[int]](), set[str]()
    for result, case in zip(results, cases, strict=True):
        recorded.setdefault(result.log, set()).update(case.recording.epochs)
        row = row_of(case, epoch)
        if row is not None:
            told.add(result.log)
            say_lines(explanation(result, case, row, width))
    for log, epochs in recorded.items():
        if log not in told:
            which = f"it has epochs {min(epochs) + 1} to {max(epochs) + 1}" if epochs else "it has none"
            complain(f"{log}: no epoch {epoch + 1} in this log; {which}")
    return len(told) == len(recorded)


def _require_new_log(path: str, lists: Lists) -> None:
    """`--write` makes one new file, of one CSVLogger."""
    from cbmon.replay.observers import CSVLogger

    if len(lists) > 1 or sum(call.policy is CSVLogger for call in lists[0][1]) != 1:
        raise BadCall(
            "--write is for one list with one CSVLogger: -c 'EarlyStopping()' -c 'CSVLogger(\"log.csv\")'"
        )
    if os.path.lexists(path):
        raise BadCall(f"--write {path}: it exists already, and nothing is overwritten. Name a new file")


def _write_log(path: str, results: Sequence[Replay]) -> bool:
    """Write what the one CSVLogger of the one result would have; whether it could be."""
    from cbmon.replay.observers import CSVLogger
    from cbmon.replay.written import csv_log

    def refuse(reason: str) -> bool:
        complain(f"--write {path}: not written, {reason}")
        return False

    if len(results) != 1:
        return refuse(f"it is for one log and one attempt, not {len(results)} (--attempt N picks one)")
    made = results[0].decisions
    if made is None:  # its error is told
        return False
    for member in made.members:
        if isinstance(member.policy, CSVLogger) and member.course:
            policy, course = member.policy, member.course
            break
    else:
        return refuse("it is for --engine cbmon")
    try:
        data = csv_log(policy, course)
        with open(path, "xb") as file:  # x: it must be new, also against somebody who is faster
            file.write(data)
    except (CbmonError, OSError) as error:
        return refuse((error.strerror if isinstance(error, OSError) else None) or str(error))
    complain(f"{path}: written, {plural(len(course.rows), 'row')}")
    return True
