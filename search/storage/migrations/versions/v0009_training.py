"""Losses of training along each run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("evaluations", sa.Column("training", sa.JSON()))


def downgrade() -> None:
    """They go; curves then show validation losses alone."""
    op.drop_column("evaluations", "training")
