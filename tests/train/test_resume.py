"""An interrupted run ends with the very same numbers as one that was left alone."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from maotune.train.averaging import GaussianAverage
from maotune.train.history import StageStarted, StepDone
from maotune.train.loop import FitSettings, fit
from maotune.train.optimizer import OPTIMIZERS
from maotune.train.session import CheckpointError, load_prompts, read_metadata
from tests.train.toy import Toy, two_stages
from tests.train.worker import run, work

SETTINGS = FitSettings("AdamW", checkpoint_seconds=0, average=GaussianAverage())


class PulledPlug(Exception):
    """Ends a run at an event."""


def interrupted_at(position: int):
    seen = 0

    def count(event):
        nonlocal seen
        seen += 1
        if seen == position:
            raise PulledPlug

    return count


def numbers(history):
    """All that a history holds, without the clock and the memory."""
    for record in history.stages:
        for epoch in (*record.epochs, record.current):
            epoch.seconds = 0.0
    return {**history.to_json(), "peak_memory": 0}


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_goes_on_from_any_event_to_the_same_bits(tmp_path):
    events = []
    whole = fit(Toy(), two_stages(2, 3), SETTINGS, folder=tmp_path / "whole", on_event=events.append)
    for position in range(1, len(events) + 1):
        folder = tmp_path / str(position)
        with pytest.raises(PulledPlug):
            fit(Toy(), two_stages(2, 3), SETTINGS, folder=folder, on_event=interrupted_at(position))
        learner = Toy()
        resumed = fit(learner, two_stages(2, 3), SETTINGS, folder=folder, resume=True)
        assert all(equal(whole[name].prompts, resumed[name].prompts) for name in ("base", "new"))
        assert equal(dict(learner.state_dict()), whole["new"].prompts)
        assert numbers(resumed) == numbers(whole)
        for name in ("base.safetensors", "new.safetensors"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# Muon tunes matrices only; the toy has vectors.
@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "Muon"])
def test_the_state_of_every_optimizer_survives(tmp_path, optimizer):
    settings = FitSettings(optimizer, checkpoint_seconds=0)
    whole = fit(Toy(), two_stages(2, 3), settings)
    for position in (3, 4):
        with pytest.raises(PulledPlug):
            fit(Toy(), two_stages(2, 3), settings, folder=tmp_path / str(position), on_event=interrupted_at(position))
        resumed = fit(Toy(), two_stages(2, 3), settings, folder=tmp_path / str(position), resume=True)
        assert equal(whole["new"].prompts, resumed["new"].prompts)


@pytest.mark.parametrize("settings", [{"accumulate": 3}, {"decay": "constant"}, {"warmup_epochs": 0}])
def test_other_settings_survive(tmp_path, settings):
    settings = FitSettings(checkpoint_seconds=0, **settings)
    whole = fit(Toy(), two_stages(2, 7), settings, scale_loss=True)
    for position in (3, 7):
        folder = tmp_path / str(position)
        with pytest.raises(PulledPlug):
            fit(Toy(), two_stages(2, 7), settings, folder=folder, scale_loss=True, on_event=interrupted_at(position))
        resumed = fit(Toy(), two_stages(2, 7), settings, folder=folder, resume=True, scale_loss=True)
        assert equal(whole["new"].prompts, resumed["new"].prompts)


@contextmanager
def running(folder: Path) -> Iterator[tuple[BaseProcess, Connection]]:
    """The run, started or resumed in a process of its own, which sends each step; ended by the caller."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.train.worker"])  # imports torch once for all processes
    hear, teller = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(folder, teller))
    process.start()
    teller.close()
    yield process, hear
    process.join()
    hear.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_killing_in_mid_epoch_and_in_mid_write_and_ctrl_c_change_no_bit(tmp_path):
    folder, whole = tmp_path / "killed", tmp_path / "whole"

    def temporary_files():
        return list(folder.glob(".checkpoint.safetensors.*.tmp"))

    with running(folder) as (process, hear):
        while hear.recv() != ("base", 0, 3):
            pass
        process.kill()
    assert process.exitcode == -signal.SIGKILL
    assert not (folder / "base.safetensors").exists()

    for _ in range(8):  # until a kill hits the moment: the temporary file was there, and still is
        for path in temporary_files():
            path.unlink()
        with running(folder) as (process, hear):
            hear.recv()
            while not temporary_files():
                assert process.is_alive()
            process.kill()
        assert process.exitcode == -signal.SIGKILL
        if temporary_files():
            break
    assert temporary_files()

    with running(folder) as (process, hear):
        while hear.recv() != ("new", 1, 2):
            pass
        os.kill(process.pid, signal.SIGINT)
        after = []
        with suppress(EOFError):
            while True:
                after.append(hear.recv())
    assert process.exitcode == 1
    assert len(after) <= 3

    resumed = run(folder, resume=True)
    assert not temporary_files()
    uninterrupted = run(whole, resume=False)
    assert numbers(resumed) == numbers(uninterrupted)
    for name in ("base.safetensors", "new.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_a_finished_run_is_only_read_when_it_is_resumed(tmp_path):
    whole = fit(Toy(), two_stages(), SETTINGS, folder=tmp_path)
    events, learner = [], Toy()
    again = fit(learner, two_stages(), SETTINGS, folder=tmp_path, resume=True, on_event=events.append)
    assert not events
    assert again.to_json() == whole.to_json()
    assert equal(dict(learner.state_dict()), whole["new"].prompts)
    assert learner.classes == two_stages()[1].classes


def test_resuming_says_where_it_goes_on(tmp_path):
    with pytest.raises(PulledPlug):
        fit(Toy(), two_stages(3, 4), SETTINGS, folder=tmp_path, on_event=interrupted_at(10))  # 4 + 1 + 3 are saved
    events = []
    fit(Toy(), two_stages(3, 4), SETTINGS, folder=tmp_path, resume=True, on_event=events.append)
    assert isinstance(events[0], StageStarted)
    assert events[0].done == 7
    assert isinstance(events[1], StepDone)
    assert (events[1].epoch, events[1].step) == (1, 4)


def test_resuming_an_empty_folder_starts_the_run(tmp_path):
    fit(Toy(), two_stages(), SETTINGS, folder=tmp_path / "new" / "one", resume=True)
    assert {file.name for file in (tmp_path / "new" / "one").iterdir()} == {
        "base.safetensors",
        "checkpoint-base.safetensors",
        "checkpoint-new.safetensors",
        "checkpoint.safetensors",
        "new.safetensors",
    }


def test_metadata_is_saved_with_the_prompts(tmp_path):
    fit(Toy(), two_stages(), SETTINGS, folder=tmp_path, metadata={"clip": "abc"})
    tensors, metadata = load_prompts(tmp_path / "base.safetensors")
    assert set(tensors) == set(Toy().state_dict())
    assert metadata == {"clip": "abc", "stage": "base", "classes": list(two_stages()[0].classes)}


def test_another_run_is_not_continued(tmp_path):
    fit(Toy(), two_stages(), SETTINGS, folder=tmp_path, metadata={"recipe": {"shots": 16, "b": 4}})
    with pytest.raises(CheckpointError, match="holds a run already"):
        fit(Toy(), two_stages(), SETTINGS, folder=tmp_path)
    other = {"recipe": {"shots": 8, "b": 4}}
    with pytest.raises(CheckpointError) as caught:
        fit(Toy(), two_stages(epochs=4), SETTINGS, folder=tmp_path, resume=True, seed=2, metadata=other)
    said = str(caught.value)
    assert "metadata.recipe.shots was 16, now 8" in said
    assert "stages.0.epochs was 3, now 4" in said
    assert "seed was 1, now 2" in said
    assert "recipe.b" not in said


def test_other_classes_are_named(tmp_path):
    fit(Toy(), two_stages(), SETTINGS, folder=tmp_path)
    first, second = two_stages()
    swapped = [type(first)("base", first.classes[::-1], first.batches, first.classify, 3, 0.05, True), second]
    with pytest.raises(CheckpointError, match=r"stages\.0\.classes\.0 was 'ant', now 'eel'"):
        fit(Toy(), swapped, SETTINGS, folder=tmp_path, resume=True)


def damaged(path, damage):
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) - 10], "empty": b"", "text": b"hello, this is text"}[damage])


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_first_stage_is_named_with_the_remedy(tmp_path, damage):
    fit(Toy(), two_stages(), SETTINGS, folder=tmp_path)
    damaged(tmp_path / "base.safetensors", damage)
    with pytest.raises(CheckpointError, match=r"base\.safetensors is damaged.*the run, which then begins again"):
        fit(Toy(), two_stages(), SETTINGS, folder=tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
@pytest.mark.parametrize(
    ("moment", "name", "from_stage"),
    [
        (("new", 1, 2), "checkpoint", "base"),
        (("new", 2, 1), "checkpoint", "base"),
        (None, "checkpoint", "new"),
        (None, "new", "base"),
    ],
)
def test_a_run_is_resumed_from_the_last_good_stage(tmp_path, caplog, damage, moment, name, from_stage):
    def pull(event):
        if isinstance(event, StepDone) and (event.stage, event.epoch, event.step) == moment:
            raise PulledPlug

    whole = fit(Toy(), two_stages(), SETTINGS)
    with pytest.raises(PulledPlug) if moment else nullcontext():
        fit(Toy(), two_stages(), SETTINGS, folder=tmp_path, on_event=pull)
    damaged(tmp_path / f"{name}.safetensors", damage)
    starts = []
    resumed = fit(
        *(Toy(), two_stages(), SETTINGS), folder=tmp_path, resume=True,
        on_event=lambda event: starts.append((event.stage, event.done)) if isinstance(event, StageStarted) else None,
    )  # fmt: skip
    assert f"resumed from its last good stage (checkpoint-{from_stage}.safetensors)" in caplog.text
    assert starts == ([("new", 0)] if from_stage == "base" else [])
    for stage in ("base", "new"):
        assert all(torch.equal(value, resumed[stage].prompts[key]) for key, value in whole[stage].prompts.items())
        assert [epoch.losses for epoch in resumed[stage].epochs] == [epoch.losses for epoch in whole[stage].epochs]
    caplog.clear()
    fit(Toy(), two_stages(), SETTINGS, folder=tmp_path, resume=True)
    assert not caplog.text, "the checkpoint is whole again"


def test_the_metadata_of_a_damaged_checkpoint_are_those_of_its_stage(tmp_path):
    fit(Toy(), two_stages(), SETTINGS, folder=tmp_path, metadata={"recipe": {"shots": 16}})
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    assert read_metadata(tmp_path / "checkpoint.safetensors") == {"recipe": {"shots": 16}}


def test_a_stage_of_another_run_is_not_taken_for_the_last_good_one(tmp_path):
    fit(Toy(), two_stages(epochs=2), SETTINGS, folder=tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()  # begin again, with other settings

    def pull(event):
        if isinstance(event, StepDone) and event.epoch == 1:
            raise PulledPlug

    with pytest.raises(PulledPlug):
        fit(Toy(), two_stages(epochs=3), SETTINGS, folder=tmp_path, on_event=pull)
    damaged(tmp_path / "checkpoint.safetensors", "cut")
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is damaged.*begins again"):
        fit(Toy(), two_stages(epochs=3), SETTINGS, folder=tmp_path, resume=True)


def test_a_lost_file_of_a_finished_stage_is_named(tmp_path):
    fit(Toy(), two_stages(), SETTINGS, folder=tmp_path)
    (tmp_path / "base.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"base\.safetensors does not exist.*begins again"):
        fit(Toy(), two_stages(), SETTINGS, folder=tmp_path, resume=True)
