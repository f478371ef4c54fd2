"""The messages, by what they are looked for by; and how the index stands with each spool."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import BigInteger, Boolean, Column, SmallInteger, Text
from sqlalchemy.dialects.postgresql import TEXT

revision, down_revision = "v001", None

INDEXES = {
    "history_by_owner": ("owner", "status", "began", "id"),
    "history_by_status": ("status", "began", "id"),
    "history_by_number": ("number", "began", "id"),
    "history_by_reference": ("reference", "began", "id"),
}


def upgrade(op: Operations) -> None:
    op.create_table(
        "history_messages",
        Column("id", Text().with_variant(TEXT(collation="C"), "postgresql"), primary_key=True),
        Column("is_received", Boolean, primary_key=True),
        Column("began", BigInteger, nullable=False),
        Column("status", Text, nullable=False),
        Column("rank", SmallInteger, nullable=False),
        Column("owner", Text),
        Column("number", Text, nullable=False),
        Column("reference", Text),
        Column("content", Text, nullable=False),
        Column("report", Text),
    )
    for name, columns in INDEXES.items():
        op.create_index(name, "history_messages", columns)
    op.create_table(
        "history_spools",
        Column("spool", Text, primary_key=True),
        Column("rebuild", Text),
        Column("is_complete", Boolean, nullable=False),
        Column("beat", BigInteger, nullable=False),
    )
