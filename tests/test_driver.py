"""Our driver under a real pty, beside Textual's own: the same screens, fewer bytes, no wake-ups."""

import codecs
import fcntl
import inspect
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

import pytest
from textual import constants
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver

from cbmon.tui.driver import DiffDriver, driver_class, redraw
from tests.judge import Judge

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30.0
"""After which something that does not come fails the test; never waited for where all is well."""
CALM_S = 0.1
"""Longer than Textual takes for what may follow a frame."""
SYNC = ("\x1b[?2026h", "\x1b[?2026l")
ANSWERS = {"\x1b[?2026$p": b"\x1b[?2026;2$y"}
TITLE = re.compile(r"\x1b\]2;[^\x07]*\x07")
MOUSE = re.compile(r"\x1b\[\?(10(?:0[0-356]|1[56]))([hl])")
ENVIRONMENTS = {
    "truecolor": {"COLORTERM": "truecolor"},
    "256": {},
    "16": {"TERM": "xterm-16color"},
    "linux": {"TERM": "linux"},
    "no color": {"COLORTERM": "truecolor", "NO_COLOR": "1"},
}


class Terminal:
    """The toy application in a terminal of its own."""

    def __init__(
        self, driver: str, size: tuple[int, int] = (80, 24), *, knows_sync: bool = True, **env: str
    ) -> None:
        self.master, self.slave = pty.openpty()
        self.knows_sync = knows_sync
        self.judge = Judge(*size)
        self.tell_size(*size)
        self.modes = termios.tcgetattr(self.slave)
        self.output = ""
        self.packets: list[str] = []
        self.keys = 0
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        without = ("PYTHON", "COV_", "TEXTUAL", "LC_", "NO_COLOR", "COLUMNS", "LINES", "COLORTERM")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(without)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.toy", driver],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, cwd=ROOT, start_new_session=True,
            env=kept | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | env,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def tell_size(self, width: int, height: int) -> None:
        """Another size, for the kernel and the judge; the application gets its signal."""
        self.judge.resize(columns=width, lines=height)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read(self, wait_s: float) -> str:
        """What it writes next; nothing if it writes nothing for so long."""
        if not select.select([self.master], [], [], wait_s)[0]:
            return ""
        text = self._decode(os.read(self.master, 1 << 16))
        self.output += text
        self.packets.append(text)
        self.judge.write(text)
        for query, answer in ANSWERS.items():
            if query in text and self.knows_sync:
                os.write(self.master, answer)
        return text

    def until(self, is_so: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            self.read(0.05)
            assert time.monotonic() < end, "\n".join([*self.judge.display, self.judge.title])

    def settle(self, wait_s: float = CALM_S) -> None:
        while self.read(wait_s):
            pass

    def start(self) -> None:
        """Wait for its first screen."""
        size = f"0 {self.judge.columns}x{self.judge.lines - 2} "
        self.until(lambda: self.judge.title == size)
        self.settle()

    def press(self, key: bytes, name: str = "", *, settle_s: float = 0.02) -> str:
        """Press a key, wait until the application has seen it and painted; what it wrote, without its title."""
        self.keys += 1
        before = len(self.output)
        os.write(self.master, key)
        self.shows_title(f"{self.keys} ", f" {name or key.decode()}")
        self.settle(settle_s)
        return TITLE.sub("", self.output[before:])

    def shows_title(self, start: str, end: str) -> None:
        self.until(lambda: self.judge.title.startswith(start) and self.judge.title.endswith(end))

    def resize(self, width: int, height: int) -> None:
        self.tell_size(width, height)
        self.shows_title("", f" {width}x{height - 2} ")
        self.settle()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def until_stopped(self) -> None:
        self.until(lambda: self.state == "T")
        self.settle(0.05)

    @property
    def state(self) -> str:
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def end(self) -> int:
        """Its exit code; reads on, for a full terminal would keep it from ending."""
        self.until(lambda: self.process.poll() is not None)
        self.settle(0.05)
        return self.process.returncode

    def is_restored(self) -> bool:
        """Whether the terminal is as it was: screen, cursor, mouse, modes of its line."""
        ups_and_downs = {"h": "l", "l": "h"}
        left = {"\x1b[?1049", "\x1b[?25", "\x1b[?7", "\x1b[?1004", "\x1b[?2004"}
        left |= {f"\x1b[?{number}" for number, _ in MOUSE.findall(self.output)}
        ends = {"\x1b[?25": "h", "\x1b[?7": "h"}
        return termios.tcgetattr(self.slave) == self.modes and all(
            self.output.rfind(mode + ends.get(mode, "l"))
            > self.output.rfind(mode + ups_and_downs[ends.get(mode, "l")])
            for mode in left
        )

    def quit(self) -> int:
        os.write(self.master, b"q")
        return self.end()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


Open = Callable[..., Terminal]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens terminals, and closes them."""
    terminals: list[Terminal] = []

    def open_one(*arguments: object, **options: object) -> Terminal:
        terminals.append(Terminal(*arguments, **options))  # type: ignore[arg-type]
        return terminals[-1]

    yield open_one
    for terminal in terminals:
        terminal.close()


@pytest.fixture
def terminal(opened: Open) -> Terminal:
    """Ours, with its first screen."""
    terminal = opened("ours", COLORTERM="truecolor")
    terminal.start()
    return terminal


# --- the same screen as with Textual's own driver -----------------------------------------------------------


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_screen_is_the_same_and_costs_fewer_bytes(name: str, opened: Open) -> None:
    pair = [opened(driver, **ENVIRONMENTS[name]) for driver in ("ours", "stock")]
    sent: dict[str, list[int]] = {}

    def compare(step: str) -> None:
        ours, stock = pair
        assert ours.judge.display == stock.judge.display, step
        assert ours.judge.cells == stock.judge.cells, step

    for each in pair:
        each.start()
    compare("start")
    for key in "cwtdtcpwumxwmcaut" if name == "truecolor" else "cwdamx":
        sent.setdefault(key, [len(each.press(key.encode())) for each in pair])
        compare(key)
    for size in ((100, 30), (41, 9), (80, 24)):
        for each in pair:
            each.resize(*size)
        compare(str(size))
    assert 0 < sent["c"][0] < 64
    assert sent["c"][1] > 1000
    assert sent["a"][0] == 0
    assert sent["a"][1] > 1000
    for each in pair:
        assert each.quit() == 0
        assert each.is_restored()
    assert "0;38" not in pair[0].output or name not in ("16", "linux")


# --- what is written, and when ------------------------------------------------------------------------------


def test_nothing_is_written_when_nothing_changes(terminal: Terminal) -> None:
    assert terminal.press(b"a") == ""
    assert terminal.press(b"b") == "\x07"
    assert terminal.press(b"a") == ""


@pytest.mark.parametrize("knows_sync", [True, False])
def test_an_update_is_one_write_with_its_synchronisation(knows_sync: bool, opened: Open) -> None:
    terminal = opened("ours", knows_sync=knows_sync)
    terminal.start()
    del terminal.packets[:]
    text = terminal.press(b"c")
    assert any(packet.startswith(text) for packet in terminal.packets)
    assert [text.count(mark) for mark in SYNC] == ([1, 1] if knows_sync else [0, 0])
    if knows_sync:
        assert text.startswith(SYNC[0])
        assert text.endswith(SYNC[1])


def test_nobody_wakes_up_while_nothing_happens(terminal: Terminal) -> None:
    def switches() -> list[str]:
        tasks = Path(f"/proc/{terminal.process.pid}/task").glob("*/status")
        return sorted(
            line for task in tasks for line in task.read_text().splitlines() if "voluntary_ctxt" in line
        )

    terminal.press(b"c")
    terminal.settle(0.5)
    before = switches()
    assert terminal.read(1.0) == ""
    assert [line for line in switches() if "nonvoluntary" not in line] == [
        line for line in before if "nonvoluntary" not in line
    ]


def test_ctrl_l_repairs_a_screen_that_something_else_wrote_over(terminal: Terminal) -> None:
    clean = terminal.judge.cells
    terminal.judge.write("\x1b[3;1H\x1b[31mBroadcast message\x1b[5;1Hdone\x1b[2;2H")
    terminal.press(b"a")
    assert terminal.judge.cells != clean
    terminal.press(b"\x0c", "ctrl+l")
    assert terminal.judge.cells == clean


# --- sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [(80, 24), (60, 20)])
def test_fifty_quick_resizes_end_in_the_right_screen(last: tuple[int, int], terminal: Terminal) -> None:
    if last != (80, 24):
        terminal.resize(*last)
    terminal.press(b"c")
    clean = terminal.judge.cells
    for step in range(50):
        terminal.tell_size(40 + 37 * step % 90, 6 + 11 * step % 30)
        if step % 7 == 0:
            terminal.read(0.005)
    terminal.tell_size(*last)
    terminal.until(lambda: terminal.judge.cells == clean)
    terminal.settle()
    assert terminal.judge.cells == clean


def test_a_size_that_was_another_only_for_a_moment_is_painted_anew(terminal: Terminal) -> None:
    clean = terminal.judge.cells
    terminal.judge.resize(columns=20, lines=5)
    terminal.judge.resize(columns=80, lines=24)
    terminal.press(b"a")
    assert terminal.judge.cells != clean
    terminal.press(b"s")  # two signals may be delivered as one, which says that nothing has changed
    terminal.until(lambda: terminal.judge.cells == clean)


# --- stop, resume, end --------------------------------------------------------------------------------------


def test_ctrl_z_restores_the_terminal_and_resuming_the_screen(terminal: Terminal) -> None:
    terminal.press(b"c")
    clean = terminal.judge.cells
    os.write(terminal.master, b"\x1a")
    terminal.until_stopped()
    assert terminal.is_restored()
    terminal.judge.write("\x1b[H$ ls\r\n")
    terminal.send(signal.SIGCONT)
    terminal.until(lambda: terminal.judge.cells == clean)
    terminal.settle()
    assert terminal.judge.cells == clean
    terminal.press(b"c")
    assert terminal.quit() == 0
    assert terminal.is_restored()


def test_sigstop_which_nobody_sees_coming_does_no_harm(terminal: Terminal) -> None:
    terminal.press(b"c")
    clean = terminal.judge.cells
    for _ in range(2):
        terminal.send(signal.SIGSTOP)
        terminal.until_stopped()
        terminal.judge.write("\x1b[H$ ls\r\nsome files\x1b[41m\r\n")
        terminal.send(signal.SIGCONT)
        terminal.until(lambda: terminal.judge.cells == clean)
        terminal.settle()
        assert terminal.judge.cells == clean
    for _ in range(5):  # with two threads at the input some would be lost
        terminal.press(b"c")
    assert terminal.quit() == 0
    assert terminal.is_restored()


def test_what_another_program_wrote_during_a_suspension_is_painted_over(terminal: Terminal) -> None:
    clean = terminal.judge.cells
    terminal.press(b"z")
    assert "in between" in terminal.output
    terminal.until(lambda: terminal.judge.cells == clean)


def test_sigterm_ends_it_as_it_ends_textual(opened: Open) -> None:
    codes = []
    for driver in ("ours", "stock"):
        terminal = opened(driver)
        terminal.start()
        terminal.send(signal.SIGTERM)
        codes.append(terminal.end())
    assert codes == [-signal.SIGTERM] * 2


# --- input --------------------------------------------------------------------------------------------------


def test_keys_arrive_whole_in_parts_and_alone(terminal: Terminal) -> None:
    terminal.press(b"\x1b[A", "up")
    os.write(terminal.master, b"\x1b")
    assert not terminal.read(0.02)
    terminal.press(b"[B", "down")
    terminal.press(b"\x1b", "escape")
    terminal.press(b"\x1b", "escape")
    terminal.press("é".encode(), "é")
    os.write(terminal.master, b"\xff")  # no UTF-8: Textual's own loop ends here
    terminal.until(lambda: terminal.judge.title.startswith(f"{terminal.keys + 1} "))
    terminal.keys += 1
    terminal.press(b"c")


def test_the_mouse_reports_clicks_and_no_idle_motion(terminal: Terminal) -> None:
    assert {number for number, _ in MOUSE.findall(terminal.output)} == {"1000", "1002", "1006"}
    terminal.press(b"\x1b[<0;5;1M\x1b[<0;5;1m", "click 4,0")


# --- what we build on ---------------------------------------------------------------------------------------


def test_textual_still_has_what_the_driver_replaces_and_uses() -> None:
    """Names that are not public: where a new Textual lacks one, cbmon/tui/driver.py has to follow."""
    source = inspect.getsource(LinuxDriver) + inspect.getsource(Driver)
    for name in ("_app", "_debug", "_loop", "_mouse", "_key_thread"):
        assert f"self.{name}" in source, name
    for method in ("_enable_mouse_support", "_disable_mouse_support", "run_input_thread", "disable_input"):
        assert callable(getattr(LinuxDriver, method)), method
    assert "self.run_input_thread()" in source
    assert "self._key_thread.join()" in source
    assert "signal.SIGWINCH" in source
    assert callable(XTermParser.feed)
    assert callable(XTermParser.tick)
    app_source = inspect.getsource(App)
    assert "self._driver" in app_source
    assert "self._driver.write(SYNC_START)" in app_source
    assert "self._driver.write(SYNC_END)" in app_source


def test_the_class_is_ours_where_textual_would_take_its_own_for_unix(monkeypatch: pytest.MonkeyPatch) -> None:
    assert driver_class() is DiffDriver
    monkeypatch.setattr(constants, "DRIVER", "textual.drivers.web_driver:WebDriver")
    assert driver_class() is None


def test_the_module_can_be_imported_without_termios() -> None:
    code = (
        "import sys, textual.app; sys.platform = 'win32'; sys.modules['textual.drivers.linux_driver'] = None\n"
        "from cbmon.tui.driver import driver_class, redraw; assert driver_class() is None"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=PATIENCE_S)


async def test_redraw_does_no_harm_without_a_terminal() -> None:
    app = App[None](driver_class=driver_class())
    async with app.run_test() as pilot:
        redraw(app)
        await pilot.pause()
