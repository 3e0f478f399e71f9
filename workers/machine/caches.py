"""Where this machine keeps what is made once and used again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """`PRIMEVO_CACHE`, or `primevo` in the user's cache folder."""
    if chosen := os.environ.get("PRIMEVO_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "primevo"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "primevo"
