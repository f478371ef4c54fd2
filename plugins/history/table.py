"""The tables of the index, one row a message, and how rows come into them. Times are milliseconds since 1970, UTC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, SmallInteger, Table, Text, text
from sqlalchemy.dialects.postgresql import TEXT

from smsgw.model import Event, Remembered, StatusReport, StoredMessage
from smsgw.numbers import e164, from_spool
from smsgw.resources import status
from smsgw.spool.file import REFERENCE

TABLES = MetaData()
SCRIPTS = Path(__file__).parent / "migrations"

MESSAGES = Table(
    "history_messages",
    TABLES,
    # As Python sorts ids, so that pages go on in the folders; SQLite does so anyway.
    Column("id", Text().with_variant(TEXT(collation="C"), "postgresql"), primary_key=True),
    Column("is_received", Boolean, primary_key=True),
    Column("began", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("rank", SmallInteger, nullable=False),  # a status is followed by those of higher ranks only
    Column("owner", Text),
    Column("number", Text, nullable=False),  # of the other side
    Column("reference", Text),
    Column("content", Text, nullable=False),  # headers and text, as JSON
    Column("report", Text),
    Index("history_by_owner", "owner", "status", "began", "id"),
    Index("history_by_status", "status", "began", "id"),
    Index("history_by_number", "number", "began", "id"),
    Index("history_by_reference", "reference", "began", "id"),
)
SPOOLS = Table(
    "history_spools",
    TABLES,
    Column("spool", Text, primary_key=True),
    Column("rebuild", Text),  # the one that began last, and has not ended
    Column("is_complete", Boolean, nullable=False),
    Column("beat", BigInteger, nullable=False),  # until when all that happened is here
)

PUT = text(
    "INSERT INTO history_messages "
    "(id, is_received, began, status, rank, owner, number, reference, content, report) "
    "VALUES (:id, :is_received, :began, :status, :rank, :owner, :number, :reference, :content, :report) "
    "ON CONFLICT (id, is_received) DO UPDATE SET "
    "began = excluded.began, status = excluded.status, rank = excluded.rank, owner = excluded.owner, "
    "number = excluded.number, reference = excluded.reference, content = excluded.content, report = excluded.report "
    "WHERE excluded.rank > history_messages.rank OR excluded.began > history_messages.began"
)
SPOOL = text(
    "INSERT INTO history_spools (spool, rebuild, is_complete, beat) VALUES (:spool, :rebuild, :is_complete, 0) "
    "ON CONFLICT (spool) DO UPDATE SET rebuild = excluded.rebuild"
)
BEAT = text(
    "INSERT INTO history_spools (spool, is_complete, beat) VALUES (:spool, FALSE, :beat) "
    "ON CONFLICT (spool) DO UPDATE SET beat = excluded.beat"
)

RECEIVED, DELETED = "received", "deleted"
RANKS = {"scheduled": 0, "queued": 1, "sending": 2, RECEIVED: 3, "sent": 3}
RANKS |= {"failed": 4, "cancelled": 4, "delivered": 4, "undelivered": 4, DELETED: 5}
KINDS = {"scheduled": "outgoing", "queued": "outgoing", "sending": "checked", "sent": "sent", "delivered": "sent"}
KINDS |= {"undelivered": "sent", "failed": "failed", "cancelled": "cancelled", RECEIVED: "incoming"}
LONGEST = 255  # characters of what is looked for: a database has no longer keys, and what is read is compared again


class Broken(Exception):
    """The index holds what was never put there."""


def row(event: Event, began: int) -> dict[str, Any]:
    """What an event says of its message."""
    message, report = event.message, getattr(event, "report", None)
    is_received = message.kind == "incoming"
    name = RECEIVED if is_received else status(message, report)
    number = e164(message.headers.get("From", "")) if is_received else from_spool(message.headers.get("To", ""))
    return {
        "id": message.id,
        "is_received": is_received,
        "began": began,
        "status": name,
        "rank": RANKS[name],
        "owner": key(message.owner),
        "number": key(number),
        "reference": None if is_received else key(message.headers.get(REFERENCE)),
        "content": json.dumps([dict(message.headers), message.text], ensure_ascii=False, separators=(",", ":")),
        "report": report and _written(report),
    }


def tombstone(message: StoredMessage) -> dict[str, Any]:
    """What is left of a message that was deleted: that it shall not come back."""
    fields = {"began": 0, "owner": None, "number": "", "reference": None, "content": "", "report": None}
    is_received = message.kind == "incoming"
    return {"id": message.id, "is_received": is_received, "status": DELETED, "rank": RANKS[DELETED]} | fields


def remembered(found: Mapping[str, Any]) -> Remembered:
    """A row as what it was made of.

    :raises Broken: it is none that was written here.
    """
    try:
        headers, text = json.loads(found["content"])
        kind, report = KINDS[found["status"]], found["report"] and _read(found["report"])
        owner = None if kind == "incoming" else headers.get("From")
        return Remembered(StoredMessage(kind, found["id"], headers, text, owner), report, found["began"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(f"a row is none: {type(error).__name__}") from error


def key(value: str | None) -> str | None:
    """What a message is looked for by, as any database takes it: no NUL, nothing that is no Unicode."""
    return None if value is None else value[:LONGEST].replace("\0", "\ufffd").encode(errors="replace").decode()


def _written(report: StatusReport) -> str:
    fields = [report.place, report.code, report.detail, report.discharged, report.at.isoformat()]
    return json.dumps(fields, ensure_ascii=False)


def _read(written: str) -> StatusReport:
    place, code, detail, discharged, at = json.loads(written)
    return StatusReport(place, code, detail, discharged, datetime.fromisoformat(at))
