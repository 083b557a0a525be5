"""Which Keras: how its versions differ, as far as the five replayed callbacks go.

One profile a version, 2.12 to 3.15; the differences were read in Keras' history and verified by running five of
the versions (`tests/test_golden.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cbmon.errors import BadCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How one version of Keras differs from the others, as far as the five callbacks go."""

    name: str
    """What `--keras` calls it: "3.15" … "3.0", "2" (tf_keras 2.16 or newer), "2.15", "2.12"."""
    learning_rate_key: str
    """The key of the learning rate in the epoch's logs."""
    float32_stopping: bool
    """EarlyStopping compares in float32 and asks the metric for its direction; else float64, its name."""
    empty_stopping_best: bool
    """EarlyStopping starts without a best (anything improves, even NaN); else with ±inf."""
    keeps_stopping_best: bool
    """EarlyStopping takes its best along into the next fit (keras#20256)."""
    restores_unstopped: bool
    """EarlyStopping restores the best weights at the end of training; else only where it stopped."""
    shared_monitor: bool
    """ReduceLROnPlateau and ModelCheckpoint judge as EarlyStopping does (keras#21275); else in float64."""
    keeps_plateau_best: bool
    """ReduceLROnPlateau takes its best along into the next fit."""
    float32_cut: bool
    """ReduceLROnPlateau multiplies in float32 (tf_keras with NumPy 2); else in double."""
    saves_when_absent: bool
    """ModelCheckpoint saves the best only, the metric is absent: it saves; else it skips."""
    saves_h5: bool
    """ModelCheckpoint takes whole models in `.h5` (Keras 3)."""
    can_raise_on_nan: bool
    """TerminateOnNaN has `raise_error`."""
    can_double_checkpoint: bool
    """BackupAndRestore has `double_checkpoint`."""
    gates_board: bool
    """TensorBoard with a number for `update_freq` tells only epochs whose count of batches it divides."""
    pads_csv: bool
    """CSVLogger doubles every column as `val_…` where the first epoch has none (keras#14049)."""

    @property
    def is_keras_3(self) -> bool:
        """Whether this is Keras 3; else one of the Keras 2 line."""
        return self.name.startswith("3")


def _keras_3(minor: int) -> Profile:
    return Profile(
        name=f"3.{minor}",
        learning_rate_key="learning_rate",
        float32_stopping=True,
        empty_stopping_best=minor >= 7,
        keeps_stopping_best=minor < 7 or 11 <= minor <= 14,
        restores_unstopped=True,
        shared_monitor=minor >= 11,
        keeps_plateau_best=11 <= minor <= 14,
        float32_cut=False,
        saves_when_absent=minor >= 10,
        saves_h5=minor >= 8,
        can_raise_on_nan=minor >= 13,
        can_double_checkpoint=minor >= 7,
        gates_board=minor >= 15,
        pads_csv=True,
    )


def _keras_2(name: str, *, tf_keras: bool = False) -> Profile:
    return Profile(
        name=name,
        learning_rate_key="lr",
        float32_stopping=False,
        empty_stopping_best=False,
        keeps_stopping_best=False,
        restores_unstopped=tf_keras,
        shared_monitor=False,
        keeps_plateau_best=False,
        float32_cut=tf_keras,
        saves_when_absent=False,
        saves_h5=True,
        can_raise_on_nan=False,
        can_double_checkpoint=False,
        gates_board=False,
        pads_csv=name != "2.12",
    )


_NEWEST_MINOR = 15
PROFILES = {
    profile.name: profile
    for profile in (
        *(_keras_3(minor) for minor in range(_NEWEST_MINOR, -1, -1)),
        _keras_2("2", tf_keras=True),
        _keras_2("2.15"),
        _keras_2("2.12"),
    )
}
"""Every profile by name, newest first."""
NEWEST = PROFILES[f"3.{_NEWEST_MINOR}"]


def find_profile(version: str | None = None) -> tuple[Profile, str | None]:
    """Find the profile of a Keras version.

    Args:
        version: "3.15", "3.15.1", "3", "2.15", "2" or "tf_keras"; None = the installed one, else the newest.

    Returns:
        The profile, and a note for the user if it is not quite the version asked for.

    Raises:
        BadCall: The text names no version from Keras 2 on.
    """
    if version is None:
        from importlib import metadata  # 15 ms, and only here

        try:
            version = metadata.version("keras")
        except metadata.PackageNotFoundError:
            return NEWEST, None
    if version.replace("-", "_") == "tf_keras":
        version = "2"
    match = re.fullmatch(r"(\d{1,9})(?:\.(\d{1,9})(?:\.\w+)*)?", version, re.ASCII)
    if not match or int(match[1]) < 2:
        raise BadCall(f"--keras {version}: no such version. Known: {', '.join(PROFILES)}, tf_keras")
    major, minor = int(match[1]), None if match[2] is None else int(match[2])
    if major == 2:
        name = "2" if minor is None or minor >= 16 else "2.15" if minor >= 13 else "2.12"
        note = "older than any known here; replayed as 2.12" if minor is not None and minor < 12 else None
    else:
        is_known = major == 3 and (minor is None or minor <= _NEWEST_MINOR)
        name = f"3.{minor}" if is_known and minor is not None else NEWEST.name
        note = None if is_known else f"newer than any known here; replayed as {NEWEST.name}"
    return PROFILES[name], f"Keras {version} is {note}" if note else None
