"""Word to who is not looking: a bell, a notification of the desktop, a command of the user's, at each new alert.

`Word` decides what is news; how it is sent is the caller's: the bell goes through whatever owns the terminal, for
nothing else may write there. Text from logs is escaped and short, and stands in no command line.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import TypeAlias

from cbmon.errors import BadCall
from cbmon.rules import Alert, Severity, Status, alerts
from cbmon.run import Run
from cbmon.units import plural, printable

TEXT_MAX = 120
"""Letters of a notification; desktops show about so many."""
SINGLE_MAX = 3
"""So many alerts at once are told one by one; of more, the first and how many."""
COMMAND_S = 30.0
"""How long a command may take: a mail or a request to a chat takes seconds."""
QUEUE_MAX = 100
"""Alerts that wait for the command before."""
CLOSE_S = 2.0
"""How long the end waits for it."""
NOTES_SHOWN = 3
"""Lines kept for the screen."""

ENDS = frozenset(status.value for status in (Status.FINISHED, Status.STOPPED, Status.INTERRUPTED))
"""Kinds of alerts that are no trouble, and what somebody waits for all the same."""
NAN = "nan"
"""The kind of alert of a value that is no number, or infinite."""
_RANKS = (Severity.INFO, Severity.WARNING, Severity.ERROR)

Say: TypeAlias = Callable[[str], None]
Key: TypeAlias = tuple[int, str, str, int | None]
"""Of an alert: `Alert.key`."""


@dataclass(frozen=True, slots=True)
class News:
    """An alert that was not there before, and whose it is."""

    run: str
    path: str
    alert: Alert

    @property
    def text(self) -> str:
        """In one line."""
        return printable(f"{self.run}: {self.alert.message}", TEXT_MAX)

    def document(self) -> bytes:
        """As JSON, one line; epochs 0-based, as in `show --json`."""
        alert = self.alert
        fields = {
            "version": 1,
            "run": printable(self.run),
            "path": printable(self.path, 4096),
            "attempt": alert.attempt,
            "epoch": alert.epoch,
            "severity": alert.severity.value,
            "kind": alert.kind,
            "metric": printable(alert.subject) or None,
            "message": printable(alert.message),
        }
        return json.dumps(fields).encode() + b"\n"


Way: TypeAlias = Callable[[Sequence[News]], None]
"""Sends word of some news."""


class Word:
    """Decides of which alerts word is sent: each once, and of none that was there at the beginning."""

    def __init__(self, ways: Iterable[Way], level: Severity = Severity.WARNING) -> None:
        """Take how it is sent.

        Args:
            ways: each is given all news of a moment.
            level: the least severity; at warning the end of a run counts too, at error errors alone.
        """
        self._ways = list(ways)
        self._level = level
        self._known: dict[Path, set[Key]] = {}
        self._news: list[News] = []
        self.has_begun = False
        """Whether what comes is news."""

    def look(self, path: Path, name: str, run: Run) -> None:
        """See a run that has changed, when all that is there of it was read."""
        found = alerts(run)
        known = self._known.get(path, set())
        if self.has_begun:
            self._news += [
                News(name, str(path), each) for each in _unknown(found, known) if self._is_worth(each)
            ]
        self._known[path] = {key for key in known if _may_last(key, run)} | {each.key for each in found}

    def begin(self) -> None:
        """Everything there was at the start has been seen: from now on what is new is news."""
        self.has_begun = True

    def tell(self) -> None:
        """Send word of what was found since the last time."""
        news, self._news = self._news, []
        if news:
            for way in self._ways:
                way(news)

    def _is_worth(self, alert: Alert) -> bool:
        if alert.kind in ENDS:
            return self._level is not Severity.ERROR
        return _RANKS.index(alert.severity) >= _RANKS.index(self._level)


def _unknown(found: Sequence[Alert], known: Set[Key]) -> list[Alert]:
    """The alerts that are not known, without those of a NaN that is: one metric breaks, and others after it.

    One in an attempt is a word, the first of the gravest; another only where it is graver than all before: a loss
    after a metric that may divide by zero now and then.
    """
    fresh = [alert for alert in found if alert.key not in known]
    gravest = {
        alert.attempt: rank
        for rank, severity in enumerate(_RANKS)
        for alert in found
        if alert.kind == NAN and alert.severity is severity and alert.key in known
    }
    first: dict[int, Alert] = {}
    for alert in fresh:
        rank = _RANKS.index(alert.severity)
        if alert.kind == NAN and rank > gravest.get(alert.attempt, -1):
            first[alert.attempt], gravest[alert.attempt] = alert, rank
    return [alert for alert in fresh if alert.kind != NAN or first.get(alert.attempt) is alert]


def _may_last(key: Key, run: Run) -> bool:
    """Whether an alert may be told of still: a file that began anew has not come to its epoch yet."""
    number, _, _, epoch = key
    if number > len(run.attempts):
        return False
    epochs = run.attempts[number - 1].epochs
    return epoch is None or bool(epochs and epoch <= epochs[-1])


# --- the terminal ---------------------------------------------------------------------------------------------


def terminal_way(
    write: Callable[[str], None], environ: Mapping[str, str], *, is_ascii: bool = False
) -> Way:  # fmt: skip
    """A bell, and a notification where the terminal is one that may show it.

    Args:
        write: sends control text to the terminal.
        environ: tells which terminal it is.
        is_ascii: no characters beyond ASCII.
    """

    def send(news: Sequence[News]) -> None:
        texts = [each.text for each in news[:SINGLE_MAX]]
        if len(news) > SINGLE_MAX:
            texts = [f"{plural(len(news), 'alert')}, the first: {texts[0]}"]
        write("\a" + "".join(notification(text, environ, is_ascii=is_ascii) for text in texts))

    return send


def notification(text: str, environ: Mapping[str, str], *, is_ascii: bool = False) -> str:
    """The control text by which terminals notify the desktop; empty where it might be shown as letters.

    OSC 9 (iTerm2, kitty, WezTerm, Ghostty), or OSC 777 for those who know that one alone. tmux passes it on if
    `allow-passthrough` is on; without it the bell still marks its window.
    """
    text = printable(text, TEXT_MAX)
    if is_ascii:
        text = text.encode("ascii", "backslashreplace").decode()
    terminal = environ.get("TERM", "")
    is_tmux = bool(environ.get("TMUX")) or terminal.startswith("tmux")
    if terminal in ("", "dumb", "linux") or (terminal.startswith("screen") and not is_tmux):
        return ""
    if terminal.startswith(("rxvt", "foot")) or "VTE_VERSION" in environ:
        sequence = f"\x1b]777;notify;cbmon;{text}\x1b\\"
    else:
        sequence = f"\x1b]9;cbmon: {text}\x1b\\"  # words first: a digit there would be another command
    return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\" if is_tmux else sequence


# --- a command of the user's ----------------------------------------------------------------------------------


def read_command(text: str) -> list[str]:
    """The words of `--on-alert`, as a shell would part them; no shell runs them.

    Raises:
        BadCall: They cannot be parted, or there is no such program.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadCall(f"--on-alert {text!r}: {error}") from None
    if not words:
        raise BadCall("--on-alert: give a command, which gets each alert as JSON on its standard input")
    if shutil.which(words[0]) is None:
        raise BadCall(f"--on-alert {text!r}: there is no program {words[0]!r} that can be run")
    return words


class CommandWay:
    """Runs a command for each alert, one after the other, in a thread; what goes wrong is said in a line."""

    def __init__(self, words: Sequence[str], say: Say, limit_s: float = COMMAND_S) -> None:
        self._words = list(words)
        self._say = say
        self._limit_s = limit_s
        self._waiting: queue.Queue[News | None] = queue.Queue(QUEUE_MAX)
        self._thread = Thread(target=self._run, name="cbmon-on-alert", daemon=True)
        self._closing = Flag()
        self._is_full = False

    def __call__(self, news: Sequence[News]) -> None:
        """Have the command run; never waits for it."""
        if self._thread.ident is None:
            self._thread.start()
        try:
            for each in news:
                self._waiting.put_nowait(each)
        except queue.Full:
            if not self._is_full:
                self._say(f"--on-alert: {QUEUE_MAX} alerts wait for {self._name}, the next ones are left out")
            self._is_full = True
        else:
            self._is_full = False

    def close(self) -> None:
        """Give what still waits a moment; a command that runs then is left to itself."""
        self._closing.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    @property
    def _name(self) -> str:
        return os.path.basename(self._words[0])

    def _run(self) -> None:
        while (news := self._next()) is not None:
            if trouble := self._command(news):
                self._say(f"--on-alert: {self._name} {trouble}")

    def _next(self) -> News | None:
        try:
            return self._waiting.get(block=not self._closing.is_set())
        except queue.Empty:
            return None

    def _command(self, news: News) -> str:
        """Run it once; gives what went wrong."""
        try:
            child = subprocess.Popen(
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # the screen is drawn on the same terminal
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is ours, and all that it starts ends with it
            )
        except OSError as error:
            return f"could not be run, {error.strerror or error}"
        try:
            child.communicate(news.document(), timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return f"took longer than {self._limit_s:g} s and was ended"
        return f"ended with exit code {child.returncode}" if child.returncode else ""


class Notes:
    """Words from other threads, for the lines of the screen."""

    def __init__(self) -> None:
        self.latest: list[str] = []
        """Replaced, never changed."""
        self.remote: Sequence[str] = ()
        """What a training script needs to send its epochs to this process; empty if none may."""
        self._standing = ""
        self.changed: Callable[[], None] = lambda: None
        """What the screen wants to be told by, from whatever thread."""

    def __call__(self, words: str) -> None:
        """Add a line."""
        self.latest = [*self.latest, words][-NOTES_SHOWN:]
        self.changed()

    @property
    def lines(self) -> list[str]:
        """What is shown: what stands, then the latest."""
        return [*filter(None, [self._standing]), *self.latest]

    def stand(self, words: str) -> None:
        """Have a line shown above the others, whatever comes, until it is to sit down."""
        self._standing = words
        self.changed()

    def sit(self) -> None:
        """Show that line no more."""
        self.stand("")
