"""The journal of one spool: what the follower tells it, and what the mailbox asks of it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, select

from smsgw.journal.database import Database
from smsgw.journal.pages import page
from smsgw.journal.tables import (
    CURSORS,
    EVENTS,
    FILES,
    FOLDERS,
    MESSAGES,
    SPOOLS,
    UNTOLD,
    key,
    read_message,
    read_report,
)
from smsgw.journal.writing import Found, Writing
from smsgw.model import Query, Remembered, StoredMessage
from smsgw.spool.following.reader import modified
from smsgw.status import ENDED, RECEIVED

PATIENCE = 0.25  # seconds for which a question waits until the follower has seen what was there when it was asked
LOOK = 0.005  # seconds between two looks whether it has

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the journal stands: whether it has all files of its spool, and how many messages of each status."""

    is_whole: bool
    counts: Mapping[str, int]
    files: int
    oldest: int | None  # milliseconds since 1970


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder: what came earlier than ``begun`` is no news, and all is here up to ``seen`` (ns), its own time.

    ``seen`` is ``None`` until all of it was looked at once. From then on all that is not here is news.
    """

    begun: int
    seen: int | None


@dataclass(frozen=True, slots=True)
class _Missed:
    """What was not here: a folder's time (ns), up to when all was here then, and when that was noticed (monotonic)."""

    wanted: int
    before: int | None
    at: float


class Journal:
    """Shared by all threads. Each method raises ``Unavailable`` where the database is out of service.

    :param name: what this spool is called among those that share the database.
    :param folders: the folders whose files the follower takes in when they have come to an end.
    """

    def __init__(self, database: Database, name: str, folders: Sequence[Path]) -> None:
        self.database = database
        self._name = name
        self._folders = folders
        self._missed: dict[str, _Missed] = {}

    def begin(self, plugins: Iterable[str], folders: Iterable[Path], since: int) -> dict[str, Folder]:
        """Let the spool be known, and the plugins that are told of events from now on; returns how its folders stand.

        :param folders: those that are followed.
        :param since: what was in a folder before that time (ns) is no news, where the folder is not known yet.
        """
        with self.database.writing() as connection:
            spool = self.spool(connection)
            told = set(connection.execute(select(CURSORS.c.plugin).where(CURSORS.c.spool == spool)).scalars())
            last = connection.scalar(select(func.max(EVENTS.c.number)).where(EVENTS.c.spool == spool)) or 0
            for plugin in plugins:
                if plugin not in told:
                    connection.execute(insert(CURSORS).values(spool=spool, plugin=plugin, number=last))
            known = self._folders_of(connection, spool)
            for folder in map(str, folders):
                if folder not in known:
                    connection.execute(insert(FOLDERS).values(spool=spool, folder=folder, begun=since))
                    known[folder] = Folder(since, None)
            return known

    def known(self, kinds: Collection[str], names: Collection[str]) -> dict[tuple[str, str], int]:
        """When the files that are here were written (ns), by their kinds and names: those of these names."""
        with self.database.reading() as connection:
            columns = FILES.c
            wanted = [columns.spool == self.reader(connection), columns.kind.in_(kinds), columns.name.in_(names)]
            rows = connection.execute(select(columns.kind, columns.name, columns.written).where(*wanted))
            return {(row.kind, row.name): row.written for row in rows}

    def names(self, kind: str, after: str, count: int) -> list[str]:
        """Names of files of that kind, in their order, so many at most, from the first after that one."""
        with self.database.reading() as connection:
            columns = FILES.c
            wanted = [columns.spool == self.reader(connection), columns.kind == kind, columns.name > after]
            found = connection.execute(select(columns.name).where(*wanted).order_by(columns.name).limit(count))
            return list(found.scalars())

    def put(
        self,
        found: Sequence[Found],
        gone: Iterable[tuple[str, str]],
        folders: Mapping[str, int],
        is_there: Callable[[Found], bool] = lambda found: True,
    ) -> bool:
        """Take in what the follower saw, as ``Writing.put`` does; whether there may be events to tell of.

        :param is_there: asked while nobody can delete a message: one that was deleted must not come back.
        """
        with self.database.writing() as connection:
            writing = Writing(connection, self.spool(connection))
            has_news = writing.put([each for each in found if is_there(each)], gone, folders)
        for message in writing.failed:
            why = message.headers.get("Fail_reason") or "the modem did not say why"
            log.warning("the message %r of %r failed: %r", message.id, message.owner or "", why)
        return has_news

    def catch_up(self) -> None:
        """Return when all is here that had come to an end when this was called; after ``PATIENCE`` in any case."""
        until = time.monotonic() + PATIENCE
        before = now = self.seen()
        wanted = {str(folder): changed for folder in self._folders if (changed := modified(folder))}
        while any(not _is_seen(changed, before.get(each), now.get(each)) for each, changed in wanted.items()):
            if time.monotonic() > until:
                return
            time.sleep(LOOK)
            now = self.seen()

    def lag(self) -> float:
        """Seconds since the first call that found something in a folder that is still not here; 0: all is here."""
        now, seen = time.monotonic(), self.seen()
        missed: dict[str, _Missed] = {}
        for folder in map(str, self._folders):
            known, found = self._missed.get(folder), seen.get(folder)
            if known is None or _is_seen(known.wanted, known.before, found):
                known = _Missed(modified(Path(folder)), found, now)
            if known.wanted and not _is_seen(known.wanted, known.before, found):
                missed[folder] = known
        self._missed = missed
        return max((now - known.at for known in missed.values()), default=0.0)

    def find(self, query: Query) -> Sequence[Remembered]:
        """The messages that the query asks for, newest first."""
        statuses = tuple(name for name in query.statuses if name in ENDED)
        if not statuses:
            return []
        with self.database.reading() as connection:
            ids = connection.execute(page(query)).scalars() if query.ids is None else map(key, query.ids)
            is_received = statuses == (RECEIVED.name,)
            wanted = [MESSAGES.c.id.in_(list(ids)), MESSAGES.c.is_received == is_received]
            found = connection.execute(select(MESSAGES).where(*wanted)).mappings()
            # A condition on the status might make the database look through all of that status.
            rows = [
                Remembered(read_message(row), read_report(row["report"]), row["began"])
                for row in map(dict, found)
                if row["status"] in statuses
            ]
        return sorted(rows, key=lambda row: row.position, reverse=True)

    def message(self, id: str, *, is_received: bool) -> Remembered | None:
        """That message; ``None``: it is unknown, or has not come to an end."""
        names = (RECEIVED.name,) if is_received else tuple(ENDED - {RECEIVED.name})
        return next(iter(self.find(Query(names, ids=(id,)))), None)

    def page(self, kind: str, owner: str | None, limit: int, offset: int) -> tuple[int, list[str]]:
        """How many files of that kind and owner (``None``: of all) there are, and the names of a page, newest first."""
        with self.database.reading() as connection:
            columns = FILES.c
            wanted = [columns.spool == self.reader(connection), columns.kind == kind]
            wanted += [] if owner is None else [columns.owner == key(owner)]
            total = connection.scalar(select(func.count()).select_from(FILES).where(*wanted)) or 0
            newest = select(columns.name).where(*wanted).order_by(columns.began.desc(), columns.name.desc())
            return total, list(connection.execute(newest.limit(limit).offset(offset)).scalars())

    def owner(self, kind: str, name: str) -> str | None:
        """Whose that file is: of a status report, whose its message is; ``None``: nobody's, or not known yet."""
        with self.database.reading() as connection:
            columns = FILES.c
            wanted = [columns.spool == self.reader(connection), columns.kind == kind, columns.name == name]
            return connection.scalar(select(columns.owner).where(*wanted))

    @contextlib.contextmanager
    def forgetting(self, message: StoredMessage) -> Iterator[None]:
        """Within the block, and from then on, nobody remembers that message; all is as it was where the block raises.

        What plugins are still to be told of it stays until they are.
        """
        with self.database.writing() as connection:
            spool, is_received = self.spool(connection), message.kind == RECEIVED.kind
            same = [MESSAGES.c.id == message.id, MESSAGES.c.is_received == is_received, MESSAGES.c.spool == spool]
            connection.execute(delete(MESSAGES).where(*same))
            of_kind = [FILES.c.spool == spool, FILES.c.kind == message.kind, FILES.c.name == message.id]
            connection.execute(delete(FILES).where(*of_kind))
            told = select(func.min(CURSORS.c.number)).where(CURSORS.c.spool == spool).scalar_subquery()
            events = [EVENTS.c.spool == spool, EVENTS.c.message == message.id]
            untold = select(UNTOLD.c.number).where(UNTOLD.c.spool == spool)
            is_old = [EVENTS.c.number <= func.coalesce(told, 2**62), EVENTS.c.number.not_in(untold)]
            connection.execute(delete(EVENTS).where(*events, *is_old))
            yield

    def is_whole(self) -> bool:
        """Whether all files of all folders are here."""
        return self.seen().keys() >= set(map(str, self._folders))

    def standing(self) -> Standing:
        """How it stands now."""
        with self.database.reading() as connection:
            spool = self.reader(connection)
            counted = select(MESSAGES.c.status, func.count()).where(MESSAGES.c.spool == spool)
            counts = {row[0]: row[1] for row in connection.execute(counted.group_by(MESSAGES.c.status))}
            files = connection.scalar(select(func.count()).select_from(FILES).where(FILES.c.spool == spool)) or 0
            oldest = connection.scalar(select(func.min(MESSAGES.c.began)).where(MESSAGES.c.spool == spool))
        return Standing(self.is_whole(), counts, files, oldest)

    def spool(self, connection: Connection) -> int:
        """The spool's number, in a transaction that writes; nobody else writes of it until that ends."""
        row = select(SPOOLS.c.spool).where(SPOOLS.c.name == self._name).with_for_update()
        found: int | None = connection.scalar(row)
        if found is None:
            connection.execute(insert(SPOOLS).values(name=self._name))
            found = connection.scalar(row)
            assert found is not None
        return found

    def reader(self, connection: Connection) -> int:
        """The spool's number; -1: nothing was written yet."""
        found: int | None = connection.scalar(select(SPOOLS.c.spool).where(SPOOLS.c.name == self._name))
        return -1 if found is None else found

    def _folders_of(self, connection: Connection, spool: int) -> dict[str, Folder]:
        rows = select(FOLDERS).where(FOLDERS.c.spool == spool)
        return {row.folder: Folder(row.begun, row.modified) for row in connection.execute(rows)}

    def seen(self) -> dict[str, int]:
        """The folders of which all is here, each with the time (ns) up to which."""
        with self.database.reading() as connection:
            known = self._folders_of(connection, self.reader(connection))
        return {folder: each.seen for folder, each in known.items() if each.seen is not None}


def _is_seen(wanted: int, before: int | None, now: int | None) -> bool:
    """Whether all is here that was in a folder at the time ``wanted``.

    :param before: up to when all was here a moment before the folder had that time. Where that is later, the clock was
        set back; then the next that the follower says counts.
    :param now: up to when all is here.
    """
    return now is not None and (now == wanted or (now > wanted and now != before))
