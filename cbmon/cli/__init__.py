"""The command line: arguments in, exit code out. The only place that prints, and where errors become one line.

Each command is the function in the module of its name, and imports its layer inside, so that `cbmon show` loads no
screen. What several share: `options`, `logs` (PATHs and what lies there), `terminal` (what is said, and to whom),
`page` (`--html`). stdout is data, stderr is words.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from cbmon import __version__
from cbmon.cli.terminal import complain
from cbmon.errors import CbmonError, ExitCode

COMMANDS = ("ctl", "demo", "doctor", "listen", "replay", "show", "sweep", "wait", "watch")


class _Commands(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # For a name that is none, all: click suggests the nearest of those it has.
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            self.add_command(getattr(import_module(f"cbmon.cli.{name}"), name))
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="cbmon")
def commands() -> None:
    """Watch Keras training from a terminal, and backtest training callbacks on recorded logs.

    PATHs are log files (Keras CSVLogger, cbmon's Monitor, History as JSON), folders, or globs.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code. The console script's entry point."""
    try:
        result = commands.main(arguments, prog_name="cbmon", standalone_mode=False)
        if sys.stdout is not None:  # None: closed by who called us
            sys.stdout.flush()
        return int(result or 0)
    except CbmonError as error:
        complain(str(error))
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return ExitCode.USAGE
    except click.ClickException as error:
        where = f"{error.ctx.command_path}" if isinstance(error, click.UsageError) and error.ctx else "cbmon"
        complain(f"{error.format_message()} (see {where} --help)")
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`): nothing to say, and nothing to flush at exit.
        _drop_output()
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001  # the last border: what else escapes is a bug of ours, and said so
        if isinstance(error, OSError) and (fault := _fault_of_the_place(error)):
            complain(fault)
            return ExitCode.USAGE
        import traceback

        traceback.print_exc()
        complain(f"this is a bug in cbmon {__version__}, please report it with the lines above")
        return ExitCode.BUG


def _fault_of_the_place(error: OSError) -> str:
    """What is wrong with where the output goes, or where we stand; empty if neither explains the error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and error.filename is None:
        _drop_output()
        return f"cannot write the output: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        try:
            os.getcwd()
        except FileNotFoundError:
            return "the current folder is gone (deleted, or made again): cd into one that is there"
    return ""


def _drop_output() -> None:
    """Let what is still to be flushed at exit go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
