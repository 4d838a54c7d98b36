"""A page in headless Chromium: its document after loading, its pictures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_PROBE = """
<script>
window.addEventListener("error", event => window.problems.push(event.message));
window.addEventListener("load", () => {
  const found = (() => { %s })();
  const pre = document.createElement("pre");
  pre.id = "probe";
  pre.textContent = JSON.stringify({ found, problems: window.problems });
  document.body.append(pre);
});
</script>
"""


def chromium() -> str:
    """Return the browser; skips where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


def run(address: str, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open an address without a window."""
    return subprocess.run(
        [
            *(chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--enable-logging=stderr", "--virtual-time-budget=5000", "--hide-scrollbars"),
            *(f"--user-data-dir={profile}", *options, address),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def document(address: str, profile: Path) -> str:
    """Return the document as it is after scripts have run; a message on the console is an error."""
    done = run(address, profile, "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def ask(page: Path, script: str, profile: Path) -> Any:
    """Return what the body of a JavaScript function returns on the loaded page."""
    text = page.read_text(encoding="utf-8")
    probed = page.with_name(f"probed-{page.name}")
    start = "<script>window.problems = [];</script>"
    text = text.replace("<head>", f"<head>{start}", 1).replace(
        "</body>", f"{_PROBE % script}</body>"
    )
    probed.write_text(text, encoding="utf-8")
    found = re.search(r'<pre id="probe">(.*?)</pre>', document(probed.as_uri(), profile), re.DOTALL)
    assert found is not None
    answer = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert answer["problems"] == []
    return answer["found"]
