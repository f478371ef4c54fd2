"""What the journal knows of modems and queues: what is wrong since when, and the events of it.

An alarm and its event are written in one transaction. So each change is told, also where the process dies in between.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from smsgw.journal.journal import Journal
from smsgw.journal.tables import ALARMS, EVENTS, Broken, upsert
from smsgw.model import Alarm, ModemUp
from smsgw.status import ALARM_NAMES
from smsgw.status import ALARMS as KNOWN

KIND = "alarm"
BEGINS = {"modem": "modem.down", "queue": "queue.stuck", "message": "queue.stuck"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a part: ``modem/NAME``, ``queue/NAME``, or ``message/NAME`` for one that stays in a queue."""

    part: str
    what: str
    remedy: str
    since: datetime


def standing(journal: Journal) -> Mapping[str, Trouble]:
    """What is known to be wrong, by the part.

    :raises Unavailable: the database is out of service.
    """
    with journal.database.reading() as connection:
        return _standing(connection, journal.reader(connection))


def change(
    journal: Journal, wrong: Sequence[Trouble], right: Collection[str], gone: Collection[str] = ()
) -> Sequence[Alarm]:
    """Note what is wrong now, and what is right again; returns the events of what was not known.

    :param right: parts of which nothing is wrong any more.
    :param gone: parts that are there no more, of which nothing is told.
    :raises Unavailable: the database is out of service, and nothing was noted.
    """
    with journal.database.writing() as connection:
        spool = journal.spool(connection)
        known = _standing(connection, spool)
        new = [trouble for trouble in wrong if trouble.part not in known]
        mended = [known[part] for part in right if part in known]
        for trouble in new:
            content = _content(trouble.what, trouble.remedy)
            row = {"spool": spool, "part": trouble.part, "since": _milliseconds(trouble.since), "content": content}
            connection.execute(insert(ALARMS).values(row))
        ended = [trouble.part for trouble in mended] + [part for part in gone if part in known]
        if ended:
            connection.execute(delete(ALARMS).where(ALARMS.c.spool == spool, ALARMS.c.part.in_(ended)))
        found = [_begin(trouble) for trouble in new]
        found += [(trouble.part, _end(trouble)) for trouble in mended if trouble.part.startswith("modem/")]
        if found:
            upsert(connection, EVENTS, [_row(spool, part, alarm) for part, alarm in found])
    return [alarm for _, alarm in found]


def read_alarm(row: Mapping[str, Any]) -> Alarm:
    """The alarm of a row of ``EVENTS``.

    :raises Broken: it is none that was written here.
    """
    try:
        what, remedy = json.loads(row["content"])
        at = datetime.fromisoformat(row["at"])
        return KNOWN[row["event"]](row["message"].partition("/")[2], what, remedy, at, key=row["key"])
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(f"an alarm is none: {type(error).__name__}") from error


def _standing(connection: Connection, spool: int) -> dict[str, Trouble]:
    found = {}
    for row in connection.execute(select(ALARMS).where(ALARMS.c.spool == spool)):
        try:
            what, remedy = json.loads(row.content)
        except (ValueError, TypeError) as error:
            raise Broken(f"an alarm is none: {type(error).__name__}") from error
        found[row.part] = Trouble(row.part, what, remedy, datetime.fromtimestamp(row.since / 1000, UTC))
    return found


def _begin(trouble: Trouble) -> tuple[str, Alarm]:
    kind, _, name = trouble.part.partition("/")
    event = BEGINS[kind]
    key = f"{event}:{trouble.part}:{_milliseconds(trouble.since)}"
    return trouble.part, KNOWN[event](name, trouble.what, trouble.remedy, trouble.since, key=key)


def _end(trouble: Trouble) -> Alarm:
    """It sends again: the key has when it began to send nothing, and so is the same for the same trouble."""
    key = f"{ALARM_NAMES[ModemUp]}:{trouble.part}:{_milliseconds(trouble.since)}"
    return ModemUp(trouble.part.partition("/")[2], "it works again", "", datetime.now(UTC), key=key)


def _row(spool: int, part: str, alarm: Alarm) -> dict[str, Any]:
    return {
        "spool": spool,
        "key": alarm.key,
        "event": ALARM_NAMES[type(alarm)],
        "message": part,
        "kind": KIND,
        "at": alarm.at.isoformat(),
        "content": _content(alarm.what, alarm.remedy),
        "report": None,
    }


def _content(what: str, remedy: str) -> str:
    return json.dumps([what, remedy], ensure_ascii=False)


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
