"""From a folder of runs to a report."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from maotune.experiments.catalog import EXPERIMENTS
from maotune.report import classes, curves, figures, made, pseudo, tables, verdict
from maotune.report.beside import beside
from maotune.report.document import Report, Section
from maotune.report.study import Study
from maotune.sweep.manifest import Trial

MOST = 9
"""Groups of missing trials that are named."""


def build(studies: Sequence[Study], commands: Sequence[str] = (), title: str = "maotune") -> Report:
    """All that can be said of the studies.

    Args:
        studies: experiments with their runs (``study.read_studies``).
        commands: that made them.
        title: what the report is on.
    """
    told = [study for study in studies if study.series]
    main = _main(told)
    found = verdict.comparisons(main) if main else []
    sections = [section for study in told for section in _of(study)]
    sections += _details(main) if main else []
    sections.append(made.section(studies, commands))
    return Report(
        title=title,
        subtitle=_subtitle(studies, main),
        answer=_answer(main, found),
        evidence=tuple(verdict.evidence(main, found)) if main else (),
        warnings=tuple(_warnings(studies)),
        sections=tuple(section for section in sections if not section.empty),
    )


def _answer(main: Study | None, found: Sequence[verdict.Comparison]) -> str:
    if main is None:
        return "There is no finished run yet."
    return ("So far, " if main.missing else "") + verdict.answer(main, found)


def comparisons(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """MAO against its counterparts in every study, as JSON can hold it."""
    return [
        {
            "experiment": study.name,
            "measure": study.measure,
            "learner": one.learner,
            "against": one.against,
            "difference": one.paired.mean,
            "interval": one.paired.interval,
            "higher_lower_equal": one.paired.counts,
            "by_dataset": one.paired.differences,
        }
        for study in studies
        for one in verdict.comparisons(study)
    ]


def _main(studies: Sequence[Study]) -> Study | None:
    """The experiment that the answer is about: base-to-new, else the first that compares with MAO, else the first."""
    by_name = {study.name: study for study in studies}
    with_mao = [study for study in studies if verdict.comparisons(study)]
    return by_name.get("base-to-new") or next(iter(with_mao or studies), None)


def _of(study: Study) -> list[Section]:
    """The tables and figures of one experiment."""
    experiment = EXPERIMENTS.get(study.name)
    found = verdict.comparisons(study)
    of_experiment = [
        verdict.table(study, found), tables.averages(study), tables.results(study), beside(study),
        tables.stages(study), tables.cost(study),
    ]  # fmt: skip
    drawn = [
        figures.differences(study, found), figures.base_against_new(study), curves.curves(study),
        figures.cost_against_accuracy(study), curves.losses(study),
    ]  # fmt: skip
    said = f"{experiment.summary[0].upper()}{experiment.summary[1:]}." if experiment else ""
    return [
        Section(
            study.name,
            f"{study.name}: counterpart of {experiment.counterpart}" if experiment else study.name,
            text=tuple(filter(None, [said])),
            tables=tuple(filter(None, of_experiment)),
            figures=tuple(filter(None, drawn)),
        )
    ]


def _details(study: Study) -> list[Section]:
    """What lies behind the accuracies of an experiment."""
    parts: list[Callable[[], Section | None]] = [partial(pseudo.section, study), partial(classes.section, study)]
    return [section for part in parts if (section := part()) is not None]


def _subtitle(studies: Sequence[Study], main: Study | None) -> str:
    finished = len({run.trial.folder for study in studies for run in study.runs})
    if main is None:
        return f"{finished} finished runs"
    seeds = sorted({run.result.seed for run in main.runs})
    learners = dict.fromkeys(one.learner for one in main.series if one.learner)
    return (
        f"{finished} finished runs; {main.name}: {len(main.datasets)} data set{'s' * (len(main.datasets) != 1)}, "
        f"{', '.join(learners)}, {len(seeds)} seed{'s' * (len(seeds) != 1)}"
    )


def _warnings(studies: Sequence[Study]) -> list[str]:
    """What is missing or failed, and what that means for the numbers."""
    said = []
    for study in studies:
        total = len(study.runs) + len(study.missing) + len(study.failed)
        if study.missing:
            said.append(
                f"{study.name}: {len(study.missing)} of {total} trials are not finished ({_counted(study.missing)})."
            )
        if study.failed:
            first, reason = study.failed[0]
            more = f", and {len(study.failed) - 1} more" if len(study.failed) > 1 else ""
            said.append(f"{study.name}: {len(study.failed)} of {total} trials failed: {first.name} ({reason}){more}.")
        left = [one for one in study.series if one not in study.averaged]
        if study.cells and (left or len(study.cells) < len(study.datasets)):
            names = [f"{one.learner} {one.method} {one.variant}".strip() for one in left]
            without = f", and leave out {', '.join(names)}" if names else ""
            said.append(
                f"{study.name}: averages are over {len(study.cells)} of {len(study.datasets)} data sets, the same for "
                f"all rows{without}. Differences in the sentences above are over all pairs that are finished."
            )
    return said


def _counted(trials: Sequence[Trial]) -> str:
    """How many of each learner and method."""
    counts = Counter(f"{trial.recipe.title} {trial.recipe.method} {trial.variant}".strip() for trial in trials)
    named = [f"{name}: {count}" for name, count in counts.most_common(MOST)]
    return ", ".join(named) + (", ..." if len(counts) > MOST else "")
