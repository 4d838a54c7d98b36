"""The house: floors, and one file per optional package."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "spikewvat"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    0: (
        "errors",
        "weights",
        "files",
        "formatting",
        "serialisation",
        "devices",
        "perturbations",
        "spiking",
    ),
    1: ("adapters",),
    2: ("training", "conversion"),
    3: ("data", "robustness", "results", "provenance"),
    4: ("lab",),
    5: ("cli", "__main__"),
}
OPTIONAL = {
    "snntorch": "adapters/snntorch.py",
    "spikingjelly": "adapters/spikingjelly.py",
    "tonic": "data/nmnist.py",
    "torchvision": "lab/models/vision.py",
    "PIL": "data/pictures.py",
    "jinja2": "lab/report/page.py",
    "joblib": "lab/suites/pool.py",
    "filelock": "lab/suites/pool.py",
    "distributed": "lab/suites/pool.py",
}


def floor_of(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    for floor, names in FLOORS.items():
        if part in names:
            return floor
    if part == "":
        return 3  # the package itself re-exports floors 0 to 3
    raise AssertionError(f"{module} has no floor: add it to FLOORS")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def is_module(name: str) -> bool:
    place = PACKAGE.parent / name.replace(".", "/")
    return place.with_suffix(".py").exists() or place.is_dir()


def imports_of(path: Path) -> list[str]:
    """Return what a file imports anywhere, through ``require`` too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "require"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.append(node.args[0].value)
    return found


def test_imports_go_down():
    upward = [
        f"{name_of(path)} imports {imported}"
        for path in FILES
        for imported in imports_of(path)
        if imported.startswith("spikewvat.") and is_module(imported)
        if floor_of(imported) > floor_of(name_of(path))
    ]
    assert len(FILES) > 100
    assert upward == []


def test_the_library_knows_nothing_of_the_laboratory():
    """Neither at the top of a file nor inside a function."""
    upper = tuple(f"spikewvat.{name}" for name in ("lab", "cli", "__main__"))
    found = [
        (name_of(path), imported)
        for path in FILES
        if not name_of(path).startswith(upper)
        for imported in imports_of(path)
        if imported.startswith(upper)
    ]
    assert found == []


@pytest.mark.parametrize(("package", "home"), OPTIONAL.items())
def test_one_file_imports_each_framework(package, home):
    importing = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        for imported in imports_of(path)
        if imported.split(".")[0] == package
    }
    assert importing == {home}


def test_no_circles():
    """Imports inside functions count too; those for type checkers only do not."""

    def needs(path: Path) -> set[str]:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                node.body = []
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.add(inner if inner in names else node.module)
        return found & names

    names = {name_of(path) for path in FILES}
    graphlib.TopologicalSorter({name_of(path): needs(path) for path in FILES}).prepare()


def test_the_package_itself_loads_nothing_optional():
    code = (
        "import sys, spikewvat, spikewvat.robustness;"
        "names = {m.split('.')[0] for m in sys.modules};"
        "print(names & {'snntorch', 'spikingjelly', 'tonic', 'matplotlib', 'pydantic', 'typer',"
        " 'rich', 'lightning_fabric', 'safetensors', 'sklearn', 'scipy'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_files_stay_small():
    long = {str(p): len(p.read_text().splitlines()) for p in FILES}
    assert {name: n for name, n in long.items() if n > 500} == {}
