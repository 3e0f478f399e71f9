"""docs/first_campaign.ipynb runs from top to bottom in a kernel of its own, with real workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "first_campaign.ipynb"


def texts(cell: Any) -> str:
    return "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for output in cell.get("outputs", ())
    )


@pytest.mark.slow
def test_the_first_campaign_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = {cell.source: cell for cell in notebook.cells if cell.cell_type == "code"}
    verdict = texts(next(cell for source, cell in shown.items() if "status.verdict" in source))
    assert verdict.startswith(("better - ", "not better - ", "cannot tell - "))
    (curve,) = shown["campaign.curve()"].outputs
    drawn = curve.data["application/vnd.plotly.v1+json"]["data"]
    assert any(trace["name"].startswith("candidate") for trace in drawn)
    assert all(len(trace["y"]) >= 1 for trace in drawn)
    assert "text/html" in shown["campaign.best"].outputs[0].data
    assert (tmp_path / "first_campaign.html").exists()
    assert (tmp_path / "first_campaign.db").exists()
