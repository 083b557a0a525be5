"""What a fit tells about itself when it begins: versions, model, devices, command line, the user's config.

Everything here is a courtesy: what a Keras that we do not know keeps elsewhere is unknown, never an error.
"""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from cbmon.events import EPOCH_MAX

ARGUMENTS_MAX = 200
"""Arguments of the command line that are kept: a shell's glob may give thousands."""
TEXT_MAX = 1000
"""Characters kept of one argument or config value."""
DEPTH_MAX = 8
"""Levels of a config that are kept; what is deeper becomes "…"."""
ITEMS_MAX = 1000
"""Items of a config that are kept: the line with it has to stay below the 1 MiB that readers take."""
MASK = "***"

_SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    rf"(?P<name>(?:{_SECRET.pattern})[\w.-]*+\\*+[\"']?\s*[=:]\s*)"
    # A quoted value with more JSON after it; else all the rest, for a password may hold any sign.
    r"(?:\"(?:\\.|[^\"\\])*\"(?=\s*[,}\]])|'(?:\\.|[^'\\])*'(?=\s*[,}\]])|.+)",
    re.IGNORECASE | re.DOTALL,
)
_URL_LOGIN = re.compile(r"(?<=://)[^/\s]+(?=@)")


def keras_of(model: Any) -> tuple[str | None, str | None, str | None]:
    """Keras' version, its backend and the backend's version, of the Keras that the model's class comes from."""
    for kind in type(model).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in ("keras", "tf_keras") and (keras := sys.modules.get(name)):
            backend = None
            with suppress(Exception):
                backend = keras.backend.backend()
            library = sys.modules.get(backend or "")
            versions = [getattr(module, "__version__", None) for module in (keras, library)]
            # torch's is a str of its own class, which would be written letter by letter
            version, of_backend = (found and str(found) for found in versions)
            return version, backend, of_backend
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
            accelerators = [item for item in config.get_visible_devices() if item.device_type != "CPU"]
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
            # To ask for a name would take the GPU, from a training on the CPU, too.
            count = cuda.device_count() if cuda.is_initialized() else 0
            return [f"GPU: {cuda.get_device_name(at)}" for at in range(count)] or ["CPU"]
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


def is_one_of_several(model: Any) -> bool:
    """Whether other processes train the same model: to change it in one alone would part them, or hang them all."""
    for name in ("horovod.tensorflow.keras", "horovod.keras", "horovod.tensorflow"):
        with suppress(Exception):
            if sys.modules[name].size() > 1:
                return True
    with suppress(Exception):
        if sys.modules["torch"].distributed.get_world_size() > 1:
            return True
    with suppress(Exception):
        if keras_of(model)[1] == "jax" and sys.modules["jax"].process_count() > 1:
            return True
    with suppress(Exception):
        return bool(model.distribute_strategy.extended._in_multi_worker_mode())
    return False


def command() -> list[str]:
    """The process's arguments without what looks like a secret."""
    shown: list[str] = []
    is_secret_next = False
    for argument in getattr(sys, "argv", [])[:ARGUMENTS_MAX]:
        text = _text(argument)
        if is_secret_next and not text.startswith("--"):
            shown.append(MASK)
        else:
            shown.append(_without_secrets(text))
        is_secret_next = text.startswith("-") and "=" not in text and _SECRET.search(text) is not None
    return shown


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The user's config as JSON values, secrets masked; what JSON does not know becomes text. Never raises."""
    plain = _plain(config, 0, iter(range(ITEMS_MAX)))
    return plain if isinstance(plain, dict) else {}


def _plain(value: Any, depth: int, left: Iterator[int]) -> Any:
    """One value as JSON; `left` has as many elements as there may still be items."""
    try:
        if isinstance(value, Mapping | list | tuple | set | frozenset) and depth == DEPTH_MAX:
            return "…"  # not its text: that may hold secrets, and have no end
        if isinstance(value, Mapping):
            return {
                _text(key): MASK if _SECRET.search(_text(key)) else _plain(item, depth + 1, left)
                for (key, item), _ in zip(value.items(), left, strict=False)
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(item, depth + 1, left) for item, _ in zip(value, left, strict=False)]
        if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
            value = value.item()  # a scalar of numpy
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and abs(value) < EPOCH_MAX:
            return int(value)
        if isinstance(value, int | str):
            return _text(value)  # a larger number would not come back exactly
        single = number(value)
        if single is not None:
            return single if math.isfinite(single) else str(single)
    except Exception:  # noqa: BLE001  # whatever somebody's object raises costs its own value
        return f"<{type(value).__name__}>"
    return _without_secrets(_text(value))


def _text(value: Any) -> str:
    """A value as text that JSON can hold, without the logins of URLs."""
    try:
        text = _URL_LOGIN.sub(MASK, str(value))[:TEXT_MAX]
        return text.encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001  # whatever somebody's object raises costs its own value
        return f"<{type(value).__name__}>"


def _without_secrets(text: str) -> str:
    return _SECRET_VALUE.sub(rf"\g<name>{MASK}", text)


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
    except Exception:  # noqa: BLE001  # whatever somebody's object raises costs its own value
        return None
    return count if 0 <= count <= EPOCH_MAX else None  # more is no plan but `sys.maxsize`: until it stops


def learning_rates(optimizer: Any) -> float | dict[str, float | None] | None:
    """The learning rate of the next step; by name where there are several optimizers; None if unknown."""
    with suppress(Exception):
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # a LossScaleOptimizer's own rate is 0
        several = getattr(optimizer, "optimizers", None)
        if not isinstance(several, list | tuple) or not several:
            return learning_rate(optimizer)
        rates: dict[str, float | None] = {}
        for each in several:
            name = str(getattr(each, "name", None) or type(each).__name__)
            rates[name if name not in rates else f"{name}_{len(rates)}"] = learning_rate(each)
        return rates
    return None


def learning_rate(optimizer: Any) -> float | None:
    """The learning rate of one optimizer, for the next step; None if it does not tell."""
    with suppress(Exception):
        rate: Any = getattr(optimizer, "learning_rate", None)
        schedule = getattr(optimizer, "_learning_rate", rate)
        if any(kind.__name__ == "LearningRateSchedule" for kind in type(schedule).__mro__):
            rate = schedule(optimizer.iterations)  # the property of tf_keras still has the previous step's
        single = number(rate)  # not of a mirrored variable; but that has numpy()
        return number(rate.numpy()) if single is None and hasattr(rate, "numpy") else single
    return None


def is_finite(value: float | None) -> bool:
    """Whether a value that is there is neither NaN nor infinite."""
    return value is None or math.isfinite(value)
