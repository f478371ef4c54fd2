"""Counters that all processes of a gateway add to: one table in the gateway's database, which each scrape reads.

Nothing is counted twice. Events come with their keys, of which the last are kept. What a process has counted of
requests and sends is written every few seconds, and when the process ends, unless it is killed.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy import Column, Connection, Table

from smsgw.model import Unavailable
from smsgw.store import Store

PERIOD = 5.0  # seconds until what a process has counted of requests is written
KEPT = 1000  # keys of events: more than the journal tells again

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A counter's name, and its labels in the order of their names."""

TABLES = sa.MetaData()
COUNTERS = Table(
    "metrics_counters",
    TABLES,
    Column("spool", sa.Text, primary_key=True),
    Column("name", sa.Text, primary_key=True),
    Column("labels", sa.Text, primary_key=True),  # a JSON object
    Column("value", sa.Double, nullable=False),
)
TOLD = Table(  # the last events that were counted
    "metrics_told",
    TABLES,
    Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    Column("spool", sa.Text, nullable=False),
    Column("key", sa.Text, nullable=False),
    sa.Index("metrics_told_of", "spool", "number"),
)
ADD = sa.text("""
INSERT INTO metrics_counters (spool, name, labels, value) VALUES (:spool, :name, :labels, :value)
ON CONFLICT (spool, name, labels) DO UPDATE SET value = metrics_counters.value + excluded.value
""")

log = logging.getLogger(__name__)


def key(name: str, **labels: str) -> Key:
    return name, tuple(sorted(labels.items()))


class Counters:
    """The counters of one spool; shared by all threads.

    :param spool: what the spool is called among those that share the database.
    """

    def __init__(self, store: Store, spool: str) -> None:
        self._store = store
        self._spool = spool
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._counted: Counter[Key] = Counter()
        self._process = 0  # the process that has counted these, and has a thread that writes them
        self._has_failed = False

    def count(self, amounts: Mapping[Key, float]) -> None:
        """Add these soon: the request that is counted waits for no database."""
        with self._lock:
            if self._process != os.getpid():  # a child of the process that has counted them
                self._process = os.getpid()
                self._counted.clear()
                threading.Thread(target=self._run, name="smsgw-metrics", daemon=True).start()
                atexit.register(self.flush)
            for each, amount in amounts.items():
                self._counted[each] += amount  # type: ignore[assignment]  # typeshed: numbers are whole

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(PERIOD):
            self.flush()

    def flush(self) -> None:
        """Write what was counted here; where the database is out of service, later."""
        with self._writing:
            with self._lock:
                counted, self._counted = self._counted, Counter()
            if not counted:
                return
            try:
                with self._store.begin() as connection:
                    self._add(connection, counted)
                self._has_failed = False
            except Unavailable as error:
                with self._lock:
                    self._counted.update(counted)
                if not self._has_failed:
                    log.error("requests cannot be counted now: %s (%s)", error, error.__cause__)
                self._has_failed = True

    def count_events(self, events: Sequence[tuple[str, Mapping[Key, float]]]) -> None:
        """Add what each event counts for, by its key; none that was counted before.

        :raises Unavailable: the database is out of service; nothing was added.
        """
        mine = TOLD.c.spool == self._spool
        with self._store.begin() as connection:
            told = set(connection.execute(sa.select(TOLD.c.key).where(mine)).scalars())
            counted: Counter[Key] = Counter()
            fresh = {name: amounts for name, amounts in events if name not in told}
            for amounts in fresh.values():
                counted.update(amounts)
            if not fresh:
                return
            self._add(connection, counted)
            connection.execute(sa.insert(TOLD), [{"spool": self._spool, "key": name} for name in fresh])
            newest = sa.select(TOLD.c.number).where(mine).order_by(TOLD.c.number.desc()).limit(1).offset(KEPT)
            if (old := connection.scalar(newest)) is not None:
                connection.execute(sa.delete(TOLD).where(mine, TOLD.c.number <= old))

    def read(self) -> Mapping[Key, float]:
        """All counters.

        :raises Unavailable: the database is out of service.
        """
        self.flush()
        rows = self._store.execute(sa.select(COUNTERS).where(COUNTERS.c.spool == self._spool))
        return {(row.name, tuple(sorted(json.loads(row.labels).items()))): row.value for row in rows}

    def _add(self, connection: Connection, counted: Mapping[Key, float]) -> None:
        """In one order, so that with PostgreSQL no two transactions wait for each other."""
        rows = [
            {"spool": self._spool, "name": name, "labels": json.dumps(dict(labels)), "value": value}
            for (name, labels), value in sorted(counted.items())
        ]
        connection.execute(ADD, rows)
