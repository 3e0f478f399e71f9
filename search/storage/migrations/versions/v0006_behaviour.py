"""What candidates do on fixed inputs, as digests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("candidates", sa.Column("behaviour", sa.String(32)))


def downgrade() -> None:
    """It goes. A campaign whose config asks for it goes on without what was known of its
    candidates: copies of these may be trained again."""
    op.drop_column("candidates", "behaviour")
