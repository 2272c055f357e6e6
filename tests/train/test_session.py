"""Files of prompts."""

import json
import logging
import random
import shutil

import pytest
import torch
from safetensors.torch import save_file

from maotune.train.history import StepDone
from maotune.train.loop import FitSettings, fit
from maotune.train.session import CheckpointError, load_prompts, restore_prompts, save_prompts
from tests.train.toy import Toy, two_stages


def test_prompts_come_back_with_their_metadata_in_a_few_kilobytes(tmp_path):
    learner, other = Toy(), Toy()
    with torch.no_grad():
        learner.context += 1  # type: ignore[misc]
    save_prompts(tmp_path / "a" / "prompts.safetensors", learner.state_dict(), {"classes": ["été", "b"], "lr": 0.002})
    tensors, metadata = load_prompts(tmp_path / "a" / "prompts.safetensors")
    restore_prompts(other, tensors)
    assert torch.equal(learner.context, other.context)
    assert metadata == {"classes": ["été", "b"], "lr": 0.002}
    assert (tmp_path / "a" / "prompts.safetensors").stat().st_size < 2000
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["prompts.safetensors"]


def test_prompts_of_another_shape_or_name_are_answered():
    learner = Toy()
    tensors = dict(Toy(hidden=6).state_dict())
    with pytest.raises(CheckpointError, match=r"context has shape \(6,\), here it has \(4,\)"):
        restore_prompts(learner, tensors)
    tensors = dict(learner.state_dict())
    tensors["contexts"] = tensors.pop("context")
    with pytest.raises(CheckpointError, match="context is missing; contexts is unknown"):
        restore_prompts(learner, tensors)


def test_other_files_are_answered(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no prompts written by maotune"):
        load_prompts(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_prompts(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="damaged or no safetensors"):
        load_prompts(tmp_path)


@pytest.mark.parametrize("flips", [1, 2])
def test_no_flipped_bit_of_a_checkpoint_or_of_prompts_changes_a_result(tmp_path, caplog, flips):
    draw = random.Random(flips)

    class PulledPlug(Exception):
        pass

    def pull(event):
        if isinstance(event, StepDone) and (event.stage, event.epoch, event.step) == ("new", 1, 2):
            raise PulledPlug

    settings = FitSettings()
    whole = fit(Toy(), two_stages(2, 3), settings)
    with pytest.raises(PulledPlug):
        fit(Toy(), two_stages(2, 3), FitSettings(checkpoint_seconds=0), folder=tmp_path / "run", on_event=pull)
    refused = 0
    files = ["checkpoint.safetensors", "base.safetensors", "checkpoint-base.safetensors"]
    for number in range(90):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "run", folder)
        path = folder / files[number % 3]
        content = bytearray(path.read_bytes())
        for bit in draw.sample(range(8 * len(content)), flips):
            content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            resumed = fit(Toy(), two_stages(2, 3), settings, folder=folder, resume=True)
        except CheckpointError:
            refused += 1
            (folder / "checkpoint.safetensors").unlink()
            resumed = fit(Toy(), two_stages(2, 3), settings, folder=folder, resume=True)
        for name in ("base", "new"):
            assert all(torch.equal(value, whole[name].prompts[key]) for key, value in resumed[name].prompts.items())
    from_stage = sum("resumed from its last good stage" in record.message for record in caplog.records)
    assert refused + from_stage > 50
    assert 0 < refused < from_stage + 30


def test_prompts_of_an_older_version_are_read_with_a_note(tmp_path, caplog):
    path = tmp_path / "prompts.safetensors"
    save_file({"a": torch.ones(1)}, path, {"prompts": json.dumps({"classes": ["a"]})})
    with caplog.at_level(logging.INFO, "maotune"):
        assert load_prompts(path)[1] == {"classes": ["a"]}
    assert "written by an older version, without a checksum" in caplog.text
    caplog.clear()
    save_prompts(path, {"a": torch.ones(1)}, {})
    with caplog.at_level(logging.INFO, "maotune"):
        load_prompts(path)
    assert not caplog.text


def test_another_number_of_threads_is_said_when_a_run_is_resumed(tmp_path, caplog):
    fit(Toy(), two_stages(1, 2), FitSettings(), folder=tmp_path)
    threads = torch.get_num_threads()
    fit(Toy(), two_stages(1, 2), FitSettings(), folder=tmp_path, resume=True)
    assert "threads" not in caplog.text
    try:
        torch.set_num_threads(threads + 1)
        fit(Toy(), two_stages(1, 2), FitSettings(), folder=tmp_path, resume=True)
    finally:
        torch.set_num_threads(threads)
    assert f"begun with {threads} threads and is resumed with {threads + 1}" in caplog.text
    assert f"OMP_NUM_THREADS={threads}" in caplog.text
