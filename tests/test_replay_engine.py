"""The replay: order, learning rate, exactness, refusals, the JSON document and the table for people."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from cbmon.policies import float32
from cbmon.profiles import PROFILES
from cbmon.replay.calls import parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.report import WIDTH, report
from cbmon.replay.results import Decisions, Replay, document
from cbmon.run import Attempt

NAN, INF = math.nan, math.inf
Values = list[float | None]


@dataclass(kw_only=True)
class Log:
    """A recorded attempt in lists."""

    metrics: dict[str, Values]
    epochs: list[int] = field(default_factory=list)
    learning_rate: Values | None = None
    not_numbers: set[str] = field(default_factory=set)
    phantoms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.epochs = self.epochs or list(range(len(next(iter(self.metrics.values()), []))))

    @property
    def columns(self) -> list[str]:
        return [*self.metrics, *self.phantoms]


def log(*values: float | None, **metrics: Values) -> Log:
    """`val_loss` as given, `loss` all ones."""
    return Log(metrics={"loss": [1.0] * len(values), "val_loss": list(values), **metrics})


def run(recording: Log | Attempt, text: str, keras: str = "3.15", **options: Any) -> Replay:
    profile = PROFILES[keras]
    return replay(recording, parse_calls(text, profile), profile, log="training.log", **options)


def decide(recording: Log | Attempt, text: str, keras: str = "3.15", **options: Any) -> Decisions:
    result = run(recording, text, keras, **options)
    assert result.error is None, result.error
    assert result.decisions is not None
    return result.decisions


def saved(made: Decisions) -> list[int]:
    return [epoch for epoch, _ in made.checkpoints]


FLAT = log(*[1.0] * 4)
TENTHS = [0.10000000149011612, 0.05000000074505806, 0.02500000037252903, 0.012500000186264515]
HALVES = "ReduceLROnPlateau(mode='min', patience=1, factor=0.5)"


# --- stopping -------------------------------------------------------------------------------------


def test_a_stop_names_its_epoch_and_counts_the_epochs_trained() -> None:
    made = decide(log(1, 0.9, 1, 1, 0.8), "EarlyStopping(patience=2)")
    assert made.stopped is not None
    assert (made.stopped.epoch, made.stopped.by, made.stopped.exact) == (3, ("EarlyStopping",), True)
    assert (made.epochs_replayed, made.exact, made.diverges_at) == (4, True, None)


def test_what_never_fires_stops_nothing() -> None:
    made = decide(log(1, 0.9, 0.8), "EarlyStopping(patience=2); TerminateOnNaN()")
    assert (made.stopped, made.epochs_replayed, made.exact) == (None, 3, True)


def test_a_stop_in_the_last_recorded_epoch_is_a_stop() -> None:
    made = decide(log(1, 1), "EarlyStopping(patience=1)")
    assert made.stopped is not None
    assert made.epochs_replayed == 2


def test_trap_9_epochs_are_absolute_and_may_have_gaps() -> None:
    late = Log(metrics={"val_loss": [1, 2, 3, 4]}, epochs=[2, 3, 5, 6])
    made = decide(late, "EarlyStopping(patience=1, start_from_epoch=3)")
    assert made.stopped is not None
    assert (made.stopped.epoch, made.epochs_replayed) == (5, 3)


def test_trap_10_and_42_an_absent_value_is_passed_over_and_nan_is_not() -> None:
    absent = decide(log(1, None, None, 0.8), "EarlyStopping(patience=2)")
    nan = decide(log(1, NAN, NAN, 0.8), "EarlyStopping(patience=2)")
    assert absent.stopped is None
    assert nan.stopped is not None
    assert nan.stopped.epoch == 2


def test_gaps_are_one_warning_a_callback() -> None:
    result = run(log(1, None, 0.9, None, 0.8), "EarlyStopping(patience=2, start_from_epoch=4)")
    assert result.warnings == (
        "EarlyStopping: 'val_loss' is absent 2 times in 5 epochs; Keras only warns and passes over it",
    )


def test_trap_15_all_that_stop_in_one_epoch_are_named() -> None:
    both = "EarlyStopping(patience=1); EarlyStopping(patience=0); TerminateOnNaN()"
    made = decide(log(1, 1, 1, loss=[1.0, NAN, 1.0]), both)
    assert made.stopped is not None
    assert made.stopped.by == ("EarlyStopping", "EarlyStopping", "TerminateOnNaN")
    assert [member.stopped_epoch for member in made.members] == [1, 1, 1]


def test_trap_16_a_metric_that_is_not_there_warns_or_is_refused() -> None:
    result = run(FLAT, "EarlyStopping(monitor='val_acc', mode='max')")
    assert result.decisions is not None
    assert result.decisions.stopped is None
    assert result.warnings == (
        "EarlyStopping: 'val_acc' is not in this log; Keras only warns, so it never stops; "
        "this log has loss, val_loss.",
    )
    refused = str(run(FLAT, "EarlyStopping(monitor='val_los')").error)
    assert refused.endswith("or mode='max'; this log has loss, val_loss. Did you mean val_loss?")


def test_trap_17_a_loss_of_several_outputs() -> None:
    outputs = Log(metrics={"a_loss": [1.0, 1.0], "val_a_loss": [1.0, 1.0]})
    assert run(outputs, "EarlyStopping(monitor='val_a_loss')").error
    assert decide(outputs, "EarlyStopping(monitor='val_a_loss')", "2").stopped


def test_trap_41_phantom_columns_are_absent_metrics() -> None:
    phantom = Log(metrics={"loss": [1.0, 1.0, 1.0]}, phantoms=("val_loss",))
    result = run(phantom, "EarlyStopping(patience=1)")
    assert result.decisions is not None
    assert result.decisions.stopped is None
    assert "'val_loss' is not in this log" in result.warnings[0]


def test_trap_47_a_monitored_column_of_lists_is_an_error() -> None:
    lists = log(1.0, 0.9)
    lists.not_numbers = {"val_loss"}
    assert "lists or text" in str(run(lists, "EarlyStopping()").error)
    assert "lists or text" in str(run(lists, "ModelCheckpoint('m.keras', save_best_only=True)").error)
    assert run(lists, "ModelCheckpoint('m.keras')").error is None
    assert run(lists, "EarlyStopping(monitor='loss')").error is None


def test_trap_52_terminate_on_nan_keeps_the_epoch() -> None:
    made = decide(log(1, 0.9, 0.8, loss=[1.0, INF, 1.0]), "TerminateOnNaN(); ModelCheckpoint('m.keras')")
    assert made.stopped is not None
    assert (made.stopped.epoch, made.epochs_replayed, saved(made)) == (1, 2, [0, 1])
    assert decide(log(1, NAN, 0.8), "TerminateOnNaN()").stopped is None, "val_loss does not count"


def test_trap_52_raise_error_leaves_no_row_for_the_epoch() -> None:
    nan = log(1, 0.9, 0.8, loss=[1.0, 1.0, NAN])
    text = "LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1)); TerminateOnNaN(raise_error=True)"
    result = run(nan, text + "; EarlyStopping(restore_best_weights=True)")
    made = result.decisions
    assert made is not None
    assert made.stopped is not None
    assert (made.stopped.epoch, made.stopped.by) == (2, ("TerminateOnNaN",))
    assert made.epochs_replayed == 2
    assert made.learning_rate == (float32(0.1), float32(0.05))
    assert made.learning_rate_next == float32(0.05)
    assert made.members[-1].restored_epoch is None
    assert any("raises within epoch 3" in warning for warning in result.warnings)


# --- learning rate --------------------------------------------------------------------------------


def test_trap_20_one_rate_an_epoch_and_the_next() -> None:
    made = decide(FLAT, HALVES, learning_rate=0.1)
    assert made.learning_rate == (TENTHS[0], *TENTHS[:3])
    assert made.learning_rate_next == TENTHS[3]
    assert made.cuts == ((1, 0.5), (2, 0.5), (3, 0.5))


def test_trap_35_what_a_checkpoint_sees_of_the_rate_depends_on_the_order() -> None:
    identity, path = (
        "LearningRateScheduler(lambda epoch, lr: lr)",
        "ModelCheckpoint('{learning_rate:.4f}.keras')",
    )
    after = decide(FLAT, f"{HALVES}; {identity}; {path}", learning_rate=0.1)
    before = decide(FLAT, f"{identity}; {HALVES}; {path}", learning_rate=0.1)
    assert [name for _, name in after.checkpoints] == [
        f"{rate}.keras" for rate in ("0.1000", "0.0500", "0.0250", "0.0125")
    ]
    assert [name for _, name in before.checkpoints] == [
        f"{rate}.keras" for rate in ("0.1000", "0.1000", "0.0500", "0.0250")
    ]
    assert after.learning_rate == before.learning_rate


def test_trap_36_a_schedule_undoes_the_cut_at_the_next_epoch() -> None:
    made = decide(FLAT, f"LearningRateScheduler(lambda epoch: 0.1); {HALVES}", learning_rate=0.1)
    assert made.learning_rate == (TENTHS[0],) * 4
    assert made.learning_rate_next == TENTHS[1]


def test_trap_38_without_a_rate_cuts_are_relative_and_a_decision_asks() -> None:
    made = decide(FLAT, HALVES)
    assert (made.learning_rate, made.learning_rate_next) == (None, None)
    assert made.cuts == ((1, 0.5), (2, 0.5), (3, 0.5))
    assert made.exact is None
    for text in (
        "ReduceLROnPlateau(patience=1, min_lr=1e-5)",
        "LearningRateScheduler(lambda epoch, lr: lr * 0.9)",
        f"{HALVES}; ModelCheckpoint('{{learning_rate}}.keras')",
        f"{HALVES}; EarlyStopping(monitor='learning_rate', mode='min')",
    ):
        assert "--learning-rate" in str(run(FLAT, text).error), text


def test_the_rate_is_asked_for_only_when_a_decision_needs_it() -> None:
    floor = "ReduceLROnPlateau(patience=2, min_lr=1e-5)"
    assert run(log(1, 0.9, 0.8), floor).error is None, "it never cuts"
    known = decide(FLAT, f"LearningRateScheduler(lambda epoch: 0.1); {floor}")
    assert known.learning_rate == (TENTHS[0],) * 4
    made = decide(FLAT, "ReduceLROnPlateau(patience=1, factor=0)")
    assert (made.cuts, made.learning_rate) == (((1, 0.0),), None), "then the rate is 0, and nothing is cut"


def test_a_given_rate_is_in_effect_throughout() -> None:
    made = decide(FLAT, "EarlyStopping(patience=9)", learning_rate=0.1)
    assert (made.learning_rate, made.learning_rate_next) == ((TENTHS[0],) * 4, TENTHS[0])


def test_the_recorded_rate_stands_where_no_callback_sets_it() -> None:
    recorded = log(1, 1, 1)
    recorded.learning_rate = [0.1, 0.01, 0.001]
    made = decide(recorded, "EarlyStopping(patience=1)")
    assert (made.learning_rate, made.learning_rate_next, made.exact) == ((0.1, 0.01), 0.01, True)


def test_a_listed_callback_starts_from_the_first_recorded_rate() -> None:
    recorded = log(1, 1, 1, 1)
    recorded.learning_rate = [0.1, 0.1, 0.1, 0.1]
    result = run(recorded, HALVES, learning_rate=5.0)
    made = result.decisions
    assert made is not None
    assert made.learning_rate == (TENTHS[0], *TENTHS[:3])
    assert (made.exact, made.diverges_at) == (False, 2)
    assert result.warnings == ("--learning-rate is not used: this log has its own",)


def test_the_run_that_made_the_same_cuts_is_exact() -> None:
    recorded = log(1, 1, 1, 1)
    recorded.learning_rate = [0.1, 0.1, 0.05, 0.025]
    made = decide(recorded, HALVES + "; EarlyStopping(patience=3)")
    assert (made.exact, made.diverges_at) == (True, None)
    assert made.stopped is not None
    assert made.stopped.exact


@pytest.mark.parametrize("text", ["0.01", "0.009999999776482582"])
def test_trap_40_recorded_rates_compare_as_float32(text: str) -> None:
    recorded = log(1, 1)
    recorded.learning_rate = [float(text)] * 2
    assert decide(recorded, "LearningRateScheduler(lambda epoch: 0.01)").exact is True


def test_a_stop_after_another_rate_took_effect_is_not_exact() -> None:
    stopping = "EarlyStopping(patience={})"
    for recorded, patience, exact, whole in (
        (None, 1, True, None),  # the cut comes after the very epoch that stops
        (None, 2, False, None),
        ([0.1] * 4, 1, True, True),
        ([0.1] * 4, 2, False, False),
    ):
        trained = log(1, 1, 1, 1)
        trained.learning_rate = recorded  # type: ignore[assignment]
        made = decide(trained, f"{HALVES}; {stopping.format(patience)}")
        assert made.stopped is not None
        assert (made.stopped.exact, made.exact) == (exact, whole), (recorded, patience)


def test_without_a_cut_a_list_with_a_plateau_is_exact() -> None:
    assert decide(log(1, 0.9, 0.8), HALVES).exact is True


def test_a_cut_at_the_floor_has_its_own_factor() -> None:
    made = decide(
        FLAT, "ReduceLROnPlateau(mode='min', patience=1, factor=0.1, min_lr=0.03)", learning_rate=0.1
    )
    ((epoch, factor),) = made.cuts
    assert (epoch, round(factor, 6)) == (1, 0.3)


def test_trap_32_a_refused_constructor_is_that_results_error() -> None:
    assert "factor >= 1.0" in str(run(FLAT, "ReduceLROnPlateau(factor=1.0)").error)


def test_many_cuts_of_an_unknown_rate_warn_of_underflow() -> None:
    result = run(log(*[1.0] * 60), "ReduceLROnPlateau(patience=1)")
    assert [warning for warning in result.warnings if "may be 0 in float32" in warning]


def test_epochs_that_start_late_report_where_they_diverge() -> None:
    late = Log(metrics={"val_loss": [1, 1, 1, 1]}, epochs=[3, 4, 6, 7], learning_rate=[0.1] * 4)
    result = run(late, HALVES)
    assert result.decisions is not None
    assert result.decisions.diverges_at == 6
    assert report([result], PROFILES["3.15"])[2].startswith("  Exact to epoch 5. From 7 on the learning rate")


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_path_sees_the_epoch_1_based_and_its_metrics() -> None:
    made = decide(log(0.5, NAN), "ModelCheckpoint('{epoch:03d}-{val_loss:.2f}.keras')")
    assert made.checkpoints == ((0, "001-0.50.keras"), (1, "002-nan.keras"))


@pytest.mark.parametrize("path", ["{val_acc}.keras", "{learning_rate}.keras", "{batch}.keras"])
def test_an_unknown_placeholder_is_a_key_error_even_if_nothing_would_be_saved(path: str) -> None:
    text = f"ModelCheckpoint({path!r}, save_best_only=True, initial_value_threshold=0.0); {HALVES}"
    assert "KeyError: Failed to format this callback filepath" in str(run(FLAT, text).error)


def test_a_bad_format_is_refused() -> None:
    assert "ValueError" in str(run(FLAT, "ModelCheckpoint('{epoch:q}.keras')").error)
    assert "ValueError" in str(run(FLAT, "ModelCheckpoint('{epoch.keras')").error)
    assert "IndexError" in str(run(FLAT, "ModelCheckpoint('{}.keras')").error)


def test_trap_61_an_unknown_monitor_is_refused_even_if_every_epoch_is_saved() -> None:
    assert run(FLAT, "ModelCheckpoint('m.keras', monitor='foo')").error
    assert run(FLAT, "ModelCheckpoint('m.keras', monitor='foo')", "3.10").error is None


def test_trap_62_every_other_epoch_validated() -> None:
    sparse, text = log(None, 1.0, None, 0.9), "ModelCheckpoint('m.keras', save_best_only=True)"
    assert saved(decide(sparse, text)) == [0, 1, 2, 3]
    assert saved(decide(sparse, text, "3.9")) == [1, 3]
    assert saved(decide(sparse, text, "2")) == [1, 3]


def test_trap_63_an_integer_save_freq_counts_batches_across_epochs() -> None:
    text = "ModelCheckpoint('e{epoch}b{batch}.keras', save_freq=3)"
    made = decide(log(1, 1, 1), text, steps_per_epoch=4)
    assert [path for _, path in made.checkpoints] == ["e1b3.keras", "e2b2.keras", "e3b1.keras", "e3b4.keras"]
    assert "--steps-per-epoch" in str(run(FLAT, text).error)


def test_trap_64_best_only_with_an_integer_save_freq_is_a_type_error() -> None:
    text = "ModelCheckpoint('m.keras', monitor='loss', save_best_only=True, save_freq={})"
    assert "TypeError" in str(run(FLAT, text.format(2), steps_per_epoch=4).error)
    assert "TypeError" in str(
        run(FLAT, text.format("4, initial_value_threshold=2.0"), steps_per_epoch=4).error
    )
    once = decide(log(1, 1, loss=[1.0, 0.5]), text.format(4), steps_per_epoch=4)
    assert saved(once) == [0, 1], "one try an epoch, at its last batch: the direction is known by the second"
    unknown = run(FLAT, text.format(2), "3.10", steps_per_epoch=4)
    assert "within an epoch, which no log has" in str(unknown.error)


def test_best_only_on_validation_saves_at_every_due_batch_for_no_batch_has_it() -> None:
    made = decide(FLAT, "ModelCheckpoint('m.keras', save_best_only=True, save_freq=2)", steps_per_epoch=4)
    assert saved(made) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_saves_within_the_epoch_that_became_nan_are_unknown() -> None:
    nan = log(1, 1, loss=[1.0, NAN])
    result = run(nan, "TerminateOnNaN(); ModelCheckpoint('m.keras', save_freq=2)", steps_per_epoch=4)
    assert result.decisions is not None
    assert saved(result.decisions) == [0, 0]
    assert any("within epoch 2 are unknown" in warning for warning in result.warnings)


def test_trap_65_a_threshold() -> None:
    text = "ModelCheckpoint('m.keras', save_best_only=True, initial_value_threshold=0.33)"
    assert saved(decide(log(0.339, 0.329, 0.320), text)) == [1, 2]


def test_keras_2_saves_every_period_epochs() -> None:
    assert saved(decide(log(*[1.0] * 5), "ModelCheckpoint('m', period=2)", "2")) == [1, 3]


def test_empty_logs_hide_the_rate_from_the_callbacks_after() -> None:
    empty = Log(metrics={}, epochs=[0])
    assert run(empty, f"{HALVES}; ModelCheckpoint('{{learning_rate}}.keras')", learning_rate=0.1).error


# --- documents ------------------------------------------------------------------------------------


def test_the_json_result_is_the_documented_one() -> None:
    recorded = log(NAN, 0.5, 0.5, 0.5)
    text = "EarlyStopping(patience=2); ReduceLROnPlateau(patience=2, factor=0.5); "
    text += "ModelCheckpoint('m-{epoch}.keras')"
    result = run(recorded, text, "3.6", learning_rate=0.1, attempt=2, variant="mild")
    assert json.loads(json.dumps(document([result], PROFILES["3.6"]))) == {
        "version": 1,
        "keras": "3.6",
        "results": [
            {
                "log": "training.log",
                "attempt": 2,
                "variant": "mild",
                "callbacks": text.split("; "),
                "epochs_recorded": 4,
                "epochs_replayed": 4,
                "stopped": {"epoch": 3, "by": ["EarlyStopping"], "exact": True},
                "learning_rate": [TENTHS[0]] * 4,
                "learning_rate_next": TENTHS[1],
                "cuts": [{"epoch": 3, "factor": 0.5}],
                "checkpoints": [{"epoch": epoch, "path": f"m-{epoch + 1}.keras"} for epoch in range(4)],
                "best": [
                    {"callback": name, "monitor": "val_loss", "epoch": 1, "value": 0.5}
                    for name in ("EarlyStopping", "ReduceLROnPlateau")
                ],
                "exact": None,
                "diverges_at": None,
                "warnings": [],
            }
        ],
    }


def test_non_finite_numbers_are_strings_in_json() -> None:
    made = run(log(NAN, 1.0), "EarlyStopping(); LearningRateScheduler(lambda epoch: -math.inf)").as_json()
    assert made["best"] == [{"callback": "EarlyStopping", "monitor": "val_loss", "epoch": 0, "value": "nan"}]
    assert made["learning_rate"] == ["-inf", "-inf"]
    json.dumps(made, allow_nan=False)


def test_an_error_stands_in_place_of_the_decisions() -> None:
    assert run(FLAT, "ReduceLROnPlateau(factor=3)").as_json() == {
        "log": "training.log",
        "attempt": 1,
        "variant": "1",
        "callbacks": ["ReduceLROnPlateau(factor=3)"],
        "epochs_recorded": 4,
        "error": "Keras raises ValueError: ReduceLROnPlateau does not support a factor >= 1.0. "
        "Received factor=3",
        "warnings": [],
    }


def test_trap_53_an_attempt_without_epochs_decides_nothing() -> None:
    attempt = Attempt()
    assert decide(attempt, "EarlyStopping()").epochs_replayed == 0


def test_the_table_of_one_replay() -> None:
    recorded = log(0.9, 0.4, 0.5, 0.6, 0.3)
    recorded.learning_rate = [1e-3] * 5
    result = run(
        recorded, "EarlyStopping(patience=2, restore_best_weights=True); ReduceLROnPlateau(patience=1)"
    )
    assert report([result], PROFILES["3.15"]) == [
        "training.log · 5 epochs · as Keras 3.15 would",
        "  EarlyStopping(patience=2, restore_best_weights=True)   stops after epoch 4   best .4000 ★2",
        "  ReduceLROnPlateau(patience=1)                          cuts ×0.1 after epochs 3 and 4",
        "  Exact to epoch 3. From 4 on the learning rate would have been another (1e-4, not 1e-3): what",
        "  follows assumes the same metrics.",
        "  Saves 1 of 5 epochs. Keeps .4000; the whole run's best was .3000 ★5: regret .1000 (33 %).",
    ]


def test_what_does_not_fire_is_not_within_the_epochs_and_never_never() -> None:
    lines = report([run(log(0.9, 0.4), "EarlyStopping(patience=2); TerminateOnNaN()")], PROFILES["3.15"])
    assert lines[1:3] == [
        "  EarlyStopping(patience=2)   not within 2 epochs   best .4000 ★2",
        "  TerminateOnNaN()            not within 2 epochs",
    ]


def test_the_table_of_several_is_aligned_and_fits() -> None:
    results = [
        run(recording, text, variant=variant)
        for recording in (log(0.9, 0.4, 0.5, 0.6), log(*[NAN] * 3))
        for variant, text in (
            ("1", "EarlyStopping(patience=1)"),
            ("b", "ReduceLROnPlateau(min_lr=1, patience=1)"),
        )
    ]
    lines = report(results, PROFILES["3.15"])
    assert lines[:6] == [
        "4 replays · as Keras 3.15 would",
        "log           variant  stops after  trained      best  keeps  regret",
        "training.log  1        epoch 3       3 of 4  .4000 ★2  .5000   .1000",
        "training.log  b        no answer          –         –      –       –",
        "training.log  1        epoch 2       2 of 3    nan ★1      –       –",
        "training.log  b        no answer          –         –      –       –",
    ]
    assert results[1].error is not None
    assert "no learning rate in this log and min_lr=1 needs one" in results[1].error
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize(
    "text",
    [
        "EarlyStopping(); LearningRateScheduler(lambda epoch: 0.1); ModelCheckpoint('m.keras')",
        "EarlyStopping(monitor='val_loss', min_delta=0.0001, patience=3, restore_best_weights=False)",
        "TerminateOnNaN(raise_error=True); ReduceLROnPlateau(patience=1)",
        "EarlyStopping(monitor='nothing_of_that_name_is_in_this_log_at_all', mode='min')",
    ],
)
def test_every_report_fits_and_shows_no_control_byte(text: str) -> None:
    for recording in (FLAT, log(NAN, INF, -INF, None), log(1.0, loss=[NAN]), Log(metrics={}, epochs=[])):
        result = replay(
            recording,
            parse_calls(text, PROFILES["3.15"]),
            PROFILES["3.15"],
            log="a\x1b[31m.log",
            learning_rate=0.1,
        )
        for lines in (report([result], PROFILES["3.15"]), report([result, result], PROFILES["3.15"])):
            assert max(map(len, lines)) <= WIDTH
            assert all(line.isprintable() for line in lines)
