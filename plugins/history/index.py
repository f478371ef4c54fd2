"""What the database is asked and told: one upsert for all that happens, one search for all that is looked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, func, select, text, tuple_, update
from sqlalchemy.exc import IntegrityError

from smsgw.model import Query, Remembered, StoredMessage
from smsgw.store import Store

from . import home
from .pages import page
from .table import BEAT, DELETED, MESSAGES, PUT, RANKS, RECEIVED, SPOOL, SPOOLS, Broken, key, remembered, tombstone

FRESH = 30_000  # milliseconds for which an index that is told of nothing is taken for complete
STEP = 1000  # rows that are deleted at once

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Standing:
    """How the index stands: whether it has all of this spool, and how many messages of each status."""

    is_complete: bool
    beat: int
    counts: Mapping[str, int]
    oldest: int | None


class Index:
    """The index of one spool, in a database that other spools may share; shared by all threads.

    :param spool: what this one is called among them.
    """

    def __init__(self, store: Store, spool: str) -> None:
        self._store = store
        self._spool = spool

    def put(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take these in, as far as they say more than what is there: as often as one likes, in any order.

        What began later under the same name, as other programs' messages may, is another message, and takes its place.

        :raises Unavailable: nothing was taken.
        """
        ordered = sorted(rows, key=lambda row: str(row["id"]))  # so that no two wait for each other
        if ordered:
            self._write(lambda connection: connection.execute(PUT, ordered))

    def forget(self, message: StoredMessage) -> Callable[[], None]:
        """Let a tombstone take its place; what is returned lets things be as they were.

        :raises Unavailable: nothing was done.
        """
        stone = tombstone(message) | {"began": _now()}
        same = [MESSAGES.c.id == stone["id"], MESSAGES.c.is_received == stone["is_received"]]

        def bury(connection: Connection) -> list[dict[str, Any]]:
            known = connection.execute(select(MESSAGES).where(*same).with_for_update()).mappings()
            before = [dict(row) for row in known]
            connection.execute(PUT, stone)
            return before

        def restore(connection: Connection) -> None:
            if connection.execute(delete(MESSAGES).where(*same, MESSAGES.c.status == DELETED)).rowcount and before:
                connection.execute(PUT, before)

        before = self._write(bury)
        return lambda: self._write(restore)

    def find(self, query: Query) -> Sequence[Remembered] | None:
        """What there is, newest first; ``None``: not all is here.

        :raises Unavailable: the database is out of service.
        """
        with home.watched(self._store), self._store.begin(is_reading=True) as connection:
            if not self._is_fresh(connection):
                return None
            ids = connection.execute(page(query)).scalars() if query.ids is None else map(key, query.ids)
            is_received = query.statuses == (RECEIVED,)
            wanted = [MESSAGES.c.id.in_(list(ids)), MESSAGES.c.is_received == is_received]
            found = connection.execute(select(MESSAGES).where(*wanted)).mappings()
            # A condition on the status might make the database look through all of that status.
            rows = [remembered(dict(row)) for row in found if row["status"] in query.statuses]
        return sorted(rows, key=lambda row: row.place, reverse=True)

    def has(self, ids: Collection[str], *, is_received: bool) -> set[str]:
        """Which of these messages are here with their end."""
        ended = [RECEIVED, DELETED] if is_received else ["sent", "delivered", "undelivered", "failed", DELETED]
        wanted = [MESSAGES.c.id.in_(ids), MESSAGES.c.is_received == is_received]
        with self._store.begin(is_reading=True) as connection:
            found = connection.execute(select(MESSAGES.c.id, MESSAGES.c.status).where(*wanted))
            return {id for id, status in found if status in ended}

    def standing(self) -> Standing:
        with home.watched(self._store), self._store.begin(is_reading=True) as connection:
            row = connection.execute(select(SPOOLS).where(SPOOLS.c.spool == self._spool)).one_or_none()
            counted = select(MESSAGES.c.status, func.count()).group_by(MESSAGES.c.status)
            counts = {name: count for name, count in connection.execute(counted) if name != DELETED}
            oldest = connection.scalar(select(func.min(MESSAGES.c.began)).where(MESSAGES.c.status != DELETED))
        return Standing(bool(row and row.is_complete), row.beat if row else 0, counts, oldest)

    def is_complete(self) -> bool:
        with home.watched(self._store), self._store.begin(is_reading=True) as connection:
            return bool(connection.scalar(select(SPOOLS.c.is_complete).where(SPOOLS.c.spool == self._spool)))

    def beat(self, moment: datetime | None) -> None:
        """Note that all that happened before then is here; ``None``: that nobody knows."""
        at = int(moment.timestamp() * 1000) if moment else 0
        self._write(lambda connection: connection.execute(BEAT, {"spool": self._spool, "beat": at}))

    def begin(self, name: str, *, anew: bool) -> None:
        """Note that a rebuild of that name begins; ``anew``: of an empty index, for all spools that share it."""

        def work(connection: Connection) -> None:
            if anew:
                connection.execute(delete(MESSAGES))
                connection.execute(update(SPOOLS).values(rebuild=None, is_complete=False))
            connection.execute(SPOOL, {"spool": self._spool, "rebuild": name, "is_complete": False})

        self._write(work)

    def end(self, name: str) -> bool:
        """Note that it has ended, and all that the files say is here; false where another one began meanwhile."""
        mine = [SPOOLS.c.spool == self._spool, SPOOLS.c.rebuild == name]
        done = update(SPOOLS).where(*mine).values(rebuild=None, is_complete=True)

        def work(connection: Connection) -> bool:
            if connection.dialect.name == "postgresql":  # SQLite plans well without, and would not do it again later
                connection.execute(text("ANALYZE history_messages"))
            return bool(connection.execute(done).rowcount)

        return self._write(work)

    def expire(self, before: int) -> bool:
        """Forget some of what began before that time; whether there may be more."""

        def work(connection: Connection) -> int:
            gone = 0
            for name in RANKS:
                old = select(MESSAGES.c.id, MESSAGES.c.is_received)
                old = old.where(MESSAGES.c.status == name, MESSAGES.c.began < before).limit(STEP)
                keys = connection.execute(old).all()
                if keys:
                    same = tuple_(MESSAGES.c.id, MESSAGES.c.is_received).in_([tuple(each) for each in keys])
                    gone += connection.execute(delete(MESSAGES).where(same)).rowcount
            return gone

        return self._write(work) >= STEP

    def _is_fresh(self, connection: Connection) -> bool:
        row = connection.execute(select(SPOOLS).where(SPOOLS.c.spool == self._spool)).one_or_none()
        return row is not None and row.is_complete and abs(_now() - row.beat) < FRESH

    def _write(self, work: Callable[[Connection], T]) -> T:
        home.make(self._store)
        with home.watched(self._store):
            try:
                with self._store.begin() as connection:
                    return work(connection)
            except IntegrityError as error:  # which nothing that is written here can be
                raise Broken("a constraint does not hold") from error


def _now() -> int:
    return int(time.time() * 1000)
