"""The page in a real browser: pytest -m browser. Screenshots stay in PRIMEVO_TEST_SCREENSHOTS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.report.page import render
from search.storage.store import Store
from tests.report.browser import Browser, Page, chromium
from tests.report.synthetic import write

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no chromium here: apt install chromium"),
]

DRAWN = (
    "[...document.querySelectorAll('.chart')].map((each) => each.querySelectorAll('svg').length)"
)
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
AXIS_TEXT = "getComputedStyle(document.querySelector('.chart .xtick text')).fill"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(str(chromium()), tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.page() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of a plain campaign, of one whose every text is a script, and of a long one."""
    folder = tmp_path_factory.mktemp("reports")
    with Store.open(f"sqlite:///{folder}/primevo.db") as store:
        for name, count, hostile in (
            ("plain", 120, False), ("<script>alert(1)</script>", 60, True), ("long", 20_000, False),
        ):  # fmt: skip
            write(store, name, count, hostile)
            file = "hostile" if hostile else name
            (folder / f"{file}.html").write_text(render(store, name), encoding="utf-8")
    return folder


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_it_draws_every_chart_and_asks_for_nothing(
    page: Page, folder: Path, width: int, dark: bool
) -> None:
    page.emulate(width, 900, dark)
    page.open(folder / "plain.html")
    drawn = page.value(DRAWN)
    assert len(drawn) == 10
    assert all(drawn)
    assert page.requests == []
    assert page.errors == []
    assert page.value(TOO_WIDE) <= 0
    keep(page, f"plain-{width}-{'dark' if dark else 'light'}")


def test_charts_follow_the_system_when_it_turns_dark(page: Page, folder: Path) -> None:
    page.emulate(1280, 900, dark=False)
    page.open(folder / "plain.html")
    before = page.value(BACKGROUND), page.value(AXIS_TEXT)
    page.emulate(1280, 900, dark=True)
    page.value("new Promise((done) => setTimeout(done, 500))")
    after = page.value(BACKGROUND), page.value(AXIS_TEXT)
    assert before[0] == "rgb(255, 255, 255)"
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_nothing_of_the_database_runs(page: Page, folder: Path) -> None:
    page.emulate(1280, 900, dark=False)
    page.open(folder / "hostile.html")
    assert page.value("document.querySelector('h1').textContent") == "<script>alert(1)</script>"
    assert "Page.javascriptDialogOpening" not in {each["method"] for each in page._browser.events}
    assert page.errors == []
    scripts = "[...document.querySelectorAll('script:not([type])')].length"
    assert page.value(scripts) == 2
    assert "<script>alert('mine')</script>" in page.value("document.body.innerText")
    labels = "[...document.querySelectorAll('#gains .ytick text')].map((each) => each.textContent)"
    assert page.value(labels) == ["<script>alert('mine')</script>"]
    keep(page, "hostile")


def test_a_script_that_got_in_would_not_run(page: Page, folder: Path, tmp_path: Path) -> None:
    """The page's policy is a second wall."""
    text = (folder / "plain.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(
        text.replace("<main>", "<main><script>window.mine = 1</script>"), encoding="utf-8"
    )
    page.open(tmp_path / "page.html")
    assert page.value("window.mine") is None
    assert any("Content Security Policy" in error for error in page.errors)


def test_a_long_campaign_is_drawn(page: Page, folder: Path) -> None:
    page.emulate(1280, 900, dark=False)
    page.open(folder / "long.html")
    assert all(page.value(DRAWN))
    points = page.value("document.querySelectorAll('#progress .points path').length")
    assert 3000 < points < 5000
    assert page.errors == []


def keep(page: Page, name: str) -> None:
    folder = os.environ.get("PRIMEVO_TEST_SCREENSHOTS")
    if folder:
        page.screenshot(Path(folder) / f"{name}.png")
