"""Imports point one way (see docs/how-it-works.md): read from the code, also those inside functions."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cdasr

HOME = Path(cdasr.__file__).parent
CORE = {"runtime", "diffusion", "networks", "classifiers", "coupled"}
ALLOWED = {  # what the modules of each folder may import, beside their own folder
    "runtime": set(),
    "diffusion": {"runtime"},
    "networks": {"runtime", "diffusion"},
    "classifiers": {"runtime", "diffusion", "networks"},
    "coupled": CORE,
    "training": CORE,
    "evaluation": CORE,
    "speech": CORE | {"training", "evaluation"},  # a domain fills in trainers and reports of its own
    "images": CORE | {"training", "evaluation"},
    "recipe": CORE | {"training", "evaluation"},
    "bundled": set(),
    "demo": CORE | {"training", "evaluation", "speech"},
    "commands": CORE | {"training", "evaluation", "speech", "images", "recipe", "demo"},
    "cli": {"runtime", "commands"},
    "__init__": CORE | {"evaluation", "speech", "images"},
}


def imported_names(path: Path) -> list[str]:
    """What a file imports, each name with its module, but in what only `python -m` runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kept = [node for node in tree.body if not (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))]
    names = []
    for node in (node for part in kept for node in ast.walk(part)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write imports in full"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.startswith("cdasr.")]


def imported(path: Path) -> set[str]:
    """The folders and modules at the top of the package that a file imports."""
    return {name.split(".")[1] for name in imported_names(path)} - {"__version__"}


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part):
    files = sorted((HOME / part).rglob("*.py")) if (HOME / part).is_dir() else [HOME / f"{part}.py"]
    for path in files:
        assert imported(path) <= ALLOWED[part] | {part}, path.relative_to(HOME)


def test_every_part_has_its_rule():
    parts = {path.name for path in HOME.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert parts | {path.stem for path in HOME.glob("*.py")} == set(ALLOWED)


def test_the_rules_leave_no_way_back():
    seen: set[str] = set()
    while left := [part for part in ALLOWED if part not in seen]:
        free = [part for part in left if ALLOWED[part] - {part} <= seen]
        assert free, f"a circle among {', '.join(left)}"
        seen.update(free)


def test_no_file_imports_one_that_imports_it():
    files = {".".join(path.relative_to(HOME.parent).with_suffix("").parts): path for path in HOME.rglob("*.py")}
    graph = {module: {name if name in files else name.rpartition(".")[0] for name in imported_names(path)}
             for module, path in files.items()}
    assert sum(name in files for names in graph.values() for name in names) > 500, "files are found by these names"
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the files of a circle
