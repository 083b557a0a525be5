"""Word of alerts: what is news, what a terminal is sent, and a command that may fail without hurting anybody."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbmon.cli import main
from cbmon.errors import BadCall
from cbmon.events import EpochsEnded, Event, NonFinite, RecordReplaced, RunEnded, RunStarted, encode_line
from cbmon.plain import follow
from cbmon.rules import Alert, Severity
from cbmon.run import Run, fold
from cbmon.sources import Follower
from cbmon.tui.app import WatchApp
from cbmon.tui.diff import is_control
from cbmon.word import (
    QUEUE_MAX,
    TEXT_MAX,
    CommandWay,
    News,
    Notes,
    Word,
    notification,
    read_command,
    terminal_way,
)
from tests.test_watch_pty import PATIENCE_S, Terminal

NAN = float("nan")
PATH = Path("logs/run4/training.jsonl")
STARTED = RunStarted(run_id="a")


def epochs(*losses: float, first: int = 0) -> EpochsEnded:
    return EpochsEnded(
        time=time.time(), epochs=list(range(first, first + len(losses))), metrics={"loss": list(losses)}
    )


def folded(run: Run, *events: Event) -> Run:
    for event in events:
        fold(run, event)
    return run


class Listener:
    """A word with somebody who hears it."""

    def __init__(self, level: Severity = Severity.WARNING) -> None:
        self.heard: list[str] = []
        self.times = 0
        self.word = Word([self.hear], level)

    def hear(self, news: object) -> None:
        assert isinstance(news, list)
        self.times += 1
        self.heard += [each.alert.kind for each in news]

    def look(self, run: Run) -> list[str]:
        """What is heard of a run as it is now."""
        self.heard = []
        self.word.look(PATH, "run4", run)
        self.word.tell()
        return self.heard


def news(text: str = "NaN loss at epoch 21", run: str = "run4") -> News:
    alert = Alert(attempt=1, epoch=20, severity=Severity.ERROR, kind="nan", message=text, subject="loss")
    return News(run, str(PATH), alert)


# --- what is news ---------------------------------------------------------------------------------------------


def test_what_was_there_at_the_start_is_no_news() -> None:
    listener, run = Listener(), folded(Run(), STARTED, epochs(1.0, NAN))
    assert listener.look(run) == []
    listener.word.begin()
    assert listener.look(run) == []


def test_an_alert_is_told_once() -> None:
    listener, run = Listener(), folded(Run(), STARTED, epochs(1.0))
    listener.look(run)
    listener.word.begin()
    assert listener.look(folded(run, epochs(NAN, first=1))) == ["nan"]
    assert listener.look(folded(run, epochs(NAN, NAN, first=2))) == []
    assert listener.look(folded(run, RunEnded(how="failed"))) == ["failed"]
    assert listener.look(run) == []
    assert listener.times == 2


def test_a_run_that_comes_later_is_news_from_its_start() -> None:
    listener = Listener()
    listener.word.begin()
    assert listener.look(folded(Run(), STARTED, epochs(NAN))) == ["nan"]


@pytest.mark.parametrize(
    ("level", "kinds"),
    [
        (Severity.INFO, ["nan", "learning-rate", "stopped"]),
        (Severity.WARNING, ["nan", "stopped"]),
        (Severity.ERROR, ["nan"]),
    ],
)
def test_levels(level: Severity, kinds: list[str]) -> None:
    listener = Listener(level)
    listener.word.begin()
    rates: list[float | None] = [0.1, 0.01]
    events = EpochsEnded(epochs=[0, 1], metrics={"loss": [1.0, NAN]}, learning_rate=rates)
    run = folded(Run(), STARTED, events, RunEnded(how="stopped", by=["EarlyStopping"]))
    assert sorted(listener.look(run)) == sorted(kinds)


def test_the_same_file_read_anew_is_no_news() -> None:
    listener, run = Listener(), folded(Run(), STARTED, epochs(1.0, NAN))
    listener.look(run)
    listener.word.begin()
    assert listener.look(folded(run, RecordReplaced(), STARTED, epochs(1.0, NAN, NAN))) == []


def test_another_training_in_the_same_file_is_news() -> None:
    listener, run = Listener(), folded(Run(), STARTED, epochs(1.0, NAN))
    listener.look(run)
    listener.word.begin()
    assert listener.look(folded(run, RecordReplaced(), STARTED, epochs(1.0))) == []
    assert listener.look(folded(run, epochs(NAN, first=1))) == ["nan"]


def test_a_new_attempt_is_news() -> None:
    listener, run = Listener(), folded(Run(), STARTED, epochs(1.0, NAN))
    listener.look(run)
    listener.word.begin()
    assert listener.look(folded(run, STARTED, epochs(1.0, NAN))) == ["nan"]


def both(*losses: float, first: int = 0, **more: list[float]) -> EpochsEnded:
    """Epochs with a validation loss that is the loss, and other metrics."""
    event = epochs(*losses, first=first)
    metrics: dict[str, list[float | None]] = {"loss": list(losses), "val_loss": list(losses)}
    return EpochsEnded(
        time=event.time, epochs=event.epochs, metrics=metrics | {k: list(v) for k, v in more.items()}
    )


def test_a_nan_that_spreads_is_one_word() -> None:
    listener, run = Listener(), folded(Run(), STARTED, both(1.0, 0.9))
    listener.look(run)
    listener.word.begin()
    assert listener.look(folded(run, NonFinite(epoch=2, metric="loss"))) == ["nan"]
    assert listener.look(folded(run, both(NAN, first=2))) == []
    assert listener.look(folded(run, both(NAN, first=3))) == []
    assert listener.look(folded(run, RunEnded(how="failed"))) == ["failed"], "another kind is another word"


def test_several_metrics_that_break_at_once_are_one_word() -> None:
    listener, run = Listener(), folded(Run(), STARTED, both(1.0))
    listener.look(run)
    listener.word.begin()
    assert listener.look(folded(run, both(NAN, first=1))) == ["nan"]


def test_a_nan_that_was_there_at_the_start_is_no_news_where_it_spreads() -> None:
    listener, run = Listener(), folded(Run(), STARTED, both(1.0), NonFinite(epoch=1, metric="loss"))
    listener.look(run)
    listener.word.begin()
    assert listener.look(folded(run, both(NAN, first=1))) == []


def test_a_loss_that_breaks_after_another_metric_is_told_and_in_one_moment_alone() -> None:
    def broken(level: Severity, *events: EpochsEnded) -> list[list[str]]:
        listener, told = Listener(level), list[list[str]]()
        listener.word = Word([lambda news: told.append([each.alert.subject for each in news])], level)
        run = folded(Run(), STARTED, both(1.0, f1=[0.5]))
        listener.look(run)
        listener.word.begin()
        for event in events:
            listener.look(folded(run, event))
        return told

    first, then = both(1.0, first=1, f1=[NAN]), both(NAN, first=2, f1=[NAN])
    assert broken(Severity.WARNING, first, then) == [["f1"], ["loss"]]
    assert broken(Severity.ERROR, first, then) == [["loss"]]
    assert broken(Severity.WARNING, both(NAN, first=1, f1=[NAN])) == [["loss"]]


# --- what a terminal is sent ----------------------------------------------------------------------------------


XTERM = {"TERM": "xterm-256color"}
WRAPPED = "\x1bPtmux;\x1b\x1b]9;cbmon: run4: NaN\x1b\x1b\\\x1b\\"


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        (XTERM, "\x1b]9;cbmon: run4: NaN\x1b\\"),
        ({"TERM": "xterm-kitty"}, "\x1b]9;cbmon: run4: NaN\x1b\\"),
        ({"TERM": "foot"}, "\x1b]777;notify;cbmon;run4: NaN\x1b\\"),
        ({"TERM": "rxvt-unicode-256color"}, "\x1b]777;notify;cbmon;run4: NaN\x1b\\"),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7600"}, "\x1b]777;notify;cbmon;run4: NaN\x1b\\"),
        ({"TERM": "tmux-256color"}, WRAPPED),
        ({"TERM": "screen-256color", "TMUX": "/tmp/tmux-0/default,1,0"}, WRAPPED),
        ({"TERM": "screen-256color"}, ""),
        ({"TERM": "linux"}, ""),
        ({"TERM": "dumb"}, ""),
        ({}, ""),
    ],
)
def test_notifications_by_terminal(environ: dict[str, str], sent: str) -> None:
    assert notification("run4: NaN", environ) == sent


def test_several_at_once_are_one_bell() -> None:
    sent: list[str] = []
    way = terminal_way(sent.append, XTERM)
    way([news()])
    way([news()] * 3)
    way([news()] * 40)
    assert [text.count("\a") for text in sent] == [1, 1, 1]
    assert [text.count("\x1b]9;") for text in sent] == [1, 3, 1]
    assert "cbmon: 40 alerts, the first: run4: NaN loss" in sent[2]


names = st.text(st.characters(codec=None) | st.sampled_from("\x1b\\\a\x07;\x9c\u202e\ud800"), max_size=200)


@given(names, st.sampled_from([XTERM, {"TERM": "foot"}, {"TERM": "tmux"}]), st.booleans())
def test_no_name_gets_out_of_a_notification(name: str, environ: dict[str, str], is_ascii: bool) -> None:
    sent: list[str] = []
    terminal_way(sent.append, environ, is_ascii=is_ascii)([news(name, run=name)])
    (text,) = sent
    assert is_control(text), "the screen's writer lets it pass as it is"
    assert text.count("\x1b") in (2, 6), "ours, and no other"
    assert len(text) < 10 * TEXT_MAX
    assert text.isascii() or not is_ascii


# --- a command ------------------------------------------------------------------------------------------------


SCRIPT = """
import os, sys, time
with open(sys.argv[1], "ab") as file:
    file.write(sys.stdin.buffer.read())
    file.write(repr((sys.argv[2:], os.getsid(0) == os.getpid())).encode() + b"\\n")
"""


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    assert condition()


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_the_command_gets_the_alert_as_json_and_nothing_in_its_arguments(tmp_path: Path) -> None:
    out, said = tmp_path / "out", list[str]()
    way = CommandWay(python(SCRIPT, str(out), "$HOME; {message}"), said.append)
    way([news("evil\x1b]0;title\a'; rm -rf /")])
    until(lambda: out.exists() and out.read_bytes().count(b"\n") == 2)
    way.close()
    document, rest = out.read_text().splitlines()
    assert json.loads(document) == {
        "version": 1, "run": "run4", "path": str(PATH), "attempt": 1, "epoch": 20, "severity": "error",
        "kind": "nan", "metric": "loss", "message": "evil\\x1b]0;title\\x07'; rm -rf /",
    }  # fmt: skip
    assert rest == "(['$HOME; {message}'], True)"
    assert not said


def test_commands_run_one_after_the_other(tmp_path: Path) -> None:
    code = (
        "import sys, os, time; d = sys.argv[1]; n = os.path.join(d, 'here');"
        "os.close(os.open(n, os.O_CREAT | os.O_EXCL)); time.sleep(0.05); os.unlink(n);"
        "open(os.path.join(d, 'done'), 'a').write('x')"
    )
    said: list[str] = []
    way = CommandWay(python(code, str(tmp_path)), said.append)
    way([news()] * 3)
    until(lambda: (tmp_path / "done").exists() and len((tmp_path / "done").read_text()) == 3)
    way.close()
    assert not said


@pytest.mark.parametrize(
    ("words", "trouble"),
    [
        (python("raise SystemExit(3)"), "ended with exit code 3"),
        (python("import os; os.kill(os.getpid(), 9)"), "ended with exit code -9"),
        (["/nonexistent/program"], "could not be run, No such file"),
        (["/"], "could not be run"),
    ],
)
def test_a_command_that_fails_is_a_line(words: list[str], trouble: str) -> None:
    said: list[str] = []
    way = CommandWay(words, said.append)
    way([news()])
    until(lambda: said)
    way([news()])
    until(lambda: len(said) == 2)
    way.close()
    assert trouble in said[0]


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"open({str(pid)!r}, 'w').write(str(c.pid) + '.'); time.sleep(60)"
    )
    said: list[str] = []
    way = CommandWay(python(code), said.append, limit_s=2.0)
    way([news()])
    until(lambda: said)
    way.close()
    assert "took longer than 2 s and was ended" in said[0]
    child = int(pid.read_text().rstrip("."))

    def is_gone() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{child}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"

    until(is_gone)


def test_too_many_alerts_are_left_out_and_said_once() -> None:
    said: list[str] = []
    way = CommandWay(python("import time; time.sleep(1)"), said.append)
    for _ in range(3):
        way([news()] * (QUEUE_MAX + 5))
    assert len(said) == 1
    assert "left out" in said[0]
    with way._waiting.mutex:
        way._waiting.queue.clear()
    way.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "give a command"), ("'x", "No closing quotation"), ("no-such-program-here", "no program")],
)
def test_a_command_that_cannot_be_is_said_at_once(text: str, words: str) -> None:
    with pytest.raises(BadCall, match=words):
        read_command(text)


def test_words_of_a_command_are_parted_without_a_shell() -> None:
    assert read_command("sh -c 'echo \"$HOME\"; ls' *.log") == ["sh", "-c", 'echo "$HOME"; ls', "*.log"]


# --- where they are sent from ---------------------------------------------------------------------------------


def write(path: Path, *events: Event) -> Path:
    with open(path, "ab") as file:
        for event in events:
            file.write(encode_line(event))  # type: ignore[arg-type]
    return path


def test_lines_send_word_of_what_is_new(tmp_path: Path) -> None:
    write(tmp_path / "old.jsonl", STARTED, epochs(1.0, NAN))
    path = write(tmp_path / "new.jsonl", STARTED, epochs(1.0))
    listener, follower, said = Listener(), Follower([str(tmp_path)]), list[str]()

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("watching"):
            write(path, epochs(NAN, first=1))
        elif "ERROR NaN" in line and "new" in line:
            follower.stop()

    follow(follower, say, None, lambda: 1.0, listener.word)
    assert listener.heard == ["nan"]
    assert [line for line in said if "ERROR NaN" in line and "old" in line], "lines tell it all the same"


async def test_the_screen_sends_word_of_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "old.jsonl", STARTED, epochs(1.0, NAN))
    path = write(tmp_path / "new.jsonl", STARTED, epochs(1.0))
    listener = Listener()
    app = WatchApp(Follower([str(tmp_path)]))
    app.word = listener.word
    app.notes = Notes()
    async with app.run_test(size=(100, 30)) as pilot:
        await app.first_read.wait()
        await pilot.pause()
        assert listener.heard == []
        write(path, epochs(NAN, first=1))
        ends = time.monotonic() + PATIENCE_S
        while not listener.heard and time.monotonic() < ends:
            await pilot.pause(0.02)
        assert listener.heard == ["nan"]
        app.notes("--on-alert: notify.sh ended with exit code 3")
        while time.monotonic() < ends and not any("notify.sh" in text for _, text in app._alert_lines()):
            await pilot.pause(0.02)
        assert any("notify.sh ended" in text for _, text in app._alert_lines())


def test_a_real_screen_rings_and_shows_the_same_picture(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    path = write(logs / "new.jsonl", STARTED, epochs(1.0, 0.5))
    out = tmp_path / "out"
    script = tmp_path / "hear.sh"
    script.write_text(f"#!/bin/sh\ncat >> {out}\necho noise; echo noise >&2\nexit 3\n")
    script.chmod(0o755)
    terminal = Terminal(tmp_path, "watch", "--notify", "--on-alert", str(script), "logs", TMUX="")
    try:
        terminal.shows(".5000 ★2")
        terminal.settle()
        before = len(terminal.output)
        write(path, epochs(NAN, first=2))
        terminal.shows("ended with exit code 3")
        terminal.settle()
        sent = terminal.output[before:]
        assert sent.count(b"\x1b]9;cbmon: new: NaN loss at epoch 3\x1b\\") == 1
        assert sent.count(b"\a") == 1
        assert not any("noise" in line for line in terminal.screen.display)
        assert json.loads(out.read_text())["kind"] == "nan"
        shown = list(terminal.screen.display)
        terminal.press(b"\x0c")  # draw anew
        terminal.settle()
        assert list(terminal.screen.display) == shown, (
            "what was sent beside the frames has not confused the writer"
        )
        terminal.press(b"q")
        assert terminal.end() == 0
    finally:
        terminal.close()
    assert b"--on-alert: hear.sh ended with exit code 3" in terminal.output.rpartition(b"\x1b[?1049l")[2]


def test_once_takes_no_word(tmp_path: Path) -> None:
    for flags in (["--notify"], ["--on-alert", "true"], ["--listen", "127.0.0.1:0"]):
        assert main(["watch", "--once", *flags, str(tmp_path)]) == 2
