"""The curves of `benchmarks.watch` in the formats that its peers read; run by an interpreter with their writers.

Run: python benchmarks/peers.py tensorboard|wandb FOLDER RUNS ROWS
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def write_events(folder: Path, rows: int) -> None:
    """An event file for terminalboard."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step in range(rows):
        pairs = (("loss", 1.0), ("val_loss", 1.1), ("accuracy", 0.9), ("val_accuracy", 0.8))
        values = [Summary.Value(tag=tag, simple_value=scale / (step + 1)) for tag, scale in pairs]
        writer.add_event(Event(step=step, wall_time=1.7e9 + step, summary=Summary(value=values)))
    writer.close()


def write_wandb(folder: Path, rows: int) -> None:
    """An offline run for `wandb leet`."""
    os.environ.update(WANDB_SILENT="true", WANDB_DISABLE_GIT="true")
    import wandb

    run = wandb.init(mode="offline", dir=str(folder.parent), project="cbmon", name=folder.name)
    for step in range(rows):
        value = 1 / (step + 1)
        run.log({"loss": value, "val_loss": 1.1 * value, "accuracy": 1 - value, "val_accuracy": 0.9 - value})
    run.finish()


if __name__ == "__main__":
    kind, folder, runs, rows = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(int(runs)):
        {"tensorboard": write_events, "wandb": write_wandb}[kind](Path(folder, f"run{number}"), int(rows))
