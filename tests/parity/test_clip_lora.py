"""CLIP-LoRA against the official code, on the tiny CLIP: five updates of AdamW with a cosine that ends at 1e-6."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.contract import Batch
from maotune.learners.clip_lora import CLIPLoRA
from tests.parity.harness import GoldenBatches, read, tiny_clip
from tests.parity.world import close, described, golden


def stacked(prefix: str) -> dict[str, Tensor]:
    """The official values under ``prefix``, by our names."""
    layers = {"text": "transformer", "image": "visual.transformer"}
    found = {}
    for tower, path in layers.items():
        for part in "AB":
            rows = [
                [
                    golden("clip_lora")[f"{prefix}{path}.resblocks.{layer}.attn.{which}_proj.w_lora_{part}"]
                    for which in "qkv"
                ]
                for layer in range(4)
            ]
            found[f"{tower}_{part.lower()}"] = torch.stack([torch.stack(row) for row in rows])
    return found


def scores(learner: CLIPLoRA) -> Tensor:
    images = read("batches")["eval_images"]
    with torch.no_grad():
        logits: Tensor = learner.eval()(Batch(torch.zeros(len(images), dtype=torch.int64), images)).logits
    return logits


def test_clip_lora() -> None:
    learner = CLIPLoRA(tiny_clip(), described("clip_lora")["classnames"], dropout=0.0)
    learner.load_state_dict(stacked("init."))
    close("clip_lora", "eval_logits_before", scores(learner))
    learner.train()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-4, weight_decay=0.01)
    losses = []
    for step, batch in enumerate(GoldenBatches("coop_ctx16", [range(5)]).epoch(0)):
        optimizer.param_groups[0]["lr"] = 1e-6 + (2e-4 - 1e-6) * (1 + math.cos(math.pi * step / 5)) / 2
        output = learner(batch)
        (loss,) = learner.losses(output, batch, F.cross_entropy).values()
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            close("clip_lora", "logits0", output.logits)
            for name, value in stacked("grad0.").items():
                gradient = dict(learner.named_parameters())[name].grad
                torch.testing.assert_close(gradient, value, rtol=1e-4, atol=2e-5 * float(value.abs().max()))
        optimizer.step()
        losses.append(loss.item())
    close("clip_lora", "json.losses", losses)
    for name, value in stacked("after5.").items():
        torch.testing.assert_close(learner.state_dict()[name], value, rtol=0, atol=1e-6)
    close("clip_lora", "eval_logits_after", scores(learner))


def test_dropout_acts_while_tuned_and_one_tower_alone_can_be_updated() -> None:
    torch.manual_seed(0)
    batch = next(iter(GoldenBatches("coop_ctx16", [range(1)]).epoch(0)))
    for encoder in ("both", "text", "vision"):
        learner = CLIPLoRA(tiny_clip(), ("red fox", "whale"), encoder=encoder, dropout=0.5)
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.normal_(std=0.1)
        assert {name[:4] for name in learner.state_dict()} == {
            "both": {"text", "imag"},
            "text": {"text"},
            "vision": {"imag"},
        }[encoder]
        assert not torch.equal(learner.train()(batch).logits, learner(batch).logits)
        assert torch.equal(learner.eval()(batch).logits, learner(batch).logits)
