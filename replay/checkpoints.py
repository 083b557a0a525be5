"""Where ModelCheckpoint saves: its path template, filled in as Keras does."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from string import Formatter

from cbmon.errors import CannotReplay, KerasRefuses, NeedsLearningRate
from cbmon.units import display_epoch


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
        CannotReplay: A placeholder for a list or text.
    """
    try:
        for name in fields_of(template):
            if name in logs and logs[name] is None:
                raise NeedsLearningRate(f"the path {template!r}")
            if name not in logs and name in not_numbers:
                raise CannotReplay(f"the path {template!r}: some cells of {name!r} are lists or text")
        if batch is None or "batch" in logs:
            return template.format(epoch=display_epoch(epoch), **logs)
        return template.format(epoch=display_epoch(epoch), batch=batch + 1, **logs)
    except KeyError as error:
        raise KerasRefuses(
            "KeyError", f'Failed to format this callback filepath: "{template}". Reason: {error}'
        ) from None
    except (IndexError, ValueError, AttributeError, TypeError, OverflowError, MemoryError) as error:
        raise KerasRefuses(type(error).__name__, f"{error} in the path {template!r}") from None


def fields_of(template: str) -> set[str]:
    """The names that a path template asks for."""
    return {re.split(r"[.\[]", name)[0] for _, name, _, _ in Formatter().parse(template) if name}
