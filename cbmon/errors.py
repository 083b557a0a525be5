"""What goes wrong by no fault of ours, and the exit codes of the command line.

The tree; a subclass is the user's problem, said in one line that tells what to do next:

    CbmonError
    ├── BadCall               what was asked for cannot be read: a CALL, a flag
    ├── NoRunsFound           no training log where one was expected
    ├── UnreadableLog         a file that is no log, or cannot be opened
    └── CannotReplay          one replay has no answer; the others still have theirs
        ├── KerasRefuses      the exception with which Keras itself would end the training
        └── NeedsLearningRate a decision depends on a learning rate that the log does not have

Raised anywhere, rendered once, in `cli`. Anything else that escapes is a bug of ours (`ExitCode.BUG`).
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process says to the shell."""

    OK = 0
    UNHEALTHY = 1
    """`show --check`: a run has a problem of severity `error`."""
    USAGE = 2
    """A command that cannot be read, or a replay that Keras would refuse."""
    NO_DATA = 3
    """No readable log."""
    BUG = 70
    """Ours; 70 is EX_SOFTWARE of sysexits.h."""
    TIMED_OUT = 124
    """`wait --timeout`; what coreutils' timeout says."""
    INTERRUPTED = 130
    """128 + SIGINT."""


class CbmonError(Exception):
    """A problem that the user can solve; its text says what, where and what to do."""

    exit_code = ExitCode.USAGE


class BadCall(CbmonError):
    """What was asked for cannot be read: a CALL or a flag."""


class NoRunsFound(CbmonError):
    """No training log where one was expected."""

    exit_code = ExitCode.NO_DATA


class UnreadableLog(CbmonError):
    """A file that is no training log, or that cannot be opened."""

    exit_code = ExitCode.NO_DATA


class CannotReplay(CbmonError):
    """One replay has no answer; it becomes that result's `error`."""


class KerasRefuses(CannotReplay):
    """The exception with which Keras itself would end the training."""

    def __init__(self, kind: str, message: str) -> None:
        """Take the name of Keras' exception (`ValueError`) and its message."""
        super().__init__(f"Keras raises {kind}: {message}")


class NeedsLearningRate(CannotReplay):
    """A decision depends on a learning rate that the log does not have."""

    def __init__(self, what: str) -> None:
        """Take what needs it, as the subject of a sentence (`min_lr=1e-05`)."""
        super().__init__(
            f"no learning rate in this log and {what} needs one. Give the first one: --learning-rate 1e-3"
        )
