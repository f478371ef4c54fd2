"""Sent messages and status reports in the journal: what came is noted, and put together with what was there.

What belongs together ``smsgw.spool.following.reports`` decides; here is which rows it has to see for that: all that
have a reference of what came, or of a message that has one of these.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from smsgw.journal.tables import PARTS, REPORTS, key, read_report, upsert, write_report
from smsgw.model import StatusReport
from smsgw.spool.following.reports import LONGEST, Reference, Report, Reports, Sending

MOST = 400  # references in one condition: databases take none of any length


@dataclass(frozen=True, slots=True)
class Joined:
    """What status reports say of messages, whose message each report is about, and which one each that came is about.

    Messages are known by their ids, and reports by their places. ``fates`` has the report that says finally what became
    of a message.
    """

    fates: Mapping[str, StatusReport]
    owners: Mapping[str, str | None]
    messages: Mapping[str, str | None]


def join(connection: Connection, spool: int, sendings: Sequence[Sending], reports: Sequence[Report]) -> Joined:
    """Note sent messages and reports, and find out what belongs together now."""
    references = {part for sending in sendings for part in sending.parts} | {report.reference for report in reports}
    times = [sending.began for sending in sendings] + [report.came[0] for report in reports]
    since = min(times) - 2 * LONGEST
    if sendings:
        upsert(connection, PARTS, [row for sending in sendings for row in _parts(spool, sending)])
    rows = _sendings(connection, spool, references, since)
    rows |= _sendings(connection, spool, {part for each in rows.values() for part in each.parts} - references, since)
    if reports:
        sent, now = Reports(rows.values(), []), time.time()
        found = [_report(spool, report, sent.from_later(report, now)) for report in reports]
        upsert(connection, REPORTS, found, keep="about")
    known = _reports(connection, spool, {part for each in rows.values() for part in each.parts} | references, since)
    whole, new = Reports(rows.values(), known), {report.status.place for report in reports}
    messages = {each.status.place: whole.message_of(each) for each in known if each.status.place in new}
    about = {id for id in messages.values() if id is not None} | {sending.id for sending in sendings}
    fates = {id: fate for id in sorted(about) if (fate := whole.fate(id))}
    looked = known if sendings else [report for report in known if report.status.place in new]
    return Joined(fates, {report.status.place: whole.owner_of(report) for report in looked}, messages)


def _parts(spool: int, sending: Sending) -> Iterable[dict[str, Any]]:
    for part in sorted(sending.parts):
        row = {"spool": spool, "reference": key(part), "message": sending.id, "owner": key(sending.owner)}
        yield row | {"began": sending.began, "written": sending.written}


def _report(spool: int, report: Report, about: str | None) -> dict[str, Any]:
    return {
        "spool": spool,
        "place": report.status.place,
        "reference": key(report.reference),
        "came": report.came[0],
        "taken": report.taken,
        "said": json.dumps([each and each.isoformat() for each in report.said]),
        "report": write_report(report.status),
        "about": about,
    }


def _sendings(
    connection: Connection, spool: int, references: Collection[Reference], since: float
) -> dict[str, Sending]:
    """All messages with one of these references, by their ids, each with all of its parts."""
    found: dict[str, Sending] = {}
    for some in _steps(references):
        wanted = [PARTS.c.spool == spool, PARTS.c.reference.in_(some), PARTS.c.written >= since]
        ids = select(PARTS.c.message).where(*wanted)
        rows = connection.execute(select(PARTS).where(PARTS.c.spool == spool, PARTS.c.message.in_(ids))).all()
        parts: dict[str, set[Reference]] = {}
        for row in rows:
            parts.setdefault(row.message, set()).add(row.reference)
        for row in rows:
            found[row.message] = Sending(row.message, row.began, row.written, row.owner, frozenset(parts[row.message]))
    return found


def _reports(connection: Connection, spool: int, references: Collection[Reference], since: float) -> list[Report]:
    found = []
    for some in _steps(references):
        wanted = [REPORTS.c.spool == spool, REPORTS.c.reference.in_(some), REPORTS.c.came >= since]
        for row in connection.execute(select(REPORTS).where(*wanted)):
            status = read_report(row.report)
            assert status is not None
            sent, discharged = (each and datetime.fromisoformat(each) for each in json.loads(row.said))
            found.append(Report(row.reference, status, row.taken, (sent, discharged), row.about))
    return found


def _steps(references: Collection[Reference]) -> Iterable[list[str | None]]:
    ordered = sorted(references)
    return ([key(each) for each in ordered[begin : begin + MOST]] for begin in range(0, len(ordered), MOST))
