"""Playback without a screen: where a log can be cut, and when what is handed out."""

import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbmon.events import (
    CallbackStates,
    CheckpointSaved,
    EpochsEnded,
    Event,
    Malformed,
    Progress,
    RecordReplaced,
    RunEnded,
    RunStarted,
    Tick,
)
from cbmon.replay.player import FRAME_S, SPEEDS, Player, Script, first_speed, moments
from cbmon.rules import Status, status
from cbmon.run import Run, fold
from cbmon.sources import Log, find, read_whole

SAMPLES = Path(__file__).resolve().parent.parent / "sample_logs"
LOGS = sorted([*SAMPLES.glob("*/*.csv"), *SAMPLES.glob("*/*.jsonl")])
NOON = 1_700_049_600.0


def log_of(path: Path) -> Log:
    (log,) = find([str(path)]).logs
    return log


def events_of(path: Path) -> list[Event]:
    return list(read_whole(log_of(path), NOON))


def folded(events: Sequence[Event] | Iterator[Event]) -> Run:
    run = Run()
    for event in events:
        fold(run, event)
    run.seen = None  # a look from outside, not part of the log
    return run


def row(epoch: int, *, time: float | None = None) -> EpochsEnded:
    return EpochsEnded(epochs=[epoch], metrics={"loss": [1.0 / (epoch + 1)]}, time=time)


def rows(run: Run) -> int:
    return sum(len(attempt.epochs) for attempt in run.attempts)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def a_player(path: Path, events: Sequence[Event], now: Callable[[], float]) -> Player:
    log = path / "training.csv"
    log.write_text("epoch,loss\n0,1.0\n")
    return Player(log_of(log), events, now=now)


@pytest.fixture
def hundred(tmp_path: Path, clock: Clock) -> Player:
    """A hundred epochs in two batches: they play 5 a second."""
    halves = [range(60), range(60, 100)]
    events = [
        EpochsEnded(epochs=array("q", half), metrics={"loss": array("d", [1.0 / (n + 1) for n in half])})
        for half in halves
    ]
    return a_player(tmp_path, events, clock)


def handed(player: Player, run: Run) -> Run:
    """Fold what the player has now."""
    for _, events in player.read():
        for event in events:
            fold(run, event)
    return run


# --- where a log can be cut -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.parent.name)
def test_two_pieces_are_the_whole_wherever_it_is_cut(path: Path) -> None:
    script = Script(events_of(path))
    for cut in range(script.rows + 1):
        whole = folded(script.between(None, script.rows))
        assert folded([*script.between(None, cut), *script.between(cut, script.rows)]) == whole
    assert whole == folded(events_of(path))


@pytest.mark.parametrize(
    "path", [path for path in LOGS if path.suffix == ".csv"], ids=lambda p: p.parent.name
)
def test_a_position_in_a_row_log_is_the_log_as_it_was_after_so_many_rows(path: Path, tmp_path: Path) -> None:
    script = Script(events_of(path))
    lines = path.read_text().splitlines(keepends=True)
    for cut in range(1, script.rows + 1):
        shorter = tmp_path / path.name
        shorter.write_text("".join(lines[: cut + 1]))
        assert folded(script.between(None, cut)) == folded(events_of(shorter))


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.parent.name)
def test_seeking_anywhere_gives_the_run_folded_to_there(path: Path, clock: Clock) -> None:
    events = events_of(path)
    player, run = Player(log_of(path), events, now=clock), Run()
    dice = random.Random(7)
    for _ in range(40):
        goal = dice.randint(0, player.script.rows)
        player.pause_at(goal)
        handed(player, run)
        run.seen = None
        assert run == folded(player.script.between(None, goal))
        assert rows(run) <= goal


@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 5), min_size=1, max_size=5).map(
                lambda epochs: EpochsEnded(epochs=epochs, metrics={"loss": [1.0] * len(epochs)}, first_line=2)
            ),
            st.integers(0, 5).map(lambda epoch: Progress(epoch=epoch, step=1)),
            st.integers(0, 5).map(lambda epoch: CheckpointSaved(epoch=epoch, path="m")),
            st.just(RunStarted(run_id="r")),
            st.just(RunEnded(how="failed")),
            st.just(Malformed(line=3, reason="odd")),
            st.just(EpochsEnded(epochs=[])),
        ),
        max_size=12,
    ),
    st.data(),
)
def test_any_events_can_be_cut_anywhere_and_every_attempt_is_found(
    events: list[Event], data: st.DataObject
) -> None:
    script = Script(events)
    first = data.draw(st.integers(0, script.rows))
    second = data.draw(st.integers(first, script.rows))
    pieces = [
        *script.between(None, first),
        *script.between(first, second),
        *script.between(second, script.rows),
    ]
    whole = folded(events)
    assert folded(pieces) == whole
    told = [attempt for attempt in whole.attempts if attempt.epochs]
    assert len(script.starts) == len(told)
    for at, attempt in enumerate(told):
        assert script.epochs[script.starts[at]] == attempt.epochs[0]
        assert script.place(at, attempt.epochs[-1]) == [*script.starts, script.rows][at + 1]


def test_what_follows_a_row_comes_with_it_and_what_belongs_to_the_next_epoch_does_not() -> None:
    states, saved = CallbackStates(epoch=0), CheckpointSaved(epoch=0, path="m")
    step, later = Progress(epoch=1, step=5), row(1)
    script = Script([RunStarted(run_id="r"), Progress(epoch=0, step=1), row(0), states, saved, step, later])
    assert list(script.between(None, 0)) == [RunStarted(run_id="r")]
    assert list(script.between(0, 1)) == [Progress(epoch=0, step=1), row(0), states, saved]
    assert list(script.between(1, 2)) == [step, later]


def test_the_end_has_what_came_after_the_last_row() -> None:
    script = Script([row(0), Progress(epoch=1, step=3), RunEnded(how="interrupted")])
    assert folded(script.between(None, 1)).current.ended == RunEnded(how="interrupted")


def test_an_empty_log_has_one_position() -> None:
    script = Script([RunStarted(run_id="r")])
    assert (script.rows, script.starts, list(script.between(None, 0))) == (0, [], [RunStarted(run_id="r")])


# --- when what is handed out ----------------------------------------------------------------------------------


def test_it_plays_epoch_by_epoch_at_its_speed(hundred: Player, clock: Clock) -> None:
    run = Run()
    clock.now += 50.0  # before the first picture nothing is played
    assert rows(handed(hundred, run)) == 0
    for played in range(1, 4):
        clock.now += 0.2
        assert hundred.wait() is not None
        assert rows(handed(hundred, run)) == played
        assert hundred.position.row == played


def test_at_high_speed_many_rows_come_in_one_frame(hundred: Player, clock: Clock) -> None:
    run = handed(hundred, Run())
    hundred.pace(+4)
    assert hundred.position.speed == 100
    clock.now += FRAME_S + 1e-6
    hundred.wait()
    assert rows(handed(hundred, run)) == 10


def test_a_reader_that_was_busy_gets_all_that_is_due(hundred: Player, clock: Clock) -> None:
    run = handed(hundred, Run())
    clock.now += 7.0
    assert rows(handed(hundred, run)) == 35


def test_at_the_end_it_pauses_and_plays_again_from_the_start(hundred: Player, clock: Clock) -> None:
    run = handed(hundred, Run())
    clock.now += 1000.0
    assert rows(handed(hundred, run)) == 100
    assert not hundred.position.is_playing
    hundred.toggle()
    hundred.wait()
    assert rows(handed(hundred, run)) == 0
    assert hundred.position.is_playing


def test_paused_it_waits_until_somebody_moves_it(hundred: Player, clock: Clock) -> None:
    handed(hundred, Run())
    clock.now += 1.0
    hundred.toggle()
    handed(hundred, Run())
    clock.now += 1000.0
    waited: list[object] = []
    thread = Thread(target=lambda: waited.append(hundred.wait()))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    hundred.step(+1)
    thread.join(10.0)
    assert waited == [{hundred._log.path}]
    assert hundred._due() == 6


@pytest.mark.parametrize("is_playing", [False, True])
def test_stop_ends_the_waiting_at_once(hundred: Player, is_playing: bool) -> None:
    handed(hundred, Run())
    if not is_playing:
        hundred.toggle()
    thread = Thread(target=hundred.wait)
    thread.start()
    hundred.stop()
    thread.join(10.0)
    assert not thread.is_alive()
    assert hundred.is_stopped


def test_backwards_the_log_begins_anew(hundred: Player, clock: Clock) -> None:
    run = handed(hundred, Run())
    hundred.pause_at(50)
    handed(hundred, run)
    hundred.step(-1)
    hundred.wait()
    ((_, events),) = hundred.read()
    assert isinstance(events[0], RecordReplaced)
    for event in events:
        fold(run, event)
    assert rows(run) == 49


def test_a_seek_while_it_plays_plays_on_from_there(hundred: Player, clock: Clock) -> None:
    run = handed(hundred, Run())
    for goal in (70, 20):
        hundred.seek(goal)
        assert hundred.wait() is not None
        assert rows(handed(hundred, run)) == goal
    clock.now += 1.0
    assert rows(handed(hundred, run)) == 25


@pytest.mark.parametrize(("asked", "found"), [(-5, 0), (1000, 100)])
def test_no_seek_leaves_the_log(hundred: Player, asked: int, found: int) -> None:
    handed(hundred, Run())
    hundred.pause_at(asked)
    assert rows(handed(hundred, Run())) == found


def test_speeds_end_at_both_ends_and_a_change_keeps_the_position(hundred: Player, clock: Clock) -> None:
    run = handed(hundred, Run())
    clock.now += 2.0
    hundred.pace(-100)
    assert hundred.position.speed == SPEEDS[0] == 1
    clock.now += 2.0
    assert rows(handed(hundred, run)) == 12
    hundred.pace(+100)
    assert hundred.position.speed == SPEEDS[-1]


@pytest.mark.parametrize(
    ("epochs", "speed"), [(0, 1), (1, 1), (30, 1), (100, 5), (200, 5), (1000, 50), (10**6, 50_000)]
)
def test_a_whole_log_takes_about_half_a_minute(epochs: int, speed: int) -> None:
    assert first_speed(epochs) == speed


def test_times_are_the_recorded_ones_so_nothing_is_quiet_or_crashed_while_it_plays(clock: Clock) -> None:
    path = SAMPLES / "killed" / "training.jsonl"
    events = [event for event in events_of(path) if not isinstance(event, Tick)]
    player, run = Player(log_of(path), [*events, Tick(time=NOON, process_gone=True)], now=clock), Run()
    for position in range(player.script.rows + 1):
        player.pause_at(position)
        handed(player, run)
        assert run.seen is not None
        assert run.seen.time == run.heard
        is_end = position == player.script.rows
        assert status(run) is (Status.CRASHED if is_end else Status.RUNNING)


def test_a_log_without_times_has_none(hundred: Player) -> None:
    ((_, events),) = hundred.read()
    assert events == [Tick()]


def test_an_empty_log_plays_nothing(tmp_path: Path, clock: Clock) -> None:
    player = a_player(tmp_path, [], clock)
    handed(player, Run())
    player.toggle()
    assert not player.position.is_playing
    assert (player.position.epoch, player.position.last) == (None, None)


def test_the_position_counts_epochs_of_its_attempt(tmp_path: Path, clock: Clock) -> None:
    player = a_player(tmp_path, [row(0), row(1), row(2), row(0), row(1)], clock)
    handed(player, Run())
    found = []
    for position in range(6):
        player.pause_at(position)
        handed(player, Run())
        at = player.position
        found.append((at.attempt, at.epoch, at.last))
    assert found == [(1, None, 2), (1, 0, 2), (1, 1, 2), (1, 2, 2), (2, 0, 1), (2, 1, 1)]


# --- events ---------------------------------------------------------------------------------------------------


def test_moments_are_alerts_bests_attempts_policies_and_the_end() -> None:
    losses = [1.0, 0.5, 0.7, float("nan"), 0.8]
    batch = EpochsEnded(epochs=range(5), metrics={"loss": losses}, learning_rate=[0.1, 0.1, 0.1, 0.1, 0.01])
    script = Script([batch, row(0), row(1)])
    nan, cut, second = 4, 5, 6
    assert moments(script) == [2, nan, cut, second, 7]
    assert moments(script, lambda run: [[2], []]) == [2, 3, nan, cut, second, 7]


@given(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_epochs_of_a_record_are_joined_to_batches_that_fold_the_same(
    kinds: list[int], chance: random.Random
) -> None:
    events: list[Event] = [RunStarted(run_id="a")]
    epoch, line = 0, 1
    for kind in kinds:
        epoch = max(0, epoch + chance.choice([1, 1, 1, 2, 0, -3]))
        line += chance.choice([1, 1, 2])
        if kind == 2:
            events.append(RunEnded(how="finished", time=NOON + line))
        names = ["loss"] if kind else ["loss", "acc"]
        values: list[float | None] = [chance.choice([None, 1.0, 0.5])]
        events.append(
            EpochsEnded(
                epochs=[epoch], metrics=dict.fromkeys(names, values), time=NOON + line, first_line=line
            )
        )
    script = Script(events)
    assert folded(script.between(None, script.rows)) == folded(events)
    for stop in range(script.rows + 1):
        run = folded(script.between(None, stop))
        assert rows(run) <= stop
        for event in script.between(stop, script.rows):
            fold(run, event)
        assert run == folded(events), "wherever it is cut"


def test_a_long_record_is_few_events_to_a_step_back() -> None:
    script = Script([RunStarted(run_id="a"), *(row(epoch, time=NOON + epoch) for epoch in range(1000))])
    assert len(list(script.between(None, 999))) == 2, "a fold of one batch, not of 999"
    run = folded(script.between(None, 500))
    assert run.heard == NOON + 499, "when the last row played was written, not the last one joined to it"
