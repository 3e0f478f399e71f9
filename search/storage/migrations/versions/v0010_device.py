"""What each run trained on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("evaluations", sa.Column("device", sa.String(200)))


def downgrade() -> None:
    """It goes; nobody then warns of times on different devices."""
    op.drop_column("evaluations", "device")
