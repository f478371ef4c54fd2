"""Tells one plugin what became of messages, modems and queues, from where it stopped: its cursor in the list of events.

In order for each of them, each event at least once. An event that the plugin does not take is told again later, and
those of the same message, modem or queue wait for it; others do not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, exists, func, insert, select, update

from smsgw.journal.alarms import read_alarm
from smsgw.journal.journal import Journal
from smsgw.journal.tables import CURSORS, EVENTS, UNTOLD, Broken, read_message, read_report
from smsgw.logs import indented
from smsgw.model import Alarm, Event, Reported
from smsgw.status import ALARM_NAMES, ALARMS, EVENT_NAMES
from smsgw.status import EVENTS as KNOWN

RETRY = 5.0  # seconds until what a plugin did not take is told again
MOST = 250  # events told of at once
NAMES: Mapping[type[Event | Alarm], str] = {**EVENT_NAMES, **ALARM_NAMES}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event, its number in the list, and what it is about: a message's id, or a modem or queue."""

    number: int
    about: str
    event: Event | Alarm


class Notifier:
    """Tells one plugin of the events of one spool.

    :param name: the plugin's.
    :param tell: its ``notify``.
    :param hears: the events that it wants.
    """

    def __init__(
        self,
        journal: Journal,
        name: str,
        tell: Callable[[Sequence[Event | Alarm]], None],
        hears: Collection[type[Event | Alarm]] = tuple(EVENT_NAMES),
    ) -> None:
        self.name = name
        self._journal = journal
        self._tell = tell
        self._hears = [NAMES[event] for event in hears]
        self._running = threading.Lock()  # a plugin can still be at it when the spool was lost and won again
        self._news = threading.Event()
        self._most = MOST  # fewer after a failure, so that one event which fails is found
        self._failed = 0  # the number of the event that failed last of those that were put off
        self._logged: set[str] = set()  # what was said of failures, until there are none any more

    def wake(self) -> None:
        """Look at once: there are events, or it is time to stop."""
        self._news.set()

    def run(self, stop: threading.Event) -> None:
        """Tell until ``stop`` is set, and ``wake`` called."""
        with self._running:
            while not stop.is_set():
                self._news.clear()
                try:
                    is_done = self._tell_new(stop) and self._tell_again(stop)
                except Exception as error:
                    is_done = False
                    self._log(f"hears of nothing now: {error} ({error.__cause__})")
                if is_done and self._logged and not stop.is_set():
                    self._logged.clear()
                    log.warning("the plugin %r was told of all events that it had failed to take", self.name)
                if not stop.is_set():
                    self._news.wait(None if is_done else RETRY)

    def _tell_new(self, stop: threading.Event) -> bool:
        """Tell of what comes after the cursor; false where the plugin did not take it."""
        while not stop.is_set():
            events, last, waiting = self._after_cursor()
            ready = [each for each in events if each.about not in waiting]
            late = [each for each in events if each.about in waiting]
            if ready and not self._offer([each.event for each in ready]):
                if len(ready) > 1:
                    self._most = max(len(ready) // 2, 1)
                    return False
                ready, late = [], [*ready, *late]
                self._note(last, late)
                return False
            self._note(last, late)
            self._most = MOST
            if not events:
                return True
        return True

    def _tell_again(self, stop: threading.Event) -> bool:
        """Tell once more of what was put off, event by event; false where there may be something left."""
        for each in self._put_off():
            if stop.is_set():
                return True
            if not self._offer([each.event]):
                self._failed = each.number  # the next time those after it come first
                return False
            self._forget(each.number)
        is_done, self._failed = not self._failed, 0
        return is_done and self._tell_new(stop)

    def _offer(self, events: Sequence[Event | Alarm]) -> bool:
        try:
            self._tell(events)
        except Exception as error:
            self._log(f"failed to take events; it is told again: {error!r}", indented(error))
            return False
        return True

    def _log(self, failure: str, traceback: str = "") -> None:
        """Say what fails, once until all is well again: it may fail at each event, every few seconds, for days."""
        if failure not in self._logged:
            log.error("the plugin %r %s%s", self.name, failure, traceback)
            self._logged.add(failure)

    def _after_cursor(self) -> tuple[list[Numbered], int, set[str]]:
        """The next events, up to which number they are all, and the messages of which events are put off."""
        with self._journal.database.reading() as connection:
            spool = self._journal.reader(connection)
            mine = [CURSORS.c.spool == spool, CURSORS.c.plugin == self.name]
            cursor = connection.scalar(select(CURSORS.c.number).where(*mine))
            last = connection.scalar(select(func.max(EVENTS.c.number)).where(EVENTS.c.spool == spool)) or 0
            if cursor is None or cursor >= last:
                return [], cursor or 0, set()
            wanted = [EVENTS.c.spool == spool, EVENTS.c.number > cursor, EVENTS.c.event.in_(self._hears)]
            rows = connection.execute(select(EVENTS).where(*wanted).order_by(EVENTS.c.number).limit(self._most))
            found = [_numbered(dict(row)) for row in rows.mappings()]
            put_off = [UNTOLD.c.spool == spool, UNTOLD.c.plugin == self.name]
            waiting = set(connection.execute(select(UNTOLD.c.message).where(*put_off).distinct()).scalars())
        return found, found[-1].number if len(found) == self._most else last, waiting

    def _put_off(self) -> list[Numbered]:
        """What was put off, after the last that failed; not of messages that wait for an earlier event."""
        earlier = UNTOLD.alias()
        with self._journal.database.reading() as connection:
            mine = [UNTOLD.c.spool == self._journal.reader(connection), UNTOLD.c.plugin == self.name]
            before = exists().where(
                earlier.c.spool == UNTOLD.c.spool,
                earlier.c.plugin == UNTOLD.c.plugin,
                earlier.c.message == UNTOLD.c.message,
                earlier.c.number <= self._failed,
            )
            rows = select(EVENTS).join(UNTOLD, UNTOLD.c.number == EVENTS.c.number)
            rows = rows.where(*mine, UNTOLD.c.number > self._failed, ~before)
            found = connection.execute(rows.order_by(EVENTS.c.number).limit(MOST)).mappings()
            return [_numbered(dict(row)) for row in found]

    def _note(self, cursor: int, late: Sequence[Numbered]) -> None:
        """Move the cursor there, and put these events off."""
        with self._journal.database.writing() as connection:
            spool = self._journal.spool(connection)
            rows = [
                {"spool": spool, "plugin": self.name, "number": each.number, "message": each.about} for each in late
            ]
            if rows:
                connection.execute(insert(UNTOLD), rows)
            mine = [CURSORS.c.spool == spool, CURSORS.c.plugin == self.name]
            connection.execute(update(CURSORS).where(*mine, CURSORS.c.number < cursor).values(number=cursor))

    def _forget(self, number: int) -> None:
        with self._journal.database.writing() as connection:
            mine = [UNTOLD.c.spool == self._journal.spool(connection), UNTOLD.c.plugin == self.name]
            connection.execute(delete(UNTOLD).where(*mine, UNTOLD.c.number == number))


def _numbered(row: Mapping[str, Any]) -> Numbered:
    """:raises Broken: it is none that was written here."""
    if row["event"] in ALARMS:
        return Numbered(row["number"], row["message"], read_alarm(row))
    kind, report = KNOWN.get(row["event"]), read_report(row["report"])
    message, at = read_message(row), datetime.fromisoformat(row["at"])
    if kind is None or (report is None) is issubclass(kind, Reported):
        raise Broken(f"there is no event {row['event']!r} like this")
    fields: dict[str, Any] = {"key": row["key"]} | ({} if report is None else {"report": report})
    return Numbered(row["number"], message.id, kind(message, at, **fields))
