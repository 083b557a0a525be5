"""The keys: one table from which the bindings, the footer, the help screen and README's table come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a key does."""

    keys: str
    """Textual's names, with commas between those that do the same."""
    action: str
    label: str
    """How the key is written for people."""
    ascii_label: str = ""
    hint: str = ""
    """For the footer; empty: not shown there."""
    ascii_hint: str = ""
    description: str
    opens: bool = False
    """Whether something opens that takes the keys after it: also those that were typed before it is there."""


KEYS = (
    Key(keys="up,k", action="move(-1)", label="↑ k", ascii_label="k", description="previous run"),
    Key(
        keys="down,j",
        action="move(1)",
        label="↓ j",
        ascii_label="j",
        hint="↑↓ run",
        ascii_hint="j k run",
        description="next run",
    ),
    Key(keys="home,g", action="move(-1000000)", label="Home g", description="first run"),
    Key(keys="end,G", action="move(1000000)", label="End G", description="last run"),
    Key(
        keys="enter,f",
        action="full",
        label="Enter f",
        hint="⏎ open",
        ascii_hint="f open",
        description="the run's chart on the whole screen, and back",
    ),
    Key(
        keys="space",
        action="mark",
        label="Space",
        hint="␣ mark",
        ascii_hint="Spc mark",
        description="mark a run: marked runs are drawn in one chart",
    ),
    Key(keys="m", action="metric(1)", label="m", hint="m metric", description="next metric"),
    Key(keys="M", action="metric(-1)", label="M", description="previous metric"),
    Key(keys="y", action="log", label="y", hint="y log", description="logarithmic y axis, on and off"),
    Key(
        keys="left",
        action="cursor(-1)",
        label="← →",
        ascii_label="<- ->",
        description="read values, epoch by epoch",
    ),
    Key(keys="right", action="cursor(1)", label="", description=""),
    Key(
        keys="shift+left",
        action="cursor(-10)",
        label="Shift ← →",
        ascii_label="Shift",
        description="ten epochs at once",
    ),
    Key(keys="shift+right", action="cursor(10)", label="", description=""),
    Key(
        keys="left_square_bracket",
        action="event(-1)",
        label="[ ]",
        hint="[ ] event",
        description="previous, next event under the chart",
    ),
    Key(keys="right_square_bracket", action="event(1)", label="", description=""),
    Key(
        keys="plus,equals_sign",
        action="zoom(2)",
        label="+ -",
        description="zoom in and out, around what is read",
    ),
    Key(keys="minus", action="zoom(0.5)", label="", description=""),
    Key(keys="less_than_sign", action="pan(-1)", label="< >", description="move the zoomed chart"),
    Key(keys="greater_than_sign", action="pan(1)", label="", description=""),
    Key(keys="0", action="whole", label="0", description="the whole run, axes fitted anew"),
    Key(keys="t", action="table", label="t", description="the epochs as a table, and back"),
    Key(keys="a", action="summary", label="a", description="all runs as a table, and back"),
    Key(keys="e", action="alerts", label="e", description="all alerts and warnings of the run"),
    Key(keys="o", action="order", label="o", description="order of the runs: newest, name, best, progress"),
    Key(
        keys="slash",
        action="filter",
        label="/",
        hint="/ filter",
        description="show only runs that match",
        opens=True,
    ),
    Key(keys="pageup", action="page(-1)", label="PgUp PgDn", description="scroll tables and alerts"),
    Key(keys="pagedown", action="page(1)", label="", description=""),
    Key(keys="escape", action="step_back", label="Esc", description="back, step by step"),
    Key(keys="ctrl+p", action="command_palette", label="Ctrl-P", description="all commands by name"),
    Key(keys="ctrl+z", action="suspend_process", label="Ctrl-Z", description="suspend; fg brings it back"),
    Key(keys="ctrl+l", action="redraw", label="Ctrl-L", description="draw the screen anew"),
    Key(
        keys="question_mark,h,f1",
        action="help",
        label="?",
        hint="? help",
        description="this help",
        opens=True,
    ),
    Key(keys="q,ctrl+c", action="quit", label="q", hint="q quit", description="quit; the training goes on"),
)


def footer_text(*, ascii: bool, width: int = 1000) -> str:
    """The footer: the keys that have a hint; where there is no room for all, help and quit stay."""
    hints = [(key.ascii_hint or key.hint) if ascii else key.hint for key in KEYS if key.hint]
    while len(hints) > 2 and len("  ".join(hints)) > width:
        del hints[-3]
    return "  ".join(hints)


def help_lines(*, ascii: bool) -> list[str]:
    """One line a key, or a pair of keys that do one thing and its opposite."""
    return [f"{_label(key, ascii):10} {key.description}" for key in KEYS if key.description]


def _label(key: Key, ascii: bool) -> str:
    return key.ascii_label or key.label if ascii else key.label
