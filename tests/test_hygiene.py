"""What a clean interpreter loads for each command, and what reaches stdout: subprocesses, nothing mocked."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = (
    60.0  # an import of TensorFlow on a slow disk ends within it; a command that waits for ever does not
)

SCREEN = ("textual", "rich")
FRAMES = ("polars", "numpy")
TRAINING = ("keras", "tf_keras", "tensorflow", "torch", "jax")
HEADLESS = (*SCREEN, *FRAMES, *TRAINING)

LOG = """epoch,accuracy,loss,val_accuracy,val_loss
0,0.51,0.90,0.50,0.95
1,0.62,0.70,0.60,0.75
2,0.70,0.55,0.66,0.64
3,0.75,0.45,0.66,0.66
4,0.79,0.38,0.65,0.70
5,0.82,0.33,0.64,0.75
"""

LISTING = """
import json, os, runpy, sys
code = 0
try:
    {body}
except SystemExit as end:
    code = end.code
with open(os.environ["LOADED"], "w") as file:
    json.dump(sorted(sys.modules), file)
raise SystemExit(code)
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended, and the names of all modules it had loaded."""

    code: int
    stdout: str
    stderr: str
    loaded: frozenset[str]

    def loaded_of(self, forbidden: tuple[str, ...]) -> list[str]:
        return sorted({name.partition(".")[0] for name in self.loaded} & set(forbidden))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "logs" / "run1" / "training.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(LOG.encode())
    return path


def environment(tmp_path: Path) -> dict[str, str]:
    """The caller's environment without what would change a frame, with this tree first on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_", "TEXTUAL"))}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TERM": "xterm-256color",
        "COLUMNS": "80",
        "LINES": "24",
        "LOADED": str(tmp_path / "loaded.json"),
        "XDG_RUNTIME_DIR": str(tmp_path),
    }


def python(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
    )


def listed(tmp_path: Path, body: str) -> Finished:
    done = python(tmp_path, "-c", LISTING.format(body=body))
    listing = tmp_path / "loaded.json"
    assert listing.exists(), f"ended with {done.returncode} before it could list its modules:\n{done.stderr}"
    loaded = frozenset(json.loads(listing.read_text()))
    return Finished(code=done.returncode, stdout=done.stdout, stderr=done.stderr, loaded=loaded)


def cbmon(tmp_path: Path, *arguments: str) -> Finished:
    """Runs the command as its console script does."""
    body = f"sys.argv = {['cbmon', *arguments]!r}; from cbmon.cli import main; code = main()"
    return listed(tmp_path, body)


REPLAY = ("replay", "{log}", "-c", "EarlyStopping(monitor='val_loss', patience=2)")

COMMANDS = [
    pytest.param(("--help",), HEADLESS, id="help"),
    pytest.param(("--version",), HEADLESS, id="version"),
    pytest.param(("watch", "--help"), HEADLESS, id="watch-help"),
    pytest.param(("show", "{log}"), HEADLESS, id="show"),
    pytest.param(("show", "--json", "{log}"), HEADLESS, id="show-json"),
    pytest.param(REPLAY, HEADLESS, id="replay"),
    pytest.param((*REPLAY, "--json"), HEADLESS, id="replay-json"),
    pytest.param(("watch", "--once", "{log}"), (*FRAMES, *TRAINING), id="watch-once"),
]


@pytest.mark.parametrize(("arguments", "forbidden"), COMMANDS)
def test_command_loads_only_what_it_needs(
    tmp_path: Path, log: Path, arguments: tuple[str, ...], forbidden: tuple[str, ...]
) -> None:
    done = cbmon(tmp_path, *(a.format(log=log) for a in arguments))
    assert done.code == 0, done.stderr
    assert done.stdout.strip(), "said nothing"
    assert done.loaded_of(forbidden) == []


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("cbmon", (*HEADLESS, "click", "msgspec", "watchdog", "simpleeval")),
        ("cbmon.callbacks", (*HEADLESS, "click", "watchdog", "simpleeval")),
        ("cbmon.formats", HEADLESS),
        ("cbmon.replay", HEADLESS),
        ("cbmon.cli", HEADLESS),
        ("cbmon.tui", (*FRAMES, *TRAINING)),
    ],
)
def test_import_loads_only_what_it_needs(tmp_path: Path, module: str, forbidden: tuple[str, ...]) -> None:
    done = listed(tmp_path, f"import {module}")
    assert done.code == 0, done.stderr
    assert done.loaded_of(forbidden) == []


def test_monitor_is_importable_without_keras(tmp_path: Path) -> None:
    done = listed(tmp_path, "from cbmon.callbacks import Monitor")
    assert done.code == 0, done.stderr
    assert done.loaded_of((*HEADLESS, "click", "watchdog", "simpleeval")) == []


def test_package_runs_without_an_install_or_a_console_script(tmp_path: Path) -> None:
    done = python(tmp_path, "-m", "cbmon", "--help")
    assert done.returncode == 0, done.stderr
    assert "watch" in done.stdout
    assert done.stderr == ""


def test_help_names_the_commands(tmp_path: Path) -> None:
    done = cbmon(tmp_path, "--help")
    for command in ("watch", "show", "replay", "demo"):
        assert command in done.stdout


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    from cbmon import __version__

    assert __version__ in cbmon(tmp_path, "--version").stdout


def document(done: Finished) -> dict[str, Any]:
    """The one JSON document on stdout; a refusal where anything else stands there too."""
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(found, dict)
    assert found["version"] == 1
    return found


def test_show_json_prints_one_document_and_nothing_else(tmp_path: Path, log: Path) -> None:
    runs = document(cbmon(tmp_path, "show", "--json", str(log)))["runs"]
    assert [run["name"] for run in runs] == ["run1"]


def test_replay_json_prints_one_document_and_nothing_else(tmp_path: Path, log: Path) -> None:
    done = cbmon(tmp_path, *(a.format(log=log) for a in REPLAY), "--json")
    (result,) = document(done)["results"]
    assert result["stopped"]["epoch"] == 4, "best at epoch 2 (0-based), then two worse ones"


def test_show_json_stays_pure_where_a_log_has_a_nan(tmp_path: Path, log: Path) -> None:
    log.write_bytes(log.read_bytes() + b"6,0.1,nan,0.1,inf\n")
    run = document(cbmon(tmp_path, "show", "--json", str(log)))["runs"][0]
    assert run["attempts"][0]["metrics"]["loss"]["last"] == "nan"


def test_show_json_prints_its_document_even_if_nothing_was_readable(tmp_path: Path) -> None:
    done = cbmon(tmp_path, "show", "--json", str(tmp_path / "absent.csv"))
    assert done.code == 3
    assert document(done)["runs"] == []
    assert done.stderr.strip(), "the refusal is also a line for people"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("frobnicate",), ("show", "--frobnicate"), ("replay",)])
def test_usage_error_is_words_on_stderr_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = cbmon(tmp_path, *arguments)
    assert done.code == 2
    assert done.stdout == ""
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
