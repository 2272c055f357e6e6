"""The text and image towers of CLIP with prompts as arguments; only what the features depend on is computed.

Functions over the weights of transformers' ``CLIPModel``. Four savings, all exact:

- Attention in texts is causal, so positions after the end-of-text (EOT) cannot change the feature and are not computed;
  the rows of all texts are packed, so that short names need no padding.
- A prefix that texts share ([SOS, context] in CoOp) is computed once per layer; texts attend to its keys and values.
- The last layer computes only the row that is used (EOT, or the class token of an image), and keys and values.
- The weights are frozen: the backward pass needs one activation less per matrix product, and one in all for the MLP.

Letters: G groups of texts with one prefix each, N texts in a group, C = G N texts, P positions of the prefix, S of the
suffix, R packed rows, W width, h heads of width e.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

KEPT_BYTES = 1 << 30
"""Above this, a text pass is split into chunks, which are computed again in the backward pass."""
CHUNK_BYTES = 1 << 28
"""About the size of what is kept of a chunk."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise (..., W)."""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class LowRank:
    """Learnable updates of query, key and value of one layer: W + scale B A for each of the three (LoRA)."""

    a: Tensor
    """(3, r, W) float32"""
    b: Tensor
    """(3, W, r) float32"""
    scale: float
    dropout: float = 0.0
    """Share of the inputs of A that are set to zero."""

    def __call__(self, x: Tensor, first: int, last: int) -> Tensor:
        """Return (..., last - first, W) updates of query (0), key (1) and value (2), or a range of them."""
        inputs = [F.dropout(x, self.dropout) if self.dropout else x for _ in range(first, last)]
        pairs = zip(self.a[first:last].to(x.dtype), self.b[first:last].to(x.dtype), strict=True)
        parts = [F.linear(F.linear(part, a), b) for part, (a, b) in zip(inputs, pairs, strict=True)]
        return self.scale * torch.stack(parts, dim=-2)


@dataclass(frozen=True, slots=True)
class Layer:
    """The frozen weights of one transformer layer, with query, key and value in one matrix."""

    norm1: Norm
    qkv: tuple[Tensor, Tensor]
    """(3W, W) and (3W,)"""
    out: tuple[Tensor, Tensor]
    norm2: Norm
    fc1: tuple[Tensor, Tensor]
    fc2: tuple[Tensor, Tensor]
    heads: int
    quick: bool
    """Whether the activation is OpenAI's quick GELU instead of the exact one."""
    low_rank: LowRank | None = None
    """Added to query, key and value."""

    def project(self, x: Tensor, first: int = 0, last: int = 3) -> Tensor:
        """Return (..., last - first, h, e) for x (..., W): query (0), key (1) and value (2), or a range of them."""
        width = x.shape[-1]
        weight, bias = (part[first * width : last * width] for part in self.qkv)
        projected = F.linear(x, weight, bias).view(*x.shape[:-1], last - first, self.heads, width // self.heads)
        return projected if self.low_rank is None else projected + self.low_rank(x, first, last).view_as(projected)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Compute the rest of the layer, from the residual rows x (..., W) and their attention (..., W)."""
        # In place on a new product that nothing else holds: one pass over memory less, also under autograd.
        rows = F.linear(attended, *self.out).add_(x).flatten(0, -2)
        return self._mlp(self.norm2(rows)).add_(rows).view_as(x)

    def _mlp(self, rows: Tensor) -> Tensor:
        if self.quick:
            product: Tensor = _QuickGeluMLP.apply(rows, *self.fc1, *self.fc2)  # type: ignore[no-untyped-call]
            return product
        return F.linear(F.gelu(F.linear(rows, *self.fc1)), *self.fc2)


class _QuickGeluMLP(torch.autograd.Function):
    """``fc2(quick_gelu(fc1(x)))`` with frozen weights.

    quick_gelu(z) = z sigmoid(a z) = silu(a z) / a with a = 1.702. The matrix products apply both factors at no cost; in
    the backward pass, which needs a single saved activation, they cancel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        w1, b1, w2, b2 = weights
        hidden = torch.addmm(b1, x, w1.T, beta=1.702, alpha=1.702)
        kept = bool(ctx.needs_input_grad[0])
        if kept:
            ctx.save_for_backward(hidden, w1, w2)
        return torch.addmm(b2, F.silu(hidden, inplace=not kept), w2.T, alpha=1 / 1.702)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, w1, w2 = ctx.saved_tensors
        inner = torch.ops.aten.silu_backward(gradients[0] @ w2, hidden)
        return inner @ w1, None, None, None, None


@dataclass(frozen=True, slots=True)
class TextTower:
    """The frozen weights of the text tower."""

    positions: Tensor
    """(context length, W) float32"""
    layers: tuple[Layer, ...]
    norm: Norm
    projection: Tensor
    """(d, W)"""


@dataclass(frozen=True, slots=True)
class ImageTower:
    """The frozen weights of the image tower."""

    patches: nn.Module
    """(B, 3, h, w) -> (B, W, rows, columns): the patch convolution, or a stem in its place."""
    class_token: Tensor
    """(W,)"""
    positions: Tensor
    """(1 + patches, W)"""
    norm: Norm
    layers: tuple[Layer, ...]
    post_norm: Norm
    projection: Tensor
    """(d, W)"""


_Tower = TypeVar("_Tower", TextTower, ImageTower)


def build_text_tower(model: Any) -> TextTower:
    """Return the text tower of a transformers ``CLIPModel``, sharing its weights."""
    text = model.text_model
    return TextTower(
        positions=text.embeddings.position_embedding.weight.float(),
        layers=_layers(text),
        norm=_norm(text.final_layer_norm),
        projection=model.text_projection.weight,
    )


def build_image_tower(model: Any) -> ImageTower:
    """Return the image tower of a transformers ``CLIPModel``, sharing its weights."""
    vision = model.vision_model
    return ImageTower(
        patches=vision.embeddings.patch_embedding,
        class_token=vision.embeddings.class_embedding,
        positions=vision.embeddings.position_embedding.weight,
        norm=_norm(vision.pre_layrnorm),
        layers=_layers(vision),
        post_norm=_norm(vision.post_layernorm),
        projection=model.visual_projection.weight,
    )


def add_low_rank(tower: _Tower, updates: Sequence[LowRank]) -> _Tower:
    """Return the tower with an update of each layer; the weights are shared, and nothing is copied."""
    pairs = zip(tower.layers, updates, strict=True)
    return replace(tower, layers=tuple(replace(layer, low_rank=update) for layer, update in pairs))


def _layers(tower: Any) -> tuple[Layer, ...]:
    return tuple(
        Layer(
            norm1=_norm(layer.layer_norm1),
            qkv=_fuse(layer.self_attn),
            out=_linear(layer.self_attn.out_proj),
            norm2=_norm(layer.layer_norm2),
            fc1=_linear(layer.mlp.fc1),
            fc2=_linear(layer.mlp.fc2),
            heads=tower.config.num_attention_heads,
            quick=tower.config.hidden_act == "quick_gelu",
        )
        for layer in tower.encoder.layers
    )


def _fuse(attention: Any) -> tuple[Tensor, Tensor]:
    """Fuse query, key and value into one matrix; the weights of the three modules become views of it."""
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight = torch.cat([part.weight.detach() for part in parts])
    bias = torch.cat([part.bias.detach() for part in parts])
    for part, part_weight, part_bias in zip(parts, weight.chunk(3), bias.chunk(3), strict=True):
        part.weight = nn.Parameter(part_weight, requires_grad=False)
        part.bias = nn.Parameter(part_bias, requires_grad=False)
    return weight, bias


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.bias, module.eps)


def _linear(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias


# ---------------------------------------------------------------------------------------------------------------- text

PrefixKeysValues = tuple[Tensor, Tensor]
"""Keys and values of the prefixes in one layer: (G, h, P, e), or (C, h, P, e) where each text has its own."""


def text_pass(
    tower: TextTower,
    prefix: Tensor,
    suffix: Tensor,
    eot: Tensor,
    layer_prompts: Mapping[int, Tensor] | None = None,
    *,
    inserted: bool = False,
    share: float = 1.0,
    chunk: int | None = None,
    recompute: bool = False,
) -> Tensor:
    """Return features of C = G N texts, in G groups of N that share a prefix.

    Args:
        tower: the frozen weights.
        prefix: (G, P, W) embeddings, without positions, of positions 0..P-1.
        suffix: (C, S, W) embeddings of positions P..P+S-1, group by group; or (N, S, W), the same in every group.
        eot: (N,) int64 positions of the end-of-text in the suffix; or (G, N) where they differ between groups.
        layer_prompts: for layers j >= 1, prompts that replace positions 1..L of the prefix at the input: (L, W) for
            all, (G, L, W) per group, or (C, L, W) per text, which then has a prefix of its own from there on.
        inserted: whether the prompts of the first of these layers are inserted after position 0 instead; they have no
            position, and those of the next layers replace them.
        share: of the prompts in what stands where they replace; the rest is what was there.
        chunk: texts (groups, where G > 1) computed at a time, and again in the backward pass; by default all, unless
            that would keep too much memory for the backward pass.
        recompute: compute again in the backward pass even where memory suffices.

    Returns:
        (C, d), in the precision of the weights.

    Raises:
        ValueError: shapes do not fit together, or a text is longer than the context.
    """
    prompts = dict(layer_prompts or {})
    groups, length, width = prefix.shape
    per_group = eot.shape[-1]
    texts = groups * per_group
    if suffix.ndim != 3 or suffix.shape[-1] != width or len(suffix) not in (per_group, texts):
        raise ValueError(
            f"for {groups} groups of {per_group} texts, the suffix must be ({texts} or {per_group}, S, {width}), "
            f"not {tuple(suffix.shape)}"
        )
    ends = eot.expand(groups, per_group).flatten()
    longest = int(ends.max()) + 1
    if longest > suffix.shape[1] or length + longest > len(tower.positions):
        raise ValueError(
            f"end-of-text at position {length + longest - 1}, but there are {length} + {suffix.shape[1]} embeddings "
            f"and the context has {len(tower.positions)} positions"
        )
    if unknown := [layer for layer in prompts if not 1 <= layer < len(tower.layers)]:
        raise ValueError(f"layer_prompts are for layers 1 to {len(tower.layers) - 1}, not {unknown}")

    shared = _prefix_pass(tower, prefix, prompts, texts, min(prompts, default=None) if inserted else None, share)

    def encode(start: int, stop: int) -> Tensor:
        """Return features of the texts ``start`` to ``stop``."""
        prefixes = []
        for key, value in shared:
            rows = slice(None) if len(key) == 1 else slice(start * len(key) // texts, stop * len(key) // texts)
            prefixes.append((key[rows], value[rows]))
        suffixes = torch.arange(start, stop, device=suffix.device) % len(suffix)
        return _suffix_pass(tower, prefixes, suffix, suffixes, ends[start:stop])

    updates = [layer.low_rank for layer in tower.layers if layer.low_rank is not None]
    learned = (prefix, suffix, *prompts.values(), *(update.a for update in updates))
    tracked = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in learned)
    random = any(update.dropout for update in updates)
    unit = per_group if groups > 1 else 1
    if chunk is None:
        rows = int(ends.sum()) + texts
        elements = rows * (12 * width + 2 * tower.layers[0].heads * (length + longest))
        kept = elements * tower.projection.element_size() * (len(tower.layers) if tracked else 1)
        pieces = -(-kept // CHUNK_BYTES) if kept > (KEPT_BYTES if tracked else CHUNK_BYTES) else 1
        recompute = recompute or pieces > 1
        chunk = -(-texts // (unit * pieces))
    else:
        recompute = recompute or unit * chunk < texts
    step = unit * chunk
    parts = []
    for start in range(0, texts, step):
        stop = min(start + step, texts)
        if tracked and recompute:
            parts.append(checkpoint(encode, start, stop, use_reentrant=False, preserve_rng_state=random))
        else:
            parts.append(encode(start, stop))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _prefix_pass(
    tower: TextTower, prefix: Tensor, prompts: Mapping[int, Tensor], texts: int, inserted_at: int | None, share: float
) -> list[PrefixKeysValues]:
    """Return keys and values of the prefix in each layer."""
    dtype = tower.projection.dtype
    x = (prefix + tower.positions[: prefix.shape[1]]).to(dtype)  # (G, P, W)
    shared = []
    for number, layer in enumerate(tower.layers):
        if number == inserted_at:
            x = torch.cat([x[:, :1], prompts[number].to(dtype).expand(len(x), -1, -1), x[:, 1:]], dim=1)
        elif number in prompts:
            x = _replace(x, prompts[number].to(dtype), number, texts, share)
        last = number == len(tower.layers) - 1
        parts = layer.project(layer.norm1(x), 1 if last else 0).transpose(1, 3)  # (G, h, 2 or 3, P, e)
        key, value = parts[:, :, -2], parts[:, :, -1]
        shared.append((key, value))
        if not last:  # of the last layer, only keys and values of the prefix are needed
            attended = F.scaled_dot_product_attention(parts[:, :, 0], key, value, is_causal=True)
            x = layer.finish(x, attended.transpose(1, 2).flatten(2))
    return shared


def _replace(x: Tensor, prompt: Tensor, number: int, texts: int, share: float) -> Tensor:
    """Replace positions 1..L of the prefix states x (G, P, W); x becomes (C, P, W) where the prompt is per text."""
    groups, length, width = x.shape
    size = prompt.shape[-2]
    if prompt.shape[-1] != width or size >= length or (prompt.ndim == 3 and len(prompt) not in (1, groups, texts)):
        raise ValueError(
            f"the prompt of layer {number} is {tuple(prompt.shape)}: it replaces 1..L of a prefix of {length}, "
            f"so it must be (L, {width}), or that for each of {groups} groups or {texts} texts, with L < {length}"
        )
    if prompt.ndim == 2:
        prompt = prompt.expand(groups, size, width)
    elif len(prompt) > groups:
        x = x.repeat_interleave(len(prompt) // groups, dim=0)
    else:
        prompt = prompt.expand(groups, size, width)
    if share != 1:
        prompt = share * prompt + (1 - share) * x[:, 1 : 1 + size]
    return torch.cat([x[:, :1], prompt, x[:, 1 + size :]], dim=1)


def _suffix_pass(
    tower: TextTower, shared: Sequence[PrefixKeysValues], suffix: Tensor, which: Tensor, ends: Tensor
) -> Tensor:
    """Return (c, d) features of c texts with the suffixes ``which`` (c,) and end-of-text positions ``ends`` (c,)."""
    offset = shared[0][0].shape[2]
    texts, longest, width = len(ends), int(ends.max()) + 1, suffix.shape[-1]
    position = torch.arange(longest, device=suffix.device)
    # Rows of all texts, packed: row r is cell cells[r] of the (texts, longest) grid on which attention works.
    cells = (position <= ends[:, None]).flatten().nonzero().squeeze(1)
    within = cells % longest
    source = which[cells // longest] * suffix.shape[1] + within
    x = suffix.reshape(-1, width).index_select(0, source) + tower.positions.index_select(0, within + offset)
    x = x.to(tower.projection.dtype)  # (R, W)
    packed = len(cells) < texts * longest
    causal = position[:, None] < position
    for number, layer in enumerate(tower.layers[:-1]):
        query, key, value = _grid(layer.project(layer.norm1(x)), cells, texts, longest)
        attended = _attend(query, key, value, shared[number], causal).flatten(0, 1)
        x = layer.finish(x, attended.index_select(0, cells) if packed else attended)
    layer = tower.layers[-1]
    y = layer.norm1(x)
    last = (ends + 1).cumsum(0) - 1  # only the end-of-text rows are still needed
    key, value = _grid(layer.project(y, 1, 3), cells, texts, longest)
    query = layer.project(y.index_select(0, last), 0, 1)
    after = (position > ends[:, None])[:, None, None]
    attended = _attend(query, key, value, shared[-1], after)
    x = layer.finish(x.index_select(0, last), attended.squeeze(1))
    return F.linear(tower.norm(x), tower.projection)


def _grid(rows: Tensor, cells: Tensor, texts: int, longest: int) -> tuple[Tensor, ...]:
    """Lay out packed rows (R, k, h, e) as k tensors (texts, longest, h, e); empty cells are never used."""
    if len(cells) < texts * longest:
        rows = rows.new_zeros(texts * longest, *rows.shape[1:]).index_copy_(0, cells, rows)
    return rows.view(texts, longest, *rows.shape[1:]).unbind(2)


def _attend(query: Tensor, key: Tensor, value: Tensor, prefix: PrefixKeysValues, hidden: Tensor) -> Tensor:
    """Return the attention (c, q, h e) of queries (c, q, h, e) to their text (c, S, h, e) and prefix (g, h, P, e).

    The queries of a group meet its prefix in one product, so that its keys and values are not repeated for each text.
    ``hidden`` (..., q, S) masks positions of their own text.
    """
    prefix_key, prefix_value = prefix
    texts, queries, heads, each = query.shape
    groups, _, length, _ = prefix_key.shape
    query = query * each**-0.5
    to_text = (query.transpose(1, 2) @ key.permute(0, 2, 3, 1)).masked_fill_(hidden, -torch.inf)  # (c, h, q, S)
    together = query.reshape(groups, -1, heads, each).transpose(1, 2)  # (g, h, c/g q, e)
    to_prefix = (together @ prefix_key.transpose(-1, -2)).view(groups, heads, -1, queries, length)
    to_prefix = to_prefix.transpose(1, 2).reshape(texts, heads, queries, length)
    weights = torch.cat([to_prefix, to_text], dim=-1).softmax(-1, dtype=torch.float32).to(query.dtype)
    to_prefix, to_text = weights[..., :length], weights[..., length:]
    from_text = to_text @ value.transpose(1, 2)  # (c, h, q, e)
    to_prefix = to_prefix.view(groups, -1, heads, queries, length).transpose(1, 2).reshape(groups, heads, -1, length)
    from_prefix = (to_prefix @ prefix_value).view(groups, heads, -1, queries, each).transpose(1, 2)
    return (from_text + from_prefix.reshape(from_text.shape)).transpose(1, 2).flatten(2)


# --------------------------------------------------------------------------------------------------------------- image

ImageOutput = Literal["joint", "class", "tokens"]


def image_pass(
    tower: ImageTower,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    *,
    first: int = 0,
    share: float = 1.0,
    recompute: bool = False,
    output: ImageOutput = "joint",
) -> Tensor:
    """Return features of images (B, 3, h, w), with prompts in some layers.

    Args:
        tower: the frozen weights.
        images: normalised pixels, of the image size of the tower.
        prompts: for each of the layers from ``first`` on (n, W), or (B, n, W) per image. Those of the layer ``first``
            are appended to class token and patches, without a position (in layer 0 before the first norm); those of
            the next layers replace the last n tokens at their input.
        first: the first layer with prompts.
        share: of the prompts in what stands where they replace; the rest is what was there.
        recompute: keep only the input of each layer for the backward pass.
        output: what is returned.

    Returns:
        In the precision of the weights, the class token projected to the joint space (B, d), or before that (B, W)
        (``class``), or followed by the n prompts' tokens (B, 1 + n, W) (``tokens``).

    Raises:
        ValueError: images of another size, or prompts of another shape.
    """
    dtype, batch = tower.projection.dtype, len(images)
    x = tower.patches(images.to(dtype)).flatten(2).transpose(1, 2)
    tokens, width = tower.positions.shape
    if x.shape[1] != tokens - 1:
        raise ValueError(f"images are {tuple(images.shape)}, of {x.shape[1]} patches; this tower takes {tokens - 1}")
    if first + len(prompts) > len(tower.layers) or len({prompt.shape[-2:] for prompt in prompts} | {(0, width)}) > 2:
        raise ValueError(
            f"prompts must be (n, {width}) with the same n in at most {len(tower.layers) - first} layers, "
            f"not {[tuple(prompt.shape) for prompt in prompts]}"
        )
    expanded = {first + j: p.to(dtype).expand(batch, *p.shape[-2:]) for j, p in enumerate(prompts)}
    last, kept = len(tower.layers) - 1, 1
    x = torch.cat([tower.class_token.expand(batch, 1, width), x], dim=1) + tower.positions
    x = tower.norm(torch.cat([x, expanded.pop(0)], dim=1) if 0 in expanded else x)
    for number, layer in enumerate(tower.layers):
        if number in expanded:
            old = x[:, tokens:]
            new = expanded[number] if share == 1 or number == first else share * expanded[number] + (1 - share) * old
            x = torch.cat([x[:, :tokens], new], dim=1)
        if number == last and output == "tokens":
            kept, x = x.shape[1] - tokens + 1, torch.cat([x[:, :1], x[:, tokens:], x[:, 1:tokens]], dim=1)
        # Rows that the next layer replaces, and those that are not returned, need no query.
        replaced = share == 1 and number + 1 in expanded
        needed = kept if number == last else tokens if replaced else x.shape[1]
        if recompute and torch.is_grad_enabled() and x.requires_grad:
            random = layer.low_rank is not None and layer.low_rank.dropout > 0
            x = checkpoint(_image_layer, layer, x, needed, use_reentrant=False, preserve_rng_state=random)
        else:
            x = _image_layer(layer, x, needed)
    features = tower.post_norm(x if output == "tokens" else x[:, 0])
    return F.linear(features, tower.projection) if output == "joint" else features


def _image_layer(layer: Layer, x: Tensor, needed: int) -> Tensor:
    """Return the first ``needed`` rows (B, needed, W) of a layer; they attend to all T rows of x (B, T, W)."""
    y = layer.norm1(x)
    if needed == x.shape[1]:
        query, key, value = layer.project(y).transpose(1, 3).unbind(2)  # (B, h, T, e) each
    else:
        query = layer.project(y[:, :needed], 0, 1).transpose(1, 3).squeeze(2)
        key, value = layer.project(y, 1, 3).transpose(1, 3).unbind(2)
    attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    return layer.finish(x[:, :needed], attended)
