"""Options that several commands take."""

from __future__ import annotations

import math

import click

from cbmon.errors import BadCall

EPOCHS_MAX = 2**53
"""Of a plan: what a record may hold."""


def _finite(_context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise BadCall(f"{option.opts[0]} {value}: give a finite number, such as 1e-3")
    return value


def _page(_context: click.Context, _option: click.Parameter, path: str | None) -> str | None:
    if path is not None:
        from cbmon.cli.page import require_page

        require_page(path)
    return path


# --- what is looked at ------------------------------------------------------------------------------------

attempt = click.option(
    "--attempt", type=click.IntRange(1), metavar="N", help="Only the N-th attempt of each log."
)
epochs = click.option(
    "--epochs",
    type=click.IntRange(1, EPOCHS_MAX),
    metavar="N",
    help="Planned epochs, for logs that cannot tell.",
)
learning_rate = click.option(
    "--learning-rate",
    type=float,
    callback=_finite,
    metavar="X",
    help="The first learning rate, where a log has none.",
)
keras = click.option(
    "--keras",
    "version",
    metavar="VERSION",
    help="3.15 ... 3.0, 2 or tf_keras, 2.15, 2.12; default: the installed one.",
)
poll = click.option(
    "--poll", is_flag=True, help="Look every 2 s instead of trusting file system notices (NFS, FUSE)."
)
token = click.option(
    "--token",
    metavar="T",
    envvar="CBMON_TOKEN",
    help="What trainers have to show, needed beyond this machine: RemoteMonitor(headers={'X-Token': T}). "
    "Better in CBMON_TOKEN: others see a command line.",
)

# --- how it is told ---------------------------------------------------------------------------------------

is_ascii = click.option("--ascii", "is_ascii", is_flag=True, help="No characters beyond ASCII.")
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
html = click.option(
    "--html",
    callback=_page,
    metavar="FILE",
    help="Also write a report as one file, which opens offline; an older report is replaced.",
)
plain = click.option("--plain", is_flag=True, help="Lines instead of a screen, as also without a terminal.")
