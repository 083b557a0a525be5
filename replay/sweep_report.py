"""A sweep for people, as plain lines with epochs 1-based, and for scripts, as JSON. Pure."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from cbmon.replay.ranking import NEVER_IMPROVED, Ranking, Recommendation
from cbmon.replay.report import below_shared
from cbmon.replay.swept import SweptPolicy, SweptRun
from cbmon.units import UNKNOWN, cells, display_epoch, duration, fit, plural, printable, short
from cbmon.views import json_number

WIDTH = 100
"""Columns, where nobody says how many there are."""
POLICIES_SHOWN = 10
RUNS_SHOWN = 20
NAMED = 5
"""Runs named one by one; of more the first ones, and how many more there are."""
COLUMNS_MAX, ROWS_MAX = 16, 10
"""Of the map; longer axes are sampled evenly."""


# --- JSON ------------------------------------------------------------------------------------------------


def document(ranking: Ranking, *, with_cells: bool = False) -> dict[str, Any]:
    """The document of `cbmon sweep --json`: epochs 0-based, non-finite numbers as strings.

    Args:
        ranking: The sweep, judged.
        with_cells: Each policy's `stops`, one a run: the 0-based epoch, null where it did not fire.
    """
    sweep, advice = ranking.sweep, ranking.recommended
    return {
        "version": 1,
        "keras": sweep.profile.name,
        "runs": [_run_json(run, needed) for run, needed in zip(sweep.runs, ranking.needed, strict=True)],
        "policies": [
            _policy_json(ranking, index, policy, with_cells) for index, policy in enumerate(sweep.policies)
        ],
        "recommended": advice
        and {
            "policy": advice.policy,
            "tolerance": ranking.tolerance.amount,
            "tolerance_unit": "share" if ranking.tolerance.is_share else "metric",
            "leave_one_out": {
                "lost": advice.leave_one_out.lost,
                "of": advice.leave_one_out.of,
                "unit": advice.leave_one_out.unit,
            },
            "note": advice.note,
        },
        "done": sweep.done,
        "total": sweep.total,
        "warnings": list(filter(None, [*sweep.warnings, ranking.doubt_of_tolerance, ranking.why_none])),
    }


def _run_json(run: SweptRun, needed: int | None) -> dict[str, Any]:
    return {
        "log": printable(run.log, limit=4096),
        "attempt": run.attempt,
        "epochs": run.epochs,
        "best": run.best and {"epoch": run.best[0], "value": json_number(run.best[1])},
        "needed_patience": needed,
        "flags": list(run.flags),
    } | ({"error": run.error} if run.error else {})


def _policy_json(ranking: Ranking, index: int, policy: SweptPolicy, with_cells: bool) -> dict[str, Any]:
    sweep, regret = ranking.sweep, ranking.regret(index)
    found: dict[str, Any] = {
        "call": policy.call,
        "equivalent": list(policy.equivalent),
        "fired": ranking.fired(index),
        "epochs_saved": ranking.saved(index),
        "seconds_saved": ranking.saved_seconds(index),
        "regret": None
        if sweep.regret is None
        else {"median": regret and json_number(regret[0]), "worst": regret and json_number(regret[1])},
        "harmful": ranking.harmful(index),
    }
    if sweep.exact is not None:
        found["unknown"] = ranking.unmeasured(index)
    if with_cells:
        found["stops"] = [int(epoch) if epoch >= 0 else None for epoch in sweep.stops[:, index]]
    return found


# --- text ------------------------------------------------------------------------------------------------


def report(ranking: Ranking, *, ascii: bool = False, width: int = WIDTH) -> list[str]:
    """The answers first: what to take and whether to trust it; then the alternatives, the map and the runs.

    Args:
        ranking: The sweep, judged.
        ascii: No characters beyond ASCII in the map (the caller maps the rest).
        width: Columns of the screen; only a table of many axes needs more.
    """
    sweep, wrap = ranking.sweep, partial(_wrap, width=width)
    calls = sum(len(policy.equivalent) for policy in sweep.policies)
    parts = [plural(len(sweep.runs), "run"), _policies_in_words(calls)]
    if calls != len(sweep.policies):
        parts[1] += f", {len(sweep.policies):,} of them different"
    if sweep.regret is not None:
        weights = "best weights restored" if sweep.keep == "restored" else "last weights kept"
        parts += [f"{printable(sweep.metric)}, {weights}, tolerance {ranking.tolerance}"]
    lines = [*wrap(" · ".join([*parts, f"as Keras {sweep.profile.name} would"]))]
    if sweep.is_partial:
        lines += wrap(f"Interrupted: {sweep.done:,} of {sweep.total:,} runs are in these figures.")
    lines += ["", *_recommendation(ranking, width)]
    if sweep.kind == "cut":
        lines += ["", *_cuts(ranking, width)]
    elif sweep.kind == "save":
        lines += ["", *_saves(ranking, width)]
    elif ranking.best_first:
        lines += ["", *_policies(ranking, width)]
        if shown := list(_map(ranking, ascii, width)):
            lines += ["", *shown]
    return [*lines, "", *_runs(ranking, width)]


def _policies_in_words(count: int) -> str:
    return f"{count:,} {'policy' if count == 1 else 'policies'}"


def _wrap(text: str, first: str = "", indent: int = 2, *, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, indent + 20),
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def recommendation(ranking: Ranking) -> list[str]:
    """What to take and whether to trust it, in sentences; the first one is the call, or why there is none."""
    sweep, advice = ranking.sweep, ranking.recommended
    if advice is None:
        return [ranking.why_none[:1].upper() + ranking.why_none[1:] + "."]
    index = advice.policy
    rows = np.flatnonzero(ranking.judged)
    recorded = sum(sweep.runs[row].epochs for row in rows)
    saved, seconds = ranking.saved(index, judged=True), ranking.saved_seconds(index, judged=True)
    told = [
        printable(sweep.policies[index].call, limit=1000),
        _same(sweep.policies[index]),
        f"stops {ranking.fired(index, judged=True)} of {plural(len(rows), 'run')} and saves "
        f"{100 * saved / max(recorded, 1):.0f} % of the epochs "
        f"({saved:,} of {recorded:,}{f', {duration(seconds)}' if seconds else ''})",
        _harm(ranking, index),
        *_trust(ranking, advice),
        _left_out(ranking),
        "regrets are lower bounds: a log ends where it ends, and might have improved later",
    ]
    return list(filter(None, told))


def _harm(ranking: Ranking, index: int) -> str:
    """Whom it harms, of the runs judged."""
    harms = [run for run in ranking.harmful(index) if ranking.judged[run]]
    unknown = [run for run in ranking.unmeasured(index) if ranking.judged[run]]
    text = f"harms {_names(ranking, harms) or 'none of them'}"
    if unknown:
        text += f"; of {_names(ranking, unknown)} nobody knows: a cut that the log did not make comes before"
    return text


def _trust(ranking: Ranking, advice: Recommendation) -> list[str]:
    """How far: the choice made again without each unit, and what order statistics promise."""
    out, told = advice.leave_one_out, list[str]()
    if out.of > 1:
        told.append(
            f"chosen without one {out.unit}, the policy would have harmed it in {out.lost} of {out.of} cases "
            f"(leave one {out.unit} out); roughly, at most {_percent(out.bound)} with 95 % confidence"
        )
    trust = ""
    if advice.promise is not None:
        these = f"these {advice.tried}" if advice.tried > 1 else "this one"
        longer = f" that it could stop (as {these} of {out.of})" if advice.tried < out.of else ""
        trust = (
            f"the next {out.unit}{longer}, if it resembles these, is harmed with a probability of at most "
            f"{_percent(advice.promise)}"
        )
        if advice.also_chosen:
            trust += f"; a little more, for {' and '.join(advice.also_chosen)} were chosen by them too"
            trust = trust.replace(" were ", " was ") if len(advice.also_chosen) == 1 else trust
    return [*told, "; ".join(filter(None, (advice.note, trust)))]


def _left_out(ranking: Ranking) -> str:
    """The runs that the advice does not rest on."""
    reasons = Counter[str]()
    for run, is_repeat, is_judged in zip(ranking.sweep.runs, ranking.repeats, ranking.judged, strict=True):
        if not is_judged:
            is_flat = NEVER_IMPROVED in run.flags and not run.error
            reasons["repeat" if is_repeat else NEVER_IMPROVED if is_flat else "without"] += 1
    told = []
    if count := reasons["without"]:
        told.append(f"{plural(count, 'run')} without a finite {printable(ranking.sweep.metric)} or refused")
    if count := reasons["repeat"]:
        told.append(
            f"{plural(count, 'run')} that repeat another one from its start: one training is one witness"
        )
    if count := reasons[NEVER_IMPROVED]:
        told.append(
            f"{plural(count, 'run')} whose {NEVER_IMPROVED}: that says something about the run, not about patience"
        )
    return f"left out: {'; '.join(told)}".replace("1 run that repeat ", "1 run that repeats ") if told else ""


def _recommendation(ranking: Ranking, width: int) -> Iterable[str]:
    first, *others = recommendation(ranking)
    if ranking.recommended is None:
        return _wrap(first, indent=0, width=width)
    title = "Recommended  "
    blank = " " * len(title)
    lines = _wrap(first, title, len(title), width=width)
    return [*lines, *(line for each in others for line in _wrap(each, blank, len(title), width=width))]


def _same(policy: SweptPolicy) -> str:
    """How many other members of the grid provably decide the same."""
    others = len(policy.equivalent) - 1
    if not others:
        return ""
    shown = printable(policy.equivalent[0], limit=200)
    return f"the same on any log: {shown}" + (f" and {others - 1} more" if others > 1 else "")


def _names(ranking: Ranking, runs: Sequence[int]) -> str:
    every = _run_names(ranking.sweep.runs)
    names = [every[run] for run in runs[:NAMED]]
    more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
    return ", ".join(names) + more


def _run_names(runs: Sequence[SweptRun]) -> list[str]:
    """The logs below the folder that all of them share, with the attempt where there are several."""
    return [
        printable(name) + (f" (attempt {run.attempt})" if run.attempt > 1 else "")
        for name, run in zip(below_shared([run.log for run in runs]), runs, strict=True)
    ]


def front_rows(ranking: Ranking) -> list[list[str]]:
    """What no other policy beats in both epochs saved and worst regret, on the runs judged: with its heading."""
    sweep, advice = ranking.sweep, ranking.recommended
    shown = list(ranking.best_first[:POLICIES_SHOWN])
    if advice and advice.policy not in shown:
        shown = [*shown[: POLICIES_SHOWN - 1], advice.policy]
        shown.sort(key=lambda index: -ranking.saved(index, judged=True))
    (rows,) = np.nonzero(ranking.judged)
    recorded = sum(sweep.runs[row].epochs for row in rows)
    seconds = {index: ranking.saved_seconds(index, judged=True) for index in shown}
    has_times, has_unknown = any(seconds.values()), bool(ranking.unknown.any())
    table = [
        [
            *map(printable, sweep.axes), "stops", "saves", *(["time"] if has_times else []), "harms",
            *(["not known"] if has_unknown else []), "regret: median", "worst", "",
        ]
    ]  # fmt: skip
    for index in shown:
        stops = f"{ranking.fired(index, judged=True)} of {len(rows)}"
        if len(rows) == 1:
            epoch = int(sweep.stops[rows[0], index])
            stops = f"after {display_epoch(epoch)} of {recorded}" if epoch >= 0 else f"not within {recorded}"
        regret = ranking.regret_share(index)
        table.append(
            [
                *_values(ranking, index),
                stops,
                f"{100 * ranking.saved(index, judged=True) / max(recorded, 1):.0f} %",
                *([duration(seconds[index])] if has_times else []),
                str(int(ranking.harms[rows, index].sum())),
                *([str(int(ranking.unknown[rows, index].sum()))] if has_unknown else []),
                *([UNKNOWN] * 2 if regret is None else map(_percent, regret)),
                "recommended" if advice and advice.policy == index else "",
            ]
        )
    return table


def _policies(ranking: Ranking, width: int) -> Iterable[str]:
    more = len(ranking.best_first) - POLICIES_SHOWN
    title = "Nothing beats these in both epochs saved and worst regret"
    yield from _wrap(f"{title} ({more} more)" if more > 0 else title, width=width)
    if ranking.unknown.any():
        yield from _wrap("Not known: a cut that the log did not make comes before the stop", width=width)
    yield from _aligned(front_rows(ranking), width)


def _saves(ranking: Ranking, width: int) -> Iterable[str]:
    """Of each policy: how often it saves, and what its last file loses against the run's best."""
    sweep = ranking.sweep
    rows = [[*map(printable, sweep.axes), "saves in", "files", "regret: median", "worst", ""]]
    for index in range(min(len(sweep.policies), 2 * POLICIES_SHOWN)):
        regret = ranking.regret_share(index)
        files = UNKNOWN if sweep.saves is None else f"{int(sweep.saves[:, index].sum()):,}"
        fired = f"{ranking.fired(index)} of {plural(len(sweep.runs), 'run')}"
        told = [UNKNOWN] * 2 if regret is None else list(map(_percent, regret))
        rows.append([*_values(ranking, index), fired, files, *told, ""])
    yield from _aligned(rows, width)
    if (more := len(sweep.policies) - 2 * POLICIES_SHOWN) > 0:
        yield f"  and {_policies_in_words(more)} more: --json has all"


def _values(ranking: Ranking, index: int) -> list[str]:
    """A policy's values on the axes."""
    policy = ranking.sweep.policies[index]
    return [_written(policy.arguments[name]) for name in ranking.sweep.axes]


def _cuts(ranking: Ranking, width: int) -> Iterable[str]:
    """Of each policy: where its first cut comes, the only one that the logs can tell exactly."""
    sweep = ranking.sweep
    yield "Only the first cut is exact: what follows it, nobody measured"
    rows = [[*sweep.axes, "cuts", "first: earliest", "median", "latest", "cuts in all*", ""]]
    by_first = sorted(range(len(sweep.policies)), key=lambda index: -ranking.fired(index))
    for index in by_first[: 2 * POLICIES_SHOWN]:
        firsts = sorted(display_epoch(int(epoch)) for epoch in sweep.stops[:, index] if epoch >= 0)
        told = [str(firsts[0]), f"{median(firsts):g}", str(firsts[-1])] if firsts else [UNKNOWN] * 3
        total = UNKNOWN if sweep.reductions is None else str(int(sweep.reductions[:, index].sum()))
        rows.append([*_values(ranking, index), f"{len(firsts)} of {len(sweep.runs)}", *told, total, ""])
    yield from _aligned(rows, width)
    if (more := len(sweep.policies) - 2 * POLICIES_SHOWN) > 0:
        yield f"  and {_policies_in_words(more)} more: --json has all"
    yield "  * what the rule would do on these same numbers"


def _aligned(rows: Sequence[Sequence[str]], width: int) -> Iterable[str]:
    """Columns right-aligned but for the last one, which may be longer than the line."""
    widths = [max(cells(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    used = 2 + sum(widths) + 2 * len(widths)
    for row in rows:
        start = "  " + "".join(
            fit(text, wide, right=True) + "  " for text, wide in zip(row, widths, strict=False)
        )
        yield from _wrap(row[-1], start, used, width=width) or [start.rstrip()]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapCells:
    """The grid over its two longest axes, the others as in the recommended policy."""

    titles: tuple[str, str]
    """What goes across and what goes down; the second is empty for a grid of one axis."""
    columns: list[str]
    rows: list[str]
    saved: list[list[float]]
    """[row][column]: share of all recorded epochs, in %."""
    harms: list[list[int]]
    """[row][column]: runs."""
    others: str
    """The values of the other axes, in words."""


def map_cells(ranking: Ranking, columns_max: int = COLUMNS_MAX) -> MapCells | None:
    """The map of a sweep that stops trainings, on the runs judged; None without a second value on any axis."""
    sweep = ranking.sweep
    names = list(sweep.axes)
    longest = sorted((n for n in names if len(sweep.axes[n]) > 1), key=lambda n: -len(sweep.axes[n]))[:2]
    if not longest or sweep.kind != "stop" or not ranking.judged.any():
        return None
    base = sweep.policies[ranking.recommended.policy if ranking.recommended else 0].arguments
    across, down = longest[0], longest[1] if len(longest) > 1 else ""
    columns = _sampled(sweep.axes[across], columns_max)
    rows = _sampled(sweep.axes[down], ROWS_MAX) if down else [0]
    members = sweep.members.reshape([len(sweep.axes[name]) for name in names])
    place = {name: sweep.axes[name].index(base[name]) for name in names}
    judged = ranking.judged
    recorded = max(sum(run.epochs for run, is_in in zip(sweep.runs, judged, strict=True) if is_in), 1)

    def policy(row: int, column: int) -> int:
        wanted = place | {across: column} | ({down: row} if down else {})
        return int(members[tuple(wanted[name] for name in names)])

    def lost(index: int) -> int:
        return int((ranking.harms[judged, index] | ranking.unknown[judged, index]).sum())

    chosen = [[policy(row, column) for column in columns] for row in rows]
    return MapCells(
        titles=(across, down),
        columns=[_written(sweep.axes[across][column]) for column in columns],
        rows=[_written(sweep.axes[down][row]) if down else "" for row in rows],
        saved=[[100 * ranking.saved(index, judged=True) / recorded for index in row] for row in chosen],
        harms=[[lost(index) for index in row] for row in chosen],
        others="; ".join(f"{name}={_written(base[name])}" for name in names if name not in longest),
    )


def _map(ranking: Ranking, ascii: bool, width: int) -> Iterable[str]:
    """Where it harms no more runs than allowed, the share saved; elsewhere how many it harms."""
    times, rows, found = "x" if ascii else "×", list[list[str]](), None
    for most in range(COLUMNS_MAX, 1, -1):
        found = map_cells(ranking, most)
        if found is None:
            return
        rows = [["", *found.columns, ""]]
        for name, saved, harms in zip(found.rows, found.saved, found.harms, strict=True):
            shown = [
                f"{times}{harmed}" if harmed > ranking.allowed else f"{share:.0f}"
                for share, harmed in zip(saved, harms, strict=True)
            ]
            rows.append([name, *shown, ""])
        if max(map(cells, _aligned(rows, width))) <= width:
            break
    assert found is not None
    across, down = found.titles
    what = "harmed or not known" if ranking.unknown.any() else "harmed"
    sampled = len(found.columns) < len(ranking.sweep.axes[across])
    some = f" ({len(found.columns)} of {len(ranking.sweep.axes[across])} values)" if sampled else ""
    title = f"Epochs saved in %, or {times} runs {what}: {across} across{some}"
    title += f", {down} down" if down else ""
    yield from _wrap(f"{title} ({found.others})" if found.others else title, width=width)
    yield from _aligned(rows, width)


def _written(value: object) -> str:
    """A value of an axis; a text may hold what would move a cursor."""
    return f"{value:g}" if isinstance(value, float) else printable(str(value), limit=40)


def _percent(share: float) -> str:
    if not np.isfinite(share):
        return "of 0"  # a share of a best value of 0 is none
    return f"{100 * share:,.0f} %" if share >= 0.995 else f"{100 * share:.2g} %"


def _sampled(values: Sequence[object], count: int) -> list[int]:
    """The places of at most `count` of them, evenly, the first and the last among them."""
    if len(values) <= count:
        return list(range(len(values)))
    return [round(i * (len(values) - 1) / (count - 1)) for i in range(count)]


def run_rows(ranking: Ranking) -> list[list[str]]:
    """What each run needed and where the recommended policy ends it, the most demanding first: with its heading."""
    sweep, has_needs, advice = ranking.sweep, bool(ranking.needed_for), ranking.recommended
    names = _run_names(sweep.runs)
    heading = [*(["needs patience"] if has_needs else []), *(["stops after"] if advice else [])]
    rows = [[*heading, "epochs", "best", "run"]]
    order = sorted(
        range(len(sweep.runs)), key=lambda run: (ranking.needed[run] is None, -(ranking.needed[run] or 0))
    )
    for index in order:
        run, needed = sweep.runs[index], ranking.needed[index]
        notes = [run.error] if run.error else list(run.flags)
        if not run.error and has_needs and needed is None and run.best:
            notes.append("no patience keeps its best")
        words = f"{names[index]}  ({'; '.join(map(printable, notes))})" if notes else names[index]
        best = f"{short(run.best[1])} ★{display_epoch(run.best[0])}" if run.best else UNKNOWN
        first = [str(needed) if needed is not None else UNKNOWN] if has_needs else []
        if advice:
            stop = int(sweep.stops[index, advice.policy])
            first.append(str(display_epoch(stop)) if stop >= 0 else UNKNOWN)
        rows.append([*first, f"{run.epochs:,}", best, words])
    return rows


def _runs(ranking: Ranking, width: int) -> Iterable[str]:
    if ranking.needed_for:
        advised = ", and where the recommended policy stops it" if ranking.recommended else ""
        yield from _wrap(
            f"Smallest patience with which each run keeps its best, tolerance {ranking.tolerance}, "
            f"for {ranking.needed_for}{advised}",
            width=width,
        )
    elif ranking.sweep.regret is None:
        yield from _wrap(f"Runs, and their best {printable(ranking.sweep.metric)}", width=width)
    rows = run_rows(ranking)
    yield from _aligned(rows[: RUNS_SHOWN + 1], width)
    if (more := len(rows) - 1 - RUNS_SHOWN) > 0:
        yield f"  and {plural(more, 'more run')}"
        counts = Counter(flag for run in ranking.sweep.runs for flag in run.flags)
        yield from _wrap("; ".join(f"{flag}: {count}" for flag, count in counts.items()), "  ", width=width)
