"""The import rules of docs/architecture.md, walked over every module."""

import ast
from pathlib import Path

import pytest

import maotune

ROOT = Path(maotune.__file__).parent
ALLOWED = {
    "contract": set(),
    "files": set(),
    "clip": {"files"},
    "data": {"contract", "files", "clip"},
    "learners": {"contract", "clip"},
    "train": {"contract", "files"},
    "mao": {"contract", "files", "clip", "data"},
    "protocols": {"data", "train"},
    "recipe": {"contract", "data", "learners", "train", "mao", "protocols"},
    "runs": {"contract", "files", "clip", "data", "learners", "train", "mao", "protocols", "recipe"},
    "experiments": {"files", "data", "mao", "protocols", "recipe", "runs"},
    "sweep": {"files", "train", "mao", "recipe", "runs"},
    "report": {"files", "data", "train", "mao", "protocols", "recipe", "runs", "experiments", "sweep"},
    "api": {"clip", "recipe", "runs"},
    "cli": {"files", "data", "train", "mao", "protocols", "recipe", "runs", "experiments", "sweep", "report", "api"},
    "__init__": {"api", "clip"},
    "__main__": {"cli"},
}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """The parts of maotune that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("maotune.")} & set(ALLOWED)


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_what_it_may(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED, f"{part} is not in the picture: add it to docs/architecture.md and here"
    assert imported_parts(path) - {part} <= ALLOWED[part]


def test_mao_and_learners_do_not_know_each_other() -> None:
    """The missing arrow is the paper's claim: MAO is a plug-in for any learner."""
    for path in MODULES:
        if part_of(path) in ("mao", "train"):
            assert "learners" not in imported_parts(path)
        if part_of(path) == "learners":
            assert not {"mao", "train", "data"} & imported_parts(path)


def test_learners_do_not_import_each_other() -> None:
    from maotune.learners import LEARNERS

    files = {learner.__module__.rsplit(".", 1)[1] for learner in LEARNERS.values()} | {"dept"}
    for name in files:
        tree = ast.parse((ROOT / "learners" / f"{name}.py").read_text(encoding="utf-8"))
        others = {
            node.module.rsplit(".", 1)[1]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("maotune.learners.")
        }
        assert not others & files - {name}
