"""Run the notebooks of the documentation and keep what they print and draw.

    python benchmarks/notebooks.py [NAME ...]

Without names, all of them. A tutorial runs in an empty folder, as on a reader's machine; the gallery
runs at the root of the checkout, where the results lie.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "docs").rglob("*.ipynb"))}
LIMIT = 600
"""Seconds for a cell, on a busy machine."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def executed(path: Path, *, claim: str = "") -> NotebookNode:
    """Return a notebook with its output anew, from a fresh kernel.

    Args:
        path: The notebook; it is not changed.
        claim: Code that runs after the last cell, to check what the notebook says.

    Raises:
        CellExecutionError: If a cell or the claim raises.
    """
    notebook = nbformat.read(path, as_version=4)
    if claim:
        notebook.cells.append(nbformat.v4.new_code_cell(claim))
    with tempfile.TemporaryDirectory() as empty:
        folder = empty if path.parent.name == "tutorials" else str(ROOT)
        client = NotebookClient(
            notebook, timeout=LIMIT, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    return notebook


def plain(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook without what changes from run to run and from machine to machine."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = list(_merged(cell.outputs))
    return notebook


def _merged(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """Yield outputs; what is printed piece by piece is one of them."""
    for stream, group in itertools.groupby(outputs, key=lambda output: output.get("name", "")):
        pieces = list(group)
        if stream:
            yield nbformat.v4.new_output("stream", name=stream, text="".join(o.text for o in pieces))
        else:
            for piece in pieces:
                if "data" in piece:
                    piece.metadata = NotebookNode()
                yield piece


def main() -> None:
    """Run the notebooks that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *NOTEBOOKS])
    for name in parser.parse_args().names or NOTEBOOKS:
        path = NOTEBOOKS[name]
        nbformat.write(plain(executed(path)), path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
