"""A list of callbacks as the lines to paste into a training script: modes resolved, defaults left out. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields

from cbmon.policies import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    Monitor,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from cbmon.profiles import Profile
from cbmon.replay.decays import Decay
from cbmon.replay.observers import LambdaCallback, UserClass
from cbmon.replay.results import Member
from cbmon.replay.schedules import Expression, UserFunction
from cbmon.units import cells, printable


def script_lines(members: Sequence[Member], profile: Profile, width: int) -> list[str]:
    """`callbacks=[…]`, ready for `fit`; wrapped between arguments, so it stays Python at any width."""
    before = list(dict.fromkeys(line for member in members for line in _imports(member)))
    before += [_optimizer_line(member, profile) for member in members if isinstance(member.policy, Decay)]
    listed = [member for member in members if not isinstance(member.policy, Decay)]
    if len(members) == 1 or not listed:
        return [*before, *(line for member in listed for line in _wrapped(member, profile, width, ""))]
    lines = ["callbacks = ["]
    for member in listed:
        lines += _wrapped(member, profile, width, "    ", ",")
    return [*before, *lines, "]"]


def _optimizer_line(member: Member, profile: Profile) -> str:
    """A schedule of the optimizer's is no callback."""
    text, schedule = printable(member.text, limit=4096), type(member.policy).__name__
    library, name = _library(profile), text.partition("(")[0]
    is_schedule = name.rpartition(".")[2] == schedule
    text = re.sub(rf"(?<![\w.]){schedule}\(", f"{library}.optimizers.schedules.{schedule}(", text, count=1)
    module = "" if is_schedule or "." in name else f"{library}.optimizers."
    return f"{'learning_rate' if is_schedule else 'optimizer'} = {module}{text}"


def _wrapped(member: Member, profile: Profile, width: int, indent: str, comma: str = "") -> list[str]:
    name, arguments = _call(member, profile)
    line = f"{indent}{name}({', '.join(arguments)}){comma}"
    if cells(line) <= width or not arguments:
        return [line]
    return [f"{indent}{name}(", *(f"{indent}    {argument}," for argument in arguments), f"{indent}){comma}"]


def _call(member: Member, profile: Profile) -> tuple[str, list[str]]:
    """The callable and its arguments as Python."""
    policy = member.policy
    if isinstance(policy, LambdaCallback):
        return f"{_module(profile)}.LambdaCallback", [
            f"{at}={hook.name}" for at, hook in policy.hooks.items()
        ]
    if not isinstance(policy, Monitor | LearningRateScheduler | TerminateOnNaN):
        return _as_written(member, profile)  # it decides nothing here, so nothing of it was resolved
    return f"{_module(profile)}.{type(policy).__name__}", list(_arguments(policy))


def _library(profile: Profile) -> str:
    return "tf_keras" if profile.name == "2" else "keras"


def _module(profile: Profile) -> str:
    return f"{_library(profile)}.callbacks"


def _as_written(member: Member, profile: Profile) -> tuple[str, list[str]]:
    name, bracket, rest = printable(member.text, limit=4096).partition("(")
    inner = rest.removesuffix(")") if bracket else ""
    if isinstance(member.policy, UserClass):
        name = name.rpartition(":")[2].rpartition(".")[2]
    elif "." not in name:
        name = f"{_module(profile)}.{name}"
    return name, [inner] if inner else []


def _arguments(policy: Monitor | LearningRateScheduler | TerminateOnNaN) -> Iterator[str]:
    if isinstance(policy, LearningRateScheduler):
        yield _schedule(policy.schedule)
    for each in fields(policy):
        value = getattr(policy, each.name)
        if each.name == "schedule":
            continue
        is_told = each.default is MISSING or value != each.default
        # The metric and its direction are said: they are what the decisions hang on.
        if each.name in ("monitor", "mode") and isinstance(policy, EarlyStopping | ReduceLROnPlateau):
            is_told = True
        if isinstance(policy, ModelCheckpoint) and each.name in ("monitor", "mode"):
            is_told = policy.save_best_only
        if is_told:
            yield f"{each.name}={literal(value)}"


def _schedule(schedule: object) -> str:
    if isinstance(schedule, Expression):
        text = printable(schedule.text, limit=4096)
        return text if text.startswith("lambda") else f"lambda {', '.join(schedule.parameters)}: {text}"
    return schedule.name if isinstance(schedule, UserFunction) else "..."


def _imports(member: Member) -> Iterator[str]:
    """The user's own code that a callback needs."""
    policy = member.policy
    own: list[object] = [policy, getattr(policy, "schedule", None)]
    if isinstance(policy, LambdaCallback):
        own += policy.hooks.values()
    for each in own:
        if isinstance(each, UserClass | UserFunction):
            yield f"from {each.module} import {each.name}"


def literal(value: object) -> str:
    """A literal as Python, strings in double quotes and without a character that is not printable."""
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{printable(text, limit=4096)}"'
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return printable(repr(value), limit=4096)
