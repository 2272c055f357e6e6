"""Learners in feature space against the official code, on the made-up world of features."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.contract import Batch, Support
from maotune.learners.clap import CLAP
from maotune.learners.clip_adapter import CLIPAdapter
from maotune.learners.linear import LinearProbe
from maotune.learners.lp_plus_plus import LPPlusPlus
from maotune.learners.prolip import ProLIP
from maotune.learners.tip_adapter import TipAdapter
from maotune.train.loop import FitSettings
from tests.parity.world import (
    BASE,
    NEW,
    Rows,
    World,
    check_training,
    close,
    described,
    golden,
    scores,
    slices,
    tune,
)  # fmt: skip

WORLD: Any = World()


def test_clap() -> None:
    class Bank(Rows):
        """Rows of all views in one list, as the official code shuffles them."""

        def epoch(self, index: int, start: int = 0) -> Any:
            bank, labels = self.views.reshape(1600, 96), self.labels.repeat(10)
            for step in range(2 * index + start, 2 * index + 2):
                rows = golden("clap")["batch_rows"][step].long()
                yield Batch(labels[rows], features=bank[rows])

    nothing: Any = [[(0, torch.zeros(0))] * 2] * 20
    learner = check_training(
        "clap",
        lambda: CLAP(WORLD, BASE),
        Bank(nothing),
        FitSettings("SGD", {"momentum": 0.9, "weight_decay": 0}),
        0.1,
        {"prototypes": "prototypes"},
    )
    assert isinstance(learner, CLAP)
    close("clap", "lambda", learner.trust)
    close("clap", "test_logits", scores(learner))
    learner.bind(NEW)
    torch.testing.assert_close(learner.text_features(), golden("world")["text_raw"][10:])


def test_clip_adapter() -> None:
    def make() -> CLIPAdapter:
        learner = CLIPAdapter(WORLD, BASE)
        learner.down.weight.data = golden("clip_adapter")["init.fc0"].clone()
        learner.up.weight.data = golden("clip_adapter")["init.fc2"].clone()
        return learner

    names = {"fc0": "down.weight", "fc2": "up.weight"}
    learner = check_training("clip_adapter", make, Rows(slices(5, 40)), FitSettings(), 2e-3, names)
    close("clip_adapter", "test_logits", scores(learner))


def test_prolip() -> None:
    order: Any = [[((step + 1) % 10, torch.arange(160))] for step in range(60)]
    settings = FitSettings("Adam", {"eps": 1e-4}, warmup_epochs=0)
    names = {key.removeprefix("final."): "projection" for key in golden("prolip") if key.startswith("final.")}
    learner = check_training("prolip", lambda: ProLIP(WORLD, BASE), Rows(order, "pre"), settings, 1e-5, names)
    assert isinstance(learner, ProLIP)
    assert learner.penalty == described("prolip")["lambda_"]
    assert torch.equal(WORLD.image_projection.T, golden("world")["proj"]), "the projection of the CLIP does not change"
    close("prolip", "test_logits", scores(learner, "test_pre"))
    learner.bind(NEW)
    close("prolip", "test_new_logits", scores(learner, "test_new_pre"))


def test_linear_probe_with_texts_as_rows() -> None:
    """A batch of images and texts is a batch of features; the learner's own texts are those of the batch's classes."""
    learner = LinearProbe(WORLD, BASE)
    case, world = golden("cross_modal"), golden("world")
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3, weight_decay=0.01)
    best: dict[int, Tensor] = {}
    losses = []
    for step in range(60):
        rows, texts = world["perms"][step // 40].long()[4 * (step % 40) :][:4], case["text_rows"][step % 40].long()
        labels = torch.cat([world["train_labels"][rows], texts])
        batch = Batch(labels, features=torch.cat([world["train_raw"][rows], world["text"][texts]]))
        for group in optimizer.param_groups:
            warm = 1e-5 if step == 0 else 1e-4 * step
            group["lr"] = warm if step < 10 else 5e-4 * (1 + torch.tensor((step - 10) / 60 * torch.pi).cos().item())
        (loss,) = learner.losses(learner(batch), batch, F.cross_entropy).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        best[step] = learner.weight.detach().clone()
    close("cross_modal", "json.losses", losses)
    close("cross_modal", "best.weight", best[20])
    learner.weight.data = best[20]
    close("cross_modal", "test_logits_head", scores(learner))
    mixed = LinearProbe(WORLD, BASE, wise_ft=0.5)
    mixed.weight.data = best[20]
    close("cross_modal", "test_logits_head_wiseft_0.5", scores(mixed))


def test_texts_follow_the_images_of_a_batch() -> None:
    both, alone = LinearProbe(WORLD, BASE, cross_modal=True), LinearProbe(WORLD, BASE)
    (images,) = (batch for batch in [next(iter(Rows(slices(1, 40)).epoch(0)))])
    assert images.features is not None
    texts = Batch(
        torch.cat([images.labels, images.labels]),
        features=torch.cat([images.features, golden("world")["text"][images.labels]]),
    )
    expected = alone.losses(alone(texts), texts, F.cross_entropy)
    assert both.losses(both(images), images, F.cross_entropy).keys() == expected.keys()
    torch.testing.assert_close(both.losses(both(images), images, F.cross_entropy), expected)


def started(learner: LPPlusPlus) -> LPPlusPlus:
    learner.bias.data = golden("lpp")["init.bias"].clone()
    tune(learner, Rows(slices(1, 40), views=1), 1.0)
    return learner


@pytest.mark.parametrize("steps", [1, 5, 10, 11, 21])
def test_lp_plus_plus_after_some_steps(steps: int) -> None:
    learner = started(LPPlusPlus(WORLD, BASE, steps=steps))
    before = started(LPPlusPlus(WORLD, BASE, steps=steps - 1)) if steps % 10 == 0 else learner
    close("lpp", f"after{steps}.alpha_vec", before.alpha[None])
    if f"after{steps}.weight" in golden("lpp"):
        close("lpp", f"after{steps}.weight", learner.weight)
        close("lpp", f"after{steps}.bias", learner.bias)


def test_lp_plus_plus() -> None:
    start = started(LPPlusPlus(WORLD, BASE, steps=0))
    close("lpp", "init.weight", start.weight)
    assert float(start.alpha[0]) == pytest.approx(described("lpp")["alpha_init"], abs=1e-3)
    learner = started(LPPlusPlus(WORLD, BASE, steps=300))
    close("lpp", "val_logits_last", scores(learner, "val_raw"))
    for name in ("weight", "bias", "alpha"):
        close("lpp", f"final.{name}", getattr(learner, name))
    close("lpp", "test_logits_best", scores(started(LPPlusPlus(WORLD, BASE, steps=10))))
    reset = started(LPPlusPlus(WORLD, BASE, steps=300, reset_gradient=True))
    assert not torch.allclose(reset.alpha, learner.alpha, atol=1e-2)
    image = F.normalize(golden("world")["test_raw"], dim=-1)
    learner.bind(NEW)
    torch.testing.assert_close(scores(learner), 100 * image @ golden("world")["text"][10:].T, rtol=0, atol=1e-4)


def cached(**settings: Any) -> TipAdapter:
    learner = TipAdapter(WORLD, BASE, **settings)
    tune(learner, Rows(slices(1, 40)), 1.0)
    return learner


def test_tip_adapter() -> None:
    learner = cached(alpha=2.0, beta=1.0)
    close("tip", "cache_keys", learner.keys)
    close("tip", "val_logits_init", scores(learner, "val_raw"))
    best = described("tip")
    close("tip", "test_logits", scores(cached(alpha=best["best_alpha"], beta=best["best_beta"])))
    learner.bind(BASE[::-1])
    torch.testing.assert_close(scores(learner), scores(cached(alpha=2.0, beta=1.0)).flip(1), rtol=0, atol=1e-4)
    learner.bind((*BASE, NEW[0]))
    image = F.normalize(golden("world")["test_raw"], dim=-1)
    torch.testing.assert_close(scores(learner), 100 * image @ golden("world")["text"][:11].T, rtol=0, atol=1e-4)


def test_tip_adapter_chooses_by_leaving_images_out() -> None:
    learner = cached(alpha=None, beta=None)
    accuracy = (scores(learner).argmax(1) == golden("world")["test_labels"]).double().mean()
    assert accuracy >= 0.8, "zero-shot has 0.705, the authors' search on validation images 0.85"


def test_tip_adapter_with_tuned_keys_against_a_loop_written_out() -> None:
    batches = Rows(slices(20, 80))
    settings = FitSettings("AdamW", {"eps": 1e-4, "weight_decay": 0.01}, warmup_epochs=0)
    learner = TipAdapter(WORLD, BASE, alpha=2.0, beta=1.0, tuned=True)
    tune(learner, batches, 1e-3, settings)
    keys = torch.nn.Parameter(golden("tip")["cache_keys"].clone())
    optimizer = torch.optim.AdamW([keys], lr=1e-3, eps=1e-4, weight_decay=0.01)
    values = F.one_hot(golden("world")["train_labels"]).float()
    for epoch in range(20):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(1e-3, epoch, 20)
        for batch in batches.epoch(epoch):
            assert batch.features is not None
            x = F.normalize(batch.features, dim=-1)
            logits = 100 * x @ golden("world")["text"][:10].T + 2 * torch.exp(-(1 - x @ keys.T)) @ values
            optimizer.zero_grad()
            F.cross_entropy(logits, batch.labels).backward()
            optimizer.step()
    torch.testing.assert_close(learner.keys.detach(), keys.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [CLAP, LPPlusPlus, TipAdapter])
def test_soft_labels_that_are_certain_are_hard_labels(make: Any) -> None:
    hard, soft = make(WORLD, BASE), make(WORLD, BASE)
    rows = Rows(slices(1, 40))
    hard.prepare(rows)

    class Soft(Rows):
        def support(self) -> Support:
            found = super().support()
            return Support(found.features, F.one_hot(found.labels, 10).float())

    soft.prepare(Soft(slices(1, 40)))
    torch.testing.assert_close(scores(soft), scores(hard), rtol=0, atol=1e-3)
