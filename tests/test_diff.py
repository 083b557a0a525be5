"""The law of the diff: a terminal fed the frames and one fed what they were reduced to show the same."""

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style as RichStyle
from rich.text import Text
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.driver import Driver
from textual.events import Resize
from textual.geometry import Size
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widgets import (
    Button,
    DataTable,
    Digits,
    Footer,
    Header,
    Input,
    OptionList,
    ProgressBar,
    Sparkline,
    Static,
    TextArea,
)

from cbmon.tui import diff
from cbmon.tui.diff import OFF, PLAIN, FrameDiff, Style, is_control
from tests.judge import Judge

HOME = "\x1b[1;1H"
E_ACUTE = "e\u0301"
FAMILY = "\U0001f469\u200d\U0001f52c"
"""One character of three, joined: two columns, as Textual measures."""


def frame(*pieces: str) -> str:
    """What Textual's compositor would write."""
    return "".join(pieces) + HOME


def at(y: int, x: int, text: str = "") -> str:
    return f"\x1b[{y + 1};{x + 1}H{text}"


def red(text: str) -> str:
    return f"\x1b[31m{text}\x1b[0m"


def screen(text: str = "", width: int = 12, height: int = 4) -> FrameDiff:
    """A diff that knows a screen of blanks, with a text at its start."""
    known = FrameDiff(width, height)
    known.reduce(frame(*(at(y, 0, " " * width) for y in range(height)), at(0, 0, text)))
    return known


# --- what is written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected", "sentence"),
    [
        ("abc", at(0, 0, "abc"), "", "what is there is not written again"),
        ("abc", at(0, 0, "axc"), "\x1b[1;2Hx\x1b[H", "only the cell that changed"),
        ("abcdefg", at(0, 0, "xbcdefx"), "\x1b[Hx\x1b[5Cx\x1b[H", "a jump to the right on the same row"),
        ("abc", at(0, 0, "xbx"), "\x1b[Hxbx\x1b[H", "one letter is shorter than a jump"),
        (f"a{red('b')}c", at(0, 0, f"x{red('b')}x"), "\x1b[Hx\x1b[Cx\x1b[H", "but not one in another colour"),
        ("a⣿c", at(0, 0, "x⣿x"), "\x1b[Hx⣿x\x1b[H", "a braille letter is three bytes, as is the jump"),
        ("a⣿⣿c", at(0, 0, "x⣿⣿x"), "\x1b[Hx\x1b[2Cx\x1b[H", "two of them are more"),
        ("", at(2, 0, "x") + "\n" + at(3, 4, "y"), "\x1b[3Hx\x1b[4;5Hy\x1b[H", "absolute on another row"),
        ("", at(0, 0, red("ab")), "\x1b[H\x1b[31mab\x1b[m\x1b[H", "colours end with the frame"),
        ("日本", at(0, 0, "日語"), "\x1b[1;3H語\x1b[H", "a wide character is two columns"),
        ("日本", at(0, 0, "a 本"), "\x1b[Ha \x1b[H", "one that goes takes both its columns along"),
        ("a 本", at(0, 0, "日本"), "\x1b[H日\x1b[H", "and one that comes"),
        (E_ACUTE, at(0, 0, "e"), "\x1b[He\x1b[H", "what combined is gone"),
        ("eb", at(0, 0, E_ACUTE + "c"), f"\x1b[H{E_ACUTE}\x1b[1;2Hc\x1b[H", "no trust in a column after it"),
        (red("a b"), at(0, 0, f"{red('a')} {red('b')}"), "", "on a blank no colour of letters is seen"),
        (
            "",
            at(0, 0, "\x1b[4m \x1b[0m"),
            "\x1b[H\x1b[4m \x1b[m\x1b[H",
            "a line below it is",
        ),
        (
            "",
            at(0, 0, f"{red('a')}b{red('c')}d{red('e')}"),
            "\x1b[1;2Hb\x1b[Cd\x1b[H\x1b[31ma\x1b[Cc\x1b[Ce\x1b[m\x1b[H",
            "one colour after the other: jumps are shorter than changes of colour",
        ),
        (
            FAMILY + "x",
            at(0, 0, FAMILY + "y"),
            "\x1b[1;3Hy\x1b[H",
            "a joined character is one of two columns",
        ),
    ],
)
def test_what_is_written(before: str, after: str, expected: str, sentence: str) -> None:
    known = screen(before)
    assert known.reduce(frame(after)) == expected, sentence
    assert known.reduce(frame(after)) == "", sentence
    assert known.passed == 0, sentence


def test_another_cursor_position_is_a_change() -> None:
    known = screen()
    assert known.reduce(at(1, 4)) == "\x1b[2;5H"
    assert known.reduce(at(1, 4)) == ""


@pytest.mark.parametrize("text", ["\x07", "\x1b[?25l", "\x1b]2;a title\x07", "\x1b[>25u\x1b[<u", "\x1b[?2026$p",
                                  "\x1b]9;done\x1b\\", "\x1bPtmux;\x1b\x1b]9;done\x07\x1b\\"])  # fmt: skip
def test_control_text_passes_and_forgets_nothing(text: str) -> None:
    known = screen("abc")
    assert is_control(text)
    assert known.reduce(text) == text
    assert known.reduce(frame(at(0, 0, "abc"))) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lines\n",
        frame(at(0, 0, "\x1b]8;id=1;https://example.org\x1b\\a link\x1b]8;;\x1b\\")),
        frame(at(0, 0, "\x1b[2K")),
        frame(at(0, 0, "a\tb")),
        frame(at(0, 0, "a\rb")),
        frame(at(0, 0, "a\x9bb")),
        frame(at(0, 0, "a\udc80b")),
        frame(at(0, 0, "\u0301")),
        frame(at(0, 10, "abc")),
        frame(at(0, 11, "日")),
        frame(at(4, 0, "a")),
        frame(at(0, 12, "a")),
        frame(at(3, 0, "a\n")),
        frame("\x1b[5Ha"),
        frame(at(0, 0, "\x1b[4:3mcurly\x1b[0m")),
        frame(at(0, 0, "\x1b[58;5;1mx\x1b[0m")),
        frame(at(0, 0, "\x1b[38;5mx\x1b[0m")),
        frame(at(0, 0, "\x1b[38;7;1mx\x1b[0m")),
        at(0, 0, "no cursor position at the end"),
        at(0, 0, "\x1b[31mnever reset") + HOME,
        "\x1b[?1049h",
    ],
)
def test_what_is_not_understood_passes_unchanged_and_all_is_forgotten(text: str) -> None:
    known = screen("abc")
    assert known.reduce(text) == text
    assert known.reduce(frame(at(0, 0, "abc"))) == "\x1b[m\x1b[Habc\x1b[H"


def test_after_forgetting_a_frame_writes_all_it_touches() -> None:
    known = screen("abc")
    known.forget()
    assert known.reduce(frame(at(0, 0, "abc"))) == "\x1b[m\x1b[Habc\x1b[H"
    known.resize(20, 5)
    assert known.reduce(frame(at(0, 0, "abc"))) == "\x1b[m\x1b[Habc\x1b[H"


def test_half_of_a_wide_character_written_over_leaves_the_other_half_unknown() -> None:
    known = screen("日")
    assert known.reduce(frame(at(0, 1, "x"))) == "\x1b[1;2Hx\x1b[H"
    assert known.reduce(frame(at(0, 0, " x"))) == "\x1b[H \x1b[H"
    assert known.passed == 0


def test_without_a_size_everything_passes() -> None:
    text = frame(at(0, 0, "abc"))
    assert FrameDiff().reduce(text) == text


# --- the law ------------------------------------------------------------------------------------------------

COLORS = st.sampled_from([None, "default", "red", "bright_green", "color(200)", "#102030", "#a0b0c0"])
ATTRIBUTES = ("bold", "dim", "italic", "underline", "reverse", "strike")
STYLES = st.builds(
    RichStyle,
    color=COLORS,
    bgcolor=COLORS,
    **{name: st.sampled_from([None, False, True]) for name in ATTRIBUTES},  # type: ignore[arg-type]
)
SIZES = st.tuples(st.sampled_from([12, 13, 14, 11, 1]), st.sampled_from([4, 5, 6, 3, 1]))
CHARACTERS = ["a", "b", " ", "│", "⣿", "é", E_ACUTE, "日", "本", "🙂", "日\u0308"]
TEXTS = st.lists(st.sampled_from(CHARACTERS), max_size=5).map("".join)
ODD = st.sampled_from(
    ["\u0301x", "\t", "\x1b[1K", "\x1b]8;;x\x1b\\y\x1b]8;;\x1b\\", "a\r", "\x1b[53mx\x1b[0m"]
)


@st.composite
def spans(draw: st.DrawFn) -> str:
    """A part of a row, as the compositor writes it: a position, then pieces with their colours."""
    pieces = [draw(STYLES).render(text) for text in draw(st.lists(TEXTS, max_size=3))]
    odd = draw(ODD) if draw(st.integers(0, 39)) == 39 else ""
    x = draw(st.integers(0, 11))
    while x and x + cell_len("".join(re.split(r"\x1b\[[0-9;]*m", "".join(pieces)))) > 12:
        x -= 1
    return at(draw(st.integers(0, 3)), x, "".join(pieces) + odd)


@st.composite
def frames(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(["", "\n"])).join(sorted(draw(st.lists(spans(), max_size=5))))
    return text + at(draw(st.integers(0, 1)), draw(st.integers(0, 1)))


def same(steps: list[str | tuple[int, int]], size: tuple[int, int]) -> FrameDiff:
    """Feed frames and sizes to two terminals, one of them through a diff, and compare them after each."""
    reduced, raw, seen = FrameDiff(*size), Judge(*size), Judge(*size)
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            reduced.resize(*step)
            for judge in (raw, seen):
                judge.resize(columns=step[0], lines=step[1])
        else:
            passed = reduced.passed
            raw.write(step)
            seen.write(reduced.reduce(step))
            assert seen.cells == raw.cells, number
            assert seen.state == raw.state, number
            assert reduced.passed > passed or is_control(step) or reduced.reduce(step) == "", number
    return reduced


@given(st.lists(st.one_of(frames(), frames(), frames(), SIZES), max_size=8), SIZES)
@example([frame(at(0, 0, "日")), frame(at(0, 1, "本"), at(0, 1, "x")), frame(at(0, 0, "ab"))], (4, 1))
def test_a_terminal_shows_the_same_with_the_diff(
    steps: list[str | tuple[int, int]], size: tuple[int, int]
) -> None:
    same(steps, size)


@given(st.lists(st.tuples(spans(), st.booleans()), min_size=1, max_size=30))
def test_a_terminal_shows_the_same_with_the_diff_of_many_small_frames(parts: list[tuple[str, bool]]) -> None:
    same([frame(span) if is_alone else frame(span, span) for span, is_alone in parts], (12, 5))


@st.composite
def whole_rows(draw: st.DrawFn) -> str:
    """Rows from edge to edge, most of them of narrow characters, as in a first frame."""
    rows = []
    for y in range(draw(st.integers(1, 4))):
        narrow = st.lists(st.sampled_from("ab │⣿é"), min_size=12, max_size=12)
        cells = draw(st.one_of(narrow, narrow, st.just([*"ab cd日", *"e  f"])))
        ends = [0, *sorted(draw(st.lists(st.integers(0, 12), max_size=5))), 12]
        pieces = (draw(STYLES).render("".join(cells[start:end])) for start, end in pairwise(ends))
        rows.append(at(y, 0, "".join(pieces)))
    return frame(*rows)


@given(st.lists(st.one_of(whole_rows(), frames()), min_size=1, max_size=4))
@example([frame(at(0, 0, "\x1b[4;41m  a  \x1b[0m  \x1b[31mb c\x1b[0m  "))])
def test_a_terminal_shows_the_same_of_rows_from_edge_to_edge(steps: list[str]) -> None:
    same([*steps], (12, 5))


CODES = st.builds(
    Style,
    st.frozensets(st.sampled_from(sorted(OFF))),
    st.sampled_from(["", "31", "92", "38;5;200", "38;2;1;2;3"]),
    st.sampled_from(["", "41", "102", "48;5;200", "48;2;1;2;3"]),
)


@given(CODES, CODES)
def test_every_change_of_colours_arrives_where_it_should(old: Style, new: Style) -> None:
    assume(old != new)
    sequence = diff._change(old, new)
    codes = re.fullmatch(r"\x1b\[(.*)m", sequence)[1].split(";")  # type: ignore[index]
    attributes, colors = set(old.attributes), {"3": old.foreground, "4": old.background}
    while codes:
        code = codes.pop(0)
        if code in ("38", "48"):
            count = {"5": 2, "2": 4}[codes[0]]
            colors[code[0]] = ";".join([code, *codes[:count]])
            del codes[:count]
        elif code == "":
            attributes, colors = set(), {"3": "", "4": ""}
        elif code in OFF:
            attributes.add(code)
        elif code in OFF.values():
            attributes -= {each for each in attributes if OFF[each] == code}
        elif code in ("39", "49"):
            colors[code[0]] = ""
        else:
            colors["3" if code[0] in "39" else "4"] = code
    assert (attributes, colors["3"], colors["4"]) == (set(new.attributes), new.foreground, new.background)


@given(CODES)
def test_a_style_is_read_as_it_was_written(style: Style) -> None:
    assert diff._styled(PLAIN, diff._change(PLAIN, style)[2:-1]) == style


# --- what Textual really writes -----------------------------------------------------------------------------


class Recorder(Driver):
    """Keeps what an app writes; its terminal has the size it is told."""

    steps: list[str | tuple[int, int]]

    def write(self, data: str) -> None:
        self.steps.append(data)

    def resize(self, width: int, height: int) -> None:
        self.steps.append((width, height))
        self.send_message(Resize(Size(width, height), Size(width, height)))

    def start_application_mode(self) -> None:
        self.steps = []
        self._loop.call_soon(self.resize, 80, 24)

    def disable_input(self) -> None: ...

    def stop_application_mode(self) -> None: ...


class Question(ModalScreen[None]):
    DEFAULT_CSS = "Question { align: center middle; } Question Static { width: 30; height: auto; }"
    BINDINGS = [("escape", "dismiss", "close")]  # noqa: RUF012  # as Textual writes it

    def compose(self) -> ComposeResult:
        yield Static("really? 本当に?", classes="box")
        yield Button("yes")


class Zoo(App[None]):
    """Widgets of all kinds."""

    BINDINGS = [("f2", "ask", "ask"), ("f3", "theme", "theme")]  # noqa: RUF012  # as Textual writes it

    def __init__(self, *, more: str | Text = "", **options: Any) -> None:
        super().__init__(driver_class=Recorder, **options)
        self.animation_level = "none"
        self.more = more

    def compose(self) -> ComposeResult:
        yield Header()
        with VerticalScroll():
            yield DataTable()
            yield Static(
                "[b]bold[/b] [dim]dim[/dim] [i]italic[/i] [u]under[/u] [s]strike[/s] [reverse]reverse"
            )
            yield Static(
                f"日本語 🙂 {E_ACUTE} ⣿⣀ wide [red]red[/] [on #203040]blue[/] [ansi_bright_green]green[/]"
            )
            yield Static(self.more)
            yield Input("日本語 text")
            yield Sparkline([1, 2, 3, 5, 8, 5, 3])
            yield Digits("12:34")
            yield ProgressBar(total=10)
            yield OptionList("one", "two", "三")
            yield TextArea("some\ntext 日本\n")
        yield Footer()

    def on_mount(self) -> None:
        table = self.query_one(DataTable[str])
        table.add_columns("epoch", "損失", "val_loss")
        table.add_rows([str(row), f"{row / 7:.3f}", f"日{row}"] for row in range(9))

    def action_ask(self) -> None:
        self.push_screen(Question())

    def action_theme(self) -> None:
        self.theme = "textual-light" if self.theme != "textual-light" else "ansi-dark"


async def play(pilot: Pilot[None]) -> None:
    app = pilot.app
    driver = app._driver
    assert isinstance(driver, Recorder)
    app.query_one(DataTable[str]).update_cell_at((2, 1), "本")
    await pilot.press("down", "down", "tab", "home", "a", "right", "語", "delete", "f2")
    await pilot.press("tab", "escape", "tab", "down", "f3", "tab", "b", "enter", "f3", "shift+tab")
    driver.resize(50, 15)
    await pilot.pause(0.05)  # Textual waits 1/120 s for more sizes
    app.query_one(VerticalScroll).scroll_end(animate=False)
    await pilot.press("f2", "escape")
    app.query_one(ProgressBar).advance(3)
    app.notify("a toast")
    await pilot.pause()
    driver.resize(90, 30)
    await pilot.pause(0.05)
    app.refresh()
    await pilot.pause()
    app.exit()


async def steps_of(app: Zoo, monkeypatch: pytest.MonkeyPatch, script: Any) -> list[str | tuple[int, int]]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    await app.run_async(size=(80, 24), auto_pilot=script)
    assert isinstance(app._driver, Recorder)
    return app._driver.steps


@pytest.mark.parametrize("is_ansi", [False, True])
async def test_the_frames_of_textual_are_understood_and_show_the_same(
    is_ansi: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = await steps_of(Zoo(ansi_color=is_ansi), monkeypatch, play)
    assert len(steps) > 25
    known = same(steps, (80, 24))
    assert known.passed == 0, "Textual writes something in its frames that cbmon/tui/diff.py does not model"


async def test_a_frame_with_a_link_is_passed_and_shows_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def shortly(pilot: Pilot[None]) -> None:
        await pilot.press("down", "f2", "escape")
        pilot.app.exit()

    app = Zoo(more=Text("a link", RichStyle(link="https://example.org")))
    assert same(await steps_of(app, monkeypatch, shortly), (80, 24)).passed > 0
