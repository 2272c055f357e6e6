"""What a tuning step of every learner costs on ViT-B/16: random weights, 51 classes, 32 images, one thread.

    python benchmarks/learners.py steps             # every learner: seconds, peak memory, parameters
    python benchmarks/learners.py straightforward   # MaPLe and PromptSRC against transformers' modules, same results
    python benchmarks/learners.py bf16              # bf16 against fp32, and what matrix products attain in both
    python benchmarks/learners.py inference         # evaluation against the image tower alone
    python benchmarks/learners.py all --results FILE   # keep rows in FILE; what is there is not measured again

Straightforward: transformers' own layers over all 77 positions of all classes, PromptSRC's teacher in each step. Every
row is a process of its own, so that its peak of memory is its own. Seconds are processor seconds, which other work on
the machine hardly moves; speed does not depend on the weights. ``--small`` shrinks CLIP, to try the benchmark itself.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mao import FLOWERS, peak
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel

from maotune.clip import FrozenCLIP
from maotune.clip.ensembles import SIXTY
from maotune.contract import AbstractLearner, Batch, cosine_logits
from maotune.learners import LEARNERS
from maotune.learners.dept import DePT
from maotune.train.evaluate import evaluate

Row = dict[str, Any]
VIT_B16 = {"vision_config": {"patch_size": 16, "image_size": 224}}
_SMALL = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
SMALL = {"projection_dim": 64, "text_config": _SMALL, "vision_config": {"image_size": 32, "patch_size": 16, **_SMALL}}


@dataclass(frozen=True)
class Task:
    """A row of the results."""

    what: str
    """``step``, ``start-up``, ``inference`` or ``product``."""
    learner: str = ""
    form: str = "ours"
    """Or ``straightforward``."""
    dtype: str = "float32"
    images: int = 32
    checkpointing: bool = False
    bank: bool = True
    """Whether the batch holds the frozen image features, for learners that have a use for them."""
    steps: int = 2
    """Measured ones, after one to warm up."""
    small: bool = False

    @property
    def key(self) -> str:
        """What the row is called."""
        parts = [self.what, self.learner, self.form * (self.form != "ours"), self.dtype * (self.dtype != "float32")]
        parts += ["checkpointing" * self.checkpointing, "no bank" * (not self.bank), "small" * self.small]
        return ", ".join(part for part in parts if part)


# -------------------------------------------------------------------------------------------------------- the two ways


class Straightforward:
    """CLIP with deep prompts, as a loop over transformers' own modules: all positions, all classes."""

    def __init__(self, clip: FrozenCLIP) -> None:
        self.clip, self.model = clip, clip.model
        length = clip.context_length
        self.mask = torch.full((1, 1, length, length), -torch.inf, dtype=clip.dtype).triu(1)

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(C, 77, W) embeddings and (C,) ends of texts."""
        tokens = self.clip.tokenize(texts)
        return self.clip.embed(F.pad(tokens.ids, (0, self.clip.context_length - tokens.ids.shape[1]))), tokens.eot

    def text(self, x: Tensor, ends: Tensor, prompts: Sequence[Tensor] = ()) -> Tensor:
        """(C, d) features of embedded texts (C, 77, W), with prompts after the start in the first layers."""
        tower = self.model.text_model
        for number, layer in enumerate(tower.encoder.layers):
            if number < len(prompts):
                prompt = prompts[number].expand(len(x), -1, -1)
                x = torch.cat([x[:, :1], prompt, x[:, 1 + prompt.shape[1] :]], dim=1)
            if number == 0:
                x = x + tower.embeddings.position_embedding.weight
            x = layer(x, self.mask)
        x = tower.final_layer_norm(x)
        features: Tensor = self.model.text_projection(x[torch.arange(len(x)), ends])
        return features

    def image(self, images: Tensor, prompts: Sequence[Tensor] = ()) -> Tensor:
        """(B, d) features of images, with prompts after the patches in the first layers."""
        tower = self.model.vision_model
        x = tower.embeddings(images)
        kept = x.shape[1]
        for number, layer in enumerate(tower.encoder.layers):
            if number < len(prompts):
                x = torch.cat([x[:, :kept], prompts[number].expand(len(x), -1, -1)], dim=1)
            x = layer(tower.pre_layrnorm(x) if number == 0 else x, None)
        features: Tensor = self.model.visual_projection(tower.post_layernorm(x[:, 0]))
        return features

    @torch.no_grad()
    def teacher_text(self, names: Sequence[str]) -> Tensor:
        """(C, d) mean features over PromptSRC's templates."""
        each = [self.text(*self.tokens([template.replace("{}", name) for name in names])) for template in SIXTY]
        return torch.stack(each).mean(dim=0)


def straightforward_loss(name: str, learner: Any, clip: FrozenCLIP, batch: Batch) -> Callable[[], Tensor]:
    """The loss of MaPLe or PromptSRC with the prompts of ``learner``, over transformers' modules."""
    plain, images = Straightforward(clip), batch.images
    assert images is not None
    embedded, ends = plain.tokens([f"a photo of a {name}." for name in learner.classes])
    scale, text = learner.logit_scale, list(learner.text.prompts)

    def maple() -> Tensor:
        visual = [coupling(prompt) for coupling, prompt in zip(learner.couplings, text, strict=True)]
        logits = cosine_logits(plain.image(images, visual), plain.text(embedded, ends, text), scale)
        return F.cross_entropy(logits, batch.labels)

    # What PromptSRC computes once, at its start, has a row of its own; here its result is enough.
    teacher = F.normalize(learner.teacher_text(), dim=-1) if name == "promptsrc" else torch.empty(0)

    def promptsrc() -> Tensor:
        with torch.no_grad():
            seen = F.normalize(plain.image(images), dim=-1)
        image = F.normalize(plain.image(images, list(learner.visual.prompts)), dim=-1)
        words = F.normalize(plain.text(embedded, ends, text), dim=-1)
        logits, wanted = scale * image @ words.T, scale * seen @ teacher.T
        divergence = F.kl_div(logits.log_softmax(1), wanted.log_softmax(1), reduction="sum", log_target=True)
        distances = 25 * F.l1_loss(words, teacher) + 10 * F.l1_loss(image, seen)
        return F.cross_entropy(logits, batch.labels) + distances + divergence / logits.numel()

    return {"maple": maple, "promptsrc": promptsrc}[name]


# -------------------------------------------------------------------------------------------------------- measurements


def clip_of(task: Task) -> FrozenCLIP:
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig.from_dict(SMALL if task.small else VIT_B16)).to(getattr(torch, task.dtype))
    return FrozenCLIP(model, fingerprint="random", activation_checkpointing=task.checkpointing)


def learner_of(name: str, clip: FrozenCLIP) -> AbstractLearner:
    """The learner with its own defaults, over 51 classes."""
    torch.manual_seed(1)
    inner, _, dept = name.partition("+")
    build: Any = LEARNERS[inner]
    own = {"descriptions": {flower: [f"a {flower}, a flower"] for flower in FLOWERS}} if inner == "coprompt" else {}
    learner: AbstractLearner = build(clip, FLOWERS, **own)
    return DePT(learner, clip.joint_width) if dept else learner


def batch_of(task: Task, clip: FrozenCLIP) -> Batch:
    """Images only, and labels in order."""
    size = clip.preprocess.size
    images, second = torch.randn(2, task.images, 3, size, size, generator=torch.Generator().manual_seed(2))
    return Batch(torch.arange(task.images) % len(FLOWERS), images, second_images=second)


def timed(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def sample(values: Any) -> list[float]:
    """Some 20 of the numbers in a tensor, as shares of the largest."""
    flat = values.detach().float().flatten()
    shares: list[float] = (flat[:: -(-len(flat) // 20)] / flat.abs().max()).tolist()
    return shares


def step(task: Task) -> Row:
    """Seconds and operations of a step, the peak of memory; losses, and a sample of the gradients of the first."""
    clip = clip_of(task)
    learner = learner_of(task.learner, clip)
    batch = batch_of(task, clip)
    if learner.uses_frozen_features and task.bank and task.form == "ours":
        # Where these are the image features themselves, nothing that is measured depends on what they are.
        teacher = (
            clip.encode_image(batch.images) if learner.tunes_image_tower else torch.randn(task.images, clip.joint_width)
        )
        batch = replace(batch, features=teacher)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.002)
    losses: list[float] = []
    gradients: list[float] = []

    def ours() -> Tensor:
        return torch.stack([*learner.losses(learner(batch), batch, F.cross_entropy).values()]).sum()

    plainly = task.form == "straightforward"
    loss_of = straightforward_loss(task.learner, learner, clip, batch) if plainly else ours

    def update() -> None:
        loss = loss_of()
        loss.backward()
        if not losses:
            for parameter in learner.parameters():
                gradients.extend(sample(parameter.grad))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    with torch.no_grad():  # what is computed once, at the first loss, is no part of a step
        given = (batch.images, batch.features, batch.second_images)
        few = Batch(batch.labels[:2], *(each if each is None else each[:2] for each in given))
        learner.losses(learner(few), few, F.cross_entropy)
    with FlopCounterMode(display=False) as counter:
        update()
    seconds = statistics.median(timed(update) for _ in range(task.steps))
    return {
        "seconds": seconds,
        "peak_gb": peak(),
        "parameters": sum(parameter.numel() for parameter in learner.parameters()),
        "gflop": counter.get_total_flops() / 1e9,
        "losses": losses,
        "sample": gradients,
    }


def start_up(task: Task) -> Row:
    """Seconds of PromptSRC's text teacher: 60 templates for each class."""
    clip = clip_of(task)
    plain, found = Straightforward(clip), []
    if task.form == "ours":
        seconds = timed(lambda: found.append(clip.zeroshot_text(FLOWERS, SIXTY, normalise=False)))
    else:
        seconds = timed(lambda: found.append(plain.teacher_text(FLOWERS)))
    return {"seconds": seconds, "peak_gb": peak(), "sample": [number for row in found[0] for number in sample(row)]}


class Alternating:
    """Batches to evaluate on, each after the image tower alone has seen it."""

    def __init__(self, clip: FrozenCLIP, batch: Batch, count: int) -> None:
        self.clip, self.batch, self.count = clip, batch, count
        self.alone: list[float] = []
        self.begun = 0.0

    def __len__(self) -> int:
        return self.count

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """The same batch, ``count`` times."""
        with torch.no_grad():
            for _ in range(start, self.count):
                self.alone.append(timed(lambda: self.clip.encode_image(self.batch.images)))
                self.begun = time.process_time()
                yield self.batch


def inference(task: Task) -> Row:
    """Of each learner, seconds an image of evaluation, texts encoded before, and of the image tower alone."""
    clip = clip_of(task)
    found = {}
    for name in task.learner.split():
        batches = Alternating(clip, batch_of(task, clip), 1 + task.steps)
        seconds: list[float] = []

        def note(_: int, batches: Alternating = batches, seconds: list[float] = seconds) -> None:
            seconds.append(time.process_time() - batches.begun)

        evaluate(learner_of(name, clip), batches, note)
        found[name] = [statistics.median(each[1:]) / task.images for each in (seconds, batches.alone)]
    return found


def product(task: Task) -> Row:
    """Gflop/s of the largest matrix product of the image tower, and of a square one."""
    found = {}
    for name, (rows, inner, columns) in {"mlp": (6304, 768, 3072), "square": (4096, 4096, 4096)}.items():
        a, b = (torch.randn(shape).to(getattr(torch, task.dtype)) for shape in ((rows, inner), (inner, columns)))
        seconds = min(timed(lambda a=a, b=b: a @ b) for _ in range(2 + task.steps))  # type: ignore[misc]
        found[name] = 2e-9 * rows * inner * columns / seconds
    return found


def measure(task: Task, reply: Any) -> None:
    torch.set_num_threads(1)
    work = {"step": step, "start-up": start_up, "inference": inference, "product": product}[task.what]
    reply.put(work(task))


# -------------------------------------------------------------------------------------------------------------- tables


def tasks_of(part: str, learners: Sequence[str], options: argparse.Namespace) -> list[Task]:
    """What a part measures. CoCoOp has its recipe's batch of 8; a second CoOp shows the image tower in the step."""
    common = {"steps": options.steps, "small": options.small}
    compared = [name for name in ("maple", "promptsrc") if name in learners]
    if part == "steps":
        tasks = [Task("step", name, images=8 if name == "cocoop" else 32, **common) for name in learners]
        return tasks + [Task("step", "coop", bank=False, **common)] * ("coop" in learners)
    if part == "straightforward":
        forms = [{"form": "straightforward"}, {}, {"checkpointing": True}]
        tasks = [Task("step", name, **form, **common) for name in compared for form in forms]
        if "promptsrc" in learners:
            tasks += [Task("step", "promptsrc", bank=False, **common)]
            tasks += [Task("start-up", "promptsrc", form=form, **common) for form in ("straightforward", "ours")]
        return tasks
    if part == "bf16":
        named = [name for name in ("coop", "maple", "promptsrc") if name in learners]
        pairs = [Task("step", name, dtype=dtype, **common) for name in named for dtype in ("float32", "bfloat16")]
        return pairs + [Task("product", dtype=dtype, **common) for dtype in ("float32", "bfloat16")]
    return [Task("inference", " ".join(learners), images=4, **common)]


def alike(one: Row, other: Row) -> float:
    """Largest difference of two ways: of their losses, and of gradients (features) as shares of the largest."""
    losses = zip(one.get("losses", ()), other.get("losses", ()), strict=True)
    pairs = [(a / max(1, abs(a)), b / max(1, abs(a))) for a, b in losses]
    pairs += zip(one["sample"], other["sample"], strict=True)
    return max(abs(a - b) for a, b in pairs)


def show(part: str, tasks: Sequence[Task], rows: dict[str, Row]) -> None:
    """The table of a part, as Markdown."""
    print()
    if part == "inference":
        print("| learner | ms an image | image tower alone | ratio |\n|---|---:|---:|---:|")
        for name, (ours, tower) in rows[tasks[0].key].items():
            print(f"| {name} | {1000 * ours:.0f} | {1000 * tower:.0f} | {ours / tower:.3f} |")
        return
    first = rows.get(replace(tasks[0], form="ours", dtype="float32").key)
    print("| row | s | x first | peak GB | Gflop | Gflop/s | parameters |\n|---|---:|---:|---:|---:|---:|---:|")
    for task in tasks:
        row = rows[task.key]
        if task.what == "product":
            print(f"| {task.key} | | | | | {row['mlp']:.0f} (MLP), {row['square']:.0f} (square) | |")
            continue
        ratio = f"{row['seconds'] / first['seconds']:.1f}" if first and task.what == "step" else ""
        flop = f"{row['gflop']:.0f} | {row['gflop'] / row['seconds']:.0f}" if "gflop" in row else " | "
        cells = [
            task.key,
            f"{row['seconds']:.2f}",
            ratio,
            f"{row['peak_gb']:.2f}",
            flop,
            str(row.get("parameters", "")),
        ]
        print(f"| {' | '.join(cells)} |")
    for task in tasks:
        plain = replace(task, form="straightforward", dtype="float32", checkpointing=False, bank=True)
        if task.form == "ours" and plain.key in rows and task.dtype == "float32" and plain in tasks:
            one, other = rows[plain.key], rows[task.key]
            print(
                f"\n{task.key}: {one['seconds'] / other['seconds']:.2f} times faster than straightforward, "
                f"{other['peak_gb'] / one['peak_gb']:.2f} of its memory, results differ by {alike(one, other):.0e}"
            )
            if alike(one, other) > 1e-4:
                raise SystemExit("the two ways do not give the same")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("steps", "straightforward", "bf16", "inference")
    parser.add_argument("part", choices=(*parts, "all"))
    every = [*(name for name, learner in LEARNERS.items() if learner.tunes_prompts), "coop+dept"]
    parser.add_argument("--learners", nargs="+", choices=every, default=every)
    parser.add_argument("--steps", type=int, default=2, help="measured ones, after one to warm up")
    parser.add_argument("--results", type=Path, help="JSON file of rows, read first and added to")
    parser.add_argument("--small", action="store_true", help="a tiny CLIP, to try the benchmark itself")
    options = parser.parse_args()
    kept = options.results and options.results.exists()
    rows: dict[str, Row] = json.loads(options.results.read_text()) if kept else {}
    for part in parts if options.part == "all" else (options.part,):
        tasks = tasks_of(part, options.learners, options)
        for task in tasks:
            if task.key in rows:
                continue
            print(task.key, flush=True)
            context = multiprocessing.get_context("spawn")
            reply = context.SimpleQueue()
            process = context.Process(target=measure, args=(task, reply))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{task.key} failed")
            rows[task.key] = reply.get()
            if options.results:
                options.results.write_text(json.dumps(rows))
        show(part, tasks, rows)


if __name__ == "__main__":
    main()
