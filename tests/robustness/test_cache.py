"""No fault of the cache changes a result or stops a run."""

import contextlib
import logging
import os
import random
import resource
import shutil
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from maotune.clip import Preprocess
from maotune.data.cache import clear_cache, measure_cache
from maotune.data.feature_bank import FeatureBank
from maotune.data.images.decode import MemoryImage
from maotune.data.images.views import TestView as CentreView
from maotune.data.sets.dataset import Sample
from maotune.files import read_tensors, write_tensors
from maotune.mao.neighbours import hard_negatives

NAMES = ["rose", "tiger lily", "fire lily", "sunflower", "moon_orchid", "corn poppy", "moon orchid", "water lily"]
VIEW = CentreView(Preprocess(size=16))
WIDTH = 4


class Tower:
    """A linear image tower."""

    fingerprint = "linear"
    dtype = torch.float32
    device = torch.device("cpu")
    joint_width = WIDTH
    weight = torch.randn(3 * 16 * 16, WIDTH, generator=torch.Generator().manual_seed(0))

    def encode_image(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight


def samples(count: int) -> list[Sample]:
    pictures = np.random.default_rng(0).integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)
    return [Sample(MemoryImage(Image.fromarray(picture), str(number)), -1) for number, picture in enumerate(pictures)]


SAMPLES = samples(6)


def features(folder: Path | None) -> Tensor:
    return FeatureBank(Tower(), folder, batch_size=2).features(SAMPLES, VIEW)


def table(folder: Path | None) -> Tensor:
    return hard_negatives(NAMES, 4, cache=folder)


WHOLE = {features: features(None), table: table(None)}
Kept = Callable[[Path | None], Tensor]


def file_of(kept: Kept, folder: Path) -> Path:
    """Fill the cache, and return the file."""
    kept(folder)
    (file,) = folder.rglob("*.safetensors")
    return file


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "rolled": lambda value: value.roll(1, 1),
    "out of range": lambda value: value + 100,
    "too narrow": lambda value: value[:, :2].contiguous(),
}


def changed(file: Path, change: Callable[[Tensor], Tensor], checked: bool) -> bytes:
    """The content of a file with another table, or other features, and a checksum that fits or none."""
    whole = read_tensors(file)
    tensors = {name: value if name == "keys" else change(value) for name, value in whole.tensors.items()}
    if checked:
        write_tensors(file, tensors, whole.texts)
    else:
        save_file(tensors, file, whole.texts)
    return file.read_bytes()


@pytest.mark.parametrize("kept", [features, table])
@pytest.mark.parametrize("fault", ["flipped", "cut", "empty", "text", "of another", *CHANGES])
def test_a_fault_in_a_file_of_the_cache_changes_no_result(
    tmp_path: Path, kept: Kept, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = file_of(kept, tmp_path)
    content = bytearray(file.read_bytes())
    if fault == "flipped":
        content[-3] ^= 1
    elif fault == "of another":
        other = file_of(lambda folder: hard_negatives(NAMES[::-1], 4, cache=folder), tmp_path / "other")
        content = bytearray(other.read_bytes())
        shutil.rmtree(tmp_path / "other")
    elif fault in CHANGES:  # a table is compared with its classes, too; features are only known by their checksum
        content = bytearray(
            changed(file, CHANGES[fault], checked=fault == "too narrow" or (fault == "out of range" and kept is table))
        )
    file.write_bytes({"cut": content[:-9], "empty": b"", "text": b"something else"}.get(fault, content))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(kept(tmp_path), WHOLE[kept])
    assert "is damaged" in caplog.text
    assert "computed again" in caplog.text
    caplog.clear()
    assert torch.equal(kept(tmp_path), WHOLE[kept])
    assert not caplog.text, "it has been written again"


@pytest.mark.parametrize("kept", [features, table])
def test_every_flipped_bit_of_a_file_of_the_cache_changes_no_result(tmp_path: Path, kept: Kept) -> None:
    logging.getLogger("maotune").setLevel(logging.ERROR)
    file = file_of(kept, tmp_path)
    whole = file.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), 60):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        assert torch.equal(kept(tmp_path), WHOLE[kept]), bit
    logging.getLogger("maotune").setLevel(logging.NOTSET)


def test_a_table_of_an_older_version_is_not_trusted_and_is_cleared(tmp_path: Path) -> None:
    with (tmp_path / f"hard-negatives-{'0' * 32}.npy").open("wb") as old:
        np.save(old, WHOLE[table].roll(1, 1).numpy())
    (tmp_path / "notes.txt").touch()
    assert torch.equal(table(tmp_path), WHOLE[table])
    assert measure_cache(tmp_path).shards == 2
    assert clear_cache(tmp_path).shards == 2
    assert [path.name for path in tmp_path.iterdir()] == ["features"] or not (tmp_path / "features").exists()
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("kept", [features, table])
@pytest.mark.parametrize("fault", ["read-only and empty", "read-only and damaged", "a file", "below a file", "full"])
def test_a_cache_that_cannot_be_written_stops_no_run(
    shared: Path, kept: Kept, fault: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shared / "cache"
    if fault == "a file":
        folder.touch()
    elif fault == "below a file":
        shared.joinpath("in the way").touch()
        folder = shared / "in the way" / "cache"
    else:
        folder.mkdir()
    if fault == "read-only and damaged":
        file = file_of(kept, folder)
        file.write_bytes(file.read_bytes()[:-3])
    for path in (shared, *shared.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    request.getfixturevalue("unprivileged")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if fault == "full":
        os.seteuid(0) if os.getuid() == 0 else None
        folder.chmod(0o777)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with caplog.at_level(logging.WARNING):
            assert torch.equal(kept(folder), WHOLE[kept])
            assert torch.equal(kept(folder), WHOLE[kept])
            measure_cache(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "they stay in memory" in caplog.text
    assert not list(shared.rglob("*.tmp"))


@pytest.mark.parametrize("kept", [features, table])
def test_too_many_open_files_are_no_damage(tmp_path: Path, kept: Kept) -> None:
    file = file_of(kept, tmp_path)
    written = file.stat()
    limits, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE), []
    reader = FeatureBank(Tower(), tmp_path, batch_size=2)
    seen = reader.missing(SAMPLES, VIEW)  # it knows the shards when there is no descriptor left to read them
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                descriptors.append(os.dup(0))
        result = reader.features(SAMPLES, VIEW) if kept is features else kept(tmp_path)
        again = kept(tmp_path)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert seen == (0 if kept is features else len(SAMPLES))
    assert torch.equal(result, WHOLE[kept])
    assert torch.equal(again, WHOLE[kept])
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    if kept is features:
        fresh = FeatureBank(Tower(), tmp_path, batch_size=2)
        assert fresh.missing(SAMPLES, VIEW) == 0


@pytest.mark.parametrize("kept", [features, table])
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "dangling"])
def test_what_only_has_the_name_of_a_file_of_the_cache_is_passed_over(tmp_path: Path, kept: Kept, kind: str) -> None:
    file = file_of(kept, tmp_path)
    for place in (file, file.with_name(f"{'0' * 32}.safetensors"), tmp_path / f"hard-negatives-{'0' * 32}.npy"):
        place.unlink(missing_ok=True)
        if kind == "folder":
            place.mkdir()
        elif kind == "pipe":
            os.mkfifo(place)
        else:
            place.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    assert torch.equal(kept(tmp_path), WHOLE[kept])
    assert torch.equal(kept(tmp_path), WHOLE[kept])
    measure_cache(tmp_path)
    clear_cache(tmp_path)
    assert os.path.lexists(file.with_name(f"{'0' * 32}.safetensors")), "not ours"


def use(folder: Path, number: int, seconds: float) -> None:
    """A process that reads, writes and clears a shared cache for some time."""
    torch.set_num_threads(1)
    draw, until = random.Random(number), time.monotonic() + seconds
    logging.getLogger("maotune").setLevel(logging.ERROR)
    looks = 0
    while time.monotonic() < until:
        chosen = draw.sample(range(len(SAMPLES)), draw.randint(1, len(SAMPLES)))
        bank = FeatureBank(Tower(), folder, batch_size=2)
        found = bank.features([SAMPLES[index] for index in chosen], VIEW)
        torch.testing.assert_close(found[:, 0], WHOLE[features][chosen, 0])
        measure_cache(folder)
        looks += 1
        if number % 8 == 0 and draw.random() < 0.2:
            clear_cache(folder)
    (folder.parent / f"{number}.looks").write_text(str(looks))


def crowd(folder: Path, processes: int, seconds: float) -> int:
    """Let processes use one cache; return how often they did."""
    context = get_context("fork")
    users = [context.Process(target=use, args=(folder, number, seconds)) for number in range(processes)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert [user.exitcode for user in users] == [0] * processes
    return sum(int(path.read_text()) for path in folder.parent.glob("*.looks"))


def test_processes_share_a_cache_that_some_of_them_clear(tmp_path: Path) -> None:
    assert crowd(tmp_path / "cache", 4, 2.0) >= 4


@pytest.mark.slow
@pytest.mark.long
def test_thirty_two_processes_share_a_cache_for_a_minute(tmp_path: Path) -> None:
    looks = crowd(tmp_path / "cache", 32, 60.0)
    print(f"{looks} uses of a shared cache by 32 processes")
    assert looks > 32
