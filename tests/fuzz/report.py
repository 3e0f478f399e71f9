"""What a fuzzing run has seen."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass
class Seen:
    """One target's share: how many inputs, how many were taken, how often each kind of refusal was
    told, the longest that an input took, and the findings by where they came from."""

    executions: int = 0
    taken: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0
    refusals: Counter[str] = field(default_factory=Counter)
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def found(self, data: bytes, error: BaseException) -> bool:
        """Keeps the shortest input of each finding; whether it is a new one."""
        key = place(error)
        known = self.findings.get(key)
        if known is None or len(data) < len(known["input"]) // 2:
            text = "".join(traceback.format_exception_only(error)).strip()[:300]
            self.findings[key] = {"error": text, "input": data.hex()}
        return known is None

    def as_json(self) -> dict[str, Any]:
        return {
            "executions": self.executions,
            "taken": self.taken,
            "distinct_refusals": len(self.refusals),
            "slowest_s": round(self.slowest_s, 2),
            "seconds": round(self.seconds),
            "commonest_refusals": [text for text, _ in self.refusals.most_common(5)],
            "findings": self.findings,
        }


def kind(refusal: str) -> str:
    """A refusal without what it says of its input: numbers, and what stands in quotes."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", refusal[:400])
    return re.sub(r"[0-9]+", "0", text)[:80]


def place(error: BaseException) -> str:
    """The kind of an exception, and the last line of this project that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames
           if one.filename.startswith(str(ROOT)) and "/fuzz/" not in one.filename]  # fmt: skip
    last = own[-1] if own else frames[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
