"""`--html FILE`: a report is written whole or not at all, and over nothing but an older report."""

from __future__ import annotations

import os
import tempfile

from cbmon.cli.terminal import complain
from cbmon.errors import BadCall, CbmonError
from cbmon.replay.webpage import MARKER


def require_page(path: str) -> None:
    """Refuse before any work what the report could not be written to, and never overwrite what is none."""
    if not path:
        raise BadCall("--html: an empty FILE (an unset variable?)")
    above = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(above):
        raise BadCall(f"--html {path}: there is no folder {above}")
    try:
        with open(path, "rb") as file:
            is_ours = file.read(len(MARKER)) == MARKER.encode()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadCall(f"--html {path}: {error.strerror}") from None
    if not is_ours:
        raise BadCall(f"--html {path}: this file is no report of cbmon and is not overwritten. Name another")


def write_page(path: str, text: str) -> None:
    """The whole file or none: who has the old report open, or a full disk, sees no half of a new one."""
    handle, name = tempfile.mkstemp(
        prefix=".cbmon-", suffix=".html", dir=os.path.dirname(os.path.abspath(path))
    )
    try:
        with open(handle, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except OSError as error:
        os.unlink(name)
        raise CbmonError(f"--html {path}: {error.strerror}") from None
    complain(f"report written to {path}")
