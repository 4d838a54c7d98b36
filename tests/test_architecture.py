"""The house: floors, and one file per optional package."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import spikewvat

PACKAGE = Path(__file__).parent.parent / "spikewvat"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    0: (
        "errors",
        "memory",
        "processes",
        "weights",
        "holding",
        "pieces",
        "files",
        "formatting",
        "serialisation",
        "validation",
        "devices",
        "perturbations",
        "spiking",
    ),
    1: ("adapters",),
    2: ("training", "conversion"),
    3: ("data", "robustness", "results", "provenance"),
    4: ("comparison",),
    5: ("lab",),
    6: ("cli", "__main__"),
}
LIBRARY = 4  # the package itself hands out names of the floors up to here
CORE = {"spikewvat", "torch", "numpy", *sys.stdlib_module_names}
OPTIONAL = {
    "snntorch": "adapters/snntorch.py",
    "spikingjelly": "adapters/spikingjelly.py",
    "tonic": "data/nmnist.py",
    "torchvision": "lab/models/vision.py",
    "PIL": "data/pictures.py",
    "jinja2": "lab/report/page.py",
    "cloudpickle": "processes.py",
    "joblib": "lab/suites/pool.py",
    "filelock": "lab/recipes/lock.py",
    "lightning_fabric": "lab/trainer/trainer.py",
    "matplotlib": "robustness/canvas.py",
    "pydantic": "validation.py",
    "pydantic_core": "validation.py",
    "rich": "lab/trainer/console.py",
    "safetensors": "files.py",
    "sklearn": "data/embedded.py",
    "tensorboard": "lab/trainer/trainer.py",
    "tomli_w": "files.py",
    "typer": "cli/base.py",
    "distributed": "lab/suites/pool.py",
}


def floor_of(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    for floor, names in FLOORS.items():
        if part in names:
            return floor
    if part == "":
        return LIBRARY
    raise AssertionError(f"{module} has no floor: add it to FLOORS")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def is_module(name: str) -> bool:
    place = PACKAGE.parent / name.replace(".", "/")
    return place.with_suffix(".py").exists() or place.is_dir()


@functools.cache
def imports_of(path: Path, *, for_types: bool = True) -> list[str]:
    """Return what a file imports anywhere, through ``require`` too.

    Args:
        path: The file.
        for_types: Also what only a type checker imports.
    """
    return [name for node in nodes_of(path, for_types=for_types) for name in names_in(node)]


def nodes_of(path: Path, *, for_types: bool = True) -> Iterator[ast.AST]:
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        unseen = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        if for_types or not unseen:
            yield node
            todo += ast.iter_child_nodes(node)


def names_in(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [required] if (required := required_in(node)) else []


def required_in(node: ast.AST) -> str | None:
    """Return the module that a call of ``require`` asks for."""
    called = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require"
    if called and node.args and isinstance(node.args[0], ast.Constant):
        return node.args[0].value
    return None


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
def test_one_file_imports_each_optional_package(package, home):
    importing = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        for imported in imports_of(path, for_types=False)
        if imported.split(".")[0] == package
    }
    assert importing == {home}
    required = {(required_in(node) or "").split(".")[0] for node in nodes_of(PACKAGE / home)}
    assert package in required, f"{home}: say with require() how to install {package}"


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


def test_every_optional_package_has_a_row():
    imported = {name.split(".")[0] for path in FILES for name in imports_of(path)}
    assert imported - CORE == set(OPTIONAL)


def loaded_after(code: str) -> set[str]:
    """Return the packages that a new process has loaded after some code."""
    code += "\nimport sys; print(*{m.split('.')[0] for m in sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_library_loads_nothing_optional():
    loaded = loaded_after("from spikewvat import *\nimport spikewvat.robustness")
    assert "torch" in loaded
    assert not loaded & set(OPTIONAL)


@pytest.mark.parametrize("words", [(), ("compare",), ("bench",), ("data", "check")])
def test_help_waits_for_nothing(words):
    """Neither for torch nor for anything optional but typer."""
    code = f"""
from spikewvat.cli import app
try:
    app({[*words, "--help"]})
except SystemExit as end:
    assert end.code == 0
"""
    loaded = loaded_after(code)
    assert "typer" in loaded
    own = {"typer"} | (
        {"pydantic", "pydantic_core"} if words else set()
    )  # typer checks some options with it
    assert not loaded & ({"torch", "numpy", *OPTIONAL} - own)


def test_public_names_are_there_when_they_are_asked_for():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    checked = {
        alias.asname: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(checked) == spikewvat.__all__
    for name, module in checked.items():
        assert getattr(spikewvat, name) is getattr(importlib.import_module(module), name)
    assert set(spikewvat.__all__) <= set(dir(spikewvat))
    with pytest.raises(AttributeError, match="module 'spikewvat' has no attribute 'Gausian'"):
        _ = spikewvat.Gausian


def test_files_stay_small():
    long = {str(p): len(p.read_text().splitlines()) for p in FILES}
    assert {name: n for name, n in long.items() if n > 500} == {}
