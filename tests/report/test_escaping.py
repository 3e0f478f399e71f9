"""Whatever words a database holds, the page is the same page: the same elements with the same
attributes, of which no word has become one, and charts whose data can be read."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from search.report import charts
from search.report.page import render
from search.storage.store import Store
from tests.report import synthetic

WORDS = (
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "<!--<script>", "-->",
    "</title><svg onload=alert(1)>", "</style>", "]]>", "\" onclick=\"alert(1)", "' x='",
    "{{ 7*7 }}", "{% raw %}", "${7*7}", "&lt;script&gt;", "&#60;b&#62;", "javascript:alert(1)",
    "\u2028\u2029", "\u202ertl", "\\u003cscript\\u003e", "<a href='https://x.y'>", "<b>bold",
)  # fmt: skip
PLAIN = "word"


class Structure(HTMLParser):
    """Every tag with its attributes, in order; comments and declarations; the scripts' contents."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[object] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self._script: dict[str, str | None] | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))
        if tag in ("script", "style"):
            self._script = dict(attrs)
            self.scripts.append((self._script, ""))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(f"/{tag}")
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.texts.append(data)
        else:
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)

    def handle_comment(self, data: str) -> None:
        self.found.append(("comment", data))

    def handle_decl(self, decl: str) -> None:
        self.found.append(("declaration", decl))


def page_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, number: int) -> str:
    """A campaign called so, with the word in each of its texts."""
    monkeypatch.setattr(synthetic, "HOSTILE", word)
    with Store.open(f"sqlite:///{tmp_path}/{number}.db") as store:
        synthetic.write(store, word, 20, hostile=True)
        return render(store, word)


def test_words_stay_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.report.page.get_plotlyjs", lambda: "/* the library */")
    plain = Structure(page_with(tmp_path, monkeypatch, PLAIN, 0))
    for number, word in enumerate(("".join(WORDS[first::4]) for first in range(4)), 1):
        text = page_with(tmp_path, monkeypatch, word, number)
        made = Structure(text)
        if "\u2028" in word:  # a program's lines end there, so that there are more of them
            assert {str(each) for each in made.found} <= {str(each) for each in plain.found}
        else:
            assert made.found == plain.found, word
        assert "".join(made.texts).count(word) > 10, word
        assert len(made.scripts) == len(plain.scripts)
        for (attributes, content), (_, before) in zip(made.scripts, plain.scripts, strict=True):
            if attributes.get("type") == "application/json":
                assert not set(content) & set("<>&\u2028\u2029"), word
                json.loads(content)
            else:
                assert content == before, "no word comes into a script or a style"


@pytest.mark.parametrize("word", WORDS)
def test_charts_are_given_no_markup(word: str) -> None:
    """Plotly reads a little HTML in its texts."""
    made = charts.plain(word)
    assert not re.search(r"<[a-zA-Z/!]", made), made
