"""CoPrompt against its formulas written out, and what it asks of class descriptions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.contract import Batch
from maotune.data.sets import icons
from maotune.learners.coprompt import CoPrompt
from maotune.learners.descriptions import Descriptions, key, read_descriptions
from tests.learners.plainly import cosines, image_feature, same_gradients, text_feature
from tests.learners.sizes import tuned, vit_b16
from tests.parity.harness import tiny_clip

NAMES = ("black_cat", "dog", "heron")
WORDS = {
    "Black Cat": ["a cat with dark fur.", "a black animal with whiskers, a small nose and a long tail."],
    "dog": ["an animal that barks."],
    "heron": ["a grey bird with long legs.", "a bird that stands in shallow water.", "a fisher with a long beak."],
}


@pytest.fixture
def described(tmp_path: Path) -> str:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(WORDS), encoding="utf-8")
    return str(path)


def learner(described: str, **settings: Any) -> CoPrompt:
    torch.manual_seed(3)
    return CoPrompt(tiny_clip(), NAMES, depth=3, descriptions=described, **settings)


def batch() -> Batch:
    images, second = torch.randn(2, 5, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    return Batch(torch.tensor([1, 2, 1, 0, 2]), images, second_images=second)


def slow_text(made: CoPrompt, name: str) -> Tensor:
    """[SOS] [V]_1 [V]_2 of a NAME . [EOT], by itself and at all positions of the context."""
    first, *deeper = made.text.prompts
    return text_feature(tiny_clip(), [first, f"of a {name}."], dict(enumerate(deeper, start=1)))


def slow_image(made: CoPrompt, image: Tensor) -> Tensor:
    """One image, with the projected prompts after the patches."""
    pairs = zip(made.text.prompts, made.couplings, strict=True)
    return image_feature(tiny_clip(), image, [prompt @ c.weight.T + c.bias for prompt, c in pairs])


def adapted(feature: Tensor, adapter: Any, share: float) -> Tensor:
    return share * F.relu(adapter.up.weight @ F.relu(adapter.down.weight @ feature)) + (1 - share) * feature


def test_loss_and_gradients_are_the_formulas(described: str) -> None:
    made, given = learner(described), batch()
    texts = [adapted(slow_text(made, name), made.adapter_text, 0.2) for name in NAMES]
    images = [adapted(slow_image(made, image), made.adapter_image, 0.1) for image in given.images]
    logits = cosines(tiny_clip(), images, texts)
    with torch.no_grad():
        seen = tiny_clip().encode_image(given.second_images)
        said = [tiny_clip().encode_texts(sentences) for sentences in WORDS.values()]
    consistency = torch.stack(
        [
            1 - torch.stack([F.cosine_similarity(i, s, dim=0) for i, s in zip(images, seen, strict=True)]).mean(),
            # The expectation over one description of each class, drawn at random.
            1 - torch.stack([F.cosine_similarity(t[None], s).mean() for t, s in zip(texts, said, strict=True)]).mean(),
        ]
    )
    expected = F.cross_entropy(logits, given.labels) + 8 * consistency.sum()
    output = made(given)
    torch.testing.assert_close(output.logits, logits, rtol=1e-4, atol=1e-3)
    terms = made.losses(output, given, F.cross_entropy)
    assert [*terms] == ["cross_entropy", "image_consistency", "text_consistency"]
    same_gradients(made, torch.stack([*terms.values()]).sum(), expected)


@pytest.fixture
def short(tmp_path: Path) -> str:
    path = tmp_path / "many.json"
    path.write_text(json.dumps({name: "something to look at." for name in NAMES}), encoding="utf-8")
    return str(path)


def test_parameters_at_vit_b16(short: str) -> None:
    published = CoPrompt(vit_b16(), NAMES, descriptions=short)
    assert tuned(published) == 3_817_216
    assert {*published.state_dict()} == {name for name, _ in published.named_parameters()}
    assert tuned(CoPrompt(vit_b16(), NAMES, depth=12, adapters=False, descriptions=short)) == 4_740_096


def test_without_adapters_it_is_the_coupled_prompts(described: str) -> None:
    made, given = learner(described, adapters=False), batch()
    torch.testing.assert_close(made(given).text[1], slow_text(made, "dog"), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(made(given).image[0], slow_image(made, given.images[0]), rtol=1e-3, atol=1e-3)


def test_other_classes_and_orders(described: str) -> None:
    made, given = learner(described), batch()
    before = made(given).logits
    made.bind(NAMES[::-1])
    torch.testing.assert_close(made(given).logits, before.flip(1), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(made(given, torch.tensor([2])).logits, before[:, :1], rtol=1e-4, atol=1e-3)


def test_the_teacher_sees_the_second_view(described: str) -> None:
    made, given = learner(described), batch()
    same = Batch(given.labels, given.images, second_images=given.images)
    two, one = (made.losses(made(each), each, F.cross_entropy) for each in (given, same))
    assert two["image_consistency"] != one["image_consistency"]
    torch.testing.assert_close(two["text_consistency"], one["text_consistency"])
    alone = Batch(given.labels, given.images)
    with pytest.raises(ValueError, match="two views"):
        made.losses(made(alone), alone, F.cross_entropy)


def test_classes_without_a_description_are_named(described: str) -> None:
    with pytest.raises(ValueError, match=r"words.json' have none of 'owl', 'red fox':"):
        learner(described).bind(["dog", "owl", "red fox"])


def test_depth_that_the_towers_do_not_have(described: str) -> None:
    with pytest.raises(ValueError, match=r"depth is 9.*4 layers"):
        CoPrompt(tiny_clip(), NAMES, descriptions=described)


def test_description_features_are_means_of_unit_length(described: str) -> None:
    read = Descriptions(tiny_clip(), described)
    features = read.features(["heron", "black_cat"])
    expected = F.normalize(tiny_clip().encode_texts(WORDS["heron"]), dim=-1).mean(dim=0)
    torch.testing.assert_close(features[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read.features(["dog", "heron"])[1], features[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("[1", "not JSON"),
        ("[]", "must be an object"),
        ('{"dog": []}', "'dog' must be a list of at least one sentence"),
        ('{"dog": [3]}', "'dog' must be a list of at least one sentence"),
        ('{"dog": 3}', "'dog' must be a list of at least one sentence"),
    ],
)
def test_descriptions_that_cannot_be_used(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Descriptions(tiny_clip(), str(path))


def test_every_class_of_the_shipped_sets_is_described() -> None:
    shipped = read_descriptions("icons-11")
    for name in icons.SETS:
        assert {key(c) for c in icons.load(name).classes} <= {*shipped}
    longest = max((text for texts in shipped.values() for text in texts), key=lambda text: len(text.split()))
    assert len(longest.split()) <= 20  # fits into the 32 tokens of the shipped CLIP


def test_a_description_that_is_too_long_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_text(json.dumps({"dog": "an animal that barks " * 20}), encoding="utf-8")
    with pytest.raises(ValueError, match="an animal that barks"):
        Descriptions(tiny_clip(), str(path)).check(["dog"])
