"""The shape of the repository: links, packaging list, version, and what the import contracts cannot say."""

import ast
import importlib.metadata
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cbmon

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("callbacks", "replay", "sample_logs", "tui")
"""The folders at the top of the repository that install below cbmon."""

CLOCK_MODULES = {"time", "datetime"}
CLOCK_CALLS = {
    *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
    *(
        "process_time",
        "process_time_ns",
        "thread_time",
        "thread_time_ns",
        "clock_gettime",
        "clock_gettime_ns",
    ),
    *("sleep", "now", "utcnow", "today"),
}
"""What reads a clock or waits; formatting a time that one is given (fromtimestamp, strftime) is fine."""

CLOCK_READERS = {"sources.py", "endpoint.py", "wire.py"}
"""The only core modules that may: sources stamp events, a handshake has a timeout."""


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def core_files() -> list[Path]:
    return sorted([*(ROOT / "cbmon").glob("*.py"), *(ROOT / "cbmon" / "formats").rglob("*.py")])


def product_files() -> list[Path]:
    return core_files() + sorted(
        f for folder in ("cbmon/cli", *MAPPED) for f in (ROOT / folder).rglob("*.py")
    )


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def clock_reads(tree: ast.Module) -> Iterator[str]:
    """Each place that reads a clock, as `line N: what`, under whatever name the clock was imported."""
    clocks: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            clocks |= {alias.asname or alias.name for alias in node.names if alias.name in CLOCK_MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module in CLOCK_MODULES:
            for alias in node.names:
                if node.module == "datetime":
                    clocks.add(alias.asname or alias.name)
                elif alias.name in CLOCK_CALLS:
                    yield f"line {node.lineno}: from {node.module} import {alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCK_CALLS:
            base = ast.unparse(node.value)
            if base.partition(".")[0] in clocks:
                yield f"line {node.lineno}: {base}.{node.attr}"


@pytest.mark.parametrize("name", MAPPED)
def test_link_in_cbmon_leads_to_the_folder_at_the_top(name: str) -> None:
    link = ROOT / "cbmon" / name
    assert link.is_symlink(), (
        f"cbmon/{name} is no link: ln -s ../{name} cbmon/{name} (on Windows: git config core.symlinks)"
    )
    assert os.readlink(link) == f"../{name}", "an absolute link works on one machine only"
    assert (link / "__init__.py").is_file()
    assert link.resolve() == ROOT / name


def test_packaging_list_is_the_folders_with_an_init() -> None:
    setuptools = project()["tool"]["setuptools"]
    found = {"cbmon": "cbmon"}
    found |= {
        relative(f.parent).replace("/", "."): relative(f.parent)
        for f in (ROOT / "cbmon").glob("*/__init__.py")
        if not f.parent.is_symlink()
    }
    for name in MAPPED:
        for init in (ROOT / name).rglob("__init__.py"):
            folder = relative(init.parent)
            found["cbmon." + folder.replace("/", ".")] = folder
    assert sorted(setuptools["packages"]) == sorted(found)
    for package, folder in setuptools["package-dir"].items():
        assert found[package] == folder


def test_version_in_the_package_is_the_version_in_pyproject() -> None:
    assert cbmon.__version__ == project()["project"]["version"]


def test_version_in_the_package_is_the_installed_one() -> None:
    try:
        installed = importlib.metadata.version("cbmon")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("cbmon is not installed here: pip install -e .")
    assert cbmon.__version__ == installed, "an old install: pip install -e ."


def test_no_base_dependency_bounds_numpy() -> None:
    bounded = [d for d in project()["project"]["dependencies"] if d.startswith("numpy") and d != "numpy"]
    assert not bounded, (
        "TensorFlow 2.18 needs numpy < 2.1, 2.19 < 2.2: any bound of ours breaks somebody's trainer"
    )


def test_packages_have_one_name_each() -> None:
    code = (
        "import sys, cbmon.tui, cbmon.callbacks, cbmon.replay, cbmon.sample_logs;"
        f"print([n for n in {MAPPED!r} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    assert not [n for n in MAPPED if n in sys.modules], "a test imported a folder under its top-level name"


@pytest.mark.parametrize("path", product_files(), ids=relative)
def test_imports_are_absolute_and_by_the_installed_name(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        wrong = [n for n in names if n.partition(".")[0] in MAPPED]
        assert not wrong, f"line {node.lineno}: say cbmon.{wrong[0]}"


@pytest.mark.parametrize("path", [f for f in core_files() if f.name not in CLOCK_READERS], ids=relative)
def test_core_reads_no_clock(path: Path) -> None:
    reads = list(clock_reads(ast.parse(path.read_bytes())))
    assert not reads, f"time is an event: take it as an argument ({relative(path)} {'; '.join(reads)})"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\ntime.time()", True),
        ("import time as t\nt.monotonic()", True),
        ("from time import perf_counter", True),
        ("import datetime\ndatetime.datetime.now()", True),
        ("from datetime import datetime as dt\ndt.now()", True),
        ("from datetime import date\ndate.today()", True),
        ("import time\nclock = time.monotonic", True),
        ("from datetime import datetime\ndatetime.fromtimestamp(3.0)", False),
        ("import time\ntime.strftime('%H:%M', time.localtime(3.0))", False),
        ("def f(now):\n    return now.time", False),
    ],
)
def test_clock_finder_sees_every_spelling(source: str, found: bool) -> None:
    assert bool(list(clock_reads(ast.parse(source)))) is found


@pytest.mark.parametrize("path", product_files(), ids=relative)
def test_module_has_no_name_that_shadows_a_library(path: Path) -> None:
    taken = {"keras.py", "types.py", "io.py", "utils.py", "time.py", "polars.py", "textual.py"}
    assert path.name not in taken
