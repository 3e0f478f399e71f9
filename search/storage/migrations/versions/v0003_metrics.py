"""Whatever a run was measured by, and what a campaign was extended with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_EVALUATIONS = sa.table(
    "evaluations",
    sa.column("campaign_id", sa.Integer()),
    sa.column("sequence", sa.Integer()),
    sa.column("metrics", sa.JSON(none_as_null=True)),
)


_PREFIX = "experts_"


def upgrade() -> None:
    """What was said of experts, under `routing`, is what the first metrics without a column of
    their own were."""
    op.execute("ALTER TABLE evaluations RENAME COLUMN routing TO metrics")
    op.add_column("campaigns", sa.Column("plugins", sa.JSON()))
    _renamed(lambda found: {f"{_PREFIX}{name}": value for name, value in found.items()})


def downgrade() -> None:
    """What was said of experts stays; other metrics and the versions of plug-ins go."""
    _renamed(
        lambda found: {
            name.removeprefix(_PREFIX): value
            for name, value in found.items()
            if name.startswith(_PREFIX)
        }
    )
    op.drop_column("campaigns", "plugins")
    op.execute("ALTER TABLE evaluations RENAME COLUMN metrics TO routing")


def _renamed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Puts what `change` makes of them in the place of each run's metrics; null where it is
    nothing."""
    table, connection = _EVALUATIONS.c, op.get_bind()
    old = sa.select(_EVALUATIONS).where(table.metrics.is_not(None))
    new = [
        {
            "campaign": row.campaign_id,
            "number": row.sequence,
            "changed": change(row.metrics) or None,
        }
        for row in connection.execute(old)
        if row.metrics
    ]
    if new:
        connection.execute(
            sa.update(_EVALUATIONS)
            .where(
                table.campaign_id == sa.bindparam("campaign"),
                table.sequence == sa.bindparam("number"),
            )
            .values(metrics=sa.bindparam("changed")),
            new,
        )
