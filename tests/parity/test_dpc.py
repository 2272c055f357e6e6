"""DPC on CoOp against its official code: ranking, batches, loss, updates, and the mixture that predicts."""

import numpy as np
import pytest
import torch

from maotune.contract import Batch, Stage, name_mixture
from maotune.learners.coop import CoOp
from maotune.mao.candidates import symmetric_cross_entropy
from maotune.mao.pseudo_labels import predict_labels
from maotune.mao.sampler import RankedNegativeSampler
from maotune.runs.mixing import StagePrompts, with_prompts
from maotune.train.history import StepDone
from maotune.train.loop import FitSettings, fit
from tests.parity.harness import GoldenBatches, compare_scores, describe, read, tiny_clip

CASES = ["dpc_coop", "dpc_coop_own"]


def tuned(case: str) -> CoOp:
    """CoOp with the prompts P that it was tuned to."""
    learner = CoOp(tiny_clip(), describe(case)["classnames"], context_length=4)
    learner.load_state_dict({"context": read(case)["tuned.ctx"]})
    return learner


@pytest.mark.parametrize("case", CASES)
def test_the_tuned_learner_ranks_the_hard_negatives(case: str) -> None:
    recorded, values, learner = describe(case), read(case), tuned(case)
    compare_scores(learner, case, "tuned.logits")
    for step in range(5):
        images = values[f"batch{step}.query_images"]
        queries = Batch(torch.zeros(len(images), dtype=torch.int64), images)
        probabilities = predict_labels(learner, [queries], ["?"] * 4, probabilities=True).probabilities
        assert probabilities is not None
        assert probabilities.topk(recorded["K"], dim=1).indices.tolist() == recorded["topk_of_queries"][step]
        torch.testing.assert_close(probabilities, values[f"batch{step}.query_similarity"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_a_batch_holds_the_classes_of_the_official_one(case: str) -> None:
    """And, with the released filling up of queries with fewer than two, as many others as that one."""
    recorded = describe(case)
    for queries, ranked, official in zip(
        recorded["query_labels"], recorded["topk_of_queries"], recorded["minibatch_labels"], strict=True
    ):
        labels = torch.tensor([*queries, *range(20)])  # the queries, then an image of each class
        samplers = [
            RankedNegativeSampler(labels, 20, torch.tensor(ranked)[:, None], b=4, views=1, seed=1, at_least=at_least)
            for at_least in (0, 2)
        ]
        hard, filled = (sampler.companions(np.arange(4), 0, np.random.default_rng(1)).tolist() for sampler in samplers)
        others = [label for label in official if label not in queries]
        assert [label for label in others if label in hard] == hard
        assert len(filled) == len(others)
        assert set(hard) <= set(filled) <= set(range(20)) - set(queries)


@pytest.mark.parametrize(("case", "factor"), [("dpc_coop", 5.0), ("dpc_coop_own", 25.0)])
def test_five_updates(case: str, factor: float) -> None:
    """As released, the weight w = 1/5 multiplies the rate by 1/w; with P in its own memory, by 1/w^2."""
    recorded, values, learner = describe(case), read(case), tuned(case)
    share, (group,) = recorded["weight"], recorded["optimizer"]["groups"]
    compare_scores(learner, case, "logits_before")
    (batch,) = GoldenBatches(case, [[0]]).epoch(0)
    output = learner(batch)
    learner.losses(output, batch, symmetric_cross_entropy)["cross_entropy"].backward()
    official = values["grad0.prompt_learner.ctx"] * share
    torch.testing.assert_close(learner.context.grad, official, rtol=1e-4, atol=1e-5 * float(official.abs().max()))

    losses: list[float] = []
    stage = Stage(
        "parallel", learner.classes, lambda _: GoldenBatches(case, [range(5)]), symmetric_cross_entropy, 1,
        group["lr"] * factor, batch_candidates=True,
    )  # fmt: skip
    options = {"momentum": group["momentum"], "weight_decay": group["weight_decay"] * share}
    history = fit(
        learner,
        [stage],
        FitSettings("SGD", options, warmup_epochs=0),
        on_event=lambda event: losses.extend(event.losses.values()) if isinstance(event, StepDone) else None,
    )
    torch.testing.assert_close(losses, recorded["losses"], rtol=1e-4, atol=1e-4)
    parallel, plain = (history["parallel"].prompts or {})["context"], values["tuned.ctx"]
    after = values["after5.prompt_learner.ctx"]
    if case == "dpc_coop_own":  # which is the mixture
        after = (after - (1 - share) * plain) / share
    torch.testing.assert_close(parallel, after, rtol=0, atol=2e-5)
    compare_scores(learner, case, "logits_after")

    stages = {"plain": {"context": plain}, "parallel": {"context": parallel}}
    prompts = {name: StagePrompts(learner.classes, tensors) for name, tensors in stages.items()}
    for key, weight in (("base_mixed", share), ("new_w0.0", 0.0), ("new_w0.2", 0.2)):
        mixed = with_prompts(learner, name_mixture({"plain": 1 - weight, "parallel": weight}), prompts)
        compare_scores(mixed, case, f"logits_{'after_' if key == 'base_mixed' else ''}{key}")
