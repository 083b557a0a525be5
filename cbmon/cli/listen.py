"""`cbmon listen`, and `watch --listen`: take in what RemoteMonitor sends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from cbmon.cli import options
from cbmon.cli.logs import refuse_empty
from cbmon.cli.terminal import complain
from cbmon.errors import BadCall, ExitCode

if TYPE_CHECKING:
    from cbmon.word import Notes


@click.command()
@click.argument("address", metavar="HOST:PORT")
@click.argument("folder", type=click.Path(file_okay=False))
@options.token
def listen(address: str, folder: str, token: str | None) -> int:
    """Take in what keras.callbacks.RemoteMonitor sends, and write it as records into FOLDER, without a screen.

    A record for each path: RemoteMonitor(root="http://localhost:9000", path="/run7"). What the disk refuses is kept
    and written later; a file that alone refuses is said, and its run is not recorded. Ctrl-C ends it.
    """
    from threading import Event

    make_folder((folder,))
    with listening(address, token, folder):
        Event().wait()
    return ExitCode.OK


def make_folder(paths: Sequence[str]) -> None:
    """What is written into: one folder, made if only it is missing."""
    refuse_empty(paths)
    if len(paths) > 1:
        raise BadCall(f"--listen writes its records into one folder, here are {len(paths)} paths")
    folder = paths[0]
    if os.path.isdir(folder):
        return
    try:
        os.mkdir(folder)
    except OSError as error:
        reason = "this is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise BadCall(f"{folder}: {reason}; records are written into a folder") from None


@contextmanager
def listening(address: str, token: str | None, folder: str, notes: Notes | None = None) -> Iterator[None]:
    """Take in what RemoteMonitor sends; at the end, also by SIGTERM, what was taken in is written.

    What there is to say goes to the screen's notes, without a screen to stderr.
    """
    import signal

    from cbmon.receiver import Listening, Receiver, bind, script_lines

    say: Callable[[str], None] = notes or complain
    if token is not None and not (token and all("!" <= sign <= "~" for sign in token)):
        raise BadCall("--token: one or more letters, digits and signs of ASCII, no blanks")
    receiver = Receiver(
        folder,
        token=token,
        say=say,
        now=time.time,
        monotonic=time.monotonic,
        began=notes.sit if notes else lambda: None,
    )
    server = Listening(bind(address, has_token=token is not None), receiver)
    before = {
        number: signal.signal(number, lambda number, _: sys.exit(128 + number))
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL  # not under nohup
    }
    # Stopped, it would stop the trainings.
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, lambda *_: None)
    lines = script_lines(server.url, has_token=token is not None)
    call = " ".join(map(str.strip, lines))
    if notes is None:
        say(f"{call} is recorded in {folder}")
    else:
        notes.remote = lines
        notes.stand(f"listening for {call}")
    server.start()
    try:
        yield
    finally:
        server.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        if notes is None or receiver.taken or receiver.refused:
            say(receiver.summary())
