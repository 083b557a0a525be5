"""What watchers ask a training to do: taken by the recorder's thread, done by the training's between two batches.

Whatever goes wrong is the answer to who asked; nothing of it reaches `fit`. What was done stands in the record.
Model, optimizer and callbacks are known by the names of their classes, so that no Keras is imported.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from cbmon.callbacks import facts
from cbmon.endpoint import Answer, Ask
from cbmon.events import CheckpointSaved, ControlApplied, RecordedEvent, StopRequested

PENDING_MAX = 16
"""Requests that wait for the training thread."""

RATE_MAX = 3.4e38
"""A larger learning rate is infinite to a float32 optimizer."""

NAMES_MAX = 1000
"""Names tried for a new file: who asks for a save each minute gets there in a day."""

WHY_MAX = 200
"""Characters of somebody's error in an answer."""

_WHOLE, _WEIGHTS = ".keras", ".weights.h5"

_PART = ".cbmon-"
"""How the name of a file begins that is being written."""

LEFT_S = 24 * 3600.0
"""A file that was being written and has not changed for so long was left by a process that was killed."""

Work: TypeAlias = Callable[[], Iterable[RecordedEvent]]


class At(Enum):
    """Where the training thread is."""

    STEP = auto()
    """Before or after a step of training: its state is whole."""
    VALIDATION = auto()
    """On JAX the model's variables are not its own now."""
    EPOCH_BEGIN = auto()
    """Callbacks that come later in the list may still set the learning rate."""
    EPOCH_END = auto()


_PLACES = {
    "stop": frozenset(At),
    "stop_now": frozenset(At),
    "lr": frozenset({At.STEP}),
    "save": frozenset({At.STEP, At.EPOCH_END}),
}


class Refused(Exception):
    """A request that is not carried out; the text says why, to who asked."""


@dataclass(frozen=True, slots=True)
class Request:
    """An `Ask`, who asked it, and where the answer goes: `reply` belongs into the recorder's thread."""

    ask: Ask
    who: str
    reply: Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class Training:
    """What a request is about."""

    model: Any
    siblings: list[Any]
    epoch: int


class Recorder(Protocol):
    """What takes events, and work that gives events, for its thread."""

    path: Path

    def put(self, event: RecordedEvent | Work) -> None:
        """Hand over; returns at once."""


class Control:
    """The requests to one fit."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Take none yet; `say` tells the user, in the recorder's thread."""
        self.pending: deque[Request] = deque()
        """Asked and not done; looked at by each batch."""
        self.stopped_by = ""
        """Who stopped the fit."""
        self.has_cut = False
        """Whether that was before the epoch's last step."""
        self._has_set_rate = False
        self._recorder: Recorder | None = None
        self._beside: Path | None = None
        self._say = say
        self._after_epoch: Request | None = None
        self._is_over = False

    def connect(self, recorder: Recorder, beside: Path | None = None) -> None:
        """Where answers and events go.

        Checkpoints are saved beside its file; or beside another one, of a run that has none: a socket's folder may
        be in memory.
        """
        self._recorder, self._beside = recorder, beside

    def _put(self, event: RecordedEvent | Work) -> None:
        if self._recorder is not None:
            self._recorder.put(event)

    def take(self, request: Request) -> str:
        """In the recorder's thread: let a request wait for the training. Returns why not, "" if it does."""
        if self._is_over:
            return "the fit has ended"
        if len(self.pending) >= PENDING_MAX:
            return "too many requests wait for the training already"
        if request.ask.what not in _PLACES:
            return f"this version of cbmon knows no {request.ask.what[:100]!r}"
        self.pending.append(request)
        return ""

    def rest(self) -> list[Request]:
        """In the recorder's thread: the fit has ended; what nobody will do any more."""
        self._is_over = True
        left = []
        with suppress(IndexError):
            while True:
                left.append(self.pending.popleft())
        return left

    def obey(self, training: Training, at: At) -> bool:
        """In the training thread: do what can be done here; the rest goes on waiting, in its order.

        Returns whether the learning rate was set.
        """
        self._has_set_rate = False
        later = []
        for _ in range(len(self.pending)):
            try:
                request = self.pending.popleft()
            except IndexError:
                break
            if at in _PLACES[request.ask.what]:
                self._do(request, training, at)
            else:
                later.append(request)
        self.pending.extendleft(reversed(later))
        if at is At.EPOCH_END and self._after_epoch is not None:
            self._stop(training, self._after_epoch)
            self._after_epoch = None
        return self._has_set_rate

    def _do(self, request: Request, training: Training, at: At) -> None:
        what = request.ask.what
        try:
            if what != "save" and facts.is_one_of_several(training.model):
                raise Refused("several processes train this model together: changing one would part them")
            if what == "lr":
                answer = self._set_rate(request, training)
            elif what == "save":
                answer = self._save(request, training)
            else:
                answer = self._end(request, training, at)
        except Exception as error:  # noqa: BLE001  # law 5: it costs the request, whatever it is
            words = str(error) if isinstance(error, Refused) else f"it failed: {error!r}"[:1000]
            answer = Answer(id=request.ask.id, done=False, words=words)
        self._put(partial(self._reply, request, answer))

    def _reply(self, request: Request, answer: Answer) -> Iterable[RecordedEvent]:
        """In the recorder's thread."""
        request.reply(answer)
        self._say(f"{request.who} asked for {_named(request.ask)}: {answer.words}")
        return ()

    def _end(self, request: Request, training: Training, at: At) -> Answer:
        """Stop the fit, now or after this epoch. Keras looks at the flag after each batch and after each epoch."""
        what, epoch = request.ask.what, training.epoch
        if what == "stop" and at is not At.EPOCH_END:
            if self._after_epoch is None:
                self._after_epoch = request
            words = f"training ends after epoch {epoch + 1}"
        else:
            self._stop(training, request)
            self.has_cut |= at in (At.STEP, At.EPOCH_BEGIN)
            words = {
                At.STEP: f"training ends with this batch; epoch {epoch + 1} is validated and logged as it is",
                At.VALIDATION: f"training ends after the validation of epoch {epoch + 1}, which goes on",
                At.EPOCH_BEGIN: f"training ends after one batch of epoch {epoch + 1}",
                At.EPOCH_END: f"training ends now, after epoch {epoch + 1}",
            }[at]
        self._put(ControlApplied(time=time.time(), epoch=epoch, command=what, by=request.who))
        return Answer(id=request.ask.id, done=True, words=words)

    def _stop(self, training: Training, request: Request) -> None:
        training.model.stop_training = True
        self.stopped_by = request.who
        self._put(
            StopRequested(
                time=time.time(), epoch=training.epoch, by=[request.who], reason="asked for by a watcher"
            )
        )

    def _set_rate(self, request: Request, training: Training) -> Answer:
        ask = request.ask
        _sync(training.model)  # first: until then an optimizer's schedule cannot even be looked at
        optimizers = _optimizers(training.model)
        before = [_rate(each) for each in optimizers]
        after = _wanted(ask, before)
        try:
            for each, rate in zip(optimizers, after, strict=True):
                each.learning_rate = rate
        except Exception as error:
            for each, rate in zip(optimizers, before, strict=True):
                with suppress(Exception):
                    each.learning_rate = rate
            raise Refused(f"the optimizer takes no other learning rate: {error!r}"[:1000]) from error
        self._has_set_rate = True
        held = [_rate(each) for each in optimizers]
        old, new = (before[0], held[0]) if len(optimizers) == 1 else (None, None)
        self._put(
            ControlApplied(
                time=time.time(), epoch=training.epoch, command="lr", by=request.who, old=old, new=new
            )
        )
        changes = ", ".join(f"{one:.4g} → {other:.4g}" for one, other in zip(before, held, strict=True))
        words = "; ".join([f"learning rate {changes}", *_remarks(training.siblings)])
        return Answer(id=ask.id, done=True, words=words, old=old, new=new)

    def _save(self, request: Request, training: Training) -> Answer:
        if facts.is_one_of_several(training.model):
            raise Refused("several processes train this model together: to save it all of them have to")
        _sync(training.model)
        path, reason = _save(training.model, self._target(request.ask, training.epoch))
        now = time.time()
        self._put(ControlApplied(time=now, epoch=training.epoch, command="save", by=request.who))
        self._put(CheckpointSaved(time=now, epoch=training.epoch, path=str(path)))
        words = f"saved {path}" + (f", the weights alone ({reason})" if reason else "")
        return Answer(id=request.ask.id, done=True, words=words, path=str(path))

    def _target(self, ask: Ask, epoch: int) -> Path:
        """Where to save: what was asked for, else a name beside the record."""
        if ask.path is not None:
            path = Path(ask.path)
            if not path.is_absolute() or not path.name.endswith((_WHOLE, _WEIGHTS)):
                raise Refused(f"a model is saved to an absolute path ending in {_WHOLE} or {_WEIGHTS}")
            return path
        assert self._recorder is not None
        record = (self._beside or self._recorder.path).absolute()
        return record.with_name(f"{record.stem}-epoch{epoch + 1}{_WHOLE}")


def _named(ask: Ask) -> str:
    """A request in short, for a line on stderr."""
    if ask.what == "lr":
        return f"learning rate {f'x{ask.scale:.4g}' if ask.value is None else f'{ask.value:.4g}'}"
    return {"stop": "a stop after this epoch", "stop_now": "a stop now", "save": "a save"}[ask.what]


def _sync(model: Any) -> None:
    """On JAX the trained state is not in the model until it is asked for; the next step then starts from there."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def _optimizers(model: Any) -> list[Any]:
    """The optimizers with a rate of their own that can be set.

    Raises:
        Refused: there is none, or one that a schedule decides about.
    """
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # a LossScaleOptimizer's own rate is 0
    several = getattr(optimizer, "optimizers", None)
    found = list(several) if isinstance(several, list | tuple) and several else [optimizer]
    for each in found:
        if each is None or not hasattr(each, "learning_rate"):
            raise Refused("this model has no optimizer with a learning rate")
        held = getattr(each, "_learning_rate", None)
        held = each.learning_rate if held is None else held
        is_schedule = any(kind.__name__ == "LearningRateSchedule" for kind in type(held).__mro__)
        # A variable of Keras' is no function; a function was read when the step was compiled.
        if is_schedule or callable(held):
            raise Refused(
                f"the optimizer's learning rate comes from {type(held).__name__} at every step: "
                "it cannot be set from outside"
            )
    return found


def _rate(optimizer: Any) -> float:
    rate = facts.learning_rate(optimizer)
    if rate is None:
        raise Refused("the optimizer does not tell its learning rate")
    return rate


def _wanted(ask: Ask, before: list[float]) -> list[float]:
    """The new rates.

    Raises:
        Refused: what was asked for is no learning rate, or of which optimizer is not clear.
    """
    if (ask.value is None) == (ask.scale is None):
        raise Refused("a learning rate needs a value or a factor, one of the two")
    if ask.value is not None:
        if len(set(before)) > 1:
            rates = ", ".join(f"{rate:.4g}" for rate in before)
            raise Refused(
                f"{len(before)} optimizers have rates of their own ({rates}): give a factor, such as x0.5"
            )
        after = [ask.value] * len(before)
    else:
        after = [rate * (ask.scale or 0.0) for rate in before]
    if not all(math.isfinite(rate) and 0 <= rate <= RATE_MAX for rate in after):
        raise Refused("a learning rate is a number from 0 on")
    return after


def _remarks(siblings: list[Any]) -> list[str]:
    """What the fit's other callbacks will make of a new rate."""
    names = {kind.__name__ for each in siblings for kind in type(each).__mro__}
    remarks = []
    if "LearningRateScheduler" in names:
        remarks.append("LearningRateScheduler sets it again at the next epoch")
    if "ReduceLROnPlateau" in names:
        remarks.append("ReduceLROnPlateau goes on from it")
    return remarks


def _save(model: Any, target: Path) -> tuple[Path, str]:
    """Save under this name or the next free one; else the weights alone, and why. Nothing is overwritten.

    Raises:
        Refused: neither can be saved.
    """
    _look_into(target.parent)
    try:
        if not target.name.endswith(_WHOLE):
            return _saved(model.save_weights, target, _WEIGHTS), ""
        return _saved(model.save, target, _WHOLE), ""
    except Refused:
        raise
    except Exception as error:
        whole = _why(error)
        if not target.name.endswith(_WHOLE):
            raise Refused(f"the weights cannot be saved: {whole}") from error
    weights = target.with_name(target.name.removesuffix(_WHOLE) + _WEIGHTS)
    try:
        return _saved(model.save_weights, weights, _WEIGHTS), f"the model cannot be saved: {whole}"
    except Refused:
        raise
    except Exception as error:
        also = "" if _why(error) == whole else f"; nor its weights: {_why(error)}"
        raise Refused(f"the model cannot be saved: {whole}{also}") from error


def _look_into(folder: Path) -> None:
    """See whether a file can be made in this folder, and clear away what killed processes left there.

    Raises:
        Refused: it cannot.
    """
    if not folder.is_dir():
        raise Refused(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Refused(f"{folder}: not writable")
    for left in folder.glob(f"{_PART}*"):
        with suppress(OSError):
            if left.name.endswith((_WHOLE, _WEIGHTS)) and time.time() - left.stat().st_mtime > LEFT_S:
                left.unlink()


def _why(error: Exception) -> str:
    """An error in short, as the answer to who asked for a save."""
    told = getattr(error, "strerror", None)
    words = told if isinstance(told, str) else f"{type(error).__name__}: {error}"
    return words if len(words) <= WHY_MAX else f"{words[:WHY_MAX]}…"


def _saved(save: Callable[[str], object], target: Path, suffix: str) -> Path:
    """Write beside the target, then take the name: a reader never finds half a file."""
    part = target.with_name(f"{_PART}{secrets.token_hex(8)}{suffix}")
    stem = target.name.removesuffix(suffix)
    try:
        save(str(part))
        for number in range(1, NAMES_MAX):
            path = target if number == 1 else target.with_name(f"{stem}-{number}{suffix}")
            if _took_name(part, path):
                return path
        raise Refused(f"{target} and {NAMES_MAX} other names exist already")
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _took_name(part: Path, path: Path) -> bool:
    """Give a file its name unless that is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: the name is taken first
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return False
        try:
            part.replace(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return True
