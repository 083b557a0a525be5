"""PATHs: what is refused among them, the runs that lie there, and what is told of the files that are none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cbmon.cli.terminal import complain
from cbmon.errors import BadCall, NoRunsFound
from cbmon.units import plural, printable

if TYPE_CHECKING:
    from cbmon.run import Run
    from cbmon.sources import Log, Skipped


def load(paths: Sequence[str]) -> tuple[list[tuple[Log, Run]], list[Skipped]]:
    """Every log under the paths folded into a run, and what was skipped."""
    from cbmon import sources

    refuse_empty(paths)
    return sources.load(paths)


def refuse_empty(paths: Sequence[str]) -> None:
    """An empty PATH is an unset variable of a shell; it does not mean the current folder."""
    if "" in paths:
        raise BadCall("an empty PATH (an unset variable?): write . for the current folder")


def require_paths(paths: Sequence[str], *, waits: bool = False, is_live: bool = False) -> None:
    """Refuse a path that is not there, unless it may come and the screen says that it is waited for.

    A script gets its exit code; and where not even the folder above is there, it is a typo. `is_live`: sockets too.
    """
    import glob

    from cbmon.wire import SOCKET

    refuse_empty(paths)
    for path in paths:
        if path.startswith(SOCKET) and not is_live:
            raise NoRunsFound(f"{path}: a socket keeps nothing, it can only be watched: cbmon watch {path}")
        if path == SOCKET:
            continue
        full = os.path.expanduser(path.removeprefix(SOCKET))
        if os.path.lexists(full) or glob.glob(full, recursive=True):
            continue
        above = os.path.dirname(os.path.abspath(full))
        while glob.has_magic(above):
            above = os.path.dirname(above)
        if not waits or not os.path.isdir(above):
            raise NoRunsFound(f"{path}: no such file or directory")


def tell_skipped(
    paths: Sequence[str], runs: Sequence[object], skipped: Sequence[Skipped], *, with_all: bool = False
) -> None:
    """One line for each file that is refused aloud; where nothing can be read, at least one line."""
    told = [skip for skip in skipped if skip.looks_like_log or with_all]
    given = {Path(path): path for path in paths}  # a Path makes unix: of unix://
    for skip in told:
        complain(f"{given.get(skip.path, skip.path)}: {skip.reason}")
    if not runs and not told:
        looked = f" ({plural(len(skipped), 'file')} looked at; --skipped says why)" if skipped else ""
        complain(
            f"{' '.join(paths)}: no training log here{looked}. Keras' CSVLogger and cbmon's Monitor write them"
        )


NAMED = 5
"""Names told where one was expected; of more, that there are more."""


def several(paths: Iterable[object], what: str = "") -> str:
    """How many there are where one was expected, and their names: `2: a.csv, b.csv`."""
    names = [printable(str(path), 100) for path in paths]
    return f"{len(names)}{what}: {', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''}"
