"""The replay's table for people: plain lines of at most 100 columns, epochs 1-based. Pure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

from cbmon.policies import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from cbmon.profiles import Profile
from cbmon.replay.results import Decisions, Member, Replay
from cbmon.series import Direction
from cbmon.units import UNKNOWN, cells, display_epoch, fit, plural, printable, short, short_lr

WIDTH = 100
_CALL_WIDTH = 60
"""A longer call has its words on the next line."""
_NAMED = 5
"""Epochs named one by one; of more the first ones, and how many more there are."""


def report(replays: Sequence[Replay], profile: Profile) -> list[str]:
    """What the callbacks would have done, as lines of text.

    Args:
        replays: In the order in which they are to be told; one alone in full, several as a table.
        profile: Which Keras decided.
    """
    return _in_full(replays[0], profile) if len(replays) == 1 else _table(replays, profile)


def _in_full(replay: Replay, profile: Profile) -> list[str]:
    attempt = f" · attempt {replay.attempt}" if replay.attempt > 1 else ""
    recorded = plural(len(replay.recording.epochs), "epoch")
    lines = [f"{replay.log}{attempt} · {recorded} · as Keras {profile.name} would"]
    made = replay.decisions
    if made is None:
        lines += _wrap(f"No answer: {replay.error}")
    else:
        calls = [printable(member.text) for member in made.members]
        column = max((cells(call) for call in calls if cells(call) <= _CALL_WIDTH), default=0) + 5
        for member, call in zip(made.members, calls, strict=True):
            words = _words(replay, made, member)
            if cells(call) <= _CALL_WIDTH:
                lines += _wrap(words, fit(f"  {call}", column), column)
            else:
                lines += [*_wrap(call), *_wrap(words, indent=4)]
        lines += [line for sentence in _sentences(replay, made) for line in _wrap(sentence)]
    return lines


def _table(replays: Sequence[Replay], profile: Profile) -> list[str]:
    """One row a result, columns aligned and those left out that say nothing."""
    rows = [["log", "attempt", "variant", "stops after", "trained", "best", "cuts", "saves", "exact to"]]
    for replay in replays:
        made, recorded = replay.decisions, len(replay.recording.epochs)
        row = [replay.log, str(replay.attempt), printable(replay.variant), "no answer", *[UNKNOWN] * 5]
        if made is not None:
            stop, best = made.stopped, next(iter(made.best), None)
            row[3] = f"epoch {display_epoch(stop.epoch)}" if stop else f"not within {recorded}"
            row[4] = f"{made.epochs_replayed} of {recorded}"
            row[5] = f"{short(best.value)} ★{display_epoch(best.epoch)}" if best else UNKNOWN
            row[6:] = [str(len(made.cuts)), str(len(made.checkpoints)), _exact_to(replay, made)]
        rows.append(row)
    idle = {"attempt": {"1"}, "variant": {rows[1][2]}, "cuts": {"0", UNKNOWN}, "saves": {"0", UNKNOWN}}
    idle["exact to"] = {"the end", UNKNOWN}
    shown = [
        i for i, title in enumerate(rows[0]) if not {row[i] for row in rows[1:]} <= idle.get(title, set())
    ]
    widths = {i: max(cells(row[i]) for row in rows) for i in shown}
    widths[0] -= max(0, min(widths[0] - 12, sum(widths.values()) + 2 * (len(shown) - 1) - WIDTH))
    lines = [f"{plural(len(replays), 'replay')} · as Keras {profile.name} would"]
    lines += ["  ".join(fit(row[i], widths[i], right=i > 3) for i in shown).rstrip() for row in rows]
    for variant, texts in {replay.variant: replay.callbacks for replay in replays}.items():
        lines += _wrap(printable(f"{variant}: {'; '.join(texts)}", limit=1000), indent=4)
    return lines


def _wrap(text: str, first: str = "  ", indent: int = 2) -> list[str]:
    """Lines of at most `WIDTH` columns; `first` stands before the first, spaces before the others."""
    if first == "  ":
        first = " " * min(indent, 4) if indent > 2 else first
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=" " * indent, break_on_hyphens=False
    )
    return [line.replace("\xa0", " ") for line in lines]  # what they held together is now in one line


def _words(replay: Replay, made: Decisions, member: Member) -> str:
    """What one callback does."""
    words = f"not within {plural(len(replay.recording.epochs), 'epoch')}"
    match member.policy:
        case EarlyStopping() | TerminateOnNaN() if member.stopped_epoch is not None:
            words = f"stops after epoch {display_epoch(member.stopped_epoch)}"
            if isinstance(member.policy, TerminateOnNaN):
                words = f"stops in epoch {display_epoch(member.stopped_epoch)}, whose loss is not finite"
        case ReduceLROnPlateau() if member.cuts:
            words = f"cuts {_cuts(member)}"
        case ModelCheckpoint() if member.saved_epochs:
            words = f"saves {_after(dict.fromkeys(member.saved_epochs))}"
        case LearningRateScheduler():
            rates = made.learning_rate or (None,)
            words = f"sets {short_lr(rates[0])} at first, {short_lr(rates[-1])} at last"
        case _:
            pass
    if isinstance(member.policy, EarlyStopping | ModelCheckpoint) and member.best:
        words += f"   best {short(member.best.value)}\xa0★{display_epoch(member.best.epoch)}"
    return words


def _cuts(member: Member) -> str:
    """`×0.1 after epochs 32 and 41`; a cut that the floor made smaller has its own factor."""
    by_factor: dict[float, list[int]] = {}
    for epoch, factor in member.cuts:
        by_factor.setdefault(factor, []).append(epoch)
    return ", ".join(f"×{short_lr(factor)} {_after(epochs)}" for factor, epochs in by_factor.items())


def _after(epochs: Iterable[int]) -> str:
    numbers = [str(display_epoch(epoch)) for epoch in epochs]
    if len(numbers) == 1:
        return f"after epoch {numbers[0]}"
    if len(numbers) <= _NAMED:
        return f"after epochs {', '.join(numbers[:-1])} and {numbers[-1]}"
    return f"after epochs {', '.join(numbers[:_NAMED])} and {len(numbers) - _NAMED} more, last {numbers[-1]}"


def _exact_to(replay: Replay, made: Decisions) -> str:
    """Through which epoch the replay is what was measured."""
    if made.changed_at is None:
        return "the end"
    before = [epoch for epoch in replay.recording.epochs if epoch < made.changed_at]
    return f"epoch {display_epoch(before[-1])}" if before else "no epoch"


def _sentences(replay: Replay, made: Decisions) -> Iterable[str]:
    """How far it is exact, what it saves, what it gives up."""
    if made.changed_at is not None:
        may = "may have been another (this log has none)"
        if made.diverges_at is not None:
            may = f"would have been another{_rates(replay, made, made.diverges_at)}"
        yield (
            f"Exact to {_exact_to(replay, made)}. From {display_epoch(made.changed_at)} on the learning "
            f"rate {may}: what follows assumes the same metrics."
        )
    recorded = len(replay.recording.epochs)
    saves = (
        f"Saves {recorded - made.epochs_replayed} of {plural(recorded, 'epoch')}. " if made.stopped else ""
    )
    if sentence := saves + _kept(replay, made):
        yield sentence.rstrip()


def _rates(replay: Replay, made: Decisions, epoch: int) -> str:
    recorded = replay.recording.learning_rate
    row = replay.recording.epochs.index(epoch)
    if recorded is None or made.learning_rate is None or row >= len(made.learning_rate):
        return ""
    return f" ({short_lr(made.learning_rate[row])}, not {short_lr(recorded[row])})"


def _kept(replay: Replay, made: Decisions) -> str:
    """The value of the weights kept, against the best of the whole recorded run."""
    stoppers = [member for member in made.members if isinstance(member.policy, EarlyStopping) and member.best]
    if not stoppers or not made.epochs_replayed:
        return ""
    # Of several that restore, the last in the list has the last word.
    member = next((m for m in reversed(stoppers) if m.restored_epoch is not None), stoppers[0])
    policy, epochs = member.policy, replay.recording.epochs
    assert isinstance(policy, EarlyStopping)
    column = replay.recording.metrics.get(policy.monitor)
    if column is None:
        return ""
    last = made.epochs_replayed - 1
    kept = column[last if member.restored_epoch is None else epochs.index(member.restored_epoch)]
    sign = 1 if policy.mode == Direction.MIN.value else -1
    values = [
        (sign * v, row) for row in range(len(epochs)) if (v := column[row]) is not None and math.isfinite(v)
    ]
    if kept is None or not values:
        return ""
    best, row = min(values)
    how = (
        ""
        if member.restored_epoch is not None
        else f" (epoch {display_epoch(epochs[last])}, nothing restored)"
    )
    whole = f"the whole run's best was {short(sign * best)}\xa0★{display_epoch(epochs[row])}"
    if not math.isfinite(kept):
        return f"Keeps {short(kept)}{how}; {whole}."
    regret = abs(kept - sign * best)
    if not regret:
        return f"Keeps {short(kept)}{how}, the whole run's best."
    share = f" ({100 * regret / abs(best):.2g}\xa0%)" if best else ""
    return f"Keeps {short(kept)}{how}; {whole}: regret {short(regret)}{share}."
