"""What a campaign needs to be derived again: what had ended before each proposal, and the versions
of what proposed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("candidates", sa.Column("endings", sa.Integer()))
    op.add_column("campaigns", sa.Column("versions", sa.JSON()))


def downgrade() -> None:
    """Both go; campaigns without them are those of earlier versions."""
    op.drop_column("campaigns", "versions")
    op.drop_column("candidates", "endings")
