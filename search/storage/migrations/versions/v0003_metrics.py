"""Whatever a run was measured by, and what a campaign was extended with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_EVALUATIONS = sa.table(
    "evaluations",
    sa.column("campaign_id", sa.Integer()),
    sa.column("sequence", sa.Integer()),
    sa.column("metrics", sa.JSON()),
)


def upgrade() -> None:
    """What was said of experts, under `routing`, is what the first metrics without a column of
    their own were."""
    op.execute("ALTER TABLE evaluations RENAME COLUMN routing TO metrics")
    op.add_column("campaigns", sa.Column("plugins", sa.JSON()))
    table, connection = _EVALUATIONS.c, op.get_bind()
    old = sa.select(_EVALUATIONS).where(table.metrics.is_not(None))
    new = [
        {
            "campaign": row.campaign_id,
            "number": row.sequence,
            "named": {f"experts_{name}": value for name, value in row.metrics.items()},
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
            .values(metrics=sa.bindparam("named")),
            new,
        )
