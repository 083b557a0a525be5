"""The machines against 1,180 recorded decisions of the real callbacks (five versions, TensorFlow backend)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cbmon.policies import (
    EarlyStopping,
    ModelCheckpoint,
    ReduceLROnPlateau,
    float32,
)
from cbmon.profiles import PROFILES, Profile, find_profile

FOLDER = Path(__file__).parent / "golden"
FILES = {path.stem: find_profile(path.stem.rsplit("_", 1)[1])[0] for path in sorted(FOLDER.glob("*.json"))}


def decode(value: Any) -> Any:
    """`null` stays absent, "NaN" and "Infinity" are numbers."""
    return float(value) if isinstance(value, str) else value


def same(ours: float | None, theirs: float | None) -> bool:
    """Equal, NaN to NaN; Keras' ±inf before anything was seen counts as such."""
    return repr(ours) == repr(None if theirs is None else float(theirs))


def check(case: dict[str, Any], profile: Profile) -> None:
    values, expected = [decode(value) for value in case["values"]], case["expect"]
    where = f"{profile.name}: {case}"
    best = decode(expected["best"])
    if case["cb"] == "EarlyStopping":
        stopping = EarlyStopping(mode=case["mode"], **case["args"])
        state = stopping.begin(profile)
        seen = []
        for epoch, value in enumerate(values):
            state, stops = stopping.step(state, epoch, value, profile)
            seen.append([state.wait, stops])
            if stops:
                break
        assert seen == expected["wait_stop"], where
        assert len(seen) == expected["epochs_run"], where
        assert (state.stopped_epoch or 0) == expected["stopped_epoch"], where
        assert same(state.best, best), where
        assert (state.best_epoch or 0) == expected["best_epoch"], where
        assert stopping.restored_epoch(state, profile) == expected["restored_epoch"], where
    elif case["cb"] == "ReduceLROnPlateau":
        plateau = ReduceLROnPlateau(mode=case["mode"], **case["args"])
        reducing = plateau.begin(profile)
        rate, rows = float32(case["lr0"]), []
        for epoch, value in enumerate(values):
            logged = rate
            reducing, cut = plateau.step(reducing, epoch, value, rate, profile)
            if cut:
                assert cut.learning_rate is not None
                rate = float32(cut.learning_rate)
            rows.append([logged, rate, reducing.wait, reducing.cooldown])
        assert rows == expected["logged_after_wait_cooldown"], where
        assert same(reducing.best, best), where
    else:
        checkpoint = ModelCheckpoint("m.keras", mode=case["mode"], **case["args"])
        saving = checkpoint.begin(profile)
        saved = []
        for epoch, value in enumerate(values):
            saving, saves = checkpoint.step(saving, epoch, value, profile)
            saved += [epoch] * saves
        assert saved == expected["saved_epochs"], where
        assert same(saving.best, best), where


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_decision_of_the_real_callbacks_is_ours(name: str) -> None:
    cases = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    assert len(cases) == 236
    for case in cases:
        check(case, FILES[name])


def test_the_five_recorded_versions_are_five_different_profiles() -> None:
    assert [profile.name for profile in FILES.values()] == ["3.10", "3.12", "3.15", "3.6", "2"]
    assert all(profile is PROFILES[profile.name] for profile in FILES.values())
