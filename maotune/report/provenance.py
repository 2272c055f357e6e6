"""Provenance of a report: settings, seeds, versions, data, machine, time, and the commands."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maotune.printable import without_folders
from maotune.report.content import ReportTable, Section
from maotune.report.frame import ExperimentRuns, FinishedTrial, short_names
from maotune.runs.events import duration

NAMED = frozenset({"data.source", "learner.name", "method", "seed"})
"""Settings that the rows and columns of the tables already say."""


def provenance_section(experiments: Sequence[ExperimentRuns], commands: Sequence[str]) -> Section:
    """Collect everything that is needed to run it again."""
    finished = list({run.trial.folder: run for runs in experiments for run in runs.finished}.values())
    tables = [_circumstances(experiments, finished), *_settings(experiments), _data(finished)]
    shown = [table for table in tables if table.rows]
    return Section("made", "How it was made", tables=shown, code="\n".join(map(without_folders, commands)))


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
            for each in environments
            if "clip" in each
        ),
    }
    rows = [((name,), (text,)) for name, text in texts.items() if text]
    return ReportTable("made", "Circumstances.", ("",), ("",), rows, words=True)


def _commit(git: Mapping[str, Any] | None) -> str:
    return f"{git['commit'][:12]}{' and uncommitted changes' if git.get('changed') else ''}" if git else "unknown"


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _settings(experiments: Sequence[ExperimentRuns]) -> list[ReportTable]:
    """Tables of the settings that all runs share, and of those in which learners and variants differ."""
    recipes: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for runs in experiments:
        for run in runs.finished:
            recipe = _flat(run.trial.recipe.shareable().model_dump(mode="json"))
            recipes.setdefault((runs.name, run.result.learner, run.trial.variant), []).append(recipe)
    every = [recipe for group in recipes.values() for recipe in group]
    keys = [key for key in dict.fromkeys(key for recipe in every for key in recipe) if key not in NAMED]
    shared = [key for key in keys if _agree(every, key)]
    groups: dict[str, list[str]] = {}
    for key in shared:
        group, _, name = key.rpartition(".")
        groups.setdefault(group or "run", []).append(f"{name} = {_shown(every[0][key])}")
    common = [((group,), ("; ".join(settings),)) for group, settings in groups.items()]
    places = [
        place for place, shown in enumerate((len(experiments) > 1, True, any(key[2] for key in recipes))) if shown
    ]
    differing = []
    for labels, of_row in recipes.items() if len(shared) < len(keys) else ():
        settings = [
            f"{key} = {_shown(value) if _agree(of_row, key) else '(differs by run)'}"
            for key, value in of_row[0].items()
            if key in keys and key not in shared
        ]
        differing.append(([labels[place] for place in places], ("; ".join(settings) or "–",)))
    headings = [("experiment", "learner", "variant")[place] for place in places]
    caption = "Settings in which rows differ."
    return [
        ReportTable("settings", "Settings that all runs share.", ("",), ("",), common, words=True),
        ReportTable("own-settings", caption, headings, ("settings",), differing, words=True),
    ]


def _agree(recipes: Sequence[Mapping[str, Any]], key: str) -> bool:
    return all(recipe.get(key, ...) == recipes[0].get(key, ...) for recipe in recipes)


def _data(finished: Sequence[FinishedTrial]) -> ReportTable:
    """The data sets by number of classes and fingerprint: of the images and classes of each seed's splits."""
    sets: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for run in finished:
        data = run.result.environment.get("data", {})
        of_seed = sets.setdefault(run.result.dataset, {}).setdefault(run.result.seed, [])
        if data.get("fingerprint") not in (None, *(other["fingerprint"] for other in of_seed)):
            of_seed.append(data)
    rows = []
    for name, short in short_names(sets).items():
        every = [data for of_seed in sets[name].values() for data in of_seed]
        counts = [
            _distinct(str(data[key]) for data in every).replace(";", ",") for key in ("base_classes", "new_classes")
        ]
        prints = [
            f"{seed}: {' '.join(data['fingerprint'][:8] for data in of)}" for seed, of in sorted(sets[name].items())
        ]
        rows.append(((short,), (*counts, ", ".join(prints))))
    caption = "Data: classes, and a fingerprint of what was tuned on and scored."
    titles = ("base classes", "new classes", "fingerprint by seed")
    return ReportTable("data", caption, ("data set",), titles, rows, words=True)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested settings by dotted key."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    flat: dict[str, Any] = {}
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
