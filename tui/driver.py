"""Our driver of the terminal: writes changed cells only, sleeps when nothing happens, reports no idle mouse.

`App(driver_class=driver_class())` uses it. Whatever it is unsure of (another size, a resume, something unknown in a
frame) makes it forget what the terminal shows, so that the next frame writes all it touches.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
from codecs import getincrementaldecoder
from typing import Any, Final

from textual import constants
from textual.app import App, ScreenStackError
from textual.driver import Driver
from textual.events import Resize
from textual.message import Message

from cbmon.tui.diff import FrameDiff, is_control

SYNC_START: Final = "\x1b[?2026h"
SYNC_END: Final = "\x1b[?2026l"
STDERR: Final = 2
"""Where Textual's frames go."""
QUIET_S: Final = constants.ESCAPE_DELAY + 0.01
"""After so long without input the parser has given up on an escape sequence that does not go on."""

if sys.platform != "win32":
    from textual._xterm_parser import XTermParser  # the loop that feeds it is what we replace
    from textual.drivers.linux_driver import LinuxDriver

    class DiffDriver(LinuxDriver):
        """Textual's driver for Linux and macOS, with fewer bytes and fewer wake-ups."""

        def __init__(
            self,
            app: App[Any],
            *,
            debug: bool = False,
            mouse: bool = True,
            size: tuple[int, int] | None = None,
        ) -> None:
            super().__init__(app, debug=debug, mouse=mouse, size=size)
            self._diff = FrameDiff()
            self._is_stale = True
            self._held: str | None = None
            """What a synchronised update writes so far; None outside of one."""
            self._wake_reader, self._wake_writer = os.pipe()  # one an app, closed with the process

        def forget(self) -> None:
            """Write the next frame without regard to what is there; from any thread or signal handler."""
            self._is_stale = True

        # --- output ---------------------------------------------------------------------------------------

        def write(self, data: str) -> None:
            """Write a control text as it is, and of a frame what it changes, with its synchronisation, at once."""
            if data == SYNC_START:
                self._held = ""
            elif data == SYNC_END:
                held, self._held = self._held, None
                if held:
                    super().write(f"{SYNC_START}{held}{SYNC_END}")
            elif is_control(data):
                super().write(data)  # also within an update: a suspension may interrupt one
            elif self._held is not None:
                self._held += self._reduce(data)
            elif changes := self._reduce(data):
                super().write(changes)

        def _reduce(self, frame: str) -> str:
            if self._is_stale:
                self._is_stale = False  # first: a signal may set it again
                try:
                    self._diff.resize(*os.get_terminal_size(STDERR))
                except OSError:
                    self._diff.resize(0, 0)  # no terminal: a screen on which nothing is understood
            return self._diff.reduce(frame)

        # --- start, stop, resize --------------------------------------------------------------------------

        def start_application_mode(self) -> None:
            """Start or resume, and look at each change of the size."""
            super().start_application_mode()  # type: ignore[no-untyped-call]  # Textual gives it no types
            on_resize = signal.getsignal(signal.SIGWINCH)
            if callable(on_resize):  # not if we are in the background

                def on_resize_forget(number: int, frame: Any) -> None:
                    on_resize(number, frame)
                    self._repaint()

                signal.signal(signal.SIGWINCH, on_resize_forget)

        def resume_application_mode(self) -> None:
            """Resume after a stop, also after one by SIGSTOP, which nobody sees coming."""
            if self._key_thread is not None and self._key_thread.is_alive():
                # Textual would start a second thread for the same input and take our modes for the terminal's own.
                self.suspend_application_mode()
            super().resume_application_mode()
            self._repaint()

        def process_message(self, message: Message) -> None:
            """Pass a message of the input thread on to the app."""
            super().process_message(message)
            if isinstance(message, Resize):  # a terminal that reports its size in band
                self._repaint()

        def _repaint(self) -> None:
            """Forget, and let the app repaint where Textual would not: the size is again what it was."""
            self.forget()
            self._loop.call_soon_threadsafe(self._app.call_later, self._repaint_unless_resized)

        def _repaint_unless_resized(self) -> None:
            try:
                is_resized = tuple(self._app.screen.size) != os.get_terminal_size(STDERR)
            except (ScreenStackError, OSError):
                return
            if not is_resized:  # else Textual lays out and paints anew
                self._app.refresh()

        # --- input ----------------------------------------------------------------------------------------

        def _enable_mouse_support(self) -> None:
            """Ask for clicks, the wheel and dragging: each idle motion (1003) would wake the app."""
            self._switch_mouse("h")

        def _disable_mouse_support(self) -> None:
            self._switch_mouse("l")

        def _switch_mouse(self, on_or_off: str) -> None:
            if self._mouse:
                self.write("".join(f"\x1b[?{mode}{on_or_off}" for mode in (1000, 1002, 1006)))

        def disable_input(self) -> None:
            """End the input thread; it does not wake up by itself."""
            if self._key_thread is not None and self._key_thread.is_alive():
                os.write(self._wake_writer, b"\0")
            super().disable_input()

        def run_input_thread(self) -> None:
            """Pass on what is typed until `disable_input`; no time limit but within an escape sequence."""
            parser = XTermParser(self._debug)
            decode = getincrementaldecoder("utf-8")("replace").decode
            wait_s: float | None = None
            with selectors.SelectSelector() as selector:
                selector.register(self.fileno, selectors.EVENT_READ)
                selector.register(self._wake_reader, selectors.EVENT_READ)
                while True:
                    ready = {key.fd for key, _ in selector.select(wait_s)}
                    if self.fileno in ready:
                        data = os.read(self.fileno, 4096)
                        if not data:
                            selector.unregister(self.fileno)  # the end of the input
                        if text := decode(data):
                            for message in parser.feed(text):
                                self.process_message(message)
                    for message in parser.tick():
                        self.process_message(message)
                    if self._wake_reader in ready:
                        os.read(self._wake_reader, 1)
                        return
                    wait_s = QUIET_S if self.fileno in ready else None


def driver_class() -> type[Driver] | None:
    """Ours; None, for Textual's own choice, on Windows and where TEXTUAL_DRIVER names one (a browser)."""
    return None if sys.platform == "win32" or constants.DRIVER else DiffDriver


def redraw(app: App[Any]) -> None:
    """Send the whole screen again: something else wrote over it."""
    driver = app._driver  # App has no public name for it
    if sys.platform != "win32" and isinstance(driver, DiffDriver):
        driver.forget()
    app.refresh()
