"""CALL: what stands in a training script, parsed and never evaluated, becomes parameters of a policy.

`EarlyStopping(monitor="val_loss", patience=5)`, with or without `keras.callbacks.`; arguments are literals. A
schedule is an expression over numbers, its parameters and a fixed table of functions; only `module:function`
imports anything, and says so. What cannot be read raises `BadCall`; what Keras' own constructor would refuse
raises `KerasRefuses` when the call is built.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

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
from cbmon.replay.schedules import UserFunction, did_you_mean, dotted_name, read_schedule

_REPLAYED: dict[str, type[Policy]] = {
    policy.__name__: policy
    for policy in (EarlyStopping, ReduceLROnPlateau, LearningRateScheduler, ModelCheckpoint, TerminateOnNaN)
}
_NOT_REPLAYED = (
    *(
        "BackupAndRestore",
        "BackupAndRestoreExperimental",
        "BaseLogger",
        "CSVLogger",
        "Callback",
        "CallbackList",
    ),
    *("History", "LambdaCallback", "OrbaxCheckpoint", "ProgbarLogger", "RemoteMonitor", "SwapEMAWeights"),
    "TensorBoard",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One callback of the list, not yet built."""

    text: str
    """As the user wrote it."""
    policy: type[Policy]
    arguments: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    """What the user should know about how the arguments were taken."""

    def build(self, profile: Profile) -> Policy:
        """The policy's parameters.

        Raises:
            KerasRefuses: Keras' constructor would.
        """
        policy = self.policy(**self.arguments)
        if isinstance(policy, ModelCheckpoint):
            policy.check_path(profile)
        return policy


def parse_calls(text: str, profile: Profile) -> list[Call]:
    """Read `CALL`, `CALL; CALL` or a pasted list `[CALL, CALL]`.

    Args:
        text: From the command line.
        profile: Which Keras: argument names differ.

    Raises:
        BadCall: The text is no such thing; the message says what to write instead.
    """
    if re.match(r"\s*[A-Za-z_][\w.]*:[A-Za-z_]\w*\s*\(", text):
        raise BadCall(f"{text.strip()!r}: custom callbacks (package.module:Class) are not supported yet")
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "too long or too deep"
        raise BadCall(
            f"{text!r}: {reason}. Write it as in the training script: EarlyStopping(patience=5)"
        ) from None
    calls: list[Call] = []
    for statement in body:
        written = statement.value if isinstance(statement, ast.Expr) else None
        for node in written.elts if isinstance(written, ast.List | ast.Tuple) else [written]:
            source = (node and ast.get_source_segment(text.strip(), node)) or text.strip()
            calls.append(_read_call(node, " ".join(source.split()), profile))
    if not calls:
        raise BadCall("an empty CALL. Write it as in the training script: EarlyStopping(patience=5)")
    return calls


def parse_variant(text: str, profile: Profile) -> tuple[str, list[Call]]:
    """Read `name: CALL; CALL`; without a name it is ""."""
    match = re.match(r"\s*([^:;()\[\]'\"]+):(.*)", text, re.DOTALL)
    return (match[1].strip(), parse_calls(match[2], profile)) if match else ("", parse_calls(text, profile))


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


def _read_call(node: ast.AST | None, text: str, profile: Profile) -> Call:
    name = dotted_name(node.func) if isinstance(node, ast.Call) else None
    if not isinstance(node, ast.Call) or name is None:
        example = dotted_name(node) if isinstance(node, ast.expr) else None
        raise BadCall(
            f"{text!r}: this is no call. Write it as in the training script: {example or 'EarlyStopping'}(…)"
        )
    module, _, last = name.rpartition(".")
    if last in _NOT_REPLAYED:
        raise BadCall(f"{text!r}: {last} is not replayed yet. Replayed: {', '.join(_REPLAYED)}")
    if module and module not in _CALLBACKS_MODULES:
        raise BadCall(f"{text!r}: custom callbacks are not supported yet, only those of keras.callbacks")
    if last not in _REPLAYED:
        raise BadCall(f"{text!r}: no such callback.{did_you_mean(last, [*_REPLAYED, *_NOT_REPLAYED])}")
    return _bind(_REPLAYED[last], node, text, profile)


def _parameters(policy: type[Policy], profile: Profile) -> list[str]:
    """Keras' argument names in Keras' order."""
    names = [field.name for field in fields(policy)]
    if policy is TerminateOnNaN and not profile.can_raise_on_nan:
        names.remove("raise_error")
    if policy is ModelCheckpoint:
        names.remove("period")  # keyword only
        if not profile.is_keras_3:
            names.insert(names.index("initial_value_threshold"), "options")
    return names


def _bind(policy: type[Policy], node: ast.Call, text: str, profile: Profile) -> Call:
    """Give each argument its name, as Python and the callback's `**kwargs` would."""
    name, known = policy.__name__, _parameters(policy, profile)
    if any(isinstance(argument, ast.Starred) for argument in node.args) or None in [
        k.arg for k in node.keywords
    ]:
        raise BadCall(f"{text!r}: write the arguments out instead of * or **")
    if len(node.args) > len(known):
        raise BadCall(f"{text!r}: {name} takes at most {len(known)} arguments in Keras {profile.name}")
    written = [*zip(known, node.args, strict=False), *((str(k.arg), k.value) for k in node.keywords)]
    arguments: dict[str, Any] = {}
    notes: list[str] = []
    for key, value in written:
        if key in arguments:
            raise BadCall(f"{text!r}: {key} is given twice")
        if key == "schedule" and policy is LearningRateScheduler:
            arguments[key] = read_schedule(value, text)
            if isinstance(arguments[key], UserFunction):
                notes.append(f"{name}: imports {arguments[key].module} to run its {arguments[key].name}()")
            continue
        arguments[key] = _literal(value, key, text)
        if key in known:
            continue
        if policy is ReduceLROnPlateau or (policy is ModelCheckpoint and not profile.is_keras_3):
            if _swallow(arguments, key, profile):
                notes.append(f"{name}: Keras {profile.name} ignores {key}")
        else:
            raise BadCall(
                f"{text!r}: {name} has no argument {key} in Keras {profile.name}.{did_you_mean(key, known)}"
            )
    if arguments.pop("options", None) is not None:
        raise BadCall(f"{text!r}: options of ModelCheckpoint are not replayed; leave them out")
    for required in ("filepath", "schedule"):
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


def _literal(node: ast.expr, key: str, text: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        value = ...
    for item in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(item, bool | int | float | str | None):
            raise BadCall(
                f"{text!r}: {key}={ast.unparse(node)} is no literal. Write the number or the string itself"
            )
    return value
