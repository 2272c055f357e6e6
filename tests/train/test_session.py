"""Files of prompts."""

import pytest
import torch
from safetensors.torch import save_file

from maotune.train.session import CheckpointError, load_prompts, restore_prompts, save_prompts
from tests.train.toy import Toy


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
