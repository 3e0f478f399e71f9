"""Trained models that are made smaller."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "prunings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("program", sa.String(200), nullable=False),
        sa.Column("campaign_id", sa.Integer()),
        sa.Column("candidate_id", sa.Integer()),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("dna", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("measure", sa.String(16), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("progress", sa.JSON()),
        sa.Column("result", sa.JSON()),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float()),
        sa.PrimaryKeyConstraint("id", name="pk_prunings"),
        sa.ForeignKeyConstraint(
            ["campaign_id", "candidate_id"],
            ["candidates.campaign_id", "candidates.id"],
            name="fk_prunings_campaign_id",
        ),
    )
    op.create_index("ix_prunings_key", "prunings", ["key"])


def downgrade() -> None:
    """They go. The files of unfinished ones stay in the folder of weights."""
    op.drop_table("prunings")
