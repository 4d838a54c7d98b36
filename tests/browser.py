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
  if (window.parent !== window) window.parent.postMessage(pre.textContent, "*");
});
</script>
"""
_FRAME = """<!doctype html><body>
<script>
window.addEventListener("message", event => {
  const pre = document.createElement("pre");
  pre.id = "probe";
  pre.textContent = event.data;
  document.body.append(pre);
});
</script>
<iframe style="border: 0; width: %dpx; height: 900px" src="%s"></iframe></body>
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


def document(address: str, profile: Path, *options: str) -> str:
    """Return the document as it is after scripts have run; a message on the console is an error."""
    done = run(address, profile, "--dump-dom", *options)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def ask(page: Path, script: str, profile: Path, *options: str, width: int | None = None) -> Any:
    """Return what the body of a JavaScript function returns on the loaded page.

    Args:
        page: The page.
        script: The body.
        profile: Folder of the browser.
        *options: Of the browser.
        width: Width of the window; below 500 the page is shown in a frame, as windows cannot be.
    """
    text = page.read_text(encoding="utf-8")
    probed = page.with_name(f"probed-{page.name}")
    start = "<script>window.problems = [];</script>"
    text = text.replace("<head>", f"<head>{start}", 1).replace(
        "</body>", f"{_PROBE % script}</body>"
    )
    probed.write_text(text, encoding="utf-8")
    if width is not None:
        frame = page.with_name(f"framed-{page.name}")
        frame.write_text(_FRAME % (width, probed.name), encoding="utf-8")
        probed = frame
    shown = document(probed.as_uri(), profile, *options)
    found = re.search(r'<pre id="probe">(.*?)</pre>', shown, re.DOTALL)
    assert found is not None
    answer = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert answer["problems"] == []
    return answer["found"]
