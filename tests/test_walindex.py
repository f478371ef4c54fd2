"""A lookup has what the database has, whoever changed it in whatever way; and asks only then."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, text

from smsgw.store import REMEMBERED, Store
from smsgw.testing import eventually
from smsgw.walindex import WalIndex
from tests.conftest import at_length
from tests.test_store import forked

METADATA = MetaData()
NUMBERS = Table("numbers", METADATA, Column("id", Integer, primary_key=True), Column("number", Integer))
ONE = sqlalchemy.select(NUMBERS.c.number).where(NUMBERS.c.id == sqlalchemy.bindparam("id"))
SET = "INSERT INTO numbers VALUES (1, {0}) ON CONFLICT (id) DO UPDATE SET number = {0}"

# What another process does to the file: each line of its stdin is executed, and answered with one.
OTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
for line in sys.stdin:
    if line == "close\\n":
        connection.close()
        connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
    else:
        connection.execute(line).fetchall()
    print(flush=True)
"""


class Other:
    """Another process that has the file open."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", OTHER, str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, statement: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{statement}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "\n"

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL


@contextlib.contextmanager
def other(path: Path) -> Iterator[Other]:
    found = Other(path)
    with found.process:
        yield found
        if found.process.stdin is not None:
            found.process.stdin.close()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{path}")
    store.keep(METADATA)
    store.prepare(text(SET.format(0)))()
    yield store
    store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with opened(path) as store:
        yield store


@pytest.fixture
def another(store: Store, path: Path) -> Iterator[Other]:
    with other(path) as another:
        yield another


def is_remembered(lookup: Callable[..., Any]) -> bool:
    """Whether it now answers without asking; once in a while it asks whatever has happened."""
    return any(lookup(id=1) is lookup(id=1) for _ in range(3))


def test_it_asks_when_something_was_committed(store: Store, another: Other) -> None:
    lookup = store.lookup(ONE)
    assert lookup(id=1) == [(0,)]
    assert is_remembered(lookup)
    for number in range(1, 50):
        another(SET.format(number))
        assert lookup(id=1) == [(number,)]
        assert is_remembered(lookup)
    another("DELETE FROM numbers")
    assert lookup(id=1) == []


WAYS = [
    *(SET.format(number) for number in range(3)),
    "DELETE FROM numbers",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "VACUUM",
    *(f"PRAGMA wal_checkpoint({how})" for how in ("PASSIVE", "FULL", "RESTART", "TRUNCATE")),
    "PRAGMA user_version = 1",
    "CREATE TABLE IF NOT EXISTS more (id)",
    "DROP TABLE IF EXISTS more",
    "close",
]


@settings(max_examples=at_length(40, 5), deadline=None)
@given(ways=st.lists(st.sampled_from(WAYS), min_size=1, max_size=20))
def test_whatever_another_process_does(tmp_path_factory: pytest.TempPathFactory, ways: list[str]) -> None:
    path = tmp_path_factory.mktemp("ways") / "store.sqlite3"
    is_begun = False
    with opened(path) as store, other(path) as another:
        lookup, statement = store.lookup(ONE), store.prepare(ONE)
        for way in ways:
            if way in ("COMMIT", "ROLLBACK") and not is_begun:
                continue
            if is_begun and (way in ("BEGIN", "VACUUM") or way.startswith("PRAGMA wal")):
                continue
            is_begun = (is_begun or way == "BEGIN") and way not in ("COMMIT", "ROLLBACK", "close")
            another(way)
            assert lookup(id=1) == statement(id=1)
            assert lookup(id=1) == statement(id=1)


def test_a_commit_is_seen_as_soon_as_anybody_knows_of_it(store: Store, another: Other) -> None:
    """Several threads look, while another process counts and says how far it is."""
    lookup, known, stop, behind = store.lookup(ONE), [0], threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            least = known[0]
            ((number,),) = lookup(id=1)
            if number < least:
                behind.append((number, least))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, at_length(1500, 300)):
        another(SET.format(number))
        known[0] = number
    stop.set()
    for thread in threads:
        thread.join()
    assert behind == []
    assert lookup(id=1) == [(at_length(1499, 299),)]


def test_own_transactions(store: Store) -> None:
    lookup, put = store.lookup(ONE), store.prepare(text(SET.format(":number")))
    lookup(id=1)
    with contextlib.suppress(ZeroDivisionError), store.transaction():
        put(number=5)
        assert lookup(id=1) == [(5,)]
        raise ZeroDivisionError
    assert lookup(id=1) == [(0,)]
    with store.transaction():
        put(number=6)
    assert lookup(id=1) == [(6,)]
    with store.begin() as connection:
        connection.exec_driver_sql(SET.format(7))
    assert lookup(id=1) == [(7,)]


def test_a_process_that_is_killed_while_it_writes(store: Store, another: Other) -> None:
    lookup = store.lookup(ONE)
    another("PRAGMA cache_spill = 1")
    another("PRAGMA cache_size = 1")
    another("BEGIN IMMEDIATE")
    another(
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) "
        "INSERT INTO numbers SELECT i, i FROM n"
    )
    another(SET.format(9))
    assert lookup(id=1) == [(0,)]
    another.kill()
    assert lookup(id=1) == [(0,)]
    store.prepare(text(SET.format(3)))()
    assert lookup(id=1) == [(3,)]


def test_a_file_in_another_one_s_place(store: Store, path: Path) -> None:
    lookup = store.lookup(ONE)
    assert lookup(id=1) == [(0,)]
    fresh = path.with_name("fresh.sqlite3")
    with opened(fresh) as copy:
        copy.prepare(text(SET.format(8)))()
    for file in [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]:
        file.unlink(missing_ok=True)
    fresh.rename(path)
    eventually(lambda: lookup(id=1) == [(8,)])
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(SET.format(9))
    assert lookup(id=1) == [(9,)]


def test_processes_that_fork(store: Store) -> None:
    lookup, put = store.lookup(ONE), store.prepare(text(SET.format(":number")))
    assert lookup(id=1) == [(0,)]

    def child() -> None:
        assert lookup(id=1) == [(0,)]
        put(number=1)
        assert lookup(id=1) == [(1,)]

    forked(child)
    assert lookup(id=1) == [(1,)]
    assert is_remembered(lookup)


def test_no_lock_is_lost(store: Store, path: Path) -> None:
    """Who opens a file and closes it alone removes its log; not so while this process has it open."""
    lookup = store.lookup(ONE)
    for _ in range(3):
        thread = threading.Thread(target=lookup, kwargs={"id": 1})
        thread.start()
        thread.join()
    lookup(id=1)
    found = WalIndex.find(str(path))
    assert found is not None
    del found
    gc.collect()
    before = {file.name: file.stat().st_ino for file in path.parent.iterdir()}
    assert path.name + "-shm" in before
    with other(path) as another:
        another(SET.format(1))
    assert {file.name: file.stat().st_ino for file in path.parent.iterdir()} == before
    assert lookup(id=1) == [(1,)]


def test_no_descriptor_is_kept(store: Store, path: Path) -> None:
    store.lookup(ONE)(id=1)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        assert WalIndex.find(str(path)) is not None
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_has_no_index(path: Path) -> None:
    """A file that is not there, that nobody has open, or that is in another mode than WAL."""
    assert WalIndex.find(str(path)) is None
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE numbers (id)")
    assert WalIndex.find(str(path)) is None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("INSERT INTO numbers VALUES (1)")
    found = WalIndex.find(str(path))
    assert found is not None
    assert found.version is not None
    connection.close()
    assert WalIndex.find(str(path)) is None


def test_by_a_link(store: Store, path: Path) -> None:
    link = path.with_name("link.sqlite3")
    link.symlink_to(path.name)
    with opened(link) as linked:
        lookup = linked.lookup(ONE)
        lookup(id=1)
        assert is_remembered(lookup)
        store.prepare(text(SET.format(1)))()
        assert lookup(id=1) == [(1,)]


def test_it_does_not_remember_without_end(store: Store) -> None:
    fill = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < :last) "
    fill += "INSERT INTO numbers SELECT i, i FROM n"
    store.prepare(text(fill))(last=REMEMBERED + 10)
    lookup = store.lookup(ONE)
    first = lookup(id=2)
    for id in range(3, REMEMBERED + 10):
        assert lookup(id=id) == [(id,)]
    assert lookup(id=2) == first
    assert lookup(id=2) is not first


def test_postgresql_is_always_asked(store_url: str) -> None:
    """Whichever the store is, what is committed by another one is seen."""
    stores = [Store(store_url), Store(store_url)]
    for store in stores:
        store.keep(METADATA)
    put, lookup = stores[0].prepare(text(SET.format(":number"))), stores[1].lookup(ONE)
    for number in range(20):
        put(number=number)
        assert lookup(id=1) == [(number,)]
        if store_url.startswith("postgresql"):
            assert not is_remembered(lookup)
    for store in stores:
        store.close()
