"""Zero-shot accuracy of the shipped model on the suite: `python -m tools.icons.evaluate [--split val] [SET ...]`.

The same numbers as `maotune zeroshot --suite icons-11`; besides, with `--hard N`, the classes that it recognises worst.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from maotune.clip import load_clip
from maotune.data.sets.icons import SETS, load
from tools.icons.stream import MEAN, STD


@torch.inference_mode()
def logits_of(clip: object, name: str, split: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Cosines of all images of a split with all classes (N, C), the labels (N,), and the class names."""
    data = load(name)
    text = torch.nn.functional.normalize(clip.zeroshot_text(data.classes, data.templates), dim=-1)  # type: ignore[attr-defined]
    samples = getattr(data, split)
    rows = []
    for start in range(0, len(samples), 256):
        part = np.stack([np.asarray(sample.image.read()) for sample in samples[start : start + 256]])
        images = torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255
        images = (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        image = torch.nn.functional.normalize(clip.encode_image(images), dim=-1)  # type: ignore[attr-defined]
        rows.append(image @ text.T)
    return torch.cat(rows), torch.tensor([sample.label for sample in samples]), data.classes


def main() -> None:
    """Print the table, and what is hard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="val", help="test is for the card, val for choices"
    )
    parser.add_argument("--clip", default="iconclip", help="the model")
    parser.add_argument("--hard", type=int, default=0, help="so many of the worst classes are listed")
    parser.add_argument("sets", nargs="*", default=list(SETS))
    arguments = parser.parse_args()
    clip = load_clip(arguments.clip)
    scores = []
    print(f"| {'set':16} | classes | images |   all |  base |   new | chance |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in tqdm(arguments.sets, disable=None):
        logits, labels, classes = logits_of(clip, name, arguments.split)
        half = math.ceil(len(classes) / 2)
        base = labels < half
        hits = logits.argmax(1) == labels
        row = (
            hits.float().mean().item(),
            (logits[base][:, :half].argmax(1) == labels[base]).float().mean().item(),
            (logits[~base][:, half:].argmax(1) == labels[~base] - half).float().mean().item(),
        )
        scores.append(row)
        numbers = " | ".join(f"{100 * value:5.1f}" for value in row)
        print(f"| {name:16} | {len(classes):7} | {len(labels):6} | {numbers} | {100 / len(classes):6.1f} |", flush=True)
        if arguments.hard:
            for label in sorted(range(len(classes)), key=lambda c: hits[labels == c].float().mean().item())[
                : arguments.hard
            ]:
                guesses = logits[labels == label].argmax(1).bincount(minlength=len(classes))
                best = ", ".join(
                    f"{classes[int(c)]} {int(guesses[c])}" for c in guesses.argsort(descending=True)[:3] if guesses[c]
                )
                print(f"    {classes[label]}: {100 * hits[labels == label].float().mean():.0f} % ({best})")
    mean = torch.tensor(scores).mean(0) * 100
    print(f"| mean | | | {mean[0]:5.1f} | {mean[1]:5.1f} | {mean[2]:5.1f} | |")


if __name__ == "__main__":
    main()
