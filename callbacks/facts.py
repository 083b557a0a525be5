"""What a fit tells about itself when it begins: versions, model, devices, command line, the user's config.

Everything here is a courtesy: what a Keras that we do not know keeps elsewhere is unknown, never an error.
"""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

ARGUMENTS_MAX = 200
"""Arguments of the command line that are kept: a shell's glob may give thousands."""
TEXT_MAX = 1000
"""Characters kept of one argument or config value."""
DEPTH_MAX = 8
"""Levels of a config that are kept; deeper ones become text."""
MASK = "***"

_SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    rf"(?P<name>[\w.-]*(?:{_SECRET.pattern})[\w.-]*[\"']?\s*[=:]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&}\]]+)",
    re.IGNORECASE,
)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def keras_of(model: Any) -> tuple[str | None, str | None, str | None]:
    """Keras' version, its backend and the backend's version, of the Keras that the model's class comes from."""
    for kind in type(model).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in ("keras", "tf_keras") and (keras := sys.modules.get(name)):
            backend = None
            with suppress(Exception):
                backend = keras.backend.backend()
            library = sys.modules.get(backend or "")
            return getattr(keras, "__version__", None), backend, getattr(library, "__version__", None)
    return None, None, None


def parameters(model: Any) -> int | None:
    """Number of weights, None where the model is not built."""
    with suppress(Exception):
        return whole(model.count_params())
    return None


def devices(backend: str | None) -> list[str]:
    """What the backend trains on: each accelerator by kind and name, else the CPU."""
    with suppress(Exception):
        if backend == "tensorflow":
            config = sys.modules["tensorflow"].config
            accelerators = [item for item in config.list_physical_devices() if item.device_type != "CPU"]
            names = [config.experimental.get_device_details(item).get("device_name") for item in accelerators]
            found = [
                f"{item.device_type}: {name}" if name else item.device_type
                for item, name in zip(accelerators, names, strict=True)
            ]
            return found or ["CPU"]
        if backend == "jax":
            return [str(device.device_kind) for device in sys.modules["jax"].local_devices()]
        if backend == "torch":
            cuda = sys.modules["torch"].cuda
            return [f"GPU: {cuda.get_device_name(at)}" for at in range(cuda.device_count())] or ["CPU"]
    return []


def worker(model: Any, backend: str | None) -> int:
    """Rank of this process among those that train the model together; 0 is the chief, or alone."""
    with suppress(Exception):
        if backend == "jax":
            return int(sys.modules["jax"].process_index())
        if backend == "torch":
            group = sys.modules["torch"].distributed
            return int(group.get_rank()) if group.is_available() and group.is_initialized() else 0
        strategy = model.distribute_strategy
        if strategy.extended._in_multi_worker_mode():
            resolver = strategy.cluster_resolver
            has_chief = "chief" in resolver.cluster_spec().jobs
            if resolver.task_type in (None, "chief"):
                return 0
            return int(resolver.task_id) + (has_chief or resolver.task_type != "worker")
    return 0


def command() -> list[str]:
    """The process's arguments without what looks like a secret."""
    shown: list[str] = []
    is_secret_next = False
    for argument in map(str, sys.argv[:ARGUMENTS_MAX]):
        is_flag = argument.startswith("-")
        if is_secret_next and not argument.startswith("--"):
            shown.append(MASK)
        else:
            text = _SECRET_VALUE.sub(rf"\g<name>{MASK}", _URL_LOGIN.sub(MASK, argument))
            shown.append(text[:TEXT_MAX])
        is_secret_next = is_flag and "=" not in argument and _SECRET.search(argument) is not None
    return shown


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The user's config as JSON values, secrets masked; what JSON does not know becomes text."""
    return {
        _text(key): MASK if _SECRET.search(str(key)) else _plain(value, 1) for key, value in config.items()
    }


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping) and depth < DEPTH_MAX:
        return {
            _text(key): MASK if _SECRET.search(str(key)) else _plain(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset) and depth < DEPTH_MAX:
        return [_plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    single = number(value)
    return _text(value) if single is None else single


def _text(value: Any) -> str:
    try:
        return _URL_LOGIN.sub(MASK, str(value))[:TEXT_MAX]
    except Exception:  # noqa: BLE001  # whatever somebody's object raises costs its own value
        return f"<{type(value).__name__}>"


def number(value: Any) -> float | None:
    """A logged value as a float, exactly; None if it is no single number."""
    try:
        return None if isinstance(value, str | bytes) or getattr(value, "ndim", 0) != 0 else float(value)
    except Exception:  # noqa: BLE001  # whatever somebody's object raises costs its own value
        return None


def whole(value: Any) -> int | None:
    """A count, None if it is not one."""
    try:
        count = operator.index(value)
    except TypeError:
        return None
    return count if count >= 0 else None


def learning_rates(optimizer: Any) -> float | dict[str, float | None] | None:
    """The learning rate of the next step; by name where there are several optimizers; None if unknown."""
    several = getattr(optimizer, "optimizers", None)
    if isinstance(several, list | tuple) and several:
        rates: dict[str, float | None] = {}
        for each in several:
            name = str(getattr(each, "name", None) or type(each).__name__)
            rates[name if name not in rates else f"{name}_{len(rates)}"] = _learning_rate(each)
        return rates
    return _learning_rate(optimizer)


def _learning_rate(optimizer: Any) -> float | None:
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # a LossScaleOptimizer's own rate is 0
    rate: Any = getattr(optimizer, "learning_rate", None)
    schedule = getattr(optimizer, "_learning_rate", rate)
    if any(kind.__name__ == "LearningRateSchedule" for kind in type(schedule).__mro__):
        rate = schedule(optimizer.iterations)  # the property of tf_keras still has the previous step's
    single = number(rate)  # not of a mirrored variable; but that has numpy()
    return number(rate.numpy()) if single is None and hasattr(rate, "numpy") else single


def is_finite(value: float | None) -> bool:
    """Whether a value that is there is neither NaN nor infinite."""
    return value is None or math.isfinite(value)
