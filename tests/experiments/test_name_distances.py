"""How close the classes of a batch are by name, and that the batches are those that a run takes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from torch import Tensor

from maotune.contract import AbstractLearner, Batches
from maotune.data.batches import Draw, Sampler
from maotune.data.sets.dataset import Sample
from maotune.experiments.first_batches import draw_first_batches
from maotune.experiments.name_distances import NameDistances, mean_distance, measure_name_distances
from maotune.learners.coop import CoOp
from maotune.mao.methods import build_stages
from maotune.mao.name_encoder import find_encoder
from maotune.recipe import Recipe, load_recipe
from maotune.runs.build import build_clip, build_splits
from maotune.runs.fitting import mao_task
from maotune.runs.pipeline import Pipeline
from tests.toys import paint_photos, toy_clip

Drawn = list[list[Sample]]


def recipe(**more: Any) -> Recipe:
    return load_recipe(None, {"data.source": "icons-weather", "data.shots": 2, "epochs": 3, **more})


@pytest.fixture(scope="module")
def weather() -> NameDistances:
    return measure_name_distances(recipe())


@pytest.mark.parametrize("changed", [{}, {"mao.pool": "train", "mao.b": 3, "mao.fill": "short"}, {"data.views": 2}])
def test_the_draws_are_those_of_a_run(changed: dict[str, Any]) -> None:
    """What the stages of ``plain`` and ``mao`` ask for, once they begin."""
    given = recipe(seed=5, **changed)
    taken: dict[str, Drawn] = {}

    def record(
        samples: Sequence[Sample], labels: Tensor, sampler: Sampler, *, training: bool
    ) -> Callable[[AbstractLearner], Batches]:
        def first_epoch(batch: list[Draw]) -> list[Sample]:
            return [Sample(samples[image].image, int(labels[image])) for image, _ in batch]

        taken[name] = [first_epoch(batch) for batch in sampler.epoch(0)]
        return bench.make_batches(samples, labels, sampler, training=training)

    splits = build_splits(given).splits
    bench = Pipeline(toy_clip(), given, keep=False)
    of_run = replace(mao_task(given, bench, splits, lambda made: None), make_batches=record)
    for name, method in (("random", "plain"), ("hard", "mao")):
        stage = build_stages(method, of_run, given.mao)[0]
        if name == "hard":
            stage.batches(CoOp(toy_clip(), splits.classes, context_length=2))
    assert draw_first_batches(given).batches == taken


def test_the_mean_distance_is_that_of_all_pairs() -> None:
    rows = torch.nn.functional.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    slow = [1 - float(rows[i] @ rows[j]) for i in range(7) for j in range(i)]
    assert mean_distance(rows) == pytest.approx(sum(slow) / len(slow), abs=1e-6)
    assert mean_distance(rows[:1].repeat(3, 1)) == pytest.approx(0, abs=1e-6)


def test_hard_batches_are_closer_than_random_ones() -> None:
    found = measure_name_distances(load_recipe(None, {"data.source": "icons-animals", "data.shots": 2, "mao.b": 1}))
    assert (found.b, found.k, len(found.classes)) == (1, 8, 43)
    for embedding in found.embeddings:
        assert max(embedding.distances["hard"]) > 0
        assert fmean(embedding.distances["hard"]) < fmean(embedding.distances["random"]), embedding.model
    by_minilm = found.embeddings[0].distances
    assert fmean(by_minilm["hard"]) + pstdev(by_minilm["hard"]) < fmean(by_minilm["random"])
    assert len(found.shown["hard"]) == 8


def test_the_distances_can_be_recomputed_from_the_batches(weather: NameDistances) -> None:
    drawn = draw_first_batches(recipe())
    clip = build_clip(recipe().clip)
    spaced = [name.replace("_", " ") for name in drawn.classes]
    text = torch.nn.functional.normalize(clip.zeroshot_text(drawn.classes, drawn.templates).float(), dim=1)
    assert [embedding.model for embedding in weather.embeddings] == ["all-MiniLM-L6-v2", "the text tower of iconclip"]
    for embedding, names in zip(weather.embeddings, (find_encoder().encode(spaced), text), strict=True):
        for kind, batches in drawn.batches.items():
            within = [mean_distance(names[sorted({sample.label for sample in batch})]) for batch in batches]
            assert embedding.distances[kind] == pytest.approx(within, abs=1e-6)
            assert weather.shown[kind] == sorted({sample.label for sample in batches[0]})


def test_the_plane_keeps_what_two_components_can(weather: NameDistances) -> None:
    for embedding in weather.embeddings:
        plane = torch.tensor(embedding.coordinates)
        assert plane.shape == (len(weather.classes), 2)
        assert plane.mean(0).abs().max() < 1e-5
        first, second = plane.var(0)
        assert first > second
        assert float(first / second) == pytest.approx(embedding.explained[0] / embedding.explained[1], rel=1e-4)
        assert sum(embedding.explained) < 1


def test_it_is_written_as_json(weather: NameDistances, tmp_path: Path) -> None:
    document = weather.save(tmp_path / "new")
    assert document.name == "density-icons-weather-seed1.json"
    assert json.loads(document.read_text(encoding="utf-8")) == asdict(weather)


def test_own_images_have_batches_too(tmp_path: Path) -> None:
    own = load_recipe(None, {"data.source": str(paint_photos(tmp_path)), "data.shots": 2, "epochs": 2})
    assert len(measure_name_distances(own).classes) == 4


def test_a_batch_of_one_class_has_no_distance() -> None:
    with pytest.raises(ValueError, match="every batch holds one class only"):
        measure_name_distances(recipe(batch_size=1))
