"""What pip makes of the wheel: alone, with the oldest dependencies it allows, and beside TensorFlow.

A program of its own (`python tests/installs.py WHEEL [--beside 2.18 2.19]`), not a test module: it makes
virtual environments, downloads with plain pip and takes minutes. `.ci/run` calls it. One line a check; exit
code 1 if any failed. Each environment goes once it has been looked at (one with TensorFlow takes 1.4 GB).
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

PIP_TIMEOUT_S = 900.0  # a TensorFlow download on a slow line; a hang must still end the job

IMPORT_ALL = """
import importlib, pkgutil, cbmon
absent = {"keras", "tf_keras", "tensorflow", "sklearn"}  # what the base install leaves to the user
names = [m.name for m in pkgutil.walk_packages(cbmon.__path__, "cbmon.") if not m.name.endswith("__main__")]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] not in absent:
            raise SystemExit(f"{name}: {e}")
print(len(names))
"""

TOP_LEVEL = """
from importlib.util import find_spec
print([name for name in ("tui", "replay", "callbacks", "sample_logs") if find_spec(name)])
"""


class Report:
    """Prints one line for each check and remembers whether any failed."""

    def __init__(self) -> None:
        self.failed = 0

    def check(self, ok: bool, what: str, why: str = "") -> None:
        self.failed += not ok
        print(
            f"{'ok  ' if ok else 'FAIL'} {what}" + (f"\n       {why.strip()}" if not ok and why else ""),
            flush=True,
        )


class Environment:
    """An empty virtual environment; its commands see neither this repository nor the caller's settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=True, symlinks=True)

    def run(self, *command: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"}
        program = str(self.folder / "bin" / command[0])
        return subprocess.run(
            [program, *command[1:]],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def pip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        quiet = ("-m", "pip", "--disable-pip-version-check")
        return self.run("python", *quiet, *arguments, timeout_s=PIP_TIMEOUT_S)

    def versions(self) -> dict[str, str]:
        listing = json.loads(self.pip("list", "--format=json").stdout)
        return {p["name"].lower().replace("_", "-"): p["version"] for p in listing}


@contextlib.contextmanager
def environment() -> Iterator[Environment]:
    with tempfile.TemporaryDirectory(prefix="cbmon-install-") as folder:
        yield Environment(Path(folder) / "venv")


def check_contents(report: Report, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        links = [i.filename for i in archive.infolist() if (i.external_attr >> 16) & 0o170000 == 0o120000]
        metadata = archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
    tops = {n.partition("/")[0] for n in names}
    strays = sorted(t for t in tops if t != "cbmon" and not t.endswith(".dist-info"))
    report.check(not strays, "wheel: cbmon/ is the only thing it puts into site-packages", f"also: {strays}")
    report.check(not links, "wheel: no links in it", str(links))
    for what, pattern in {
        "py.typed": r"cbmon/py\.typed",
        "the console script": r"[^/]+\.dist-info/entry_points\.txt",
        "the licence": r"[^/]+\.dist-info/licenses/LICENSE",
        "the screen's stylesheet": r"cbmon/tui/[^/]+\.tcss",
        "sample logs": r"cbmon/sample_logs/.+\.(csv|json|jsonl|log)",
        **{
            f"cbmon.{p}": rf"cbmon/{p}/__init__\.py"
            for p in ("cli", "formats", "tui", "callbacks", "replay", "sample_logs")
        },
    }.items():
        report.check(
            any(re.fullmatch(pattern, n) for n in names), f"wheel: has {what}", f"no file matches {pattern}"
        )
    numpy = re.findall(r"^Requires-Dist: (numpy\b[^;\n]*[<>=~!][^;\n]*)", metadata, re.M)
    report.check(not numpy, "wheel: does not bound numpy", str(numpy))


def oldest_pins(wheel: Path) -> list[str]:
    """The base dependencies, each at its lower bound."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        required = re.findall(r"^Requires-Dist: ([^\n]+)$", archive.read(name).decode(), re.M)
    pins = (re.match(r"([\w.-]+).*?>=\s*([\d.]+)", r) for r in required if "extra ==" not in r)
    return [f"{m[1]}=={m[2]}" for m in pins if m]


def check_works(report: Report, env: Environment, where: str) -> None:
    """The command answers, every module imports, and none of it is found under a second name."""
    for arguments in (["--version"], ["--help"]):
        done = env.run("cbmon", *arguments)
        ok = done.returncode == 0 and bool(done.stdout.strip())
        report.check(
            ok, f"{where}: cbmon {arguments[0]}", done.stderr[-500:] or f"exit code {done.returncode}"
        )
    done = env.run("python", "-c", IMPORT_ALL)
    report.check(done.returncode == 0, f"{where}: every module imports", done.stderr[-500:])
    found = env.run("python", "-c", TOP_LEVEL).stdout.strip()
    report.check(
        found == "[]", f"{where}: no top-level tui, replay, callbacks, sample_logs", f"found {found}"
    )


def check_alone(report: Report, wheel: Path, where: str, pins: list[str]) -> None:
    with environment() as env:
        done = env.pip("install", str(wheel), *pins)
        report.check(
            done.returncode == 0, f"{where}: pip install ({' '.join(pins) or 'newest'})", done.stderr[-800:]
        )
        if done.returncode == 0:
            check_works(report, env, where)


def check_beside(report: Report, wheel: Path, tensorflow: str) -> None:
    """Installing cbmon into an environment with this TensorFlow adds packages and changes none."""
    where = f"beside TensorFlow {tensorflow}"
    with environment() as env:
        done = env.pip("install", f"tensorflow-cpu=={tensorflow}.*")
        report.check(done.returncode == 0, f"{where}: TensorFlow itself installs", done.stderr[-800:])
        if done.returncode != 0:
            return
        before = env.versions()
        done = env.pip("install", str(wheel))
        report.check(done.returncode == 0, f"{where}: pip install", done.stderr[-800:])
        after = env.versions()
        moved = [f"{n} {v} -> {after.get(n, 'gone')}" for n, v in before.items() if after.get(n) != v]
        added = sorted(f"{n} {after[n]}" for n in after.keys() - before.keys())
        report.check(
            not moved,
            f"{where}: none of its {len(before)} packages moved (numpy {after.get('numpy')})",
            ", ".join(moved),
        )
        print(f"       added: {', '.join(added)}")
        done = env.pip("check")
        report.check(done.returncode == 0, f"{where}: pip check", done.stdout)
        check_works(report, env, where)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "--beside", nargs="*", default=[], metavar="VERSION", help="TensorFlow versions, such as 2.18"
    )
    options = parser.parse_args()
    wheel = options.wheel.resolve(strict=True)
    report = Report()
    check_contents(report, wheel)
    check_alone(report, wheel, "alone", [])
    check_alone(report, wheel, "oldest dependencies", oldest_pins(wheel))
    for version in options.beside:
        check_beside(report, wheel, version)
    print(f"{report.failed} checks failed" if report.failed else "all checks of the wheel passed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
