"""A sweep as a page of its own, for `cbmon sweep --html`. Pure."""

from __future__ import annotations

from cbmon.replay import webpage
from cbmon.replay.ranking import Ranking
from cbmon.replay.sweep_report import front_rows, map_cells, recommendation, run_rows
from cbmon.units import UNKNOWN, plural

POLICIES_SHOWN = 200
"""Rows of the table of all policies; JSON has every one."""


def sweep_page(ranking: Ranking) -> str:
    """The whole file: the advice, the policies that nothing beats, the map, the runs, all policies."""
    found = ranking.sweep
    title = f"{plural(len(found.runs), 'run')}, {plural(len(found.policies), 'different policy')}"
    sections = [webpage.section("Which policy", webpage.words_list(recommendation(ranking)))]
    if ranking.best_first:
        sections.append(
            webpage.section(
                "Nothing beats these in both epochs saved and worst regret",
                webpage.table(front_rows(ranking), left=[""]),
            )
        )
    if shown := map_cells(ranking):
        sections.append(
            webpage.section(
                "Epochs saved",
                webpage.heat_map(
                    shown.saved, shown.columns, shown.rows, titles=shown.titles,
                    crossed=[[harms > ranking.allowed for harms in row] for row in shown.harms],
                    caption=f"Epochs saved, in %; crossed out where more than {plural(ranking.allowed, 'run')} "
                    f"would be harmed. {shown.others}",
                ),
            )
        )  # fmt: skip
    sections.append(webpage.section("Runs", webpage.table(run_rows(ranking), left=["run"])))
    sections.append(webpage.section("All policies", _all(ranking)))
    return webpage.page(title.replace("policys", "policies"), sections)


def _all(ranking: Ranking) -> str:
    found = ranking.sweep
    rows: list[list[object]] = [["policy", "fires", "epochs saved", "harms", "regret: median", "worst"]]
    order = sorted(range(len(found.policies)), key=lambda index: -ranking.saved(index))
    for index in order[:POLICIES_SHOWN]:
        regret = ranking.regret(index)
        rows.append(
            [
                found.policies[index].call,
                ranking.fired(index),
                ranking.saved(index),
                len(ranking.harmful(index)),
                *([UNKNOWN] * 2 if regret is None else (f"{each:.4g}" for each in regret)),
            ]
        )
    more = len(order) - POLICIES_SHOWN
    return webpage.table(rows, left=["policy"]) + (
        webpage.words_list([f"and {more:,} more: --json has all"]) if more > 0 else ""
    )
