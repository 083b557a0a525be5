"""The replay for people: a chart, what each callback does, what to paste; plain lines, epochs 1-based. Pure."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cbmon.policies import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from cbmon.profiles import Profile
from cbmon.replay.cases import Case
from cbmon.replay.compare import versions_sentence
from cbmon.replay.paste import script_lines
from cbmon.replay.picture import LANES_MAX, drawn, picture, rate_table
from cbmon.replay.results import Decisions, Member, Replay
from cbmon.series import Direction
from cbmon.units import UNKNOWN, cells, display_epoch, fit, plural, printable, short, short_lr

WIDTH = 100
_CALL_WIDTH = 60
"""A longer call has its words on the next line."""
_WORDS_WIDTH = 40
"""Columns that the words keep beside a call."""
NO_EPOCHS = "no epochs yet"
_NAMED = 5
"""Epochs named one by one; of more the first ones, and how many more there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """How the answer is shown."""

    width: int = WIDTH
    """Columns; charts and words keep to it, calls to paste may not."""
    columns: int = 0
    """Of the terminal: a table may be wider than charts and words."""
    ascii: bool = False
    """Charts without characters beyond ASCII; the words are the caller's to convert."""
    colours: bool = False
    """With the SGR codes of a terminal."""


def report(
    replays: Sequence[Replay], profile: Profile, cases: Sequence[Case] = (), page: Page | None = None
) -> list[str]:
    """What the callbacks would have done, as lines of text.

    Args:
        replays: In the order in which they are to be told; one alone in full, several as a table.
        profile: Which Keras decided.
        cases: What they came from, one each; with them other versions of Keras are asked too.
        page: How to show it; None: the words alone, without charts and lines to paste.
    """
    if len(replays) == 1:
        return _in_full(replays[0], profile, cases[0] if cases else None, page)
    lines = _table(replays, profile, max(page.width, page.columns) if page else WIDTH)
    if page and all(replay.recording is replays[0].recording for replay in replays):
        chart = drawn(picture(replays, page.width, ascii=page.ascii), colours=page.colours)
        lines = [lines[0], *chart, *([""] if chart else []), *lines[1:]]
        lines += rate_table(replays, page.width)
        for replay, case in zip(replays[:LANES_MAX], cases, strict=False):
            if sentence := versions_sentence(case, replay):
                lines += _wrap(f"{printable(replay.variant)}: {sentence}", page.width, indent=4)
    return lines


def explanation(replay: Replay, case: Case, row: int, width: int = WIDTH) -> list[str]:
    """Why the callbacks did what they did at one recorded epoch, and what would have changed it."""
    from cbmon.replay.explain import explain  # only where somebody asks why

    number = display_epoch(case.recording.epochs[row])
    attempt = f" · attempt {replay.attempt}" if replay.attempt > 1 else ""
    last = display_epoch(case.recording.epochs[-1])
    attempt += f" · {printable(replay.variant)}" if replay.variant != "1" else ""
    words = f"{attempt} · epoch {number} of {last} · as Keras {case.profile.name} would"
    lines = [_fit_log(replay.log, width - cells(words)) + words]
    for call, sentences in explain(case, row):
        lines += _wrap(call, width)
        lines += [line for sentence in sentences for line in _wrap(sentence, width, indent=4)]
    return lines


def _fit_log(log: str, width: int) -> str:
    """A path cut at its start: the end tells the logs apart."""
    if cells(log) <= width:
        return log
    while log and cells(log) >= max(width, 12):
        log = log[1:]
    return f"…{log}"


def _in_full(replay: Replay, profile: Profile, case: Case | None, page: Page | None) -> list[str]:
    attempt = f" · attempt {replay.attempt}" if replay.attempt > 1 else ""
    recorded = plural(len(replay.recording.epochs), "epoch")
    words = f"{attempt} · {recorded} · as Keras {profile.name} would"
    lines = [_fit_log(replay.log, (page.width if page else WIDTH) - cells(words)) + words]
    if page:
        lines += drawn(picture([replay], page.width, ascii=page.ascii), colours=page.colours)
    made, width = replay.decisions, page.width if page else WIDTH
    if made is None:
        lines += _wrap(f"No answer: {replay.error}" if page is None else "No answer.", width)
    elif not replay.recording.epochs:
        lines.append(f"  {NO_EPOCHS}")
    else:
        calls = [printable(member.text) for member in made.members]
        call_width = min(_CALL_WIDTH, width - _WORDS_WIDTH)
        column = max((cells(call) for call in calls if cells(call) <= call_width), default=0) + 5
        for member, call in zip(made.members, calls, strict=True):
            words = member_words(replay, made, member)
            if cells(call) <= call_width:
                lines += _wrap(words, width, fit(f"  {call}", column), column)
            else:
                lines += [*_wrap(call, width), *_wrap(words, width, indent=4)]
        lines += [line for sentence in sentences(replay, made) for line in _wrap(sentence, width)]
        if case and (sentence := versions_sentence(case, replay)):
            lines += _wrap(sentence, width)
        if case and made.stopped and not any(call.is_foreign for call in case.calls):
            lines.append(f"  Why there? --explain {display_epoch(made.stopped.epoch)}")
        if page:
            lines += ["", *script_lines(made.members, profile, width)]
    return lines


def summary_cells(replays: Sequence[Replay]) -> list[list[str]]:
    """A heading and one row a result; columns that say nothing are left out."""
    rows = [
        [
            *("log", "attempt", "variant", "stops after", "trained", "best", "keeps", "regret"),
            *("cuts", "saves", "exact to"),
        ]
    ]
    names = below_shared([replay.log for replay in replays])
    for name, replay in zip(names, replays, strict=True):
        made, recorded = replay.decisions, len(replay.recording.epochs)
        row = [
            printable(name, limit=4096),
            str(replay.attempt),
            printable(replay.variant),
            "no answer",
            *[UNKNOWN] * 7,
        ]
        if made is not None:
            stop, best = made.stopped, next(iter(made.best), None)
            row[3] = f"epoch {display_epoch(stop.epoch)}" if stop else f"not within {recorded}"
            row[3] = row[3] if recorded else NO_EPOCHS
            row[4] = f"{made.epochs_replayed} of {recorded}"
            row[5] = f"{short(best.value)} ★{display_epoch(best.epoch)}" if best else UNKNOWN
            if stop and (kept := _kept(replay, made)):
                row[6:8] = [short(kept.value), short(kept.regret)]
            row[8:] = [str(len(made.cuts)), str(len(made.checkpoints)), _exact_to(replay, made)]
        rows.append(row)
    idle = {"attempt": {"1"}, "variant": {rows[1][2]}, "cuts": {"0", UNKNOWN}, "saves": {"0", UNKNOWN}}
    idle |= {"exact to": {"the end", UNKNOWN}, "keeps": {UNKNOWN}, "regret": {UNKNOWN}}
    shown = [
        i for i, title in enumerate(rows[0]) if not {row[i] for row in rows[1:]} <= idle.get(title, set())
    ]
    return [[row[i] for i in shown] for row in rows]


def below_shared(logs: Sequence[str]) -> list[str]:
    """The logs below the folder that all of them share."""
    folders = {os.path.dirname(log) for log in logs}
    shared = os.path.commonpath(folders) if len({os.path.isabs(each) for each in folders}) == 1 else ""
    return [os.path.relpath(log, shared) if shared else log for log in logs]


def _middle(text: str, width: int) -> str:
    """A name cut in its middle: its ends tell names apart."""
    if cells(text) <= width:
        return text
    start = width // 2
    end = text[-(width - start - 1) :] if width - start > 1 else ""
    while cells(end) > max(width - start - 1, 0):
        end = end[1:]
    return f"{fit(text, start + 1).rstrip('… ')}…{end}"


_DROPPED = ("trained", "keeps", "best")
"""Columns of a table that are left out, one after the other, where the names have less than ..."""
_NAME_WIDTH = 30
"""... so many columns."""
TO_THE_LEFT = frozenset(("log", "attempt", "variant", "stops after"))
"""Columns of words; the others are numbers."""


def _table(replays: Sequence[Replay], profile: Profile, width: int) -> list[str]:
    """One row a result, columns aligned."""
    rows = summary_cells(replays)
    for title in (*_DROPPED, ""):
        widths = [max(cells(row[i]) for row in rows) for i in range(len(rows[0]))]
        room = width - sum(widths[1:]) - 2 * (len(widths) - 1)
        if room >= min(widths[0], _NAME_WIDTH):
            break
        if title in rows[0]:
            at = rows[0].index(title)
            rows = [[*row[:at], *row[at + 1 :]] for row in rows]
    widths[0] = min(widths[0], max(room, 12))
    lines = [f"{plural(len(replays), 'replay')} · as Keras {profile.name} would"]
    for row in rows:
        row[0] = _middle(row[0], widths[0])
        shown = zip(row, widths, rows[0], strict=True)
        told = [fit(cell, wide, right=title not in TO_THE_LEFT) for cell, wide, title in shown]
        lines.append("  ".join(told).rstrip())
    for variant, texts in {replay.variant: replay.callbacks for replay in replays}.items():
        lines += _wrap(printable(f"{variant}: {'; '.join(texts)}", limit=1000), width, indent=4)
    return lines


def _wrap(text: str, width: int, first: str = "  ", indent: int = 2) -> list[str]:
    """Lines of at most `width` columns; `first` stands before the first, spaces before the others."""
    if first == "  ":
        first = " " * min(indent, 4) if indent > 2 else first
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=" " * indent, break_on_hyphens=False
    )
    return [line.replace("\xa0", " ") for line in lines]  # what they held together is now in one line


def member_words(replay: Replay, made: Decisions, member: Member) -> str:
    """What one callback does."""
    if member.words:
        return member.words
    words = f"not within {plural(made.epochs_replayed, 'epoch')}"
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


def sentences(replay: Replay, made: Decisions) -> Iterable[str]:
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
    saved = recorded - made.epochs_replayed
    saves = f"Saves {saved} of {plural(recorded, 'epoch')}. " if made.stopped and saved else ""
    if sentence := saves + _kept_words(replay, made):
        yield sentence.rstrip()


def _rates(replay: Replay, made: Decisions, epoch: int) -> str:
    recorded = replay.recording.learning_rate
    row = replay.recording.epochs.index(epoch)
    if recorded is None or made.learning_rate is None or row >= len(made.learning_rate):
        return ""
    there, here = made.learning_rate[row], recorded[row]
    one, other = short_lr(there), short_lr(here)
    if one == other and there is not None and here is not None:
        one, other = f"{there:.6g}", f"{here:.6g}"
    return f" ({one}, not {other})" if one != other else ""


class _Kept(NamedTuple):
    """The weights kept, against the best of the whole recorded run."""

    value: float
    how: str
    """Empty where they are put back."""
    best: float
    best_epoch: int
    regret: float
    """NaN where the value is not finite."""


def _kept(replay: Replay, made: Decisions) -> _Kept | None:
    stoppers = [member for member in made.members if isinstance(member.policy, EarlyStopping) and member.best]
    if not stoppers or not made.epochs_replayed:
        return None
    # Of several that restore, the last in the list has the last word.
    member = next((m for m in reversed(stoppers) if m.restored_epoch is not None), stoppers[0])
    policy, epochs = member.policy, replay.recording.epochs
    assert isinstance(policy, EarlyStopping)
    column = replay.recording.metrics.get(policy.monitor)
    if column is None:
        return None
    last = made.epochs_replayed - 1
    kept = column[last if member.restored_epoch is None else epochs.index(member.restored_epoch)]
    sign = 1 if policy.mode == Direction.MIN.value else -1
    values = [
        (sign * v, row) for row in range(len(epochs)) if (v := column[row]) is not None and math.isfinite(v)
    ]
    if kept is None or not values:
        return None
    best, row = min(values)
    is_restored = member.restored_epoch is not None
    how = "" if is_restored else f" (epoch {display_epoch(epochs[last])}, nothing restored)"
    regret = abs(kept - sign * best) if math.isfinite(kept) else math.nan
    return _Kept(kept, how, sign * best, epochs[row], regret)


def _kept_words(replay: Replay, made: Decisions) -> str:
    if not (kept := _kept(replay, made)):
        return ""
    what = f"Keeps {short(kept.value)}{kept.how}"
    whole = f"the whole run's best was {short(kept.best)}\xa0★{display_epoch(kept.best_epoch)}"
    if math.isnan(kept.regret):
        return f"{what}; {whole}."
    if not kept.regret:
        return f"{what}, the whole run's best."
    percent = 100 * kept.regret / abs(kept.best) if kept.best else 0.0
    share = f" ({f'{percent:.2g}' if percent < 99.5 else f'{percent:,.0f}'}\xa0%)" if kept.best else ""
    return f"{what}; {whole}: regret {short(kept.regret)}{share}."
