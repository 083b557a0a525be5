"""`cbmon replay --html`: one file that opens offline, in which no name of a log is more than a name."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from array import array
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbmon.cli import main
from cbmon.profiles import PROFILES
from cbmon.replay import replay_page as pages
from cbmon.replay.calls import parse_calls
from cbmon.replay.cases import Case
from cbmon.replay.replay_page import replay_page
from cbmon.replay.results import Replay
from cbmon.replay.webpage import MARKER, heat_map, page, section, table, text, words_list
from cbmon.run import Attempt
from cbmon.series import Column

NAN, INF = math.nan, math.inf
FALLING: list[float | None] = [1.0, 0.8, 0.7, 0.75, 0.76, 0.77, 0.6]
HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "</style><script>alert(1)</script>",
    "\"><svg onload='x'>",
    "a&amp;b&#60;",
    "\u202eevil\u2066",
    "\x1b]0;title\x07\x00",
    "\ud800lone",
    "]]><!-- --><![CDATA[",
    "https://example.org/x.js",
]
TAGS = (
    "html head meta title style body main h1 h2 h3 p section figure figcaption svg desc line text tspan path "
    "circle rect div table caption thead tbody tr th td dl dt dd ul li details summary pre code footer"
)
ATTRIBUTES = (
    "lang charset http-equiv content name class viewbox role x x1 x2 y y1 y2 d cx cy r width height "
    "text-anchor transform fill-opacity"
)


class Reader(HTMLParser):
    """What a browser would see: tags, attributes, words, and whether all is closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def attempt(rates: list[float | None] | None = None, **columns: list[float | None]) -> Attempt:
    found = Attempt(epochs=array("q", range(max(map(len, columns.values())))))
    for name, column in columns.items():
        found.columns[name] = Column()
        found.columns[name].extend(column)
    if rates:
        found.rate.extend(rates)
    return found


def written(recording: Attempt, *texts: str, log: str = "training.log", variant: str = "list") -> str:
    profile = PROFILES["3.15"]
    replays: list[Replay] = []
    cases = []
    for number, each in enumerate(texts, 1):
        case = Case(recording=recording, calls=tuple(parse_calls(each, profile)), profile=profile)
        cases.append(case)
        replays.append(replace(case.answer(), log=log, variant=f"{variant} {number}"))
    return replay_page(replays, cases, profile)


def check(source: str) -> Reader:
    """Only what we write ourselves, nothing from elsewhere, all closed."""
    assert source.startswith(MARKER)
    found = Reader(source)
    assert found.open == []
    assert found.tags <= set(TAGS.split())
    assert found.attributes <= set(ATTRIBUTES.split())
    assert "://" not in re.sub(r">[^<]*<", "><", source), "an address may be a word, never a resource"
    assert not re.search(r"url\(|@import|src=|href=", re.sub(r">[^<]*<", "><", source))
    for svg in re.findall(r"<svg.*?</svg>", source, re.DOTALL):
        ET.fromstring(svg)
    return found


def test_the_page_says_what_the_table_says_and_draws_it() -> None:
    rates: list[float | None] = [0.1] * 7
    source = written(
        attempt(rates, loss=FALLING, val_loss=FALLING),
        "EarlyStopping(patience=2); ModelCheckpoint('m-{epoch}.keras', save_best_only=True)",
        "ReduceLROnPlateau(patience=2)",
    )
    words = " ".join(check(source).words)
    for told in (
        "as Keras 3.15",
        "stops after epoch 5",
        "cuts ×0.1 after epoch",
        "Why after epoch 5?",
        "patience ≥ 3 would have gone on",
        'keras.callbacks.ReduceLROnPlateau(monitor="val_loss", patience=2, mode="min")',
        "Learning rate in each epoch",
        "epoch 3: val_loss .7000, loss .7000",
    ):
        assert told in words
    assert source.count('class="mark mstop"') == 1
    assert source.count('class="mark mlr"') == 1
    assert source.count('class="mark mbest"') == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_only_a_name(name: str) -> None:
    recording = attempt([0.1] * 7, **{name: FALLING, f"val_{name}": FALLING})
    call = f"EarlyStopping(monitor={'val_' + name!r}, mode='min', patience=1); ReduceLROnPlateau(patience=1)"
    source = written(recording, call, call, log=f"logs/{name}.csv", variant=name)
    found = check(source)
    assert all(word.translate({10: None, 0x2003: None}).isprintable() for word in found.words)
    source.encode()


names = st.text(st.characters(codec=None), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(names, names, st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=12))
def test_any_name_and_any_values_give_a_sound_page(name: str, log: str, values: list[float | None]) -> None:
    check(
        written(attempt(None, **{name: values, "loss": values}), "EarlyStopping('loss', patience=2)", log=log)
    )


@pytest.mark.parametrize(
    "values", [[1.0], [None, None, None], [NAN] * 4, [INF, -INF, NAN, None, 1e308, -1e308]]
)
def test_logs_that_can_hardly_be_drawn_still_have_a_page(values: list[float | None]) -> None:
    assert "EarlyStopping" in written(attempt(val_loss=values), "EarlyStopping(patience=1)")


def test_what_keras_refuses_is_told_in_place_of_the_decisions() -> None:
    source = written(attempt(val_loss=FALLING), "ReduceLROnPlateau(factor=2)", "EarlyStopping(patience=1)")
    words = " ".join(check(source).words)
    assert "No answer" in words
    assert "factor &gt;= 1.0" in source


def test_a_long_log_stays_a_small_file_and_keeps_its_extremes() -> None:
    values: list[float | None] = [0.5 + 0.1 * math.sin(row) for row in range(30_000)]
    values[12_345] = 9.0
    source = written(attempt(val_loss=values), "EarlyStopping(patience=40)")
    assert len(source) < 400_000
    top = min(float(y) for y in re.findall(r"L[\d.]+ ([\d.]+)", source))
    assert top < 60, "the one high value is drawn"


def test_only_so_many_attempts_have_a_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "CHARTS_MAX", 2)
    profile = PROFILES["3.15"]
    cases = [
        Case(
            recording=attempt(val_loss=FALLING),
            calls=tuple(parse_calls("EarlyStopping()", profile)),
            profile=profile,
        )
        for _ in range(5)
    ]
    replays = [replace(case.answer(), log=f"{number}.csv") for number, case in enumerate(cases)]
    source = replay_page(replays, cases, profile)
    assert source.count("<svg") == 2
    assert "3 more attempts in the table above" in source
    assert "4.csv" in source


def test_sections_are_made_of_any_table() -> None:
    rows = [["policy", "saved"], ["patience <3>", "10 %"], ["patience & more", "–"]]
    source = page(
        "A sweep", [section("Policies <1>", table(rows, ["policy"], "Best first"), words_list(["a<b"]))]
    )
    found = check(source)
    assert "patience <3>" in found.words
    assert "a<b" in found.words
    assert '<th>policy</th><th class="n">saved</th>' in source
    assert table([]) == words_list([]) == ""


def test_a_map_tells_each_value_and_crosses_out_what_harms() -> None:
    source = heat_map(
        [[0.0, 0.5], [1.0, None], [NAN, 2.0]], ["1", "<2>"], ["a", "b", "c"], titles=("patience", "min_delta"),
        crossed=[[False, True], [False, False], [False, False]], caption="Share of epochs saved",
    )  # fmt: skip
    found = check(page("A sweep", [source]))
    assert "patience <2>, min_delta a: 0.5, crossed out" in found.words
    assert "patience <2>, min_delta b: –" in found.words
    assert source.count('class="cross"') == 1
    assert re.findall(r'fill-opacity="([\d.]+)"', source) == ["0.080", "0.310", "0.540", "1.000"]
    assert heat_map([], [], [], titles=("", "")) == ""


def test_text_is_escaped_and_printable() -> None:
    assert text("<b>\x1b'\"&\u202e") == "&lt;b&gt;\\x1b&#x27;&quot;&amp;\\u202e"


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text("epoch,val_loss\n" + "".join(f"{epoch},{value}\n" for epoch, value in enumerate(FALLING)))
    return path


def test_html_writes_a_report_beside_the_answer_and_replaces_only_a_report(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.html"
    for patience in (1, 2):
        arguments = ["-c", f"EarlyStopping(patience={patience})", "--html", str(target), "--keras", "3.15"]
        assert main(["replay", str(log), *arguments]) == 0
        out, err = capsys.readouterr()
        assert "stops after epoch" in out
        assert err == f"cbmon: report written to {target}\n"
        check(target.read_text())
        assert f"patience={patience}" in target.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "report.html"], (
        "no file of ours stays"
    )


def test_html_never_overwrites_what_is_no_report(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = log.read_bytes()
    for target, words in (
        (log, "not overwritten"),
        (tmp_path, "directory"),
        (tmp_path / "no" / "a.html", "no folder"),
    ):
        assert main(["replay", str(log), "-c", "EarlyStopping()", "--html", str(target)]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert words in err
    assert log.read_bytes() == before


def test_json_and_html_come_together(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.html"
    assert main(["replay", str(log), "-c", "EarlyStopping()", "--html", str(target), "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")
    assert target.exists()
