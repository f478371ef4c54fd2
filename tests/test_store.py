"""The database that plugins with a memory share, SQLite and PostgreSQL: transactions, tables, and its failures."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.exc import IntegrityError, OperationalError

from smsgw.model import ConfigurationError, Sent, Unavailable
from smsgw.settings import read_core
from smsgw.store import Store, Stores, open_store
from smsgw.testing import Gateway, MakeGateway, stored
from tests.conftest import at_length, eventually
from tests.postgresql import Postgresql
from tests.tmpfs import Ext4, Tmpfs

METADATA = MetaData()
NUMBERS = Table("numbers", METADATA, Column("number", Integer, primary_key=True))

INSERT = text("INSERT INTO numbers (number) VALUES (:number)")
SELECT = sqlalchemy.select(NUMBERS.c.number).order_by(NUMBERS.c.number)


@pytest.fixture
def make() -> Iterator[Callable[..., Store]]:
    """A store of that URL, with the table."""
    stores = []

    def made(url: str) -> Store:
        stores.append(Store(url))
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
    with store.begin() as connection:
        for number in numbers:
            connection.execute(INSERT, {"number": number})


def numbers(store: Store) -> list[int]:
    """What is there."""
    with store.begin(is_reading=True) as connection:
        return list(connection.execute(SELECT).scalars())


def test_one_that_reads_sees_one_state(store: Store, make: Callable[..., Store], store_url: str) -> None:
    """Nobody else can commit meanwhile to SQLite; what others commit to PostgreSQL is seen later."""
    put(store, 1)
    other = make(store_url)
    with ThreadPoolExecutor(1) as threads:
        with store.begin(is_reading=True) as connection:
            assert connection.execute(SELECT).scalars().all() == [1]
            written = threads.submit(put, other, 2)
            if store.path is None:
                written.result()
            assert connection.execute(SELECT).scalars().all() == [1]
        written.result()
    assert numbers(store) == [1, 2]


def test_what_is_committed_stays(store_url: str, make: Callable[..., Store]) -> None:
    store = make(store_url)
    with store.begin() as connection:
        connection.execute(NUMBERS.insert().values(number=1))
    put(store, 2, 3)
    assert numbers(store) == [1, 2, 3]
    store.close()
    assert numbers(make(store_url)) == [1, 2, 3]


def test_what_raises_is_rolled_back(store: Store) -> None:
    with contextlib.suppress(ZeroDivisionError), store.begin() as connection:
        connection.execute(NUMBERS.insert().values(number=1))
        raise ZeroDivisionError
    with contextlib.suppress(IntegrityError):
        put(store, 3, 3)
    assert numbers(store) == []
    put(store, 4)
    assert numbers(store) == [4]


def test_one_statement_by_itself(store: Store) -> None:
    assert store.execute(INSERT, {"number": 1}) == []
    assert [tuple(row) for row in store.execute(SELECT, {})] == [(1,)]
    with pytest.raises(IntegrityError):
        store.execute(INSERT, {"number": 1})
    with pytest.raises(Unavailable):
        store.execute(text("SELECT 1 FROM nothing"), {})
    store.execute(INSERT, {"number": 2})
    assert numbers(store) == [1, 2]


def test_a_broken_constraint_is_the_plugin_s_own_business(store: Store) -> None:
    put(store, 1)
    with pytest.raises(IntegrityError), store.begin() as connection:
        connection.execute(NUMBERS.insert().values(number=1))
    put(store, 2)
    assert numbers(store) == [1, 2]


def test_threads(store: Store) -> None:
    """None is refused for others' transactions, and each of them is whole."""
    take = text("UPDATE numbers SET number = number + 1 WHERE number < 100 RETURNING number")
    put(store, 0)

    def hammer(_: int) -> int:
        taken = 0
        for _ in range(15):
            with store.begin() as connection:
                taken += len(connection.execute(take).all())
        return taken

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(hammer, range(8))) == 100
    assert numbers(store) == [100]


SCRIPT = """
import sys
from sqlalchemy import Column, Integer, MetaData, Table, text
from smsgw.store import Store

store, tables = Store(sys.argv[1]), MetaData()
Table("numbers", tables, Column("number", Integer, primary_key=True))
store.keep(tables)
sys.stdin.read()
with store.begin() as connection:
    connection.execute(text("INSERT INTO numbers (number) VALUES (:number)"), {"number": sys.argv[2]})
store.close()
"""


def test_several_processes_make_the_tables_at_once(store: Store, store_url: str) -> None:
    command, count = [sys.executable, "-W", "ignore", "-c", SCRIPT, store_url], at_length(6, 3)
    pipe = subprocess.PIPE
    processes = [subprocess.Popen([*command, str(n)], stdin=pipe, stderr=pipe, text=True) for n in range(count)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for process in processes:
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
    assert numbers(store) == list(range(count))


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


def until(work: Callable[[], None]) -> None:
    def is_done() -> bool:
        with contextlib.suppress(Unavailable):
            work()
            return True
        return False

    eventually(is_done)


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
    stop, more = threading.Event(), text("UPDATE numbers SET number = number + 1")
    made = [0] * 4

    def hammer(number: int) -> None:
        while not stop.is_set():
            with store.begin() as connection:
                connection.execute(more)
                connection.execute(more)
            assert len(numbers(store)) == 1
            made[number] += 2

    def add() -> None:
        with store.begin() as connection:
            connection.execute(more)

    def work() -> None:
        until(add)  # the parent's threads leave little room

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(hammer, number) for number in range(4)]
        try:
            for _ in range(5):
                forked(work)
        finally:
            stop.set()
        for thread in threads:
            thread.result()
    assert numbers(store) == [sum(made) + 5]


def test_two_threads_that_fork_at_once(lite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has the turn as soon as the first releases it, and gives it back all the same."""

    class Turn:
        lock = threading.Lock()
        is_first = True
        acquire = staticmethod(lock.acquire)

        def release(self) -> None:
            self.lock.release()
            if self.is_first:
                self.is_first = False
                lite.before_fork()

    turn = Turn()
    monkeypatch.setattr(lite, "_turn", turn)
    lite.before_fork()
    lite.after_fork_in_parent()
    assert turn.lock.locked()
    lite.after_fork_in_parent()
    assert not turn.lock.locked()


def test_a_process_that_forks_has_nothing_open_of_sqlite(lite: Store, tmp_path: Path) -> None:
    """To close it in the child would be as wrong as to use it."""
    (tmp_path / "folder").mkdir()
    put(lite, 1)

    def work() -> None:
        opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        assert not [path for path in opened if path.startswith(str(tmp_path))]

    forked(work)
    assert numbers(lite) == [1]


# Out of service


def test_postgresql_comes_and_goes(make: Callable[..., Store]) -> None:
    with Postgresql() as server:
        url = server.create()
        server.stop()
        store = make(url)
        for work in (lambda: put(store, 1), lambda: numbers(store)):
            with pytest.raises(Unavailable):
                work()
        server.start()
        put(store, 1)
        server.stop()
        server.start()
        put(store, 2)
        assert numbers(store) == [1, 2]
        with pytest.raises(Unavailable):
            restart_within(store, server)
        assert numbers(store) == [1, 2]


def restart_within(store: Store, server: Postgresql) -> None:
    """Let the server restart within a transaction; what follows would be no part of it, and is not executed."""
    with store.begin() as connection:
        server.stop()
        with pytest.raises(OperationalError):
            connection.execute(SELECT)
        server.start()
        connection.execute(INSERT, {"number": 3})


def test_a_postgresql_that_stops_answering_holds_up_nobody_for_ever(make: Callable[..., Store]) -> None:
    """As one whose disk hangs: the kernel goes on taking connections and statements for it."""
    with Postgresql() as server, ThreadPoolExecutor(8) as threads:
        store = make(server.create())

        def ask(_: object) -> str:
            with pytest.raises(Unavailable) as error:
                numbers(store)
            return str(error.value.__cause__)

        put(store, 1)
        assert list(threads.map(lambda _: numbers(store), range(8))) == [[1]] * 8
        server.pause()
        try:
            assert len(list(threads.map(ask, range(8)))) == 8  # who is connected waits for an answer, or connects anew
            begun = time.monotonic()
            for _ in range(200):  # the others are refused at once: each could wait for seconds
                ask(None)
            assert time.monotonic() - begun < 200
        finally:
            server.resume()
        assert eventually(lambda: suppressed(store), 60) == [1]


def test_a_statement_that_never_ends(make: Callable[..., Store], postgresql: Postgresql) -> None:
    """The server ends it; nobody else is refused for it."""
    store = make(postgresql.create())
    with pytest.raises(Unavailable) as error, store.begin() as connection:
        connection.execute(text("SELECT pg_sleep(3600)"))
    assert "statement timeout" in str(error.value.__cause__)
    put(store, 1)


def suppressed(store: Store) -> list[int]:
    with contextlib.suppress(Unavailable):
        return numbers(store)
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
    for work in (lambda: put(lite, 1), lambda: numbers(lite)):
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

def read(pause):
    while True:
        try:
            numbers(store)
        except Unavailable:
            pass
        time.sleep(pause)

def tried(number):
    try:
        put(store, number)
        return True
    except Unavailable:
        time.sleep(0.005)

for pause in (0.001, 0.003, 0.003, 0.01):
    threading.Thread(target=read, args=[pause], daemon=True).start()
assert not any(tried(number) for number in range(2, 40))
subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
until = time.monotonic() + 60
while not tried(2):
    assert time.monotonic() < until, "it stays as it was"
assert numbers(store) == [1, 2]
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
    (tmp_path / "folder").mkdir()
    put(lite, 0)
    stop, served = threading.Event(), threading.Semaphore(0)

    def work(first: int) -> None:
        for number in range(first, first + 10**6):
            if stop.is_set():
                return
            with contextlib.suppress(Unavailable):
                put(lite, number)
            served.release()

    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(work, (1 + n) * 10**6) for n in range(4)]
        other = sqlite3.connect(tmp_path / "folder" / "store.sqlite3")
        with contextlib.closing(other):
            other.execute("DROP TABLE numbers")
            other.execute("CREATE VIEW numbers AS SELECT 1 AS number")  # which nobody can insert into
            other.commit()
            try:
                for _ in range(400):
                    assert served.acquire(timeout=30), "nobody gets in any more"
            finally:
                stop.set()
            other.execute("DROP VIEW numbers")
            other.commit()
        for each in done:
            each.result(timeout=30)  # it met nothing but ``Unavailable``
    put(lite, 1)
    assert 1 in numbers(lite)


def test_a_file_that_somebody_locks(lite: Store, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "store.sqlite3"
    path.parent.mkdir()
    put(lite, 1)
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
        ThreadPoolExecutor(1) as threads,
    ):
        other.execute("BEGIN IMMEDIATE")
        assert numbers(lite) == [1]  # a writer that does not commit yet keeps out other writers alone
        for _ in range(2):
            with pytest.raises(Unavailable) as error:
                put(lite, 2)
            assert "locked" in str(error.value.__cause__)
        assert numbers(lite) == [1]  # and nobody is refused for them
        written = threads.submit(until, lambda: put(lite, 3))  # writers wait a while
        other.rollback()
        written.result()
    assert numbers(lite) == [1, 3]


def test_a_table_that_somebody_drops(store: Store) -> None:
    """It is made anew, after one request that finds out."""
    put(store, 1)
    with store.begin() as connection:
        NUMBERS.drop(connection)
    with pytest.raises(Unavailable):
        put(store, 2)
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


def test_what_sqlite_does_for_safety(make: Callable[..., Store], tmp_path: Path) -> None:
    """https://www.sqlite.org/pragma.html: 2 is FULL. No file is shared in memory."""
    store = make(f"sqlite:///{tmp_path / 'store.sqlite3'}")
    with store.begin() as connection:
        for name, value in (("synchronous", 2), ("journal_mode", "persist"), ("foreign_keys", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value
    assert {path.name for path in tmp_path.glob("store*")} == {"store.sqlite3", "store.sqlite3-journal"}


def test_a_file_of_a_version_that_used_wal(make: Callable[..., Store], tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
        old.execute("INSERT INTO numbers VALUES (1)")
        old.commit()
        copy = tmp_path / "crashed" / path.name  # with what is in its log alone
        copy.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    for found in (path, copy):
        store = make(f"sqlite:///{found}")
        put(store, 2)
        assert numbers(store) == [1, 2]
        assert not list(found.parent.glob("*-wal")) + list(found.parent.glob("*-shm"))


FULL = (
    BEGUN
    + """
def outcome(work):
    try:
        work()
        return "done"
    except Unavailable:
        return "refused"

print(outcome(lambda: put(store, 1)), flush=True)
for line in sys.stdin:
    number = int(line)
    outcomes = [outcome(lambda: put(store, *range(number, number + 5000))), outcome(lambda: numbers(store))]
    print(*outcomes, flush=True)
print(numbers(store) == [1, *range(number, number + 5000)])
store.close()
"""
)


def test_a_full_disk_of_small_blocks_ends_no_process(tmp_path: Path) -> None:
    """mkfs.ext4 makes blocks of 1 KiB on small disks, and a page in memory can have holes then."""
    path = str(Path(__file__).parent.parent)
    with Ext4(tmp_path / "disk", "4m") as disk:
        command = [*disk.enter, sys.executable, "-c", FULL, disk.path]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | {"PYTHONPATH": path}) as it:
            assert it.stdin is not None
            assert it.stdout is not None
            assert it.stdout.readline() == "done\n"
            filler = disk.fill()
            for leave in (0, 1, 2, 3, 5, 8):
                os.truncate(filler, filler.stat().st_size - leave * 1024)
                it.stdin.write("2\n")
                it.stdin.flush()
                # On a busy machine the refusal can take long, and then nothing is tried for some seconds.
                assert it.stdout.readline() in ("refused done\n", "refused refused\n")
            filler.unlink()
            write, read = it.stdin, it.stdout

            def is_done() -> bool:
                write.write("2\n")
                write.flush()
                return read.readline() == "done done\n"

            eventually(is_done)
            write.close()
            assert read.readline() == "True\n"
            assert it.wait() == 0


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
    registry = SimpleNamespace(stores=Stores(None, tmp_path))
    first = open_store(registry, METADATA)
    put(first, 1)
    more = MetaData()
    Table("more", more, Column("id", Integer, primary_key=True))
    assert open_store(registry, more) is first
    with first.begin(is_reading=True) as connection:
        assert connection.execute(text("SELECT count(*) FROM more")).scalar() == 0
    first.close()


@pytest.mark.usefixtures("gateway")
def test_a_gateway_without_plugins_that_need_it_makes_none(gateway: Gateway) -> None:
    gateway.send()
    assert not list(gateway.state.glob("store*"))


def test_the_recipe_for_exactly_once(make_gateway: MakeGateway, store_url: str) -> None:
    text = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
    (source,) = re.findall(r"## Exactly once\n.*?```python\n(.*?)```", text, re.S)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    gateway = make_gateway(
        {"smsgw.plugins": "htpasswd allow tally", "smsgw.store": store_url}, tally=namespace["Tally"]
    )
    plugin = gateway.plugin("tally")

    def counted() -> list[tuple[str, int]]:
        with plugin.store.begin(is_reading=True) as connection:
            rows = connection.exec_driver_sql("SELECT userid, count(*) FROM tally_sent GROUP BY userid").fetchall()
        return [tuple(row) for row in rows]

    for number in (1, 2):
        gateway.put("sent", f"smsgw.http.{number}", "To: 79680000000\nFrom: lvv\nSent: 26-11-23 07:11:05\n\nHi")
    eventually(lambda: counted() == [("lvv", 2)])
    again = Sent(stored(), datetime.now(UTC), key="sent:smsgw.http.1")
    plugin.notify([again, again])
    assert counted() == [("lvv", 2)]
