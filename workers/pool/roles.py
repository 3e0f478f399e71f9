"""What the workers of a pool are for: to train, or to compile what others will train."""

from __future__ import annotations

import math
from dataclasses import replace

from workers.machine.devices import Layout
from workers.pool.cluster import Cluster
from workers.pool.crew import Role
from workers.pool.worker import Setup
from workers.spec.pool import PoolSpec

BESIDE = 0.1
"""The part of a worker's share of its GPU that Ray counts for those that compile for it. It is so
small for each of them that all in the pool fit beside one that trains: wherever Ray puts them, a
worker that trains finds its place again."""

SMALLEST = 1e-4
"""The smallest part of a GPU that Ray counts."""


def roles(
    spec: PoolSpec, setup: Setup, cluster: Cluster, ahead: int, compiler: tuple[str, str]
) -> tuple[Role, Role | None]:
    """The roles of those that train and of those that compile for them, `ahead` for each, None
    where that is 0. `setup` is that of a worker that does both; `compiler` names the entry and the
    warm-up of one that compiles."""
    planned = cluster.layout
    memory_mb = spec.memory_per_worker_mb or cluster.memory_share_mb(1 + ahead)
    train = Role(
        setup=setup,
        count=planned.count,
        limit=spec.time_limit,
        killed="killed at its time limit of",
        start_timeout_s=spec.start_timeout_s,
        jobs_per_worker=spec.jobs_per_worker,
        memory_mb=memory_mb,
        spare=spec.spare and not planned.gpus,
    )
    if not ahead:
        return train, None
    count = planned.count * ahead
    parts = max(1, math.floor(BESIDE * planned.gpus / count / SMALLEST))
    beside = Layout(count, 1, round(parts * SMALLEST, 4) if planned.gpus else 0.0)
    left = round(planned.gpus * (1 - BESIDE), 4)
    alone = Layout(planned.count, max(1, planned.cpus - ahead), left)
    entry, warm_up = compiler
    compile = replace(
        train,
        setup=replace(setup, layout=beside, entry=entry, warm_up=warm_up),
        count=count,
        limit=spec.compile_limit,
        killed="killed while it was compiled, at its time limit of",
        spare=False,
    )
    # Whoever trains what others have compiled makes one more job ready beside it, and compiles
    # nothing, so that no memory is lost with its jobs.
    ready = replace(setup, layout=alone, jobs=2)
    return replace(train, setup=ready, jobs_per_worker=math.inf), compile
