"""`cbmon wait`: until a run has ended, or a condition over its metrics is met.

Every epoch of the latest attempt is asked, whether it was there before or comes while we wait: so it does not
matter when the waiting began. Nothing here reads a clock; a time limit is whoever stops the follower.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from cbmon.errors import BadCall, ExitCode, KerasRefuses, NeedsLearningRate
from cbmon.replay.schedules import Expression, did_you_mean
from cbmon.rules import Severity, Status, alerts, status
from cbmon.run import Attempt, Run, fold
from cbmon.series import Column, Direction, direction
from cbmon.sources import Follower
from cbmon.units import display_epoch, duration, printable, short
from cbmon.views import is_unhealthy

_EXTREMES: dict[str, Direction | None] = {
    "best": None,
    "lowest": Direction.MIN,
    "highest": Direction.MAX,
}
"""Functions of a metric's name: its best value so far, by the direction that its name tells, or by this one."""
_RATES = ("lr", "learning_rate")
_CONSTANTS = frozenset({"pi", "e", "inf", "nan", "math", "np", "numpy", "tf", "tensorflow", "ops", "keras"})
"""Names that are no metrics: what `schedules` knows."""
_HELP = (
    "a condition has metrics, best(metric), epoch, lr, numbers, comparisons, and/or/not: "
    "'val_loss < 0.2 and epoch > 5'"
)
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_GOOD_ENDS = (Status.FINISHED, Status.STOPPED)
_BAD_ENDS = (Status.INTERRUPTED, Status.FAILED, Status.CRASHED)


def parse_timeout(text: str) -> float:
    """Seconds of `2h`, `90s`, `1h30m`, `45` (seconds).

    Raises:
        BadCall: It is none of these, or nothing.
    """
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?) *(min|[smhd]|$)", text.strip())
    seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    whole = "".join(number + unit for number, unit in parts)
    if whole != text.replace(" ", "") or not 0 < seconds < LONGEST_S:
        raise BadCall(f"--timeout {text!r}: give a time such as 90s, 30m, 2h or 1d")
    return seconds


LONGEST_S = 10 * 365 * 86400.0
"""Ten years: more is a typo, and threads cannot wait for it."""


# --- the condition --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Seen:
    """How far an attempt was asked, and what its metrics were there; kept beside it."""

    rows: int = 0
    latest: dict[str, float] = field(default_factory=dict)
    """By name in the condition; what an epoch lacks is as it was before."""
    extremes: dict[tuple[str, str], float] = field(default_factory=dict)
    """By function and name."""
    met: int | None = None
    """The epoch of the first row at which the condition was met."""


class Condition:
    """`val_loss < 0.2 and epoch > 5`: an expression over what a run's rows say, through the cut-down simpleeval."""

    def __init__(self, text: str) -> None:
        """Read the condition; nothing is evaluated yet.

        Raises:
            BadCall: It is none.
        """
        self.text = text.strip()
        try:
            body = ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            hint = " (a comparison is ==)" if re.search(r"[^<>=!]=[^=]", self.text) else ""
            raise BadCall(f"--until {printable(text)!r}: this cannot be read{hint}; {_HELP}") from None
        reader = _Reader(self.text)
        try:
            body = reader.visit(body)
        except RecursionError:
            raise BadCall(f"--until {printable(text, 80)!r}: too deep") from None
        if not isinstance(body, ast.Compare | ast.BoolOp) and not (
            isinstance(body, ast.UnaryOp) and isinstance(body.op, ast.Not)
        ):
            raise BadCall(
                f"--until {printable(text)!r}: this is no condition, compare it with something; {_HELP}"
            )
        self.names = tuple(dict.fromkeys((*reader.names, *(name for _, name in reader.extremes))))
        """The metrics that it reads."""
        self._extremes = tuple(dict.fromkeys(reader.extremes))
        self._parameters = (*_RATES, "epoch", *reader.names, *map(_slot, self._extremes))
        try:
            self._expression = Expression(self.text, self._parameters, body)
        except BadCall as error:
            reason = str(error).partition(". A schedule")[0].replace("in a schedule", "there")
            raise BadCall(f"--until {reason}; {_HELP}") from None

    def met(self, attempt: Attempt) -> int | None:
        """The first epoch of an attempt at which it is met; costs what is new since the last call.

        Raises:
            CannotReplay: It holds a power beyond all bounds.
        """
        seen: _Seen = attempt.memo.setdefault(f"until {self.text}", _Seen())
        columns = {name: _column(attempt, name) for name in self.names}
        for row in range(seen.rows, len(attempt.epochs)):
            if seen.met is not None:
                break
            if self._is_met(attempt, row, columns, seen):
                seen.met = attempt.epochs[row]
            seen.rows = row + 1
        return seen.met

    def unknown(self, attempt: Attempt) -> list[str]:
        """The metrics that no epoch of an attempt has had."""
        return [name for name in self.names if (column := _column(attempt, name)) is None or not column.count]

    def values(self, attempt: Attempt) -> str:
        """What it reads, as it is now, in words."""
        columns = [(name, _column(attempt, name)) for name in self.names]
        return ", ".join(f"{printable(name)} {short(column.last())}" for name, column in columns if column)

    def _is_met(self, attempt: Attempt, row: int, columns: dict[str, Column | None], seen: _Seen) -> bool:
        for name, column in columns.items():
            value = None if column is None else column[row]
            if value is None:
                continue
            seen.latest[name] = value
            for key in self._extremes:
                if key[1] == name and math.isfinite(value):
                    pick = min if _towards(*key) is Direction.MIN else max
                    seen.extremes[key] = pick(value, seen.extremes.get(key, value))
        if attempt.rate.count and (rate := attempt.rate[row]) is not None:
            seen.latest["lr"] = rate
        known: dict[str, float | None] = {
            **dict.fromkeys(_RATES, seen.latest.get("lr")),
            "epoch": display_epoch(attempt.epochs[row]),
            **{name: seen.latest.get(name) for name in self.names},
            **{_slot(key): seen.extremes.get(key) for key in self._extremes},
        }
        try:
            return bool(self._expression(*(known[name] for name in self._parameters)))
        except (NeedsLearningRate, KerasRefuses):  # something is not known yet; or divided by 0
            return False


class _Reader(ast.NodeTransformer):
    """Finds the metrics of a condition, and puts a name in the place of `best(metric)`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.names: list[str] = []
        self.extremes: list[tuple[str, str]] = []

    def visit_Call(self, node: ast.Call) -> ast.expr:  # noqa: N802, RUF100  # the name is ast's
        if not isinstance(node.func, ast.Name) or node.func.id not in _EXTREMES:
            node.args = [self.visit(part) for part in node.args]
            return node
        function = node.func.id
        if len(node.args) != 1 or node.keywords or not isinstance(node.args[0], ast.Name):
            raise BadCall(f"--until {self._text!r}: {function}() is of one metric: {function}(val_loss)")
        name = node.args[0].id
        if function == "best" and direction(name) is None:
            raise BadCall(
                f"--until {self._text!r}: the name of {name} does not tell which way is better; "
                f"write lowest({name}) or highest({name})"
            )
        self.extremes.append((function, name))
        return ast.copy_location(ast.Name(_slot((function, name)), ast.Load()), node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:  # noqa: N802, RUF100
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:  # noqa: N802, RUF100
        if node.id not in (*_RATES, "epoch", *_CONSTANTS) and node.id not in self.names:
            self.names.append(node.id)
        return node


def _slot(extreme: tuple[str, str]) -> str:
    """What stands for `best(metric)`: no metric can be written so."""
    return f"{extreme[0]}({extreme[1]})"


def _towards(function: str, name: str) -> Direction | None:
    return _EXTREMES[function] or direction(name)


def _column(attempt: Attempt, name: str) -> Column | None:
    """A metric by its name, or by its name with `_` for what cannot stand in one: `train/loss` is `train_loss`."""
    if name in attempt.columns:
        return attempt.columns[name]
    return next((column for each, column in attempt.columns.items() if _plain(each) == name), None)


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name)


# --- waiting --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the waiting ended."""

    code: ExitCode
    words: str


class Waiter:
    """Judges a run each time it has changed."""

    def __init__(
        self, name: str, until: Condition | None, say: Callable[[str], None], *, has_limit: bool
    ) -> None:
        """Take what is waited for.

        Args:
            name: the run's, for people.
            until: the condition; None: the end of the run.
            say: takes a line for people.
            has_limit: whether the waiting ends by itself.
        """
        self._name = printable(name)
        self._until = until
        self._say = say
        self._has_limit = has_limit
        self._told: set[str] = set()

    def judge(self, run: Run) -> Outcome | None:
        """How the waiting ends, None if it goes on.

        Raises:
            BadCall: It would never end.
        """
        state, attempt = status(run), run.current
        if self._until is not None:
            if (epoch := self._until.met(attempt)) is not None:
                return Outcome(
                    ExitCode.OK, f"{self._name} epoch {display_epoch(epoch)}: {printable(self._until.text)}"
                )
            self._tell_unknown(attempt)
        if state in _BAD_ENDS or state in _GOOD_ENDS or state is Status.GONE:
            is_good = state in _GOOD_ENDS and self._until is None
            return Outcome(ExitCode.OK if is_good else ExitCode.UNHEALTHY, self._words(run, state.value))
        if self._until is not None and is_unhealthy(run):
            return Outcome(ExitCode.UNHEALTHY, self._words(run, ""))
        is_silent = bool(attempt.epochs) and attempt.started is None
        if self._until is None and is_silent and not self._has_limit:
            raise BadCall(
                f"{self._name}: such a log does not tell when the training ends (Monitor's record does): "
                "give --until 'epoch >= 50', or --timeout 2h"
            )
        return None

    def standing(self, run: Run) -> str:
        """Where the run is, for who gave up."""
        attempt = run.current
        words = [f"epoch {display_epoch(attempt.epochs[-1])}"] if attempt.epochs else ["no epoch yet"]
        words += filter(None, [self._until.values(attempt)]) if self._until else []
        return f"{self._name}: {', '.join(words)}"

    def _words(self, run: Run, kind: str) -> str:
        """Why it ends, as the alert says it."""
        found = [
            alert.message
            for alert in alerts(run)
            if alert.kind == kind or (not kind and alert.severity is Severity.ERROR)
        ]
        words = f"{self._name}: {found[-1] if found else kind}"
        if self._until is None:
            return words
        values = self._until.values(run.current)
        return f"{words}, without {printable(self._until.text)}{f' ({values})' if values else ''}"

    def _tell_unknown(self, attempt: Attempt) -> None:
        """A metric that is not there is perhaps a typo, perhaps yet to come."""
        assert self._until is not None
        for name in self._until.unknown(attempt) if attempt.epochs else ():
            if name not in self._told:
                self._told.add(name)
                there = ", ".join(map(printable, attempt.metrics))
                hint = did_you_mean(name, map(_plain, attempt.metrics))
                self._say(f"{self._name}: no metric {name} so far; there are {there or 'none'}.{hint}")


def wait(follower: Follower, waiter: Waiter, limit_s: float | None) -> Outcome:
    """Follow one run until the waiter has an outcome, or the follower was stopped: the time is over.

    Raises:
        BadCall: As of `Waiter.judge`.
    """
    run, changed, is_started = Run(), None, False
    while True:
        is_whole = True
        for log, events in follower.read(changed):
            for event in events:
                fold(run, event)
            is_whole = not log.has_more
        if is_whole and (outcome := waiter.judge(run)) is not None:
            return outcome
        if follower.is_stopped:
            over = f"{waiter.standing(run)}, after {duration(limit_s)} of waiting"
            return Outcome(ExitCode.TIMED_OUT, over)
        if not is_started:
            is_started = True
            follower.start()
        changed = follower.wait()
