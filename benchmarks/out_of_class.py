"""How well scores tell images of no known class: half of the classes of each set are held out (AUROC in percent).

    python benchmarks/out_of_class.py [--suite icons-11] [--clip iconclip] [--tuned]

Zero-shot CLIP chooses among the base half of the classes; test images of the new half are of none of these. With
``--tuned``, CoOp tuned on the base half does (16 shots, one seed, the recipe of the CLIP). Three scores of an image, of
which higher means "of a known class": the highest probability (MSP, Hendrycks & Gimpel, ICLR 2017); the highest
probability at the temperature 1 of the cosines (MCM, Ming et al., NeurIPS 2022); and the highest cosine itself.
"""

import argparse
from statistics import fmean

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

import maotune
from maotune.contract import AbstractLearner
from maotune.data.draw import base_new
from maotune.data.sets.catalog import load_dataset
from maotune.recipe import load_recipe
from maotune.recipe.suites import find_suite
from maotune.runs.build import build_clip
from maotune.runs.pipeline import Pipeline

SCORES = ("MSP", "MCM", "highest cosine")


def cosines(pipeline: Pipeline, learner: AbstractLearner, samples: object) -> Tensor:
    """Return (N, C) cosines of the test images and the bound classes."""
    with torch.no_grad():
        text = learner.text_features()
        batches = pipeline.test_batches(learner, samples)  # type: ignore[arg-type]
        logits = [learner.logits(learner.image_features(batch), text) for batch in batches.epoch(0)]
    return torch.cat(logits) / learner.logit_scale


def aurocs(known: Tensor, other: Tensor, scale: float) -> dict[str, float]:
    """Return the AUROC of each score, from the cosines of images of known classes and of others."""
    both = torch.cat([known, other])
    truth = [1] * len(known) + [0] * len(other)
    scores = ((scale * both).softmax(1).amax(1), both.softmax(1).amax(1), both.amax(1))
    return {name: 100 * roc_auc_score(truth, score) for name, score in zip(SCORES, scores, strict=True)}


def main() -> None:
    """Print a table in Markdown: a row a set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="icons-11")
    parser.add_argument("--clip", default="iconclip")
    parser.add_argument("--tuned", action="store_true")
    given = parser.parse_args()
    print(f"| data set | classes known | {' | '.join(SCORES)} |\n|---|---:|{'---:|' * len(SCORES)}")
    rows = []
    clip = build_clip(load_recipe(None, {"clip.source": given.clip}).clip)
    for name in find_suite(given.suite):
        recipe = load_recipe(None, {"data.source": name, "clip.source": given.clip})
        base, new = base_new(load_dataset(name))
        run = maotune.tune(name, clip=clip, clip__source=given.clip, method="plain" if given.tuned else "zeroshot")
        learner = run.learner(base.classes)
        pipeline = Pipeline(clip, recipe)
        known, other = (cosines(pipeline, learner, part.test) for part in (base, new))
        rows.append(aurocs(known, other, learner.logit_scale))
        print(
            f"| {name} | {len(base.classes)} | " + " | ".join(f"{v:.1f}" for v in rows[-1].values()) + " |", flush=True
        )
    print("| mean | | " + " | ".join(f"{fmean(row[score] for row in rows):.1f}" for score in SCORES) + " |")


if __name__ == "__main__":
    main()
