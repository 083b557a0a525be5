"""What holds for every test: the sockets of its runs meet neither those of other tests nor the user's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _runtime_folder() -> Iterator[None]:
    """A runtime folder for each worker of xdist; short, for a socket's path may have 107 bytes."""
    folder = tempfile.mkdtemp(prefix="cbmon-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)
