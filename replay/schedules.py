"""Schedules of `LearningRateScheduler`: an expression, evaluated over numbers alone, or the user's own function.

The expression is checked node by node before simpleeval sees it, and simpleeval is cut down to the same: no
strings, no attributes but those of the table of functions, no random numbers, bounded powers.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from cbmon.errors import BadCall, CannotReplay, KerasRefuses, NeedsLearningRate
from cbmon.policies import Tensor, float32

if TYPE_CHECKING:
    from simpleeval import SimpleEval  # type: ignore[import-untyped, unused-ignore]


class Expression:
    """The body of a schedule: numbers, parameters, arithmetic, comparisons, conditions, functions.

    Nothing else can be written: no strings, no attributes, no indexing, no other calls; powers of integers
    are bounded. A wrong number of arguments is a TypeError, as for a lambda.
    """

    def __init__(self, text: str, parameters: tuple[str, ...], body: ast.expr) -> None:
        """Check and compile the body.

        Raises:
            BadCall: It contains something else.
        """
        self.text = text
        self.parameters = parameters
        self._body = ast.fix_missing_locations(_checked(body, parameters, text))
        self._evaluator = _evaluator()

    def __call__(self, *arguments: float | None) -> object:
        """The value for (epoch, learning rate), either a Python number or a `Tensor`.

        Raises:
            NeedsLearningRate: It reads a learning rate that is None.
            KerasRefuses: The arithmetic fails, as it would in Python.
            CannotReplay: A power out of bounds.
        """
        if len(arguments) != len(self.parameters):
            raise TypeError(
                f"the schedule takes {len(self.parameters)} positional arguments, {len(arguments)} were given"
            )
        values = dict(zip(self.parameters, arguments, strict=True))

        def read(node: ast.Name) -> float:
            if (value := values[node.id]) is None:
                raise NeedsLearningRate(f"the schedule {self.text!r}")
            return value

        self._evaluator.names = read
        try:
            return self._evaluator.eval(self.text, previously_parsed=self._body)
        except (ArithmeticError, ValueError) as error:
            raise KerasRefuses(type(error).__name__, f"{error} in the schedule {self.text!r}") from None
        except RecursionError:
            raise CannotReplay(f"{self.text!r}: too deep") from None


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A function of the user's own, `module:function`: a schedule, or a hook of LambdaCallback."""

    module: str
    name: str
    function: Callable[..., object] | None = None
    """None: not imported. Only `load` imports."""

    def load(self) -> UserFunction:
        """Import it, looking in the working directory first, as the script would.

        Raises:
            BadCall: There is no such function, or its module fails.
        """
        import importlib
        import os

        sys.path.insert(0, os.getcwd())
        try:
            with redirect_stdout(sys.stderr):  # ours is data
                function = getattr(importlib.import_module(self.module), self.name)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code, the border is here
            raise BadCall(f"'{self}': cannot import it: {type(error).__name__}: {error}") from None
        finally:
            sys.path.pop(0)
        if not callable(function):
            raise BadCall(f"'{self}': this is no function")
        return replace(self, function=function)

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    def __call__(self, *arguments: float | None) -> object:
        """What the function gives; whatever it raises but TypeError is what would end the training."""
        assert self.function is not None, "load() first"
        if None in arguments:
            # It cannot be told whether a function reads its second argument, only whether it has one.
            if self.function_takes(len(arguments)):
                raise NeedsLearningRate(str(self))
            raise TypeError
        try:
            with redirect_stdout(sys.stderr):
                return self.function(*arguments)
        except TypeError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code, the border is here
            raise KerasRefuses(type(error).__name__, f"{error} in {self}") from None

    def function_takes(self, count: int) -> bool:
        """Whether that many positional arguments fit its signature."""
        import inspect  # 10 ms, and only here

        assert self.function is not None
        try:
            inspect.signature(self.function).bind(*range(count))
        except TypeError:
            return False
        except ValueError:  # a builtin without a signature
            pass
        return True


def read_schedule(node: ast.expr, text: str) -> Expression | UserFunction:
    """Read the `schedule` argument of the call `text`, importing nothing; raises BadCall where it is none."""
    if isinstance(node, ast.Lambda):
        plain = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        if (
            node.args.vararg
            or node.args.kwarg
            or node.args.kwonlyargs
            or node.args.defaults
            or len(plain) not in (1, 2)
        ):
            raise BadCall(f"{text!r}: the lambda's parameters are (epoch, lr) or (epoch)")
        return Expression(ast.unparse(node), tuple(plain), node.body)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        written = node.value.strip()
        if function := read_function(written):
            return function
        try:
            inner = ast.parse(written, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise BadCall(f"{text!r}: {written!r} is no expression over epoch and lr") from None
        return (
            read_schedule(inner, text)
            if isinstance(inner, ast.Lambda)
            else Expression(written, ("epoch", "lr"), inner)
        )
    raise BadCall(
        f"{text!r}: give the schedule as a lambda (lambda epoch, lr: lr * 0.9), as its body in quotes, "
        'or, for a function of your own, as "module:function"'
    )


def read_function(written: str) -> UserFunction | None:
    """Read `module:function`, None if the text is none; nothing is imported."""
    match = re.fullmatch(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)", written.strip())
    return None if match is None or match[1] == "lambda" else UserFunction(match[1], match[2])


_POWER_BITS = 4096
"""Largest integer that a power may give: far beyond any float, and made in microseconds."""
_ROUND_DIGITS = 400
"""No float has more decimals; round(1, -10**9) would take minutes."""


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > _POWER_BITS:
        raise CannotReplay(
            f"{base if base.bit_length() < 64 else 'a large number'} ** {exponent}: that number is absurd"
        )
    return base**exponent


def _round(number: Any, digits: int | None = None) -> Any:
    return round(number, digits if digits is None else max(-_ROUND_DIGITS, min(_ROUND_DIGITS, digits)))


def _numpy(function: Callable[..., float]) -> Callable[..., float]:
    """As NumPy: a float whatever comes in; overflow is inf, a domain error NaN."""

    def apply(*arguments: float) -> float:
        try:
            return float(function(*arguments))
        except OverflowError:
            return math.inf
        except ZeroDivisionError:
            return math.nan
        except ValueError:
            return -math.inf if arguments[0] == _POLES.get(function) else math.nan

    return apply


def _keeping_integers(function: Callable[..., Any]) -> Callable[..., Any]:
    """As NumPy's functions that give an integer for integers, which Keras then refuses as a learning rate."""
    as_float = _numpy(function)

    def apply(*arguments: float) -> float:
        return (
            function(*arguments) if all(isinstance(each, int) for each in arguments) else as_float(*arguments)
        )

    return apply


def _minimum(one: float, other: float) -> float:
    return one + other if one != one or other != other else min(one, other)


def _maximum(one: float, other: float) -> float:
    return -_minimum(-one, -other)


def _clip(number: float, low: float, high: float) -> float:
    return _minimum(_maximum(number, low), high)


def _rint(number: float, digits: int = 0) -> float:
    """NumPy rounds the shifted number; Python's `round` works on the decimals."""
    scale = 10.0 ** max(-_ROUND_DIGITS, min(_ROUND_DIGITS, digits))
    return round(number * scale) / scale if math.isfinite(number * scale) else number


def _array_power(base: float, exponent: float) -> float:
    if isinstance(base, int) and isinstance(exponent, int):
        if exponent < 0:
            raise KerasRefuses("ValueError", "Integers to negative integer powers are not allowed.")
        return int(_power(base, exponent))
    return math.inf if base == 0 > exponent else math.pow(base, exponent)


def _tensor(function: Callable[..., float]) -> Callable[..., Tensor]:
    return lambda *arguments: Tensor(float32(_numpy(function)(*map(float32, arguments))))


_POLES: dict[Callable[..., Any], float] = {math.log: 0.0, math.log2: 0.0, math.log10: 0.0, math.log1p: -1.0}
"""Where a function is -inf; elsewhere out of its domain NumPy gives NaN."""
_ANYWHERE = (
    *(
        math.exp,
        math.expm1,
        math.log,
        math.log2,
        math.log10,
        math.log1p,
        math.sqrt,
        math.pow,
        math.floor,
        math.ceil,
    ),
    *(math.sin, math.cos, math.tan, math.sinh, math.cosh, math.tanh, math.trunc, math.fabs, math.fmod),
)
_ARCS = (math.asin, math.acos, math.atan, math.atan2)
_PLAIN: dict[str, Callable[..., Any]] = {function.__name__: function for function in _ANYWHERE + _ARCS}
_ARRAY: dict[str, Callable[..., Any]] = {
    **{function.__name__: function for function in _ANYWHERE},
    **{
        "arcsin": math.asin,
        "arccos": math.acos,
        "arctan": math.atan,
        "arctan2": math.atan2,
        "rint": _rint,
        "float64": float,
    },
}
_ARRAY_KEEPING: dict[str, Callable[..., Any]] = {
    **{"abs": abs, "absolute": abs, "minimum": _minimum, "maximum": _maximum, "clip": _clip},
    **{"mod": operator.mod, "power": _array_power, "round": _rint},
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{prefix + name: function for prefix in ("", "math.") for name, function in _PLAIN.items()},
    **{prefix + name: _numpy(function) for prefix in ("np.", "numpy.") for name, function in _ARRAY.items()},
    **{
        prefix + name: _tensor(function)
        for prefix in ("tf.math.", "tf.", "tensorflow.math.", "ops.", "keras.ops.")
        for name, function in (_PLAIN | _ARRAY | _ARRAY_KEEPING).items()
    },
    **{
        prefix + name: _keeping_integers(function)
        for prefix in ("np.", "numpy.")
        for name, function in _ARRAY_KEEPING.items()
    },
    **{"min": min, "max": max, "abs": abs, "int": int, "float": float, "round": _round, "pow": _power},
}
"""All that a schedule may call."""
_CONSTANTS = {
    prefix + name: getattr(math, name)
    for prefix in ("", "math.", "np.", "numpy.")
    for name in ("pi", "e", "inf", "nan")
}


def _checked(node: ast.expr, parameters: tuple[str, ...], text: str) -> ast.expr:
    """Rebuild an expression from allowed parts; dotted names become plain ones that simpleeval looks up."""

    def refuse(reason: str) -> NoReturn:
        raise BadCall(
            f"{text!r}: {reason}. A schedule has {', '.join(parameters)}, numbers, + - * / // % **, "
            "comparisons, if-else, and/or/not and functions such as math.exp, np.cos, min, max"
        )

    def walk(node: ast.expr) -> ast.expr:
        match node:
            case ast.Constant(value=bool() | int() | float()):
                return node
            case ast.Name(id=name) if name in parameters:
                return node
            case ast.Name() | ast.Attribute():
                name = dotted_name(node) or ast.unparse(node)
                return (
                    ast.Constant(_CONSTANTS[name]) if name in _CONSTANTS else refuse(f"{name} is not known")
                )
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()):
                return ast.UnaryOp(node.op, walk(node.operand))
            case ast.BinOp() if type(node.op) in _OPERATORS:
                return ast.BinOp(walk(node.left), node.op, walk(node.right))
            case ast.Compare() if all(type(comparison) in _OPERATORS for comparison in node.ops):
                return ast.Compare(walk(node.left), node.ops, [walk(part) for part in node.comparators])
            case ast.BoolOp():
                return ast.BoolOp(node.op, [walk(part) for part in node.values])
            case ast.IfExp():
                return ast.IfExp(walk(node.test), walk(node.body), walk(node.orelse))
            case ast.Call(keywords=[]):
                name = dotted_name(node.func) or ast.unparse(node.func)
                if name not in FUNCTIONS:
                    refuse(f"{name}() is not known.{did_you_mean(name, FUNCTIONS)}".rstrip("."))
                return ast.Call(ast.Name(name, ast.Load()), [walk(part) for part in node.args], [])
            case _:
                refuse(f"{ast.unparse(node)} cannot stand in a schedule")

    try:
        return walk(node)
    except RecursionError:
        raise BadCall(f"{text[:80]!r}…: too deep") from None


def _lifted(apply: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Arithmetic with a tensor gives a tensor: both sides and the result in float32."""

    def lifted(left: Any, right: Any) -> Any:
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            return Tensor(float32(apply(float32(left), float32(right))))
        return apply(left, right)

    return lifted


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    **{ast.Add: _lifted(operator.add), ast.Sub: _lifted(operator.sub), ast.Mult: _lifted(operator.mul)},
    **{ast.Div: _lifted(operator.truediv), ast.FloorDiv: _lifted(operator.floordiv)},
    **{ast.Mod: _lifted(operator.mod), ast.Pow: _lifted(_power)},
    **{ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge},
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne},
    **{ast.UAdd: operator.pos, ast.Not: operator.not_},
    ast.USub: lambda value: Tensor(-value) if isinstance(value, Tensor) else -value,
}


def _evaluator() -> SimpleEval:
    """A simpleeval with our operators and functions in place of its own, which include random and strings."""
    from simpleeval import SimpleEval  # 10 ms, and only for an expression

    return SimpleEval(operators=_OPERATORS, functions=FUNCTIONS, names={})


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a refusal: the known name that is nearest, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def dotted_name(node: ast.expr) -> str | None:
    """`a.b.c` of a name or a chain of attributes, None of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (front := dotted_name(node.value)):
        return f"{front}.{node.attr}"
    return None
