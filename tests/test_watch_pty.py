"""The real `cbmon watch` in a real terminal: a pty, with pyte as the eyes. And what it does without one."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30.0
"""After which something that does not come fails the test; never waited for where all is well."""
QUIET_S = 3.0
"""Longer than any refresh rate: what ticks or blinks would show."""
HEADER = "epoch,loss,val_loss\n"
ROWS = "0,2.0,2.1\n1,1.0,1.2\n2,0.5,0.9\n"
UNKNOWN_TO_PYTE = re.compile(rb"\x1b\[[?>=<][0-9;]*[$]?[a-zA-Z]|\x1bP.*?\x1b\\", re.DOTALL)
"""Modes and queries, which pyte would print."""
HALF = re.compile(rb"(.*?)((?:\x1b[^a-zA-Z]*)?)", re.DOTALL)


def environment(**more: str) -> dict[str, str]:
    """The caller's, without what would change the screen."""
    without = ("PYTHON", "COV_", "TEXTUAL", "LC_", "NO_COLOR", "COLUMNS", "LINES", "COLORTERM")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(without)}
    return kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LANG": "C.UTF-8", "TZ": "UTC"} | more


class Terminal:
    """`cbmon` with arguments in a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str, size: tuple[int, int] = (80, 24), **env: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.modes = termios.tcgetattr(slave)
        self.slave = slave
        self.output = b""
        self.half = b""
        """An escape sequence of which the rest has not come yet."""
        self.screen = pyte.Screen(*size)
        self.stream = pyte.ByteStream(self.screen)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cbmon", *arguments],
            stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment(**env),
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def read(self, wait_s: float) -> bytes:
        """What it writes next; nothing if it writes nothing for so long."""
        if not select.select([self.master], [], [], wait_s)[0]:
            return b""
        data = os.read(self.master, 1 << 16)
        self.output += data
        whole, self.half = HALF.fullmatch(self.half + data).groups()  # type: ignore[union-attr]
        self.stream.feed(UNKNOWN_TO_PYTE.sub(b"", whole))
        return data

    def until(self, is_so: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            self.read(0.05)
            assert time.monotonic() < end, "\n".join(self.screen.display)

    def shows(self, text: str) -> None:
        """Wait until a text stands on the screen."""
        self.until(lambda: any(text in line for line in self.screen.display))

    def settle(self) -> None:
        """Wait until it has nothing more to write."""
        while self.read(1.0):
            pass

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> int:
        """Its exit code; reads on, for a full terminal would keep it from ending."""
        self.until(lambda: self.process.poll() is not None)
        while self.read(0.05):
            pass
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "run1.csv").write_text(HEADER + ROWS)
    return tmp_path


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def append(folder: Path, text: str) -> None:
    with (folder / "logs" / "run1.csv").open("a") as file:
        file.write(text)


def test_the_screen_starts_without_tls_and_others_may_still_load_it() -> None:
    code = (
        "import sys; from cbmon.cli.terminal import prepare_screen; prepare_screen(); import asyncio.sslproto\n"
        "print('_ssl' in sys.modules); import ssl; ssl.create_default_context()"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    assert told.stdout == "False\n"


def test_watch_shows_what_is_there_grows_with_it_and_restores_the_terminal(
    logs: Path, terminals: list[Terminal]
) -> None:
    terminals.append(terminal := Terminal(logs, "watch", "logs"))
    terminal.shows("▸◐ run1")
    terminal.shows(".9000 ★3")
    terminal.shows("q quit")
    append(logs, "3,0.25,0.125\n")
    terminal.shows(".1250 ★4")
    terminal.shows("val .1250")
    terminal.press(b"q")
    assert terminal.end() == 0
    assert terminal.output.count(b"\x1b[?1049h") == terminal.output.count(b"\x1b[?1049l") == 1
    assert terminal.output.rfind(b"\x1b[?25h") > terminal.output.rfind(b"\x1b[?25l")
    assert termios.tcgetattr(terminal.slave) == terminal.modes


def test_nothing_is_written_while_nothing_happens(logs: Path, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(logs, "watch", "logs"))
    terminal.shows("val .9000")
    terminal.settle()
    assert terminal.read(QUIET_S) == b""


def test_ctrl_c_ends_it_also_from_the_help(logs: Path, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(logs, "watch", "logs"))
    terminal.shows("q quit")
    terminal.press(b"?")
    terminal.shows("any other key closes this")
    terminal.press(b"\x03")
    assert terminal.end() == 0
    assert b"Traceback" not in terminal.output


def test_a_terminal_without_utf_8_gets_ascii(logs: Path, terminals: list[Terminal]) -> None:
    append(logs, "3,nan,nan\n")
    terminals.append(
        terminal := Terminal(logs, "watch", "logs", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    )
    terminal.shows(">! run1")
    terminal.press(b"?")
    terminal.shows("any other key closes this")
    terminal.press(b"q")
    terminal.until(lambda: not any("any other key closes this" in line for line in terminal.screen.display))
    terminal.shows("NaN loss at epoch 4")
    terminal.press(b"q")
    assert terminal.end() == 0
    assert terminal.output.isascii()
    assert b"\\u" not in terminal.output


@pytest.mark.parametrize("size", [(80, 24), (160, 45), (40, 10)])
def test_once_prints_one_frame_of_the_terminal_s_size(
    logs: Path, terminals: list[Terminal], size: tuple[int, int]
) -> None:
    terminals.append(terminal := Terminal(logs, "watch", "logs", "--once", size=size))
    assert terminal.end() == 0
    lines = terminal.output.decode().split("\r\n")
    assert len(lines) == size[1]
    assert lines[-1] == ""
    assert lines[0].startswith(" cbmon  logs ")
    assert max(map(len, lines)) <= size[0]
    assert b"\x1b" not in terminal.output


# --- lines --------------------------------------------------------------------------------------------------


def test_a_dumb_terminal_gets_lines_and_ctrl_c_ends_with_130(logs: Path, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(logs, "watch", "logs", TERM="dumb"))
    terminal.until(lambda: b"watching 1 run\r\n" in terminal.output)
    append(logs, "3,nan,nan\n")
    terminal.until(lambda: b"ERROR NaN loss at epoch 4\r\n" in terminal.output)
    terminal.press(b"\x03")
    assert terminal.end() == 130
    assert b"\x1b" not in terminal.output
    assert b"Traceback" not in terminal.output


def test_without_a_terminal_it_is_lines_and_an_interrupt_ends_with_130(logs: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cbmon", "watch", "logs"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=logs, env=environment(),
    )  # fmt: skip
    assert process.stdout
    assert b"run1 epoch 3 loss .5000 val_loss .9000 (best .9000 at 3)\n" in process.stdout.readline()
    assert process.stdout.readline() == b"watching 1 run\n"
    append(logs, "3,0.25,0.125\n")
    assert b"run1 epoch 4 " in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


def test_a_missing_path_is_refused_in_one_line(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "cbmon", "watch", "missing/"],
        cwd=tmp_path, env=environment(), capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (process.returncode, process.stdout) == (3, b"")
    assert process.stderr == b"cbmon: missing/: no such file or directory\n"


def test_a_missing_path_is_waited_for_on_the_screen(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "watch", "missing/")
    terminal.shows("no such path yet, waiting for it (a typo?)")
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "run1.csv").write_text(HEADER + ROWS)
    terminal.shows("run1")
    terminal.close()


@pytest.mark.parametrize("path", ["no/such/folder/", "no/*/run.csv", "no/x.csv"])
def test_a_path_below_a_folder_that_is_not_there_is_refused_also_on_the_screen(
    tmp_path: Path, path: str
) -> None:
    terminal = Terminal(tmp_path, "watch", path)
    terminal.shows(f"cbmon: {path}: no such file or directory")
    assert terminal.process.wait(PATIENCE_S) == 3
    terminal.close()
