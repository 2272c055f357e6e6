"""Soft labels of an unlabelled pool from features and class texts: pure functions, ``LABELERS`` is the list of them.

Letters: X (N, d) image features and T (C, d) class texts, both of length 1, s the logit scale; p = softmax(s X T') are
the zero-shot probabilities; z (N, C) is what is returned, rows sum to 1. Nothing of size N x C x d or N x N is held.
TransCLIP (Zanella et al., NeurIPS 2024), StatA (Zanella et al., CVPR 2025), ZLaP (Stojnić et al., CVPR 2024), Sinkhorn
as in InMaP (Qian et al., NeurIPS 2023).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 25
"""Elements of a block of similarities that is held at a time."""
ROUNDS, SWEEPS = 10, 5
"""Updates of the Gaussians, and of z before each, in TransCLIP and StatA."""
TEMPERATURE = 50.0
"""Divides the log-densities in TransCLIP and StatA."""


class Shots(NamedTuple):
    """Labelled images beside the pool, which anchor TransCLIP's labels (its few-shot form)."""

    images: Tensor
    """(m, d) of length 1."""
    labels: Tensor
    """(m, C) rows that sum to 1."""
    strength: float = 0.2
    """All shots weigh 50 times this beside the whole pool. The authors choose among 0.002, 0.01, 0.02 and 0.2 by
    validation images."""


def foundation(images: Tensor, text: Tensor, scale: float, prior: Tensor | None = None) -> Tensor:
    """Return the zero-shot probabilities (the paper's labeler), or the ``prior`` (N, C) of another model."""
    return (scale * images @ text.T).softmax(dim=1) if prior is None else prior


def adjusted(
    images: Tensor, text: Tensor, scale: float, prior: Tensor | None = None, *, strength: float = 1.0
) -> Tensor:
    """Return p divided by its mean over the pool to the power ``strength``: all classes get an equal share, once."""
    p = foundation(images, text, scale, prior)
    weighed = p / p.mean(0).clamp(min=1e-12) ** strength
    return weighed / weighed.sum(1, keepdim=True)


def sinkhorn(
    images: Tensor,
    text: Tensor,
    scale: float,
    prior: Tensor | None = None,
    *,
    gamma: float | None = None,
    rounds: int = 20,
) -> Tensor:
    """Return p scaled in turn to the class marginal and to rows of 1, ``rounds`` times.

    The marginal is uniform, or with ``gamma`` proportional to (the mean of p over the pool) ** gamma. A uniform one is
    right only where the pool is balanced; where hidden labels balanced it, that is label information.
    """
    z = foundation(images, text, scale, prior) / len(images)
    marginal = z.new_full((len(text),), 1 / len(text)) if gamma is None else z.sum(0) ** gamma
    marginal = marginal / marginal.sum()
    for _ in range(rounds):
        z = z * (marginal / z.sum(0).clamp(min=1e-30))
        z = z / (z.sum(1, keepdim=True) * len(images))
    return z * len(images)


def transclip(
    images: Tensor,
    text: Tensor,
    scale: float,
    prior: Tensor | None = None,
    *,
    neighbours: int = 3,
    start: str = "images",
    shots: Shots | None = None,
) -> Tensor:
    """Return TransCLIP's labels: a Gaussian a class with one diagonal variance, a graph of images, and p as anchor.

    For a pool that covers the classes; on a ragged one it collapses. ``start``: means of the 8 ``images`` surest of
    each class, or the class ``text``. With ``shots`` it starts from their class means, they are further images of the
    graph and of the Gaussians, whose labels stay, and log p weighs half.
    """
    p = foundation(images, text, scale, prior)
    graph, z = _graph(images, neighbours), p
    anchor, squares = p.clamp(min=1e-30).log(), images.square().sum(0)
    shot_sums, shot_mass = torch.zeros_like(text), text.new_zeros(len(text))
    if shots is not None:
        weight = TEMPERATURE * shots.strength * len(images) / len(shots.images)
        shot_sums, shot_mass = weight * shots.labels.T @ shots.images, weight * shots.labels.sum(0)
        squares = squares + weight * shots.images.square().sum(0)
        anchor = anchor / 2 + _links(shots.images, images, neighbours).T @ shots.labels / (2 * neighbours)
        means = torch.where(shot_mass[:, None] > 0, F.normalize(shot_sums, dim=1), text)
    elif start == "images":
        surest = p.topk(min(8, len(p)), dim=0)  # (8, C)
        means = F.normalize((surest.values[..., None] * images[surest.indices]).mean(0), dim=1)
    else:
        means = text
    variance = images.new_full((1, images.shape[1]), 1 / images.shape[1])
    for round_ in range(ROUNDS + 1):
        z = _sweeps(z, anchor + _densities(images, means, variance), graph, neighbours)
        if round_ < ROUNDS:
            mass, sums = z.sum(0) + shot_mass, z.T @ images + shot_sums
            means = F.normalize(sums, dim=1)
            spread = squares - 2 * (means * sums).sum(0) + (mass[:, None] * means.square()).sum(0)
            variance = (spread / mass.sum()).clamp(min=1e-12)[None]
    return z


def stata(
    images: Tensor,
    text: Tensor,
    scale: float,
    prior: Tensor | None = None,
    *,
    neighbours: int = 3,
    anchor: float = 1.0,
    count: str = "hard",
) -> Tensor:
    """Return StatA's labels: as TransCLIP from the texts, with a variance a class, both held to the class text.

    beta_c = n_c / (n_c + ``anchor``); a class without images keeps its text, so that ragged pools do no harm.
    ``count``: n_c is the number of images whose likeliest class is c (``hard``), or the sum of z_ic (``soft``).
    """
    p = foundation(images, text, scale, prior)
    graph, z, anchors = _graph(images, neighbours), p, p.clamp(min=1e-30).log()
    mass, sums, squares = p.sum(0), p.T @ images, p.T @ images.square()
    start = ((squares - 2 * text * sums + mass[:, None] * text.square()).sum(0) / len(images)).clamp(min=1e-12)
    means, variance = text, start.expand_as(text)
    for round_ in range(ROUNDS + 1):
        z = _sweeps(z, anchors + _densities(images, means, variance), graph, neighbours)
        if round_ < ROUNDS:
            mass, sums, squares = z.sum(0), z.T @ images, z.T @ images.square()
            number = mass if count == "soft" else z.argmax(1).bincount(minlength=len(text)).to(z.dtype)
            beta = (number / (number + anchor))[:, None]
            means = F.normalize(beta * F.normalize(sums, dim=1) + (1 - beta) * text, dim=1)
            spread = (squares - 2 * means * sums) / mass.clamp(min=1e-12)[:, None] + means.square()
            variance = (beta * spread + (1 - beta) * (start + (text - means).square())).clamp(min=1e-12)
    return z


def zlap(
    images: Tensor,
    text: Tensor,
    scale: float,
    prior: Tensor | None = None,
    *,
    neighbours: int = 5,
    gamma: float = 5.0,
    alpha: float = 0.3,
) -> Tensor:
    """Return ZLaP's scores, at row sums of 1: class labels spread over a graph of texts and images."""
    scores = zlap_scores(images, text, neighbours=neighbours, gamma=gamma, alpha=alpha)
    return scores / scores.sum(1, keepdim=True).clamp(min=1e-30)


def zlap_scores(images: Tensor, text: Tensor, *, neighbours: int = 5, gamma: float = 5.0, alpha: float = 0.3) -> Tensor:
    """Return (N, C) scores: of (I - alpha D^-1/2 A D^-1/2)^-1 the rows of images, the columns of texts."""
    return _zlap_nodes(images, text, neighbours, gamma, alpha)[len(text) :]


def zlap_inductive(
    others: Tensor,
    images: Tensor,
    text: Tensor,
    *,
    neighbours: int = 5,
    gamma: float = 5.0,
    alpha: float = 0.3,
    sparse: bool = False,
) -> Tensor:
    """Return ZLaP's scores (M, C) of images ``others`` (M, d) that are not in the graph, over its nodes.

    ``sparse``: of each node only the score of its likeliest class counts.
    """
    nodes = _zlap_nodes(images, text, neighbours, gamma, alpha)
    if sparse:
        best = nodes.max(dim=1, keepdim=True)
        nodes = torch.zeros_like(nodes).scatter_(1, best.indices, best.values)
    scores: Tensor = _zlap_links(others, images, text, neighbours, gamma) @ nodes
    return scores


def class_means(images: Tensor, labels: Tensor, text: Tensor) -> Tensor:
    """Return (C, d) means of length 1 of a labelled pool, which classify others by cosine: any labeler, inductive.

    Images count by their labels (N, C); a class without any keeps its text.
    """
    sums = labels.T @ images
    return torch.where(labels.sum(0)[:, None] > 1e-6, F.normalize(sums, dim=1), text)


def _zlap_nodes(images: Tensor, text: Tensor, neighbours: int, gamma: float, alpha: float) -> Tensor:
    """Return (C + N, C) scores of all nodes, texts first, by conjugate gradients."""
    classes, nodes = len(text), len(text) + len(images)
    links = _zlap_links(images, images, text, neighbours, gamma)
    origin, target = links.indices()
    weights = torch.where(origin + classes == target, 0, links.values())  # no image is its own neighbour
    pairs = torch.stack([torch.cat([origin + classes, target]), torch.cat([target, origin + classes])])
    values = weights.repeat(2)
    root = torch.zeros(nodes, device=images.device, dtype=images.dtype).index_add_(0, pairs[0], values).clamp(min=1e-12)
    values = values / (root[pairs[0]] * root[pairs[1]]).sqrt()
    matrix = torch.sparse_coo_tensor(pairs, values, (nodes, nodes), check_invariants=True).coalesce()
    size = max(1, CHUNK // nodes)
    blocks = [torch.arange(start, min(start + size, classes)) for start in range(0, classes, size)]
    return torch.cat([_conjugate_gradients(matrix, alpha, block) for block in blocks], dim=1)


def _zlap_links(others: Tensor, images: Tensor, text: Tensor, neighbours: int, gamma: float) -> Tensor:
    """Return (M, C + N) sparse links of ``others`` to their nearest texts and images."""
    near, near_text = (_nearest(others, of, min(neighbours, len(of))) for of in (images, text))
    index = torch.cat([near_text[0], near[0] + len(text)], dim=1)
    value = torch.cat([near_text[1].clamp(min=0) ** gamma, near[1].clamp(min=0)], dim=1)
    return _sparse(index, value, len(text) + len(images))


def _conjugate_gradients(matrix: Tensor, alpha: float, classes: Tensor, tolerance: float = 1e-7) -> Tensor:
    """Solve (I - alpha S) V = the unit vectors of ``classes``; the matrix is positive definite."""
    right = torch.zeros(len(matrix), len(classes), dtype=matrix.dtype, device=matrix.device)
    right[classes, torch.arange(len(classes))] = 1
    solution, residual, direction = torch.zeros_like(right), right.clone(), right.clone()
    norm = residual.square().sum(0)
    for _ in range(100):
        image = direction - alpha * (matrix @ direction)
        step = norm / (direction * image).sum(0).clamp(min=1e-30)
        solution += step * direction
        residual -= step * image
        fresh = residual.square().sum(0)
        if float(fresh.max()) < tolerance**2:
            break
        direction = residual + fresh / norm.clamp(min=1e-30) * direction
        norm = fresh
    return solution


def _densities(images: Tensor, means: Tensor, variance: Tensor) -> Tensor:
    """Return (N, C) log-densities / TEMPERATURE of Gaussians, diagonal variances (1, d) or (C, d), but for a constant.

    The square is expanded; what is the same for all classes drops out.
    """
    weight = means / variance
    densities = images @ weight.T - 0.5 * (means * weight).sum(1)
    if len(variance) > 1:
        densities = densities - 0.5 * (images.square() @ (1 / variance).T + variance.log().sum(1))
    return densities / TEMPERATURE


def _sweeps(z: Tensor, fixed: Tensor, graph: Tensor, neighbours: int) -> Tensor:
    """Return z after some updates of all rows at once; ``graph`` (N, N) is sparse, W + W'; ``fixed`` (N, C) logits."""
    for _ in range(SWEEPS):
        z = (graph @ z).div_(2 * neighbours).add_(fixed).softmax(dim=1)
    return z


def _graph(images: Tensor, neighbours: int) -> Tensor:
    """Return W + W' (N, N), sparse; row i of W has the cosines of i with its nearest others."""
    links = _links(images, images, neighbours)  # the best is the image itself
    return (links + links.T).coalesce()


def _links(images: Tensor, pool: Tensor, neighbours: int) -> Tensor:
    """Return W (n, N), sparse; row i has the cosines of i with its nearest of ``pool`` but for the very nearest."""
    index, value = (part[:, 1:] for part in _nearest(images, pool, min(neighbours + 1, len(pool))))
    return _sparse(index, value, len(pool))


def _sparse(index: Tensor, value: Tensor, columns: int) -> Tensor:
    """Return the sparse matrix (n, columns) that has the values (n, k) at the places ``index`` of each row."""
    rows = torch.arange(len(index), device=index.device)[:, None].expand_as(index)
    places = torch.stack([rows.flatten(), index.flatten()])
    return torch.sparse_coo_tensor(places, value.flatten(), (len(index), columns), check_invariants=True).coalesce()


def _nearest(images: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the places (N, count) of the nearest of ``others``, nearest first, and their cosines."""
    size = max(1, CHUNK // len(others))
    tops = [(part @ others.T).topk(count, dim=1) for part in torch.split(images, size)]
    return torch.cat([top.indices for top in tops]), torch.cat([top.values for top in tops])


UNIFORM = ("adjusted", "sinkhorn")
"""Labelers that give all classes an equal share: a pool that hidden labels balanced tells them the truth."""

LABELERS: Mapping[str, Callable[..., Tensor]] = {
    "foundation": foundation,
    "adjusted": adjusted,
    "sinkhorn": sinkhorn,
    "transclip": transclip,
    "stata": stata,
    "zlap": zlap,
}
"""All labelers by name: ``(images, text, scale, prior=None, **settings) -> (N, C)``."""
