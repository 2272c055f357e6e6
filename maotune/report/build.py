"""From the runs of a folder to a report."""

from collections.abc import Sequence

from maotune.experiments.catalog import EXPERIMENTS
from maotune.protocols import PROTOCOLS
from maotune.report import figures, sentences, tables
from maotune.report.by_class import class_section
from maotune.report.compare import MaoComparison, compare_mao
from maotune.report.content import Report, Section
from maotune.report.frame import ExperimentRuns
from maotune.report.names import explain
from maotune.report.own_run import find_own_runs, own_answer, own_section, plot_accuracies
from maotune.report.provenance import provenance_section
from maotune.report.pseudo_labels import pseudo_label_section


def build_report(
    experiments: Sequence[ExperimentRuns],
    commands: Sequence[str] = (),
    title: str = "maotune",
    batches: Sequence[Section] = (),
) -> Report:
    """Build the report.

    Args:
        experiments: with their runs (``frame.read_experiments``).
        commands: that made them.
        title: of the report.
        batches: sections on mini-batches, of which nothing is tuned (``batches.batch_sections``).
    """
    compared = [(runs, compare_mao(runs)) for runs in experiments if runs.scores.measure]
    # The answer is on base-to-new, else on the first experiment that compares with MAO, else on the first.
    order = sorted(compared, key=lambda entry: (entry[0].name != "base-to-new", not entry[1]))
    main, comparisons = order[0] if order else (None, [])
    own = find_own_runs(main) if main else []
    answer = (
        sentences.answer(main, comparisons)
        if main
        else batches[0].text[0]
        if batches
        else "There is no finished run yet."
    )
    answer = own_answer(own) if own else answer
    so_far = main is not None and bool(main.missing)
    details = [pseudo_label_section(main), class_section(main)] if main else []
    return Report(
        title=title,
        subtitle=sentences.subtitle(experiments, main),
        answer=f"So far, {answer if answer.startswith('MAO') else answer[0].lower() + answer[1:]}"
        if so_far
        else answer,
        figure=plot_accuracies(own) if own else figures.plot_overview(main, comparisons) if main else None,
        explained=explain((method for _, method, _ in main.scores.keys), main.scores.measures) if main else "",
        evidence=sentences.evidence(main, comparisons) if main else (),
        warnings=sentences.warnings(experiments),
        sections=[
            *([own_section(own)] if own else []),
            *(_experiment_section(runs, comparisons) for runs, comparisons in compared),
            *filter(None, details),
            *batches,
            provenance_section(experiments, commands),
        ],
    )


def _experiment_section(runs: ExperimentRuns, comparisons: Sequence[MaoComparison]) -> Section:
    experiment = EXPERIMENTS.get(runs.name)
    summary = experiment.summary if experiment else PROTOCOLS[runs.name].summary if runs.name in PROTOCOLS else ""
    return Section(
        runs.name,
        f"{runs.name}: counterpart of {experiment.counterpart}" if experiment else runs.name,
        text=(f"{summary[0].upper()}{summary[1:]}.",) if summary else (),
        parts=[
            tables.differences(runs, comparisons), figures.plot_differences(runs, comparisons), tables.results(runs),
            figures.plot_heat_map(runs), tables.published(runs), figures.plot_base_against_new(runs),
            tables.other_measures(runs), tables.stages(runs), tables.cost(runs), figures.plot_cost(runs),
            figures.plot_curves(runs), figures.plot_losses(runs),
        ],
    )  # fmt: skip
