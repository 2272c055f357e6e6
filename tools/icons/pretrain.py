"""Pretrain IconCLIP on the corpus: `python -m tools.icons.pretrain --work DIR --minutes 90`.

Stops by the clock, writes a checkpoint every few minutes and goes on from the last one when called again. The
learning rate is
warm-up, constant, then a decay to zero over the last minutes; touching `DIR/run/decay` starts that decay at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, distributed, multiprocessing
from tqdm import tqdm
from transformers import CLIPConfig, CLIPModel

from maotune.clip.stem import build_stem
from tools.icons.probe import probe, probes
from tools.icons.stream import TEMPLATE_ODDS, TEMPLATES, Stream, paint
from tools.icons.tokenizer import CONTEXT, END, START, VOCABULARY

log = logging.getLogger("pretrain")

STEM = {"channels": [24, 48, 96, 192], "groups": 8}
WARMUP = 300
LONGEST = 12
"""Captions are cut here (in tokens); it keeps the text tower cheap, and hardly any name is longer."""

PER_CONCEPT = 2
"""Pictures of each concept in a batch: half the text, and two styles of one thing side by side."""


def new_model() -> CLIPModel:
    """An untrained IconCLIP: 16 tokens from a convolution stem, 4 layers of width 256; text 3 layers of width 192."""
    config = CLIPConfig(
        vision_config={
            "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
            "hidden_act": "gelu",
            "image_size": 64, "patch_size": 16, "projection_dim": 256, "stem": STEM,
        },
        text_config={
            "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 3, "num_attention_heads": 3,
            "hidden_act": "gelu",
            "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "projection_dim": 256,
            "bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": VOCABULARY - 1,
        },
        projection_dim=256,
    )  # fmt: skip
    model = CLIPModel(config)
    model.vision_model.embeddings.patch_embedding = build_stem(STEM, 256)
    return model


def shares(progress: float) -> tuple[dict[str, float], float]:
    """The mixture of the pools and the strength of the composition, for progress in 0..1."""
    strength = min(1.0, 0.1 + progress / 0.25)
    return {"related": 0.5, "mono": 0.25, "color": 0.25}, strength


class Texts:
    """Caption numbers to padded token rows, one template for each distinct caption."""

    def __init__(self, tokenizer: Tokenizer, captions: list[str]) -> None:
        self.start, self.end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
        encoded = tokenizer.encode_batch(captions, add_special_tokens=False)
        self.captions = [encoding.ids[:LONGEST] for encoding in encoded]
        halves = [template.split("{}") for template in TEMPLATES]
        self.templates = [
            tuple(tokenizer.encode(half, add_special_tokens=False).ids for half in pair) for pair in halves
        ]

    def __call__(self, captions: list[int], templates: list[int]) -> Tensor:
        """Token rows, padded with the end token to the longest: (U, L) int64."""
        rows = []
        for caption, template in zip(captions, templates, strict=True):
            before, after = self.templates[template]
            rows.append([self.start, *before, *self.captions[caption], *after, self.end])
        longest = max(map(len, rows))
        return torch.tensor([row + [self.end] * (longest - len(row)) for row in rows])


def contrastive(image: Tensor, text: Tensor, place: Tensor, scale: Tensor) -> Tensor:
    """Symmetric contrastive loss where each distinct caption is one column and its pictures are all positives.

    Args:
        image: (B, d), unit length.
        text: (U, d), unit length.
        place: (B,) the column of each picture's caption.
        scale: inverse temperature.
    """
    logits = scale * image @ text.T
    by_image = F.cross_entropy(logits, place)
    own = F.one_hot(place, len(text)).float()
    by_text = -(torch.log_softmax(logits, 0) * own / own.sum(0)).sum() / len(text)
    return 0.5 * (by_image + by_text)


def text_features(model: CLIPModel, rows: Tensor) -> Tensor:
    """Encode padded token rows (U, L) in two halves by length, each trimmed to its own longest row: (U, d)."""
    end = rows[:, -1:].max()
    order = (rows == end).int().argmax(1).argsort()
    halves = []
    for half in order.chunk(2):
        part = rows[half]
        longest = int((part == end).int().argmax(1).max()) + 1
        halves.append(model.text_projection(model.text_model(input_ids=part[:, :longest]).pooler_output))
    return torch.cat(halves)[order.argsort()]


def arguments_of_the_command() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("build/icons"), help="where the corpus is; checkpoints go to DIR/run"
    )
    parser.add_argument("--minutes", type=float, default=90, help="length of the whole run, with all its parts")
    parser.add_argument("--decay", type=float, default=15, help="minutes of the decay at its end")
    parser.add_argument("--batch", type=int, default=288, help="pictures a step and process")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--every", type=float, default=4, help="minutes between two checkpoints")
    return parser.parse_args()


def worker(rank: int, arguments: argparse.Namespace) -> None:
    """One process of the run: its own pictures and captions, gradients averaged over all processes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run: Path = arguments.work / "run"
    store = f"file://{run.resolve()}/rendezvous"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=arguments.jobs)
    if rank == 0:
        handler = logging.FileHandler(run / "log.txt")
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=[handler])

    model = new_model().train().to(memory_format=torch.channels_last)
    stem = model.vision_model.embeddings.patch_embedding
    stem.forward = torch.autocast("cpu", enabled=False)(stem.forward)  # its convolutions are slower in bfloat16
    average = new_model().eval()
    average.load_state_dict(model.state_dict())
    plain = [weight for weight in model.parameters() if weight.ndim < 2]
    heavy = [weight for weight in model.parameters() if weight.ndim >= 2]
    optimizer = torch.optim.AdamW(
        [{"params": heavy, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=arguments.lr, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    state: dict[str, Any] = {"step": 0, "images": 0, "seconds": 0.0, "decay_from": None}
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
        log.info("resumed: %s", state)
    seed = 1 + state["step"] * arguments.jobs + rank
    rng = torch.Generator().manual_seed(seed)
    stream = Stream(arguments.work, seed=seed)
    texts = Texts(Tokenizer.from_file(str(arguments.work / "corpus" / "tokenizer.json")), stream.captions)
    boards = probes(arguments.work) if rank == 0 else {}
    odds = torch.tensor(TEMPLATE_ODDS)
    total, decay = arguments.minutes * 60, arguments.decay * 60
    mean_loss, saved_at, began = 0.0, state["seconds"], time.monotonic() - state["seconds"]
    last = (state["step"], state["seconds"])

    def save() -> None:
        torch.save(
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "state": state,
            },
            run / "checkpoint.part",
        )
        (run / "checkpoint.part").replace(checkpoint)
        scores = probe(average, texts, boards)
        log.info(
            "step %d images %d minutes %.1f probe %.1f %s",
            state["step"], state["images"], state["seconds"] / 60, sum(scores.values()) / len(scores),
            json.dumps({name: round(score, 1) for name, score in scores.items()}),
        )  # fmt: skip

    bar = tqdm(total=round(total), unit="s", mininterval=5, disable=rank > 0)
    while state["seconds"] < total:
        seconds = state["seconds"]
        if state["decay_from"] is None and (seconds > total - decay or state.pop("ask", False)):
            state["decay_from"] = seconds
            log.info("decay begins")
        if state["decay_from"] is not None:
            total = state["decay_from"] + decay
        warm = min(1.0, (state["step"] + 1) / WARMUP)
        down = 1.0 if state["decay_from"] is None else max(0.0, 1 - (seconds - state["decay_from"]) / decay)
        for group in optimizer.param_groups:
            group["lr"] = arguments.lr * warm * down
        mixture, strength = shares(seconds / total)
        pictures, captions = stream.draw(arguments.batch, mixture, PER_CONCEPT)
        distinct, place = captions.unique(return_inverse=True)
        images = paint(pictures, strength, rng).contiguous(memory_format=torch.channels_last)
        tokens = texts(distinct.tolist(), torch.multinomial(odds, len(distinct), True, generator=rng).tolist())

        with torch.autocast("cpu", torch.bfloat16):
            image = model.visual_projection(model.vision_model(pixel_values=images).pooler_output)  # (B, d)
            text = text_features(model, tokens)  # (U, d)
        scale = model.logit_scale.exp()
        loss = contrastive(F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1), place, scale)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        # the clock and the request to decay travel with the gradients, so that all processes decide alike
        asked = float(state["decay_from"] is None and (run / "decay").exists())
        flat = torch.cat([*(grad.flatten() for grad in gradients), torch.tensor([time.monotonic() - began, asked])])
        distributed.all_reduce(flat)
        flat /= arguments.jobs
        for grad, mean in zip(gradients, flat[:-2].split([grad.numel() for grad in gradients]), strict=True):
            grad.copy_(mean.view_as(grad))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)  # CLIP's bound: a scale of 100
            if state["step"] % 4 == 0:
                weight = min(0.99, state["step"] / (state["step"] + 100))
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - weight)
        state["step"] += 1
        state["images"] += arguments.batch * arguments.jobs
        state["seconds"] = flat[-2].item()
        if flat[-1] > 0:
            state["ask"] = True
        mean_loss = loss.item() if mean_loss == 0 else 0.98 * mean_loss + 0.02 * loss.item()
        bar.update(round(state["seconds"]) - bar.n)
        if state["step"] % 50 == 0:
            rate = arguments.batch * arguments.jobs * (state["step"] - last[0]) / (state["seconds"] - last[1])
            last = (state["step"], state["seconds"])
            log.info("step %d loss %.3f images/s %.0f scale %.1f", state["step"], mean_loss, rate, scale.item())
        if rank == 0 and state["seconds"] - saved_at > arguments.every * 60:
            saved_at = state["seconds"]
            save()
    if rank == 0:
        save()
    bar.close()
    distributed.destroy_process_group()


def main() -> None:
    """Train until the clock says stop."""
    arguments = arguments_of_the_command()
    run: Path = arguments.work / "run"
    run.mkdir(exist_ok=True)
    (run / "rendezvous").unlink(missing_ok=True)
    multiprocessing.spawn(worker, (arguments,), arguments.jobs)


if __name__ == "__main__":
    main()
