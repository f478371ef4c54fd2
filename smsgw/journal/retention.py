"""What is old goes: rows of the journal and, where the operator says so, files that the journal has.

Background work of the process that owns the spool. All is done in small steps, so that it holds up nobody. An event
keeps all that it tells of, so no row and no file has to wait for a plugin.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, delete, exists, func, literal, select, tuple_

from smsgw.journal.journal import Journal
from smsgw.journal.tables import CURSORS, EVENTS, FILES, MESSAGES, PARTS, REPORTS, UNTOLD
from smsgw.model import Unavailable
from smsgw.settings import JournalSettings
from smsgw.spool.following.reader import paths_of
from smsgw.spool.layout import Layout
from smsgw.status import BY_FOLDER, BY_NAME, ENDED, RECEIVED

DAY = 86400.0
PERIOD = 3600.0  # seconds between two looks for what is old
RETRY = 10.0  # seconds until what could not be done is tried again
STEP, PAUSE = 1000, 0.05  # rows in one transaction, and seconds until the next one
FILES_STEP = 200  # files that are deleted in one transaction
EVENTS_KEPT = 30  # days
REPORTS_KEPT = 60  # days: longer than a status report is waited for
ALL = 2.0**52  # seconds since 1970, before which everything is
KINDS = ("sent", "failed", "incoming", "report")  # whose files are deleted

log = logging.getLogger(__name__)


class Retention:
    """Forgets what is old of one spool.

    :param plugins: those that are told of events.
    """

    def __init__(self, journal: Journal, layout: Layout, plugins: Collection[str], settings: JournalSettings) -> None:
        self._journal = journal
        self._layout = layout
        self._plugins = plugins
        self._settings = settings
        self._kept: set[str] = set()  # folders from which nothing can be deleted, as was logged

    def run(self, stop: threading.Event) -> None:
        """Look for what is old every hour, until ``stop`` is set."""
        is_broken = False
        while not stop.is_set():
            is_done = False
            try:
                is_done, is_broken = self.expire(stop), False
            except Unavailable as error:
                if not is_broken:
                    log.error("old messages cannot be forgotten: %s (%s); it is tried again", error, error.__cause__)
                is_broken = True
            stop.wait(PERIOD if is_done else RETRY)

    def expire(self, stop: threading.Event) -> bool:
        """Forget and delete all that is old; false: no file yet, since the follower has not seen all folders.

        :raises Unavailable: the database is out of service.
        """
        now = time.time()
        self._forget_plugins()
        forget_messages(self._journal, now - self._settings.keep_days * DAY, stop)
        forget_reports(self._journal, now - REPORTS_KEPT * DAY, stop)
        _forget_events(self._journal, now - EVENTS_KEPT * DAY, stop)
        days = self._settings.keep_files_days
        if days is None:
            return True
        if not self._journal.is_whole():
            return False
        gone = sum(self._delete_files(kind, now - days * DAY, stop) for kind in KINDS)
        if gone:
            log.info("%d files that were older than %d days are deleted", gone, days)
        return True

    def _forget_plugins(self) -> None:
        """Forget how far plugins were told that are configured no more: they would keep all events for ever."""
        with self._journal.database.writing() as connection:
            spool = self._journal.spool(connection)
            for table in (CURSORS, UNTOLD):
                gone = [table.c.spool == spool, table.c.plugin.not_in(list(self._plugins))]
                connection.execute(delete(table).where(*gone))

    def _delete_files(self, kind: str, before: float, stop: threading.Event) -> int:
        """Delete the files of that kind that were written earlier (seconds since 1970); how many there were."""
        columns, limit = FILES.c, int(before * 1e9)
        # What was written earlier began earlier too, and an index of the table has files in that order.
        old = [columns.kind == kind, columns.began < int(before * 1000)]
        count = 0
        for rows in _pages(self._journal, FILES, (columns.began, columns.name, columns.written), old, FILES_STEP, stop):
            files = [(name, written) for _, name, written in rows if written < limit]
            if not files:
                continue
            with self._journal.database.writing() as connection:
                spool = self._journal.spool(connection)
                gone = [(name, written) for name, written in files if self._delete(kind, name, written)]
                same = [columns.spool == spool, columns.kind == kind, tuple_(columns.name, columns.written).in_(gone)]
                connection.execute(delete(FILES).where(*same))
            count += len(gone)
        return count

    def _delete(self, kind: str, name: str, written: int) -> bool:
        """Delete that file, where it is still the one that the journal has; whether it is gone."""
        for folder in paths_of(kind, self._layout):
            with contextlib.suppress(FileNotFoundError):
                try:
                    found = os.stat(folder / name, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and found.st_mtime_ns == written:
                        os.unlink(folder / name)
                        return True
                except OSError as error:
                    if str(folder) not in self._kept:
                        log.error("old files in %s cannot be deleted: %s", folder, error.strerror)
                    self._kept.add(str(folder))
        return False


def forget_messages(journal: Journal, before: float, stop: threading.Event) -> None:
    """Forget messages that began earlier (seconds since 1970), and whose files are gone.

    :raises Unavailable: the database is out of service.
    """
    columns = MESSAGES.c
    for status in sorted(ENDED):
        kinds = [kind for kind in BY_FOLDER if (kind == RECEIVED.kind) is (BY_NAME[status] is RECEIVED)]
        old = [columns.status == status, columns.began < int(before * 1000)]
        _forget(journal, MESSAGES, (columns.began, columns.id), old, _has_file(kinds, MESSAGES, columns.id), stop)


def forget_reports(journal: Journal, before: float, stop: threading.Event) -> None:
    """Forget what sent messages can be named by, and status reports, of an earlier time, whose files are gone.

    :raises Unavailable: the database is out of service.
    """
    old: list[ColumnElement[bool]] = [PARTS.c.written < before]
    _forget(journal, PARTS, (PARTS.c.message,), old, _has_file(["sent"], PARTS, PARTS.c.message), stop)
    for kind in ("incoming", "report"):
        old = [REPORTS.c.came < before, REPORTS.c.place.startswith(f"{kind}/")]
        name = func.substr(REPORTS.c.place, len(kind) + 2)
        _forget(journal, REPORTS, (REPORTS.c.came, REPORTS.c.place), old, _has_file([kind], REPORTS, name), stop)


def _forget_events(journal: Journal, before: float, stop: threading.Event) -> None:
    """Forget events from before that time that all plugins were told of.

    One of a message that is still under way stays: it would be told once more when the message moves.
    """
    columns = EVENTS.c
    with journal.database.reading() as connection:
        spool = journal.reader(connection)
        told = connection.scalar(select(func.min(CURSORS.c.number)).where(CURSORS.c.spool == spool))
        at = datetime.fromtimestamp(before, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        young = select(columns.number).where(columns.spool == spool, columns.at >= at).order_by(columns.number)
        end = connection.scalar(young.limit(1))
    last = min(2**62 if told is None else told, 2**62 if end is None else end - 1)
    is_kept = columns.number.in_(select(UNTOLD.c.number)) | _has_file(["outgoing", "checked"], EVENTS, columns.message)
    _forget(journal, EVENTS, (columns.number,), [columns.number <= last], is_kept, stop)


def _has_file(kinds: Collection[str], table: Table, name: Any) -> ColumnElement[bool]:
    """Whether the file of that name, of one of these kinds, is there."""
    columns = FILES.c
    return exists().where(columns.spool == table.c.spool, columns.kind.in_(kinds), columns.name == name)


def _forget(
    journal: Journal,
    table: Table,
    order: Sequence[Column[Any]],
    old: Sequence[ColumnElement[bool]],
    is_kept: ColumnElement[bool],
    stop: threading.Event,
) -> None:
    """Delete the rows of which ``old`` is true and ``is_kept`` is not, by the columns that an index has in order."""
    for rows in _pages(journal, table, (*order, is_kept.label("is_kept")), old, STEP, stop, len(order)):
        if gone := [tuple(row[:-1]) for row in rows if not row.is_kept]:
            with journal.database.writing() as connection:
                same = [table.c.spool == journal.spool(connection), tuple_(*order).in_(gone)]
                connection.execute(delete(table).where(*same, *old, ~is_kept))


def _pages(
    journal: Journal,
    table: Table,
    columns: Sequence[Any],
    old: Sequence[ColumnElement[bool]],
    step: int,
    stop: threading.Event,
    keys: int = 2,
) -> Iterator[Sequence[Any]]:
    """The rows of this spool of which ``old`` is true, some at a time, in the order of the first ``keys`` columns."""
    order, last = columns[:keys], None
    while not stop.is_set():
        after: list[ColumnElement[bool]] = [] if last is None else [tuple_(*order) > tuple_(*map(literal, last))]
        with journal.database.reading() as connection:
            wanted = [table.c.spool == journal.reader(connection), *old, *after]
            rows = connection.execute(select(*columns).where(*wanted).order_by(*order).limit(step)).all()
        yield rows
        if len(rows) < step:
            return
        last = rows[-1][:keys]
        stop.wait(PAUSE)
