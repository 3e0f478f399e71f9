"""The documentation is built without a warning; its pages load nothing from a network, and every
link leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.snippets import ROOT

pytestmark = pytest.mark.docs

LOADING = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
}
_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """What a page loads, where it links to, and the places in it that a link may name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if value is None:
                continue
            if (tag, key) in LOADING:
                self.loads.append(value)
            elif (tag, key) == ("a", "href"):
                self.links.append(value)
            elif key in ("id", "name"):
                self.places.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(folder / "trees"),
         str(ROOT / "docs"), str(folder / "site")],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_there(pages: dict[Path, Page], site: Path) -> None:
    written = {path.relative_to(site).with_suffix("") for path in pages}
    sources = {path.relative_to(ROOT / "docs").with_suffix("") for path in written_pages()}
    assert sources <= written
    assert {path.name for path in written if path.parts[0] == "reference"} >= {
        "cli", "config", "primitives", "mutations", "metrics", "seed-programs",
    }  # fmt: skip


def written_pages() -> Iterator[Path]:
    yield from (ROOT / "docs").rglob("*.md")


def test_nothing_is_loaded_from_a_network(pages: dict[Path, Page], site: Path) -> None:
    loaded = {url for page in pages.values() for url in page.loads}
    assert len(loaded) > 5
    sheets = [match.group(1) or match.group(2) for sheet in site.rglob("*.css")
              for match in _URL.finditer(sheet.read_text(encoding="utf-8"))]  # fmt: skip
    assert not [url for url in (*loaded, *sheets) if away(url)]


def away(url: str) -> bool:
    return url.startswith("//") or urlsplit(url).scheme not in ("", "data")


def test_every_link_leads_somewhere(pages: dict[Path, Page]) -> None:
    dead = [
        f"{path.name}: {link}"
        for path, page in pages.items()
        for link in (*page.links, *page.loads)
        if not away(link) and not found(path, link, pages)
    ]
    assert dead == []
    assert sum(len(page.links) for page in pages.values()) > 100


def found(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme == "data":
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return False
    known = pages.get(target)
    return not parts.fragment or known is None or unquote(parts.fragment) in known.places


def test_the_reference_is_that_of_the_code(site: Path) -> None:
    import primevo
    from docs.reference import keys
    from primitives.ops.table import PRIMITIVES
    from search.cli.app import app
    from search.config.schema import CampaignConfig
    from workers.spec.metrics import METRICS

    read = {name: (site / "reference" / f"{name}.html").read_text(encoding="utf-8")
            for name in ("cli", "python", "config", "primitives", "metrics")}  # fmt: skip
    verbs = [command.name for command in app.registered_commands]
    assert len(verbs) > 15 and all(f'id="primevo-{verb}"' in read["cli"] for verb in verbs)
    assert all(f">{name}<" in read["metrics"] for name in METRICS)
    assert all(f"primevo.{name}" in read["python"] for name in primevo.__all__)
    assert "Campaign.ask(self, count: int = 1) -> list[Asked]" in unescape(read["python"])
    leaves = list(keys(CampaignConfig))
    assert len(leaves) > 50
    for key, _ in leaves:
        part, _, leaf = key.rpartition(".")
        assert f">{part}<" in read["config"] or not part
        assert f">{leaf}<" in read["config"]
    rows = re.findall(r"<tr", read["primitives"])
    assert len(rows) == len(PRIMITIVES) + 1
