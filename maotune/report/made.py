"""How a report's numbers were made: settings, seeds, versions, data, machine, time, and the command."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maotune.report.document import Cell, Group, Line, Section, Table
from maotune.report.study import Run, Study, flat, short_names
from maotune.runs.events import duration

NAMED = frozenset({"data.source", "learner.name", "method", "seed"})
"""Settings that the rows and columns of the tables say."""


def section(studies: Sequence[Study], commands: Sequence[str]) -> Section:
    """All that is needed to run it again."""
    runs = list({run.trial.folder: run for study in studies for run in study.runs}.values())
    tables = [_circumstances(studies, runs), _common(runs), _differing(studies), _data(runs)]
    return Section("made", "How it was made", tables=tuple(filter(None, tables)), code="\n".join(commands))


def _words(
    name: str,
    caption: str,
    labels: tuple[str, ...],
    columns: tuple[str, ...],
    lines: Iterable[tuple[tuple[str, ...], tuple[str, ...]]],
) -> Table:
    return Table(
        name,
        caption,
        labels,
        (Group("", columns),),
        tuple(Line(label, tuple(map(Cell, cells))) for label, cells in lines),
        words=True,
    )


def _circumstances(studies: Sequence[Study], runs: Sequence[Run]) -> Table:
    results = [run.result for run in runs]
    environments = [result.environment for result in results]
    spent = sum(result.seconds for result in results)
    tuned = sum(stage["seconds"] for result in results for stage in result.stages)
    planned = {trial.folder for study in studies for trial in study.missing}
    failed = {trial.folder for study in studies for trial, _ in study.failed}
    rows = {
        "trials": f"{len(runs)} finished, {len(planned)} missing, {len(failed)} failed",
        "seeds": ", ".join(map(str, sorted({result.seed for result in results}))),
        "time of all trials": f"{duration(spent)}, {duration(tuned)} of it tuning",
        "most memory": f"{max((result.peak_memory for result in results), default=0) / 1e9:.2f} GB",
        "commit": _several(_commit(e.get("git")) for e in environments),
        "versions": _several(
            ", ".join(f"{name} {e[name]}" for name in ("maotune", "torch", "transformers", "python") if name in e)
            for e in environments
        ),
        "machine": _several(
            f"{e['machine']}, {e['device']}, {e['threads']} thread{'s' * (e['threads'] != 1)} a trial"
            for e in environments
        ),
        "CLIP": _several(
            f"{e['clip']['name']}, {e['clip']['dtype']}, fingerprint {e['clip']['fingerprint'][:12]}"
            for e in environments
            if "clip" in e
        ),
    }
    return _words("made", "Circumstances.", ("",), ("",), (((what,), (said,)) for what, said in rows.items() if said))


def _commit(git: Mapping[str, Any] | None) -> str:
    if not git:
        return "unknown"
    return f"{git['commit'][:12]}{' and uncommitted changes' if git.get('changed') else ''}"


def _several(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _common(runs: Sequence[Run]) -> Table | None:
    """The settings that all runs share, a row for each group of them."""
    recipes = [flat(run.trial.recipe.model_dump(mode="json")) for run in runs]
    if not recipes:
        return None
    groups: dict[str, list[str]] = {}
    for key, value in recipes[0].items():
        if key not in NAMED and all(key in recipe and recipe[key] == value for recipe in recipes):
            group, _, name = key.rpartition(".")
            groups.setdefault(group or "run", []).append(f"{name} = {shown(value)}")
    lines = (((group,), ("; ".join(settings),)) for group, settings in groups.items())
    return _words("settings", "Settings that all runs share.", ("",), ("",), lines)


def _differing(studies: Sequence[Study]) -> Table | None:
    """The settings in which learners and variants differ."""
    recipes: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for study in studies:
        for run in study.runs:
            key = (study.name, run.result.learner, run.trial.variant)
            recipes.setdefault(key, []).append(flat(run.trial.recipe.model_dump(mode="json")))
    every = [recipe for of_key in recipes.values() for recipe in of_key]
    if not every:
        return None
    keys = [key for key in dict.fromkeys(k for recipe in every for k in recipe) if key not in NAMED]
    keys = [key for key in keys if any(recipe.get(key, ...) != every[0].get(key, ...) for recipe in every)]
    if not keys:
        return None
    several, varied = len(studies) > 1, any(variant for _, _, variant in recipes)
    lines = []
    for (name, learner, variant), of_key in recipes.items():
        label = ((name,) if several else ()) + (learner,) + ((variant,) if varied else ())
        said = [
            f"{key} = {shown(value) if all(r.get(key, ...) == value for r in of_key) else '(differs by run)'}"
            for key, value in of_key[0].items()
            if key in keys
        ]
        lines.append((label, ("; ".join(said) or "–",)))
    labels = (("experiment",) if several else ()) + ("learner",) + (("variant",) if varied else ())
    return _words("own-settings", "Settings in which rows differ.", labels, ("settings",), lines)


def _data(runs: Sequence[Run]) -> Table | None:
    """What the data sets are, by fingerprint: of the images and classes of each seed's splits."""
    sets: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for run in runs:
        data = run.result.environment.get("data", {})
        of_seed = sets.setdefault(run.result.dataset, {}).setdefault(run.result.seed, [])
        if "fingerprint" in data and data not in of_seed:
            of_seed.append(data)
    short = short_names(sets)
    lines = []
    for name, of_set in sets.items():
        every = [data for of_seed in of_set.values() for data in of_seed]
        counts = [", ".join(dict.fromkeys(str(data[key]) for data in every)) for key in ("base_classes", "new_classes")]
        prints = [f"{seed}: {' '.join(data['fingerprint'][:8] for data in of_set[seed])}" for seed in sorted(of_set)]
        lines.append(((short[name],), (*counts, ", ".join(prints))))
    if not lines:
        return None
    columns = ("base classes", "new classes", "fingerprint by seed")
    return _words(
        "data", "Data: classes, and a fingerprint of what was tuned on and scored.", ("data set",), columns, lines
    )


def shown(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and len(value) > 6:
        return f"a list of {len(value)}"
    return "none" if value is None else str(value)
