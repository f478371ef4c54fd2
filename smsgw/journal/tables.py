"""The journal's tables, and how a message is written into a row and read from it.

Several spools, of several machines, may share one database: the column ``spool`` says whose a row is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Connection, Double, Index, Integer, MetaData, Table, Text, func
from sqlalchemy.dialects import postgresql, sqlite

from smsgw.model import StatusReport, StoredMessage
from smsgw.status import BY_NAME

SCRIPTS = Path(__file__).parent / "migrations"
TABLES = MetaData()
LONGEST = 255  # characters of what is looked for: a database has no longer keys, and what is read is compared again

_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up integers alone
_NAME = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")  # in the order of bytes, as SQLite's

SPOOLS = Table(
    "journal_spools",
    TABLES,
    Column("spool", _NUMBER, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)
FOLDERS = Table(
    "journal_folders",
    TABLES,
    Column("spool", BigInteger, primary_key=True),
    Column("folder", Text, primary_key=True),
    Column("begun", BigInteger, nullable=False),  # what came before is no news (ns)
    Column("modified", BigInteger),  # its mtime (ns) up to which everything in it is here; none: it never was
)
FILES = Table(  # in smsd's folders
    "journal_files",
    TABLES,
    Column("spool", BigInteger, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("written", BigInteger, nullable=False),  # its mtime (ns)
    Column("began", BigInteger, nullable=False),
    Column("owner", Text),
    Index("journal_files_by_time", "spool", "kind", "began", "name"),
    Index("journal_files_by_owner", "spool", "kind", "owner", "began", "name"),
)
MESSAGES = Table(  # that have come to an end
    "journal_messages",
    TABLES,
    Column("id", _NAME, primary_key=True),
    Column("is_received", Boolean, primary_key=True),
    Column("spool", BigInteger, primary_key=True),
    Column("began", BigInteger, nullable=False),  # milliseconds since 1970
    Column("status", Text, nullable=False),
    Column("ends", BigInteger, nullable=False),  # how often this name came to an end before
    Column("owner", Text),
    Column("number", Text, nullable=False),  # of the other side
    Column("reference", Text),
    Column("content", Text, nullable=False),  # headers and text, as JSON
    Column("report", Text),
    Index("journal_by_owner", "owner", "status", "began", "id"),
    Index("journal_by_status", "status", "began", "id"),
    Index("journal_by_number", "number", "began", "id"),
    Index("journal_by_reference", "reference", "began", "id"),
)
PARTS = Table(  # of sent messages, by what status reports name them by
    "journal_parts",
    TABLES,
    Column("spool", BigInteger, primary_key=True),
    Column("reference", Text, primary_key=True),
    Column("message", _NAME, primary_key=True),
    Column("began", Double, nullable=False),  # seconds since 1970: when smsd began with it
    Column("written", Double, nullable=False),  # and when it was done
    Column("owner", Text),
    Index("journal_parts_of", "spool", "message"),
)
REPORTS = Table(
    "journal_reports",
    TABLES,
    Column("spool", BigInteger, primary_key=True),
    Column("place", _NAME, primary_key=True),
    Column("reference", Text, nullable=False),
    Column("came", Double, nullable=False),
    Column("taken", Double, nullable=False),
    Column("said", Text, nullable=False),
    Column("report", Text, nullable=False),
    Column("about", _NAME),  # the message, where the times of the files do not say it
    Index("journal_reports_of", "spool", "reference", "came"),
    Index("journal_reports_by_time", "spool", "came"),
)
EVENTS = Table(
    "journal_events",
    TABLES,
    Column("number", _NUMBER, primary_key=True),
    Column("spool", BigInteger, nullable=False),
    Column("key", _NAME, nullable=False),
    Column("event", Text, nullable=False),  # its name in smsgw.status
    Column("message", _NAME, nullable=False),  # or what an alarm is about, as in ALARMS
    Column("kind", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("report", Text),
    Index("journal_events_in_order", "spool", "number"),
    Index("journal_events_by_key", "spool", "key", unique=True),
    Index("journal_events_of", "spool", "message"),
    sqlite_autoincrement=True,  # a number is never used again, also where the last event was deleted
)
CURSORS = Table(  # up to which event each plugin was told
    "journal_cursors",
    TABLES,
    Column("spool", BigInteger, primary_key=True),
    Column("plugin", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
)
UNTOLD = Table(  # events before the cursor that the plugin did not take, and those of the same message after them
    "journal_untold",
    TABLES,
    Column("spool", BigInteger, primary_key=True),
    Column("plugin", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("message", _NAME, nullable=False),
)
ALARMS = Table(  # what is wrong with modems and queues
    "journal_alarms",
    TABLES,
    Column("spool", BigInteger, primary_key=True),
    Column("part", Text, primary_key=True),  # "modem/GSM1", which is no name of a message
    Column("since", BigInteger, nullable=False),  # milliseconds since 1970
    Column("content", Text, nullable=False),
)


class Broken(Exception):
    """The journal holds what was never put there."""


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], keep: str = "") -> None:
    """Insert rows, or let them take the place of those with the same primary key; an event that is there stays.

    :param keep: a column that keeps its value where it has one.
    """
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
    if table is EVENTS:
        connection.execute(insert.on_conflict_do_nothing(index_elements=["spool", "key"]), rows)
        return
    names = [column.name for column in table.columns if not column.primary_key]
    new = {name: insert.excluded[name] for name in names}
    if keep:
        new[keep] = func.coalesce(table.c[keep], insert.excluded[keep])
    connection.execute(insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=new), rows)


def key(value: str | None) -> str | None:
    """What a message is looked for by, as any database takes it: no NUL, nothing that is no Unicode."""
    return None if value is None else value[:LONGEST].replace("\0", "\ufffd").encode(errors="replace").decode()


def write_content(message: StoredMessage) -> str:
    return json.dumps([dict(message.headers), message.text], ensure_ascii=False, separators=(",", ":"))


def write_report(report: StatusReport | None) -> str | None:
    if report is None:
        return None
    fields = [report.place, report.code, report.detail, report.discharged, report.at.isoformat()]
    return json.dumps(fields, ensure_ascii=False)


def read_report(written: str | None) -> StatusReport | None:
    """:raises Broken: it is none that was written here."""
    if written is None:
        return None
    try:
        place, code, detail, discharged, at = json.loads(written)
        return StatusReport(place, code, detail, discharged, datetime.fromisoformat(at))
    except (ValueError, TypeError) as error:
        raise Broken(f"a status report is none: {type(error).__name__}") from error


def read_message(row: Mapping[str, Any]) -> StoredMessage:
    """The message of a row of ``MESSAGES`` or ``EVENTS``.

    :raises Broken: it is none that was written here.
    """
    try:
        headers, text = json.loads(row["content"])
        kind = row["kind"] if "kind" in row else BY_NAME[row["status"]].kind
        id = row["message"] if "message" in row else row["id"]
        return StoredMessage(kind, id, headers, text, None if kind == "incoming" else headers.get("From"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(f"a message is none: {type(error).__name__}") from error
