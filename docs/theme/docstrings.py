"""Docstrings as Markdown: Sphinx's roles become links, its equations formulas."""

from __future__ import annotations

import re
import textwrap

from griffe import Class, Extension, GriffeLoader, Module, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|exc|data|obj):`(~?)([\w.]+)`")
_MATH = re.compile(r"^\.\. math::(.*\n(?:[ ]+\S.*(?:\n|\Z))*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Docstrings(Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Rewrite the docstring of an object of any kind."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value, obj)

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **_: object) -> None:
        """Let links to ``spikewvat.NAME`` find the object, which lives elsewhere."""
        for member in pkg.members.values():
            if member.is_alias and member.target_path.startswith(f"{pkg.path}."):
                member.resolve_target()


def markdown(text: str, obj: Object) -> str:
    """Return the docstring of an object with Markdown in the place of Sphinx's markup."""
    text = _ROLE.sub(lambda found: _link(*found.groups(), obj), text)
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    text = _MATH.sub(_equation, text)
    return _EXAMPLE.sub("Examples:", text)  # griffe's name for a section of doctests


def _link(short: str, name: str, obj: Object) -> str:
    """Return a link; text alone where the site has no page for the name."""
    shown = f"<code>{name.rpartition('.')[2] if short else name}</code>"
    return f'<autoref optional identifier="{_path(name, obj)}">{shown}</autoref>'


def _path(name: str, obj: Object) -> str:
    """Return the full path of a name as the file of an object sees it."""
    first, dot, rest = name.partition(".")
    place: Object | None = obj
    while place is not None:
        if isinstance(place, Class | Module) and first in place.members:
            member = place.members[first]
            return (member.target_path if member.is_alias else member.path) + dot + rest
        place = place.parent
    return name


def _equation(found: re.Match[str]) -> str:
    formula = textwrap.dedent(found[1]).strip()
    if "&=" in formula:
        formula = rf"\begin{{aligned}} {formula} \end{{aligned}}"
    return f"$$\n{formula}\n$$\n"
