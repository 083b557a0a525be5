"""`watch` without a screen: one sentence a change, for pipes, `TERM=dumb` and screen readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cbmon.rules import Severity, Status, alerts
from cbmon.run import Run, fold
from cbmon.sources import Follower, Log, Skipped
from cbmon.views import (
    RunView,
    alert_sentence,
    epoch_sentence,
    needs_you_line,
    run_view,
    state_sentence,
    unreadable_view,
)

if TYPE_CHECKING:
    from cbmon.word import Word

_LIVE = (Status.RUNNING, Status.GROWING, Status.EMPTY)
"""States that go without saying where a run's epochs are told."""


class Narrator:
    """Turns batches of events into sentences: the latest of new epochs, each new alert and change of state once.

    Alerts that were there before it began are told only where the run still suffers from them.
    """

    def __init__(self, say: Callable[[str], None], planned: int | None = None) -> None:
        self._say = say
        self._planned = planned
        self._told: dict[Path, set[object]] = {}
        self._seen: dict[Path, RunView] = {}
        self._refused: dict[Path, Skipped] = {}

    def take(self, log: Log, run: Run, now: float) -> None:
        """A run took events: say what is new about it."""
        view, before = run_view(log, run, self._planned), self._seen.get(log.path)
        self._seen[log.path] = view
        reached = None if before is None else (before.epoch, before.attempts)
        has_epoch = view.epoch is not None and (view.epoch, view.attempts) != reached
        if has_epoch:
            self._say(epoch_sentence(view, run, now))
        new = self._tell_alerts(log.path, run, view, now, is_first=before is None)
        if (log.trouble and view.status is not Status.GONE) or (before is not None and before.status is None):
            is_news = before is None or before.word != view.word
        elif view.needs_you or view.status is None or view.status.value in new:
            is_news = False  # an alert says it
        elif view.status in _LIVE and (before is None or has_epoch):
            is_news = False
        else:
            is_news = before is None or before.status is not view.status
        if is_news:
            self._say(state_sentence(view, now))

    def _tell_alerts(self, path: Path, run: Run, view: RunView, now: float, *, is_first: bool) -> set[str]:
        """Say the new alerts; gives the kinds of those said."""
        told, found = self._told.get(path, set()), alerts(run)
        self._told[path] = {alert.key for alert in found}
        kinds = set()
        for alert in found:
            is_current = alert.attempt == len(run.attempts) and alert.severity is Severity.ERROR
            if alert.key not in told and (is_current or not is_first):
                self._say(alert_sentence(view, alert, now))
                kinds.add(alert.kind)
        return kinds

    def refuse(self, skipped: list[Skipped], now: float) -> None:
        """Say once which files look like logs and cannot be read."""
        for skip in skipped:
            if skip.looks_like_log and self._refused.get(skip.path) != skip:
                self._refused[skip.path] = skip
                self._say(state_sentence(unreadable_view(skip, is_awaited=True), now))


def follow(
    follower: Follower,
    say: Callable[[str], None],
    planned: int | None,
    now: Callable[[], float],
    word: Word | None = None,
) -> None:
    """Narrate everything under the follower's paths until it is stopped; `word` is sent of new alerts."""
    narrator = Narrator(say, planned)
    runs: dict[Path, Run] = {}
    changed: set[Path] | None = None
    first, trouble = True, ""
    while not follower.is_stopped:
        touched: dict[Path, Log] = {}
        for log, events in follower.read(changed):
            run = runs.setdefault(log.path, Run())
            for event in events:
                fold(run, event)
            touched[log.path] = log
        for path, log in touched.items():
            narrator.take(log, runs[path], now())
            if word is not None:
                word.look(path, log.name, runs[path])
        narrator.refuse(follower.skipped, now())
        if word is not None:
            word.tell()
            word.begin()
        if first:
            first = False
            views = [run_view(log, runs[path], planned) for path, log in follower.logs.items()]
            views += [
                unreadable_view(skip, is_awaited=True) for skip in follower.skipped if skip.looks_like_log
            ]
            say(f"watching {needs_you_line(views)}")
            follower.start()
        if follower.trouble != trouble:  # it may come up at any time: a limit is reached, a disk is mounted
            trouble = follower.trouble
            if trouble:
                say(trouble)
        changed = follower.wait()
