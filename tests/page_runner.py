"""Run the examples of a page in a bare environment; prints what each shows and says, as JSON.

    python -I page_runner.py PAGE

Needs nothing but what the examples need. Comparing the two is up to the caller.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path

_BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)


def examples(page: Path) -> list[tuple[str, str | None]]:
    """Return the code of each example with what it prints according to the page, if it says so."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return [(code, said if said else None) for code, said in _BLOCK.findall(text)]
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), printed(cell)) for cell in cells]


def printed(cell: dict) -> str:
    """Return what a cell of a notebook has written to standard output."""
    streams = [out for out in cell["outputs"] if out.get("name") == "stdout"]
    return "".join("".join(out["text"]) for out in streams)


def main(page: Path) -> None:
    """Run the examples one after the other, as a reader would paste them."""
    names = {"__name__": "__page__"}
    found = []
    for code, said in examples(page):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(code, str(page), "exec"), names)
        found.append({"printed": output.getvalue(), "said": said})
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
