"""Images become the pixels that transformers and open_clip make of them with the same files, or the file is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil

from maotune.clip import FrozenCLIP, Preprocess, load_clip
from maotune.clip.preprocess import read_preprocess
from maotune.data.images.views import TestView
from tests.clip.conftest import toy_model

PICTURES = [(60, 48), (48, 96), (32, 32), (20, 24)]
"""Width and height; what is cropped away is even on both sides, as libraries round halves in different ways."""


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)


def view(folder: Path, image: Image.Image, size: int = 32) -> Tensor:
    return TestView(read_preprocess(folder, size))(image)


PROCESSORS: dict[str, Any] = {
    "openai": CLIPImageProcessorPil(size=32, crop_size=32),
    "no normalisation": CLIPImageProcessorPil(size=32, crop_size=32, do_normalize=False),
    "no rescaling": CLIPImageProcessorPil(size=32, crop_size=32, do_rescale=False),
    "another range": CLIPImageProcessorPil(size=32, crop_size=32, rescale_factor=1 / 127.5),
    "larger than the crop": CLIPImageProcessorPil(size=40, crop_size=32),
    "smaller than the crop": CLIPImageProcessorPil(size=24, crop_size=32),
    "squash": CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False),
    "squash, then crop": CLIPImageProcessorPil(size={"height": 40, "width": 40}, crop_size=32),
    "bilinear": CLIPImageProcessorPil(size=32, crop_size=32, resample=2),
    "lanczos": CLIPImageProcessorPil(size=32, crop_size=32, resample=1),
    "another mean": CLIPImageProcessorPil(size=32, crop_size=32, image_mean=[0.1, 0.2, 0.3], image_std=[1, 2, 3]),
    "siglip": SiglipImageProcessorPil(size={"height": 32, "width": 32}),
    "vit": ViTImageProcessorPil(size={"height": 32, "width": 32}),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_an_image_processor_of_transformers(name: str, tmp_path: Path) -> None:
    processor = PROCESSORS[name]
    processor.save_pretrained(tmp_path)
    for size in PICTURES:
        expected = processor(picture(*size), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(view(tmp_path, picture(*size)), expected, rtol=1e-4, atol=1e-4)


def test_settings_that_are_not_stated_or_null_are_the_defaults_of_the_processor(tmp_path: Path) -> None:
    """Models of before 2023 have bare numbers, and name a feature extractor."""
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32, "resample": None}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    assert read_preprocess(tmp_path, 32).fingerprint == Preprocess(32).fingerprint
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor"}')
    half = (0.5, 0.5, 0.5)
    assert read_preprocess(tmp_path, 48).fingerprint == Preprocess(48, half, half, "bilinear", "squash").fingerprint


def test_the_processor_of_a_whole_model_counts_before_that_of_its_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "processor_config.json").write_text('{"image_processor": {"image_mean": 0.25, "image_std": 0.75}}')
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    assert read_preprocess(tmp_path, 32).mean == (0.25, 0.25, 0.25)
    assert "processor_config.json, preprocessor_config.json differ" in caplog.text


def padded(image: Image.Image, size: int, fill: int) -> Image.Image:
    ratio = size / max(image.size)
    image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (size, size), (fill, fill, fill))
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return canvas


@pytest.mark.parametrize(
    ("stated", "resized"),
    [
        ({"resize_mode": "squash"}, lambda image: image.resize((32, 32), Image.Resampling.BICUBIC)),
        (
            {"resize_mode": "squash", "interpolation": "bilinear", "size": [224, 224]},
            lambda image: image.resize((32, 32), Image.Resampling.BILINEAR),
        ),
        ({"resize_mode": "longest"}, lambda image: padded(image, 32, 0)),
        (
            {"resize_mode": "longest", "fill_color": 127, "interpolation": "random"},
            lambda image: padded(image, 32, 127),
        ),
    ],
)
def test_resize_modes_of_open_clip(stated: dict[str, Any], resized: Any, tmp_path: Path) -> None:
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    content = {"model_cfg": {}, "preprocess_cfg": {"mean": mean, "std": std, "mode": "RGB", **stated}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    for size in PICTURES:
        pixels = torch.from_numpy(np.asarray(resized(picture(*size)), dtype=np.float32) / 255)
        expected = ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)
        torch.testing.assert_close(view(tmp_path, picture(*size)), expected, rtol=1e-4, atol=1e-4)


def test_a_thin_picture_keeps_a_pixel() -> None:
    assert TestView(Preprocess(32, resize="longest"))(Image.new("RGB", (4000, 1))).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "stated", "message"),
    [
        ("preprocessor", {"crop_size": 48}, r"crop_size = 48: the image tower takes 32 x 32 pixels"),
        ("preprocessor", {"size": {"height": 48, "width": 48}, "do_center_crop": False}, "size = .*takes 32 x 32"),
        (
            "preprocessor",
            {"do_center_crop": False},
            "do_center_crop = False, size = not stated: the image",
        ),
        ("preprocessor", {"size": {"longest_edge": 32}}, "size = .*only shortest_edge, or height and width"),
        ("preprocessor", {"size": {"shortest_edge": 32, "longest_edge": 48}}, "size = .*only a square of whole pixels"),
        ("preprocessor", {"size": {"height": 32, "width": 48}}, "size = .*only a square of whole pixels"),
        ("preprocessor", {"do_resize": False}, "do_resize = False"),
        (
            "preprocessor",
            {"do_pad": True, "do_flip_channel_order": True},
            "do_flip_channel_order = True, do_pad =",
        ),
        ("preprocessor", {"resample": 9}, "resample = 9: not a filter for resizing: choose nearest"),
        ("preprocessor", {"image_std": [0, 1, 1]}, "image_std = .*three numbers above 0"),
        ("preprocessor", {"rescale_factor": "1/255"}, "rescale_factor = 1/255: should be a number above 0"),
        (
            "preprocessor",
            {"image_processor_type": "LevitImageProcessor"},
            "LevitImageProcessor: only image",
        ),
        ("open_clip", {"resize_mode": "stretch"}, "resize_mode = stretch: choose shortest, longest, squash"),
        ("open_clip", {"interpolation": "cubic"}, "interpolation = cubic: not a filter"),
        ("open_clip", {"mode": "L"}, "mode = L: images are always RGB here"),
        ("open_clip", {"fill_color": 300}, "fill_color = 300"),
        ("open_clip", {"mean": [0.5]}, "mean = .*three numbers"),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(
    name: str, stated: dict[str, Any], message: str, tmp_path: Path
) -> None:
    content = {"preprocess_cfg": stated} if name == "open_clip" else stated
    (tmp_path / f"{name}_config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as refused:
        read_preprocess(tmp_path, 32)
    assert f"{name}_config.json" in str(refused.value)


def test_a_loaded_model_sees_what_its_own_processor_makes(tmp_path: Path) -> None:
    model = toy_model()
    model.save_pretrained(tmp_path)
    processor = CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False, do_normalize=False)
    processor.save_pretrained(tmp_path)
    clip, image = load_clip(tmp_path, device="cpu"), picture(48, 96)
    expected = FrozenCLIP(model).encode_image(processor(image, return_tensors="pt")["pixel_values"])
    found = clip.encode_image(TestView(clip.preprocess)(image)[None])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_fingerprint_of_openais_preprocessing_is_that_of_features_kept_before() -> None:
    fingerprints = [
        Preprocess(32),
        Preprocess(32, resize="squash"),
        Preprocess(32, resize="longest"),
        Preprocess(32, resize="longest", fill=9),
        Preprocess(32, resize_to=40),
    ]
    assert fingerprints[0].fingerprint == Preprocess(32, resize_to=32).fingerprint
    assert fingerprints[0].fingerprint.startswith("32 bicubic mean 0.48145466 ")
    assert fingerprints[0].fingerprint.endswith(" std 0.26862954 0.26130258 0.27577711")
    assert len({each.fingerprint for each in fingerprints}) == len(fingerprints)
