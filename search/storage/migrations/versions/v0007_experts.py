"""What the experts of final runs are for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("evaluations", sa.Column("experts", sa.JSON()))


def downgrade() -> None:
    """It goes; `show` and the report then say nothing of single experts."""
    op.drop_column("evaluations", "experts")
