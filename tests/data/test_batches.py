"""Samplers, and batches that hold features and pixels of the same views."""

import threading
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from maotune.clip.preprocess import Preprocess
from maotune.contract import Batch
from maotune.data.batches import PixelSource, RandomSampler, SampleBatches, SequentialSampler
from maotune.data.images.decode import ImageFile
from maotune.data.images.views import TrainView, view_seed
from maotune.data.sets.dataset import Sample, UnreadableImage
from tests.data.conftest import Paint

VIEW = TrainView(Preprocess(size=16), seed=3)


@pytest.fixture
def samples(paint: Paint) -> list[Sample]:
    return [Sample(ImageFile(paint(f"{number}.png")), number % 3) for number in range(11)]


@pytest.mark.parametrize(
    ("n", "batch_size", "updates", "drawn"), [(11, 4, 2, 8), (12, 4, 3, 12), (3, 4, 1, 3), (1, 1, 1, 1)]
)
def test_random_batches_take_each_image_once_and_drop_what_is_left_over(
    n: int, batch_size: int, updates: int, drawn: int
) -> None:
    sampler = RandomSampler(n, batch_size, views=3, seed=5)
    for epoch in range(4):
        batches = sampler.epoch(epoch)
        assert len(batches) == len(sampler) == updates
        assert len({len(batch) for batch in batches}) == 1
        draws = [draw for batch in batches for draw in batch]
        assert Counter(image for image, _ in draws).most_common(1)[0][1] == 1
        assert len(draws) == drawn
        assert {view for _, view in draws} == {epoch % 3}


def test_random_batches_are_a_function_of_seed_and_epoch() -> None:
    sampler = RandomSampler(20, 4, views=2, seed=5)
    assert sampler.epoch(3) == RandomSampler(20, 4, views=2, seed=5).epoch(3)
    assert sampler.epoch(3) != sampler.epoch(5)
    assert sampler.epoch(3) != RandomSampler(20, 4, views=2, seed=6).epoch(3)


def test_random_batches_need_images() -> None:
    with pytest.raises(ValueError, match="images: 0; 1 or more"):
        RandomSampler(0, 4, views=1, seed=0)


def test_sequential_batches_hold_every_image_in_order() -> None:
    batches = SequentialSampler(11, 4).epoch(7)
    assert [image for batch in batches for image, _ in batch] == list(range(11))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert len(SequentialSampler(11, 4)) == 3
    assert SequentialSampler(3, 4, views=2).epoch(5) == [[(0, 0), (0, 1), (1, 0), (1, 1)], [(2, 0), (2, 1)]]
    assert len(SequentialSampler(3, 4, views=2)) == 2


def test_features_and_pixels_are_of_the_same_image_and_view(samples: list[Sample]) -> None:
    """Where the features are the pixels themselves, the two must be equal."""

    def both_views(sample: Sample) -> torch.Tensor:
        picture, digest = sample.image.read(), sample.image.digest()
        return torch.stack([VIEW(picture, view_seed(VIEW.seed, digest, view)).flatten() for view in range(2)])

    pixels = torch.stack([both_views(sample) for sample in samples])
    labels = [(number * 7) % 5 for number in range(11)]
    sampler = RandomSampler(11, 4, views=2, seed=0)
    batches = SampleBatches(samples, labels, sampler, features=pixels, pixels=PixelSource(samples, VIEW))
    by_name = {sample.image.name: label for sample, label in zip(samples, labels, strict=True)}
    for epoch in range(2):
        for batch in batches.epoch(epoch):
            assert batch.images is not None
            assert batch.features is not None
            assert torch.equal(batch.images.flatten(1), batch.features)
            assert batch.labels.tolist() == [by_name[name] for name in batch.names]
            assert batch.second_images is None


def test_soft_labels_train_on_what_they_say(samples: list[Sample]) -> None:
    """A linear classifier learns the probabilities of each image, whatever view it is seen in."""
    torch.manual_seed(0)
    features = torch.eye(11)[:, None].repeat(1, 2, 1)
    soft = torch.softmax(torch.randn(11, 3), dim=1)
    batches = SampleBatches(samples, soft, RandomSampler(11, 11, views=2, seed=0), features=features)
    weight = torch.zeros(11, 3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=20.0)
    for epoch in range(300):
        for batch in batches.epoch(epoch):
            assert batch.features is not None
            optimizer.zero_grad()
            cross_entropy(batch.features @ weight, batch.labels).backward()
            optimizer.step()
    torch.testing.assert_close(weight.softmax(dim=1).detach(), soft, rtol=0, atol=1e-3)


def test_labels_of_each_kind_reach_the_batch(samples: list[Sample]) -> None:
    features = torch.zeros(11, 2, 8)

    def batch_of(labels: torch.Tensor | list[int]) -> Batch:
        return next(SampleBatches(samples, labels, RandomSampler(11, 11, 2, 0), features=features).epoch(1))

    order = [int(Path(name).stem) for name in batch_of([0] * 11).names]
    per_view = torch.arange(22).reshape(11, 2)
    soft = torch.softmax(torch.arange(55.0).view(11, 5).sin(), dim=1)
    for labels, expected in (
        (list(range(11)), torch.tensor(order)),
        (per_view, per_view[order, 1]),
        (soft, soft[order]),
    ):
        assert torch.equal(batch_of(labels).labels, expected)


def test_no_images_are_no_batches() -> None:
    batches = SampleBatches(
        [], [], SequentialSampler(0, 4), features=torch.zeros(0, 1, 8), pixels=PixelSource([], VIEW)
    )
    assert list(batches.epoch(0)) == []


def test_starting_in_mid_epoch_gives_the_rest_of_the_epoch(samples: list[Sample]) -> None:
    sampler = RandomSampler(11, 2, views=2, seed=0)
    batches = SampleBatches(samples, [0] * 11, sampler, pixels=PixelSource(samples, VIEW), pairs=True)
    whole, rest = list(batches.epoch(1)), list(batches.epoch(1, start=3))
    assert len(whole) == len(batches) == 5
    for one, other in zip(whole[3:], rest, strict=True):
        assert one.names == other.names
        for field in ("labels", "images", "second_images"):
            assert torch.equal(getattr(one, field), getattr(other, field))


def test_pairs_are_two_views_of_the_same_images(samples: list[Sample]) -> None:
    sampler = RandomSampler(11, 3, views=2, seed=0)
    source = PixelSource(samples, VIEW)
    for epoch in range(2):
        for batch in SampleBatches(samples, [0] * 11, sampler, pixels=source, pairs=True).epoch(epoch):
            assert batch.images is not None
            assert batch.second_images is not None
            for name, first, second in zip(batch.names, batch.images, batch.second_images, strict=True):
                index = next(i for i, sample in enumerate(samples) if sample.image.name == name)
                assert torch.equal(first, source.pixels((index, epoch)))
                assert torch.equal(second, source.pixels((index, -1 - epoch)))
                assert not torch.equal(first, second)


class CountingFile:
    """A file that counts how often it is decoded."""

    def __init__(self, path: Path) -> None:
        self.file, self.reads = ImageFile(path), 0

    @property
    def name(self) -> str:
        return self.file.name

    def read(self) -> Image.Image:
        self.reads += 1
        return self.file.read()

    def digest(self) -> str:
        return self.file.digest()


@pytest.mark.parametrize(("memory", "reads"), [(1 << 20, 1), (0, 5), (3 * 40 * 30 * 4, 5)])
def test_decoded_pictures_are_kept_as_memory_allows(paint: Paint, memory: int, reads: int) -> None:
    files = [CountingFile(paint(f"{number}.png")) for number in range(6)]
    source = PixelSource([Sample(file, 0) for file in files], VIEW, memory=memory)
    for epoch in range(5):
        for index in range(6):
            source.pixels((index, epoch))
    assert [file.reads for file in files] == [reads] * 6


def test_pictures_used_last_are_kept(paint: Paint) -> None:
    files = [CountingFile(paint(f"{number}.png")) for number in range(3)]
    source = PixelSource([Sample(file, 0) for file in files], VIEW, memory=2 * 40 * 30 * 4)
    for index in (0, 1, 0, 2, 0, 1):
        source.pixels((index, 0))
    assert [file.reads for file in files] == [1, 2, 1]


def test_leaving_an_epoch_early_leaves_no_thread_behind(samples: list[Sample]) -> None:
    before = threading.active_count()
    epoch = SampleBatches(
        samples, [0] * 11, RandomSampler(11, 2, views=1, seed=0), pixels=PixelSource(samples, VIEW)
    ).epoch(0)
    assert len(list(islice(epoch, 1))) == 1
    epoch.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_an_unreadable_image_is_named(samples: list[Sample]) -> None:
    bad = Path(samples[4].image.name)
    bad.write_bytes(b"no picture")
    batches = SampleBatches(samples, [0] * 11, SequentialSampler(11, 2), pixels=PixelSource(samples, VIEW))
    with pytest.raises(UnreadableImage, match=r"4\.png: no picture"):
        list(batches.epoch(0))


def test_what_does_not_match_is_refused(samples: list[Sample]) -> None:
    sampler, features, source = SequentialSampler(11, 4), torch.zeros(11, 1, 8), PixelSource(samples, VIEW)
    with pytest.raises(ValueError, match="features, pixels, or both"):
        SampleBatches(samples, [0] * 11, sampler)
    with pytest.raises(ValueError, match="11 images, but 10 labels"):
        SampleBatches(samples, [0] * 10, sampler, features=features)
    with pytest.raises(ValueError, match="11 images, but 9 rows of features"):
        SampleBatches(samples, [0] * 11, sampler, features=features[:9])
    with pytest.raises(ValueError, match="10 images, but 11 images in the pixel source"):
        SampleBatches(samples[:10], [0] * 10, sampler, pixels=source)
    with pytest.raises(ValueError, match="2 of 11 images have no label"):
        SampleBatches(samples, [0, -1, -1] + [0] * 8, sampler, features=features)
    with pytest.raises(ValueError, match=r"labels are float64 of shape \(11, 3\): give int64 class indices"):
        SampleBatches(samples, torch.full((11, 3), 1 / 3, dtype=torch.float64), sampler, features=features)
    with pytest.raises(ValueError, match=r"labels are float32 of shape \(11,\)"):
        SampleBatches(samples, torch.zeros(11), sampler, features=features)
    for bad in (torch.full((3,), 0.5), torch.tensor([1.5, -0.5, 0.0]), torch.tensor([float("nan"), 0.5, 0.5])):
        soft = torch.eye(3)[[0] * 11]
        soft[4] = bad
        with pytest.raises(
            ValueError, match=r"soft labels of 1 of 11 images are no probabilities \(the first: image 4\)"
        ):
            SampleBatches(samples, soft, sampler, features=features)
    with pytest.raises(ValueError, match="second view of each image needs pixels"):
        SampleBatches(samples, [0] * 11, sampler, features=features, pairs=True)
    with pytest.raises(IndexError):
        list(SampleBatches(samples, [0] * 11, RandomSampler(11, 4, 2, 0), features=features).epoch(1))
