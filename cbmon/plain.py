"""`watch` without a screen: one sentence a change, for pipes, `TERM=dumb` and screen readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cbmon.rules import Alert, Severity, alerts
from cbmon.run import Run, fold
from cbmon.sources import Follower, Log
from cbmon.views import alert_sentence, epoch_sentence, needs_you_line, run_view


class Narrator:
    """Turns batches of events into sentences: each new epoch, each new alert once, each change of state once.

    Alerts that were there before it began are told only where the run still suffers from them.
    """

    def __init__(self, say: Callable[[str], None], planned: int | None = None) -> None:
        self._say = say
        self._planned = planned
        self._runs: dict[Path, Run] = {}
        self._told: dict[Path, set[Alert]] = {}
        self._states: dict[Path, tuple[str, int | None, int]] = {}

    def take(self, log: Log, run: Run, now: float) -> None:
        """A run took events: say what is new about it."""
        view = run_view(log, run, self._planned)
        known = self._states.get(log.path)
        state = (view.word, view.epoch, view.attempts)
        if state != known:
            self._states[log.path] = state
            if known is None or state[1:] != known[1:]:
                self._say(epoch_sentence(view, run, now))
            if state[0] != (known or ("",))[0] and not view.needs_you:
                self._say(f"{epoch_sentence(view, run, now).split(' epoch ')[0]} {view.word}")
        found = set(alerts(run))
        new = found - self._told.get(log.path, set())
        self._told[log.path] = found
        for alert in alerts(run):
            is_current = alert.attempt == len(run.attempts) and alert.severity is Severity.ERROR
            if alert in new and (known is not None or is_current):
                self._say(alert_sentence(view, alert, now))


def follow(
    follower: Follower, say: Callable[[str], None], planned: int | None, now: Callable[[], float]
) -> None:
    """Narrate everything under the follower's paths until it is stopped."""
    narrator = Narrator(say, planned)
    runs: dict[Path, Run] = {}
    changed: set[Path] | None = None
    first = True
    while not follower.is_stopped:
        touched: dict[Path, Log] = {}
        for log, events in follower.read(changed):
            run = runs.setdefault(log.path, Run())
            for event in events:
                fold(run, event)
            touched[log.path] = log
        for path, log in touched.items():
            narrator.take(log, runs[path], now())
        if first:
            first = False
            views = [run_view(log, runs[path], planned) for path, log in follower.logs.items()]
            say(f"watching {needs_you_line(views)}")
            follower.start()
            if follower.trouble:
                say(follower.trouble)
        changed = follower.wait()
