"""What will work here and what will not: lines from facts, facts from what a machine shows."""

import os
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from cbmon import doctor
from cbmon.cli import commands
from cbmon.doctor import Facts, Finding, Gpus, Limits, Mark, Place, Terminal, findings, lines
from cbmon.mounts import Mount

GOOD_TERMINAL = Terminal(
    is_tty=True,
    encoding="utf-8",
    size=(160, 45),
    environment={"TERM": "xterm-256color", "COLORTERM": "truecolor"},
)
GOOD = Facts(
    places=[Place(text="logs", exists=True, mount=Mount("/", "ext4"), comes=True, folders=3)],
    limits=Limits(watches=65_536, instances=128, watches_used=12, instances_used=2),
    terminal=GOOD_TERMINAL,
    gpus=Gpus(names=["NVIDIA H100 80GB HBM3"], driver="570.1", is_there=True),
    versions={
        "python": "3.12.1",
        "keras": "3.15.1",
        "tensorflow": "2.21.0",
        "textual": "8.2.8",
        "polars": "2.1.0",
    },
    profile="3.15",
    runtime_folder="/run/user/1000",
)


def told(facts: Facts) -> dict[str, tuple[Mark, str]]:
    return {finding.what: (finding.mark, finding.words) for finding in findings(facts)}


def test_where_all_is_well_each_thing_is_one_line_that_says_so() -> None:
    assert lines(findings(GOOD)) == [
        "✓ works    logs               on ext4: changes are told at once",
        "✓ works    inotify watches    12 of 65,536 in use by you, 3 folders to watch here",
        "✓ works    inotify instances  2 of 128 in use by you",
        "✓ works    terminal           TERM=xterm-256color",
        "✓ works    size               160x45",
        "✓ works    text               UTF-8: curves in braille",
        "✓ works    colours            16 million (COLORTERM=truecolor)",
        "✓ works    GPU                NVIDIA H100 80GB HBM3; driver 570.1",
        "✓ works    Keras              3.15.1 with tensorflow 2.21.0: replay decides as Keras 3.15",
        "✓ works    XDG_RUNTIME_DIR    /run/user/1000",
        f"✓ works    versions           cbmon {doctor.__version__}, Python 3.12.1, textual 8.2.8, polars 2.1.0",
    ]


@pytest.mark.parametrize(
    ("place", "mark", "words"),
    [
        (Place(text="p", exists=False), Mark.FAILS, "no such file or directory"),
        (Place(text="p", exists=True, comes=True), Mark.WORKS, "changes are told at once"),
        (
            Place(text="p", exists=True, mount=Mount("/h", "nfs4")),
            Mark.LIMITED,
            "on nfs4: what others write there is not told; cbmon looks every 2 s by itself",
        ),
        (
            Place(text="p", exists=True, mount=Mount("/", "ext4"), comes=False),
            Mark.LIMITED,
            "on ext4: changes are not told: use cbmon watch --poll",
        ),
        (
            Place(text="p", exists=True, mount=Mount("/", "xfs"), reason="permission denied"),
            Mark.LIMITED,
            "on xfs: not tried whether changes are told (permission denied)",
        ),
    ],
)
def test_a_place_tells_its_file_system_and_whether_changes_are_told(
    place: Place, mark: Mark, words: str
) -> None:
    assert told(replace(GOOD, places=[place]))["p"] == (mark, words)


@pytest.mark.parametrize(
    ("limits", "folders", "mark", "part"),
    [
        (Limits(watches=100, watches_used=50), 10, Mark.WORKS, "50 of 100 in use by you, 10 folders"),
        (Limits(watches=100, watches_used=90), 1, Mark.LIMITED, "sysctl fs.inotify.max_user_watches=524288"),
        (Limits(watches=100, watches_used=50), 60, Mark.FAILS, "cbmon would look every 2 s instead"),
        (
            Limits(watches=100, reached="inotify watch limit reached"),
            1,
            Mark.FAILS,
            "max_user_watches=524288",
        ),
        (Limits(watches=400_000, watches_used=400_000), 1, Mark.FAILS, "max_user_watches=800000"),
        (Limits(watches=100), 1, Mark.WORKS, "0 of 100"),
    ],
)
def test_watches_are_enough_or_it_is_said_how_to_get_more(
    limits: Limits, folders: int, mark: Mark, part: str
) -> None:
    place = Place(text="p", exists=True, comes=True, folders=folders)
    found_mark, words = told(replace(GOOD, limits=limits, places=[place]))["inotify watches"]
    assert found_mark is mark
    assert part in words


@pytest.mark.parametrize(("used", "mark"), [(2, Mark.WORKS), (116, Mark.LIMITED), (128, Mark.FAILS)])
def test_instances_are_enough_or_it_is_said_how_to_get_more(used: int, mark: Mark) -> None:
    found_mark, words = told(replace(GOOD, limits=Limits(instances=128, instances_used=used)))[
        "inotify instances"
    ]
    assert found_mark is mark
    assert ("max_user_instances=1024" in words) is (mark is not Mark.WORKS)


def test_where_there_is_no_inotify_nothing_is_said_of_it() -> None:
    assert not [what for what in told(replace(GOOD, limits=Limits())) if "inotify" in what]


@pytest.mark.parametrize(
    ("change", "what", "mark", "part"),
    [
        ({"is_tty": False}, "terminal", Mark.LIMITED, "there is none here: watch writes lines"),
        ({"environment": {"TERM": "dumb"}}, "terminal", Mark.LIMITED, "TERM=dumb: watch writes lines"),
        ({"environment": {}}, "terminal", Mark.LIMITED, "TERM is not set"),
        ({"environment": {"TERM": "xterm", "TMUX": "/tmp/x"}}, "terminal", Mark.LIMITED, "tmux-256color"),
        ({"environment": {"TERM": "tmux-256color", "TMUX": "/tmp/x"}}, "terminal", Mark.WORKS, "inside tmux"),
        ({"environment": {"TERM": "screen", "TMUX": "/tmp/x"}}, "terminal", Mark.WORKS, "inside tmux"),
        ({"size": (79, 30)}, "size", Mark.LIMITED, "79x30: the screen is made for 80x24 and more"),
        ({"size": (100, 20)}, "size", Mark.LIMITED, "made for 80x24"),
        ({"encoding": "ANSI_X3.4-1968"}, "text", Mark.LIMITED, "ANSI_X3.4-1968: curves in ASCII"),
        ({"encoding": ""}, "text", Mark.LIMITED, "unknown: curves in ASCII"),
        ({"encoding": "UTF8"}, "text", Mark.WORKS, "UTF-8"),
        ({"environment": {"TERM": "xterm", "NO_COLOR": "1"}}, "colours", Mark.WORKS, "NO_COLOR is set"),
        (
            {"environment": {"TERM": "xterm", "NO_COLOR": ""}},
            "colours",
            Mark.WORKS,
            "16; if the terminal can more",
        ),
        ({"environment": {"TERM": "tmux-256color"}}, "colours", Mark.WORKS, "256; if the terminal can more"),
        ({"environment": {"TERM": "xterm", "COLORTERM": "24bit"}}, "colours", Mark.WORKS, "16 million"),
    ],
)
def test_the_terminal_tells_what_the_screen_will_look_like(
    change: dict[str, Any], what: str, mark: Mark, part: str
) -> None:
    found_mark, words = told(replace(GOOD, terminal=replace(GOOD_TERMINAL, **change)))[what]
    assert found_mark is mark
    assert part in words


@pytest.mark.parametrize("change", [{"is_tty": False}, {"environment": {"TERM": "dumb"}}])
def test_without_a_screen_nothing_is_said_of_its_size_and_colours(change: dict[str, Any]) -> None:
    found = told(replace(GOOD, terminal=replace(GOOD_TERMINAL, **change)))
    assert not found.keys() & {"size", "text", "colours"}


@pytest.mark.parametrize(
    ("gpus", "mark", "words"),
    [
        (Gpus(), Mark.LIMITED, "no GPU seen"),
        (
            Gpus(is_there=True),
            Mark.LIMITED,
            "an NVIDIA driver is here: pip install nvidia-ml-py to see its GPUs",
        ),
        (
            Gpus(reason="Driver Not Loaded"),
            Mark.LIMITED,
            "none seen: NVIDIA's library says Driver Not Loaded",
        ),
        (Gpus(names=["A", "B"], driver="5", is_there=True), Mark.WORKS, "A, B; driver 5"),
    ],
)
def test_a_gpu_is_seen_or_it_is_said_why_not(gpus: Gpus, mark: Mark, words: str) -> None:
    assert told(replace(GOOD, gpus=gpus))["GPU"] == (mark, words)


@pytest.mark.parametrize(
    ("versions", "profile", "note", "mark", "words"),
    [
        ({}, "3.15", "", Mark.WORKS, "none here, and watching needs none; replay decides as Keras 3.15"),
        (
            {"keras": "3.3.0", "jax": "0.6", "tensorflow-cpu": "2.18.0"},
            "3.3",
            "",
            Mark.WORKS,
            "3.3.0 with tensorflow-cpu 2.18.0, jax 0.6: replay decides as Keras 3.3",
        ),
        (
            {"keras": "3.15.1", "tf_keras": "2.21.0"},
            "3.15",
            "",
            Mark.WORKS,
            "3.15.1: replay decides as Keras 3.15, with --keras 2 as tf_keras 2.21.0",
        ),
        (
            {"keras": "3.99"},
            "3.15",
            "Keras 3.99 is newer than any known here; replayed as 3.15",
            Mark.LIMITED,
            "3.99: replay decides as Keras 3.15 (Keras 3.99 is newer than any known here; replayed as 3.15)",
        ),
        (
            {"keras": "odd"},
            "",
            "no such version",
            Mark.FAILS,
            "no such version: give replay a version, such as --keras 3.15",
        ),
    ],
)
def test_keras_tells_as_which_version_replay_decides(
    versions: dict[str, str], profile: str, note: str, mark: Mark, words: str
) -> None:
    facts = replace(GOOD, versions=versions, profile=profile, profile_note=note)
    assert told(facts)["Keras"] == (mark, words)


@pytest.mark.parametrize(
    ("folder", "fault", "mark", "words"),
    [
        (None, "", Mark.LIMITED, "not set: the temporary folder takes its place"),
        (
            "/run/x",
            "others may enter it",
            Mark.LIMITED,
            "/run/x: others may enter it; the temporary folder takes",
        ),
        ("/run/x", "", Mark.WORKS, "/run/x"),
    ],
)
def test_the_runtime_folder_is_told(folder: str | None, fault: str, mark: Mark, words: str) -> None:
    found_mark, found = told(replace(GOOD, runtime_folder=folder, runtime_fault=fault))["XDG_RUNTIME_DIR"]
    assert found_mark is mark
    assert found.startswith(words)


def test_no_path_and_no_variable_moves_a_cursor() -> None:
    nasty = "\x1b[2J\u202e"
    places = [Place(text=nasty, exists=True, mount=Mount("/", nasty), reason=nasty)]
    terminal = replace(GOOD_TERMINAL, environment={"TERM": nasty, "COLORTERM": nasty})
    facts = replace(GOOD, places=places, terminal=terminal, versions={"keras": nasty}, runtime_folder=nasty)
    assert all(line.isprintable() for line in lines(findings(facts)))


def test_no_findings_are_no_lines() -> None:
    assert lines([]) == []
    assert lines([Finding(Mark.FAILS, "a", "b")]) == ["✗ fails    a  b"]


# Gathering


def test_changes_in_a_folder_here_are_told_and_nothing_is_left_behind(tmp_path: Path) -> None:
    place = doctor.place(str(tmp_path), [Mount("/", "ext4")])
    assert place.comes is True
    assert place.folders == 1
    assert list(tmp_path.iterdir()) == []


def test_of_a_file_and_of_a_glob_the_folder_is_tried(tmp_path: Path) -> None:
    (tmp_path / "run1").mkdir()
    (tmp_path / "run1" / "training.csv").touch()
    tried: list[str] = []

    def try_it(folder: str) -> bool:
        tried.append(folder)
        return True

    for text in (tmp_path / "run1" / "training.csv", tmp_path / "*" / "*.csv", tmp_path / "run1"):
        assert doctor.place(str(text), [], try_it).exists
    assert tried == [os.path.realpath(tmp_path / "run1")] * 3


def test_what_is_not_there_or_blind_is_not_tried(tmp_path: Path) -> None:
    def never(folder: str) -> bool:
        raise AssertionError("tried")

    assert not doctor.place(str(tmp_path / "absent"), [], never).exists
    place = doctor.place(str(tmp_path), [Mount("/", "nfs4")], never)
    assert (place.comes, place.folders) == (None, 0)
    assert place.mount == Mount("/", "nfs4")


def test_why_it_could_not_be_tried_is_kept(tmp_path: Path) -> None:
    def refuse(folder: str) -> bool:
        raise PermissionError(13, "Permission denied")

    place = doctor.place(str(tmp_path), [], refuse)
    assert (place.comes, place.reason) == (None, "permission denied")


def test_the_limits_are_read_with_what_is_in_use_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "sys" / "fs" / "inotify"
    folder.mkdir(parents=True)
    (folder / "max_user_watches").write_text("8192\n")
    (folder / "max_user_instances").write_text("128\n")
    (tmp_path / "sys" / "user").mkdir()
    (tmp_path / "sys" / "user" / "max_inotify_watches").write_text("2147483647\n")
    (tmp_path / "sys" / "user" / "max_inotify_instances").write_text("64\n")
    (tmp_path / "self" / "fd").mkdir(parents=True)
    for process, watches in (("7", [2, 0]), ("8", [1]), ("9", [])):
        for name in ("fd", "fdinfo"):
            (tmp_path / process / name).mkdir(parents=True)
        (tmp_path / process / "fd" / "0").symlink_to("/dev/null")
        (tmp_path / process / "fdinfo" / "0").write_text("pos:\t0\n")
        for handle, count in enumerate(watches, 1):
            (tmp_path / process / "fd" / str(handle)).symlink_to("anon_inode:inotify")
            text = "pos:\t0\nflags:\t00\n" + "inotify wd:1 ino:2 sdev:3 mask:fc6\n" * count
            (tmp_path / process / "fdinfo" / str(handle)).write_text(text)
    (tmp_path / "10").write_text("no process")
    found = doctor.limits(str(tmp_path), lambda: "")
    assert found == Limits(watches=8192, instances=64, watches_used=3, instances_used=3)


def test_a_system_without_proc_has_no_limits_to_tell(tmp_path: Path) -> None:
    assert doctor.limits(str(tmp_path), lambda: "") == Limits()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify is Linux'")
def test_a_watch_of_our_own_is_counted(tmp_path: Path) -> None:
    from cbmon.notices import Notices

    before = doctor.limits()
    notices = Notices(lambda changed: None)
    try:
        notices.watch({str(tmp_path): True})
        after = doctor.limits()
    finally:
        notices.stop()
    assert after.watches_used is not None
    assert after.watches_used >= 1
    assert before.watches == after.watches


class NvmlError(Exception):
    """What the library raises."""


def nvml(**functions: Any) -> Any:
    plain = {"nvmlInit": lambda: None, "nvmlShutdown": lambda: None, "NVMLError": NvmlError}
    return SimpleNamespace(**(plain | functions))


def test_gpus_are_asked_of_the_library_and_never_of_a_command(tmp_path: Path) -> None:
    ended: list[bool] = []
    library = nvml(
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda at: at,
        nvmlDeviceGetName=lambda handle: [b"NVIDIA A100", "NVIDIA H100"][handle],
        nvmlSystemGetDriverVersion=lambda: "570.1",
        nvmlShutdown=lambda: ended.append(True),
    )
    found = doctor.gpus(lambda name: library, str(tmp_path / "version"))
    assert found == Gpus(names=["NVIDIA A100", "NVIDIA H100"], driver="570.1", is_there=True)
    assert ended == [True]


def test_a_library_without_a_driver_says_so(tmp_path: Path) -> None:
    def refuse() -> None:
        raise NvmlError("Driver Not Loaded")

    assert doctor.gpus(lambda name: nvml(nvmlInit=refuse), str(tmp_path / "x")) == Gpus(
        reason="Driver Not Loaded"
    )


def test_without_the_library_a_driver_is_seen_all_the_same(tmp_path: Path) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    assert doctor.gpus(absent, str(tmp_path / "version")) == Gpus()
    (tmp_path / "version").touch()
    assert doctor.gpus(absent, str(tmp_path / "version")) == Gpus(is_there=True)


def test_versions_are_those_of_what_is_installed() -> None:
    def ask(name: str) -> str:
        if name != "keras":
            raise metadata.PackageNotFoundError(name)
        return "3.15.1"

    assert doctor.versions(ask) == {"python": sys.version.split()[0], "keras": "3.15.1"}


def test_a_runtime_folder_is_trusted_only_if_nobody_else_can_enter(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert doctor.runtime_fault(str(folder)) == "no such file or directory"
    folder.mkdir(mode=0o700)
    assert doctor.runtime_fault(str(folder)) == ""
    folder.chmod(0o755)
    assert doctor.runtime_fault(str(folder)) == "others may enter it"


# The command


def test_the_command_informs_and_ends_with_0_whatever_it_finds(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        commands, ["doctor", str(tmp_path), str(tmp_path / "absent")], standalone_mode=False
    )
    assert done.return_value == 0
    assert done.stderr == ""
    rows = done.stdout.splitlines()
    assert "changes are told at once" in rows[0]
    assert "no such file or directory" in rows[1]
    assert all(row.startswith(tuple(mark.value for mark in Mark)) for row in rows)


def test_in_ascii_the_words_remain(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["doctor", "--ascii", str(tmp_path)], standalone_mode=False)
    assert done.stdout.isascii()
    assert "?" not in done.stdout
    assert " works " in done.stdout


def test_without_a_path_the_folder_it_is_called_in_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(commands, ["doctor"], standalone_mode=False)
    assert done.stdout.splitlines()[0].split()[2] == "."


def test_nobodys_keras_is_imported_and_no_screen() -> None:
    import subprocess

    code = (
        "import sys; from cbmon.cli import main; main(['doctor']);"
        "print([n for n in ('keras', 'tensorflow', 'textual', 'polars', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
