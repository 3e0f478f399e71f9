"""Sphinx builds the documentation: `sphinx-build -W docs site`. No network is needed to build it or
to read it.

The sidebar is `index.md`: its headings and links, in their order. Pages that it does not name yet
stand under "More". The reference pages are made from the code at every build.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pygments.lexer import RegexLexer, bygroups
from pygments.token import Comment, Keyword, Name, Number, Operator, Text
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

project = "Primevo"
copyright = "The Primevo developers"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "Primevo"
html_copy_source = False
html_show_sourcelink = False
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions: list[str] = []
suppress_warnings = ["misc.highlighting_failure"]  # YAML with an ellipsis, JSON with a comment

_HEADING = re.compile(r"^## (?P<title>.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\((?P<page>[\w/-]+)\.md\)")
_RELATIVE = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<path>\.\./[^)#]+)(#[^)]*)?\)")


class Program(RegexLexer):
    """Colours for the text form of programs."""

    name = "Primevo program"
    aliases = ("dna",)
    tokens = {  # noqa: RUF012
        "root": [
            (r"#.*$", Comment.Single),
            (r"^(dims|constants|counts|every)\b", Keyword),
            (r"\b(constant|dim|count|branch)(?==)", Name.Attribute),
            (r"[A-Z][A-Z0-9_ -]*(?:[0-9]X[0-9]+)?(?=\()", Name.Builtin),
            (r"([a-z_][a-z0-9_]*)(\()", bygroups(Name.Function, Operator)),
            (r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?\b", Number),
            (r"[=(),:*/]", Operator),
            (r"[a-z_][a-z0-9_]*", Name),
            (r"\s+|.", Text),
        ]
    }


class Plain(RegexLexer):
    """For fences whose language Pygments does not know."""

    name = "Plain"
    aliases = ("mermaid",)
    tokens = {"root": [(r".+\n?|\n", Text)]}  # noqa: RUF012


def make_reference(app: Sphinx) -> None:
    """Writes the reference pages, which git ignores."""
    from reference import pages

    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """The index gets its sidebar. A link to a file of the repository becomes the file's name."""
    if docname == "index":
        source[0] += sidebar(source[0], app.env.found_docs)
    folder = (HERE / docname).parent
    source[0] = _RELATIVE.sub(lambda match: _inside(match, folder), source[0])


def _inside(link: re.Match[str], folder: Path) -> str:
    """The link as it is, or, where it leads to a file outside of the documentation, the file's name
    in the repository."""
    target = (folder / link["path"]).resolve()
    if target.is_relative_to(HERE) or not target.exists():
        return link[0]
    name = target.relative_to(HERE.parent)
    return link["text"] if link["text"].strip("`") == str(name) else f"{link['text']} (`{name}`)"


def sidebar(index: str, found: Any) -> str:
    """A hidden toctree for each heading of the index with links to pages, one for pages that no
    heading names, and the reference. The pages of a folder follow its index."""
    sections = _HEADING.split(index)[1:]
    listed = {
        title: [match["page"] for match in _LINK.finditer(text)]
        for title, text in zip(sections[::2], sections[1::2], strict=True)
    }
    for pages in listed.values():
        for page in [page for page in pages if page.endswith("/index")]:
            beside = (name for name in found if name.startswith(page.removesuffix("index")))
            place = pages.index(page) + 1
            pages[place:place] = sorted(set(beside) - set(pages))
    named = {"index", *(page for pages in listed.values() for page in pages)}
    listed["More"] = sorted(
        page for page in found if page not in named and not page.startswith("reference/")
    )
    listed["Reference"] = sorted(page for page in found if page.startswith("reference/"))
    return "".join(
        "\n\n```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```\n".format(title, "\n".join(pages))
        for title, pages in listed.items()
        if pages
    )


def setup(app: Sphinx) -> None:
    app.add_lexer("dna", Program)
    app.add_lexer("mermaid", Plain)
    app.connect("builder-inited", make_reference)
    app.connect("source-read", read)
