"""Labelers of a pool: seconds and memory at size, and accuracy on pools that lack classes, are unbalanced or foreign.

    python benchmarks/labelers.py size [--images 100000] [--classes 1000] [--only transclip]   # made-up features
    python benchmarks/labelers.py ragged [--pools 20]   # test images of icons-11, from the feature bank

``size`` measures each labeler in a process of its own, one thread; memory is the peak of the process. ``ragged`` draws
pools of 64 images from the test split of each set, among all of its classes; the accuracy is the mean over pools, then
over sets, of the images that belong to a class.
Off-class: the first half of the classes are to choose from, and 30 % of the pool are images of the others.
"""

import argparse
import math
import multiprocessing
import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.learners.zeroshot import ZeroShot
from maotune.mao import labelers
from maotune.recipe import load_recipe
from maotune.recipe.suites import find_suite
from maotune.runs.build import build_clip, load_readable
from maotune.runs.pipeline import Pipeline

WIDTH = 512
IMAGES = 64


def made_up(images: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return features of images and texts in two cones, as CLIP's are."""
    generator = torch.Generator().manual_seed(0)
    texts = F.normalize(torch.randn(classes, WIDTH, generator=generator) + 3, dim=1)
    shown = texts[torch.arange(images) % classes] + 0.05 * torch.randn(images, WIDTH, generator=generator) - 0.1
    return F.normalize(shown, dim=1), texts


def measure(name: str, images: int, classes: int) -> tuple[float, float, float]:
    """Return processor seconds of a labeler, and GiB of its process at the peak and before."""
    torch.set_num_threads(1)
    features, texts = made_up(images, classes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    begin = time.process_time()
    labelers.LABELERS[name](features, texts, 100.0)
    return time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, before


def size(images: int, classes: int, names: Sequence[str]) -> None:
    """Print seconds and memory of labelers, each in a fresh process."""
    for name in names:
        with multiprocessing.get_context("spawn").Pool(1) as process:
            seconds, peak, before = process.apply(measure, (name, images, classes))
        sizes = f"{images:,} images, {classes:,} classes"
        print(f"{name:11} {seconds:8.1f} s {peak:6.2f} GiB ({before:.2f} before) for {sizes}", flush=True)


Draw = Callable[[random.Random, dict[int, list[int]]], list[int]]
"""From images by class (-1: of no class) to those of a pool."""


def present(least: int, most: int) -> Draw:
    """Draw a pool with so many of the classes."""

    def draw(stream: random.Random, by_class: dict[int, list[int]]) -> list[int]:
        classes = [label for label in by_class if label >= 0]
        chosen = stream.sample(classes, min(len(classes), stream.randint(least, most)))
        images = [image for label in chosen for image in by_class[label]]
        return stream.sample(images, min(IMAGES, len(images)))

    return draw


def unbalanced(stream: random.Random, by_class: dict[int, list[int]]) -> list[int]:
    """Draw a pool in which half of the classes, at random, have ten times as many images as the others."""
    classes = [label for label in by_class if label >= 0]
    rare = {*stream.sample(classes, len(classes) // 2)}
    weights = {image: 0.1 if label in rare else 1.0 for label in classes for image in by_class[label]}
    keys = {image: stream.random() ** (1 / weight) for image, weight in weights.items()}
    return sorted(keys, key=keys.__getitem__)[-max(IMAGES, len(keys) // 2) :]


def off_class(stream: random.Random, by_class: dict[int, list[int]]) -> list[int]:
    """Draw a pool of which 30 % are images of no class."""
    known = [image for label, images in by_class.items() if label >= 0 for image in images]
    foreign = by_class[-1]
    count = min(len(known), int(len(foreign) * 7 / 3))
    return stream.sample(known, count) + stream.sample(foreign, int(count * 3 / 7))


def everything(stream: random.Random, by_class: dict[int, list[int]]) -> list[int]:
    """Take all images."""
    return [image for label, images in by_class.items() if label >= 0 for image in images]


POOLS: dict[str, Draw] = {
    "1-4": present(1, 4),
    "2-10": present(2, 10),
    "5-25": present(5, 25),
    "10:1": unbalanced,
    "30% off-class": off_class,
    "all": everything,
}


def features(suite: str) -> Iterator[tuple[str, Tensor, Tensor, Tensor, float]]:
    """Yield name, test images, labels, texts and scale of each set."""
    clip = None
    for source in find_suite(suite):
        recipe = load_recipe(None, {"data.source": source})
        clip = clip or build_clip(recipe.clip)
        dataset = load_readable(recipe, "test")
        zeroshot = ZeroShot(clip, dataset.classes, templates=dataset.templates)
        support = Pipeline(clip, recipe).test_batches(zeroshot, dataset.test).support()
        labels = torch.tensor([sample.label for sample in dataset.test])
        images = F.normalize(support.features[:, 0], dim=1)
        yield source, images, labels, F.normalize(zeroshot.text_features(), dim=1), zeroshot.logit_scale


def ragged(suite: str, pools: int) -> None:
    """Print the accuracy of each labeler on each kind of pool, and its difference to zero-shot CLIP."""
    right: dict[tuple[str, str], list[float]] = {}
    for source, images, truth, texts, scale in features(suite):
        for kind, draw in POOLS.items():
            # Of no class: images of the second half of the classes, where the first half are those to choose from.
            known = math.ceil(len(texts) / 2) if draw is off_class else len(texts)
            labels, text = truth.where(truth < known, -1), texts[:known]
            by_class: dict[int, list[int]] = {}
            for image, label in enumerate(labels.tolist()):
                by_class.setdefault(label, []).append(image)
            stream = random.Random(f"{source}/{kind}")
            drawn = [torch.tensor(draw(stream, by_class)) for _ in range(1 if draw is everything else pools)]
            for name, labeler in labelers.LABELERS.items():
                shares = []
                for pool in drawn:
                    hits = labeler(images[pool], text, scale).argmax(1) == labels[pool]
                    shares.append(float(hits[labels[pool] >= 0].double().mean()))
                right.setdefault((name, kind), []).append(100 * sum(shares) / len(shares))
    means = {key: sum(values) / len(values) for key, values in right.items()}
    print("| labeler | " + " | ".join(POOLS) + " |")
    print("|---|" + "---:|" * len(POOLS))
    for name in labelers.LABELERS:
        cells = []
        for kind in POOLS:
            worst = min(a - b for a, b in zip(right[name, kind], right["foundation", kind], strict=True))
            gain = means[name, kind] - means["foundation", kind]
            cells.append(
                f"{means[name, kind]:.1f}" + ("" if name == "foundation" else f" ({gain:+.1f}, worst set {worst:+.1f})")
            )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["size", "ragged"])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--only", choices=[*labelers.LABELERS], nargs="*", default=[*labelers.LABELERS])
    parser.add_argument("--suite", default="icons-11")
    parser.add_argument("--pools", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "size":
        size(given.images, given.classes, given.only)
    else:
        ragged(given.suite, given.pools)


if __name__ == "__main__":
    main()
