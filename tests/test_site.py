"""The site: every public name has its place, pages build, nothing is loaded from elsewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import spikewvat

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference" / "python"


def documented() -> list[str]:
    """Return the modules whose docstrings the reference shows."""
    pages = "\n".join(page.read_text() for page in sorted(REFERENCE.glob("*.md")))
    return re.findall(r"^::: (\S+)$", pages, re.MULTILINE)


def public_packages() -> Iterator[str]:
    """Yield the packages that list public names."""
    for path in sorted((ROOT / "spikewvat").rglob("__init__.py")):
        if path.parent.name != "spikewvat" and "__all__" in path.read_text():
            yield ".".join(path.parent.relative_to(ROOT).parts)


def test_the_reference_has_every_public_package_once():
    modules = documented()
    assert sorted(set(modules)) == sorted(modules)
    assert set(public_packages()) <= set(modules)


def test_the_reference_has_functions_that_share_the_name_of_their_file():
    """The site takes such a name in a package for the file."""
    shared = {
        f"{package}.{name}.{name}"
        for package in public_packages()
        for name in importlib.import_module(package).__all__
        if (ROOT / package.replace(".", "/") / f"{name}.py").exists()
    }
    assert len(shared) > 2
    assert shared <= set(documented())


@pytest.mark.parametrize("name", spikewvat.__all__)
def test_the_reference_has_every_public_name(name):
    home = f"spikewvat.{spikewvat._HOME_OF[name]}"
    assert home in documented()
    module = importlib.import_module(home)
    assert name in getattr(module, "__all__", vars(module))
    assert f"`{name}`" in (REFERENCE / "index.md").read_text()


def test_the_gallery_has_every_picture():
    drawn = re.compile(r"^def ([a-z]\w+)\((?:[^)]|\)(?! ->))*\) -> Figure:", re.MULTILINE)
    found = [
        name
        for path in (ROOT / "spikewvat").rglob("*.py")
        for name in drawn.findall(path.read_text())
    ]
    assert len(found) > 10
    gallery = (ROOT / "docs" / "gallery.ipynb").read_text()
    assert [name for name in found if f".{name}(" not in gallery] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search("^WARNING", done.stderr, re.MULTILINE)
    return out


@pytest.mark.slow
def test_the_built_site_has_every_public_name(site):
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    names = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    public = [f"spikewvat.{name}" for name in spikewvat.__all__]
    for package in public_packages():
        public += [f"{package}.{name}" for name in importlib.import_module(package).__all__]
    # see test_the_reference_has_functions_that_share_the_name_of_their_file
    missing = [path for path in public if not {path, f"{path}.{path.split('.')[-1]}"} & names]
    assert missing == []


@pytest.mark.slow
def test_pages_show_no_markup_and_load_nothing_from_elsewhere(site):
    pages = [page for page in site.rglob("*.html") if "examples" not in page.parts]
    assert len(pages) > 50
    for page in pages:
        text = page.read_text()
        shown = re.sub(r"<(pre|code|script|title)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r":(class|func|meth|math):`|\.\. math::|\$\$|^::: ", shown), page
        loaded = r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(http[^"]*)'
        assert re.findall(loaded, text) == [], page
