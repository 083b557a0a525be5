"""A sweep for people, as plain lines of at most 100 columns with epochs 1-based, and for scripts, as JSON. Pure."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from cbmon.replay.ranking import NEVER_IMPROVED, Ranking
from cbmon.replay.sweeping import SweptPolicy, SweptRun
from cbmon.units import UNKNOWN, cells, display_epoch, duration, fit, plural, printable, short
from cbmon.views import json_number

WIDTH = 100
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
        "warnings": [*sweep.warnings, *([ranking.why_none] if ranking.why_none else [])],
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
    sweep, regrets = ranking.sweep, ranking.regrets(index)
    found: dict[str, Any] = {
        "call": policy.call,
        "equivalent": list(policy.equivalent),
        "fired": ranking.fired(index),
        "epochs_saved": ranking.saved(index),
        "regret": None
        if sweep.regret is None
        else {
            "median": json_number(median(regrets)) if regrets else None,
            "worst": json_number(max(regrets)) if regrets else None,
        },
        "harmful": ranking.harmful(index),
    }
    if with_cells:
        found["stops"] = [int(epoch) if epoch >= 0 else None for epoch in sweep.stops[:, index]]
    return found


# --- text ------------------------------------------------------------------------------------------------


def report(ranking: Ranking, *, ascii: bool = False) -> list[str]:
    """The answers first: what to take and whether to trust it; then the alternatives, the map and the runs.

    Args:
        ranking: The sweep, judged.
        ascii: No characters beyond ASCII in the map (the caller maps the rest).
    """
    sweep = ranking.sweep
    calls = sum(len(policy.equivalent) for policy in sweep.policies)
    parts = [plural(len(sweep.runs), "run"), plural(calls, "policy").replace("policys", "policies")]
    if calls != len(sweep.policies):
        parts[1] += f", {len(sweep.policies):,} of them different"
    if sweep.regret is not None:
        weights = "best weights restored" if sweep.keep == "restored" else "last weights kept"
        parts += [f"{printable(sweep.metric)}, {weights}, tolerance {ranking.tolerance}"]
    lines = [*_wrap(" · ".join([*parts, f"as Keras {sweep.profile.name} would"]), first="", indent=2)]
    if sweep.is_partial:
        lines += _wrap(f"Interrupted: {sweep.done:,} of {sweep.total:,} runs are in these figures.")
    lines += ["", *_recommendation(ranking)]
    if sweep.kind == "cut":
        lines += ["", *_cuts(ranking)]
    elif sweep.policies and sweep.runs:
        lines += ["", *_policies(ranking)]
        if sweep.kind == "stop" and (shown := _map(ranking, ascii)):
            lines += ["", *shown]
    return [*lines, "", *_runs(ranking)]


def _wrap(text: str, first: str = "  ", indent: int = 2) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
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
    index, out = advice.policy, advice.leave_one_out
    rows = np.flatnonzero(ranking.judged)
    recorded = sum(sweep.runs[row].epochs for row in rows)
    saved, fired = int(sweep.saved[rows, index].sum()), int((sweep.stops[rows, index] >= 0).sum())
    seconds = ranking.saved_seconds(index)
    harms = [run for run in ranking.harmful(index) if ranking.judged[run]]
    trust = (
        f"if the next {out.unit} resembles these, it is harmed with a probability of at most "
        f"{100 * advice.promise:.0f} %"
    )
    told = [
        printable(sweep.policies[index].call, limit=1000),
        _same(sweep.policies[index]),
        f"stops {fired} of {plural(len(rows), 'run')} and saves {100 * saved / max(recorded, 1):.0f} % of the "
        f"epochs ({saved:,} of {recorded:,}{f', {duration(seconds)}' if seconds else ''})",
        f"harms {_names(ranking, harms) or 'none of them'}; a {out.unit} that it was not chosen by: {out.lost} "
        f"of {out.of} harmed (leave one {out.unit} out), at most {100 * out.bound:.0f} % with 95 % confidence",
        f"{advice.note}; {trust}" if advice.note else trust,
    ]
    if left_out := sum(NEVER_IMPROVED in run.flags for run in sweep.runs):
        told.append(
            f"{plural(left_out, 'run')} whose {NEVER_IMPROVED} {'is' if left_out == 1 else 'are'} left out: that "
            "says something about the run, not about patience"
        )
    told.append("regrets are lower bounds: a log ends where it ends, and might have improved later")
    return list(filter(None, told))


def _recommendation(ranking: Ranking) -> Iterable[str]:
    first, *others = recommendation(ranking)
    if ranking.recommended is None:
        return _wrap(first, first="", indent=0)
    title = "Recommended  "
    lines = [_wrap(first, title, len(title)), *(_wrap(each, " " * len(title), len(title)) for each in others)]
    return [line for each in lines for line in each]


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
    folders = {os.path.dirname(run.log) for run in runs}
    shared = os.path.commonpath(folders) if len({os.path.isabs(each) for each in folders}) == 1 else ""
    return [
        printable(os.path.relpath(run.log, shared) if shared else run.log)
        + (f" (attempt {run.attempt})" if run.attempt > 1 else "")
        for run in runs
    ]


def front_rows(ranking: Ranking) -> list[list[str]]:
    """What no other policy beats in both epochs saved and worst regret: a table with its heading."""
    sweep, advice = ranking.sweep, ranking.recommended
    shown = list(ranking.best_first[:POLICIES_SHOWN])
    if advice and advice.policy not in shown:
        shown = [*shown[: POLICIES_SHOWN - 1], advice.policy]
        shown.sort(key=lambda index: -ranking.saved(index))
    recorded = sum(run.epochs for run in sweep.runs)
    rows = [[*sweep.axes, "stops", "saves", "harms", "regret: median", "worst", ""]]
    for index in shown:
        regrets = ranking.regrets(index, as_share=True)
        rows.append(
            [
                *_values(ranking, index),
                f"{ranking.fired(index)} of {len(sweep.runs)}",
                f"{100 * ranking.saved(index) / max(recorded, 1):.0f} %",
                str(len(ranking.harmful(index))),
                _percent(median(regrets)) if regrets else UNKNOWN,
                _percent(max(regrets)) if regrets else UNKNOWN,
                "recommended" if advice and advice.policy == index else "",
            ]
        )
    return rows


def _policies(ranking: Ranking) -> Iterable[str]:
    more = len(ranking.best_first) - POLICIES_SHOWN
    title = "Nothing beats these in both epochs saved and worst regret"
    yield f"{title} ({more} more)" if more > 0 else title
    yield from _aligned(front_rows(ranking))


def _values(ranking: Ranking, index: int) -> list[str]:
    """A policy's values on the axes."""
    policy = ranking.sweep.policies[index]
    return [_written(policy.arguments[name]) for name in ranking.sweep.axes]


def _cuts(ranking: Ranking) -> Iterable[str]:
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
    yield from _aligned(rows)
    if len(sweep.policies) > 2 * POLICIES_SHOWN:
        yield f"  and {len(sweep.policies) - 2 * POLICIES_SHOWN:,} more policies: --json has all"
    yield "  * what the rule would do on these same numbers"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Columns right-aligned but for the last one, which may be longer than the line."""
    widths = [max(cells(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    used = 2 + sum(widths) + 2 * len(widths)
    for row in rows:
        start = "  " + "".join(
            fit(text, width, right=True) + "  " for text, width in zip(row, widths, strict=False)
        )
        yield from _wrap(row[-1], start, used) or [start.rstrip()]


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


def map_cells(ranking: Ranking) -> MapCells | None:
    """The map of a sweep that stops trainings; None without a second value on any axis."""
    sweep = ranking.sweep
    names = list(sweep.axes)
    longest = sorted((n for n in names if len(sweep.axes[n]) > 1), key=lambda n: -len(sweep.axes[n]))[:2]
    if not longest or sweep.kind != "stop" or not sweep.runs:
        return None
    base = sweep.policies[ranking.recommended.policy if ranking.recommended else 0].arguments
    across, down = longest[0], longest[1] if len(longest) > 1 else ""
    columns = _sampled(sweep.axes[across], COLUMNS_MAX)
    rows = _sampled(sweep.axes[down], ROWS_MAX) if down else [0]
    members = sweep.members.reshape([len(sweep.axes[name]) for name in names])
    place = {name: sweep.axes[name].index(base[name]) for name in names}
    recorded = max(sum(run.epochs for run in sweep.runs), 1)

    def policy(row: int, column: int) -> int:
        wanted = place | {across: column} | ({down: row} if down else {})
        return int(members[tuple(wanted[name] for name in names)])

    return MapCells(
        titles=(across, down),
        columns=[_written(sweep.axes[across][column]) for column in columns],
        rows=[_written(sweep.axes[down][row]) if down else "" for row in rows],
        saved=[[100 * ranking.saved(policy(row, column)) / recorded for column in columns] for row in rows],
        harms=[[len(ranking.harmful(policy(row, column))) for column in columns] for row in rows],
        others="; ".join(f"{name}={_written(base[name])}" for name in names if name not in longest),
    )


def _map(ranking: Ranking, ascii: bool) -> Iterable[str]:
    """Where it harms no more runs than allowed, the share saved; elsewhere how many it harms."""
    found = map_cells(ranking)
    if found is None:
        return
    times, (across, down) = "x" if ascii else "×", found.titles
    title = f"Epochs saved in %, or {times} runs harmed: {across} across" + (f", {down} down" if down else "")
    yield from _wrap(f"{title} ({found.others})" if found.others else title, first="", indent=2)
    rows = [["", *found.columns, ""]]
    for name, saved, harms in zip(found.rows, found.saved, found.harms, strict=True):
        shown = [
            f"{times}{harmed}" if harmed > ranking.allowed else f"{share:.0f}"
            for share, harmed in zip(saved, harms, strict=True)
        ]
        rows.append([name, *shown, ""])
    yield from _aligned(rows)


def _written(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 0.995 else f"{100 * share:.2g} %"


def _sampled(values: Sequence[object], count: int) -> list[int]:
    """The places of at most `count` of them, evenly, the first and the last among them."""
    if len(values) <= count:
        return list(range(len(values)))
    return [round(i * (len(values) - 1) / (count - 1)) for i in range(count)]


def run_rows(ranking: Ranking) -> list[list[str]]:
    """What each run needed, the most demanding first: a table with its heading."""
    sweep, has_needs = ranking.sweep, bool(ranking.needed_for)
    names = _run_names(sweep.runs)
    rows = [[*(["needs patience"] if has_needs else []), "epochs", "best", "run"]]
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
        rows.append([*first, str(run.epochs), best, words])
    return rows


def _runs(ranking: Ranking) -> Iterable[str]:
    if ranking.needed_for:
        yield from _wrap(
            f"Smallest patience with which each run keeps its best, tolerance {ranking.tolerance}, "
            f"for {ranking.needed_for}",
            first="",
            indent=2,
        )
    rows = run_rows(ranking)
    yield from _aligned(rows[: RUNS_SHOWN + 1])
    if (more := len(rows) - 1 - RUNS_SHOWN) > 0:
        yield f"  and {plural(more, 'more run')}"
        counts = Counter(flag for run in ranking.sweep.runs for flag in run.flags)
        yield from _wrap("; ".join(f"{flag}: {count}" for flag, count in counts.items()))
