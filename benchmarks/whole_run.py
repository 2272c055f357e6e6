"""Whole runs of CoOp, from the start of the program to its result: maotune against the straightforward way.

    python benchmarks/whole_run.py [--data icons-nature] [--methods plain mao] [--views 20 4 1] [--clip iconclip]

maotune runs twice with each number of views: cold, with an empty cache, and warm, when the feature bank has all that
the run needs. Straightforward: transformers' own layers over all positions of all classes, and each image read,
decoded, augmented and encoded in each step; as many updates and images as maotune's run made, nothing else (no scoring,
no pseudo-labels). All are processes of their own with one thread; processor seconds, so that other work on the machine
hardly moves them.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from towers import Straightforward

from maotune.data.batches import RandomSampler
from maotune.data.images.views import TrainView
from maotune.recipe.load import load_recipe
from maotune.runs.build import build_clip, build_splits


def processor_seconds() -> float:
    """Processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ours(method: str, views: int, arguments: argparse.Namespace, cache: Path, folder: Path) -> tuple[float, Any]:
    """Run the program once; its processor seconds and its result."""
    before = processor_seconds()
    command = [sys.executable, "-m", "maotune", "train", "--data", arguments.data, "--clip", arguments.clip]
    command += ["--methods", method, "--folder", str(folder), "--json", f"data.views={views}", "data.split=val"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "MAOTUNE_CACHE": str(cache)})
    (result,) = folder.glob("*/result.json")
    return processor_seconds() - before, json.loads(result.read_text(encoding="utf-8"))


def straightforward(stages: list[dict[str, Any]], data: str, source: str) -> None:
    """Tune as many updates on as many images as `stages` say, in the plain way."""
    torch.set_num_threads(1)
    recipe = load_recipe(overrides={"clip.source": source, "data.source": data})
    clip = build_clip(recipe.clip)
    splits = build_splits(recipe).splits
    for stage in stages:
        base = stage["name"] != "new"
        assert splits.unlabelled is not None
        samples = splits.shots if base else splits.unlabelled.samples
        names = list(splits.classes if base else splits.new_classes)
        labels = torch.tensor([sample.label for sample in samples]).clamp(min=0)
        tower = Straightforward(clip, names, recipe.learner["context_length"])
        context = torch.randn(recipe.learner["context_length"], tower.before.shape[-1]).mul_(0.02).requires_grad_()
        optimizer = torch.optim.SGD([context], lr=0.002)
        view = TrainView(clip.preprocess, recipe.data.crop_scale, recipe.data.flip)
        size = round(stage["images"] / stage["updates"])
        sampler = RandomSampler(len(samples), size, 1, 0)
        done = epoch = 0
        while done < stage["updates"]:
            for draws in sampler.epoch(epoch)[: stage["updates"] - done]:
                rows = [index for index, _ in draws]
                pixels = torch.stack([view(samples[row].image.read(), done * size + n) for n, row in enumerate(rows)])
                image, text = F.normalize(tower.image(pixels), dim=-1), F.normalize(tower.text(context), dim=-1)
                loss = F.cross_entropy(clip.logit_scale * image @ text.T, labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1
            epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="icons-nature")
    parser.add_argument("--clip", default="iconclip")
    parser.add_argument("--methods", nargs="+", default=["plain", "mao"])
    parser.add_argument("--views", nargs="+", type=int, default=[20, 4, 1])
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for method in arguments.methods:
        times: dict[str, float] = {}
        for views in arguments.views:
            with tempfile.TemporaryDirectory() as name:
                cache = Path(name) / "cache"
                for state in ("cold", "warm"):
                    seconds, result = ours(method, views, arguments, cache, Path(name) / state)
                    times[f"ours, {views} views, {state}"] = seconds
        before = processor_seconds()
        process = multiprocessing.get_context("spawn").Process(
            target=straightforward, args=(result["stages"], arguments.data, arguments.clip)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)
        plain = processor_seconds() - before
        print(f"{method}: {sum(stage['updates'] for stage in result['stages'])} updates", flush=True)
        print(f"  straightforward           {plain:8.1f} s", flush=True)
        for label, seconds in times.items():
            print(f"  {label:25} {seconds:8.1f} s  {plain / seconds:6.1f}x", flush=True)


if __name__ == "__main__":
    main()
