"""Webhooks and deliveries."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String, Text

revision, down_revision = "v001", None


def upgrade(op: Operations) -> None:
    op.create_table(
        "webhooks",
        Column("id", String(32), primary_key=True),
        Column("owner", Text, nullable=False),
        Column("groups", Text, nullable=False),
        Column("url", Text, nullable=False),
        Column("events", Text, nullable=False),
        Column("description", Text, nullable=False),
        Column("secret", Text, nullable=False),
        Column("created", BigInteger, nullable=False),
    )
    op.create_index("webhooks_owner", "webhooks", ["owner"])
    op.create_table(
        "webhooks_deliveries",
        Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("id", String(40), nullable=False, unique=True),
        Column("webhook", String(32), ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
        Column("type", String(32), nullable=False),
        Column("message", Text, nullable=False),
        Column("body", Text, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("due", BigInteger),
        Column("error", Text),
        Column("delivered", BigInteger),
        Column("failed", BigInteger),
    )
    op.create_index("webhooks_deliveries_due", "webhooks_deliveries", ["webhook", "due"])
    op.create_index("webhooks_deliveries_message", "webhooks_deliveries", ["webhook", "message"])
    op.create_index("webhooks_deliveries_failed", "webhooks_deliveries", ["webhook", "failed"])
    op.create_index("webhooks_deliveries_delivered", "webhooks_deliveries", ["delivered"])
