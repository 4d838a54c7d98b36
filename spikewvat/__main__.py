"""``python -m spikewvat``."""

from spikewvat.cli import app

if __name__ == "__main__":
    app(prog_name="spikewvat")
