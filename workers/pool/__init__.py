"""Processes that run jobs. Read `worker` (one of them), `local`, `cluster` (Ray), then `pool`."""

import os

# Ray reads these when it is imported. No telemetry; no copy of the environment under `uv run`; no
# notes on dead workers in the middle of a progress display (the pool reports them).
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")
