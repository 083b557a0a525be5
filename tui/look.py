"""What the user looks at: which run, metric, epochs and panels; plain state, changed by keys, read by drawing."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import msgspec

from cbmon.axes import Limits, Window
from cbmon.views import ORDERS

MARKS_MAX = 8
"""Marked runs drawn together: as many as there are colours that everybody can tell apart."""


class Main(Enum):
    """What stands in the middle of the screen."""

    CHART = "chart"
    EPOCHS = "epochs"
    ALERTS = "alerts"
    SUMMARY = "summary"


class Look(msgspec.Struct):
    """The state of looking; the runs themselves are elsewhere."""

    run: Path | None = None
    """The chosen run."""
    metric: str | None = None
    """Base name of the metric drawn; None: the one that the run is judged by."""
    is_log: bool | None = None
    """What the user chose; None: the chart decides by its values."""
    epoch: int | None = None
    """1-based epoch that is read out, None if none is."""
    window: Window | None = None
    """The epochs shown, None for the whole run."""
    y_limits: Limits | None = None
    """Of the last drawing of this picture: they only widen while it stays the same one."""
    main: Main = Main.CHART
    is_full: bool = False
    """Whether the main panel has the whole screen."""
    first_line: int = 0
    """The first line shown of the alerts."""
    order: str = ORDERS[0]
    filter: str = ""
    marks: dict[Path, int] = msgspec.field(default_factory=dict)
    """Marked runs and their places: a run keeps its colour and letter as long as it is marked."""

    @property
    def shows_epochs(self) -> bool:
        """Whether the middle shows epochs of the chosen or the marked runs, in which a key can read values."""
        return self.main in (Main.CHART, Main.EPOCHS)

    @property
    def has_lines(self) -> bool:
        """Whether the middle is a page whose lines the arrows go through, and not the runs."""
        return self.main in (Main.EPOCHS, Main.ALERTS)

    def choose(self, run: Path) -> None:
        """Look at another run, at the same metric if it has it; a chart of marked runs stays as it is."""
        if run != self.run:
            self.run, self.first_line = run, 0
            if not self.marks:
                self.epoch, self.window = None, None
                self.forget_limits()

    def forget_limits(self) -> None:
        """Another picture: its y axis is fitted anew."""
        self.y_limits = None

    def toggle_mark(self) -> bool:
        """Mark the chosen run, or take its mark away; False if there are as many marks as colours."""
        if self.run is None:
            return True
        if self.run in self.marks:
            del self.marks[self.run]
        elif len(self.marks) < MARKS_MAX:
            self.marks[self.run] = next(
                place for place in range(MARKS_MAX) if place not in self.marks.values()
            )
        else:
            return False
        self.forget_limits()
        return True

    def toggle(self, main: Main) -> None:
        """Show this in the middle, or the chart again."""
        self.main = Main.CHART if self.main is main else main
        self.first_line = 0

    def back(self) -> None:
        """One step back: from what was opened last. Marks are work, and stay: Esc is pressed once too often."""
        if self.main is not Main.CHART:
            self.main = Main.CHART
        elif self.is_full:
            self.is_full = False
        elif self.epoch is not None:
            self.epoch = None
        elif self.window is not None:
            self.window = None
            self.forget_limits()
        else:
            self.filter = ""

    def unmark(self) -> None:
        """Take all marks away."""
        self.marks.clear()
        self.forget_limits()
