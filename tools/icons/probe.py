"""A quick zero-shot probe during pretraining, on the VALIDATION drawings of icons-11 only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from tools.icons.concepts import deal
from tools.icons.render import read_set
from tools.icons.stream import Stream, paint

Board = tuple[Tensor, Tensor, list[int]]
"""Painted pictures (N, 3, 64, 64), the place of each one's class (N,), and the caption numbers of the classes (C,)."""


def probes(work: Path) -> dict[str, Board]:
    """One board per set of the suite."""
    number = {caption: index for index, caption in enumerate(Stream(work, seed=0).captions)}
    chosen = json.loads((work / "choice.json").read_text(encoding="utf-8"))["sets"]
    boards = {}
    for dataset, classes in chosen.items():
        pictures, places = [], []
        for place, drawings in enumerate(classes.values()):
            for drawing in deal(drawings, dataset)["val"]:
                pictures.append(_picture(work, *drawing.split(":", 1)))
                places.append(place)
        stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        rng = torch.Generator().manual_seed(0)
        boards[dataset] = (paint(stack, 0.7, rng), torch.tensor(places), [number[name] for name in classes])
    return boards


def _picture(work: Path, prefix: str, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One render as premultiplied RGBA: (64, 64, 4)."""
    pictures, names = read_set(work, prefix)
    picture = pictures[names.index(name)]
    if picture.ndim == 3:
        return np.asarray(picture)
    return np.concatenate([np.zeros((*picture.shape, 3), np.uint8), picture[..., None]], axis=2)


@torch.inference_mode()
def probe(
    model: CLIPModel, texts: Callable[[list[int], list[int]], Tensor], boards: dict[str, Board]
) -> dict[str, float]:
    """Zero-shot top-1 in percent for each board, with the template "a photo of a {}."."""
    scores = {}
    for name, (images, places, classes) in boards.items():
        tokens = texts(classes, [0] * len(classes))
        text = F.normalize(model.text_projection(model.text_model(input_ids=tokens).pooler_output), dim=-1)
        image = torch.cat(
            [model.visual_projection(model.vision_model(pixel_values=part).pooler_output) for part in images.split(256)]
        )
        scores[name] = 100 * ((F.normalize(image, dim=-1) @ text.T).argmax(1) == places).float().mean().item()
    return scores
