"""Row logs as they are in the wild, one oddity a row: what is read, what is left out, and that it is said."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath

import pytest

from cbmon.formats.csvlog import RECORD_LINES_MAX, CsvDecoder, parse_epoch, parse_header, parse_number
from cbmon.formats.lines import LINE_MAX, LineSplitter
from cbmon.formats.sniff import SNIFF_BYTES, Format, Refused, sniff
from cbmon.run import WARNINGS_KEPT, Run, fold

NAN = math.nan
Rows = list[tuple[object, ...]]


def read(data: bytes) -> Run:
    decoder = CsvDecoder()
    run = Run()
    for event in [*decoder.feed(data), *decoder.finish()]:
        fold(run, event)
    return run


def attempts_of(run: Run, names: Iterable[str]) -> list[Rows]:
    """Each attempt as rows of its epoch and the named columns.

    `lr` is the learning rate, `lr:adam` an optimizer's own, `at` the time, `s:epoch` a duration.
    """
    found = []
    for attempt in run.attempts:
        table = attempt.columns | {"lr": attempt.rate, "at": attempt.times}
        table |= {f"lr:{name}": column for name, column in attempt.rates.items()}
        table |= {f"s:{name}": column for name, column in attempt.seconds.items()}
        columns = [table.get(name) for name in names]
        found.append(
            [
                (epoch, *(column[row] if column else None for column in columns))
                for row, epoch in enumerate(attempt.epochs)
            ]
        )
    return found


def warnings_of(run: Run) -> list[str]:
    return [str(warning) for warning in run.warnings]


@dataclass
class Case:
    """One oddity."""

    sentence: str
    data: bytes
    names: str = "loss"
    attempts: list[Rows] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    heard: float | None = None
    """The time of the last row that has one."""
    not_numbers: set[str] = field(default_factory=set)
    """In the last attempt; only asked of Monitor's CSV."""


BOM = b"\xef\xbb\xbf"
TWO = [[(0, 1.0, 2.0), (1, 0.5, 1.5)]]
RESTART = "left out, epoch 2 comes again in the next row"
TORN = "left out, no newline at its end: it may be cut"

CASES = [
    # Line ends, separators, encodings
    Case("LF", b"epoch,loss,val_loss\n0,1,2\n1,.5,1.5\n", "loss val_loss", TWO),
    Case("CRLF", b"epoch,loss,val_loss\r\n0,1,2\r\n1,.5,1.5\r\n", "loss val_loss", TWO),
    Case("CR-CR-LF", b"epoch,loss,val_loss\r\r\n0,1,2\r\r\n1,.5,1.5\r\r\n", "loss val_loss", TWO),
    Case(
        "a blank line after each row", b"epoch,loss,val_loss\n\n0,1,2\n\n1,.5,1.5\n\n", "loss val_loss", TWO
    ),
    Case("semicolon", b"epoch;loss;val_loss\n0;1;2\n1;.5;1.5\n", "loss val_loss", TWO),
    Case("tab", b"epoch\tloss\tval_loss\n0\t1\t2\n1\t.5\t1.5\n", "loss val_loss", TWO),
    Case("bar", b"epoch|loss|val_loss\n0|1|2\n1|.5|1.5\n", "loss val_loss", TWO),
    Case("BOM", BOM + b"epoch,loss,val_loss\n0,1,2\n1,.5,1.5\n", "loss val_loss", TWO),
    Case(
        "a BOM before a header inside, as joining files leaves it",
        b"epoch,loss\n0,1\n" + BOM + b"epoch,loss,val_loss\n1,.5,1.5\n",
        "loss val_loss",
        [[(0, 1.0, None), (1, 0.5, 1.5)]],
    ),
    Case("padded cells", b" epoch , loss , val_loss\n 0 , 1 , 2\n 1, .5 ,1.5 \n", "loss val_loss", TWO),
    Case("quoted cells", b'"epoch","loss","val_loss"\n"0","1","2"\n1,".5",1.5\n', "loss val_loss", TWO),
    Case("a name that is not UTF-8", b"epoch,p\xe9rte\n0,1\n", "pérte", [[(0, 1.0)]]),
    Case(
        "a cell that is not UTF-8 costs the cell",
        b"epoch,note,loss\n0,\xff\xfe,1\n",
        "note loss",
        [[(0, None, 1.0)]],
    ),
    Case("digits of another script are no number", "epoch,loss\n0,٣\n".encode(), "loss", [[(0, None)]]),
    Case(
        "NUL bytes where a disk lost a row",
        b"epoch,loss\n0,1\n\0\0\0\0\0\0\n2,.25\n",
        "loss",
        [[(0, 1.0), (2, 0.25)]],
        ["line 3: left out, 1 cell under a header of 2"],
    ),
    Case(
        "NUL bytes before a row",
        b"epoch,loss\n0,1\n\0\0\0\0001,.5\n2,.25\n",
        "loss",
        [[(0, 1.0), (2, 0.25)]],
        ["line 3: left out, its epoch is '\\\\x00\\\\x00\\\\x00\\\\x001', no whole number"],
    ),
    # Values
    Case(
        "NA, nan and an empty cell: absent, a value, absent",
        b"epoch,loss\n0,NA\n1,nan\n2,\n3,inf\n4,-inf\n5,NaN\n6,None\n",
        "loss",
        [[(0, None), (1, NAN), (2, None), (3, math.inf), (4, -math.inf), (5, NAN), (6, None)]],
    ),
    Case(
        "a list and a text cost their cells, not their rows",
        b'epoch,l,loss\n0,"""[1, 2]""",1.0\n1,"""[[1. 0.], [0. 1.]]""",.5\n2,much,.25\n3,1_000,.2\n',
        "l loss",
        [[(0, None, 1.0), (1, None, 0.5), (2, None, 0.25), (3, None, 0.2)]],
    ),
    Case(
        "objects with a number in them",
        b'epoch,a,loss\n0,"<Variable path=sgd/learning_rate, shape=(), dtype=float32, value=0.25>",1\n'
        b'1,"tf.Tensor(0.01, shape=(), dtype=float32)",1\n2,np.float32(0.5),1\n'
        b"3,\"<tf.Variable 'lr:0' shape=() dtype=float32, numpy=1e-3>\",1\n"
        b'4,"<Variable path=a_b, shape=(2,), value=[1. 2.]>",1\n',
        "a",
        [[(0, 0.25), (1, 0.01), (2, 0.5), (3, 0.001), (4, None)]],
    ),
    Case("a learning rate called lr", b"epoch,loss,lr\n0,1,.1\n", "loss lr", [[(0, 1.0, 0.1)]]),
    Case("one called learning_rate", b"epoch,learning_rate,loss\n0,.1,1\n", "loss lr", [[(0, 1.0, 0.1)]]),
    Case("no loss", b"epoch,acc\n0,.5\n", "acc", [[(0, 0.5)]]),
    Case("phantom val_ columns", b"epoch,loss,val_loss\n0,1,NA\n", "loss val_loss", [[(0, 1.0, None)]]),
    # Titles and headers
    Case(
        "titles above the header",
        b"Trial Details: Batch Size: 50, Rate: 0.01\n\nsecond line\nEpoch#,Loss\n0,1\n",
        "Loss",
        [[(0, 1.0)]],
    ),
    Case(
        "titles and headers inside are no rows and need no word",
        b"epoch,loss\n0,1\n1,.5\nTrial 2, batch 50\nepoch,loss\n0,.9\n",
        "loss",
        [[(0, 1.0), (1, 0.5)], [(0, 0.9)]],
    ),
    Case(
        "a header repeated inside",
        b"epoch,loss\n0,1\nepoch,loss\n1,.5\n",
        "loss",
        [[(0, 1.0), (1, 0.5)]],
    ),
    Case(
        "after a new header its columns hold",
        b"epoch,loss\n0,1\nepoch,val_loss,loss\n1,2,.5\n",
        "loss val_loss",
        [[(0, 1.0, None), (1, 0.5, 2.0)]],
    ),
    Case(
        "words without a header after them are rows left out",
        b"epoch,loss\n0,1\nsaved the model\nagain, and again\n1,.5\n",
        "loss",
        [[(0, 1.0), (1, 0.5)]],
        [
            "line 3: left out, 1 cell under a header of 2",
            "line 4: left out, its epoch is 'again', no whole number",
        ],
    ),
    Case(
        "rows above the header have no names",
        b"0,1\n1,.9\nepoch,loss\n2,.8\n",
        "loss",
        [[(2, 0.8)]],
        ["lines 1-2: left out, a row above the header"],
    ),
    Case(
        "no header at all asks for one",
        b"5,1.0\n6,.5\n",
        "loss",
        [[]],
        ["lines 1-2: left out, a row above the header", "no header line with an 'epoch' column"],
    ),
    # Rows
    Case(
        "two rows glued together are left out, their neighbours kept",
        b"epoch,loss,val_loss\r\n0,1.0,1.0\r\n1,0.92,0.1,0.1\r\n3,0.2,0.2\r\n",
        "loss",
        [[(0, 1.0), (3, 0.2)]],
        ["line 3: left out, 4 cells under a header of 3"],
    ),
    Case(
        "a torn row is left out",
        b"epoch,loss,val_loss\n0,1,1\n1,.9\n2,.8,.9\n",
        "loss",
        [[(0, 1.0), (2, 0.8)]],
        ["line 3: left out, 2 cells under a header of 3"],
    ),
    Case("a torn last line may be cut", b"epoch,loss\n0,1\n1,0.9", "loss", [[(0, 1.0)]], [f"line 3: {TORN}"]),
    Case("a header without a newline", b"epoch,loss", "loss", [[]], [f"line 1: {TORN}"]),
    Case(
        "rows with the epoch alone carry nothing and start nothing",
        b"epoch,loss\n0,1\n1,.5\n0\n1\n2\n2,.25\n",
        "loss",
        [[(0, 1.0), (1, 0.5), (2, 0.25)]],
        ["lines 4-6: left out, the epoch alone, without metrics"],
    ),
    Case("gaps", b"epoch,loss\n0,1\n5,.5\n6,.25\n", "loss", [[(0, 1.0), (5, 0.5), (6, 0.25)]]),
    Case("first epoch not 0", b"epoch,loss\n17,1\n18,.5\n", "loss", [[(17, 1.0), (18, 0.5)]]),
    Case("epochs as floats", b"epoch,loss\n0.0,1\n1.0,.5\n", "loss", [[(0, 1.0), (1, 0.5)]]),
    Case(
        "an epoch that is no whole number",
        b"epoch,loss\n0,1\n-1,.5\n1.5,.5\nnan,1\n1e999,1\n,1\n1,.5\n",
        "loss",
        [[(0, 1.0), (1, 0.5)]],
        [
            "line 3: left out, its epoch is '-1', no whole number",
            "line 4: left out, its epoch is '1.5', no whole number",
            "line 5: left out, its epoch is 'nan', no whole number",
            "line 6: left out, its epoch is '1e999', no whole number",
            "line 7: left out, its epoch is '', no whole number",
        ],
    ),
    Case(
        "an epoch that falls starts another attempt",
        b"epoch,loss\n0,1\n1,.5\n0,.9\n1,.4\n2,.3\n",
        "loss",
        [[(0, 1.0), (1, 0.5)], [(0, 0.9), (1, 0.4), (2, 0.3)]],
    ),
    Case(
        "a resumed run that goes on is one attempt",
        b"epoch,loss\n0,1\n1,.5\n2,.4\n",
        "loss",
        [[(0, 1.0), (1, 0.5), (2, 0.4)]],
    ),
    Case(
        "of a repeated epoch the later row stands",
        b"epoch,loss\n0,1\n1,.5\n1,.4\n2,.3\n",
        "loss",
        [[(0, 1.0), (1, 0.4), (2, 0.3)]],
        [f"line 3: {RESTART}"],
    ),
    Case(
        "other columns appended under an old header are left out by name",
        b"epoch,loss\n0,1\n1,.5\n0,.9,.8,.7\n1,.8,.7,.6\n",
        "loss",
        [[(0, 1.0), (1, 0.5)]],
        ["lines 4-5: left out, 4 cells under a header of 2"],
    ),
    Case(
        "an unnamed first column is the epoch (a pandas table)",
        b",loss,val_loss\n0,1,2\n1,.5,1.5\n",
        "loss val_loss",
        TWO,
    ),
    Case("no epoch column: rows are numbered", b"loss,val_loss\n1,2\n.5,1.5\n", "loss val_loss", TWO),
    Case("one row", b"epoch,loss\n0,1\n", "loss", [[(0, 1.0)]]),
    Case("an empty file", b"", "loss", [[]]),
    Case("a header alone", b"epoch,loss\n", "loss", [[]]),
    Case("a column twice is read once", b"epoch,loss,loss\n0,1,2\n", "loss", [[(0, 1.0)]]),
    Case("other names for the epoch", b"EPOCH,loss\n1,1\n", "loss", [[(1, 1.0)]]),
    Case(
        "200 columns",
        b"epoch" + b"".join(b",m%d" % i for i in range(200)) + b"\n0" + b",.5" * 200 + b"\n",
        "m0 m199",
        [[(0, 0.5, 0.5)]],
    ),
    # Quotes
    Case(
        "a quoted cell may span lines; the next row knows its line",
        b'epoch,l,loss\n0,"[[1. 2.]\n [3. 4.]]",1\n1,"[[1. 2.]\n [3. 4.]]",.5\n2\n',
        "loss",
        [[(0, 1.0), (1, 0.5)]],
        ["line 6: left out, the epoch alone, without metrics"],
    ),
    Case(
        "a quote torn by a crash costs its line only",
        b'epoch,l,loss\n0,"[1. 2.\n1,3,.5\n2,3,.25\n',
        "loss",
        [[(1, 0.5), (2, 0.25)]],
        ["line 2: left out, a quote is not closed"],
    ),
    Case(
        "a quote torn at the end of the file",
        b'epoch,l,loss\n0,1,1\n1,"[1. 2.\n',
        "loss",
        [[(0, 1.0)]],
        ["line 3: left out, a quote is not closed"],
    ),
    Case(
        "a torn quote ends after some lines at the latest",
        b'epoch,l,loss\n0,"[1.\n' + b"x\n" * (RECORD_LINES_MAX + 3) + b"1,3,.5\n",
        "loss",
        [[(1, 0.5)]],
        [
            "line 2: left out, a quote is not closed",
            f"lines 3-{RECORD_LINES_MAX + 5}: left out, 1 cell under a header of 3",
        ],
    ),
    Case("a quote in a name", b'epoch,"the ""loss"""\n0,1\n', 'the "loss"', [[(0, 1.0)]]),
    Case(
        "a vertical tab beside a quoted cell ends no line",
        b'epoch,a,loss\n0,"x"\x0b,1\n',
        "loss",
        [[(0, 1.0)]],
    ),
]

MONITOR_HEADER = (
    b"epoch,loss,learning_rate,cbmon_time,cbmon_epoch_s,cbmon_validation_s,cbmon_step_s,cbmon_first_step_s\n"
)
MONITOR_CASES = [
    Case(
        "Monitor's own columns are times and durations",
        MONITOR_HEADER + b"0,1.0,0.1,1700000000.5,9.5,1.5,0.25,4.0\n1,0.5,0.1,1700000005.0,4.5,NA,0.25,NA\n",
        "loss lr at s:epoch s:validation s:step s:first_step",
        [
            [
                (0, 1.0, 0.1, 1700000000.5, 9.5, 1.5, 0.25, 4.0),
                (1, 0.5, 0.1, 1700000005.0, 4.5, None, 0.25, None),
            ]
        ],
        heard=1700000005.0,
    ),
    Case(
        "any of them may be missing",
        b"epoch,loss,cbmon_time,cbmon_step_s\n0,1,9,0.25\n",
        "loss at s:step s:epoch",
        [[(0, 1.0, 9.0, 0.25, None)]],
        heard=9.0,
    ),
    Case(
        "learning rates by optimizer",
        b"epoch,loss,cbmon_learning_rate_adam,cbmon_learning_rate_sgd_1,cbmon_time\n0,1,0.1,0.2,9\n1,1,NA,0.3,10\n",
        "lr lr:adam lr:sgd_1",
        [[(0, None, 0.1, 0.2), (1, None, None, 0.3)]],
        heard=10.0,
    ),
    Case(
        "columns of a newer cbmon are passed over, whatever stands in them",
        b"epoch,loss,cbmon_time,cbmon_host,cbmon_joules\n0,1,9,gpu3,12.5\n",
        "loss at cbmon_host cbmon_joules",
        [[(0, 1.0, 9.0, None, None)]],
        heard=9.0,
    ),
    Case(
        "a time that is absent or not finite is none; the last one there is the last word",
        b"epoch,loss,cbmon_time\n0,1,7\n1,1,8\n2,1,NA\n3,1,nan\n4,1,inf\n5,1,-inf\n6,1,\n7,1,1e999\n",
        "at",
        [[(0, 7.0), (1, 8.0), *((epoch, None) for epoch in range(2, 8))]],
        heard=8.0,
    ),
    Case(
        "no time at all",
        b"epoch,loss,cbmon_time\n0,1,NA\n1,1,NA\n",
        "loss at",
        [[(0, 1.0, None), (1, 1.0, None)]],
    ),
    Case(
        "a duration that is not finite is one",
        b"epoch,loss,cbmon_time,cbmon_epoch_s\n0,1,9,nan\n1,1,9,inf\n",
        "s:epoch",
        [[(0, NAN), (1, math.inf)]],
        heard=9.0,
    ),
    Case(
        "text costs the value, not the row",
        b"epoch,loss,cbmon_time,cbmon_epoch_s,cbmon_learning_rate_a\n0,1,noon,long,small\n1,1,9,2.5,.1\n",
        "loss at s:epoch lr:a",
        [[(0, 1.0, None, None, None), (1, 1.0, 9.0, 2.5, 0.1)]],
        heard=9.0,
        not_numbers={"cbmon_time", "cbmon_epoch_s", "cbmon_learning_rate_a"},
    ),
    Case(
        "a column twice is read once",
        b"epoch,loss,cbmon_time,cbmon_time\n0,1,9,10\n",
        "at",
        [[(0, 9.0)]],
        heard=9.0,
    ),
    Case(
        "a clock that was set back: the last word, not the largest",
        b"epoch,loss,cbmon_time\n0,1,9\n1,1,8\n",
        "at",
        [[(0, 9.0), (1, 8.0)]],
        heard=8.0,
    ),
    Case(
        "without a metric a row still tells when it was",
        b"epoch,cbmon_time\n0,9\n",
        "at",
        [[(0, 9.0)]],
        heard=9.0,
    ),
    Case(
        "under columns of a newer cbmon alone a row tells nothing",
        b"epoch,loss,cbmon_time\n0,1,9\nepoch,cbmon_joules\n1,2\n",
        "loss",
        [[(0, 1.0)]],
        ["line 4: left out, the epoch alone, without metrics"],
        heard=9.0,
    ),
    Case(
        "a stock CSVLogger went on, under its own header",
        b"epoch,loss,cbmon_time\n0,1,9\nepoch,loss\n1,.5\n",
        "loss at",
        [[(0, 1.0, 9.0), (1, 0.5, None)]],
        heard=9.0,
    ),
    Case(
        "Monitor went on with a CSVLogger's file, under its own header",
        b"epoch,loss\n0,1\nepoch,loss,cbmon_time\n1,.5,9\n",
        "loss at",
        [[(0, 1.0, None), (1, 0.5, 9.0)]],
        heard=9.0,
    ),
    Case(
        "a fit that was started again",
        b"epoch,loss,cbmon_time,cbmon_first_step_s\n0,1,8,2\n0,.9,9,3\n0,.8,NA,NA\n1,.7,NA,NA\n",
        "loss at s:first_step",
        [[(0, 0.8, None, None), (1, 0.7, None, None)]],
        ["lines 2-3: left out, epoch 1 comes again in the next row"],
        heard=9.0,
    ),
]


@pytest.mark.parametrize("case", MONITOR_CASES, ids=lambda case: case.sentence)
def test_the_csv_that_monitor_writes_is_a_row_log_with_columns_of_our_own(case: Case) -> None:
    run = read(case.data)
    assert repr(attempts_of(run, case.names.split())) == repr(case.attempts), case.sentence
    assert warnings_of(run) == case.warnings, case.sentence
    assert run.heard == case.heard, case.sentence
    assert run.current.not_numbers == case.not_numbers, case.sentence
    assert not any(name.startswith("cbmon_") for name in run.current.columns), "they are no metrics"
    is_monitors = b"cbmon_time" in case.data.partition(b"\n")[0]
    found = sniff(case.data, PurePath("training.txt"))
    assert found is (Format.CBMON_CSV if is_monitors else Format.KERAS_CSV), case.sentence


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence)
def test_row_log_is_read_and_what_is_left_out_is_named(case: Case) -> None:
    names = [case.names] if '"' in case.names else case.names.split()
    run = read(case.data)
    assert repr(attempts_of(run, names)) == repr(case.attempts), case.sentence
    assert warnings_of(run) == case.warnings, case.sentence


REFUSED_OR_EMPTY = {
    "no header at all asks for one",
    "an empty file",
}


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.sentence not in REFUSED_OR_EMPTY], ids=lambda c: c.sentence
)
def test_each_of_them_is_found_to_be_a_row_log(case: Case) -> None:
    assert sniff(case.data[:SNIFF_BYTES], PurePath("training.txt")) is Format.KERAS_CSV


# KERAS.md §4, golden bytes


def test_a_learning_rate_without_validation_has_phantom_columns() -> None:
    run = read(
        b"epoch,acc,learning_rate,loss,val_acc,val_learning_rate,val_loss\r\n"
        b"0,0.1,0.10000000149011612,0.1,NA,NA,NA\r\n"
    )
    attempt = run.current
    assert list(attempt.metrics) == ["acc", "loss"], "columns without a single value are no metrics"
    assert list(attempt.columns) == ["acc", "loss", "val_acc", "val_learning_rate", "val_loss"]
    assert attempt.learning_rate is not None
    assert attempt.learning_rate[0] == 0.10000000149011612


def test_validation_of_every_second_epoch_stays_at_its_epoch() -> None:
    run = read(b"epoch,loss,val_loss\r\n0,1.0,NA\r\n1,0.9,1.0\r\n2,0.8,NA\r\n")
    assert attempts_of(run, ["loss", "val_loss"]) == [[(0, 1.0, None), (1, 0.9, 1.0), (2, 0.8, None)]]


def test_a_list_is_no_metric_and_is_said_to_be_none() -> None:
    run = read(b'epoch;l;loss;val_l;val_loss\r\n0;"""[1, 2]""";1.0;NA;NA\r\n')
    assert list(run.current.metrics) == ["loss"]
    assert run.current.not_numbers == {"l"}


def test_a_metric_called_epoch_destroys_the_epoch_numbers_and_that_is_said() -> None:
    run = read(b"epoch,epoch,loss,val_loss\r\n7.0,7.0,1.0,2.0\r\n7.0,7.0,0.5,1.5\r\n")
    assert attempts_of(run, ["loss"]) == [[(0, 1.0), (1, 0.5)]]
    assert warnings_of(run) == [
        "line 1: a metric is called epoch and overwrote the epoch numbers: rows are numbered instead"
    ]


def test_a_row_glued_to_a_torn_one_is_left_out() -> None:
    run = read(b"epoch,loss,val_loss\r\n0,1.0,1.0\r\n1,0.92,0.1,0.1\r\n3,0.2,0.2\r\n")
    assert list(run.current.epochs) == [0, 3]


def test_the_learning_rate_of_tf_keras_is_called_lr() -> None:
    run = read(
        b"epoch,loss,lr,mae,val_loss,val_mae\r\n"
        b"0,0.11112724244594574,0.01,0.3331981897354126,0.09212413430213928,0.3035195767879486\r\n"
    )
    assert run.current.rate[0] == 0.01
    assert list(run.current.metrics) == ["loss", "mae", "val_loss", "val_mae"]


def test_a_log_of_nothing_but_epochs_has_no_row_and_says_so() -> None:
    run = read(b"epoch\r\n0\r\n1\r\n")
    assert run.is_empty
    assert warnings_of(run) == ["lines 2-3: left out, the epoch alone, without metrics"]


# The end of the file


def test_a_torn_last_line_is_no_row_until_its_rest_comes() -> None:
    decoder = CsvDecoder()
    run = Run()
    for piece in (b"epoch,loss\n0,1\n1,0.", b"25", b"\n"):
        assert not run.current.epochs or list(run.current.epochs) == [0]
        for event in decoder.feed(piece):
            fold(run, event)
    assert attempts_of(run, ["loss"]) == [[(0, 1.0), (1, 0.25)]]
    assert run.warnings == []


def test_a_torn_line_that_was_named_is_completed_by_a_later_feed() -> None:
    decoder = CsvDecoder()
    decoder.feed(b"epoch,loss\n0,1\n1,0.")
    assert [str(event) for event in decoder.finish()] == [
        "Malformed(time=None, line=3, reason='left out, no newline at its end: it may be cut')"
    ]
    (batch,) = decoder.feed(b"25\n")
    assert [*batch.metrics["loss"]] == [0.25]  # type: ignore[union-attr]


def test_blank_bytes_at_the_end_are_no_torn_line() -> None:
    assert read(b"epoch,loss\n0,1\n  \r").warnings == []


# What must not fill the memory


def test_a_file_without_a_newline_is_never_held() -> None:
    splitter = LineSplitter()
    piece = b"1" * (1 << 20)
    for _ in range(64):
        assert list(splitter.feed(piece)) == []
        assert len(splitter.rest) <= LINE_MAX
    assert splitter.has_rest
    assert list(splitter.feed(b"\n0,1\n")) == [(1, None), (2, b"0,1")]


def test_a_giant_line_is_left_out_and_the_log_goes_on() -> None:
    decoder = CsvDecoder()
    run = Run()
    for piece in (b"epoch,loss\n0,1\n", *[b"9" * (1 << 20)] * 64, b"\n2,.25\n"):
        for event in decoder.feed(piece):
            fold(run, event)
    assert attempts_of(run, ["loss"]) == [[(0, 1.0), (2, 0.25)]]
    assert warnings_of(run) == [f"line 3: left out, longer than {LINE_MAX} bytes"]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (b"saved the model\n", "words under the header, each a title if a header should follow"),
        (b'1,"torn\n', "quotes that never close"),
        (b"\0\n", "NUL bytes"),
    ],
)
def test_a_log_full_of_lines_that_are_no_rows_fills_no_memory(row: bytes, sentence: str) -> None:
    decoder = CsvDecoder()
    run = Run()
    for piece in (b"epoch,a,loss\n", row * 20_000):
        for event in decoder.feed(piece):
            fold(run, event)
    held = len(decoder._titles) + len(decoder._quoted)
    assert held <= 2 * RECORD_LINES_MAX, sentence
    assert len(run.warnings) <= WARNINGS_KEPT, sentence


def test_warnings_are_counted_beyond_some() -> None:
    run = read(b"epoch,loss\n" + b"0\n0,1,2\n" * 1000)
    assert len(run.warnings) == WARNINGS_KEPT
    assert run.warnings_dropped == 1000


def test_a_number_of_a_million_digits_is_read_in_a_moment() -> None:
    assert parse_number("1" * 1_000_000) == math.inf
    assert parse_number("0." + "3" * 1_000_000) == 1 / 3


# The parts


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("epoch,loss", ["loss"]),
        ("epoch", []),
        ("Epoch #,Accuracy,F1-Score,Loss", ["Accuracy", "F1-Score", "Loss"]),
        ("epoch,train loss,validation loss", ["train loss", "validation loss"]),
        ("epoch,metrics/mAP50-95(B),val/box_loss", ["metrics/mAP50-95(B)", "val/box_loss"]),
        (",loss", ["loss"]),
        ("loss,val_loss", ["loss", "val_loss"]),
        ("epoch,a:b", ["a:b"]),
        ("epoch,loss,lr,learning_rate", ["loss"]),
        ("epoch,loss,learning_rate,cbmon_time,cbmon_tomorrow", ["loss"]),
        ("epoch,cbmon,my_cbmon_time", ["cbmon", "my_cbmon_time"]),
    ],
)
def test_a_header_names_its_metrics(line: str, names: list[str]) -> None:
    header = parse_header(line)
    assert header is not None
    assert [name for _, name in header.metrics] == names


@pytest.mark.parametrize(
    "line",
    [
        *(
            "0,1,2",
            "epoch: 1, loss: 0.5",
            "Epoch:0, mask loss is 0.1",
            "Training...",
            "a,b,c",
            "{'epoch': 1}",
            "epoch=1,loss=2",
        ),
        *(
            "Trial Details: Model ID: I, Epochs: 30, Learning Rate: 0.01",
            "epoch,0.5",
            "epoch,",
            "NA,loss",
            "",
            ",,",
        ),
    ],
)
def test_a_line_that_is_no_header_is_none(line: str) -> None:
    assert parse_header(line) is None


@pytest.mark.parametrize(
    "cell", ["1_0", "٣", "0x1p3", "text", "[1, 2]", "1,5", "1 2", "--1", "<x value=>", "tf.Tensor(a)"]
)
def test_a_cell_that_is_no_number_is_refused(cell: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whatever float() says
        parse_number(cell)


@pytest.mark.parametrize("cell", ["-1", "1.5", "nan", "inf", "", "NA", "x", "9007199254740993", "1e400", "²"])
def test_an_epoch_that_is_none_is_refused(cell: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_epoch(cell)


# Whether it is a row log at all


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"1,0.5,0.6\n2,0.4,0.5\n", "no header line: it begins with a row of numbers"),
        (b"1,0.5", "no header line: it begins with a row of numbers"),
        (
            b"Epoch:0, mask loss is 0.1411\n",
            "no header line with an 'epoch' column; it begins 'Epoch:0, mask",
        ),
        (b"\x1b]0;x\x07 hello\n", "it begins '\\\\x1b]0;x\\\\x07 hello'"),
        (b"a,b\n1,2\n", "no header line with an 'epoch' column"),
        (b"epoch,step,loss\n0,9,1\n", "several rows an epoch"),
        (b"loss,name\n0.5,bob\n", "a table, but no training log"),
        (b"epoch,loss\nsome,words\n", "a header line, but no row of numbers under it"),
        (b"\x89PNG\0\0\n", "a binary file"),
        (b"\xff\xfee\0p\0o\0c\0h\0", "UTF-16 text: save it as UTF-8"),
        (b'{"a": 1}', "JSON, but neither a cbmon record nor a Keras History"),
        (b"[1, 2]", "JSON, but neither"),
        (b'{"log_history": []}', "a Hugging Face trainer_state.json"),
        (b"", "empty"),
        (b"\n \r\n", "empty"),
    ],
)
def test_what_is_no_training_log_is_refused_in_one_sentence(head: bytes, words: str) -> None:
    found = sniff(head, PurePath("notes.txt"))
    assert isinstance(found, Refused)
    assert words in found.reason
    assert "\n" not in found.reason


def test_a_continuation_without_header_is_missed_by_somebody_and_asks_for_its_header() -> None:
    found = sniff(b"40,0.5,0.6\r\n41,0.4,0.5\r\n", PurePath("training.csv"))
    assert isinstance(found, Refused)
    assert found.looks_like_log
    assert "Put the header in front, such as 'epoch,loss,val_loss'" in found.reason


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"a title\nepoch,loss", Format.KERAS_CSV),
        (b"epoch,loss\n0,1\n2,", Format.KERAS_CSV),
        (MONITOR_HEADER[:-1], Format.CBMON_CSV),
        (MONITOR_HEADER + b"0,", Format.CBMON_CSV),
        (b"epoch,loss,cbmon_epoch_s\n0,1,2\n", Format.KERAS_CSV),
        (b'{"event":"run_started","version":1', Format.RECORD),
        (b'{ "event" : "heartbeat"}\n', Format.RECORD),
        (b'{"loss": [0.5, 0.4]}', Format.HISTORY),
        (b'\xef\xbb\xbf{"loss":[NaN]}', Format.HISTORY),
    ],
)
def test_a_log_is_known_from_its_first_bytes_though_they_end_anywhere(head: bytes, found: Format) -> None:
    assert sniff(head[:SNIFF_BYTES], PurePath("x")) is found


@pytest.mark.parametrize("title", [b"", b"a title\n"])
@pytest.mark.parametrize(("opening", "separator"), [(b"", b","), (b"", b";"), (b'"', b'","')])
def test_a_header_longer_than_what_is_looked_at_is_one_wherever_it_is_cut(
    title: bytes, opening: bytes, separator: bytes
) -> None:
    header = title + opening + b"epoch" + b"".join(separator + b"metric_%d" % i for i in range(800))
    for end in range(SNIFF_BYTES - 20, SNIFF_BYTES):
        assert sniff(header[:end], PurePath("x")) is Format.KERAS_CSV


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("training.csv", Format.KERAS_CSV),
        ("x.LOG", Format.KERAS_CSV),
        ("x.tsv", Format.KERAS_CSV),
        ("x.jsonl", Format.RECORD),
    ],
)
def test_an_empty_file_that_is_called_like_a_log_is_one_that_has_not_begun(name: str, found: Format) -> None:
    assert sniff(b"", PurePath(name)) is found
