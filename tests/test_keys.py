"""The keys stand in one table: bindings, footer and help agree with it."""

from collections import Counter

import pytest
from textual.binding import Binding

from cbmon.chart import MarkKind
from cbmon.frame import _SEVERITY, BEST_OF_ALL
from cbmon.tui.app import WatchApp
from cbmon.tui.keys import CONTROL, KEYS, footer_text, help_lines
from cbmon.tui.screens import LEGEND_COLUMNS, legend_lines
from cbmon.views import GLYPHS, NEEDS_YOU, ascii_only

PRESSABLE = [name for key in KEYS for name in key.keys.split(",")]


NAMES = {
    "?": "question_mark",
    "/": "slash",
    "[": "left_square_bracket",
    "]": "right_square_bracket",
    "Spc": "space",
    "Up": "up",
    "Down": "down",
}
"""How the footer writes a key, and what Textual calls it."""


def test_no_key_does_two_things() -> None:
    assert [name for name, times in Counter(PRESSABLE).items() if times > 1] == []


def test_the_bindings_are_the_table() -> None:
    bound = [(binding.key, binding.action) for binding in WatchApp.BINDINGS if isinstance(binding, Binding)]
    own = [key for key in KEYS if key.action != "command_palette"]  # Textual binds that one
    assert bound == [(name, key.action) for key in own for name in key.keys.split(",")]
    assert WatchApp.COMMAND_PALETTE_BINDING in PRESSABLE


def test_what_opens_something_is_bound_before_the_keys_behind_it() -> None:
    first = {
        binding.key for binding in WatchApp.BINDINGS if isinstance(binding, Binding) and binding.priority
    }
    assert first == {"ctrl+c", *(name for key in KEYS if key.opens for name in key.keys.split(","))}


def test_every_action_exists() -> None:
    for key in KEYS:
        assert hasattr(WatchApp, f"action_{key.action.partition('(')[0]}"), key


@pytest.mark.parametrize("ascii", [False, True])
def test_footer_and_help_come_from_the_table(ascii: bool) -> None:
    footer, lines = footer_text(ascii=ascii), help_lines(ascii=ascii)
    described = [key for key in KEYS if key.description]
    assert all(line.endswith(key.description) for line, key in zip(lines, described, strict=True))
    hints = [key.ascii_hint if ascii and key.ascii_hint else key.hint for key in KEYS]
    assert footer.split("  ") == [hint for hint in hints if hint]


@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("is_page", [False, True])
def test_in_80_columns_the_footer_has_what_if_and_help(ascii: bool, is_page: bool) -> None:
    footer = footer_text(ascii=ascii, is_page=is_page, width=78)
    assert len(footer) <= 78
    assert "  w what-if  ? help  q quit" in footer
    assert footer_text(ascii=ascii, is_page=is_page, width=1) == "? help  q quit"


@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("is_page", [False, True])
def test_in_80_columns_the_footer_has_all_that_is_asked_of_a_training(ascii: bool, is_page: bool) -> None:
    hints = footer_text(ascii=ascii, is_page=is_page, width=78).split("  ")
    assert [key.hint for key in KEYS if key.action in CONTROL] == ["L lr", "S save", "X stop"]
    assert {"L lr", "S save", "X stop"} <= {*hints}
    without = footer_text(ascii=ascii, width=78, keys=[key for key in KEYS if key.action not in CONTROL])
    assert "/ filter" in without, "it gives way only to these"


@pytest.mark.parametrize("is_page", [False, True])
def test_what_the_footer_names_can_be_pressed(is_page: bool) -> None:
    for hint in footer_text(ascii=True, is_page=is_page).split("  "):
        for name in hint.split()[:-1]:
            assert NAMES.get(name, name) in PRESSABLE, hint


def test_footer_and_help_fit_a_screen_of_80_by_24_and_are_ascii_where_asked() -> None:
    assert all(len(footer_text(ascii=ascii, width=78, is_page=True)) <= 78 for ascii in (False, True))
    assert len(footer_text(ascii=False, width=78)) <= 78
    assert max(map(len, help_lines(ascii=False))) <= 70
    assert all(text.isascii() for text in [footer_text(ascii=True), *help_lines(ascii=True)])


def test_the_legend_has_every_glyph_in_few_lines_that_fit_80_columns() -> None:
    lines = legend_lines()
    told = {word[0] for line in lines for word in line.split()}
    signs = {sign for sign, _ in _SEVERITY.values()}
    assert {*GLYPHS.values(), *(kind.glyph for kind in MarkKind), *signs, NEEDS_YOU, BEST_OF_ALL, "▸"} <= told
    assert max(map(len, lines)) <= LEGEND_COLUMNS
    assert len(lines) <= 6, "more would hide the keys below them"
    assert all(ascii_only(line).isascii() for line in lines)
