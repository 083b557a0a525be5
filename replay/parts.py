"""Every cell of a sweep on disk: a folder of Parquet files, one a block, each whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from cbmon.errors import BadCall, CbmonError
from cbmon.replay.blocks import Cells, Judged
from cbmon.replay.plan import Plan
from cbmon.replay.swept import SweepSource
from cbmon.units import printable

_OUTCOMES = ("fired", "not within", "no observation", "refused")


class Sink:
    """One Parquet file a block, written aside and renamed: every file there is whole."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        import polars

        self.polars, self.folder, self.count = polars, folder, 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CbmonError(f"{folder}: no folder for the parts: {error.strerror}") from None
        if any(folder.glob("part-*.parquet")):
            raise BadCall(f"{folder}: it has the parts of another sweep. Name an empty folder")
        texts = list(plan.grid.texts())
        calls = [texts[number] for number in plan.numbers]
        self._write(
            "policies", polars.DataFrame({"policy": np.arange(len(calls), dtype=np.int32), "call": calls})
        )

    def write(self, judged: Judged) -> None:
        """One block: a row a (run, policy)."""
        assert judged.cells is not None
        pl, (policies, runs) = self.polars, judged.cells.stops.shape
        columns: dict[str, Any] = {
            "run": np.repeat(np.array(judged.numbers, np.int32), policies),
            "policy": np.tile(np.arange(policies, dtype=np.int32), runs),
        }
        for field in fields(Cells):
            if (cells := getattr(judged.cells, field.name)) is not None:
                columns[field.name] = cells.T.reshape(-1)
        stops = columns.pop("stops")
        names = dict(enumerate(_OUTCOMES))
        outcome = pl.Series(
            "outcome", np.minimum(stops, 0) * -1
        )  # as NOT_WITHIN, NO_OBSERVATION and REFUSED are
        outcome = outcome.replace_strict(names, return_dtype=pl.Enum(_OUTCOMES))
        stop = pl.Series("stop", stops).set(pl.Series(stops < 0), None)
        frame = pl.DataFrame(columns).insert_column(2, outcome).insert_column(3, stop)
        self._write(f"part-{self.count:05}", frame)
        self.count += 1

    def write_runs(self, sources: Sequence[SweepSource], done: Iterable[int]) -> None:
        """Which run is which, at the end: those done."""
        numbers = sorted(done)
        self._write(
            "runs",
            self.polars.DataFrame(
                {
                    "run": np.array(numbers, np.int32),
                    "log": [printable(sources[number].log, limit=4096) for number in numbers],
                    "attempt": [sources[number].attempt for number in numbers],
                }
            ),
        )

    def _write(self, name: str, frame: Any) -> None:
        path = self.folder / f"{name}.parquet"
        aside = path.with_suffix(".tmp")
        try:
            frame.write_parquet(aside)
            aside.replace(path)
        except (OSError, self.polars.exceptions.PolarsError) as error:
            raise CbmonError(f"{path}: cannot be written: {error}") from None
