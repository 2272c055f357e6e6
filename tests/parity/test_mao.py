"""MAO's sampler and loss against numbers recorded from its released code and from the paper's rule."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from maotune.mao.candidates import candidate_cross_entropy, per_image_cross_entropy
from maotune.mao.name_encoder import find_encoder
from maotune.mao.neighbours import hard_negatives
from maotune.mao.sampler import HardNegativeSampler
from tests.golden import GOLDEN

SAMPLER = json.loads((GOLDEN / "mao_sampler.json").read_text())
RUNS = SAMPLER.pop("released_sampler_runs")
BASE = json.loads((GOLDEN / "mao_base.json").read_text())


@pytest.fixture(scope="module")
def embeddings():
    return load_file(GOLDEN / "mao_sampler.safetensors")


@pytest.mark.parametrize("name", SAMPLER)
def test_embeddings_of_names(name, embeddings):
    names = SAMPLER[name]["classnames"]
    for key, texts in (("raw", names), ("space", [text.replace("_", " ") for text in names])):
        torch.testing.assert_close(find_encoder().encode(texts), embeddings[f"{name}.embed_{key}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SAMPLER)
@pytest.mark.parametrize(("underscores", "key"), [("both", "spaces_topk"), ("query-only", "released_topk")])
def test_hard_negative_lists(name, underscores, key):
    golden = SAMPLER[name]
    table = hard_negatives(golden["classnames"], golden["topk"], underscores=underscores)
    assert table.tolist() == golden[key], f"the closest two similarities differ by {golden['min_gap']:.1e}"


def released_sampler(run: str, **more) -> HardNegativeSampler:
    name, b, k = run.rsplit("_", 2)
    table = torch.tensor(SAMPLER[name]["released_topk"])
    labels = torch.arange(len(table)).repeat_interleave(16)
    return HardNegativeSampler(labels, table, b=int(b[1:]), k=int(k[1:]), views=1, seed=1, fill="short", **more)


@pytest.mark.parametrize("run", RUNS)
def test_short_batches_hold_the_released_classes_without_its_random_ones(run):
    """The released code gives each query at least two others, random ones where its list has no more; ours does not."""
    sampler, same = released_sampler(run), 0
    for queries, released in RUNS[run]["examples_labels_to_minibatch"]:
        ours = [*queries, *sampler.companions(np.array(queries)).tolist()]
        used, missing = set(queries), 0
        for query in queries:
            left = [c for c in sampler.table[query].tolist() if c not in used]
            used.update(left)
            missing += max(0, 2 - len(left))
        added = list(released)
        for c in ours:
            added.remove(c)
        assert len(added) <= missing
        same += not missing
    assert same or run.startswith("eurosat"), "K = 2 leaves no query two others"


@pytest.mark.parametrize("run", [run for run in RUNS if not run.startswith("eurosat")])
def test_short_batches_are_as_long_as_the_released(run):
    sampler, golden = released_sampler(run), RUNS[run]
    lengths = np.array([len(batch) for epoch in range(10) for batch in sampler.epoch(epoch)])
    assert golden["mean_H"] - 0.6 < lengths.mean() < golden["mean_H"] + 0.05, "a little less: no random classes"
    assert lengths.max() <= golden["bK"]


@pytest.mark.parametrize(
    ("loss", "key"), [(candidate_cross_entropy, "paper_ce"), (per_image_cross_entropy, "released_ce")]
)
def test_the_loss_where_a_class_occurs_twice(loss, key):
    golden = BASE["duplicate_labels"]
    logits = load_file(GOLDEN / "mao_base.safetensors")["duplicate.logits"]
    labels = torch.tensor(golden["labels"])
    assert loss(logits, labels).item() == pytest.approx(golden[key], abs=1e-4)
    candidates, positions = torch.unique(labels, return_inverse=True)
    assert candidates.tolist() == golden["unique"]
    assert loss(logits[:, candidates], positions).item() == pytest.approx(golden[key], abs=1e-4)
