"""Notebooks as pages, and formulas as pictures, which need neither a script nor a font."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import nbformat
import ziamath
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbformat import NotebookNode

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)
_EM = 16.0
_SEARCH = {"examples": {"exclude": True}, "reference/python": {"boost": 0.5}}


class NotebookFile(File):
    """A notebook that is a page: its cells as Markdown, so that links are checked like others."""

    def is_documentation_page(self) -> bool:
        """Say that this is a page."""
        return True

    @property
    def content_string(self) -> str:
        """The Markdown of all cells."""
        notebook = nbformat.read(self.abs_src_path, as_version=4)
        return "\n\n".join(part for cell in notebook.cells for part in _parts(cell))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make pages of notebooks."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(file)
        files.append(
            NotebookFile(file.src_uri, config.docs_dir, config.site_dir, config.use_directory_urls)
        )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the search find explanations before docstrings, and no table of the example report."""
    folder = page.file.src_uri.rpartition("/")[0]
    if folder in _SEARCH:
        page.meta["search"] = _SEARCH[folder]
    return markdown


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw formulas."""
    return _FORMULA.sub(_drawn, content)


def _drawn(found: re.Match[str]) -> str:
    """Draw a formula in the size and colour of the text around it."""
    latex = html.unescape(found[2]).strip()
    inline = found[1] == "span"
    formula = ziamath.Latex(latex, size=_EM, inline=inline, color="currentColor", title=latex)
    picture = formula.svgxml()
    for side in ("width", "height"):
        picture.set(side, f"{float(picture.get(side)) / _EM:.3f}em")
    picture.set("style", f"vertical-align: {formula.getyofst() / _EM:.3f}em")
    text = ElementTree.tostring(picture, encoding="unicode")
    return text if inline else f'<div class="formula">{text}</div>'


def _parts(cell: NotebookNode) -> Iterator[str]:
    """Yield what a cell holds: text, or code and what it prints and draws."""
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    for output in cell.outputs:
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "image/png" in data:
            address = "data:image/png;base64," + "".join(data["image/png"].split())
            yield f'<img alt="Picture that the code above draws" src="{address}">'
        else:
            yield f"```{{.text .output}}\n{data['text/plain'].rstrip()}\n```"
