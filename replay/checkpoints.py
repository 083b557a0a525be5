"""Where ModelCheckpoint saves: its path template, filled in as Keras does."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from string import Formatter

from cbmon.errors import CannotReplay, KerasRefuses, NeedsLearningRate
from cbmon.units import display_epoch

_WIDEST = 4096
"""What a placeholder may be padded to: no file system takes a longer path."""


def format_path(
    template: str,
    epoch: int,
    logs: Mapping[str, float | None],
    not_numbers: Collection[str],
    batch: int | None = None,
) -> str:
    """Keras' `_get_file_path`: formatted before it is known whether anything is saved.

    Args:
        template: With `{epoch}` (1-based), `{val_loss:.2f}` and the like.
        epoch: 0-based.
        logs: Of the epoch; None = a learning rate that is unknown.
        not_numbers: Names whose values the log has as lists or text.
        batch: 0-based, of a save within the epoch.

    Raises:
        KerasRefuses: A placeholder that is not in the logs, or a format that does not fit.
        NeedsLearningRate: A placeholder for the unknown learning rate.
        CannotReplay: A placeholder for a list or text, or one of an absurd width.
    """
    try:
        for name in fields_of(template):
            if name in logs and logs[name] is None:
                raise NeedsLearningRate(f"the path {template!r}")
            if name not in logs and name in not_numbers:
                raise CannotReplay(f"the path {template!r}: some cells of {name!r} are lists or text")
        values = dict(epoch=display_epoch(epoch), **logs)  # a metric of that name is a TypeError, as in Keras
        if batch is not None:
            values.setdefault("batch", batch + 1)
        _require_sane_widths(template, values)
        return template.format(**values)
    except KeyError as error:
        raise KerasRefuses(
            "KeyError", f'Failed to format this callback filepath: "{template}". Reason: {error}'
        ) from None
    except (IndexError, ValueError, AttributeError, TypeError, OverflowError, MemoryError) as error:
        raise KerasRefuses(type(error).__name__, f"{error} in the path {template!r}") from None


def _require_sane_widths(template: str, values: Mapping[str, float | None]) -> None:
    """`{epoch:>999999999}` would fill the memory, a gigabyte an epoch."""
    for _, _, spec, _ in Formatter().parse(template):
        if spec and any(int(number) > _WIDEST for number in re.findall(r"\d+", spec.format(**values))):
            raise CannotReplay(f"the path {template!r}: no file system takes a name that long")


def fields_of(template: str) -> set[str]:
    """The names that a path template asks for."""
    return {re.split(r"[.\[]", name)[0] for _, name, _, _ in Formatter().parse(template) if name}
