"""CALL with grids over its arguments: which values, and the one call that each choice of them stands for.

`EarlyStopping(patience=range(1, 31), min_delta=grid(0, 1e-4))`. A grid is `range(…)`, `grid(VALUE, …)`,
`linspace(FIRST, LAST, COUNT)` or `logspace(FIRST, LAST, COUNT)`, the last two as in numpy (so logspace takes
exponents), rounded to 12 digits. A plain list is one value. Read, never evaluated; `calls` judges everything else.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from cbmon.errors import BadCall
from cbmon.profiles import Profile
from cbmon.replay.calls import Call, parse_calls
from cbmon.replay.schedules import dotted_name
from cbmon.units import plural

MOST_POLICIES = 200_000
"""Policies of one grid; twenty times what the targets ask for, and more texts than that are no answer."""
_KINDS = ("grid", "range", "linspace", "logspace")
_DIGITS = 12
"""Significant digits of a computed value: numpy's 0.30000000000000004 is 0.3; what is shown is what is judged."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One grid: an argument and its values."""

    name: str
    """What the sweep calls it: the argument, with its callback's name where two have it."""
    member: int
    """The callback's place in the list."""
    argument: str | None
    """Keras' name of it; None where Keras ignores it."""
    values: tuple[Any, ...]
    texts: tuple[str, ...]
    """The values as they stand in a call."""


@dataclass(frozen=True, slots=True)
class _Member:
    """One callback of the list."""

    call: Call
    """With the first value of each grid."""
    pieces: tuple[str, ...]
    """Its text around the grids: one more than it has axes."""
    axes: tuple[int, ...]
    """Its axes, as they stand in its text."""


@dataclass(frozen=True)
class Grid:
    """A list of callbacks with grids; its policies are numbered in CALL order, the last axis moving fastest."""

    source: str
    """As it was written."""
    members: tuple[_Member, ...]
    axes: tuple[Axis, ...]
    notes: tuple[str, ...]
    """What the user should know about how it was read."""

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each axis."""
        return tuple(len(axis.values) for axis in self.axes)

    def __len__(self) -> int:
        return math.prod(self.shape)

    def calls(self, choice: Sequence[int]) -> list[Call]:
        """The list of callbacks that one value of each axis gives.

        Args:
            choice: The number of the value, one an axis.
        """
        return [
            replace(
                member.call,
                text=_fill(member.pieces, [self.axes[axis].texts[choice[axis]] for axis in member.axes]),
                arguments=dict(member.call.arguments)
                | {
                    name: self.axes[axis].values[choice[axis]]
                    for axis in member.axes
                    if (name := self.axes[axis].argument) is not None
                },
            )
            for member in self.members
        ]

    def text(self, choice: Sequence[int]) -> str:
        """The text of one policy."""
        return "; ".join(
            _fill(member.pieces, [self.axes[axis].texts[choice[axis]] for axis in member.axes])
            for member in self.members
        )

    def texts(self) -> Iterator[str]:
        """The text of every policy, in CALL order."""
        lists = [
            [
                _fill(member.pieces, texts)
                for texts in product(*(self.axes[axis].texts for axis in member.axes))
            ]
            for member in self.members
        ]
        return map("; ".join, product(*lists))

    def values(self, choice: Sequence[int]) -> Mapping[str, object]:
        """The value of each axis, by name."""
        return {axis.name: axis.values[number] for axis, number in zip(self.axes, choice, strict=True)}


def _fill(pieces: Sequence[str], texts: Sequence[str]) -> str:
    return "".join(part for pair in zip(pieces, (*texts, ""), strict=True) for part in pair)


def parse_grid(text: str, profile: Profile) -> Grid:
    """Read CALL with grids; `CALL; CALL` and `[CALL, CALL]` as in `parse_calls`.

    Args:
        text: From the command line.
        profile: Which Keras: argument names differ.

    Raises:
        BadCall: The text is no such thing; the message says what to write instead.
    """
    text = text.strip()
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        parse_calls(text, profile)  # says what is wrong
        raise BadCall(f"{text!r}: cannot be read") from None
    written = [statement.value for statement in body if isinstance(statement, ast.Expr)]
    nodes = [n for node in written for n in (node.elts if isinstance(node, ast.List | ast.Tuple) else [node])]
    if len(written) < len(body) or not nodes or not all(isinstance(node, ast.Call) for node in nodes):
        parse_calls(text, profile)
        raise BadCall(f"{text!r}: write calls, such as EarlyStopping(patience=range(1, 31))")
    source = _Source(text)
    found = [_grids(node) for node in nodes if isinstance(node, ast.Call)]
    read = [
        [_read_values(grid, source.of(node), text) for grid in grids]
        for node, grids in zip(nodes, found, strict=True)
    ]
    count = math.prod(len(values) for member in read for values, _ in member)
    if count > MOST_POLICIES:
        raise BadCall(
            f"{text!r}: {count:,} policies are more than {MOST_POLICIES:,}. Take fewer values an argument"
        )
    members: list[_Member] = []
    axes: list[Axis] = []
    notes: list[str] = []
    for place, (node, grids, values) in enumerate(zip(nodes, found, read, strict=True)):
        member, new = _read_member(source, place, node, grids, values, len(axes), profile)
        members.append(member)
        axes += new
        notes += [note for note in member.call.notes if note not in notes]
        notes += [note for grid in grids if (note := _doubt(grid)) and note not in notes]
    return Grid(text, tuple(members), _named(axes, members), tuple(notes))


class _Source:
    """The text, by the positions that ast gives: lines and UTF-8 bytes."""

    def __init__(self, text: str) -> None:
        self.bytes = text.encode()
        self.lines = [0]
        for line in self.bytes.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def span(self, node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.lines[node.lineno - 1] + node.col_offset, self.lines[
            node.end_lineno - 1
        ] + node.end_col_offset

    def cut(self, start: int, end: int) -> str:
        return self.bytes[start:end].decode()

    def of(self, node: ast.expr) -> str:
        return self.cut(*self.span(node))


def _kind(node: ast.expr) -> str | None:
    name = dotted_name(node.func) if isinstance(node, ast.Call) else None
    kind = (name or "").removeprefix("np.").removeprefix("numpy.")
    return kind if kind in _KINDS else None


def _grids(call: ast.Call) -> list[ast.Call]:
    """The arguments that are grids, in the order of the text."""
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return [value for value in values if isinstance(value, ast.Call) and _kind(value)]


def _read_member(
    source: _Source,
    place: int,
    node: ast.expr,
    grids: Sequence[ast.Call],
    values: Sequence[tuple[tuple[Any, ...], tuple[str, ...]]],
    axes_before: int,
    profile: Profile,
) -> tuple[_Member, list[Axis]]:
    """One callback: `parse_calls` reads it with a mark in place of each grid, and tells which argument each is."""
    start, end = source.span(node)
    pieces, at = list[str](), start
    for grid in grids:
        grid_start, grid_end = source.span(grid)
        pieces.append(source.cut(at, grid_start))
        at = grid_end
    pieces.append(source.cut(at, end))
    marks = [f"<grid {number}>" for number in range(len(grids))]
    first = _fill(pieces, [texts[0] for _, texts in values])
    try:
        (call,) = parse_calls(_fill(pieces, [repr(mark) for mark in marks]), profile)
    except BadCall:
        try:
            (call,) = parse_calls(first, profile)  # says what is wrong, unless that is the grid itself
        except BadCall as error:
            hint = ", or a grid, such as range(1, 31)" if "is no literal" in str(error) else ""
            raise BadCall(f"{error}{hint}") from None
        raise BadCall(
            f"{_one_line(source.cut(start, end))!r}: a grid cannot stand in this argument of {call.policy.__name__}"
        ) from None
    names = {
        value: name for name, value in call.arguments.items() if isinstance(value, str) and value in marks
    }
    written = {keyword.value: keyword.arg for keyword in node.keywords} if isinstance(node, ast.Call) else {}
    axes = [  # what Keras ignores is called as it is written
        Axis(names.get(mark) or written.get(grid) or mark, place, names.get(mark), *found)
        for mark, grid, found in zip(marks, grids, values, strict=True)
    ]
    call = replace(
        call,
        text=_one_line(first),
        arguments=dict(call.arguments) | {axis.argument: axis.values[0] for axis in axes if axis.argument},
        notes=tuple(note for note in call.notes if "<grid" not in note),
    )
    places = tuple(range(axes_before, axes_before + len(axes)))
    return _Member(call, tuple(map(_one_line, pieces)), places), axes


def _one_line(piece: str) -> str:
    """Line breaks of a pasted call, with what surrounds them, as a blank; spaces in strings are the user's."""
    return re.sub(r"\s*[\r\n]\s*", " ", piece)


def _named(axes: Sequence[Axis], members: Sequence[_Member]) -> tuple[Axis, ...]:
    """Each axis under a name of its own."""
    names = [axis.name for axis in axes]
    classes = [member.call.policy.__name__ for member in members]
    named = []
    for axis in axes:
        name, kind = axis.name, classes[axis.member]
        if names.count(name) > 1:
            number = f"#{classes[: axis.member + 1].count(kind)}" if classes.count(kind) > 1 else ""
            name = f"{kind}{number}.{name}"
        named.append(replace(axis, name=name))
    return tuple(named)


# --- values ------------------------------------------------------------------------------------------------


def _read_values(node: ast.Call, call: str, text: str) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """The values of one grid and their texts; of equal texts the first."""
    kind, where = _kind(node), f"{ast.unparse(node)} in {call!r}"
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise BadCall(f"{where}: write the values out, {kind}({_EXAMPLES[kind or 'grid']})")
    literals = [_literal(argument, where) for argument in node.args]
    if kind == "grid":
        if not literals:
            raise BadCall(f"{where}: it has no values. Write some: grid(0, 1e-4)")
        texts = [_one_line(ast.get_source_segment(text, argument) or "") for argument in node.args]
    else:
        literals = list(_range(literals, where) if kind == "range" else _space(kind or "", literals, where))
        texts = [repr(value) for value in literals]
    unique = dict(zip(reversed(texts), reversed(literals), strict=True))
    texts = list(dict.fromkeys(texts))
    return tuple(unique[written] for written in texts), tuple(texts)


_EXAMPLES = {"grid": "0, 1e-4", "range": "1, 31", "linspace": "0.1, 0.9, 9", "logspace": "-5, -1, 5"}


def _literal(node: ast.expr, where: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        value = ...
    if not isinstance(value, bool | int | float | str | None):
        raise BadCall(f"{where}: {ast.unparse(node)} is no literal. Write the number or the string itself")
    return value


def _range(arguments: Sequence[Any], where: str) -> range:
    if (
        not all(type(value) is int for value in arguments)
        or not 1 <= len(arguments) <= 3
        or 0 in arguments[2:]
    ):
        raise BadCall(f"{where}: range takes one to three whole numbers: range(1, 31)")
    values = range(*arguments)
    try:
        count = len(values)
    except OverflowError:
        count = MOST_POLICIES + 1
    if not count:
        raise BadCall(f"{where}: it has no values. range(1, 31) is 1 to 30")
    _require_few(count, where)
    return values


def _space(kind: str, arguments: Sequence[Any], where: str) -> list[float]:
    is_read = len(arguments) == 3 and type(arguments[2]) is int and arguments[2] >= 1
    if not is_read or not all(type(value) in (int, float) and abs(value) <= 1e308 for value in arguments):
        raise BadCall(
            f"{where}: {kind} takes a first value, a last value and a count: {kind}({_EXAMPLES[kind]})"
        )
    first, last, count = arguments
    _require_few(count, where)
    steps = [first + (last - first) * number / max(1, count - 1) for number in range(count - (count > 1))]
    steps += [last] * (count > 1)
    try:
        values = [10.0**step for step in steps] if kind == "logspace" else [float(step) for step in steps]
    except OverflowError:
        values = [math.inf]
    if not all(map(math.isfinite, values)):
        raise BadCall(f"{where}: some values are too large. logspace takes exponents: logspace(-5, -1, 5)")
    return [float(f"{value:.{_DIGITS}g}") + 0.0 for value in values]  # and no -0.0


def _require_few(count: int, where: str) -> None:
    if count > MOST_POLICIES:
        raise BadCall(f"{where}: {plural(count, 'value')} are more than {MOST_POLICIES:,}. Take fewer")


def _doubt(node: ast.Call) -> str | None:
    """Whoever writes logspace(1e-5, 1e-1, 5) means something else."""
    if _kind(node) == "logspace":
        first, last = (ast.literal_eval(argument) for argument in node.args[:2])
        if 0 < first < 1 and 0 < last < 1:
            return (
                f"{ast.unparse(node)} goes from {10**first:.4g} to {10**last:.4g}: as numpy's, logspace takes "
                f"exponents. For {first:g} to {last:g} write logspace({math.log10(first):g}, {math.log10(last):g}, "
                "COUNT)"
            )
    return None
