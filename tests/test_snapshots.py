"""A few whole screens as SVG, compared to the byte: what no row-by-row test would notice.

After a wanted change look at the report that pytest names, and then:
`.venv/bin/python -m pytest tests/test_snapshots.py --snapshot-update`
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from cbmon.sources import Follower
from cbmon.tui.app import WatchApp
from tests.pictures import CLOCK, LARGE, SMALL, Picture, lay_out

SCREENS = {
    "runs-and-chart": Picture(("early-stop", "healthy", "nan", "overfitting"), SMALL, ("j",)),
    "event-read": Picture(("nan", "healthy"), SMALL, ("left_square_bracket",)),
    "two-marked": Picture(
        ("plateau", "overfitting", "early-stop", "healthy", "killed", "nan", "resumed"),
        LARGE,
        ("j", "space", "j", "j", "space"),
    ),
    "empty": Picture((), SMALL),
}


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", SCREENS)
def test_the_screen_looks_as_it_did(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snap_compare: object
) -> None:
    (tmp_path / "logs").mkdir()
    lay_out(SCREENS[name], tmp_path / "logs", CLOCK)
    monkeypatch.chdir(tmp_path)

    async def ready(pilot: Pilot[None]) -> None:
        assert isinstance(pilot.app, WatchApp)
        await pilot.app.first_read.wait()
        await pilot.press(*SCREENS[name].keys)
        await pilot.pause()

    app = WatchApp(Follower(["logs"], poll=True, now=lambda: CLOCK))
    assert callable(snap_compare)
    assert snap_compare(app, terminal_size=SCREENS[name].size, run_before=ready)
