"""Run the Python examples of the README and put what they print below each.

    python benchmarks/readme.py

Takes about a minute on one core.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"
_EXAMPLE = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """Return each example with what it prints according to the README."""
    return _EXAMPLE.findall(README.read_text())


def run(codes: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Run examples one after the other, as a reader would paste them.

    Returns:
        All their names, and what each has printed.
    """
    names: dict[str, Any] = {"__name__": "__readme__"}
    printed = []
    for code in codes:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(code, str(README), "exec"), names)
        printed.append(output.getvalue())
    return names, printed


def main() -> None:
    """Put the output into the README."""
    _, printed = run([code for code, _ in examples()])
    output = iter(printed)
    text = _EXAMPLE.sub(
        lambda match: f"```python\n{match[1]}```\n\n```text\n{next(output)}```\n",
        README.read_text(),
    )
    README.write_text(text)


if __name__ == "__main__":
    main()
