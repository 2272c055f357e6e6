"""The tables and figures of the paper as lists of runs: what ``maotune run`` runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from maotune.mao.plan import ZEROSHOT
from maotune.recipe import Recipe, load_recipe


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One table or figure: a product of data sets, variants, learners, methods and seeds."""

    summary: str
    counterpart: str
    """What it is in the paper."""
    learners: tuple[str, ...]
    """Unless told otherwise, as are the methods."""
    methods: tuple[str, ...]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})
    """By name: settings of the recipe, with dotted keys, laid over all others."""


class Planned(NamedTuple):
    """One run of an experiment."""

    variant: str
    recipe: Recipe


EXPERIMENTS: dict[str, Experiment] = {
    "base-to-new": Experiment(
        summary="few shots of the base classes, unlabelled images of the new ones; both halves scored",
        counterpart="Table 1",
        learners=("coop", "maple", "promptsrc"),
        methods=(ZEROSHOT, "plain", "step-matched", "mao"),
    ),
}
"""By the name that ``maotune run`` knows."""


def plan_runs(
    experiment: Experiment,
    sources: Sequence[str],
    *,
    learners: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (1, 2, 3),
    settings: Mapping[str, Any] | None = None,
) -> list[Planned]:
    """The runs of an experiment: seeds one after the other, so that a whole table stands after the first.

    Zero-shot CLIP has nothing to draw or to learn: one run for each data set.

    Raises:
        RecipeError: a name or setting that does not exist.
    """

    def runs() -> Iterator[Planned]:
        for seed in seeds:
            for variant, changes in experiment.variants.items():
                for number, learner in enumerate(learners or experiment.learners):
                    for method in methods or experiment.methods:
                        first = seed == seeds[0] and number == 0 and changes == next(iter(experiment.variants.values()))
                        if method == ZEROSHOT and not first:
                            continue
                        for source in sources:
                            said = {**(settings or {}), "data.source": source, "learner.name": learner}
                            yield Planned(
                                variant, load_recipe(None, {**said, "method": method, "seed": seed, **changes})
                            )

    return list(runs())
