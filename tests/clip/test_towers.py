"""The towers compute what transformers' own full passes compute, features and gradients, on whatever they are given."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maotune.clip import FrozenCLIP

CONTEXT, LAYERS, WIDTH, VISION_WIDTH = 20, 3, 32, 48
EXACT = {"rtol": 2e-4, "atol": 2e-5}


@pytest.fixture(scope="module")
def clip(model: Any) -> FrozenCLIP:
    return FrozenCLIP(model, name="toy")


def slow_text(
    model: Any,
    prefix: Tensor,
    suffix: Tensor,
    eot: Tensor,
    layer_prompts: Mapping[int, Tensor] | None = None,
    inserted: bool = False,
    share: float = 1.0,
) -> Tensor:
    """Every text by itself, at all positions of the context, through transformers' own layers."""
    text, features = model.text_model, []
    groups, length, _ = prefix.shape
    per_group = eot.shape[-1]
    for group in range(groups):
        for member in range(per_group):
            number = group * per_group + member
            own = suffix[number if len(suffix) == groups * per_group else member]
            rest = torch.randn(CONTEXT - length - len(own), own.shape[-1])  # whatever stands there must not matter
            x = torch.cat([prefix[group], own, rest])[None] + text.embeddings.position_embedding.weight
            end = length + (eot[group, member] if eot.ndim == 2 else eot[member])
            for index, layer in enumerate(text.encoder.layers):
                if layer_prompts and index in layer_prompts:
                    prompt = layer_prompts[index]
                    if prompt.ndim == 3:
                        prompt = prompt[0 if len(prompt) == 1 else group if len(prompt) == groups else number]
                    if inserted and index == min(layer_prompts):
                        x, end = torch.cat([x[:, :1], prompt[None], x[:, 1:]], dim=1), end + len(prompt)
                    else:
                        mixed = share * prompt + (1 - share) * x[:, 1 : 1 + len(prompt)]
                        x = torch.cat([x[:, :1], mixed, x[:, 1 + len(prompt) :]], dim=1)
                x = layer(x, torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)[None, None])
            features.append(model.text_projection(text.final_layer_norm(x[0, end])))
    return torch.stack(features)


def slow_image(
    model: Any, images: Tensor, prompts: Sequence[Tensor], first: int = 0, share: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Features, and class token and prompts before the projection: every row of every layer, by transformers."""
    vision = model.vision_model
    x = vision.embeddings(images)
    tokens = x.shape[1]
    for index, layer in enumerate(vision.encoder.layers):
        if first <= index < first + len(prompts):
            new = prompts[index - first].expand(len(x), *prompts[index - first].shape[-2:])
            x = torch.cat([x[:, :tokens], new if index == first else share * new + (1 - share) * x[:, tokens:]], dim=1)
        x = layer(vision.pre_layrnorm(x) if index == 0 else x, None)
    rows = vision.post_layernorm(torch.cat([x[:, :1], x[:, tokens:]], dim=1))
    return model.visual_projection(rows[:, 0]), rows


def same(fast: Tensor, slow: Tensor, inputs: Sequence[Tensor]) -> None:
    """Equal features, and equal gradients of a random scalar of them."""
    torch.testing.assert_close(fast, slow, **EXACT)
    weights = torch.randn_like(slow)
    for ours, theirs in zip(
        torch.autograd.grad((fast * weights).sum(), inputs, allow_unused=True),
        torch.autograd.grad((slow * weights).sum(), inputs, allow_unused=True),
        strict=True,
    ):
        # What no feature depends on may come as None or as zeros.
        zeros = torch.zeros(())
        torch.testing.assert_close(
            ours if ours is not None else zeros.expand_as(theirs) if theirs is not None else zeros,
            theirs if theirs is not None else zeros.expand_as(ours) if ours is not None else zeros,
            rtol=1e-3,
            atol=1e-4,
        )


@st.composite
def text_calls(draw: st.DrawFn) -> dict[str, Any]:
    """Any legal call: groups, sharing, ragged ends, suffixes longer than their ends, prompts in any layers."""
    groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    length = draw(st.integers(1, 6))
    suffix = draw(st.integers(1, CONTEXT - length))
    texts = groups * per_group
    torch.manual_seed(draw(st.integers(0, 999)))
    ends = (groups, per_group) if draw(st.booleans()) else (per_group,)
    prompts: dict[int, Tensor] = {}
    split = False
    inserted, extra = draw(st.booleans()), 0
    for layer in range(1, LAYERS):
        first = inserted and not prompts
        if (first or length + extra > 1) and draw(st.booleans()):
            size = draw(st.integers(1, 4 if first else length + extra - 1))
            extra += size if first else 0
            kinds: list[tuple[int, ...]] = [()] if first else [(), (texts,)] + ([] if split else [(groups,), (1,)])
            kind = draw(st.sampled_from(kinds))
            split |= kind == (texts,)
            prompts[layer] = torch.randn(*kind, size, WIDTH)
    return {
        "prefix": torch.randn(groups, length, WIDTH),
        "suffix": torch.randn(draw(st.sampled_from([texts, per_group])), suffix, WIDTH),
        "eot": torch.randint(0, suffix, ends),
        "layer_prompts": prompts,
        "inserted": inserted,
        "share": draw(st.sampled_from([1.0, 0.7])),
    }


@settings(max_examples=60, deadline=None)
@given(call=text_calls(), chunk=st.sampled_from([None, 1, 2]), tuned=st.sampled_from(["prefix", "suffix", "both"]))
def test_text_is_transformers_own(clip: FrozenCLIP, call: dict[str, Any], chunk: int | None, tuned: str) -> None:
    inputs = [call[name] for name in ("prefix", "suffix") if tuned in (name, "both")] + list(
        call["layer_prompts"].values()
    )
    for tensor in inputs:
        tensor.requires_grad_()
    same(clip.encode_text(**call, chunk=chunk), slow_text(clip.model, **call), inputs)


@settings(max_examples=30, deadline=None)
@given(
    layers=st.tuples(st.integers(0, LAYERS), st.integers(0, LAYERS)).map(sorted),
    share=st.sampled_from([1.0, 0.7]),
    length=st.integers(1, 4),
    per_image=st.booleans(),
    batch=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_images_are_transformers_own(
    clip: FrozenCLIP, layers: list[int], share: float, length: int, per_image: bool, batch: int, seed: int
) -> None:
    torch.manual_seed(seed)
    images = torch.randn(batch, 3, 32, 32, requires_grad=True)
    shape = (batch, length, VISION_WIDTH) if per_image else (length, VISION_WIDTH)
    first, last = layers
    prompts = [torch.randn(shape, requires_grad=True) for _ in range(first, last)]
    inputs = [images, *prompts]
    _, rows = slow_image(clip.model, images, prompts, first, share)
    same(clip.encode_image_tokens(images, prompts, first=first, share=share), rows, inputs)
    if first == 0:
        same(clip.encode_image(images, prompts), slow_image(clip.model, images, prompts)[0], inputs)


def kept_bytes(run: Any) -> int:
    """What a forward keeps for its backward."""
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(seen.values())


def names(clip: FrozenCLIP, count: int) -> tuple[Tensor, Tensor, Tensor]:
    tokens = clip.tokenize([" ".join(["tiny", "red", "panda"][: 1 + number % 3]) for number in range(count)])
    context = torch.randn(1, 4, WIDTH, requires_grad=True)
    return (
        torch.cat([clip.embed(tokens.ids[:1, :1])[None, 0], context], 1),
        clip.embed(tokens.ids[:, 1:]),
        tokens.eot - 1,
    )


def test_chunks_and_checkpoints_keep_less(model: Any, clip: FrozenCLIP) -> None:
    prefix, suffix, eot = names(clip, 64)
    everything = kept_bytes(lambda: clip.encode_text(prefix, suffix, eot))
    assert kept_bytes(lambda: clip.encode_text(prefix, suffix, eot, chunk=8)) < everything / 4
    thrifty = FrozenCLIP(model, activation_checkpointing=True)
    assert kept_bytes(lambda: thrifty.encode_text(prefix, suffix, eot)) < everything / 4
    images, prompts = torch.randn(4, 3, 32, 32), [torch.randn(2, VISION_WIDTH, requires_grad=True)]
    everything = kept_bytes(lambda: clip.encode_image(images, prompts))
    assert kept_bytes(lambda: thrifty.encode_image(images, prompts)) < everything / 2
    same(thrifty.encode_image(images, prompts), clip.encode_image(images, prompts), prompts)


def test_large_passes_are_cut_by_themselves(clip: FrozenCLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix, suffix, eot = names(clip, 64)
    whole = clip.encode_text(prefix, suffix, eot)
    everything = kept_bytes(lambda: clip.encode_text(prefix, suffix, eot))
    monkeypatch.setattr("maotune.clip.towers.KEPT_BYTES", everything // 8)
    monkeypatch.setattr("maotune.clip.towers.CHUNK_BYTES", everything // 8)
    assert kept_bytes(lambda: clip.encode_text(prefix, suffix, eot)) < everything / 4
    torch.testing.assert_close(clip.encode_text(prefix, suffix, eot), whole, **EXACT)


def test_nothing_is_computed_after_the_longest_end_of_text(clip: FrozenCLIP) -> None:
    prefix, suffix, eot = names(clip, 6)
    longer = torch.cat([suffix, torch.full((6, 3, WIDTH), torch.nan)], dim=1)
    assert torch.equal(clip.encode_text(prefix, longer, eot), clip.encode_text(prefix, suffix, eot))


def test_weights_stay_frozen_and_nothing_is_kept_without_prompts(model: Any, clip: FrozenCLIP) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    prefix, suffix, eot = names(clip, 5)
    prompt = torch.randn(2, VISION_WIDTH, requires_grad=True)
    images = torch.randn(2, 3, 32, 32)
    (clip.encode_text(prefix, suffix, eot).sum() + clip.encode_image(images, [prompt]).sum()).backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not clip.encode_image(images).requires_grad
    assert not clip.encode_text(prefix.detach(), suffix, eot).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    from tests.clip.conftest import toy_model

    full, half = FrozenCLIP(toy_model()), FrozenCLIP(toy_model().to(dtype))
    prefix, suffix, eot = names(full, 5)
    images, prompt = torch.randn(3, 3, 32, 32), torch.randn(2, VISION_WIDTH, requires_grad=True)
    for run in (
        lambda clip: clip.encode_text(prefix, suffix, eot),
        lambda clip: clip.encode_image(images, [prompt]),
    ):
        exact, rough = run(full), run(half)
        assert rough.dtype == torch.float32
        assert torch.cosine_similarity(exact, rough).min() > 0.99
    rough.sum().backward()
    assert prompt.grad is not None
    assert prompt.grad.dtype == torch.float32
    assert prompt.grad.isfinite().all()


def test_shapes_that_do_not_fit(clip: FrozenCLIP) -> None:
    prefix, suffix, eot = names(clip, 4)
    with pytest.raises(ValueError, match=r"1 groups of 4 texts, the suffix must be \(4 or 4, S, 32\), not \(3, "):
        clip.encode_text(prefix, suffix[:3], eot)
    with pytest.raises(ValueError, match=r"end-of-text at position 24.*context has 20 positions"):
        clip.encode_text(prefix, torch.zeros(4, 20, WIDTH), torch.tensor([2, 3, 4, 19]))
    with pytest.raises(ValueError, match="layer_prompts are for layers 1 to 2, not"):
        clip.encode_text(prefix, suffix, eot, {3: torch.zeros(2, WIDTH)})
    with pytest.raises(ValueError, match=r"prompt of layer 1 is \(5, 32\)"):
        clip.encode_text(prefix, suffix, eot, {1: torch.zeros(5, WIDTH)})
    with pytest.raises(ValueError, match=r"images are \(1, 3, 64, 64\), of 64 patches; this tower takes 16"):
        clip.encode_image(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="the same n in at most 3 layers"):
        clip.encode_image(torch.zeros(1, 3, 32, 32), [torch.zeros(2, VISION_WIDTH), torch.zeros(3, VISION_WIDTH)])
