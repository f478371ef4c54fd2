"""What the follower read, written into the journal: files, messages, status reports, events; in one transaction.

Doing it twice changes nothing: a file is known by its kind, its name and when it was written, and an event by its key.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, select, update

from smsgw.journal.joining import join
from smsgw.journal.tables import (
    EVENTS,
    FILES,
    FOLDERS,
    MESSAGES,
    key,
    read_message,
    upsert,
    write_content,
    write_report,
)
from smsgw.model import StatusReport, StoredMessage
from smsgw.numbers import e164, from_spool
from smsgw.spool.file import REFERENCE
from smsgw.spool.following.reports import Report, Sending
from smsgw.status import BY_FOLDER, RECEIVED, status_of

WHEN = ("Sent", "Failed", "Received")  # headers in which smsd says when a message came to its end


@dataclass(frozen=True, slots=True)
class Found:
    """A file in one of smsd's folders, or of smsgw's own, as the follower read it.

    ``written`` is its ``mtime`` (ns); ``began`` when its message began (milliseconds since 1970); ``at`` when it came
    there. ``report`` is the status report that it is, ``sending`` what reports can name its message by. ``is_news``:
    plugins are to be told.
    """

    kind: str
    name: str
    written: int
    began: int
    at: datetime
    message: StoredMessage
    report: Report | None
    sending: Sending | None
    is_news: bool


class Writing:
    """One transaction that writes for one spool.

    :param spool: its number.
    """

    def __init__(self, connection: Connection, spool: int) -> None:
        self._connection = connection
        self._spool = spool
        self._events: list[dict[str, Any]] = []
        self.failed: list[StoredMessage] = []  # of which plugins are told

    def put(self, found: Sequence[Found], gone: Iterable[tuple[str, str]], folders: Mapping[str, int]) -> bool:
        """Write all of it; whether there may be events that were not there before.

        :param gone: kinds and names of files that are there no more.
        :param folders: the times (ns) up to which all that is in these folders is here then.
        """
        self._forget_files(gone)
        if found:
            files = [self._file(each) for each in found]
            upsert(self._connection, FILES, sorted(files, key=lambda row: (row["kind"], row["name"])))
            self._begin_messages([each for each in found if each.kind in ("outgoing", "checked")])
            self._end_messages([each for each in found if each.kind in BY_FOLDER and each.report is None])
            self._join(found)
        for folder, time in folders.items():
            same = [FOLDERS.c.spool == self._spool, FOLDERS.c.folder == folder]
            self._connection.execute(update(FOLDERS).where(*same).values(modified=time))
        if self._events:
            upsert(self._connection, EVENTS, self._events)
        return bool(self._events)

    def _forget_files(self, gone: Iterable[tuple[str, str]]) -> None:
        for kind, group in itertools.groupby(sorted(gone), lambda each: each[0]):
            names = [name for _, name in group]
            same = [FILES.c.spool == self._spool, FILES.c.kind == kind, FILES.c.name.in_(names)]
            self._connection.execute(delete(FILES).where(*same))

    def _file(self, found: Found) -> dict[str, Any]:
        owner = None if found.kind in ("incoming", "report") else key(found.message.owner)
        known = {"kind": found.kind, "name": found.name, "written": found.written, "began": found.began}
        return known | {"spool": self._spool, "owner": owner}

    def _begin_messages(self, found: Sequence[Found]) -> None:
        known = self._known({each.name for each in found}, is_received=False)
        for each in found:
            if each.is_news:
                self._tell("accepted", each.message, each.at, known[each.name]["ends"] if each.name in known else 0)

    def _end_messages(self, found: Sequence[Found]) -> None:
        for is_received in (False, True):
            ended = [each for each in found if (each.kind == RECEIVED.kind) is is_received]
            known = self._known({each.name for each in ended}, is_received=is_received)
            rows = {}
            for each in ended:
                row, before = self._row(each), known.get(each.name)
                is_same = before is not None and _is_same(before, row, each.message)
                ends = before["ends"] if before is not None else 0
                if before is not None and is_same:  # its file was touched, or written anew, or put back
                    row |= {"status": before["status"], "ends": ends, "report": before["report"]}
                else:
                    row |= {"ends": ends + 1}
                if row == before:
                    continue
                known[each.name] = rows[each.name] = row
                if each.is_news and not is_same:
                    if not is_received:
                        self._tell("accepted", each.message, each.at, ends)
                    self._tell(str(row["status"]), each.message, each.at, ends)
                    if each.kind == "failed":
                        self.failed.append(each.message)
            if rows:
                upsert(self._connection, MESSAGES, [rows[name] for name in sorted(rows)])

    def _known(self, ids: Collection[str], *, is_received: bool) -> dict[str, Mapping[str, Any]]:
        """The rows of these messages, by their ids."""
        if not ids:
            return {}
        columns = MESSAGES.c
        same = [columns.id.in_(ids), columns.is_received == is_received, columns.spool == self._spool]
        return {row["id"]: dict(row) for row in self._connection.execute(select(MESSAGES).where(*same)).mappings()}

    def _row(self, found: Found) -> dict[str, Any]:
        message = found.message
        is_received = message.kind == RECEIVED.kind
        other = e164(message.headers.get("From", "")) if is_received else from_spool(message.headers.get("To", ""))
        return {
            "id": message.id,
            "is_received": is_received,
            "spool": self._spool,
            "began": found.began,
            "status": BY_FOLDER[found.kind].name,
            "owner": key(message.owner),
            "number": key(other),
            "reference": None if is_received else key(message.headers.get(REFERENCE)),
            "content": write_content(message),
            "report": None,
        }

    def _join(self, found: Sequence[Found]) -> None:
        """Find out what the status reports say that came, and those that were there of the messages that came."""
        sendings = [each.sending for each in found if each.sending]
        reports = [each.report for each in found if each.report]
        if not (sendings or reports):
            return
        news = {f"{each.kind}/{each.name}" for each in found if each.is_news}
        joined = join(self._connection, self._spool, sendings, reports)
        for place, owner in joined.owners.items():
            kind, _, name = place.partition("/")
            same = [FILES.c.spool == self._spool, FILES.c.kind == kind, FILES.c.name == name]
            if kind == "report":
                self._connection.execute(update(FILES).where(*same).values(owner=key(owner)))
        told = {id for place, id in joined.messages.items() if place in news}
        known = self._known(joined.fates.keys(), is_received=False)
        for id, report in joined.fates.items():
            if id in known and known[id]["status"] == "sent":
                self._decide(known[id], report, is_news=id in told or f"sent/{id}" in news)

    def _decide(self, row: Mapping[str, Any], report: StatusReport, *, is_news: bool) -> None:
        name = status_of("sent", report)
        columns = MESSAGES.c
        same = [columns.id == row["id"], columns.is_received.is_(False), columns.spool == self._spool]
        decided = {"status": name, "report": write_report(report)}
        self._connection.execute(update(MESSAGES).where(*same).values(decided))
        if is_news:
            self._tell(name, read_message(row), report.at, row["ends"] - 1, report)

    def _tell(
        self, event: str, message: StoredMessage, at: datetime, ends: int, report: StatusReport | None = None
    ) -> None:
        """Add an event. Its key is the same each time: another one only where the name had come to an end before."""
        again = f":{ends}" if ends else ""
        self._events.append(
            {
                "spool": self._spool,
                "key": f"{event}:{message.id}{again}",
                "event": event,
                "message": message.id,
                "kind": message.kind,
                "at": at.isoformat(),
                "content": write_content(message),
                "report": write_report(report),
            }
        )


def _is_same(before: Mapping[str, Any], row: Mapping[str, Any], message: StoredMessage) -> bool:
    """Whether a file is of the message that is known by its name, and not of a later one of the same name."""
    known = read_message(before)
    when = [[each.headers.get(header) for header in WHEN] for each in (known, message)]
    return known.kind == message.kind and before["number"] == row["number"] and when[0] == when[1]
