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
    Key(keys="m,right", action="metric(1)", label="m", hint="m metric", description="next metric"),
    Key(keys="M,left", action="metric(-1)", label="M", description="previous metric"),
    Key(keys="y", action="log", label="y", hint="y log", description="logarithmic y axis, on and off"),
    Key(
        keys="e",
        action="alerts",
        label="e",
        hint="e alerts",
        description="all alerts and warnings of the run",
    ),
    Key(keys="ctrl+l", action="redraw", label="Ctrl-L", description="draw the screen anew"),
    Key(keys="question_mark,h,f1", action="help", label="?", hint="? help", description="this help"),
    Key(keys="q,ctrl+c", action="quit", label="q", hint="q quit", description="quit; the training goes on"),
)


def footer_text(*, ascii: bool) -> str:
    """The footer: the keys that have a hint."""
    return "   ".join((key.ascii_hint or key.hint) if ascii else key.hint for key in KEYS if key.hint)


def help_lines(*, ascii: bool) -> list[str]:
    """One line a key."""
    return [f"{_label(key, ascii):8} {key.description}" for key in KEYS]


def _label(key: Key, ascii: bool) -> str:
    return key.ascii_label or key.label if ascii else key.label
