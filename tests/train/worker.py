"""A run in a process of its own, to be killed."""

import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from maotune.train.averaging import GaussianAverage
from maotune.train.history import Event, History, StepDone
from maotune.train.loop import FitSettings, fit
from tests.train.toy import Toy, two_stages


def run(folder: Path, *, resume: bool, teller: Connection | None = None) -> History:
    """Two stages with a state of some megabytes, a checkpoint after each update; ``teller`` sends each step."""

    def tell(event: Event) -> None:
        if teller and isinstance(event, StepDone):
            teller.send((event.stage, event.epoch, event.step))
            time.sleep(0.05)  # time for the other process to act on it, on a busy machine, too

    torch.set_num_threads(1)
    settings = FitSettings("AdamW", checkpoint_seconds=0, average=GaussianAverage())
    return fit(Toy(hidden=100_000), two_stages(3, 5), settings, folder=folder, resume=resume, on_event=tell)


def work(folder: Path, teller: Connection) -> None:
    """The process."""
    run(folder, resume=True, teller=teller)
