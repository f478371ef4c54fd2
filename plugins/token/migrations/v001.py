"""The tokens. Databases that are older than migrations have them."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import BigInteger, Column, String, Text

revision, down_revision = "v001", None


def upgrade(op: Operations) -> None:
    op.create_table(
        "tokens",
        Column("id", String(8), primary_key=True),
        Column("digest", String(64), nullable=False, unique=True),
        Column("owner", Text, nullable=False),
        Column("groups", Text, nullable=False),
        Column("comment", Text, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("expires", BigInteger),
        Column("used", BigInteger),
        Column("revoked", BigInteger),
        if_not_exists=True,
    )
