"""``spikewvat`` and ``python -m spikewvat``."""

from __future__ import annotations

import sys

from spikewvat import __version__
from spikewvat.errors import MissingExtraError


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    try:
        from spikewvat.cli import app
    except MissingExtraError as error:
        if sys.argv[1:] == ["--version"]:
            print(f"spikewvat {__version__}")
            return
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    app(prog_name="spikewvat")


if __name__ == "__main__":
    main()
