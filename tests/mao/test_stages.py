import dataclasses
import logging
import re
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from maotune.contract import AbstractLearner, Predictors
from maotune.data.batches import RandomSampler, SampleBatches, SequentialSampler
from maotune.data.draw import UnlabelledPool
from maotune.data.sets.dataset import Sample
from maotune.mao.candidates import candidate_cross_entropy, per_image_cross_entropy, symmetric_cross_entropy
from maotune.mao.labelers import Shots, transclip
from maotune.mao.methods import METHODS, ZEROSHOT, build_stages, check_learner, predictors_of
from maotune.mao.pseudo_labels import PseudoLabelStore, predict_labels
from maotune.mao.sampler import StretchedSampler
from maotune.mao.settings import MaoSettings
from maotune.mao.stages import Task, count_candidates
from maotune.train.history import StageStarted, StepDone
from maotune.train.loop import FitSettings, fit

BASE = tuple(f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("apple", "car", "bird", "house"))
NEW = ("black cat", "white dog", "grey horse")
VIEWS = 2


@dataclasses.dataclass(frozen=True)
class Square:
    """A picture of one colour."""

    name: str

    def read(self) -> Image.Image:
        return Image.new("RGB", (2, 2))

    def digest(self) -> str:
        return self.name


class Names(AbstractLearner):
    """Knows a class by a vector of its name, moved by a tuned one."""

    logit_scale = 20.0

    def __init__(self, classes: Sequence[str], turn: float = 0.0) -> None:
        super().__init__()
        self.turn = torch.nn.Parameter(torch.tensor(turn))
        self.bind(classes)

    def bind(self, classes):
        self.classes = tuple(classes)

    def image_features(self, batch):
        return batch.features

    def text_features(self, only=None, image=None):
        text = torch.stack([vector(name) for name in self.classes])
        return (text if only is None else text[only]).roll(round(float(self.turn)), 0)

    def losses(self, output, batch, classify):
        return {"cross_entropy": classify(output.logits, batch.labels)}


class Unsupervised(Names):
    """Learns from no label."""

    uses_labels = False


def vector(name: str) -> torch.Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(sum(map(ord, name))))


def samples(classes: Sequence[str], per_class: int, start: int = 0) -> list[Sample]:
    return [
        Sample(Square(f"{name}/{index}"), label)
        for label, name in enumerate(classes)
        for index in range(start, start + per_class)
    ]


def make_batches(samples, labels, sampler, *, training):
    """A picture has the features of the class in its name; its second training view has those of the next new class."""
    names = [sample.image.name.split("/")[0] for sample in samples]
    shown = torch.stack([vector(name) for name in names])
    if training and names[-1] in NEW:
        second = [vector(NEW[(NEW.index(name) + 1) % 3] if name in NEW else name) for name in names]
        features = torch.stack([shown, torch.stack(second)], dim=1)
    else:
        features = shown[:, None].expand(-1, VIEWS if training else 1, -1)
    return lambda learner: SampleBatches(samples, labels, sampler, features=features)


def task(**changes) -> Task:
    hidden = samples(NEW, 10)
    settings = {
        "classes": BASE,
        "shots": samples(BASE, 4),
        "new_classes": NEW,
        "unlabelled": UnlabelledPool(
            tuple(Sample(sample.image, -1) for sample in hidden), tuple(sample.label for sample in hidden), "balanced"
        ),
        "make_batches": make_batches,
        "foundation": lambda: Names(NEW),
        "epochs": 6,
        "batch_size": 8,
        "views": VIEWS,
        "train": samples(BASE, 9),
    }
    return Task(**settings | changes)


def run(method: str, settings: MaoSettings | None = None, learner: AbstractLearner | None = None, **changes):
    """The stages of a method and, of each, the batches of two epochs."""
    stages = build_stages(method, task(**changes), settings or MaoSettings())
    learner = learner or Names(BASE)
    batches = []
    for stage in stages:
        learner.bind(stage.classes)
        made = stage.batches(learner)
        batches.append([batch for epoch in (0, 1) for batch in made.epoch(epoch)])
        assert len(batches[-1]) == 2 * len(made)
    return stages, batches


@pytest.mark.parametrize(
    ("method", "legs"),
    {
        "plain": [("plain", 6, 0.002, F.cross_entropy)],
        "step-matched": [("plain", 6, 0.002, F.cross_entropy)],
        "mao": [("base", 3, 0.0035, candidate_cross_entropy), ("new", 3, 0.0035, F.cross_entropy)],
        "base-only": [("base", 3, 0.0035, candidate_cross_entropy)],
        "new-only": [("plain", 6, 0.002, F.cross_entropy), ("new", 3, 0.0035, F.cross_entropy)],
        "random-candidates": [("base", 3, 0.0035, candidate_cross_entropy), ("new", 3, 0.0035, F.cross_entropy)],
        "hard-full": [("base", 3, 0.0035, F.cross_entropy), ("new", 3, 0.0035, F.cross_entropy)],
        "new-full": [("base", 3, 0.0035, candidate_cross_entropy), ("new", 3, 0.0035, F.cross_entropy)],
        "true-labels": [("base", 3, 0.0035, candidate_cross_entropy), ("new", 3, 0.0035, F.cross_entropy)],
        "dpc": [("plain", 6, 0.002, F.cross_entropy), ("parallel", 6, 0.002, symmetric_cross_entropy)],
        "dpc-mao": [
            ("plain", 3, 0.002, F.cross_entropy),
            ("parallel", 3, 0.002, symmetric_cross_entropy),
            ("new", 3, 0.0035, F.cross_entropy),
        ],
    }.items(),
)
def test_the_stages_of_every_method(method, legs):
    stages, batches = run(method)
    assert [(stage.name, stage.epochs, stage.lr, stage.classify) for stage in stages] == legs
    for stage, drawn in zip(stages, batches, strict=True):
        both = (*NEW, *BASE) if method == "new-full" else NEW
        assert stage.classes == (both if stage.name == "new" else BASE)
        assert stage.batch_candidates == (stage.classify in (candidate_cross_entropy, symmetric_cross_entropy))
        assert all(0 <= int(batch.labels.min()) <= int(batch.labels.max()) < len(stage.classes) for batch in drawn)


def test_every_method_is_tested_and_explained():
    assert set(METHODS) == {
        "zeroshot", "plain", "step-matched", "mao",
        "base-only", "new-only", "random-candidates", "hard-full", "new-full", "true-labels", "distill",
        "dpc", "dpc-mao",
    }  # fmt: skip
    assert all(method.summary for method in METHODS.values())
    with pytest.raises(ValueError, match="unknown method 'maoo'; there are zeroshot, plain, mao"):
        build_stages("maoo", task(), MaoSettings())


@pytest.mark.parametrize("method", [method for method in METHODS if not method.startswith("dpc")])
def test_base_classes_are_predicted_by_the_first_stage_and_new_ones_by_the_last(method):
    learns_nothing = method in (ZEROSHOT, "distill")
    names = [method] if learns_nothing else [stage.name for stage in build_stages(method, task(), MaoSettings())]
    assert predictors_of(method, task(), MaoSettings()) == Predictors(names[0], names[-1])


@pytest.mark.parametrize("method", ["mao", "random-candidates", "hard-full"])
def test_the_base_stage_predicts_all_where_the_protocol_has_no_new_one(method):
    alone = task(new_stage=False, new_classes=(), unlabelled=None)
    assert [stage.name for stage in build_stages(method, alone, MaoSettings())] == ["base"]
    assert predictors_of(method, alone, MaoSettings()) == Predictors("base", "base")


def test_batches_of_the_base_stage():
    _, (hard, _) = run("mao")
    _, (random, _) = run("random-candidates")
    _, (plain,) = run("plain")
    assert {len(batch) for batch in hard} == {10}, "b = 2 and K = 5 for 12 classes"
    assert [len(batch.labels.unique()) for batch in hard] == [len(batch.labels.unique()) for batch in random]
    assert {len(batch) for batch in plain} == {8}
    assert [batch.names[0] for batch in hard] == [batch.names[0] for batch in random], "the same queries"
    assert [batch.names for batch in hard] != [batch.names for batch in random]
    assert len({name for batch in hard for name in batch.names}) == 48


def test_options_of_the_base_stage():
    stages, (short, _) = run("mao", MaoSettings(b=3, k=2, fill="short", candidates="per-image", lr=0.01))
    assert {stage.lr for stage in stages} == {0.01}
    assert stages[0].classify is per_image_cross_entropy
    assert len(short) == 2 * 16
    assert {len(batch) for batch in short} <= set(range(3, 7))
    _, (wide, _) = run("mao", MaoSettings(pool="train"))
    used = {name for batch in wide for name in batch.names}
    assert len(used) > 48
    assert all(int(batch.names[0][-1]) < 4 for batch in wide), "queries are the shots"


@pytest.mark.parametrize("fill", ["repeat", "distinct", "short"])
def test_it_warns_where_a_batch_holds_more_than_half_of_the_classes_and_names_the_largest_that_does_not(fill, caplog):
    def count(b: int, k: int) -> float:
        return count_candidates(BASE, samples(BASE, 4), MaoSettings(b=b, k=k, fill=fill))

    with caplog.at_level(logging.WARNING):
        assert count(3, 6) > 6
    (warning,) = caplog.messages
    b, k = map(int, re.findall(r"with mao\.b=(\d) mao\.k=(\d)", warning)[0])
    caplog.clear()
    assert count(b, k) <= 6
    assert not caplog.records
    larger = [(p, q) for p in range(1, 4) for q in range(2, 7) if p * q > b * k]
    assert min(count(*pair) for pair in larger) > 6
    caplog.clear()
    assert count_candidates(BASE[:3], samples(BASE[:3], 4), MaoSettings(b=2, k=2, fill=fill)) > 1.5
    assert "no smaller b and K avoid this; the method hard-full" in caplog.text


def test_the_step_matched_control_has_as_many_updates_as_mao():
    mao = run("mao")
    (control,), _ = run("step-matched")
    updates = sum(stage.epochs * len(stage.batches(Names(stage.classes))) for stage in mao[0])
    assert updates == 3 * 24 + 3 * 3
    per_epoch = len(control.batches(Names(BASE)))
    assert updates <= control.epochs * per_epoch < updates + control.epochs


def test_a_stretched_sampler_goes_on_where_it_was():
    inner = RandomSampler(12, 4, 5, seed=3)
    longer = StretchedSampler(inner, 7)
    assert len(longer) == 7
    assert [batch for epoch in range(3) for batch in longer.epoch(epoch)] == [
        batch for epoch in range(7) for batch in inner.epoch(epoch)
    ]


def truth(batch) -> list[int]:
    return [NEW.index(name.split("/")[0]) for name in batch.names]


def test_the_new_stage_learns_the_labels_of_the_foundation_and_reports_them():
    store = PseudoLabelStore()
    _, (_, new) = run("mao", pseudo_labels=store)
    assert all(batch.labels.tolist() == truth(batch) for batch in new), "the foundation is right here"
    report = store.labels.report(task().unlabelled.true_labels)
    assert (report["accuracy"], report["balance"]) == pytest.approx((1, 1))
    assert report["images"] == 30


def test_the_labels_of_the_tuned_prompts_are_those_of_the_learner_as_the_base_stage_left_it():
    learner = Names(BASE, turn=1.0)
    _, (_, new) = run("mao", MaoSettings(labeler="tuned"), learner)
    assert all(batch.labels.tolist() == [(label + 1) % 3 for label in truth(batch)] for batch in new)
    _, (_, new) = run("mao", learner=learner)
    assert all(batch.labels.tolist() == truth(batch) for batch in new), "the foundation's do not depend on it"


def test_labels_for_each_view():
    store = PseudoLabelStore()
    _, (_, new) = run("mao", MaoSettings(label_views="each"), pseudo_labels=store)
    first, second = new[:3], new[3:]
    assert all(batch.labels.tolist() == truth(batch) for batch in first)
    assert all(batch.labels.tolist() == [(label + 1) % 3 for label in truth(batch)] for batch in second)
    assert store.labels.report(task().unlabelled.true_labels)["accuracy"] == 0.5


class PulledPlug(Exception):
    """The machine goes down."""


class Tunable(Names):
    """All text features are moved by the same tuned vector; may refuse to label anything."""

    def __init__(self, classes, may_label=True):
        super().__init__(classes)
        self.may_label = may_label
        self.shift = torch.nn.Parameter(torch.zeros(32))

    def text_features(self, only=None, image=None):
        text = torch.stack([vector(name) for name in self.classes]) + self.shift
        return text if only is None else text[only]

    def image_features(self, batch):
        assert self.training or self.may_label, "asked for pseudo-labels again"
        return super().image_features(batch)


@pytest.mark.parametrize("labeler", ["foundation", "tuned"])
@pytest.mark.parametrize("label_views", ["test", "each"])
def test_a_run_resumed_in_the_new_stage_labels_no_image_again(tmp_path, labeler, label_views):
    settings = MaoSettings(labeler=labeler, label_views=label_views)

    def tune(folder, learner, resume=False, on_event=lambda event: None, **changes):
        store = PseudoLabelStore(folder / "labels.json")
        stages = build_stages("mao", task(pseudo_labels=store, **changes), settings)
        return fit(learner, stages, FitSettings(), folder=folder, resume=resume, on_event=on_event)

    def pull_the_plug(event):
        if isinstance(event, StepDone) and (event.stage, event.epoch, event.step) == ("new", 1, 2):
            raise PulledPlug

    def unavailable():
        pytest.fail("zero-shot CLIP is built again")

    whole = tune(tmp_path / "whole", Tunable(BASE))
    with pytest.raises(PulledPlug):
        tune(tmp_path / "killed", Tunable(BASE), on_event=pull_the_plug)
    labels = (tmp_path / "killed" / "labels.json").read_bytes()
    resumed = tune(tmp_path / "killed", Tunable(BASE, may_label=False), resume=True, foundation=unavailable)
    assert (tmp_path / "killed" / "labels.json").read_bytes() == labels
    assert [epoch.losses for epoch in resumed["new"].epochs] == [epoch.losses for epoch in whole["new"].epochs]
    assert torch.equal(resumed["new"].prompts["shift"], whole["new"].prompts["shift"])
    assert whole["new"].prompts["shift"].any()


def test_only_the_most_confident_images_of_each_class():
    _, (_, new) = run("mao", MaoSettings(top_per_class=4))
    used = [name for batch in new[: len(new) // 2] for name in batch.names]
    assert len(used) == len(set(used)) == 8, "of 12, in full batches of 8"
    assert len(run("step-matched", MaoSettings(top_per_class=4))[1][0]) == 2 * 13, "(3 x 24 + 3 x 1) / 6"


def test_soft_labels_and_candidate_sets_reach_the_loss():
    store = PseudoLabelStore()
    _, (_, new) = run("mao", MaoSettings(labels="soft"), pseudo_labels=store)
    assert {batch.labels.shape for batch in new} == {(8, 3)}
    names = [sample.image.name for sample in samples(NEW, 10)]
    for batch in new:
        assert torch.equal(batch.labels, store.labels.probabilities[[names.index(name) for name in batch.names]])
    stages, (_, full) = run("new-full", MaoSettings(labels="soft"))
    assert {batch.labels.shape for batch in full} == {(8, 15)}, "base classes are none of theirs"
    assert not any(batch.labels[:, 3:].any() for batch in full)
    stages, (_, sets) = run("mao", MaoSettings(labels="candidates", loss="mae"))
    logits = torch.randn(8, 3)
    inside = (logits.softmax(1) * (sets[0].labels > 0)).sum(1)
    torch.testing.assert_close(stages[1].classify(logits, sets[0].labels), (1 - inside).mean())


def test_growing_lists_are_labelled_by_the_prompts_of_the_round_before_and_start_afresh():
    settings = MaoSettings(keep="growing", rounds=3, lr=0.1)
    learner, store, seen = Tunable(BASE), PseudoLabelStore(), {}
    stages = build_stages("mao", task(pseudo_labels=store, batch_size=4), settings)
    assert [(stage.name, stage.starts_from) for stage in stages] == [
        ("base", None), ("new-1", None), ("new-2", "base"), ("new", "base"),
    ]  # fmt: skip
    assert [stage.updates for stage in stages[1:]] == [2, 4, 7]

    def watch(event):
        if isinstance(event, StageStarted):
            seen[event.stage] = learner.shift.detach().clone(), store.labels

    history = fit(learner, stages, FitSettings(warmup_epochs=0), on_event=watch)
    for name in ("new-1", "new-2", "new"):
        assert torch.equal(seen[name][0], history["base"].prompts["shift"])
    assert torch.equal(seen["new-1"][1].probabilities, run_labels(Names(NEW)))
    for name, before in (("new-2", "new-1"), ("new", "new-2")):
        teacher = Tunable(NEW)
        teacher.shift.data = history[before].prompts["shift"]
        torch.testing.assert_close(seen[name][1].probabilities, run_labels(teacher))
    assert [history[name].images for name in ("new-1", "new-2", "new")] == [3 * 4 * updates for updates in (2, 4, 7)]
    assert len(run("step-matched", settings, batch_size=4)[1][0]) == 2 * 19, "(3 x 24 + 3 x 13) / 6"


def test_labelled_images_of_the_pools_classes_anchor_transclip():
    store, classes = PseudoLabelStore(), NEW[::-1]
    wrong = [Sample(sample.image, (sample.label + 1) % 3) for sample in samples(classes, 4)]
    settings = MaoSettings(labeler="transclip", labels="soft")
    run("mao", settings, pseudo_labels=store, classes=classes, shots=wrong)
    text = F.normalize(torch.stack([vector(name) for name in NEW]), dim=1)
    shown, known = text.repeat_interleave(10, 0), text.flip(0).repeat_interleave(4, 0)
    rows = torch.eye(3)[[NEW.index(classes[sample.label]) for sample in wrong]]
    expected = transclip(shown, text, Names.logit_scale, shots=Shots(known, rows))
    torch.testing.assert_close(store.labels.probabilities, expected)
    assert not torch.allclose(expected, transclip(shown, text, Names.logit_scale), atol=1e-3)


def run_labels(learner):
    """Probabilities of the pool by a learner bound to the new classes."""
    pool = task().unlabelled.samples
    shown = make_batches(pool, torch.zeros(30, dtype=torch.int64), SequentialSampler(30, 8), training=False)
    names = [sample.image.name for sample in pool]
    return predict_labels(learner, shown(learner).epoch(0), names, probabilities=True).probabilities


def test_the_ablation_of_the_new_stage_differs_in_its_candidates_alone():
    _, (_, new) = run("mao")
    stages, (_, full) = run("new-full")
    assert [batch.names for batch in full] == [batch.names for batch in new]
    for batch in full:
        assert [stages[1].classes[label] for label in batch.labels] == [name.split("/")[0] for name in batch.names]
    shared = tuple(samples(NEW, 3)), (0,) * 9
    (_, one), _ = run("new-full", new_classes=(*NEW, *BASE), unlabelled=UnlabelledPool(*shared, "natural"))
    assert one.classes == (*NEW, *BASE), "no class is its own rival, where base classes are among the new ones"


def test_distillation_shows_all_images_once_an_epoch_and_no_label():
    (stage,), (drawn,) = run("distill", learner=Unsupervised(BASE), batch_size=6)
    assert (stage.name, stage.epochs, stage.lr, stage.classes) == ("distill", 6, 0.002, (*BASE, *NEW))
    assert not stage.batch_candidates
    first = [name for batch in drawn[: len(drawn) // 2] for name in batch.names]
    assert sorted(first) == sorted(sample.image.name for sample in [*samples(BASE, 4), *samples(NEW, 10)])
    assert {int(label) for batch in drawn for label in batch.labels} == {0}, "hidden"
    (alone,), (few,) = run("distill", learner=Unsupervised(BASE), unlabelled=None, new_classes=(), new_stage=False)
    assert alone.classes == BASE
    assert len({name for batch in few for name in batch.names}) == 48
    with pytest.raises(ValueError, match="Names learns from labels"):
        check_learner("distill", Names(BASE))
    check_learner("distill", Unsupervised(BASE))


def test_where_the_protocol_has_no_new_stage_mao_is_its_base_stage():
    bare = {"new_classes": (), "unlabelled": None, "new_stage": False}
    for method in ("mao", "random-candidates", "hard-full"):
        (stage,), _ = run(method, **bare)
        assert (stage.name, stage.epochs, stage.lr) == ("base", 6, 0.0035)
    (control,), _ = run("step-matched", **bare)
    assert len(control.batches(Names(BASE))) == 24, "as many updates as the base stage"
    for method in ("new-only", "new-full", "true-labels"):
        with pytest.raises(ValueError, match="tunes on all classes"):
            run(method, **bare)


def test_true_labels_leave_out_what_belongs_to_no_class():
    pool = UnlabelledPool(tuple(samples(NEW, 10)), (2,) * 20 + (-1,) * 10, "natural+off-class")
    _, (_, new) = run("true-labels", unlabelled=pool)
    assert {label for batch in new for label in batch.labels.tolist()} == {2}
    assert not any(name.startswith("grey") for batch in new for name in batch.names)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("mao", {"unlabelled": None}, "unlabelled images"),
        ("mao", {"new_classes": ()}, "0 classes"),
        ("new-only", {"unlabelled": UnlabelledPool((), (), "natural")}, "0 images"),
        ("mao", {"epochs": 1}, "1 epoch cannot be split"),
        (
            "true-labels",
            {"unlabelled": UnlabelledPool(tuple(samples(NEW, 1)), (-1, -1, -1), "natural")},
            "none is known",
        ),
    ],
)
def test_what_a_method_needs_is_asked_for_before_anything_is_computed(method, changes, message):
    with pytest.raises(ValueError, match=message):
        build_stages(method, task(**changes), MaoSettings())


def test_without_new_classes_the_base_stage_has_all_epochs():
    (stage,) = build_stages("base-only", task(new_classes=(), unlabelled=None), MaoSettings())
    assert stage.epochs == 6
    base, new = build_stages("mao", task(epochs=5), MaoSettings())
    assert (base.epochs, new.epochs) == (3, 2)
