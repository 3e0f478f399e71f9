"""Every snippet of README, CONTRIBUTING and docs/ does what its page says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from search.cli import running
from tests.cli.instant import InstantPool
from tests.docs.snippets import ROOT, examples, pages, problems, run
from tests.plugins.conftest import forgetful
from workers.export import export
from workers.machine import quiet

__all__ = ["forgetful"]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout as a reader has it: the example configs, no database, the plug-in example where
    Python finds it."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "plugins" / "example"))
    return tmp_path


def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker starts, and an export, which would train for its weights, writes nothing."""
    monkeypatch.setattr(running, "Pool", InstantPool)
    monkeypatch.setattr(quiet, "load_framework", lambda backend: None)
    monkeypatch.setattr(export, "export_candidate", lambda dna, to, **_: [to / "card.json"])


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    assert problems(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_a_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instant(monkeypatch)
    run(page)


@pytest.mark.docs
def test_a_first_campaign_with_real_workers(folder: Path) -> None:
    assert run(ROOT / "docs" / "first-campaign.md", real=True) > 3


class TestTheMechanism:
    """Blocks that are wrong are told."""

    @pytest.mark.parametrize(
        "block",
        [
            "```sh\nprimevo seeds nosuch\n```",
            "```sh\nfalse\n```",
            "```yaml\nsearch: {candidates: none}\n```",
            "```python\nassert False\n```",
            "```dna\ndims d0=8\nconstants c0=0.0\n\nmain(x, y):\n  out = T-MAT MUL(x, x)\n```",
            "```json\n{,}\n```",
            "```toml\n=\n```",
            "<!-- excerpts: tests/plugins/example -->\n```python\nassert True\n```",
        ],
    )
    def test_a_wrong_block(self, block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        instant(monkeypatch)
        page = folder / "page.md"
        page.write_text(block + "\n")
        [example] = examples(page)
        with pytest.raises(Exception):  # noqa: B017  (each language has its own)
            example.evaluate()

    def test_a_block_without_a_language_or_a_reason(self) -> None:
        assert problems("```\nx\n```\n") == ["a fence says ''"]
        assert problems("```ruby\nx\n```\n") == ["a fence says 'ruby'"]
        assert problems('<!-- skip: next "it would take an hour" -->\n```sh\nx\n```\n') == []
        for skip in ("<!-- skip: next -->", '<!-- skip: start "it would take an hour" -->'):
            assert problems(f"{skip}\n```sh\nx\n```\n")

    def test_a_skipped_block_is_not_run(self, folder: Path) -> None:
        page = folder / "page.md"
        page.write_text('<!-- skip: next "it would take an hour" -->\n\n```python\n1 / 0\n```\n')
        assert run(page) == 0
