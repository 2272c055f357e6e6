"""The rooms of docs/architecture.md: what each may import, no circle of files, and how large each may be."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import maotune

ROOT = Path(maotune.__file__).parent
PAGE = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
MODULES = sorted(ROOT.rglob("*.py"))


def room_of(module: str) -> str:
    """``maotune.clip.load`` -> ``clip``."""
    return module.split(".")[1] if "." in module else "__init__"


def module_of(path: Path) -> str:
    return ".".join(("maotune", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


FILES = {module_of(path): path for path in MODULES}


def imported_modules(path: Path) -> set[str]:
    """The modules of maotune that a module imports, also inside functions; not those that its types alone need."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            continue
        for name in names & {n for n in names if n.split(".")[0] == "maotune"}:
            imported.add(name if name in FILES else name.rpartition(".")[0])
    return imported


def rows() -> dict[str, tuple[set[str], int]]:
    """Room -> what it may import and its budget in lines, from the table of the page."""
    table = {}
    for name, _, imports, budget in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| ([\d,]+) \|$", PAGE, re.MULTILINE):
        table[name] = ({*re.findall(r"`(\w+)`", imports)}, int(budget.replace(",", "")))
    return table


ROWS = rows()


@pytest.mark.parametrize("module", FILES)
def test_imports_only_what_it_may(module: str) -> None:
    room = room_of(module)
    if room in ("__init__", "__main__"):
        return
    assert room in ROWS, f"{room} is not in the table of docs/architecture.md: add it"
    imported = {room_of(name) for name in imported_modules(FILES[module])} - {room, "__init__"}
    assert imported <= ROWS[room][0]


def test_the_table_goes_from_the_ground_up() -> None:
    """A room imports only rooms above it in the table, so there is no circle of rooms."""
    above: set[str] = set()
    for room, (imports, _) in ROWS.items():
        assert imports <= above, room
        above.add(room)
    assert above == {room_of(module) for module in FILES} - {"__init__", "__main__"}


def test_there_is_no_circle_of_files() -> None:
    TopologicalSorter({module: imported_modules(path) - {module} for module, path in FILES.items()}).prepare()


def test_rooms_stay_within_their_budgets() -> None:
    """By a fifth at most; a reason for more stands on the page, as its budget."""
    for room, (_, budget) in ROWS.items():
        lines = sum(
            len(path.read_text(encoding="utf-8").splitlines())
            for module, path in FILES.items()
            if room_of(module) == room
        )
        assert lines <= 1.2 * budget, f"{room} has {lines} lines, its budget is {budget}"


def public_names() -> dict[str, set[str]]:
    """Public functions and classes, and the modules that define them; commands have the names that people type."""
    names: dict[str, set[str]] = {}
    for module, path in FILES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or room_of(module) == "cli":
                continue
            if not node.name.startswith("_"):
                names.setdefault(node.name, set()).add(module)
    return names


def test_no_two_public_names_differ_by_capitals_alone() -> None:
    by_letters: dict[str, list[str]] = {}
    for name in public_names():
        by_letters.setdefault(name.lower(), []).append(name)
    assert [names for names in by_letters.values() if len(names) > 1] == []


def test_a_class_name_means_one_thing() -> None:
    assert {name: modules for name, modules in public_names().items() if name[0].isupper() and len(modules) > 1} == {}


def test_mao_and_learners_do_not_know_each_other() -> None:
    """The missing arrow is the paper's claim: MAO is a plug-in for any learner."""
    for module, path in FILES.items():
        imported = {room_of(name) for name in imported_modules(path)}
        if room_of(module) in ("mao", "train"):
            assert "learners" not in imported
        if room_of(module) == "learners":
            assert not {"mao", "train", "data"} & imported


def test_learners_do_not_import_each_other() -> None:
    from maotune.learners import LEARNERS

    members = {learner.__module__ for learner in LEARNERS.values()} | {"maotune.learners.dept"}
    for member in members:
        assert not imported_modules(FILES[member]) & members - {member}
