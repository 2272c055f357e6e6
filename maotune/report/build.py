"""From the runs of a folder to a report."""

from collections.abc import Mapping, Sequence

from maotune.experiments.catalog import EXPERIMENTS
from maotune.report import figures, sentences, tables
from maotune.report.by_class import class_section
from maotune.report.compare import MaoComparison, compare_mao
from maotune.report.content import Report, Section
from maotune.report.frame import ExperimentRuns
from maotune.report.provenance import provenance_section
from maotune.report.pseudo_labels import pseudo_label_section


def build_report(experiments: Sequence[ExperimentRuns], commands: Sequence[str] = (), title: str = "maotune") -> Report:
    """Build the report.

    Args:
        experiments: with their runs (``frame.read_experiments``).
        commands: that made them.
        title: of the report.
    """
    with_scores = [runs for runs in experiments if runs.scores.keys]
    compared = {runs.name: compare_mao(runs) for runs in with_scores}
    main = _main(with_scores, compared)
    comparisons = compared[main.name] if main else []
    answer = sentences.answer(main, comparisons) if main else "There is no finished run yet."
    details = [class_section(main), pseudo_label_section(main)] if main else []
    sections = [_experiment_section(runs, compared[runs.name]) for runs in with_scores]
    sections += [section for section in reversed(details) if section]
    sections.append(provenance_section(experiments, commands))
    return Report(
        title=title,
        subtitle=_subtitle(experiments, main),
        answer=("So far, " if main and main.missing else "") + answer,
        evidence=tuple(sentences.evidence(main, comparisons)) if main else (),
        warnings=tuple(sentences.warnings(experiments)),
        sections=tuple(sections),
    )


def _main(
    experiments: Sequence[ExperimentRuns], compared: Mapping[str, Sequence[MaoComparison]]
) -> ExperimentRuns | None:
    """Return the experiment of the answer: base-to-new, else the first that compares with MAO, else the first."""
    by_name = {runs.name: runs for runs in experiments}
    with_mao = [runs for runs in experiments if compared[runs.name]]
    return by_name.get("base-to-new") or next(iter(with_mao or experiments), None)


def _experiment_section(runs: ExperimentRuns, comparisons: Sequence[MaoComparison]) -> Section:
    experiment = EXPERIMENTS.get(runs.name)
    return Section(
        runs.name,
        f"{runs.name}: counterpart of {experiment.counterpart}" if experiment else runs.name,
        text=(f"{experiment.summary[0].upper()}{experiment.summary[1:]}.",) if experiment else (),
        tables=tuple(
            filter(
                None,
                [
                    tables.differences(runs, comparisons), tables.averages(runs), tables.results(runs),
                    tables.published(runs), tables.stages(runs), tables.cost(runs),
                ],
            )
        ),
        figures=tuple(
            filter(
                None,
                [
                    figures.plot_differences(runs, comparisons), figures.plot_base_against_new(runs),
                    figures.plot_curves(runs), figures.plot_cost(runs), figures.plot_losses(runs),
                ],
            )
        ),
    )  # fmt: skip


def _subtitle(experiments: Sequence[ExperimentRuns], main: ExperimentRuns | None) -> str:
    finished = len({run.trial.folder for runs in experiments for run in runs.finished})
    if main is None:
        return f"{finished} finished runs"
    seeds, sets = len({run.result.seed for run in main.finished}), len(main.scores.datasets)
    learners = dict.fromkeys(learner for learner, _, _ in main.scores.keys if learner)
    return (
        f"{finished} finished runs; {main.name}: {sets} data set{'s' * (sets != 1)}, {', '.join(learners)}, "
        f"{seeds} seed{'s' * (seeds != 1)}"
    )
