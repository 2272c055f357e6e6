"""Learners and labelers in feature space on made-up features, without any image: processor seconds, one thread.

    python benchmarks/features.py suite       # every learner that touches no tower, at the size of a set of icons-11
    python benchmarks/features.py all         # all of these on the base classes of all sets of icons-11, one seed
    python benchmarks/features.py views       # TaskRes against encoding every view by IconCLIP, without the bank
    python benchmarks/features.py imagenet    # GDA and TaskRes at 1,000 classes x 16 shots x 512 dimensions
    python benchmarks/features.py labelers [--images 10000] [--classes 1000]   # those that look at a whole pool
    python benchmarks/features.py straightforward   # TransCLIP against tensors of N x C x d, 500 images of 50 classes

Settings are those of the recipes; TaskRes at ImageNet's size is timed over a few updates, and scaled to all of them.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.clip import load_clip
from maotune.contract import Stage
from maotune.data.batches import RandomSampler, SampleBatches
from maotune.data.images.decode import ImageFile
from maotune.data.sets import icons
from maotune.data.sets.dataset import Sample
from maotune.learners import LEARNERS
from maotune.mao import labelers
from maotune.recipe import load_recipe
from maotune.recipe.schema import learner_settings
from maotune.recipe.suites import SUITES
from maotune.train.loop import FitSettings, fit

IN_FEATURE_SPACE = [
    name
    for name, learner in LEARNERS.items()
    if not learner.tunes_prompts and not learner.tunes_image_tower and name != "clip-lora"
]


class MadeUp:
    """Class texts and features of images in two cones, as CLIP's are."""

    device, dtype = torch.device("cpu"), torch.float32
    logit_scale = 100.0

    def __init__(self, classes: int, width: int) -> None:
        random = torch.Generator().manual_seed(0)
        self.names = tuple(f"class {number}" for number in range(classes))
        self.joint_width, self.vision_width = width, 2 * width
        self.texts = F.normalize(torch.randn(classes, width, generator=random) + 3, dim=1)
        self.image_projection = torch.randn(width, 2 * width, generator=random) / width
        self.random = random

    def zeroshot_text(self, classes: Sequence[str], templates: Sequence[str], *, normalise: bool = True) -> Tensor:
        """Return (C, d) texts of the classes."""
        return self.texts[[self.names.index(name) for name in classes]]

    def images(self, labels: Tensor, views: int) -> Tensor:
        """Return (N, views, d) features of images of these classes."""
        noise = 0.05 * torch.randn(len(labels), views, self.joint_width, generator=self.random)
        return F.normalize(self.texts[labels][:, None] + noise - 0.1, dim=-1)


def tuning(name: str, clip: Any, shots: int, recipe: str, epochs: int | None = None, views: int | None = None) -> float:
    """Return the processor seconds of a stage by the settings of a recipe."""
    settings = load_recipe(recipe)
    labels = torch.arange(len(clip.names)).repeat_interleave(shots)
    features = clip.images(labels, views or settings.data.views)
    samples = [Sample(ImageFile(Path(f"{number}.jpg")), int(label)) for number, label in enumerate(labels)]
    chosen = learner_settings(settings.learner) | {"template": "a photo of a {}."}
    build: Any = LEARNERS[name]
    learner = build(clip, clip.names, **chosen)
    unprojected = features @ clip.image_projection if learner.uses_unprojected_features else None
    sampler = RandomSampler(len(labels), settings.batch_size, features.shape[1], 1)
    batches = SampleBatches(samples, labels, sampler, features=features, unprojected=unprojected)
    epochs = 0 if learner.closed_form else epochs or settings.epochs
    stage = Stage("plain", clip.names, lambda _: batches, F.cross_entropy, epochs, settings.lr)
    train = FitSettings(settings.train.optimizer, settings.train.optimizer_options, warmup_epochs=0)
    return seconds(lambda: fit(learner, [stage], train))


def seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def naive_transclip(images: Tensor, text: Tensor, scale: float) -> Tensor:
    """TransCLIP with differences of N x C x d, as the formula is written."""
    p = (scale * images @ text.T).softmax(dim=1)
    graph, z = labelers._graph(images, 3), p
    top = p.topk(8, dim=0)
    means = F.normalize((top.values[..., None] * images[top.indices]).mean(0), dim=1)
    variance = torch.full((images.shape[1],), 1 / images.shape[1])
    for round_ in range(11):
        densities = -0.5 * ((images[:, None] - means).square() / variance).sum(2) / 50
        for _ in range(5):
            z = (p.clamp(min=1e-30).log() + densities + graph @ z / 6).softmax(dim=1)
        if round_ < 10:
            means = F.normalize(z.T @ images, dim=1)
            variance = (z[..., None] * (images[:, None] - means).square()).sum((0, 1)) / z.sum()
    return z


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["suite", "all", "views", "imagenet", "labelers", "straightforward"])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    match given.what:
        case "suite":
            clip = MadeUp(43, 256)
            for name in IN_FEATURE_SPACE:
                print(f"{name:14} {tuning(name, clip, 16, f'icons/{name}'):7.2f} s")
        case "all":
            sets = [math.ceil(len(icons.load(name).classes) / 2) for name in SUITES["icons-11"]]
            spent = [tuning(name, MadeUp(size, 256), 16, f"icons/{name}") for name in IN_FEATURE_SPACE for size in sets]
            count = f"{len(IN_FEATURE_SPACE)} learners on {len(sets)} sets"
            print(f"{count}: {sum(spent):.1f} s, the slowest {max(spent):.1f} s")
        case "views":
            few = load_recipe("icons/taskres")
            clip = load_clip("iconclip")
            pixels = torch.randn(64, 3, clip.preprocess.size, clip.preprocess.size)
            per_image = seconds(lambda: clip.encode_image(pixels)) / len(pixels)
            ours, theirs = tuning("taskres", MadeUp(43, 256), 16, "icons/taskres"), few.epochs * 43 * 16 * per_image
            print(f"{ours:.2f} s, {theirs:.0f} s to encode {few.epochs} views: {theirs / ours:.0f}x")
        case "imagenet":
            clip = MadeUp(1000, 512)
            print(f"gda            {tuning('gda', clip, 16, 'vit-b16/gda', views=1):7.2f} s")
            few = tuning("taskres", clip, 16, "vit-b16/taskres", epochs=1, views=1)
            print(f"taskres        {few * load_recipe('vit-b16/taskres').epochs:7.2f} s (one epoch: {few:.2f} s)")
        case "labelers":
            clip = MadeUp(given.classes, 512)
            images = clip.images(torch.arange(given.images) % given.classes, 1)[:, 0]
            for name, labeler in labelers.LABELERS.items():
                spent = seconds(lambda labeler=labeler: labeler(images, clip.texts, clip.logit_scale))  # type: ignore[misc]
                print(f"{name:14} {spent:7.2f} s for {given.images:,} images and {given.classes:,} classes")
        case "straightforward":
            clip = MadeUp(50, 512)
            images = clip.images(torch.arange(500) % 50, 1)[:, 0]
            ours = seconds(lambda: labelers.transclip(images, clip.texts, clip.logit_scale))
            theirs = seconds(lambda: naive_transclip(images, clip.texts, clip.logit_scale))
            same = labelers.transclip(images, clip.texts, 100.0) - naive_transclip(images, clip.texts, 100.0)
            print(
                f"{ours:.2f} s, {theirs:.2f} s with N x C x d: {theirs / ours:.1f}x; difference {same.abs().max():.1e}"
            )


if __name__ == "__main__":
    main()
