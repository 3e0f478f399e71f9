"""What a run says of its experts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("evaluations", sa.Column("active_params", sa.BigInteger()))
    op.add_column("evaluations", sa.Column("routing", sa.JSON()))
