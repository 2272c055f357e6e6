"""MMRL and MMRL++ against their formulas written out, and the rule by which they predict."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.contract import Batch, Output
from maotune.learners.base import frozen_image_features
from maotune.learners.dept import DePT
from maotune.learners.mmrl import MMRL
from maotune.learners.mmrl_plus_plus import MMRLPlusPlus
from maotune.learners.representation import RepresentationLearner
from maotune.train.evaluate import evaluate
from maotune.train.session import load_prompts, restore_prompts, save_prompts
from tests.learners.plainly import FLOWERS, cosines, pictures, same_gradients, words
from tests.learners.sizes import tuned, vit_b16
from tests.parity.harness import tiny_clip

OTHERS = ("sweet pea", "moon orchid")
KINDS = (MMRL, MMRLPlusPlus)


def make(kind: type[RepresentationLearner], **settings: Any) -> RepresentationLearner:
    torch.manual_seed(2)
    learner: Any = kind
    made: RepresentationLearner = learner(tiny_clip(), FLOWERS, **{"first_layer": 2, "width": 24, **settings})
    with torch.no_grad():  # the Y of MMRL++ start at zero
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made.eval()


def tokens_of(learner: RepresentationLearner) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Tokens of each layer of the text and of the image, and the projection of the tokens."""
    if isinstance(learner, MMRL):
        texts, images = (
            [learner.tokens @ one.weight.T + one.bias for one in part] for part in (learner.to_text, learner.to_image)
        )
        return texts, images, learner.projection
    assert isinstance(learner, MMRLPlusPlus)
    texts, images = (
        [learner.tokens @ (part.weight + x @ y).T + bias for x, y, bias in zip(part.x, part.y, part.bias, strict=True)]
        for part in (learner.to_text, learner.to_image)
    )
    projection = tiny_clip().model.visual_projection.weight.T + learner.projection_x @ learner.projection_y
    return texts, images, projection


def with_tokens(rows: Tensor, number: int, tokens: Sequence[Tensor], first: int, share: float) -> Tensor:
    """Rows (T, W) at the input of a layer: tokens are inserted after row 0 at the first, and mixed in at the next."""
    if not first <= number < first + len(tokens):
        return rows
    new = tokens[number - first]
    if number == first:
        return torch.cat([rows[:1], new, rows[1:]])
    return torch.cat([rows[:1], share * new + (1 - share) * rows[1 : 1 + len(new)], rows[1 + len(new) :]])


def text_with(clip: FrozenCLIP, text: str, tokens: Sequence[Tensor], first: int, share: float) -> Tensor:
    model = clip.model.text_model
    x = words(clip, text, bare=False)
    x = x + model.embeddings.position_embedding.weight[: len(x)]
    for number, layer in enumerate(model.encoder.layers):
        x = with_tokens(x, number, tokens, first, share)
        x = layer(x[None], torch.full((len(x), len(x)), -torch.inf).triu(1)[None, None])[0]
    return clip.model.text_projection(model.final_layer_norm(x[-1]))


def image_with(
    clip: FrozenCLIP, image: Tensor, tokens: Sequence[Tensor], first: int, share: float
) -> tuple[Tensor, Tensor]:
    """Class token, projected, and the mean of the tokens."""
    model = clip.model.vision_model
    x = model.pre_layrnorm(model.embeddings(image[None]))[0]
    for number, layer in enumerate(model.encoder.layers):
        x = layer(with_tokens(x, number, tokens, first, share)[None], None)[0]
    rows = model.post_layernorm(x[1 : 1 + len(tokens[0])])
    return clip.model.visual_projection(model.post_layernorm(x[0])), rows.mean(dim=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", [None, 3])
def test_loss_and_gradients_are_the_formulas(kind: type[RepresentationLearner], last: int | None) -> None:
    clip, given = tiny_clip(), pictures(tiny_clip(), len(FLOWERS))
    learner = make(kind, last_layer=last, weight=2.0)
    texts, images, projection = tokens_of(learner)
    assert len(texts) == len(images) == (3 if last is None else 2)
    share = 1.0 if kind is MMRL else 0.7
    said = [text_with(clip, f"a photo of a {name}.", texts, 1, share) for name in FLOWERS]
    assert given.images is not None
    seen = [image_with(clip, image, images, 1, share) for image in given.images]
    by_class = cosines(clip, [token for token, _ in seen], said)
    by_tokens = cosines(clip, [mean @ projection for _, mean in seen], said)
    expected = (
        0.7 * F.cross_entropy(by_class, given.labels)
        + 0.3 * F.cross_entropy(by_tokens, given.labels)
        + 2 * (1 - F.cosine_similarity(torch.stack([t for t, _ in seen]), frozen_image_features(clip, given)).mean())
        + 2 * (1 - F.cosine_similarity(torch.stack(said), clip.zeroshot_text(FLOWERS, ["a photo of a {}."])).mean())
    )
    output = learner(given)
    torch.testing.assert_close(output.logits, 0.7 * by_class + 0.3 * by_tokens, rtol=1e-4, atol=1e-3)
    terms = learner.losses(output, given, F.cross_entropy)
    assert [*terms] == ["cross_entropy", "token_cross_entropy", "image", "text"]
    same_gradients(learner, torch.stack([*terms.values()]).sum(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_only_classes_that_were_tuned_are_predicted_by_the_tokens_too(kind: type[RepresentationLearner]) -> None:
    learner, given = make(kind), pictures(tiny_clip(), len(FLOWERS))
    output = learner(given)
    mixed = 0.7 * output.by_class + 0.3 * output.by_tokens
    torch.testing.assert_close(output.logits, mixed)
    learner.bind(FLOWERS[1:3])
    torch.testing.assert_close(learner(given).logits, mixed[:, 1:3], rtol=0, atol=1e-4)
    learner.bind((*FLOWERS, *OTHERS))
    output = learner(given)
    torch.testing.assert_close(output.logits, output.by_class)
    learner.bind(OTHERS)
    learner.own()  # as the stage on new classes does
    output = learner(given)
    torch.testing.assert_close(output.logits, 0.7 * output.by_class + 0.3 * output.by_tokens)
    learner.bind(FLOWERS)
    output = learner(given)
    torch.testing.assert_close(output.logits, output.by_class)


@pytest.mark.parametrize("dept", [False, True])
def test_the_rule_is_that_of_the_stage_that_was_saved(dept: bool, tmp_path: Path) -> None:
    given = pictures(tiny_clip(), len(FLOWERS))

    def built() -> Any:
        return DePT(make(MMRL), tiny_clip().joint_width) if dept else make(MMRL)

    learner = built()
    learner.bind(OTHERS)
    learner.own()
    expected = {classes: learner_bound(learner, classes, given) for classes in (FLOWERS, OTHERS)}
    save_prompts(tmp_path / "new.safetensors", learner.state_dict(), {})
    fresh = built()
    restore_prompts(fresh, load_prompts(tmp_path / "new.safetensors")[0], OTHERS)
    for classes, logits in expected.items():
        torch.testing.assert_close(learner_bound(fresh, classes, given), logits)


def learner_bound(learner: Any, classes: Sequence[str], given: Batch) -> Tensor:
    learner.bind(classes)
    logits: Tensor = learner.eval()(given).logits.detach()
    return logits


@pytest.mark.parametrize("dept", [False, True])
def test_scores_among_other_classes_follow_the_rule_of_those(dept: bool) -> None:
    """The image feature depends on the classes, so that of one list must not be scored against another."""

    class Once:
        def __len__(self) -> int:
            return 1

        def epoch(self, index: int, start: int = 0) -> Any:
            yield pictures(tiny_clip(), len(FLOWERS))

        def support(self) -> Any:
            raise AssertionError

    learner: Any = DePT(make(MMRL), tiny_clip().joint_width) if dept else make(MMRL)
    elsewhere = evaluate(learner, Once(), rivals={"others": OTHERS}).rivals["others"]
    assert learner.classes == FLOWERS
    expected = learner_bound(learner, OTHERS, pictures(tiny_clip(), len(FLOWERS)))
    torch.testing.assert_close(elsewhere, expected.amax(dim=1))


def test_start() -> None:
    learner = MMRLPlusPlus(tiny_clip(), FLOWERS, first_layer=2, width=24)
    texts, images = learner.prompts()
    for tokens in (texts, images):
        assert all(torch.equal(tokens[0], other) for other in tokens[1:]), "every Y starts at zero"
    assert torch.equal(learner.token_projection(), tiny_clip().image_projection.T)


def test_parameters_at_vit_b16() -> None:
    assert tuned(MMRL(vit_b16(), FLOWERS)) == 4_992_256
    assert tuned(MMRL(vit_b16(), FLOWERS, width=2048)) == 18_762_496
    learner = MMRLPlusPlus(vit_b16(), FLOWERS)
    assert tuned(learner) == 813_312
    assert {*learner.state_dict()} == {name for name, _ in learner.named_parameters()}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (MMRL, {"first_layer": 1}, "first_layer is 1 and last_layer 4.*: choose 2 to 4"),
        (MMRL, {"first_layer": 3, "last_layer": 2}, "first_layer is 3 and last_layer 2"),
        (MMRLPlusPlus, {"last_layer": 5}, "have 4 and 4 layers: choose 2 to 4"),
        (MMRL, {"length": 0}, "length is 0"),
        (MMRL, {"class_share": 1.5}, "class_share 1.5.*a share from 0 to 1"),
        (MMRLPlusPlus, {"rank": 0}, "rank is 0"),
        (MMRLPlusPlus, {"new_share": 2}, "new_share 2"),
        (MMRL, {"template": "a photo"}, r"'a photo' has no \{\}"),
    ],
)
def test_settings_that_cannot_be(kind: type[RepresentationLearner], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(kind, **settings)


def test_the_loss_needs_both_scores() -> None:
    learner, given = make(MMRL), pictures(tiny_clip(), len(FLOWERS))
    other = learner(given)
    with pytest.raises(TypeError, match="losses of MMRL need the output of its own forward"):
        learner.losses(Output(other.image, other.text, other.logits), given, F.cross_entropy)
