"""One call of `fit` while it runs: counts its steps, takes its times, turns what its hooks say into events."""

from __future__ import annotations

import operator
import time
from collections import deque
from functools import partial
from threading import Lock, get_ident
from typing import Any

from cbmon.callbacks import siblings
from cbmon.callbacks.control import At, Control, Training
from cbmon.callbacks.facts import learning_rates, number, whole
from cbmon.callbacks.recorder import Recorder
from cbmon.events import CallbackStates, EpochsEnded, NonFinite, Progress, RunEnded

PROGRESS_S = 10.0
"""Least time between two looks into a running epoch: 1 MB a day; shorter epochs need none."""

LEARNING_RATE_KEYS = ("learning_rate", "lr")
"""What callbacks put into the logs: no metrics; what they mean depends on the list's order."""


RECENT_S = 3.0
"""What steps a second are told of; a training that ended no step for so long, instead of three, stands still."""

LOOKS_MAX = 11
"""Looks that the steps a second are taken over: two seconds, at five looks a second."""


class Steps:
    """The steps of one phase of an epoch: how many have ended, and how long one takes.

    On JAX and torch the ends come from several threads and out of order.
    """

    __slots__ = ("begun", "done", "first", "first_end", "last_end", "lock")

    def __init__(self) -> None:
        self.begun: float | None = None
        """When the first step began; this and the others by `time.perf_counter()`."""
        self.done = 0
        self.first = 0
        """Steps done when the first end came: several with `steps_per_execution`."""
        self.first_end = 0.0
        self.last_end = time.perf_counter()
        """When the latest step ended; before one has, when the phase began."""
        self.lock = Lock()

    def ended(self, batch: int, now: float) -> bool:
        """A batch, by its 0-based number, has ended; whether it is the furthest one so far."""
        with self.lock:
            if not self.done:
                self.first, self.first_end = batch + 1, now
            is_furthest = batch >= self.done
            if is_furthest:
                self.done, self.last_end = batch + 1, now
            return is_furthest

    def first_seconds(self) -> float | None:
        """How long the first step took, None before it has ended."""
        return self.first_end - self.begun if self.done and self.begun is not None else None

    def mean_seconds(self) -> float | None:
        """How long a step takes, without the first one; None if there is no other."""
        others = self.done - self.first
        return (self.last_end - self.first_end) / others if others > 0 else None


class Look:
    """What the recorder's thread sees of the running epoch: what the hooks keep of their latest call.

    It knows neither model nor callbacks: a thread that held those would keep them alive.
    """

    def __init__(self, every_s: float = 0.0) -> None:
        """No epoch runs yet; `every_s` are the seconds between two looks while somebody watches."""
        self.epoch = 0
        self.begun: float | None = None
        """When the epoch began, Unix seconds."""
        self.rate: float | None = None
        """The learning rate, as far as this epoch's record will tell it."""
        self.is_learned = False
        """Whether the planned steps of training are those of the epoch before: Keras does not know."""
        self.now: tuple[str, Steps, int, int | None, dict[str, Any]] | None = None
        """Phase, its steps, how many of them are done, of how many, and their logs; None between epochs."""
        self._gap_s = RECENT_S + every_s
        self._looked_at = 0.0
        self._passed: deque[tuple[Steps, int, float]] = deque(maxlen=LOOKS_MAX)

    def progress(self) -> Progress | None:
        """The latest, as of the step that ended last; in the recorder's thread alone.

        A tensor of tf_keras becomes a number here: that waits for its step in this thread, not in the training's.
        """
        found = self.now
        if found is None:
            return None
        _, steps, step, _, _ = found
        now = time.perf_counter()
        return self.told(
            *found, age_s=now - steps.last_end, speed=self._speed(steps, step, now), begun=self.begun
        )

    def told(
        self,
        phase: str,
        steps: Steps,
        step: int,
        planned: int | None,
        logs: dict[str, Any],
        *,
        age_s: float = 0.0,
        speed: float | None = None,
        begun: float | None = None,
    ) -> Progress:
        """How far the epoch was `age_s` seconds ago; without `begun` for the file, which is told rarely."""
        if self.is_learned and phase == "train" and planned is not None and step > planned:
            planned = None  # this epoch is longer than the one before
        return Progress(
            time=time.time() - age_s,
            epoch=self.epoch,
            step=step if planned is None else min(step, planned),
            steps=planned,
            phase=phase,
            metrics={str(name): number(value) for name, value in dict(logs).items()},
            step_seconds=steps.mean_seconds(),
            steps_per_second=speed,
            learning_rate=self.rate,
            begun=begun,
        )

    def _speed(self, steps: Steps, step: int, now: float) -> float | None:
        """Steps a second of late; None if the training stands still, or nobody has looked for a while."""
        passed, at = self._passed, steps.last_end
        if passed and (passed[-1][0] is not steps or now - self._looked_at > self._gap_s):
            passed.clear()
        self._looked_at = now
        if step and (not passed or passed[-1][1] < step):
            passed.append((steps, step, at))
        while len(passed) > 2 and passed[0][2] < now - RECENT_S:
            passed.popleft()
        if len(passed) < 2:
            return None
        (_, first, since), (_, last, until) = passed[0], passed[-1]
        took = until - since
        is_still = now - until > max(RECENT_S, 3 * took / (last - first))
        return (last - first) / took if took > 0 and not is_still else None


class Fit:
    """What is known of one call of `fit`, from its begin to its end."""

    def __init__(
        self,
        model: Any,
        recorder: Recorder,
        callbacks: list[Any],
        steps: int | None,
        epochs: int | None = None,
        look: Look | None = None,
        control: Control | None = None,
    ) -> None:
        """Begin.

        Args:
            model: the one that is trained.
            recorder: takes the events.
            callbacks: the fit's list; empty if it could not be seen.
            steps: planned steps an epoch, None if Keras does not know.
            epochs: how many there will have been after the last one planned, None if nobody knows.
            look: where the recorder's thread looks for the running epoch.
            control: the requests to this fit; None if nobody can ask.
        """
        self.recorder = recorder
        self._look = look or Look()
        self._control = control
        self._asked = () if control is None else control.pending
        self._thread = get_ident()
        self.last: EpochsEnded | None = None
        self._model = model
        self._callbacks = callbacks
        self._planned = steps
        self._epochs = epochs
        self._checkpoints = siblings.Checkpoints(time.time())
        self._epoch = 0
        self._is_open = False
        """Whether an epoch runs: a Monitor that stands twice in the list hears of each begin and end twice."""
        self._logs: dict[str, Any] = {}
        self._begun = self._progress_due = 0.0
        self._train = Steps()
        self._test: Steps | None = None
        self._test_begun = 0.0
        self._test_steps: int | None = None
        self._test_seconds: float | None = None
        self._is_first_epoch = True
        self._is_bad = False
        self._rate: float | dict[str, float | None] | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Also the end of the previous one, which by now all callbacks have seen."""
        epoch = _index(epoch)
        if self._is_open and epoch == self._epoch:
            return
        self._look_at_siblings()
        self._epoch, self._is_open = epoch, True
        self._begun = time.perf_counter()
        self._progress_due = self._begun + PROGRESS_S
        self._train, self._test, self._test_seconds = Steps(), None, None
        self._is_bad = False
        self._look.epoch, self._look.begun, self._look.rate = epoch, time.time(), None
        self._look.now = ("train", self._train, 0, self._planned, {})
        if self._asked:
            self._obey(At.EPOCH_BEGIN)

    def begin_step(self) -> None:
        """Before the first step of an epoch: by now every callback has set the learning rate it wants."""
        if self._asked:
            self._obey(At.STEP)
        if self._train.begun is None:
            self._train.begun = time.perf_counter()
            self._read_rate()

    def _read_rate(self) -> None:
        self._rate = None
        self._rate = learning_rates(getattr(self._model, "optimizer", None))
        self._look.rate = self._rate if isinstance(self._rate, float) else None

    def end_step(self, batch: int, logs: dict[str, Any]) -> None:
        """After a step of training: running means since the epoch began."""
        now = time.perf_counter()
        if batch.__class__ is not int:
            batch = _index(batch)
        is_furthest = self._train.ended(batch, now)
        if is_furthest and self._test is None:
            self._look.now = ("train", self._train, batch + 1, self._planned, logs)
        loss = logs.get("loss")
        if loss.__class__ is float and loss - loss != 0.0 and not self._is_bad:  # NaN or infinite
            self._is_bad = True
            self.recorder.put(NonFinite(time=time.time(), epoch=self._epoch, step=batch, metric="loss"))
        if is_furthest and now >= self._progress_due:
            self._report("train", self._train, batch + 1, self._planned, logs)
        if self._asked and get_ident() == self._thread:  # else: in this thread before the next step
            self._obey(At.STEP)

    def begin_test(self) -> None:
        """Validation begins."""
        self._test = Steps()
        self._test_begun = self._test.begun = time.perf_counter()
        self._test_steps = whole(
            getattr(getattr(self._model, "_eval_epoch_iterator", None), "num_batches", None)
        )
        if self._look.now is not None:
            self._look.now = ("validation", self._test, 0, self._test_steps, {})

    def begin_test_step(self) -> None:
        """Before a step of validation; in this thread on every backend."""
        if self._asked:
            self._obey(At.VALIDATION)

    def end_test_step(self, batch: int, logs: dict[str, Any]) -> None:
        """After a step of validation."""
        now = time.perf_counter()
        if batch.__class__ is not int:
            batch = _index(batch)
        if self._test is not None:
            is_furthest = self._test.ended(batch, now)
            if is_furthest and self._look.now is not None:
                self._look.now = ("validation", self._test, batch + 1, self._test_steps, logs)
            if is_furthest and now >= self._progress_due:
                self._report("validation", self._test, batch + 1, self._test_steps, logs)
        if self._asked and get_ident() == self._thread:
            self._obey(At.VALIDATION)

    def end_test(self) -> None:
        """Validation is over; a callback may start another one in the same epoch."""
        if self._test is not None:
            took = time.perf_counter() - self._test_begun
            self._test_seconds = took + (self._test_seconds or 0.0)
            self._test = None

    def _report(self, phase: str, steps: Steps, step: int, planned: int | None, logs: dict[str, Any]) -> None:
        """Record how far the epoch is; here alone a tensor of tf_keras becomes a number."""
        self._progress_due = time.perf_counter() + PROGRESS_S
        self.recorder.put(self._look.told(phase, steps, step, planned, logs))

    def _obey(self, at: At) -> None:
        """Do what watchers asked for, as far as it can be done here; in the training thread."""
        if self._control is not None:
            training = Training(self._model, self._callbacks, self._epoch)
            if self._control.obey(training, at):
                self._read_rate()  # what it ends with, unless it is changed again

    def end_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        """Record the epoch: all its logs, exactly."""
        epoch = _index(epoch)
        if epoch < 0:
            raise ValueError(f"a negative epoch, {epoch}")
        if not self._is_open and self.last and self.last.epochs == [epoch]:
            return
        self._is_open = False
        self._look.now = None
        if self._train.begun is None:  # an epoch without a batch
            self._train.begun = time.perf_counter()
            self._read_rate()
        several = self._rate if isinstance(self._rate, dict) else {}
        rates = {*LEARNING_RATE_KEYS, *(f"learning_rate_{name}" for name in several)}
        logged = {str(key): value for key, value in logs.items() if key not in rates}
        numbers = {name: number(value) for name, value in logged.items()}
        seconds = {
            "epoch": time.perf_counter() - self._begun,
            "validation": self._test_seconds,
            "step": self._train.mean_seconds(),
            "first_step": self._train.first_seconds() if self._is_first_epoch else None,
        }
        self.last = EpochsEnded(
            time=time.time(),
            epochs=[epoch],
            metrics={name: [value] for name, value in numbers.items()},
            learning_rate=[self._rate] if isinstance(self._rate, float) else None,
            learning_rates={name: [rate] for name, rate in several.items()},
            seconds={name: [round(took, 6)] for name, took in seconds.items() if took is not None},
            not_numbers=[name for name in logged if numbers[name] is None is not logged[name]],
        )
        self.recorder.put(self.last)
        self._logs = logs
        self._is_first_epoch = False
        if self._planned is None or self._look.is_learned:
            self._planned, self._look.is_learned = self._train.done or None, True
        self._obey(At.EPOCH_END)

    def end(self) -> None:
        """Record how it ended, by what the other callbacks tell."""
        self._look_at_siblings()
        is_stopped = bool(getattr(self._model, "stop_training", False))
        by = siblings.stopped_by(self._callbacks, self.last) if is_stopped else []
        if is_stopped and self._control is not None and (who := self._control.stopped_by):
            if self._is_whole() and not self._control.has_cut:
                is_stopped = bool(by)  # it did all that was planned: nobody stopped it
            else:
                by.append(who)
        restored = siblings.restored_epoch(self._callbacks)
        how = "stopped" if is_stopped else "finished"
        self.recorder.put(RunEnded(time=time.time(), how=how, by=by, restored=restored))

    def _is_whole(self) -> bool:
        """Whether the last epoch planned has ended."""
        return self.last is not None and self._epochs is not None and self.last.epochs[0] + 1 >= self._epochs

    def _look_at_siblings(self) -> None:
        """After an epoch: what its callbacks have counted and saved, at any place in the list."""
        if self.last is None or not self._callbacks:
            return
        epoch, now = self.last.epochs[0], time.time()
        if states := siblings.states(self._callbacks):
            self.recorder.put(CallbackStates(time=now, epoch=epoch, states=states))
        if paths := siblings.checkpoint_paths(self._callbacks, epoch, self._logs):
            self.recorder.put(partial(self._checkpoints.saved, epoch, paths, now))


def _index(number: Any) -> int:
    """The number of an epoch or a batch: a loop of one's own may have numpy's, or tensors."""
    return operator.index(number)
