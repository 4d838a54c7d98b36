"""Notebooks as pages, and formulas as MathML, which browsers draw without a script."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)


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
            NotebookFile(
                file.src_uri, config.docs_dir, config.site_dir, config.use_directory_urls
            )
        )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep the tables of the example report out of the search."""
    if page.file.src_uri.startswith("examples/"):
        page.meta["search"] = {"exclude": True}
    return markdown


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw formulas."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    display = "inline" if found[1] == "span" else "block"
    return convert(html.unescape(found[2]), display=display)


def _parts(cell: nbformat.NotebookNode) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    for output in cell.outputs:
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "image/png" in data:
            image = "".join(data["image/png"].split())
            yield f'<img class="output" alt="Output of the code above" src="data:image/png;base64,{image}">'
        else:
            text = data["text/plain"].rstrip("\n")
            yield f"```{{.text .output}}\n{text}\n```"
