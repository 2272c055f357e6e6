"""The views: CLIP's own and CoOp's augmentation."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from maotune.clip.preprocess import Preprocess
from maotune.data.images import views as transforms
from maotune.data.images.views import TrainView, view_seed

PLAIN = Preprocess(size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(width * height).randbytes(3 * width * height))


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right and green downwards, so that pixels say where they come from."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = np.stack([x * 255 / (width - 1), y * 255 / (height - 1), 0 * x], axis=2)
    return Image.fromarray(channels.round().astype(np.uint8))


def slow_test_view(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """Resize, centre crop, to tensor, normalise: one after another, as the published CLIP states them."""
    size = preprocess.size
    scale = size / min(image.size)
    width, height = int(image.width * scale + 1e-9), int(image.height * scale + 1e-9)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    pixels = torch.tensor(list(image.get_flattened_data()), dtype=torch.float32).view(size, size, 3).permute(2, 0, 1)
    mean, std = torch.tensor(preprocess.mean).view(3, 1, 1), torch.tensor(preprocess.std).view(3, 1, 1)
    return (pixels / 255 - mean) / std


@pytest.mark.parametrize("size", [(32, 32), (64, 32), (33, 47), (20, 300), (500, 375), (7, 5)])
def test_the_test_view_is_clips(size: tuple[int, int]) -> None:
    preprocess = Preprocess(size=32)
    pixels = transforms.TestView(preprocess)(noise(*size))
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, slow_test_view(noise(*size), preprocess), rtol=1e-6, atol=1e-6)


def test_a_hair_thin_picture_costs_no_memory() -> None:
    assert transforms.TestView(Preprocess())(Image.new("RGB", (1, 200_000))).shape == (3, 224, 224)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**64 - 1))
def test_the_train_view_takes_any_picture_and_is_a_function_of_the_seed(width: int, height: int, seed: int) -> None:
    view = TrainView(PLAIN)
    pixels = view(noise(width, height), seed)
    assert pixels.shape == (3, 32, 32)
    assert torch.equal(pixels, view(noise(width, height), seed))


def test_the_train_view_draws_parts_as_coop_does() -> None:
    """Areas of 8 to 100 %, ratios of 3/4 to 4/3, mirrored half of the time: measured on what comes out."""
    image, view = gradient(256, 256), TrainView(PLAIN)
    areas, ratios, mirrored = [], [], 0
    for seed in range(400):
        red, green, _ = view(image, view_seed(None, "0", seed))
        width, height = red.max() - red.min(), green.max() - green.min()
        areas.append(float(width * height))
        ratios.append(float(width / height))
        mirrored += bool(red[0, 0] > red[0, -1])
    assert 0.06 < min(areas) < 0.11
    assert 0.9 < max(areas) <= 1
    assert 0.4 < sum(areas) / len(areas) < 0.6
    assert 0.7 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.45
    assert abs(sum(map(math.log, ratios)) / len(ratios)) < 0.03
    assert 160 < mirrored < 240


def test_the_settings_of_the_train_view() -> None:
    image = gradient(64, 64)
    whole = TrainView(PLAIN, scale=(1.0, 1.0), flip=False)
    assert all(whole(image, seed)[0, 0, 0] < whole(image, seed)[0, 0, -1] for seed in range(30))
    tight = TrainView(PLAIN, scale=(0.1, 0.1))
    assert all(tight(image, seed)[0].max() - tight(image, seed)[0].min() < 0.45 for seed in range(30))


def test_seeds_differ_by_run_content_and_view() -> None:
    runs = (None, 0, 1)
    assert len({view_seed(run, digest, view) for run in runs for digest in ("a", "b") for view in range(-5, 5)}) == 60
    assert view_seed(1, "a", 0) == view_seed(1, "a", 0)
    assert view_seed(None, "a", 0) == 15558117463293904936, "as it was before views depended on the run's seed"


def test_fingerprints_say_what_pixels_depend_on() -> None:
    views = [
        transforms.TestView(Preprocess()),
        transforms.TestView(Preprocess(size=64)),
        transforms.TestView(Preprocess(mean=(0.5, 0.5, 0.5))),
        transforms.TestView(Preprocess(interpolation="bilinear")),
        TrainView(Preprocess()),
        TrainView(Preprocess(), scale=(0.5, 1.0)),
        TrainView(Preprocess(), flip=False),
        TrainView(Preprocess(), seed=1),
        TrainView(Preprocess(), seed=2),
    ]
    assert len({view.fingerprint for view in views}) == len(views)  # type: ignore[attr-defined]
    assert transforms.TestView(Preprocess()).fingerprint == views[0].fingerprint  # type: ignore[attr-defined]
    shared = "train-1 0.08..1 flip True 224 bicubic mean 0.48145466 0.4578275 0.40821073"
    assert TrainView(Preprocess()).fingerprint.startswith(shared), "banks of before are of use"
