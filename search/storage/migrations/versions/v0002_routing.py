"""What a run says of its experts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("evaluations", sa.Column("active_params", sa.BigInteger()))
    op.add_column("evaluations", sa.Column("routing", sa.JSON()))


def downgrade() -> None:
    """What a run said of its experts goes: the first schema has no place for it."""
    op.drop_column("evaluations", "routing")
    op.drop_column("evaluations", "active_params")
