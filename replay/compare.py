"""One list of callbacks under several Keras versions: told only where they decide otherwise. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cbmon.errors import BadCall
from cbmon.policies import LearningRateScheduler
from cbmon.profiles import PROFILES, Profile
from cbmon.replay.cases import Case
from cbmon.replay.observers import LambdaCallback, UserClass
from cbmon.replay.results import Decisions, Replay
from cbmon.replay.schedules import Expression
from cbmon.units import display_epoch

VERSIONS = ("3.15", "3.12", "3.10", "3.6", "2")
"""One of each way in which the versions differ (KERAS.md §0)."""
ROWS_MAX = 20_000
"""Epochs of a log up to which the others are asked too: all of them in half a second."""
_REASON_MAX = 80
"""Columns of what another version says where it refuses."""


def versions_sentence(case: Case, answer: Replay) -> str:
    """Where other versions of Keras decide otherwise, in one sentence; "" where they do not, or were not asked.

    Not asked is a list with code of the user's own: running it five times is not what was ordered.

    Args:
        case: The replay.
        answer: Its result.
    """
    if answer.decisions is None or len(case.recording.epochs) > ROWS_MAX or not _is_ours(case):
        return ""
    own = _outcome(answer.decisions)
    others: dict[str, list[str]] = {}
    for name in VERSIONS:
        if name != case.profile.name:
            outcome = _under(case, PROFILES[name], own)
            if outcome:
                others.setdefault(outcome, []).append(name)
    if not others:
        return ""
    told = "; ".join(f"{_listed(names)} {outcome}" for outcome, names in others.items())
    return f"Other versions of Keras decide otherwise: {told}{'' if told.endswith('…') else '.'}"


def _is_ours(case: Case) -> bool:
    """Whether every callback is one of Keras' own with arguments that are no code but an expression."""
    for call in case.calls:
        if call.policy in (UserClass, LambdaCallback):
            return False
        if call.policy is LearningRateScheduler and not isinstance(call.arguments["schedule"], Expression):
            return False
    return True


def _under(case: Case, profile: Profile, own: dict[str, object]) -> str:
    """What another version does where it does something else, in words; "" if nothing."""
    try:
        answer = case.under(profile).answer()
    except BadCall as error:
        return f"cannot be asked: {_reason(str(error), case, profile)}"
    if answer.decisions is None:
        return f"would refuse: {_reason(str(answer.error), case, profile)}"
    other = _outcome(answer.decisions)
    end = min((each for each in (own["stop"], other["stop"]) if isinstance(each, int)), default=None)
    if end is not None:  # what comes after one of the stops differs for that reason alone
        own, other = _until(own, end), _until(other, end)
    parts = [_words(what, other[what], own[what]) for what in own if other[what] != own[what]]
    return ", ".join(parts)


def _reason(words: str, case: Case, profile: Profile) -> str:
    """A refusal without the call that it begins with, and the same for all versions that say the same."""
    for call in case.calls:
        words = words.removeprefix(f"{call.text!r}: ")
    words = words.replace(f"Keras {profile.name} has no", "there is no").replace(
        f" in Keras {profile.name}", ""
    )
    words = words.removeprefix("Keras raises ").rstrip(".")
    return words if len(words) <= _REASON_MAX else words[: _REASON_MAX - 1] + "…"


def _outcome(made: Decisions) -> dict[str, object]:
    """What is compared: epochs of decisions, no numbers that differ in the last digit only."""
    stop = made.stopped.epoch if made.stopped else None
    return {
        "stop": stop,
        "cut": tuple(epoch for epoch, _ in made.cuts),
        "save": tuple(epoch for epoch, _ in made.checkpoints),
    }


def _until(outcome: dict[str, object], end: int) -> dict[str, object]:
    return {
        what: tuple(epoch for epoch in epochs if epoch <= end) if isinstance(epochs, tuple) else epochs
        for what, epochs in outcome.items()
    }


def _words(what: str, other: object, own: object) -> str:
    if what == "stop":
        there = (
            "would not stop within this log" if other is None else f"would stop after epoch {_epoch(other)}"
        )
        here = "not within it" if own is None else f"after {_epoch(own)}"
        return f"{there} (here {here})"
    assert isinstance(other, tuple)
    assert isinstance(own, tuple)
    first = min(set(other) ^ set(own), default=None)
    if first is None:
        return f"would {what} another number of times"
    return f"would {'' if first in other else 'not '}{what} after epoch {_epoch(first)}"


def _epoch(epoch: object) -> int:
    assert isinstance(epoch, int)
    return display_epoch(epoch)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
