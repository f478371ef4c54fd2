"""Sent messages and status reports in the journal: what came is noted, and put together with what was there.

What belongs together ``smsgw.spool.following.reports`` decides; here is which rows it has to see for that: all that
have a reference (modem, number, byte) of what came, or of a message that has one of these.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select, text

from smsgw.journal.tables import PARTS, REPORTS, key, read_report, write_report
from smsgw.model import StatusReport
from smsgw.spool.following.reports import LONGEST, Reference, Report, Reports, Sending

PUT_PART = text(
    "INSERT INTO journal_parts (spool, modem, number, byte, message, began, written, owner) "
    "VALUES (:spool, :modem, :number, :byte, :message, :began, :written, :owner) "
    "ON CONFLICT (spool, modem, number, byte, message) DO UPDATE SET "
    "began = excluded.began, written = excluded.written, owner = excluded.owner"
)
PUT_REPORT = text(
    "INSERT INTO journal_reports (spool, place, modem, number, byte, came, taken, said, report) "
    "VALUES (:spool, :place, :modem, :number, :byte, :came, :taken, :said, :report) "
    "ON CONFLICT (spool, place) DO UPDATE SET modem = excluded.modem, number = excluded.number, "
    "byte = excluded.byte, came = excluded.came, taken = excluded.taken, said = excluded.said, "
    "report = excluded.report"
)


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a sent message finally, by the status report that says so."""

    id: str
    report: StatusReport


@dataclass(frozen=True, slots=True)
class Joined:
    """What status reports say of messages, and whose message each report (its place) is about."""

    fates: Sequence[Fate]
    owners: Mapping[str, str | None]


def join(connection: Connection, spool: int, sendings: Sequence[Sending], reports: Sequence[Report]) -> Joined:
    """Note sent messages and reports, and find out what belongs together now."""
    if sendings:
        connection.execute(PUT_PART, [row for sending in sendings for row in _parts(spool, sending)])
    if reports:
        connection.execute(PUT_REPORT, [_report(spool, report) for report in reports])
    references = {part for sending in sendings for part in sending.parts} | {report.reference for report in reports}
    times = [sending.began for sending in sendings] + [report.came[0] for report in reports]
    since = min(times) - 2 * LONGEST
    rows = _sendings(connection, spool, references, since)
    rows |= _sendings(connection, spool, {part for each in rows.values() for part in each.parts}, since)
    known = _reports(connection, spool, {part for each in rows.values() for part in each.parts} | references, since)
    whole = Reports(rows.values(), known)
    about = {id for report in reports if (id := whole.message_of(report))} | {sending.id for sending in sendings}
    fates = [Fate(id, fate) for id in sorted(about) if (fate := whole.fate(id))]
    looked = known if sendings else reports
    return Joined(fates, {report.status.place: whole.owner_of(report) for report in looked})


def _parts(spool: int, sending: Sending) -> Iterable[dict[str, Any]]:
    for modem, number, byte in sorted(sending.parts):
        row = {"modem": key(modem), "number": key(number), "byte": byte, "owner": key(sending.owner)}
        yield row | {"spool": spool, "message": sending.id, "began": sending.began, "written": sending.written}


def _report(spool: int, report: Report) -> dict[str, Any]:
    modem, number, byte = report.reference
    return {
        "spool": spool,
        "place": report.status.place,
        "modem": key(modem),
        "number": key(number),
        "byte": byte,
        "came": report.came[0],
        "taken": report.taken,
        "said": json.dumps([each and each.isoformat() for each in report.said]),
        "report": write_report(report.status),
    }


def _alike(table: Any, references: Collection[Reference]) -> ColumnElement[bool]:
    columns = table.c
    return or_(
        *(
            and_(columns.modem == key(modem), columns.number == key(number), columns.byte == byte)
            for modem, number, byte in references
        )
    )


def _sendings(
    connection: Connection, spool: int, references: Collection[Reference], since: float
) -> dict[str, Sending]:
    """All messages with one of these references, by their ids, each with all of its parts."""
    found: dict[str, Sending] = {}
    for some in _steps(references):
        wanted = [PARTS.c.spool == spool, _alike(PARTS, some), PARTS.c.written >= since]
        ids = set(connection.execute(select(PARTS.c.message).where(*wanted)).scalars())
        rows = connection.execute(select(PARTS).where(PARTS.c.spool == spool, PARTS.c.message.in_(ids))).all()
        parts: dict[str, set[Reference]] = {}
        for row in rows:
            parts.setdefault(row.message, set()).add((row.modem, row.number, row.byte))
        for row in rows:
            found[row.message] = Sending(row.message, row.began, row.written, row.owner, frozenset(parts[row.message]))
    return found


def _reports(connection: Connection, spool: int, references: Collection[Reference], since: float) -> list[Report]:
    found = []
    for some in _steps(references):
        wanted = [REPORTS.c.spool == spool, _alike(REPORTS, some), REPORTS.c.came >= since]
        for row in connection.execute(select(REPORTS).where(*wanted)):
            status = read_report(row.report)
            assert status is not None
            sent, discharged = (each and datetime.fromisoformat(each) for each in json.loads(row.said))
            found.append(Report((row.modem, row.number, row.byte), status, row.taken, (sent, discharged)))
    return found


def _steps(references: Collection[Reference]) -> Iterable[list[Reference]]:
    """Some at a time: databases take no condition of any length."""
    ordered = sorted(references)
    return (ordered[begin : begin + 100] for begin in range(0, len(ordered), 100))
