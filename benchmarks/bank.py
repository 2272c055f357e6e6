"""The feature bank against the bare image tower: ViT-B/16 (random weights, fp32, one thread), photographs of 500 x 375.

    python benchmarks/bank.py [--images 32]

Prints the share of the tower's own throughput that is left when images are read from disk, decoded, augmented, encoded
and kept, and how many features a second run computes. Processor seconds, so decoding in other threads counts in full.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from towers import vit_b16

from maotune.data.feature_bank import FeatureBank
from maotune.data.images.decode import ImageFile
from maotune.data.images.views import TrainView, view_seed
from maotune.data.sets.dataset import Sample


def photographs(folder: Path, count: int) -> list[Sample]:
    """JPEG files of smooth noise."""
    random = np.random.default_rng(0)
    samples = []
    for number in range(count):
        small = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
        samples.append(Sample(ImageFile(path), 0))
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    count = parser.parse_args().images
    torch.set_num_threads(1)
    clip = vit_b16()
    view = TrainView(clip.preprocess)
    with tempfile.TemporaryDirectory() as name:
        samples = photographs(Path(name), count)
        pixels = torch.stack([view(s.image.read(), view_seed(view.seed, s.image.digest(), 0)) for s in samples])
        with torch.no_grad():
            clip.encode_image(pixels[:8])  # warm-up
            begin = time.process_time()
            for part in pixels.split(32):
                clip.encode_image(part)
            tower = time.process_time() - begin
        bank = FeatureBank(clip, Path(name) / "bank")
        begin = time.process_time()
        bank.features(samples, view)
        whole = time.process_time() - begin
        again = FeatureBank(clip, Path(name) / "bank")
        begin = time.process_time()
        again.features(samples, view)
        second = time.process_time() - begin
    print(f"tower alone     {tower / count * 1e3:8.1f} ms an image")
    print(
        f"through the bank{whole / count * 1e3:8.1f} ms an image: {100 * tower / whole:.1f} % of the tower's throughput"
    )
    print(f"a second run    {second / count * 1e3:8.1f} ms an image, {again.computed} features computed")


if __name__ == "__main__":
    main()
