"""The tables and figures of the paper as lists of runs: what ``maotune run`` runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple

from maotune.experiments.example_batches import collect_example_batches
from maotune.experiments.first_batches import BatchFigure
from maotune.experiments.name_distances import measure_name_distances
from maotune.mao.labelers import LABELERS
from maotune.mao.methods import ZEROSHOT
from maotune.protocols import PROTOCOLS
from maotune.recipe import Recipe, load_recipe


class Multiple(NamedTuple):
    """Value of a setting in a variant: a multiple of the recipe's own."""

    factor: int


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a table: every learner with every method in every variant."""

    learners: tuple[str, ...]
    methods: tuple[str, ...]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})
    """Name -> settings of the recipe with dotted keys, which override all others."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One table or figure: its rows on every data set, with every seed."""

    summary: str
    counterpart: str
    """Its counterpart in the paper."""
    rows: tuple[Rows, ...]
    protocol: str = "base-to-new"
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Suite -> the data sets of the experiment, where these are not the whole suite."""
    inference: bool = False
    """Whether the inference speed of the tuned prompts is measured as well."""
    make_figure: Callable[[Recipe], BatchFigure] | None = None
    """Makes the figure of a recipe, where nothing is tuned."""

    def sets(self, suite: str, otherwise: Sequence[str]) -> Sequence[str]:
        """Return the data sets of the experiment in ``suite``; ``otherwise`` if it names none."""
        return self.sources.get(suite, otherwise)


class PlannedRun(NamedTuple):
    """One run of an experiment."""

    variant: str
    recipe: Recipe


BACKBONES = ("coop", "maple", "promptsrc")
"""The three learners that the paper applies MAO to."""
NAMES_ALONE = {"learner.descriptions": None, "learner.templates": ["a photo of a {}."]}
"""HiCroPL without sentences about the classes."""

EXPERIMENTS: dict[str, Experiment] = {
    "base-to-new": Experiment(
        summary="few shots of the base classes, unlabelled images of the new ones; both halves scored",
        counterpart="Table 1",
        rows=(Rows(learners=BACKBONES, methods=(ZEROSHOT, "plain", "step-matched", "mao")),),
    ),
    "cross-dataset": Experiment(
        summary="tuned on all classes of one data set, scored on the others of its suite; MAO is its base stage",
        counterpart="Table 2",
        protocol="cross-dataset",
        sources={"icons-11": ("icons-generic",), "coop-11": ("imagenet",)},
        rows=(Rows(learners=BACKBONES, methods=(ZEROSHOT, "plain", "step-matched", "mao")),),
    ),
    "few-shot": Experiment(
        summary="1, 2, 4, 8 and 16 images of every class, all classes scored; MAO is its base stage",
        counterpart="the curves of CoOp's paper",
        protocol="few-shot",
        rows=(
            Rows(
                learners=BACKBONES,
                methods=(ZEROSHOT, "plain", "mao"),
                variants={f"shots={shots}": {"data.shots": shots} for shots in (1, 2, 4, 8, 16)},
            ),
        ),
    ),
    "plug-in": Experiment(
        summary="each learner bare, in DePT, with MAO, and with both",
        counterpart="Figure 3",
        rows=(
            Rows(learners=BACKBONES, methods=("plain", "mao"), variants={"": {}, "dept": {"dept": {}}}),
            Rows(learners=BACKBONES, methods=("step-matched",)),
        ),
    ),
    "cost": Experiment(
        summary="parameters, memory, time, updates and images of tuning; images per second of the tuned prompts",
        counterpart="Table 3",
        sources={"icons-11": ("icons-places",), "coop-11": ("flowers102",)},
        inference=True,
        rows=(
            # 16 tokens, not the 4 of the other tables: 8,192 parameters, which is what Table 3 has.
            Rows(
                learners=("coop",),
                methods=("plain", "step-matched", "mao"),
                variants={"16 tokens": {"learner.context_length": 16, "learner.initial_words": None}},
            ),
            Rows(learners=("maple", "coprompt"), methods=("plain",)),
        ),
    ),
    "ablations": Experiment(
        summary="MAO without one stage, without the candidates of one, and plain tuning twice as long",
        counterpart="Tables 4 and 8",
        rows=(
            Rows(
                learners=("promptsrc",),
                methods=("plain", "step-matched", "base-only", "new-only", "new-full", "mao"),
            ),
            Rows(learners=("coop",), methods=("plain", "step-matched", "base-only", "mao")),
            Rows(learners=("coop",), methods=("plain",), variants={"2x epochs": {"epochs": Multiple(2)}}),
        ),
    ),
    "pseudo-labelers": Experiment(
        summary="pseudo-labels by zero-shot CLIP, or by the prompts of the base stage",
        counterpart="Table 5",
        rows=(
            Rows(learners=("promptsrc",), methods=("plain", "step-matched")),
            Rows(
                learners=("promptsrc",),
                methods=("mao",),
                variants={name: {"mao.labeler": name} for name in ("foundation", "tuned")},
            ),
        ),
    ),
    "labelers": Experiment(
        summary="labelers of the new stage, alone and with MAO on a learner of seconds; balanced and natural pools",
        counterpart="beyond the paper",
        rows=(
            Rows(learners=("taskres",), methods=("plain",)),
            Rows(
                learners=("taskres",),
                methods=("mao",),
                variants={
                    f"{labeler}, {pool}": {"mao.labeler": labeler, "mao.unlabelled": pool}
                    for labeler in LABELERS
                    for pool in ("balanced", "natural")
                },
            ),
        ),
    ),
    "sensitivity": Experiment(
        summary="K, the classes a query of the base stage; S, the unlabelled images a class of the new stage",
        counterpart="Figure 4",
        rows=(
            Rows(learners=("coop",), methods=("plain", "step-matched")),
            Rows(learners=("coop",), methods=("base-only",), variants={f"K={k}": {"mao.k": k} for k in (2, 4, 8, 16)}),
            Rows(
                learners=("coop",),
                methods=("mao",),
                variants={f"S={s}": {"data.unlabelled_shots": s} for s in (1, 2, 4, 8, 16, 32)},
            ),
        ),
    ),
    "views": Experiment(
        summary="1, 2, 4, 8 or 20 augmented views of an image in the feature bank; more views cost time in a first run",
        counterpart="the default of data.views",
        rows=(
            Rows(
                learners=("coop",),
                methods=("plain", "step-matched", "mao"),
                variants={f"views={views}": {"data.views": views} for views in (1, 2, 4, 8, 20)},
            ),
        ),
    ),
    "baselines": Experiment(
        summary="more learners as published, beside PromptSRC with MAO",
        counterpart="Table 7",
        rows=(
            Rows(learners=("cocoop", "proda", "kgcoop", "tcp", "promptsrc"), methods=("plain",)),
            Rows(learners=("promptsrc",), methods=("step-matched", "mao")),
        ),
    ),
    "distillation": Experiment(
        summary="a teacher's scores on unlabelled images of all classes (learner.teacher), against MAO",
        counterpart="PromptKD, which section 1 argues against",
        rows=(
            Rows(learners=("promptkd",), methods=("distill",)),
            Rows(learners=("coop", "promptsrc"), methods=("plain", "step-matched", "mao")),
        ),
    ),
    "hicropl": Experiment(
        summary="what carries HiCroPL: the learned flow between the towers, frozen features, sentences about classes",
        counterpart="HiCroPL, whose released code does not learn the flow",
        rows=(
            Rows(
                learners=("hicropl",),
                methods=(ZEROSHOT, "plain"),
                variants={
                    "": {},
                    "flow random": {"learner.flow": "random"},
                    "no flow": {"learner.flow": "none"},
                    "not fused": {"learner.fuse_frozen": False},
                    "names alone": NAMES_ALONE,
                    "none of these": {"learner.flow": "none", "learner.fuse_frozen": False, **NAMES_ALONE},
                },
            ),
        ),
    ),
    "density": Experiment(
        summary="how close the classes of a mini-batch are by name: random against hard; nothing is tuned",
        counterpart="Figure 5",
        rows=(Rows(learners=("coop",), methods=("mao",)),),
        make_figure=measure_name_distances,
    ),
    "cases": Experiment(
        summary="pictures of mini-batches: random against hard; nothing is tuned",
        counterpart="Figure 6",
        rows=(Rows(learners=("coop",), methods=("mao",)),),
        make_figure=collect_example_batches,
    ),
}
"""Experiments by name."""


def list_experiments() -> dict[str, str]:
    """Return a line on each experiment, by name."""
    return {name: f"{experiment.counterpart}: {experiment.summary}" for name, experiment in EXPERIMENTS.items()}


def plan_runs(
    experiment: Experiment,
    sources: Sequence[str],
    *,
    learners: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (1, 2, 3),
    settings: Mapping[str, Any] | None = None,
) -> list[PlannedRun]:
    """Plan the runs of an experiment, seed by seed, so that a whole table is there after the first seed.

    Zero-shot CLIP has nothing to draw or to learn: one run for each data set.

    Args:
        experiment: what to run.
        sources: the data sets.
        learners: instead of those of all rows.
        methods: instead of those of all rows.
        seeds: one run each.
        settings: overrides of the recipe with dotted keys; those of a variant override them.

    Raises:
        RecipeError: a name or setting that does not exist.
    """
    protocol = {"protocol": experiment.protocol, **PROTOCOLS[experiment.protocol].settings}
    common = {**protocol, **(settings or {})}
    first = {"learner.name": (learners or experiment.rows[0].learners)[0], "seed": seeds[0]}

    def runs() -> Iterator[PlannedRun]:
        for seed in seeds:
            for rows in experiment.rows:
                for variant, changes in rows.variants.items():
                    for learner in learners or rows.learners:
                        for method in methods or rows.methods:
                            tuned = method != ZEROSHOT
                            for source in sources:
                                named = {"learner.name": learner, "seed": seed} if tuned else first
                                overrides = {**common, "data.source": source, "method": method, **named}
                                yield PlannedRun(variant if tuned else "", _recipe(overrides, changes if tuned else {}))

    return list({(run.variant, run.recipe.slug): run for run in runs()}.values())


def _recipe(overrides: Mapping[str, Any], changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the settings, overridden by the changes of a variant."""
    fixed = {**overrides, **{key: value for key, value in changes.items() if not isinstance(value, Multiple)}}
    relative = {key: value for key, value in changes.items() if isinstance(value, Multiple)}
    if not relative:
        return load_recipe(None, fixed)
    before: Any = load_recipe(None, fixed)
    times = {key: reduce(getattr, key.split("."), before) * value.factor for key, value in relative.items()}
    return load_recipe(None, {**fixed, **times})
