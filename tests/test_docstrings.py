"""Docstrings and signatures name the same parameters, in the same order."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "spikewvat"
ENTRY = re.compile(r"^ {4}(\*{0,2}\w+)(?: \(.*?\))?:", re.MULTILINE)


def _documented(doc: str) -> list[str] | None:
    found = re.search(r"^Args:\n((?: {4}.*\n?|\n(?= {4}))+)", doc, re.MULTILINE)
    return ENTRY.findall(found[1]) if found else None


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    of = function.args
    plain = [a.arg for a in [*of.posonlyargs, *of.args] if a.arg not in {"self", "cls"}]
    star = [f"*{of.vararg.arg}"] if of.vararg else []
    double = [f"**{of.kwarg.arg}"] if of.kwarg else []
    return [*plain, *star, *(a.arg for a in of.kwonlyargs), *double]


def _functions(tree: ast.AST, name: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, docstring and parameters of public functions and of classes with __init__."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            constructor = [
                n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"
            ]
            if constructor:
                yield (
                    f"{name}.{node.name}",
                    ast.get_docstring(node) or "",
                    _parameters(*constructor),
                )
            yield from _functions(node, f"{name}.{node.name}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name}.{node.name}", ast.get_docstring(node) or "", _parameters(node)


FILES = sorted(PACKAGE.rglob("*.py"))


def test_args_sections_name_exactly_the_parameters() -> None:
    differing = [
        f"{name}: documented {documented}, has {parameters}"
        for path in FILES
        for name, doc, parameters in _functions(ast.parse(path.read_text()), path.stem)
        if (documented := _documented(doc)) is not None and documented != parameters
    ]
    assert not differing, "\n".join(differing)


@pytest.mark.parametrize("doc", ["One.\n\nArgs:\n    a: First.\n        More: b.\n    *c: Rest.\n"])
def test_a_docstring_is_read_entry_by_entry(doc: str) -> None:
    assert _documented(doc) == ["a", "*c"]
