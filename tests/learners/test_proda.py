"""ProDA, prompt by prompt."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from maotune.contract import Stage
from maotune.learners.proda import ProDA, variance
from maotune.train.history import StepDone
from maotune.train.loop import FitSettings, fit
from tests.learners.plainly import FLOWERS, batch, same_gradients, text_feature, words
from tests.learners.sizes import tuned, vit_b16
from tests.parity.harness import tiny_clip


def parts(clip, context, before, name):
    """The prompt of one class as a row of words and vectors."""
    if before == len(context):
        return [context, f"{name}."]
    return [context[:before], words(clip, name), context[before:], "."]


@pytest.fixture
def learner() -> ProDA:
    torch.manual_seed(4)
    learner = ProDA(tiny_clip(), FLOWERS, prompts=4, context_length=3, prompts_per_update=4)
    with torch.no_grad():
        learner.contexts.mul_(20)
    return learner


def all_prompts(learner):
    """(K, C, d) features of length 1."""
    kinds = [0, 1, 3, 3]  # a quarter each before and amid the context, half behind it
    rows = [
        torch.stack([text_feature(learner.clip, parts(learner.clip, context, before, name)) for name in FLOWERS])
        for context, before in zip(learner.contexts, kinds, strict=True)
    ]
    return F.normalize(torch.stack(rows), dim=-1)


def test_loss_term_by_term(learner):
    clip, images = learner.clip, batch(learner.clip, len(FLOWERS), size=4)
    terms = learner.losses(learner(images), images, F.cross_entropy)
    assert list(terms) == ["cross_entropy", "orthogonality"]

    features = all_prompts(learner)
    mean = features.mean(dim=0)
    upper = torch.zeros(())
    for feature, label in zip(images.features, images.labels, strict=True):
        z, scores = feature / feature.norm(), []
        for c in range(len(FLOWERS)):
            difference = features[:, c] - features[:, label]
            # The diagonal of the covariance of w_c - w_y, a d x d matrix.
            centred = difference - difference.mean(dim=0)
            covariance = (centred.T @ centred / (len(features) + 1)).diagonal().diag()
            scores.append(clip.logit_scale * z @ mean[c] + clip.logit_scale**2 / 2 * z @ covariance @ z)
        upper = upper - torch.stack(scores).log_softmax(0)[label] / len(images)

    alone = [F.normalize(text_feature(clip, [context, "."]), dim=0) for context in learner.contexts]
    pairs = [(a @ b).abs() for i, a in enumerate(alone) for j, b in enumerate(alone) if i != j]
    slow = upper + 0.1 * torch.stack(pairs).mean()
    same_gradients(learner, sum(terms.values()), slow)


def test_scores_are_of_the_mean_of_all_prompts_as_long_as_it_is(learner):
    images = batch(learner.clip, len(FLOWERS))
    with torch.no_grad():
        mean = all_prompts(learner).mean(dim=0)
        torch.testing.assert_close(learner.text_features(), mean, rtol=1e-4, atol=1e-5)
        expected = learner.clip.logit_scale * F.normalize(images.features, dim=-1) @ mean.T
        torch.testing.assert_close(learner.eval()(images).logits, expected, rtol=0, atol=1e-3)
    assert (mean.norm(dim=-1) < 0.99).all()


def touched(learner, images):
    """The contexts that get a gradient from a batch."""
    learner.zero_grad()
    learner(images).logits.sum().backward()
    return tuple(learner.contexts.grad.abs().sum(dim=(1, 2)).nonzero().flatten().tolist())


@pytest.mark.parametrize(("prompts", "updates"), [(8, 4), (9, 4)])
def test_updates_walk_permutations_of_the_contexts(prompts, updates):
    torch.manual_seed(1)
    learner = ProDA(tiny_clip(), FLOWERS, prompts=prompts, context_length=2, prompts_per_update=2)
    images = batch(learner.clip, len(FLOWERS))
    turns = [touched(learner, replace(images, position=position)) for position in range(3 * updates)]
    assert all(len(turn) == 2 for turn in turns)
    walks = [tuple(turns[start : start + updates]) for start in range(0, len(turns), updates)]
    for walk in walks:  # each context at most once; all of them where the updates divide them
        assert len({index for turn in walk for index in turn}) == 2 * updates
    assert len({*walks}) == 3, "each walk has a permutation of its own"
    assert turns == [touched(learner, replace(images, position=position)) for position in range(3 * updates)]
    torch.manual_seed(2)
    assert turns != [touched(learner, replace(images, position=position)) for position in range(3 * updates)]
    assert learner.eval()(images).prompts.shape[0] == prompts


class FewBatches:
    """Three batches an epoch."""

    def __len__(self):
        return 3

    def epoch(self, index, start=0):
        yield from (batch(tiny_clip(), len(FLOWERS), seed=10 * index + step) for step in range(start, 3))

    def support(self):
        raise ValueError("ProDA learns from batches alone")


def test_a_resumed_run_walks_on_to_the_same_bits(tmp_path):
    def run(folder, stop=None, resume=False):
        torch.manual_seed(3 if not resume else 4)  # a resumed run may start from anywhere
        learner = ProDA(tiny_clip(), FLOWERS, prompts=8, context_length=2, prompts_per_update=2)
        walked = []

        def on_event(event):
            if isinstance(event, StepDone):
                walked.append(event)
                if len(walked) == stop:
                    raise InterruptedError

        stage = Stage("plain", FLOWERS, lambda _: FewBatches(), F.cross_entropy, 3, lr=0.1)
        settings = FitSettings(warmup_epochs=0, checkpoint_seconds=0)
        return fit(learner, [stage], settings, folder=folder, resume=resume, on_event=on_event)["plain"].prompts

    whole = run(tmp_path / "whole")
    for stop in (2, 4, 5, 8):  # within a walk, at its end, within an epoch
        with pytest.raises(InterruptedError):
            run(tmp_path / str(stop), stop)
        assert torch.equal(run(tmp_path / str(stop), resume=True)["contexts"], whole["contexts"])


def test_the_margin_of_candidates_is_that_among_all(learner):
    images = batch(learner.clip, len(FLOWERS))
    only, labels = torch.unique(images.labels, return_inverse=True)
    prompts = learner(images).prompts
    among_all = variance(images.features, prompts, images.labels)
    assert 1 < len(only) < len(FLOWERS)
    assert (among_all >= -1e-6).all()
    torch.testing.assert_close(variance(images.features, prompts[:, only], labels), among_all[:, only])
    torch.testing.assert_close(among_all.gather(1, images.labels[:, None]), torch.zeros(len(images), 1))


def test_one_prompt_is_coop_with_the_name_at_the_end():
    learner = ProDA(tiny_clip(), FLOWERS, prompts=1, context_length=3, prompts_per_update=1)
    images = batch(learner.clip, len(FLOWERS))
    output = learner(images)
    terms = learner.losses(output, images, F.cross_entropy)
    assert terms["orthogonality"].item() == 0
    context = learner.contexts[0]
    texts = torch.stack([text_feature(learner.clip, [context, f"{name}."]) for name in FLOWERS])
    torch.testing.assert_close(output.text, F.normalize(texts, dim=-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(output.logits, images.labels))


def test_parameters_at_vit_b16():
    assert tuned(ProDA(vit_b16(), FLOWERS)) == 32 * 16 * 512


def test_more_prompts_an_update_than_there_are_is_refused():
    with pytest.raises(ValueError, match="prompts_per_update is 5"):
        ProDA(tiny_clip(), FLOWERS, prompts=4, prompts_per_update=5)
