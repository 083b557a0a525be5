"""`cbmon demo`: two small trainings, and `watch` on them."""

from __future__ import annotations

import os
import sys

import click

from cbmon.cli import options
from cbmon.cli.terminal import complain, has_screen
from cbmon.errors import CbmonError, ExitCode


@click.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False))
@options.plain
@options.is_ascii
def demo(folder: str | None, plain: bool, is_ascii: bool) -> int:
    """Train two small Keras models for real and watch them: one stops early, one diverges.

    The records go into FOLDER, by default a new temporary one.
    """
    import subprocess
    import tempfile
    from importlib.util import find_spec
    from threading import Thread

    from cbmon.cli.watch import follow
    from cbmon.sources import Follower
    from cbmon.wire import Wires

    if find_spec("keras") is None:
        raise CbmonError(
            "the demo trains a Keras model and there is no Keras here: pip install 'cbmon[tensorflow]'"
        )
    folder = folder or tempfile.mkdtemp(prefix="cbmon-demo-")
    os.makedirs(folder, exist_ok=True)
    follower = Follower([folder], wires=Wires())
    with tempfile.TemporaryFile() as words:
        child = subprocess.Popen(
            [sys.executable, "-m", "cbmon.sample_logs.demo", folder],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words,
        )  # fmt: skip
        complain(f"training two small models (importing Keras takes some seconds); records in {folder}")

        def end_with_training() -> None:
            child.wait()
            follower.stop()

        is_plain = plain or not has_screen()
        if is_plain:
            Thread(target=end_with_training, daemon=True).start()
        try:
            follow(follower, plain=is_plain, is_ascii=is_ascii)
        finally:
            is_stopped_by_us = child.poll() is None
            child.terminate()
            child.wait()
        if child.returncode and not is_stopped_by_us:
            words.seek(0)
            lines = words.read().decode(errors="replace").strip().splitlines()
            raise CbmonError(
                f"the demo's training ended with {child.returncode}: {lines[-1] if lines else 'no word'}"
            )
    complain(f"the records stay in {folder}; look again with: cbmon watch {folder}")
    return ExitCode.OK
