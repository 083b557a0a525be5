"""Policies beside a live run: what a callback that the script does not have would have counted by now.

The same step machines as in a replay, advanced row by row as epochs come. Nothing is changed by them: after the
first stop or cut the run went on as it did, and so does the counting.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cbmon.errors import BadCall, CannotReplay, CbmonError, KerasRefuses, NeedsLearningRate
from cbmon.events import EPOCH_MAX, CallbackState
from cbmon.policies import (
    EarlyStopping,
    PlateauState,
    ReduceLROnPlateau,
    float32,
    resolve,
)
from cbmon.profiles import Profile
from cbmon.replay.calls import Call
from cbmon.replay.results import Recording

ROWS_A_LOOK = 20_000
"""Epochs taken in one look, about 30 ms: a million of them must not hold up the screen."""


class Shadow:
    """One EarlyStopping or ReduceLROnPlateau, following one attempt, and then the next one."""

    def __init__(self, call: Call, profile: Profile) -> None:
        """Build the policy.

        Raises:
            BadCall: It is neither of the two: no other callback waits for an improvement.
            KerasRefuses: Keras' constructor would refuse the arguments.
        """
        if call.policy not in (EarlyStopping, ReduceLROnPlateau):
            raise BadCall(
                f"{call.text}: beside a live run only EarlyStopping and ReduceLROnPlateau can be followed"
            )
        policy = call.build(profile)
        assert isinstance(policy, EarlyStopping | ReduceLROnPlateau)
        self.call = call
        self.fired: list[int] = []
        """Epochs, 0-based, after which it would have cut; or stopped, for the first time since its best."""
        self.trouble = ""
        """Why it decides nothing on this run, such as what Keras would refuse; empty if it does."""
        self.profile = profile
        self._built = self._policy = policy
        self._recording: Recording | None = None
        self._begin(None)

    @property
    def name(self) -> str:
        """CALL in short: without what is Keras' default."""
        told = [
            f"{'' if each.name == 'monitor' else f'{each.name}='}{getattr(self._built, each.name)!r}"
            for each in fields(self._built)
            if getattr(self._built, each.name) != each.default
        ]
        return f"{type(self._built).__name__}({', '.join(told)})"

    def _begin(self, recording: Recording | None) -> None:
        """Forget what was counted: from the first row of this attempt."""
        self._recording = recording
        self._policy = self._built
        self._state: Any = None
        """As its policy has it; None before the first epoch."""
        self._rows = 0
        self._last = ""
        """The last row taken: a later one may replace it."""
        self._rate: float | None = None
        """The latest one recorded."""
        self._is_refused = False
        self.fired, self.trouble = [], ""

    def look(self, recording: Recording) -> CallbackState:
        """Take epochs that are new since the last look, `ROWS_A_LOOK` at most; gives what it has counted."""
        rows = self._rows
        is_older = len(recording.epochs) < rows or (rows and self._row(recording, rows - 1) != self._last)
        if recording is not self._recording or is_older:
            self._begin(recording)
        if not self._is_refused:
            try:
                self._advance(recording)
            except NeedsLearningRate:
                self._refuse("it depends on the learning rate, and this log has none")
            except OverflowError as error:
                self._refuse(str(KerasRefuses("OverflowError", str(error))))
            except CbmonError as error:
                self._refuse(str(error))
            if self._rows:
                self._last = self._row(recording, self._rows - 1)
        policy, state = self._policy, self._state
        best = None if state is None else policy.best(state, self.profile)
        return CallbackState(
            name=type(policy).__name__,
            monitor=policy.monitor,
            patience=min(policy.patience, EPOCH_MAX),
            wait=0 if state is None else state.wait,
            best=best and best[1],
            best_epoch=best and best[0],
            cooldown=int(max(0, min(state.cooldown, EPOCH_MAX))) if isinstance(state, PlateauState) else None,
        )

    def is_behind(self, recording: Recording) -> bool:
        """Whether there are epochs that it has not taken yet."""
        return not self._is_refused and self._rows < len(recording.epochs)

    def _refuse(self, trouble: str) -> None:
        self.trouble, self._is_refused = trouble, True

    def _row(self, recording: Recording, row: int) -> str:
        """What it has seen of a row, as text, so that NaN equals NaN."""
        column, rates = recording.metrics.get(self._policy.monitor), recording.learning_rate
        return repr((recording.epochs[row], column[row] if column else None, rates[row] if rates else None))

    def _advance(self, recording: Recording) -> None:
        rows = len(recording.epochs)
        if not rows:
            return
        if self._state is None:
            try:
                self._policy = resolve(self._policy, self.profile, recording.columns)
            except KerasRefuses:
                self._refuse("give mode='min' or mode='max' (Keras raises ValueError)")
                return
            self._state = self._policy.begin(self.profile)
        policy, profile = self._policy, self.profile
        if policy.monitor in recording.not_numbers:
            raise CannotReplay(f"some cells of {policy.monitor!r} are lists or text, not numbers")
        column, rates = recording.metrics.get(policy.monitor), recording.learning_rate
        self.trouble = (
            "" if column else f"{policy.monitor!r} is not in this log: Keras only warns, and it never acts"
        )
        for row in range(self._rows, min(rows, self._rows + ROWS_A_LOOK)):
            self._rows = row + 1
            epoch, value = recording.epochs[row], column[row] if column else None
            if isinstance(policy, EarlyStopping):
                self._state, fires = policy.step(self._state, epoch, value, profile)
                fires = fires and not self.fired  # training would have been over
            else:
                if rates and (rate := rates[row]) is not None:
                    self._rate = float32(rate)
                self._state, cut = policy.step(self._state, epoch, value, self._rate, profile)
                fires = cut is not None
            if fires:
                self.fired.append(epoch)
