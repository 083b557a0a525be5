"""The keys: one table from which the bindings, the footer, the help screen and README's table come."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Key(msgspec.Struct, frozen=True, kw_only=True):
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
    page_hint: str = ""
    """In place of the hint where the keys go through the lines of a page."""
    ascii_page_hint: str = ""
    description: str
    opens: bool = False
    """Whether something opens that takes the keys after it: also those that were typed before it is there."""


KEYS = (
    Key(
        keys="up",
        action="line(-1)",
        label="↑ ↓",
        ascii_label="Up Down",
        page_hint="↑↓ line",
        ascii_page_hint="Up Down line",
        description="previous, next run, or line of the tables and alerts",
    ),
    Key(keys="down", action="line(1)", label="", description=""),
    Key(
        keys="home",
        action="line(-1000000)",
        label="Home End",
        description="first, last run, or line of the tables and alerts",
    ),
    Key(keys="end", action="line(1000000)", label="", description=""),
    Key(keys="k", action="move(-1)", label="k", description="previous run, on every page"),
    Key(
        keys="j",
        action="move(1)",
        label="j",
        hint="↑↓ run",
        ascii_hint="j k run",
        page_hint="j k run",
        ascii_page_hint="j k run",
        description="next run, on every page",
    ),
    Key(keys="g", action="move(-1000000)", label="g", description="first run, on every page"),
    Key(keys="G", action="move(1000000)", label="G", description="last run, on every page"),
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
    Key(keys="x", action="unmark", label="x", description="take all marks away"),
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
        description="zoom in and out, around what is read or at the end",
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
        keys="L,l",
        action="rate",
        label="L",
        hint="L lr",
        description="ask the training for another learning rate",
        opens=True,
    ),
    Key(
        keys="S",
        action="save",
        label="S",
        hint="S save",
        description="ask the training to save its model",
        opens=True,
    ),
    Key(
        keys="X",
        action="end",
        label="X",
        hint="X stop",
        description="ask the training to stop, after this epoch or now",
        opens=True,
    ),
    Key(
        keys="slash",
        action="filter",
        label="/",
        hint="/ filter",
        description="show only runs that match",
        opens=True,
    ),
    Key(
        keys="w",
        action="what_if",
        label="w",
        hint="w what-if",
        description="what EarlyStopping or ReduceLROnPlateau would do here",
        opens=True,
    ),
    Key(keys="pageup", action="page(-1)", label="PgUp PgDn", description="a page of the tables and alerts"),
    Key(keys="pagedown", action="page(1)", label="", description=""),
    Key(keys="escape", action="step_back", label="Esc", description="back, step by step; marks stay"),
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


CONTROL = frozenset({"rate", "save", "end"})
"""Actions that ask something of a training: only where there is a live wire to it, never of a recording."""


PLAY_KEYS = (
    Key(
        keys="p",
        action="play",
        label="p",
        hint="p pause",
        description="play, pause; at the end from the start",
    ),
    Key(
        keys="full_stop",
        action="step(1)",
        label=", .",
        hint=", . step",
        description="an epoch back, forward",
    ),
    Key(keys="comma", action="step(-1)", label="", description=""),
    Key(
        keys="right_curly_bracket",
        action="moment(1)",
        label="{ }",
        hint="{ } event",
        description="to the event before, the next one, and pause there",
    ),
    Key(keys="left_curly_bracket", action="moment(-1)", label="", description=""),
    Key(
        keys="right_parenthesis",
        action="pace(1)",
        label="( )",
        hint="( ) speed",
        description="play slower, faster",
    ),
    Key(keys="left_parenthesis", action="pace(-1)", label="", description=""),
    Key(
        keys="circumflex_accent",
        action="seek_end(-1)",
        label="^ $",
        hint="^ $ ends",
        description="go to the start, to the end",
    ),
    Key(keys="dollar_sign", action="seek_end(1)", label="", description=""),
    Key(keys="colon", action="seek", label=":", description="go to an epoch", opens=True),
)
"""Of `replay --play`, beside those of `watch`."""


GIVING_WAY = ("event(-1)", "log", "mark", "filter", "metric(1)", "full")
"""Whose hints go first where the footer is too narrow: 80 columns have room for what-if, not for all of these."""


def footer_text(*, ascii: bool, width: int = 1000, is_page: bool = False, keys: Sequence[Key] = KEYS) -> str:
    """The footer: the keys that have a hint; where there is no room for all, help and quit stay."""
    hints = {key.action: hint for key in keys if (hint := _hint(key, ascii, is_page))}
    going = [*(action for action in GIVING_WAY if action in hints), *reversed([*hints][:-2])]
    while going and len("  ".join(hints.values())) > width:
        hints.pop(going.pop(0), None)
    return "  ".join(hints.values())


def _hint(key: Key, ascii: bool, is_page: bool) -> str:
    if is_page and key.page_hint:
        return key.ascii_page_hint if ascii else key.page_hint
    return key.ascii_hint or key.hint if ascii else key.hint


def help_lines(*, ascii: bool, keys: Sequence[Key] = KEYS) -> list[str]:
    """One line a key, or a pair of keys that do one thing and its opposite."""
    return [f"{label_of(key, ascii=ascii):10} {key.description}" for key in keys if key.description]


def label_of(key: Key, *, ascii: bool) -> str:
    """How a key is written for people."""
    return key.ascii_label or key.label if ascii else key.label
