"""Small files that would take gigabytes or hours, and configs that describe no CLIP: refused before they are read."""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maotune.clip import load_clip
from maotune.clip.limits import PICKLED_OBJECTS, TooLargeError, check_pickle
from tests.clip.conftest import toy_model

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nK\x01tQ"
"""The beginning of a tensor in a pickle: function, storage of one number."""


def archive(path: Path, program: bytes, storage: bytes = b"\0\0\0\0", method: int = zipfile.ZIP_STORED) -> Path:
    """A TorchScript archive with this pickle and this storage."""
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("clip/constants.pkl", b"\x80\x02).")
        file.writestr("clip/data.pkl", program)
        file.writestr("clip/data/0", storage)
    return path


def doubled(start: bytes, pair: bytes, times: int = 36) -> bytes:
    """A pickle in which each object holds the one before it twice: 2^36 paths in a few hundred bytes."""
    program = b"\x80\x02" + start + b"q\0"
    for number in range(times):
        before = b"h" + bytes([number])
        program += pair.replace(b"<", before) + b"q" + bytes([number + 1])
    return program + b"."


def shared_modules(path: Path) -> Path:
    return archive(path / "clip.pt", doubled(b"c__torch__\nM\n)\x81", b"c__torch__\nM\n)\x81}(Va\n<Vb\n<ub"))


def shared_tuples(path: Path) -> Path:
    return archive(path / "clip.pt", doubled(b"K\x01\x85", b"<<\x86"))


def shared_dicts(path: Path) -> Path:
    """In a file of torch's, which other code reads."""
    with zipfile.ZipFile(path / "clip.pt", "w") as file:
        file.writestr("clip/data.pkl", doubled(b"}", b"}(Va\n<Vb\n<u"))
        file.writestr("clip/version", "3")
    return path / "clip.pt"


def shared_dicts_in_the_older_format(path: Path) -> Path:
    torch.save({"x": torch.zeros(1)}, path / "clip.pt", _use_new_zipfile_serialization=False)
    start = b"".join(pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    (path / "clip.pt").write_bytes(start + doubled(b"}", b"}(Va\n<Vb\n<u") + pickle.dumps([], 2))
    return path / "clip.pt"


def far_place_in_the_memo(path: Path) -> Path:
    return archive(path / "clip.pt", b"\x80\x02K\x01r\xff\xff\xff\x7f.")


def long_pickle(path: Path) -> Path:
    return archive(path / "clip.pt", b"\x80\x02" + b"N0" * 600_000 + b"N.", method=zipfile.ZIP_DEFLATED)


def many_pickles(path: Path) -> Path:
    with zipfile.ZipFile(archive(path / "clip.pt", b"N."), "a") as file:
        for number in range(50):
            file.writestr(f"clip/{number}/data.pkl", b"N.")
    return path / "clip.pt"


def bomb(path: Path) -> Path:
    return archive(path / "clip.pt", b"N.", bytes(300 << 20), zipfile.ZIP_DEFLATED)


def repeated_number(path: Path) -> Path:
    """A tensor of 10^12 numbers, all of them the same one in the storage."""
    size = b"(J\x40\x42\x0f\0J\x40\x42\x0f\0t(K\0K\0tt"
    program = b"\x80\x02c__torch__\nM\n)\x81}Vw\n" + TENSOR + b"K\0" + size + b"Rsb."
    return archive(path / "clip.pt", program)


def repeated_number_by_torch(path: Path) -> Path:
    torch.save({"w": torch.zeros(1).expand(1_000_000, 1_000_000)}, path / "clip.pt")
    return path / "clip.pt"


def dictionary_in_itself(path: Path) -> Path:
    state: dict[str, Any] = {}
    state["model"] = state
    torch.save(state, path / "clip.pt")
    return path / "clip.pt"


def complex_numbers(path: Path) -> Path:
    torch.save({"w": torch.zeros(3, dtype=torch.complex64)}, path / "clip.pt")
    return path / "clip.pt"


def sparse_numbers(path: Path) -> Path:
    torch.save({"w": torch.eye(3).to_sparse()}, path / "clip.pt")
    return path / "clip.pt"


def long_header(path: Path) -> Path:
    with (path / "clip.safetensors").open("wb") as file:  # no bytes on disk
        file.write(struct.pack("<Q", 90_000_000) + b"{")
        file.truncate(90_000_010)
    return path / "clip.safetensors"


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (shared_modules, "unfolds to more than 4,194,304 objects"),
        (shared_tuples, "unfolds to more than"),
        (shared_dicts, "unfolds to more than"),
        (shared_dicts_in_the_older_format, "unfolds to more than"),
        (far_place_in_the_memo, "place 2,147,483,647"),
        (long_pickle, "more than 1,048,576 operations"),
        (many_pickles, "more than two pickles"),
        (bomb, "unpacks to more than twice its size"),
        (repeated_number, "more than are in the file"),
        (repeated_number_by_torch, "more than are in the file"),
        (dictionary_in_itself, "RecursionError"),
        (complex_numbers, "of a kind that no CLIP has"),
        (sparse_numbers, r"of a kind that no CLIP has|can not be read"),
        (long_header, r"its header has 90,000,000 bytes"),
    ],
)
def test_a_file_that_would_grow_is_refused(save: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    path = save(tmp_path)
    assert path.stat().st_blocks * 512 < 1 << 20
    with pytest.raises(ValueError, match=f"can not be read as weights.*({message})"):
        load_clip(path)


def test_what_is_shared_a_few_times_is_read() -> None:
    check_pickle(doubled(b"}", b"}(Va\n<Vb\n<u", times=10))
    with pytest.raises(TooLargeError):
        check_pickle(doubled(b"}", b"}(Va\n<Vb\n<u", times=PICKLED_OBJECTS.bit_length()))


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"0.", b"t.", b"h\x05.", b"\x80\x02q\0.", b"\xff\xff"])
def test_a_damaged_pickle_is_an_error(content: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        check_pickle(content)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    toy_model().save_pretrained(folder)
    return folder


def with_config(folder: Path, saved: Path, **changes: Any) -> Path:
    """The saved model with another config."""
    config = json.loads((saved / "config.json").read_text())
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    (folder / "model.safetensors").symlink_to(saved / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def text(**settings: Any) -> dict[str, Any]:
    return {"text_config": settings}


def vision(**settings: Any) -> dict[str, Any]:
    return {"vision_config": settings}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (text(num_hidden_layers=300_000), "num_hidden_layers is 300000, but the weights have 3"),
        (vision(num_hidden_layers=2), "num_hidden_layers is 2, but the weights have 3"),
        (text(hidden_size=-32), "text_config.hidden_size is -32; it should be a whole number from 1"),
        (vision(num_attention_heads=0), "num_attention_heads is 0"),
        (vision(num_attention_heads=-2), "num_attention_heads is -2"),
        (text(num_attention_heads=5), "describes no CLIP that can be built"),
        (text(vocab_size=10**30), "vocab_size is 10{30}"),
        (text(max_position_embeddings=True), "max_position_embeddings is True"),
        (vision(image_size=[32, 32]), r"image_size is \[32, 32\]"),
        (vision(image_size=4), "damaged, or no CLIP|instead of"),
        (vision(patch_size=1 << 20), "damaged, or no CLIP|instead of"),
        (text(hidden_act=["gelu"]), "describes no CLIP"),
        (text(layer_norm_eps="much"), "describes no CLIP"),
        (text(layer_norm_eps=-1.0), "layer_norm_eps is -1.0"),
        ({"text_config": 3}, "text_config should be an object"),
        ({"projection_dim": None}, "projection_dim is None"),
        ({"projection_dim": 1 << 23}, r"text_projection\.weight is \(24, 32\) instead of"),
        (vision(stem={"channels": [8] * 100_000, "groups": 4}), "list of 1 to 12"),
        (vision(stem={"channels": ["8"], "groups": 4}), "list of 1 to 12"),
        (vision(stem=5), "needs exactly"),
    ],
)
def test_a_config_that_does_not_describe_the_weights(
    changes: dict[str, Any], message: str, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        load_clip(with_config(tmp_path, saved, **changes))


def test_settings_that_no_feature_depends_on_are_not_even_read(saved: Path, tmp_path: Path) -> None:
    """Some would have transformers make a name for each of a billion classes, or import other packages."""
    others = {
        "num_labels": 10**9,
        "attn_implementation": "flash_attention_2",
        "dtype": "no-such",
        "auto_map": {"a": "b"},
    }
    assert load_clip(with_config(tmp_path, saved, **others)).fingerprint == load_clip(saved).fingerprint


def test_a_deep_or_endless_file_is_refused(saved: Path, tmp_path: Path) -> None:
    config = with_config(tmp_path, saved) / "config.json"
    config.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"config\.json is not JSON: maximum recursion depth"):
        load_clip(tmp_path)
    config.unlink()
    config.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_clip(tmp_path)
    os.mkfifo(tmp_path / "pipe.pt")
    for endless in (tmp_path / "pipe.pt", "/dev/zero"):
        with pytest.raises(ValueError, match="neither a file nor a folder"):
            load_clip(endless)
