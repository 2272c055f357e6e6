"""PromptKD against its formulas written out, with teachers of another width, image size and kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from maotune.clip import FrozenCLIP, Preprocess, load_clip
from maotune.contract import AbstractLearner, Batch
from maotune.learners import LEARNERS
from maotune.learners.cocoop import CoCoOp
from maotune.learners.coop import CoOp
from maotune.learners.promptkd import PromptKD
from maotune.learners.teacher import Teacher, prepared_for
from maotune.recipe.load import load_recipe
from maotune.runs.build import build_learner
from tests.golden import GOLDEN
from tests.learners.sizes import tuned, vit_b16
from tests.parity.harness import tiny_clip

NAMES = ("black_cat", "dog", "heron", "red fox")
TINY = str(GOLDEN / "tiny_clip.safetensors")


def wide_clip(joint: int = 48, image: int = 48) -> FrozenCLIP:
    """Another CLIP: a wider joint space, larger images."""
    torch.manual_seed(2)
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 32, "intermediate_size": 64, **layers}
    vision = {"hidden_size": 32, "intermediate_size": 64, "image_size": image, "patch_size": 16, **layers}
    config = CLIPConfig.from_dict({"projection_dim": joint, "text_config": text, "vision_config": vision})
    return FrozenCLIP(CLIPModel(config), name="wide", fingerprint="wide")


def batch() -> Batch:
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    return Batch(torch.tensor([1, 2, 1, 0, 3]), images)


def run_folder(tmp_path: Path, learner: AbstractLearner, clip: FrozenCLIP) -> dict[str, Any]:
    """Arguments for a student whose teacher is a folder that opens as ``learner``."""
    folder = tmp_path / "run"
    folder.mkdir()
    opened = {str(folder): (clip, learner)}
    return {"open_run": opened.__getitem__, "teacher": str(folder)}


def student(**settings: Any) -> PromptKD:
    torch.manual_seed(3)
    return PromptKD(tiny_clip(), NAMES, depth=3, **settings)


def slow_projection(made: PromptKD, features: Tensor) -> Tensor:
    """In training: mean and variance of the batch."""
    first, norm, _, last = made.project
    hidden = features @ first.weight.T + first.bias
    hidden = (hidden - hidden.mean(dim=0)) / (hidden.var(dim=0, unbiased=False) + 1e-5).sqrt()
    return F.relu(hidden * norm.weight + norm.bias) @ last.weight.T + last.bias


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loss_is_the_formula(tmp_path: Path, temperature: float) -> None:
    clip = wide_clip()
    tuned_teacher = CoOp(clip, NAMES, context_length=4)
    made = student(**run_folder(tmp_path, tuned_teacher, clip), temperature=temperature).train()
    given = batch()
    features = slow_projection(made, tiny_clip().encode_image(given.images, list(made.visual.prompts)))
    with torch.no_grad():
        words = tuned_teacher.text_features()
        seen = clip.encode_image(prepared_for(given.images, tiny_clip().preprocess, clip.preprocess))
    expected = torch.zeros(())
    for feature, teacher_feature in zip(features, seen, strict=True):
        q_s = tiny_clip().logit_scale * torch.stack([F.cosine_similarity(feature, w, dim=0) for w in words])
        q_t = clip.logit_scale * torch.stack([F.cosine_similarity(teacher_feature, w, dim=0) for w in words])
        p_t, p_s = (q_t / temperature).softmax(0), (q_s / temperature).softmax(0)
        expected = expected + 1000 * temperature**2 * (p_t * (p_t / p_s).log()).sum() / (5 * 4)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in made.named_parameters()}
    made.zero_grad()
    terms = made.losses(made(given), given, F.cross_entropy)
    assert {*terms} == {"distillation"}
    terms["distillation"].backward()
    torch.testing.assert_close(terms["distillation"], expected, rtol=1e-4, atol=1e-3)
    highest = max(float(gradient.abs().max()) for gradient in gradients.values())
    # A bias before a batch norm has no gradient but rounding: differences are measured against a least scale.
    scales = {name: gradient.abs().max().clamp(min=highest / 100) for name, gradient in gradients.items()}
    found = {name: p.grad / scales[name] for name, p in made.named_parameters()}
    torch.testing.assert_close(found, {n: g / scales[n] for n, g in gradients.items()}, rtol=1e-3, atol=1e-3)
    assert all(p.grad is None for p in tuned_teacher.parameters())


def test_only_the_student_is_tuned_and_saved(tmp_path: Path) -> None:
    clip = wide_clip()
    made = student(**run_folder(tmp_path, CoOp(clip, NAMES), clip))
    prefixes = {name.split(".")[0] for name in made.state_dict()}
    assert prefixes == {"visual", "project"}
    assert made.text.shape == (4, 48)
    large = wide_clip(joint=768)
    published = PromptKD(vit_b16(), NAMES, lambda _: (large, CoOp(large, NAMES)), teacher=str(tmp_path))
    visual, project = 9 * 4 * 768, (512 * 768 + 768) + 2 * 768 + (768 * 768 + 768)
    assert tuned(published) == visual + project == 1_013_760


def test_labels_count_only_with_a_weight() -> None:
    given, other = batch(), Batch(torch.tensor([0, 0, 0, 0, 0]), batch().images)
    without = student().train()
    losses = [without.losses(without(each), each, F.cross_entropy) for each in (given, other)]
    assert losses[0] == losses[1]
    with_labels = student(label_weight=0.5).train()
    output = with_labels(given)
    terms = with_labels.losses(output, given, F.cross_entropy)
    torch.testing.assert_close(terms["cross_entropy"], 0.5 * F.cross_entropy(output.logits, given.labels))
    torch.testing.assert_close(terms["distillation"], losses[0]["distillation"])


def test_a_learner_that_declares_it_is_handed_what_opens_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Distilled(PromptKD):  # type: ignore[misc]
        def __init__(self, clip: FrozenCLIP, classes: Sequence[str], **given: Any) -> None:
            self.given = given
            super().__init__(clip, classes, depth=2)

    monkeypatch.setitem(LEARNERS, "distilled", Distilled)
    recipe = load_recipe("icons/promptkd").model_copy(update={"learner": {"name": "distilled"}})
    opened: dict[str, tuple[FrozenCLIP, AbstractLearner]] = {}
    learner = build_learner(recipe, tiny_clip(), NAMES, opened.__getitem__)
    assert isinstance(learner, Distilled)
    assert learner.given == {"open_run": opened.__getitem__}
    assert [name for name, each in LEARNERS.items() if each.learns_from_run] == ["promptkd", "distilled"]


def test_the_width_is_the_teachers(tmp_path: Path) -> None:
    clip = wide_clip()
    first = PromptKD(tiny_clip(), NAMES, **run_folder(tmp_path, CoOp(clip, NAMES, context_length=4), clip), depth=2)
    assert first.text.shape == (len(NAMES), 48)
    again = PromptKD(tiny_clip(), NAMES, lambda _: (tiny_clip(), first), teacher=str(tmp_path), depth=2)
    assert again.text.shape == (len(NAMES), 48)  # not the 64 of the teacher's own CLIP


def test_a_clip_as_teacher_is_zero_shot() -> None:
    made = student(teacher=TINY, template="a picture of a {}.")
    torch.testing.assert_close(
        F.normalize(made.text, dim=1),
        F.normalize(tiny_clip().encode_texts([f"a picture of a {name.replace('_', ' ')}." for name in NAMES]), dim=1),
        rtol=1e-4,
        atol=1e-5,
    )
    alone = Teacher(tiny_clip(), None, "a picture of a {}.", None)
    torch.testing.assert_close(alone.bind(NAMES), made.text)
    torch.testing.assert_close(alone.logits(batch().images), made.teacher.logits(batch().images))


def test_other_classes_and_orders_and_a_saved_student() -> None:
    made, given = student().train(), batch()
    for _ in range(3):
        made(given)  # moves the running mean and variance
    before = made.eval()(given).logits
    again = student()
    again.load_state_dict(made.state_dict())
    again.eval().bind(NAMES[::-1])
    torch.testing.assert_close(again(given).logits, before.flip(1), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(again(given, torch.tensor([2])).logits, before[:, 1:2], rtol=1e-4, atol=1e-3)
    one = Batch(given.labels[:1], given.images[:1])
    torch.testing.assert_close(again(one).logits, before.flip(1)[:1], rtol=1e-4, atol=1e-3)


def test_images_are_prepared_for_the_teacher() -> None:
    here = Preprocess(32)
    pixels = torch.rand(1, 3, 1, 1).expand(2, 3, 32, 32)  # a flat colour is the same at every size
    images = (pixels - torch.tensor(here.mean).view(3, 1, 1)) / torch.tensor(here.std).view(3, 1, 1)
    there = prepared_for(images, here, Preprocess(48, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    expected = (pixels[0, :, 0, 0] - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.25, 0.3])
    assert there.shape == (2, 3, 48, 48)
    torch.testing.assert_close(there, expected.view(3, 1, 1).expand(2, 3, 48, 48), rtol=1e-4, atol=1e-4)
    assert prepared_for(images, here, Preprocess(32)) is images


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="temperature is 0"):
        student(temperature=0)
    with pytest.raises(ValueError, match="no class names"):
        PromptKD(tiny_clip(), [], depth=3)
    with pytest.raises(ValueError, match="open_run"):
        student(teacher=str(tmp_path))
    clip = load_clip(TINY, device="cpu")
    with pytest.raises(ValueError, match="CoCoOp, whose text features depend on the image"):
        student(**run_folder(tmp_path, CoCoOp(clip, NAMES), clip))
