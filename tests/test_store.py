"""The database that plugins with a memory share, SQLite and PostgreSQL: transactions, tables, and its failures."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.exc import IntegrityError

from smsgw.model import ConfigurationError, Unavailable
from smsgw.postgresql import SILENCE
from smsgw.settings import read_core
from smsgw.store import Statement, Store, open_store
from smsgw.testing import Gateway, MakeGateway, eventually
from tests.postgresql import Postgresql
from tests.tmpfs import Tmpfs

METADATA = MetaData()
NUMBERS = Table("numbers", METADATA, Column("number", Integer, primary_key=True))

INSERT = text("INSERT INTO numbers (number) VALUES (:number)")
SELECT = sqlalchemy.select(NUMBERS.c.number).order_by(NUMBERS.c.number)


@pytest.fixture
def make() -> Iterator[Callable[..., Store]]:
    """A store of that URL, with the table."""
    stores = []

    def made(url: str, **options: bool) -> Store:
        stores.append(Store(url, **options))
        stores[-1].keep(METADATA)
        return stores[-1]

    yield made
    for store in stores:
        store.close()


@pytest.fixture
def store(make: Callable[..., Store], store_url: str) -> Store:
    return make(store_url)


@pytest.fixture
def lite(make: Callable[..., Store], tmp_path: Path) -> Store:
    return make(f"sqlite:///{tmp_path / 'folder' / 'store.sqlite3'}")


def put(store: Store, *numbers: int) -> None:
    insert = store.prepare(INSERT)
    with store.transaction():
        for number in numbers:
            insert(number=number)


def numbers(store: Store) -> list[int]:
    """What is there, as both ways see it."""
    with store.begin(is_reading=True) as connection:
        found = list(connection.execute(SELECT).scalars())
    assert [row[0] for row in store.prepare(SELECT)()] == found
    return found


def test_one_that_reads_sees_one_state(store: Store) -> None:
    put(store, 1)
    with store.begin(is_reading=True) as connection:
        assert connection.execute(SELECT).scalars().all() == [1]
        put(store, 2)
        assert connection.execute(SELECT).scalars().all() == [1]
    assert numbers(store) == [1, 2]


def test_what_is_committed_stays(store_url: str, make: Callable[..., Store]) -> None:
    store = make(store_url)
    with store.begin() as connection:
        connection.execute(NUMBERS.insert().values(number=1))
    put(store, 2, 3)
    assert store.prepare(INSERT)(number=4) == []
    assert numbers(store) == [1, 2, 3, 4]
    store.close()
    assert numbers(make(store_url)) == [1, 2, 3, 4]


def test_what_raises_is_rolled_back(store: Store) -> None:
    insert = store.prepare(INSERT)
    with contextlib.suppress(ZeroDivisionError), store.begin() as connection:
        connection.execute(NUMBERS.insert().values(number=1))
        raise ZeroDivisionError
    with contextlib.suppress(ZeroDivisionError), store.transaction():
        insert(number=2)
        raise ZeroDivisionError
    with contextlib.suppress(IntegrityError), store.transaction():
        insert(number=3)
        insert(number=3)
    assert numbers(store) == []
    put(store, 4)
    assert numbers(store) == [4]


def test_a_broken_constraint_is_the_plugin_s_own_business(store: Store) -> None:
    put(store, 1)
    with pytest.raises(IntegrityError), store.begin() as connection:
        connection.execute(NUMBERS.insert().values(number=1))
    for _ in range(2):
        with pytest.raises(IntegrityError):
            store.prepare(INSERT)(number=1)
    put(store, 2)
    assert numbers(store) == [1, 2]


def test_threads(store: Store) -> None:
    """None is refused for others' transactions, and each of them is whole."""
    take = store.prepare(text("UPDATE numbers SET number = number + 1 WHERE number < 300 RETURNING number"))
    put(store, 0)

    def hammer(_: int) -> int:
        taken = 0
        for _ in range(50):
            with store.transaction():
                taken += len(take())
        return taken

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(hammer, range(8))) == 300
    assert numbers(store) == [300]


SCRIPT = """
import sys
from sqlalchemy import Column, Integer, MetaData, Table, text
from smsgw.store import Store

store, tables = Store(sys.argv[1]), MetaData()
Table("numbers", tables, Column("number", Integer, primary_key=True))
store.keep(tables)
sys.stdin.read()
store.prepare(text("INSERT INTO numbers (number) VALUES (:number)"))(number=sys.argv[2])
store.close()
"""


def test_several_processes_make_the_tables_at_once(store: Store, store_url: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, store_url]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen([*command, str(n)], stdin=pipe, stderr=pipe, text=True) for n in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for process in processes:
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
    assert numbers(store) == list(range(6))


def forked(work: Callable[[], object]) -> None:
    """Do that in a process that forks from this one."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_processes_that_fork(store: Store) -> None:
    put(store, 1)
    forked(lambda: put(store, 2))
    put(store, 3)
    forked(lambda: (put(store, 4), forked(lambda: put(store, 5)), put(store, 6)))
    forked(store.close)
    assert numbers(store) == [1, 2, 3, 4, 5, 6]


def test_forks_in_the_middle_of_others_transactions(store: Store) -> None:
    """The child has no part in them, and waits for no thread that it does not have."""
    put(store, 0)
    stop, more = threading.Event(), store.prepare(text("UPDATE numbers SET number = number + 1"))
    made = [0] * 4

    def hammer(number: int) -> None:
        while not stop.is_set():
            with store.transaction():
                more()
                more()
            assert len(store.prepare(SELECT)()) == 1
            made[number] += 2

    def work() -> None:
        with store.transaction():
            more()

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(hammer, number) for number in range(4)]
        try:
            for _ in range(10):
                forked(work)
        finally:
            stop.set()
        for thread in threads:
            thread.result()
    assert numbers(store) == [sum(made) + 10]


# Out of service


def test_postgresql_comes_and_goes(make: Callable[..., Store]) -> None:
    with Postgresql() as server:
        url = server.create()
        server.stop()
        store = make(url)
        for work in (lambda: put(store, 1), lambda: numbers(store), store.prepare(SELECT)):
            with pytest.raises(Unavailable):
                work()
        server.start()
        put(store, 1)
        server.stop()
        server.start()
        put(store, 2)
        assert numbers(store) == [1, 2]
        server.stop()
        server.start()
        assert store.prepare(SELECT)() == [(1,), (2,)]
        with contextlib.suppress(Unavailable), store.transaction():
            server.stop()
            with pytest.raises(Unavailable):
                store.prepare(SELECT)()
            with pytest.raises(Unavailable):
                store.prepare(SELECT)()
            server.start()
            with pytest.raises(Unavailable):  # what would be no part of the transaction is not executed
                store.prepare(INSERT)(number=3)
        assert numbers(store) == [1, 2]


def test_a_postgresql_that_stops_answering_holds_up_nobody_for_long(make: Callable[..., Store]) -> None:
    """As one whose disk hangs does: the kernel goes on taking connections and questions for it."""
    with Postgresql() as server, ThreadPoolExecutor(8) as threads:
        store = make(server.create())
        select = store.prepare(SELECT)

        def ask(_: object) -> float:
            begin = time.monotonic()
            with pytest.raises(Unavailable):
                select()
            return time.monotonic() - begin

        put(store, 1)
        assert list(threads.map(lambda _: select(), range(8))) == [[(1,)]] * 8
        server.pause()
        try:
            assert max(threads.map(ask, range(8))) < 2 * SILENCE  # those connected, for an answer
            assert max(threads.map(ask, range(8))) < 2 * SILENCE  # one of them, for a new connection
            assert max(threads.map(ask, range(8))) < 1  # it is left alone
        finally:
            server.resume()
        assert eventually(lambda: suppressed(select), 2 * SILENCE) == [(1,)]


def suppressed(select: Statement) -> list[tuple[Any, ...]]:
    with contextlib.suppress(Unavailable):
        return select()
    return []


def test_a_folder_that_is_not_there_yet(lite: Store, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        put(lite, 1)
    with pytest.raises(Unavailable):
        numbers(lite)
    (tmp_path / "folder").mkdir()
    put(lite, 1)
    assert numbers(lite) == [1]


def test_a_file_that_is_broken_and_taken_away(lite: Store, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "store.sqlite3"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    for work in (lambda: put(lite, 1), lambda: numbers(lite), lite.prepare(SELECT)):
        with pytest.raises(Unavailable) as error:
            work()
        assert str(tmp_path) not in error.value.detail
    path.unlink()
    put(lite, 1)
    assert numbers(lite) == [1]


def test_a_file_in_another_one_s_place(lite: Store, tmp_path: Path) -> None:
    """As an operator who deletes it, or puts a backup there, under a running gateway expects."""
    path = tmp_path / "folder" / "store.sqlite3"
    path.parent.mkdir()
    put(lite, 1)
    for file in path.parent.iterdir():
        file.rename(tmp_path / file.name)

    def is_found() -> bool:
        with contextlib.suppress(Unavailable):  # once, perhaps
            return numbers(lite) == []
        return False

    eventually(is_found)
    put(lite, 2)
    assert numbers(lite) == [2]


BEGUN = """
import gc, os, subprocess, sys, threading, time
from smsgw.model import Unavailable
from smsgw.store import Store
from tests.test_store import INSERT, METADATA, SELECT, numbers, put

folder = sys.argv[1]
store = Store(f"sqlite:///{folder}/store.sqlite3")
store.keep(METADATA)
"""
WRITTEN = f"""{BEGUN}
put(store, 1)
os._exit(0)  # as one that is killed, which leaves what can be read of a file that nobody can write to
"""
READ_ONLY = (
    BEGUN
    + """
gc.disable()  # which would close after a while what was forgotten
select, insert = store.prepare(SELECT), store.prepare(INSERT)

def read(pause, look):
    while True:
        try:
            look()
        except Unavailable:
            pass
        time.sleep(pause)

def look():
    with store.begin(is_reading=True) as connection:
        connection.execute(SELECT).all()

def tried(write, number):
    try:
        write(number)
        return True
    except Unavailable:
        time.sleep(0.005)

for arguments in ((0.001, look), (0.003, look), (0.003, select), (0.01, select)):
    threading.Thread(target=read, args=arguments, daemon=True).start()
writes = [lambda number: put(store, number), lambda number: insert(number=number)]
assert not any(tried(write, number) for number in range(2, 40) for write in writes)
subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
until = time.monotonic() + 10
for number, write in enumerate(writes, 2):
    while not tried(write, number):
        assert time.monotonic() < until, "it stays as it was"
assert numbers(store) == [1, 2, 3]
os._exit(0)  # the threads are at it
"""
)


def test_a_disk_that_was_read_only_while_many_read(tmp_path: Path) -> None:
    """What can be read of such a file is no reason to keep it open, which would keep it as it is for writers."""
    path = str(Path(__file__).parent.parent)  # `nsenter` leaves the folder that it was started in
    with Tmpfs(tmp_path / "disk", "2m") as disk:
        for script in (WRITTEN, READ_ONLY):
            command = [*disk.enter, sys.executable, "-c", script, disk.path]
            subprocess.run(command, check=True, timeout=60, env=os.environ | {"PYTHONPATH": path})
            disk.run("mount", "-o", "remount,ro", disk.path)


def test_many_that_fail_at_once_hold_up_nobody(lite: Store, tmp_path: Path) -> None:
    """They all let go of their connections, while one of them closes all."""
    (tmp_path / "folder").mkdir()
    insert = lite.prepare(INSERT)
    insert(number=0)
    stop, served = threading.Event(), threading.Semaphore(0)

    def work(first: int) -> None:
        for number in range(first, first + 10**6):
            if stop.is_set():
                return
            with contextlib.suppress(Unavailable):
                insert(number=number)
            served.release()

    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(work, (1 + n) * 10**6) for n in range(4)]
        other = sqlite3.connect(tmp_path / "folder" / "store.sqlite3")
        with contextlib.closing(other):
            other.execute("DROP TABLE numbers")
            other.execute("CREATE VIEW numbers AS SELECT 1 AS number")  # which nobody can insert into
            other.commit()
            try:
                for _ in range(4000):
                    assert served.acquire(timeout=30), "nobody gets in any more"
            finally:
                stop.set()
            other.execute("DROP VIEW numbers")
            other.commit()
        for each in done:
            each.result(timeout=30)  # it met nothing but ``Unavailable``
    put(lite, 1)
    assert 1 in numbers(lite)


def test_what_was_looked_up_before_all_was_closed_is_asked_for_again(lite: Store, tmp_path: Path) -> None:
    """SQLite's log begins anew when the last connection is closed, and looks then as it did before."""
    (tmp_path / "folder").mkdir()
    put(lite, 1)
    lite.close()
    look_up = lite.lookup(SELECT)
    for _ in range(3):
        assert look_up() == [(1,)]
    with pytest.raises(Unavailable):  # for which all is closed
        lite.prepare(text("SELECT * FROM nothing"))()
    with contextlib.closing(sqlite3.connect(tmp_path / "folder" / "store.sqlite3")) as other:
        other.execute("UPDATE numbers SET number = 2")
        other.commit()
    for _ in range(3):
        assert look_up() == [(2,)]


def test_a_file_that_somebody_locks(lite: Store, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "store.sqlite3"
    path.parent.mkdir()
    put(lite, 1)
    with sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False) as other:
        other.execute("BEGIN IMMEDIATE")
        assert numbers(lite) == [1]  # readers do not wait
        with pytest.raises(Unavailable), lite.begin():
            pass
        with pytest.raises(Unavailable):
            lite.prepare(INSERT)(number=2)
        threading.Timer(1, other.rollback).start()
        put(lite, 3)  # and writers wait a while
    other.close()
    assert numbers(lite) == [1, 3]


def test_a_table_that_somebody_drops(store: Store) -> None:
    """It is made anew, after one request that finds out."""
    put(store, 1)
    with store.begin() as connection:
        NUMBERS.drop(connection)
    with pytest.raises(Unavailable), store.transaction():
        store.prepare(INSERT)(number=2)
    put(store, 3)
    assert numbers(store) == [3]


def test_a_file_is_nobody_else_s(lite: Store, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    put(lite, 1)
    for file in folder.iterdir():
        found = file.stat()
        assert found.st_mode & 0o777 == 0o600
        assert found.st_uid == folder.stat().st_uid


@pytest.mark.parametrize(("is_durable", "level"), [(False, 1), (True, 2)])
def test_how_durable_a_commit_is(make: Callable[..., Store], tmp_path: Path, is_durable: bool, level: int) -> None:
    """1 is NORMAL, 2 is FULL (https://www.sqlite.org/pragma.html#pragma_synchronous)."""
    store = make(f"sqlite:///{tmp_path / 'store.sqlite3'}", is_durable=is_durable)
    assert store.prepare(text("PRAGMA synchronous"))() == [(level,)]
    with store.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level


# Settings


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite", "no URL"),
        ("/var/lib/store.sqlite3", "no URL"),
        ("postgresql://smsgw:geheim@host:port/smsgw", "no URL"),
        ("mysql://smsgw:geheim@host/smsgw", "should begin with sqlite:// or postgresql://"),
        ("postgresql+psycopg2://smsgw:geheim@host/smsgw", "should begin with"),
        ("sqlite://", "absolute path"),
        ("sqlite:///store.sqlite3", "absolute path"),
        ("sqlite:///:memory:", "absolute path"),
        ("sqlite://host/store.sqlite3", "absolute path"),
        ("sqlite:////store.sqlite3?mode=ro", r"has a '\?' in it"),
        ("postgresql://smsgw:geheim@host/smsgw?sslmod=require", "sslmod"),
    ],
)
def test_urls_that_are_wrong(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as error:
        Store(url)
    assert "geheim" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_password_is_nobody_s_business(make: Callable[..., Store]) -> None:
    url = "postgresql://smsgw:geheim@127.0.0.1:1/smsgw"
    store = make(url)
    with pytest.raises(Unavailable) as error:
        numbers(store)
    assert "127.0.0.1" in str(error.value.__cause__)
    settings = read_core({"smsgw.store": url, "smsgw.spool": "/spool"})
    assert settings.store == url
    for shown in (store, settings, error.value, error.value.detail, error.value.__cause__):
        assert "geheim" not in f"{shown!r} {shown!s}"


def test_plugins_share_one(tmp_path: Path) -> None:
    """Each finds its own tables, also one that asks when others have theirs already."""
    registry = SimpleNamespace(smsgw=SimpleNamespace(store=f"sqlite:///{tmp_path / 'store.sqlite3'}"))
    first = open_store(registry, METADATA)
    put(first, 1)
    more = MetaData()
    Table("more", more, Column("id", Integer, primary_key=True))
    assert open_store(registry, more) is first
    assert first.prepare(text("SELECT count(*) FROM more"))() == [(0,)]
    first.close()


@pytest.mark.usefixtures("gateway")
def test_a_gateway_without_plugins_that_need_it_makes_none(gateway: Gateway) -> None:
    gateway.send()
    assert not list(gateway.state.glob("store*"))


def test_the_example_of_plugins_md(make_gateway: MakeGateway, store_url: str) -> None:
    text = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()
    (source,) = re.findall(r"## A memory\n.*?```python\n(.*?)```", text, re.S)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    settings = {"smsgw.plugins": "htpasswd allow tally", "smsgw.store": store_url}
    for count in (2, 4):
        gateway = make_gateway(settings, tally=namespace["Tally"])
        gateway.send(mobiles=["79680000000", "79680000001"])
        with gateway.registry.store.begin(is_reading=True) as connection:
            rows = connection.exec_driver_sql("SELECT userid, count FROM tally_sent").fetchall()
        assert [tuple(row) for row in rows] == [("lvv", count)]
