"""Run the notebooks of the documentation and keep what they print and draw.

    python benchmarks/notebooks.py [NAME ...]

Without names, all of them. Tutorials run in an empty folder, as on a reader's machine, the gallery
at the root of the checkout, where the results lie.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

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
            kept = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = list(_merged(kept))
    return notebook


def _merged(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """Yield outputs; what is printed piece by piece is one of them."""
    for is_text, group in itertools.groupby(outputs, key=lambda o: o.output_type == "stream"):
        if is_text:
            text = "".join(piece.text for piece in group)
            yield nbformat.v4.new_output("stream", name="stdout", text=text)
        else:
            for piece in group:
                piece.metadata = NotebookNode()
                if "image/png" in piece.data:
                    piece.data["image/png"] = _small(piece.data["image/png"])
                yield piece


def _small(picture: str) -> str:
    """Return a picture with a palette: a third of the size, for the history of the repository."""
    written = io.BytesIO()
    read = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    read.quantize(256).save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


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
