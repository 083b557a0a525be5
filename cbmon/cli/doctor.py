"""`cbmon doctor`: what will work here and what will not."""

from __future__ import annotations

import os
import sys

import click

from cbmon.cli import options
from cbmon.cli.logs import refuse_empty
from cbmon.cli.terminal import has_terminal, say_lines
from cbmon.errors import ExitCode


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@options.is_ascii
def doctor(paths: tuple[str, ...], is_ascii: bool) -> int:
    """Tell what will work here and what will not: files, terminal, GPU, Keras. PATH defaults to the current folder.

    It tries whether changes of files are told, with a file of its own that it takes away again.
    """
    import shutil

    from cbmon import doctor as doctors
    from cbmon.mounts import read_mounts

    refuse_empty(paths)
    size = shutil.get_terminal_size((80, 24))
    terminal = doctors.Terminal(
        is_tty=has_terminal(),
        encoding=getattr(sys.__stderr__, "encoding", None) or "",  # Textual draws there
        size=(size.columns, size.lines),
        environment=os.environ,
    )
    facts = doctors.gather(paths or (".",), read_mounts(), terminal)
    say_lines(doctors.lines(doctors.findings(facts)), is_ascii=is_ascii)
    return ExitCode.OK
