"""`cbmon demo`: two real trainings, watched in lines; and one clear sentence where Keras is missing."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from cbmon.cli import main
from cbmon.events import EpochsEnded, Malformed, RunEnded, decode_line

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 300.0
"""The demo takes half a minute on two cores; importing Keras on a cold disk as long again."""


def cbmon(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TZ": "UTC", "LANG": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-m", "cbmon", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
    )


def test_the_demo_trains_one_run_that_stops_early_and_one_that_diverges(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="the demo trains with Keras")
    process = cbmon("demo", "--plain", "runs", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert process.stderr.splitlines()[-1] == (
        "cbmon: the records stay in runs; look again with: cbmon watch runs"
    )

    lines = process.stdout.splitlines()
    assert lines[0] == "watching 0 runs"
    plateau = [line.partition(" plateau ")[2] for line in lines if " plateau " in line]
    too_fast = [line.partition(" too-fast ")[2] for line in lines if " too-fast " in line]
    assert len(plateau) + len(too_fast) == len(lines) - 1
    assert next(line for line in plateau if line != "running").startswith(
        "epoch 1/80 loss "
    )  # seen before it has any
    assert any(line.startswith("learning rate 0.1 → 0.02 at epoch ") for line in plateau)
    assert plateau[-1].startswith("stopped by EarlyStopping after epoch ")
    assert any(re.match("ERROR .* loss (at|within) epoch ", line) for line in too_fast)

    ends = {}
    for name in ("plateau", "too-fast"):
        events = [
            decode_line(line) for line in (tmp_path / "runs" / f"{name}.jsonl").read_bytes().splitlines()
        ]
        assert not [event for event in events if isinstance(event, Malformed)]
        told = sum(line.startswith("epoch ") for line in (plateau if name == "plateau" else too_fast))
        assert 0 < told <= sum(isinstance(event, EpochsEnded) for event in events)
        assert isinstance(events[-1], RunEnded)
        ends[name] = (events[-1].how, events[-1].by)
    assert ends == {"plateau": ("stopped", ["EarlyStopping"]), "too-fast": ("stopped", ["TerminateOnNaN"])}

    shown = cbmon("show", "--json", "--check", "runs", folder=tmp_path)
    assert shown.returncode == 1
    runs = json.loads(shown.stdout)["runs"]
    assert {run["name"]: run["status"] for run in runs} == {"plateau": "stopped", "too-fast": "stopped"}
    rates = {run["name"]: run["attempts"][0]["learning_rate"] for run in runs}
    assert rates["plateau"] < 0.1 < rates["too-fast"]


def test_without_keras_the_demo_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec

    def without_keras(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "keras" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_keras)
    assert main(["demo", str(tmp_path / "runs")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cbmon: the demo trains a Keras model and there is no Keras here: pip install ")
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
