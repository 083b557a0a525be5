"""What a metric's column is: its values over the epochs, its name, and which direction is better.

Pure and small; the fold (`run`), the policies and the views share it.
"""

from __future__ import annotations

import math
import re
import sys
from array import array
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import lru_cache

from cbmon.events import Values

MATERIAL = 0.01
"""An improvement by less than 1 % of the value is not told from noise, which sets a new best now and then in a flat
run too; published runs that learn steadily win 1 % every 1 to 41 epochs, even near their end."""
BLOCK = 256
"""Rows looked at in one step: large enough for C speed, small enough that one new row is not many."""
BULK_ROWS = 4096
"""Rows from which NumPy pays, once it is loaded."""
NAMES_KEPT = 1024
"""Names of which it is remembered what they mean: more than a screen of runs has, and a bound for a hostile log."""


class Column:
    """The values of one metric, one a row; `None` = absent (NA), NaN and ±inf are values.

    Owns two growing buffers, so that a million rows cost 9 MB and numpy can look at them without a copy.
    """

    __slots__ = ("_looks", "count", "first_non_finite", "present", "values")

    def __init__(self) -> None:
        self.values = array("d")
        """Shape (rows,); NaN where absent."""
        self.present = bytearray()
        """Shape (rows,); 1 where there is a value."""
        self.count = 0
        """Number of values present."""
        self.first_non_finite: int | None = None
        """The first row whose value is NaN or infinite."""
        self._looks: dict[Direction, _Look] = {}
        """What was seen of it so far, by direction."""

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> float | None:
        return self.values[row] if self.present[row] else None

    def __iter__(self) -> Iterator[float | None]:
        return (value if there else None for value, there in zip(self.values, self.present, strict=True))

    def __eq__(self, other: object) -> bool:
        """Equal to the bit: an absent value is not NaN, NaN is NaN."""
        if not isinstance(other, Column):
            return NotImplemented
        return self.present == other.present and self.values.tobytes() == other.values.tobytes()

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"Column({list(self)})"

    def extend(self, values: Values) -> None:
        """Append the values of a batch, in order."""
        before = len(self)
        if isinstance(values, array):
            self.values.extend(values)
            self.present.extend(b"\1" * len(values))
            self.count += len(values)
            if self.first_non_finite is None and not _is_finite(values):
                self.first_non_finite = next(
                    (row for row, value in enumerate(values, before) if not math.isfinite(value)), None
                )
        else:
            for value in values:
                if value is None:
                    self.values.append(math.nan)
                    self.present.append(0)
                else:
                    self.values.append(value)
                    self.present.append(1)
                    self.count += 1
                    if self.first_non_finite is None and not math.isfinite(value):
                        self.first_non_finite = len(self.values) - 1

    def pad(self, rows: int) -> None:
        """Append absent values until there are `rows`."""
        missing = rows - len(self)
        if missing > 0:
            self.values.extend(array("d", [math.nan]) * missing)
            self.present.extend(bytes(missing))

    def drop_last(self) -> None:
        """Take the last row out."""
        self.values.pop()
        self.count -= self.present.pop()
        self._looks.clear()
        if self.first_non_finite == len(self):
            self.first_non_finite = None

    def last(self) -> float | None:
        """The latest value present, None if there is none."""
        row = self.present.rfind(1)
        return None if row < 0 else self.values[row]

    def best(self, direction: Direction) -> int | None:
        """The row of the best finite value, the first of equal ones; None if no value is finite.

        Looks only at the rows that are new since the last call.
        """
        return self._look(direction).best

    def improved(self, direction: Direction) -> int | None:
        """The row of the latest material improvement: better than that of the one before it by `MATERIAL`.

        The first finite value is one. Looks only at the rows that are new since the last call.
        """
        return self._look(direction).improved

    def _look(self, direction: Direction) -> _Look:
        look = self._looks.get(direction)
        if look is None:
            look = self._looks[direction] = _Look(direction)
        if look.rows < len(self):
            look.on(self.values, self.first_non_finite is None and self.count == len(self))
        return look


def has_numpy(rows: int) -> bool:
    """Whether so many rows are looked at through NumPy: where it is loaded anyway, it is not loaded for this.

    The answers are the same. A large log is loaded in half of the time of the thread that draws.
    """
    return rows >= BULK_ROWS and numpy_is_loaded()


def numpy_is_loaded() -> bool:
    """Whether NumPy is there as a whole: who imports what another thread is importing waits for that thread."""
    spec = getattr(sys.modules.get("numpy"), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)  # as the import system itself asks


def _is_finite(values: array[float]) -> bool:
    """Whether all values are finite."""
    if has_numpy(len(values)):
        import numpy as np

        return bool(np.isfinite(np.frombuffer(values)).all())
    # The sum of finite values is finite, and ten times as fast; where it is not, they are looked at.
    return math.isfinite(sum(values)) or all(map(math.isfinite, values))


class _Look:
    """The best value of a column and its latest material improvement, kept while it grows."""

    __slots__ = ("_limit", "_lowest", "_sign", "best", "improved", "rows")

    def __init__(self, direction: Direction) -> None:
        self.rows = 0
        """Rows seen."""
        self.best: int | None = None
        self.improved: int | None = None
        self._sign = 1.0 if direction is Direction.MIN else -1.0
        self._lowest = math.inf
        """Best value, by its sign such that lower is better; the limit too."""
        self._limit = math.inf
        """Below it an improvement is material."""

    def on(self, values: array[float], is_finite: bool) -> None:
        """See the rows that are new; most blocks of a long column hold no new best and cost one `min`."""
        sign = self._sign
        pick = min if sign > 0 else max
        if has_numpy(len(values) - self.rows):
            self._on_blocks(values, is_finite)
        for start in range(self.rows, len(values), BLOCK):
            block = values[start : start + BLOCK]
            lowest = sign * pick(
                block if is_finite else filter(math.isfinite, block), default=sign * math.inf
            )
            if lowest < self._lowest:
                self.best, self._lowest = start + block.index(sign * lowest), lowest
                if lowest < self._limit:
                    self._improve(start, block)
        self.rows = len(values)

    def _on_blocks(self, values: array[float], is_finite: bool) -> None:
        """See all whole blocks: NumPy finds the few that hold a new best."""
        import numpy as np

        starts = range(self.rows, len(values) - BLOCK + 1, BLOCK)
        blocks = np.frombuffer(values)[starts[0] : starts[-1] + BLOCK].reshape(-1, BLOCK)
        if not is_finite:
            blocks = np.where(np.isfinite(blocks), blocks, self._sign * np.inf)
        lowest = self._sign * (blocks.min(axis=1) if self._sign > 0 else blocks.max(axis=1))
        before = np.minimum.accumulate(np.concatenate(([self._lowest], lowest[:-1])))
        start = None
        for found in np.flatnonzero(lowest < before).tolist():
            start, self._lowest = starts[found], float(lowest[found])
            if self._lowest < self._limit:
                self._improve(start, values[start : start + BLOCK])
        if start is not None:
            self.best = values.index(self._sign * self._lowest, start)
        self.rows = starts[-1] + BLOCK

    def _improve(self, start: int, block: array[float]) -> None:
        sign, limit = self._sign, self._limit
        for row, value in enumerate(block, start):
            signed = sign * value
            if signed < limit and signed - signed == 0.0:  # finite
                self.improved = row
                limit = signed - MATERIAL * room(signed)
        self._limit = limit


def room(signed: float) -> float:
    """What an improvement of a value is measured by, given by a sign such that lower is better; 0 at its end.

    Of an accuracy or another share of 1 near its top that is what is missing: 0.990 to 0.995 halves the error.
    """
    size = abs(signed)
    return min(size, 1.0 - size) if -1.0 <= signed <= 0.0 else size


class Direction(Enum):
    """Which way a metric gets better."""

    MIN = "min"
    MAX = "max"


_MAX = """acc accuracy binary_accuracy categorical_accuracy sparse_categorical_accuracy top_k_categorical_accuracy
    sparse_top_k_categorical_accuracy auc precision recall precision_at_recall recall_at_precision
    sensitivity_at_specificity specificity_at_sensitivity f1_score fbeta_score r2_score cosine_similarity
    concordance_correlation pearson_correlation io_u mean_io_u binary_io_u one_hot_io_u one_hot_mean_io_u"""
_MIN = """loss mse mae mape msle mean_squared_error mean_absolute_error mean_absolute_percentage_error
    mean_squared_logarithmic_error root_mean_squared_error logcosh hinge squared_hinge categorical_hinge poisson
    kl_divergence bce binary_crossentropy categorical_crossentropy sparse_categorical_crossentropy"""
KERAS_DIRECTIONS = dict.fromkeys(_MAX.split(), Direction.MAX) | dict.fromkeys(_MIN.split(), Direction.MIN)
"""Default names of Keras' own metrics that carry a direction (read off Keras 3.15's metric classes)."""

_COMMON_DIRECTIONS = (
    KERAS_DIRECTIONS
    | dict.fromkeys(
        ("auroc", "auprc", "f1", "dice", "dice_coef", "iou", "jaccard", "map50", "map50-95", "psnr", "ssim"),
        Direction.MAX,
    )
    | dict.fromkeys(("rmse", "perplexity", "error", "wer", "cer"), Direction.MIN)
)
"""Names that people use with one meaning only. For display; Keras itself would not resolve the added ones."""

_LEARNING_RATES = ("lr", "learning_rate")
_SPLIT = re.compile(r"^(?P<split>val|valid|validation|dev|train)(?:[_ /.-])(?P<base>.+)$", re.IGNORECASE)


def is_learning_rate(name: str) -> bool:
    """Whether a column of this name holds the learning rate rather than a metric."""
    return name.casefold() in _LEARNING_RATES


@lru_cache(NAMES_KEPT)
def base_name(name: str) -> str:
    """The metric's name without its split: "val_loss", "train/loss" and "validation loss" are all "loss"."""
    match = _SPLIT.match(name)
    return match["base"] if match else name


@lru_cache(NAMES_KEPT)
def is_validation(name: str) -> bool:
    """Whether the column was measured on held-out data, by its prefix."""
    match = _SPLIT.match(name)
    return match is not None and match["split"].casefold() != "train"


@lru_cache(NAMES_KEPT)
def is_loss(name: str) -> bool:
    """Whether the column is a loss: "loss", "val_loss", "decoder_loss", "train/box_loss"."""
    return re.search(r"(?:^|[_ /.-])loss(?:_\d+)?$", name, re.IGNORECASE) is not None


@lru_cache(NAMES_KEPT)
def direction(name: str) -> Direction | None:
    """Which way this metric gets better, None where its name does not tell.

    The split and a de-duplication suffix (`auc_1`) are ignored, and an output's name in front
    (`decoder_mse`). A guess for display: what Keras' own `mode="auto"` does is in `policies`.
    """
    base = re.sub(r"_\d+$", "", base_name(name).casefold())
    while base:
        if base in _COMMON_DIRECTIONS:
            return _COMMON_DIRECTIONS[base]
        base = re.sub(r"^[^_ /.-]*[_ /.-]?", "", base)
    return None


def headline(names: Iterable[str]) -> str | None:
    """The metric a run is judged by: validation loss, else loss, else any loss, else what has a direction."""
    return _headline(tuple(names))


@lru_cache(NAMES_KEPT)
def _headline(names: tuple[str, ...]) -> str | None:
    ranks = (
        lambda name: name == "val_loss",
        lambda name: is_validation(name) and base_name(name).casefold() == "loss",
        lambda name: base_name(name).casefold() == "loss",
        lambda name: is_validation(name) and is_loss(name),
        is_loss,
        lambda name: direction(name) is not None,
        lambda name: True,
    )
    return next((name for rank in ranks for name in names if rank(name)), None)
