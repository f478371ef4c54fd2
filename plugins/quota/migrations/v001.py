"""The counters. Databases that are older than migrations have them."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import BigInteger, CheckConstraint, Column, Text

revision, down_revision = "v001", None


def upgrade(op: Operations) -> None:
    op.create_table(
        "quota",
        Column("name", Text, primary_key=True),
        Column("counted", Text, primary_key=True),
        Column("until", BigInteger, primary_key=True),
        Column("used", BigInteger, nullable=False),
        Column("most", BigInteger, nullable=False),
        CheckConstraint("used <= most", name="quota_is_left"),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
