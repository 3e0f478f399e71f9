"""Campaigns, candidates, evaluations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float()),
        sa.Column("stop_requested", sa.Boolean(), nullable=False),
        sa.Column("heartbeat", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_campaigns"),
        sa.UniqueConstraint("name", name="uq_campaigns_name"),
    )
    op.create_table(
        "candidates",
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("parent_id", sa.Integer()),
        sa.Column("mutation", sa.String(40), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("duplicate_of", sa.Integer()),
        sa.Column("rejections", sa.JSON(), nullable=False),
        sa.Column("dna", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "id", name="pk_candidates"),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name="fk_candidates_campaign_id"
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id", "parent_id"],
            ["candidates.campaign_id", "candidates.id"],
            name="fk_candidates_parent_id",
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id", "duplicate_of"],
            ["candidates.campaign_id", "candidates.id"],
            name="fk_candidates_duplicate_of",
        ),
    )
    _create_evaluations()


def _create_evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("candidate_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("unit", sa.String(8), nullable=False),
        sa.Column("amount", sa.Float(), nullable=False),
        sa.Column("hurdles", sa.JSON(), nullable=False),
        sa.Column("hurdles_passed", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Float()) for name in ("val_loss", "val_bpb", "test_loss", "test_bpb")),
        sa.Column("params", sa.BigInteger()),
        sa.Column("flops_per_token", sa.BigInteger()),
        sa.Column("step_time_s", sa.Float()),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("train_seconds", sa.Float(), nullable=False),
        sa.Column("setup_seconds", sa.Float(), nullable=False),
        sa.Column("curve", sa.JSON(), nullable=False),
        sa.Column("worker", sa.String(200)),
        sa.Column("finished_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "sequence", name="pk_evaluations"),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name="fk_evaluations_campaign_id"
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id", "candidate_id"],
            ["candidates.campaign_id", "candidates.id"],
            name="fk_evaluations_candidate_id",
        ),
        sa.UniqueConstraint(
            "campaign_id", "candidate_id", "kind", "seed", name="uq_evaluations_run"
        ),
    )
    op.create_index(
        "ix_evaluations_rank", "evaluations", ["campaign_id", "kind", "outcome", "val_loss"]
    )


def downgrade() -> None:
    """Everything goes."""
    for table in ("evaluations", "candidates", "campaigns"):
        op.drop_table(table)
