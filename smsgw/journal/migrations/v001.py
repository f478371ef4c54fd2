"""All tables of the journal."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, Text
from sqlalchemy.dialects.postgresql import TEXT

revision, down_revision = "v001", None

NUMBER = BigInteger().with_variant(Integer, "sqlite")
NAME = Text().with_variant(TEXT(collation="C"), "postgresql")

INDEXES = {
    "journal_files_by_time": ("journal_files", ("spool", "kind", "began", "name")),
    "journal_files_by_owner": ("journal_files", ("spool", "kind", "owner", "began", "name")),
    "journal_by_owner": ("journal_messages", ("owner", "status", "began", "id")),
    "journal_by_status": ("journal_messages", ("status", "began", "id")),
    "journal_by_number": ("journal_messages", ("number", "began", "id")),
    "journal_by_reference": ("journal_messages", ("reference", "began", "id")),
    "journal_parts_of": ("journal_parts", ("spool", "message")),
    "journal_reports_about": ("journal_reports", ("spool", "modem", "number", "byte", "came")),
    "journal_reports_by_time": ("journal_reports", ("spool", "came")),
    "journal_events_in_order": ("journal_events", ("spool", "number")),
    "journal_events_of": ("journal_events", ("spool", "message")),
}


def upgrade(op: Operations) -> None:
    _make_messages(op)
    _make_reports(op)
    _make_events(op)
    for name, (table, columns) in INDEXES.items():
        op.create_index(name, table, columns)
    op.create_index("journal_events_by_key", "journal_events", ("spool", "key"), unique=True)


def _make_messages(op: Operations) -> None:
    op.create_table(
        "journal_spools",
        Column("spool", NUMBER, primary_key=True),
        Column("name", Text, nullable=False, unique=True),
    )
    op.create_table(
        "journal_folders",
        Column("spool", BigInteger, primary_key=True),
        Column("folder", Text, primary_key=True),
        Column("modified", BigInteger, nullable=False),
    )
    op.create_table(
        "journal_files",
        Column("spool", BigInteger, primary_key=True),
        Column("kind", Text, primary_key=True),
        Column("name", NAME, primary_key=True),
        Column("written", BigInteger, nullable=False),
        Column("began", BigInteger, nullable=False),
        Column("owner", Text),
    )
    op.create_table(
        "journal_messages",
        Column("id", NAME, primary_key=True),
        Column("is_received", Boolean, primary_key=True),
        Column("spool", BigInteger, primary_key=True),
        Column("began", BigInteger, nullable=False),
        Column("status", Text, nullable=False),
        Column("ends", BigInteger, nullable=False),
        Column("owner", Text),
        Column("number", Text, nullable=False),
        Column("reference", Text),
        Column("content", Text, nullable=False),
        Column("report", Text),
    )


def _make_reports(op: Operations) -> None:
    op.create_table(
        "journal_parts",
        Column("spool", BigInteger, primary_key=True),
        Column("modem", Text, primary_key=True),
        Column("number", Text, primary_key=True),
        Column("byte", Integer, primary_key=True),
        Column("message", NAME, primary_key=True),
        Column("began", Double, nullable=False),
        Column("written", Double, nullable=False),
        Column("owner", Text),
    )
    op.create_table(
        "journal_reports",
        Column("spool", BigInteger, primary_key=True),
        Column("place", NAME, primary_key=True),
        Column("modem", Text, nullable=False),
        Column("number", Text, nullable=False),
        Column("byte", Integer, nullable=False),
        Column("came", Double, nullable=False),
        Column("taken", Double, nullable=False),
        Column("said", Text, nullable=False),
        Column("report", Text, nullable=False),
    )


def _make_events(op: Operations) -> None:
    op.create_table(
        "journal_events",
        Column("number", NUMBER, primary_key=True),
        Column("spool", BigInteger, nullable=False),
        Column("key", NAME, nullable=False),
        Column("event", Text, nullable=False),
        Column("message", NAME, nullable=False),
        Column("kind", Text, nullable=False),
        Column("at", Text, nullable=False),
        Column("content", Text, nullable=False),
        Column("report", Text),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "journal_cursors",
        Column("spool", BigInteger, primary_key=True),
        Column("plugin", Text, primary_key=True),
        Column("number", BigInteger, nullable=False),
    )
    op.create_table(
        "journal_untold",
        Column("spool", BigInteger, primary_key=True),
        Column("plugin", Text, primary_key=True),
        Column("number", BigInteger, primary_key=True),
        Column("message", NAME, nullable=False),
    )
