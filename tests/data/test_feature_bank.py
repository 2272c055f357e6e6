"""The feature bank: right, computed once, whole after any interruption."""

import itertools
import logging
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maotune.clip import FrozenCLIP, Preprocess, load_clip
from maotune.data.cache import clear_cache, default_folder, measure_cache
from maotune.data.feature_bank import FeatureBank
from maotune.data.images.decode import ImageFile
from maotune.data.images.views import TestView as CentreView
from maotune.data.images.views import TrainView, view_seed
from maotune.data.sets import icons
from maotune.data.sets.dataset import Sample, UnreadableImage
from tests.data.conftest import Paint
from tests.parity.harness import tiny_clip

N, VIEWS = 7, 3


@pytest.fixture
def samples(paint: Paint) -> list[Sample]:
    return [Sample(ImageFile(paint(f"images/{number}.png")), -1) for number in range(N)]


@pytest.fixture
def clip() -> FrozenCLIP:
    return tiny_clip()


@pytest.fixture
def view(clip: FrozenCLIP) -> TrainView:
    return TrainView(clip.preprocess)


class Tower:
    """A linear image tower that counts, waits and fails as told."""

    fingerprint = "linear"
    dtype = torch.float32
    device = torch.device("cpu")
    joint_width = vision_width = 4

    def __init__(self, fail_at: int | None = None, seconds: float = 0.0) -> None:
        self.weight = torch.randn(3 * 16 * 16, 4, generator=torch.Generator().manual_seed(0))
        self.fail_at, self.seconds, self.images = fail_at, seconds, 0

    def project_image(self, features: Tensor) -> Tensor:
        return features

    def encode_image(self, images: Tensor, *, projected: bool = True) -> Tensor:
        time.sleep(self.seconds * len(images))
        self.images += len(images)
        if self.fail_at is not None and self.images >= self.fail_at:
            raise KeyboardInterrupt
        return images.flatten(1) @ self.weight


@pytest.fixture
def small() -> TrainView:
    return TrainView(Preprocess(size=16))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_features_are_those_of_the_tower(clip: FrozenCLIP, samples: list[Sample], view: TrainView) -> None:
    bank = FeatureBank(clip, None, batch_size=4)
    features = bank.features(samples, view, VIEWS)
    assert features.shape == (N, VIEWS, clip.joint_width)
    assert features.dtype == torch.float32
    for row, sample in enumerate(samples):
        seeds = [view_seed(view.seed, sample.image.digest(), number) for number in range(VIEWS)]
        images = torch.stack([view(sample.image.read(), seed) for seed in seeds])
        torch.testing.assert_close(features[row], clip.encode_image(images), rtol=1e-5, atol=1e-5)


def test_nothing_is_computed_twice(clip: FrozenCLIP, samples: list[Sample], view: TrainView, tmp_path: Path) -> None:
    first = FeatureBank(clip, tmp_path / "cache")
    seen: list[tuple[int, int]] = []
    features = first.features(samples, view, VIEWS, progress=lambda *done: seen.append(done))
    assert first.computed == N * VIEWS
    assert (seen[0], seen[-1]) == ((0, N * VIEWS), (N * VIEWS, N * VIEWS))
    assert torch.equal(first.features(samples, view, VIEWS), features)
    second = FeatureBank(clip, tmp_path / "cache")
    assert (second.missing(samples, view, VIEWS), second.missing(samples, view, VIEWS + 1)) == (0, N)
    assert second.missing(samples, CentreView(clip.preprocess)) == N
    assert torch.equal(second.features(samples, view, VIEWS), features)
    assert torch.equal(second.features(samples[::-1], view, 2), features.flip(0)[:, :2])
    assert (first.computed, second.computed) == (N * VIEWS, 0)
    more = second.features(samples, view, VIEWS + 1)
    assert torch.equal(more[:, :VIEWS], features)
    assert second.computed == N
    assert measure_cache(tmp_path / "cache").shards == len(shards(tmp_path)) == 2
    assert measure_cache(tmp_path / "cache").bytes == sum(shard.stat().st_size for shard in shards(tmp_path))


def test_features_before_the_projection_are_kept_beside_those_after_it(
    clip: FrozenCLIP, samples: list[Sample], view: TrainView, tmp_path: Path
) -> None:
    joint = FeatureBank(clip, tmp_path / "joint").features(samples, view, VIEWS)
    bank = FeatureBank(clip, tmp_path / "both")
    before = bank.features(samples, view, VIEWS, projected=False)
    assert before.shape == (N, VIEWS, clip.vision_width)
    assert torch.equal(bank.features(samples, view, VIEWS), joint), "to the bit"
    torch.testing.assert_close(before @ clip.image_projection.T, joint)
    assert bank.computed == N * VIEWS, "both in one pass"
    again = FeatureBank(clip, tmp_path / "both")
    assert again.missing(samples, view, VIEWS, projected=False) == again.missing(samples, view, VIEWS) == 0
    assert torch.equal(again.features(samples, view, VIEWS, projected=False), before)


def test_views_of_another_seed_are_other_features(clip: FrozenCLIP, samples: list[Sample], tmp_path: Path) -> None:
    bank = FeatureBank(clip, tmp_path / "cache")
    shared, first, second = (TrainView(clip.preprocess, seed=seed) for seed in (None, 1, 2))
    features = [bank.features(samples, view, VIEWS) for view in (shared, first, second)]
    assert bank.computed == 3 * N * VIEWS
    for one, other in itertools.combinations(features, 2):
        assert (one != other).any(dim=2).all(), "every view of every image differs"
    again = FeatureBank(clip, tmp_path / "cache")
    for view, expected in zip((shared, first, second), features, strict=True):
        assert torch.equal(again.features(samples, view, VIEWS), expected)
    assert again.computed == 0


def test_equal_content_is_one_image(clip: FrozenCLIP, samples: list[Sample], tmp_path: Path) -> None:
    copy = tmp_path / "copy of 0.png"
    copy.write_bytes(Path(samples[0].image.name).read_bytes())
    bank = FeatureBank(clip, None)
    features = bank.features([*samples, Sample(ImageFile(copy), 0)], CentreView(clip.preprocess))
    assert bank.computed == N
    assert torch.equal(features[0], features[-1])


def test_changed_content_another_view_and_another_precision_are_computed_anew(
    clip: FrozenCLIP, samples: list[Sample], view: TrainView, tmp_path: Path, paint: Paint
) -> None:
    bank = FeatureBank(clip, tmp_path / "cache")
    before = bank.features(samples, view)
    path = Path(samples[0].image.name)
    path.write_bytes(paint("other.png").read_bytes())
    os.utime(path, ns=(1, 1))
    after = bank.features(samples, view)
    assert bank.computed == N + 1
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0], after[0])
    bank.features(samples, CentreView(clip.preprocess))
    assert bank.computed == 2 * N + 1
    tower = Tower()
    tower.dtype = torch.bfloat16
    half = FeatureBank(tower, tmp_path / "cache")
    small = TrainView(Preprocess(size=16))
    FeatureBank(Tower(), tmp_path / "cache").features(samples, small)
    half.features(samples, small)
    assert half.computed == N


def test_an_interrupted_run_keeps_what_it_has_and_ends_in_the_same_bits(
    samples: list[Sample], small: TrainView, tmp_path: Path
) -> None:
    whole = FeatureBank(Tower(), tmp_path / "whole", batch_size=4).features(samples, small, VIEWS)
    stopped = FeatureBank(Tower(fail_at=13), tmp_path / "stopped", batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        stopped.features(samples, small, VIEWS)
    assert stopped.computed == 12
    rest = FeatureBank(Tower(), tmp_path / "stopped", batch_size=4)
    assert torch.equal(rest.features(samples, small, VIEWS), whole)
    assert rest.computed == N * VIEWS - 12


def damage(shard: Path, how: str) -> None:
    content = bytearray(shard.read_bytes())
    if how == "cut":
        shard.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        shard.write_bytes(b"")
    elif how == "flipped":
        content[-3] ^= 1
        shard.write_bytes(content)
    else:
        shard.write_bytes(b"something else entirely")


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "other"])
def test_a_damaged_shard_is_reported_and_computed_again(
    samples: list[Sample], small: TrainView, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    features = FeatureBank(Tower(), tmp_path / "cache").features(samples, small, VIEWS)
    FeatureBank(Tower(), tmp_path / "cache").features(samples, small, VIEWS + 1)
    damage(shards(tmp_path)[0], how)
    with caplog.at_level(logging.WARNING):
        bank = FeatureBank(Tower(), tmp_path / "cache")
        assert torch.equal(bank.features(samples, small, VIEWS + 1)[:, :VIEWS], features)
    assert "is damaged" in caplog.text
    assert bank.computed in (N, N * VIEWS)
    after = FeatureBank(Tower(), tmp_path / "cache")
    after.features(samples, small, VIEWS + 1)
    assert after.computed == 0


def fill(folder: Path, images: Path, seconds: float) -> None:
    """Another process that fills the bank."""
    torch.set_num_threads(1)
    samples = [Sample(ImageFile(path), -1) for path in sorted(images.iterdir())]
    random.Random(os.getpid()).shuffle(samples)
    view = TrainView(Preprocess(size=16))
    FeatureBank(Tower(seconds=seconds), folder, batch_size=2).features(samples, view, VIEWS)


@pytest.mark.slow
def test_two_processes_fill_one_bank_while_one_is_killed(
    samples: list[Sample],
    small: TrainView,
    tmp_path: Path,
) -> None:
    processes = multiprocessing.get_context("spawn")
    arguments = (tmp_path / "cache", tmp_path / "images")
    fillers = [processes.Process(target=fill, args=(*arguments, seconds)) for seconds in (0.01, 0.01, 60.0)]
    for filler in fillers:
        filler.start()
    for filler in fillers[:2]:
        filler.join(timeout=300)
        assert filler.exitcode == 0
    assert fillers[2].pid is not None
    os.kill(fillers[2].pid, signal.SIGKILL)
    fillers[2].join()
    bank = FeatureBank(Tower(), tmp_path / "cache")
    features = bank.features(samples, small, VIEWS)
    assert bank.computed == 0
    torch.testing.assert_close(features, FeatureBank(Tower(), None).features(samples, small, VIEWS))


def test_an_unreadable_image_is_named_and_the_rest_is_kept(
    samples: list[Sample], small: TrainView, tmp_path: Path
) -> None:
    Path(samples[5].image.name).write_bytes(b"no picture")
    bank = FeatureBank(Tower(), tmp_path / "cache", batch_size=2)
    with pytest.raises(UnreadableImage, match=r"5\.png"):
        bank.features(samples, small)
    rest = FeatureBank(Tower(), tmp_path / "cache", batch_size=2)
    rest.features(samples[:5], small)
    assert rest.computed < 5


def test_a_folder_that_cannot_be_written_costs_no_result(
    samples: list[Sample], small: TrainView, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    bank = FeatureBank(Tower(), tmp_path / "cache")
    assert torch.equal(bank.features(samples, small), FeatureBank(Tower(), None).features(samples, small))
    assert "they stay in memory" in caplog.text
    bank.features(samples, small)
    assert bank.computed == N


def test_clearing_deletes_the_banks_files_and_nothing_else(
    samples: list[Sample], small: TrainView, tmp_path: Path
) -> None:
    bank = FeatureBank(Tower(), tmp_path)
    bank.features(samples, small)
    leftover = shards(tmp_path)[0].with_name(".0123.tmp")
    leftover.write_bytes(b"from a process that was killed")
    bystander = tmp_path / "notes.txt"
    bystander.write_text("mine")
    assert measure_cache(tmp_path).shards == 2
    assert clear_cache(tmp_path).shards == 2
    assert measure_cache(tmp_path) == clear_cache(tmp_path) == (0, 0)
    assert bystander.read_text() == "mine"
    assert not leftover.exists()
    bank.features(samples, small)
    assert bank.computed == 2 * N


def test_a_cache_that_is_cleared_by_another_process_is_filled_again(
    samples: list[Sample], small: TrainView, tmp_path: Path
) -> None:
    bank = FeatureBank(Tower(), tmp_path)
    features = bank.features(samples, small)
    clear_cache(tmp_path)
    assert torch.equal(bank.features(samples, small), features)
    assert bank.computed == 2 * N


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAOTUNE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("MAOTUNE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "maotune"


def test_no_views_and_no_images(samples: list[Sample], small: TrainView) -> None:
    with pytest.raises(ValueError, match="views is 0"):
        FeatureBank(Tower(), None).features(samples, small, 0)
    assert FeatureBank(Tower(), None).features([], small).shape == (0, 1, 4)


def test_the_bits_of_a_feature_do_not_depend_on_what_was_missing(tmp_path: Path) -> None:
    clip = load_clip()  # on a CPU the bits of its features depend on the size of the batch, below 16
    samples, view = icons.load("icons-weather").train[:20], CentreView(clip.preprocess)
    at_once = FeatureBank(clip, tmp_path / "one").features(samples, view)
    bank = FeatureBank(clip, tmp_path / "two")
    bank.features(samples[:17], view)
    assert torch.equal(bank.features(samples, view), at_once)
    assert bank.computed == 20
