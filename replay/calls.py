"""CALL: what stands in a training script, parsed and never evaluated, becomes parameters of a policy.

`EarlyStopping(monitor="val_loss", patience=5)`, with or without `keras.callbacks.`; arguments are literals. A
schedule is an expression over numbers, its parameters and a fixed table of functions; only `module:function` as a
schedule imports anything here (unless it is left to the Keras engine), and says so. Hooks of LambdaCallback
(`module:function`) and callbacks of the user's own (`package.module:Class(argument=literal)`) are read and not
imported. What cannot be read raises `BadCall`; what Keras' own constructor would refuse raises `KerasRefuses` when
the call is built.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

from cbmon.errors import BadCall
from cbmon.policies import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    Policy,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from cbmon.profiles import Profile
from cbmon.replay import observers
from cbmon.replay.decays import DECAYS, Decay
from cbmon.replay.observers import Foreign, LambdaCallback, Observer, UserClass
from cbmon.replay.schedules import (
    UserFunction,
    did_you_mean,
    dotted_name,
    read_function,
    read_schedule,
)

Listed: TypeAlias = Policy | Observer | Decay
"""What a list may hold: what decides, what watches, and the optimizer's own learning-rate schedule."""
_DECIDING: tuple[type[Policy], ...] = (
    *(EarlyStopping, ReduceLROnPlateau, LearningRateScheduler, ModelCheckpoint),
    TerminateOnNaN,
)
REPLAYED: dict[str, type[Listed]] = {
    listed.__name__: listed for listed in (*_DECIDING, *observers.STOCK, *DECAYS)
}
"""What a CALL may name, by its name in Keras."""
_NOT_REPLAYED = ("BackupAndRestoreExperimental", "Callback", "CallbackList", "OrbaxCheckpoint")
_OPTIMIZERS = frozenset(
    (
        *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "Muon"),
        *("Nadam", "RMSprop", "SGD"),
    )
)
"""Whose `learning_rate=` may be a schedule of `keras.optimizers.schedules`."""


@dataclass(frozen=True, slots=True)
class Call:
    """One callback of the list, not yet built."""

    text: str
    """As the user wrote it."""
    policy: type[Listed]
    """Of an optimizer with a learning-rate schedule: the schedule."""
    arguments: Mapping[str, Any]
    """Of LambdaCallback: its hooks, as `UserFunction`s; of UserClass: `module`, `name` and `arguments`."""
    notes: tuple[str, ...] = ()
    """What the user should know about how the arguments were taken."""

    @property
    def is_foreign(self) -> bool:
        """Whether it is code of the user's own that was not imported: only the Keras engine can run it."""
        schedule = self.arguments.get("schedule")
        is_function = isinstance(schedule, UserFunction) and schedule.function is None
        return is_function or issubclass(self.policy, Foreign)

    def loaded(self) -> Call:
        """The same with its schedule imported, where that is a function of the user's own."""
        schedule = self.arguments.get("schedule")
        if not isinstance(schedule, UserFunction):
            return self
        return replace(self, arguments={**self.arguments, "schedule": schedule.load()})

    def build(self, profile: Profile) -> Listed:
        """Its parameters.

        Raises:
            KerasRefuses: Keras' constructor would.
        """
        policy = self.policy(**self.arguments)
        if isinstance(policy, ModelCheckpoint):
            policy.check_path(profile)
        elif isinstance(policy, Observer):
            policy.check(profile)
        return policy


def parse_calls(text: str, profile: Profile, *, imports: bool = True) -> list[Call]:
    """Read `CALL`, `CALL; CALL` or a pasted list `[CALL, CALL]`.

    Args:
        text: From the command line.
        profile: Which Keras: argument names differ.
        imports: Whether a schedule of the user's own, `module:function`, is imported; else only Keras can run it.

    Raises:
        BadCall: The text is no such thing; the message says what to write instead.
    """
    source = text.strip()
    try:
        body = ast.parse(_without_colons(source)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = "too long or too deep"
        if isinstance(error, SyntaxError | UnicodeError):
            reason = error.msg if isinstance(error, SyntaxError) else "it is no text"
        raise BadCall(
            f"{text!r}: {reason}. Write it as in the training script: EarlyStopping(patience=5)"
        ) from None
    calls: list[Call] = []
    for statement in body:
        written = statement.value if isinstance(statement, ast.Expr) else None
        for node in written.elts if isinstance(written, ast.List | ast.Tuple) else [written]:
            segment = (node and ast.get_source_segment(source, node)) or source
            calls.append(_read_call(node, " ".join(segment.split()), profile, source))
    if not calls:
        raise BadCall("an empty CALL. Write it as in the training script: EarlyStopping(patience=5)")
    return [call.loaded() for call in calls] if imports else calls


def _without_colons(source: str) -> str:
    """The same text, as long, with each `module:name` as `module.name`: then it is Python.

    Where the colon stood, the original still tells. A lambda's colon stays, and so does one in a string.
    """
    if ":" not in source:
        return source
    import io
    import tokenize

    lines = source.split("\n")
    before: list[tokenize.TokenInfo] = []
    lambdas: list[int] = []
    depth = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
            if token.string == "lambda":
                lambdas.append(depth)
            elif token.string == ":" and lambdas and lambdas[-1] == depth:
                lambdas.pop()
                before.clear()
                continue
            before = [*before[-1:], token]
            if token.type == tokenize.NAME and len(before) == 2 and before[0].string == ":":
                row, column = before[0].start
                line = lines[row - 1]
                if token.start == before[0].end and line[:column][-1:].isidentifier():
                    lines[row - 1] = f"{line[:column]}.{line[column + 1 :]}"
    except (tokenize.TokenError, SyntaxError, IndexError):
        return source  # Python's own words about it are better
    return "\n".join(lines)


def parse_variant(text: str, profile: Profile, *, imports: bool = True) -> tuple[str, list[Call]]:
    """Read `name: CALL; CALL`; without a name it is "".

    Without a space after its colon, `a:Mine()` is the class Mine of the module a, as in a CALL, unless what
    follows is a call that stands for itself.
    """
    match = re.match(r"\s*([^:;()\[\]'\"]+):(.*)", text, re.DOTALL)
    if match and re.fullmatch(r"[A-Za-z_][\w.]*", match[1]):
        called = re.match(r"([A-Za-z_][\w.]*)\s*\(", match[2])
        if called and called[1].rpartition(".")[2] not in {*REPLAYED, *_NOT_REPLAYED, *_OPTIMIZERS}:
            match = None
    name, written = (match[1].strip(), match[2]) if match else ("", text)
    return name, parse_calls(written, profile, imports=imports)


_CALLBACKS_MODULES = frozenset(
    prefix + "callbacks"
    for prefix in (
        "",
        "keras.",
        "tf.keras.",
        "tensorflow.keras.",
        "tf_keras.",
        "k.",
        "tensorflow.python.keras.",
    )
)
"""Where a script finds Keras' own callbacks; a class of this name elsewhere is somebody else's."""


_DECAYS_MODULES = frozenset(
    f"{prefix}schedules" for prefix in ("", "optimizers.", "keras.optimizers.", "tf.keras.optimizers.")
) | {"tensorflow.keras.optimizers.schedules", "tf_keras.optimizers.schedules"}
_OPTIMIZERS_MODULES = frozenset(
    f"{prefix}optimizers" for prefix in ("", "keras.", "tf.keras.", "tensorflow.keras.", "tf_keras.")
)


def _read_call(node: ast.AST | None, text: str, profile: Profile, source: str) -> Call:
    name = dotted_name(node.func) if isinstance(node, ast.Call) else None
    if not isinstance(node, ast.Call) or name is None:
        example = dotted_name(node) if isinstance(node, ast.expr) else None
        raise BadCall(
            f"{text!r}: this is no call. Write it as in the training script: {example or 'EarlyStopping'}(…)"
        )
    if ":" in (written := ast.get_source_segment(source, node.func) or ""):
        return _read_class(written, node, text)
    module, _, last = name.rpartition(".")
    if last in _OPTIMIZERS and (not module or module in _OPTIMIZERS_MODULES):
        return _read_optimizer(last, node, text, profile, source)
    modules = _DECAYS_MODULES if last in {decay.__name__ for decay in DECAYS} else _CALLBACKS_MODULES
    if module and module not in modules:
        raise BadCall(f"{text!r}: a callback of your own is written with a colon: {module}:{last}(…)")
    if last in _NOT_REPLAYED:
        raise BadCall(f"{text!r}: {last} is not replayed. Replayed: {', '.join(REPLAYED)}")
    if last not in REPLAYED:
        suggestion = did_you_mean(last, [*REPLAYED, *_NOT_REPLAYED])
        raise BadCall(
            f"{text!r}: no such callback.{suggestion or f' One of your own is written package.module:{last}(…)'}"
        )
    return _bind(REPLAYED[last], node, text, profile, source)


def _read_class(written: str, node: ast.Call, text: str) -> Call:
    """`package.module:Class(argument=literal)`."""
    found = read_function(written)
    if found is None:
        raise BadCall(f"{text!r}: write a callback of your own as package.module:Class(argument=literal)")
    if any(isinstance(argument, ast.Starred) for argument in node.args):
        raise BadCall(f"{text!r}: write the arguments out instead of * or **")
    positional = tuple(
        _literal(value, f"argument {at}", text, is_nested=True) for at, value in enumerate(node.args, 1)
    )
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise BadCall(f"{text!r}: write the arguments out instead of * or **")
        arguments[keyword.arg] = _literal(keyword.value, keyword.arg, text, is_nested=True)
    bound = {
        "module": found.module, "name": found.name, "arguments": arguments, "positional": positional,
    }  # fmt: skip
    return Call(text, UserClass, bound)


def _read_optimizer(name: str, node: ast.Call, text: str, profile: Profile, source: str) -> Call:
    """`SGD(learning_rate=ExponentialDecay(…))`: of an optimizer, only its schedule can be replayed."""
    given = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "learning_rate")]
    if len(given) != 1 or not isinstance(given[0], ast.Call):
        raise BadCall(
            f"{text!r}: of an optimizer only a schedule is replayed: {name}(learning_rate=ExponentialDecay(…)). "
            "Give a number as --learning-rate 1e-3"
        )
    call = _read_call(given[0], text, profile, source)
    if call.policy not in DECAYS:
        raise BadCall(f"{text!r}: {call.policy.__name__} is no schedule of keras.optimizers.schedules")
    return call


_MODES = ("auto", "min", "max")


def _parameters(policy: type[Listed], profile: Profile) -> list[str]:
    """Keras' argument names in Keras' order."""
    if policy in observers.STOCK:
        return observers.parameters(policy, profile)
    names = [field.name for field in fields(policy)]
    if policy is TerminateOnNaN and not profile.can_raise_on_nan:
        names.remove("raise_error")
    if policy is ModelCheckpoint:
        names.remove("period")  # keyword only
        if not profile.is_keras_3:
            names.insert(names.index("initial_value_threshold"), "options")
    return names


_REQUIRED = (
    *("filepath", "schedule", "filename", "backup_dir", "initial_learning_rate", "decay_steps"),
    *("decay_rate", "boundaries", "values", "first_decay_steps"),
)
"""Arguments without a default."""
_IGNORED_BY_TENSORBOARD = ("write_grads", "batch_size", "embeddings_layer_names", "embeddings_data")
"""Keras 1's, of which Keras 2's TensorBoard only warns."""


def _bind(policy: type[Listed], node: ast.Call, text: str, profile: Profile, source: str) -> Call:
    """Give each argument its name, as Python and the callback's `**kwargs` would."""
    name = policy.__name__
    if policy in observers.STOCK and not observers.is_in(policy, profile):
        raise BadCall(f"{text!r}: Keras {profile.name} has no {name}")
    known = _parameters(policy, profile)
    if any(isinstance(argument, ast.Starred) for argument in node.args) or None in [
        k.arg for k in node.keywords
    ]:
        raise BadCall(f"{text!r}: write the arguments out instead of * or **")
    if len(node.args) > len(known):
        most = f"takes at most {len(known)} arguments" if known else "takes no arguments"
        raise BadCall(f"{text!r}: {name} {most} in Keras {profile.name}")
    written = [*zip(known, node.args, strict=False), *((str(k.arg), k.value) for k in node.keywords)]
    arguments: dict[str, Any] = {}
    notes: list[str] = []
    for key, value in written:
        if key in arguments:
            raise BadCall(f"{text!r}: {key} is given twice")
        if isinstance(value, ast.Attribute) and ":" in (
            segment := ast.get_source_segment(source, value) or ""
        ):
            value = ast.Constant(segment)  # module:function without quotes
        if key == "schedule" and policy is LearningRateScheduler:
            arguments[key] = read_schedule(value, text)
            if isinstance(arguments[key], UserFunction):
                notes.append(f"{name}: imports {arguments[key].module} to run its {arguments[key].name}()")
            continue
        if policy is LambdaCallback:
            if key not in observers.HOOKS:
                notes.append(
                    f"{name}: there is no hook {key}, and Keras never calls it.{did_you_mean(key, observers.HOOKS)}"
                )
            elif hook := _read_hook(value, key, text):
                arguments[key] = hook
            continue
        arguments[key] = _literal(value, key, text, is_nested=key in observers.TAKING_MAPPINGS)
        if key == "monitor" and node.args and value is node.args[0] and _is_number(arguments[key]):
            raise BadCall(
                f"{text!r}: the first argument of {name} is monitor. Did you mean patience={arguments[key]}?"
            )
        if key in known:
            continue
        if policy is observers.TensorBoard and not profile.is_keras_3 and key in _IGNORED_BY_TENSORBOARD:
            del arguments[key]
            notes.append(f"{name}: Keras {profile.name} ignores {key}")
        elif policy is ReduceLROnPlateau or (policy is ModelCheckpoint and not profile.is_keras_3):
            if _swallow(arguments, key, profile):
                notes.append(f"{name}: Keras {profile.name} ignores {key}")
        else:
            raise BadCall(
                f"{text!r}: {name} has no argument {key} in Keras {profile.name}.{did_you_mean(key, known)}"
            )
    if "mode" in arguments and arguments["mode"] not in _MODES:
        notes.append(
            f"{name}: mode={arguments['mode']!r} is unknown: Keras warns and goes on with 'auto'."
            f"{did_you_mean(str(arguments['mode']).casefold(), _MODES)}"
        )
    if arguments.pop("options", None) is not None:
        raise BadCall(f"{text!r}: options of ModelCheckpoint are not replayed; leave them out")
    for required in _REQUIRED:
        if required in known and required not in arguments:
            raise BadCall(f"{text!r}: {name} needs {required}")
    return Call(text, policy, arguments, tuple(notes))


def _swallow(arguments: dict[str, Any], key: str, profile: Profile) -> bool:
    """What `**kwargs` of ReduceLROnPlateau and of Keras 2's ModelCheckpoint does; whether that is nothing."""
    if key == "period" and not profile.is_keras_3:
        return False
    value = arguments.pop(key)
    if key == "epsilon" and not profile.is_keras_3:
        arguments["min_delta"] = value  # the old name; it wins over min_delta
        return False
    return True


def _read_hook(node: ast.expr, key: str, text: str) -> UserFunction | None:
    """A hook of LambdaCallback; None is Python's own way to leave it out."""
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    written = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    hook = read_function(written)
    if hook is None:
        raise BadCall(
            f"{text!r}: put {key} into a file of its own and name it there: {key}='module:function'"
        )
    return hook


_GRIDS = ("grid", "range", "linspace", "logspace")


def _literal(node: ast.expr, key: str, text: str, *, is_nested: bool = False) -> Any:
    """A number, a string, a flat list of them, or (where Keras takes it) any nesting with dicts."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        value = ...
    items = value if isinstance(value, list | tuple) else [value]
    if not (is_nested and _is_plain(value)) and not all(map(_is_scalar, items)):
        if isinstance(node, ast.Call) and dotted_name(node.func) in _GRIDS:
            raise BadCall(f"{text!r}: {key}={ast.unparse(node)} is a grid, and grids are for cbmon sweep")
        raise BadCall(
            f"{text!r}: {key}={ast.unparse(node)} is no literal. Write the number or the string itself"
        )
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | None)


def _is_plain(value: Any) -> bool:
    """Whether it is made of numbers, strings, lists, tuples and dicts alone."""
    if isinstance(value, dict):
        return all(map(_is_scalar, value)) and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else _is_scalar(value)
