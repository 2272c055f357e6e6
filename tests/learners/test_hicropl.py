"""HiCroPL against its formulas written out, and the variants of it that an ablation needs."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.clip.ensembles import SIXTY
from maotune.learners.descriptions import Descriptions
from maotune.learners.hicropl import HiCroPL
from maotune.learners.prompt_flow import Mapper, Proxy
from maotune.train.session import load_prompts, restore_prompts, save_prompts
from tests.learners.plainly import FLOWERS, image_feature, pictures, same_gradients, text_feature
from tests.learners.sizes import tuned, vit_b16
from tests.parity.harness import tiny_clip

SENTENCES = {"rose": ["a red flower with thorns.", "it smells sweet."], "Pug": ["a small dog."]}
TEMPLATES = ("a photo of a {}.", "the {} in art.")
DEPTH, K = 4, 2


def make(**settings: Any) -> HiCroPL:
    torch.manual_seed(4)
    given = {"context_length": 3, "depth": DEPTH, "cross_layer": K, "descriptions": SENTENCES, "templates": TEMPLATES}
    return HiCroPL(tiny_clip(), FLOWERS, **{**given, **settings}).eval()


def attention(module: torch.nn.MultiheadAttention, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Eight heads, one query after another."""
    parts = zip(module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3), (queries, keys, values), strict=True)
    q, k, v = (x @ weight.T + bias for weight, bias, x in parts)
    each = q.shape[1] // 8
    rows = []
    for query in q:
        heads = [slice(start, start + each) for start in range(0, len(query), each)]
        weights = [(k[:, head] @ query[head] / each**0.5).softmax(0) for head in heads]
        rows.append(torch.cat([weight @ v[:, head] for weight, head in zip(weights, heads, strict=True)]))
    return module.out_proj(torch.stack(rows))


def proxy(module: Any, prompts: Tensor) -> Tensor:
    assert isinstance(module, Proxy)
    keys = module.norm1(prompts)
    return module.norm2(module.token + attention(module.attention, module.norm1(module.token), keys, keys))


def mapped(module: Mapper, prompts: Tensor, proxies: Tensor) -> Tensor:
    query, keys, values = module.query(prompts), module.norm1(module.key(proxies)), module.norm1(module.value(proxies))
    query = query + attention(module.attention, module.norm1(query), keys, values)
    hidden = module.up(module.norm2(query))
    return query + module.down(hidden * torch.sigmoid(1.702 * hidden))


def flow(learner: HiCroPL) -> tuple[list[Tensor], list[Tensor]]:
    texts, images = list(learner.text.prompts), list(learner.visual.prompts)
    of_texts = [proxy(net, prompts) for net, prompts in zip(learner.text_proxies, texts[:K], strict=True)]
    of_images = [proxy(net, prompts) for net, prompts in zip(learner.image_proxies, images[K:], strict=True)]
    early = mapped(learner.to_image, torch.cat(images[:K]), torch.cat(of_texts)).split(3)
    late = mapped(learner.to_text, torch.cat(texts[K:]), torch.cat(of_images)).split(3)
    return [*texts[:K], *late], [*early, *images[K:]]


def described() -> Tensor:
    """The classes' sentences, or their names in the templates."""
    by_class = [SENTENCES.get(name, SENTENCES["Pug"] if name == "pug" else None) for name in FLOWERS]
    texts = [
        sentences or [template.format(name.replace("_", " ")) for template in TEMPLATES]
        for name, sentences in zip(FLOWERS, by_class, strict=True)
    ]
    features = [F.normalize(tiny_clip().encode_texts(each), dim=-1).mean(dim=0) for each in texts]
    return F.normalize(torch.stack(features), dim=-1)


@pytest.mark.parametrize("fused", [True, False])
def test_loss_and_gradients_are_the_formulas(fused: bool) -> None:
    clip, given, learner = tiny_clip(), pictures(tiny_clip(), len(FLOWERS)), make(fuse_frozen=fused)
    textual, visual = flow(learner)
    replaced = dict(enumerate(textual[1:], start=1))
    text = torch.stack([text_feature(clip, [textual[0], f"{name}."], replaced) for name in FLOWERS])
    assert given.images is not None
    image = torch.stack([image_feature(clip, one, visual) for one in given.images])
    text, image = F.normalize(text, dim=1), F.normalize(image, dim=1)
    frozen = F.normalize(clip.encode_image(given.images), dim=1)
    if fused:
        text, image = F.normalize(text + described(), dim=1), F.normalize(image + frozen, dim=1)
    expected = (
        F.cross_entropy(clip.logit_scale * image @ text.T, given.labels)
        + 12 * (1 - (text * described()).sum(1).mean())
        + 12 * (1 - (image * frozen).sum(1).mean())
    )
    terms = learner.losses(learner(given), given, F.cross_entropy)
    assert [*terms] == ["cross_entropy", "text", "image"]
    same_gradients(learner, torch.stack([*terms.values()]).sum(), expected)


def test_evaluation_changes_nothing() -> None:
    """In the released code each pass over a batch maps the prompts once more."""
    for kind in ("learned", "random", "none"):
        learner, given = make(flow=kind), pictures(tiny_clip(), len(FLOWERS))
        before, logits = copy.deepcopy(learner.state_dict()), learner(given).logits
        assert torch.equal(learner(given).logits, logits)
        assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_the_released_flow_is_random_and_written_over_the_prompts() -> None:
    learner, given = make(flow="random"), pictures(tiny_clip(), len(FLOWERS))
    with torch.no_grad():
        textual, visual = flow(learner)
    expected = learner(given).logits  # in evaluation, mapped as well
    assert {name for name, value in learner.named_parameters() if value.requires_grad} == {
        f"{tower}.prompts.{layer}" for tower in ("text", "visual") for layer in range(DEPTH)
    }
    output = learner.train()(given)
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-3)
    for own, other in zip((learner.text.prompts, learner.visual.prompts), (textual, visual), strict=True):
        for parameter, value in zip(own, other, strict=True):
            torch.testing.assert_close(parameter.data, value, rtol=1e-4, atol=1e-5)
    torch.stack([*learner.losses(output, given, F.cross_entropy).values()]).sum().backward()
    assert all(prompts.grad is not None for prompts in (*learner.text.prompts, *learner.visual.prompts))


def test_the_released_flow_is_saved_with_its_networks(tmp_path: Path) -> None:
    learner, given = make(flow="random"), pictures(tiny_clip(), len(FLOWERS))
    save_prompts(tmp_path / "plain.safetensors", learner.state_dict(), {})
    torch.manual_seed(9)
    fresh = HiCroPL(
        tiny_clip(), FLOWERS, context_length=3, depth=DEPTH, cross_layer=K, flow="random",
        descriptions={name: list(texts) for name, texts in SENTENCES.items()}, templates=TEMPLATES,
    ).eval()  # fmt: skip
    assert not torch.allclose(fresh(given).logits, learner(given).logits)
    restore_prompts(fresh, load_prompts(tmp_path / "plain.safetensors")[0])
    torch.testing.assert_close(fresh(given).logits, learner(given).logits)


def test_without_flow_the_prompts_are_independent() -> None:
    learner, given = make(flow="none", fuse_frozen=False), pictures(tiny_clip(), len(FLOWERS))
    first, *deeper = learner.text.prompts
    text = text_feature(tiny_clip(), [first, "pug."], dict(enumerate(deeper, start=1)))
    torch.testing.assert_close(learner(given).text[-1], text, rtol=1e-3, atol=1e-3)
    assert {name.partition(".")[0] for name in learner.state_dict()} == {"text", "visual"}


def test_classes_without_sentences_are_described_by_the_templates() -> None:
    learner = make()
    torch.testing.assert_close(F.normalize(learner.descriptions.features(FLOWERS), dim=1), described())
    learner.bind(["sweet pea"])
    assert learner.text_features().shape == (1, tiny_clip().joint_width)
    assert Descriptions(tiny_clip(), {}, SIXTY).of("sweet_pea")[0] == SIXTY[0].format("sweet pea")


def test_parameters_at_vit_b16() -> None:
    learner = HiCroPL(vit_b16(), FLOWERS)
    assert tuned(learner) == 33_431_040
    assert {*learner.state_dict()} == {name for name, _ in learner.named_parameters()}
    released = HiCroPL(vit_b16(), FLOWERS, flow="random")
    assert sum(each.numel() for each in released.parameters() if each.requires_grad) == 245_760
    assert tuned(HiCroPL(vit_b16(), FLOWERS, flow="none")) == 245_760


@pytest.mark.parametrize("cross_layer", [0, 4])
def test_flow_in_one_direction_alone_is_refused(cross_layer: int) -> None:
    with pytest.raises(ValueError, match=rf"cross_layer is {cross_layer} and depth 4: choose 1 to 3"):
        make(cross_layer=cross_layer)
