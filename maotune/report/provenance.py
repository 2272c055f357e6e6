"""Provenance of a report: settings, seeds, versions, data, machine, time, and the commands."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from maotune.printable import without_folders
from maotune.report.content import ReportTable, Section
from maotune.report.frame import ExperimentRuns, FinishedTrial, short_names
from maotune.report.sentences import NOTHING
from maotune.runs.events import duration

NAMED = frozenset({"data.source", "learner.name", "method", "seed"})
"""Settings that the rows and columns of the tables already say."""


def provenance_section(experiments: Sequence[ExperimentRuns], commands: Sequence[str]) -> Section:
    """Collect everything that is needed to run it again."""
    finished = list({run.trial.folder: run for runs in experiments for run in runs.finished}.values())
    tables = [_circumstances(experiments, finished)]
    if finished:
        tables += [*_settings(experiments), _data(finished)]
    return Section("made", "How it was made", parts=tables, code="\n".join(map(without_folders, commands)))


def _circumstances(experiments: Sequence[ExperimentRuns], finished: Sequence[FinishedTrial]) -> ReportTable:
    results = [run.result for run in finished]
    environments = [result.environment for result in results]
    tuned = sum(stage["seconds"] for result in results for stage in result.stages)
    missing = {trial.folder for runs in experiments for trial in runs.missing}
    failed = {trial.folder for runs in experiments for trial, _ in runs.failed}
    texts = {
        "trials": f"{len(finished)} finished, {len(missing)} missing, {len(failed)} failed",
        "seeds": ", ".join(map(str, sorted({result.seed for result in results}))),
        "time of all trials": f"{duration(sum(result.seconds for result in results))}, {duration(tuned)} of it tuning",
        "peak memory": f"{max((result.peak_memory for result in results), default=0) / 1e9:.2f} GB",
        "commit": _distinct(_commit(each.get("git")) for each in environments),
        "versions": _distinct(
            ", ".join(f"{name} {each[name]}" for name in ("maotune", "torch", "transformers", "python") if name in each)
            for each in environments
        ),
        "machine": _distinct(
            f"{each['machine']}, {each['device']}, {each['threads']} thread{'s' * (each['threads'] != 1)} per trial"
            for each in environments
            if "machine" in each
        ),
        "CLIP": _distinct(
            f"{each['clip']['name']}, {each['clip']['dtype']}, fingerprint {each['clip']['fingerprint'][:12]}"
            f"{_revision(each['clip'])}"
            for each in environments
            if "clip" in each
        ),
        "class names compared by": _distinct(
            f"{each['name_encoder']['name']}, SHA-256 {each['name_encoder']['sha256'][:12]}"
            f"{_revision(each['name_encoder'])}"
            for each in environments
            if "name_encoder" in each
        ),
    }
    rows = [((name,), (text,)) for name, text in texts.items() if text]
    return ReportTable("made", "Circumstances.", ("",), ("",), rows, words=True)


def _commit(git: Mapping[str, Any] | None) -> str:
    return f"{git['commit'][:12]}{' and uncommitted changes' if git.get('changed') else ''}" if git else "unknown"


def _revision(model: Mapping[str, Any]) -> str:
    return f", revision {model['revision'][:12]}" if model.get("revision") else ""


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _settings(experiments: Sequence[ExperimentRuns]) -> list[ReportTable]:
    """Tables of the settings that all runs share, and of those in which learners and variants differ."""
    runs = [
        (of.name, run.result.learner, run.trial.variant, run.trial.recipe) for of in experiments for run in of.finished
    ]
    rows = pd.MultiIndex.from_tuples([row for *row, _ in runs], names=["experiment", "learner", "variant"])
    recipes = [_flat(recipe.shareable().model_dump(mode="json")) for *_, recipe in runs]
    frame = pd.DataFrame(recipes, rows).drop(columns=[*NAMED])  # a learner's own settings are missing in the others
    shared = frame.columns[frame.nunique(dropna=False) == 1]
    groups: dict[str, list[str]] = {}
    for key in shared:
        group, _, name = key.rpartition(".")
        groups.setdefault(group or "run", []).append(f"{name} = {frame[key].iloc[0]}")
    common = [((group,), ("; ".join(settings),)) for group, settings in groups.items()]
    shown = [level for level in rows.names if level == "learner" or rows.unique(level).size > 1]
    differing = []
    for of_row, group in frame.drop(columns=shared).groupby(level=rows.names, sort=False):
        settings = [
            f"{key} = {'(differs by run)' if column.nunique(dropna=False) > 1 else column.iloc[0]}"
            for key, column in group.dropna(axis=1, how="all").items()
        ]
        labels = [label for level, label in zip(rows.names, of_row, strict=True) if level in shown]
        differing.append((labels, ("; ".join(settings) or NOTHING,)))
    return [
        ReportTable("settings", "Settings that all runs share.", ("",), ("",), common, words=True),
        ReportTable(
            "own-settings", "Settings in which rows differ.", shown, ("settings",),
            differing if len(shared) < len(frame.columns) else [], words=True,
        ),
    ]  # fmt: skip


def _data(finished: Sequence[FinishedTrial]) -> ReportTable:
    """The data sets by number of classes and fingerprint: of the images and classes of each seed's splits."""
    recorded = [(run.result, run.result.environment.get("data", {})) for run in finished]
    columns = ["base_classes", "new_classes", "fingerprint"]
    keys = [(result.dataset, result.seed) for result, data in recorded if "fingerprint" in data]
    frame = pd.DataFrame([data for _, data in recorded if "fingerprint" in data], columns=columns).astype(str)
    rows = []
    for name, short in short_names(dict.fromkeys(name for name, _ in keys)).items():
        of_set = frame[[key[0] == name for key in keys]]
        seeds = pd.Series([seed for key, seed in keys if key == name], of_set.index)
        prints = [f"{seed}: {' '.join(of.str[:8].unique())}" for seed, of in of_set["fingerprint"].groupby(seeds)]
        rows.append(((short,), (*(", ".join(of_set[key].unique()) for key in columns[:2]), ", ".join(prints))))
    caption = "Data: classes, and a fingerprint of what was tuned on and scored."
    titles = ("base classes", "new classes", "fingerprint by seed")
    return ReportTable("data", caption, ("data set",), titles, rows, words=True)


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """Return the leaves of nested settings by dotted key, written as people do."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: _shown(tree)}
    flat: dict[str, str] = {}
    for name, branch in tree.items():
        flat |= _flat(branch, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _shown(value: Any) -> str:
    """Write a setting as people do."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and len(value) > 6:
        return f"a list of {len(value)}"
    return "none" if value is None else str(value)
