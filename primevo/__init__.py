"""Primevo: evolve Transformer blocks, remember every candidate, export what wins.

    import primevo

    campaign = primevo.Campaign("quickstart.yaml").run()
    campaign.best

Importing this imports nothing else: each name brings in what it needs when it is first used, and
TensorFlow, JAX and Ray come only when something is trained or exported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.api.campaign import Campaign as Campaign
    from search.api.campaign import open_campaign as open_campaign
    from search.api.candidate import Asked as Asked
    from search.api.candidate import Candidate as Candidate
    from search.api.curve import Curves as Curves
    from search.api.opening import load_config as load_config
    from search.api.opening import load_program as load_program
    from search.api.program import Program as Program
    from search.api.programs import Evaluation as Evaluation
    from search.api.programs import evaluate as evaluate
    from search.api.programs import export as export
    from search.api.programs import mutate as mutate
    from search.api.programs import seeds as seeds
    from search.api.status import Status as Status
    from search.api.studies import Comparison as Comparison
    from search.api.studies import Explanation as Explanation
    from search.api.studies import Simplification as Simplification
    from search.api.studies import compare as compare
    from search.api.studies import explain as explain
    from search.api.studies import simplify as simplify
    from search.api.table import Table as Table
    from search.config.schema import CampaignConfig as CampaignConfig
    from search.errors import PrimevoError as PrimevoError
    from workers.spec.outcome import Outcome as Outcome

_HOMES = {
    "Asked": "search.api.candidate",
    "Campaign": "search.api.campaign",
    "CampaignConfig": "search.config.schema",
    "Candidate": "search.api.candidate",
    "Comparison": "search.api.studies",
    "Curves": "search.api.curve",
    "Evaluation": "search.api.programs",
    "Explanation": "search.api.studies",
    "Outcome": "workers.spec.outcome",
    "PrimevoError": "search.errors",
    "Program": "search.api.program",
    "Simplification": "search.api.studies",
    "Status": "search.api.status",
    "Table": "search.api.table",
    "compare": "search.api.studies",
    "evaluate": "search.api.programs",
    "explain": "search.api.studies",
    "export": "search.api.programs",
    "load_config": "search.api.opening",
    "load_program": "search.api.opening",
    "mutate": "search.api.programs",
    "open_campaign": "search.api.campaign",
    "seeds": "search.api.programs",
    "simplify": "search.api.studies",
}
"""Each public name and the module that defines it."""

__all__ = [
    "Asked",
    "Campaign",
    "CampaignConfig",
    "Candidate",
    "Comparison",
    "Curves",
    "Evaluation",
    "Explanation",
    "Outcome",
    "PrimevoError",
    "Program",
    "Simplification",
    "Status",
    "Table",
    "compare",
    "evaluate",
    "explain",
    "export",
    "load_config",
    "load_program",
    "mutate",
    "open_campaign",
    "seeds",
    "simplify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("primevo")
    if name not in _HOMES:
        raise AttributeError(f"module 'primevo' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})
