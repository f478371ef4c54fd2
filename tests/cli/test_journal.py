"""``smsgw journal``: how it stands, and all files read once more, also while a gateway runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smsgw.journal.tables import EVENTS, FILES, MESSAGES, PARTS, REPORTS
from smsgw.store import Store
from smsgw.testing import Gateway, MakeGateway
from tests.cli.conftest import Ini, executable, smsgw
from tests.conftest import eventually
from tests.postgresql import Postgresql
from tests.remembered import (
    REPORT,
    SMSGW,
    Ear,
    at_work,
    command,
    database_of,
    found,
    ini_of,
    known,
    received,
    rows,
    sent,
)
from tests.server import Server

TABLES = (FILES, MESSAGES, PARTS, REPORTS)


@pytest.fixture
def gateway(make_gateway: MakeGateway, store_url: str) -> Gateway:
    return at_work(make_gateway({"smsgw.store": store_url}))


def fill(gateway: Gateway) -> None:
    """Two messages of each kind; ``m0`` was delivered."""
    for number in range(2):
        gateway.put("sent", f"m{number}", sent(number=number))
        gateway.put("failed", f"f{number}", sent())
        gateway.put("incoming", f"GSM1.{number}", received())
    gateway.put("report", "GSM1.r", REPORT.format(0, 0))
    eventually(lambda: len(known(gateway)) == 6 and known(gateway)["m0"] == "delivered")


def dump(gateway: Gateway) -> list[Any]:
    return [rows(gateway, table) for table in TABLES]


def test_how_it_stands(gateway: Gateway, tmp_path: Path) -> None:
    fill(gateway)
    ran = command(gateway, "status", folder=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    table = [line.split() for line in lines[1:5]]
    assert table == [["delivered", "1"], ["failed", "2"], ["received", "2"], ["sent", "1"]]
    assert lines[5].startswith("The oldest is of 20")
    assert lines[6:] == ["7 files are known."]


def test_before_the_gateway_ran(ini: Ini, tmp_path: Path) -> None:
    path = tmp_path / "spool" / "outgoing" / ".smsgw" / "journal" / "store.sqlite3"
    ran = smsgw("journal", "status", ini())
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"Error: there is no journal yet; the gateway makes {path} when it starts\n"


def test_made_before_the_gateway_runs(make_gateway: MakeGateway, ini: Ini, tmp_path: Path) -> None:
    """All files are there then, and plugins are told of none of them."""
    (tmp_path / "spool" / "sent" / "m1").write_text(sent())
    ran = smsgw("journal", "rebuild", ini())
    assert (ran.status, ran.out, ran.err) == (0, "", "The journal is made again; it has 1 files.\n")
    gateway = make_gateway()
    assert known(gateway) == {"m1": "sent"}
    assert rows(gateway, EVENTS) == []


def test_what_is_missing_is_read_from_the_files(gateway: Gateway, tmp_path: Path) -> None:
    fill(gateway)
    (gateway.spool / "sent" / "m1").unlink()
    eventually(lambda: len(rows(gateway, FILES)) == 6)
    before, events = dump(gateway), rows(gateway, EVENTS)
    assert command(gateway, "rebuild", folder=tmp_path).returncode == 0
    assert dump(gateway) == before
    with database_of(gateway).writing() as connection:
        connection.execute(MESSAGES.delete().where(MESSAGES.c.id.in_(["m0", "f0", "GSM1.0"])))
        connection.execute(PARTS.delete().where(PARTS.c.message == "m0"))
    assert len(known(gateway)) == 3
    ran = command(gateway, "rebuild", folder=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "The journal is made again; it has 6 files.\n")
    assert dump(gateway) == before
    assert rows(gateway, EVENTS) == events
    assert found(gateway)["m1"] == "sent"  # its file is gone, and the journal alone knows of it


def test_what_has_no_file_is_forgotten_where_that_is_asked_for(gateway: Gateway, tmp_path: Path) -> None:
    fill(gateway)
    for path in (gateway.spool / "sent" / "m0", gateway.spool / "report" / "GSM1.r"):
        path.unlink()
    (gateway.spool / "incoming" / "GSM1.1").unlink()
    eventually(lambda: len(rows(gateway, FILES)) == 4)
    events = rows(gateway, EVENTS)
    assert command(gateway, "rebuild", "--anew", folder=tmp_path).returncode == 0
    assert known(gateway) == {"m1": "sent", "f0": "failed", "f1": "failed", "GSM1.0": "received"}
    assert {row.message for row in rows(gateway, PARTS)} == {"m1"}
    assert rows(gateway, REPORTS) == []
    assert rows(gateway, EVENTS) == events


def test_what_came_while_nobody_ran_is_news_all_the_same(make_gateway: MakeGateway, tmp_path: Path) -> None:
    first = at_work(make_gateway())
    first.put("sent", "old", sent())
    eventually(lambda: known(first))
    first.application.owner.stop()
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow ear"}, ear=Ear)
    gateway.application.owner.stop()  # it has noted the plugin
    gateway.put("sent", "new", sent())
    assert command(first, "rebuild", folder=tmp_path).returncode == 0
    assert known(first) == {"old": "sent", "new": "sent"}
    again = make_gateway({"smsgw.plugins": "htpasswd allow ear"}, ear=Ear)
    eventually(lambda: ("Sent", "new") in again.plugin("ear").heard)
    assert {id for _, id in again.plugin("ear").heard} == {"new"}


@pytest.fixture
def running(base_settings: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, base_settings) as server:
        yield server


def rows_of(tmp_path: Path, statement: str) -> list[Any]:
    path = tmp_path / "spool" / "outgoing" / ".smsgw" / "journal" / "store.sqlite3"
    with contextlib.closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def test_a_gateway_that_runs_beside_it(running: Server, tmp_path: Path) -> None:
    """It goes on to tell plugins of what comes, once; and of nothing that was there, however it looks meanwhile."""
    ini = next(tmp_path.glob("*.ini"))
    sent_to, coming = tmp_path / "spool" / "sent", tmp_path / "coming"
    coming.mkdir()

    def put(name: str, number: int) -> None:
        (coming / name).write_text(sent(number=number % 256))
        (coming / name).rename(sent_to / name)

    for number in range(600):
        put(f"old{number}", number)
    eventually(lambda: rows_of(tmp_path, "SELECT count(*) FROM journal_messages") == [(600,)], 60)
    rows_of(tmp_path, "DELETE FROM journal_events")
    done, failures = threading.Event(), list[Any]()

    def rebuild() -> None:
        try:
            for options in ([], ["--anew"]):
                ran = executable("journal", "rebuild", *options, ini)
                if ran.status:
                    failures.append(ran)
        finally:
            done.set()

    thread = threading.Thread(target=rebuild)
    thread.start()
    count = 0
    while not done.wait(0.1):
        put(f"new{count}", count)
        (sent_to / f"old{count}").unlink(missing_ok=True)
        os.utime(sent_to, (count, count))  # the kernel tells nobody: all of the folder is looked at
        count += 1
    thread.join()
    assert failures == []
    assert count
    wanted = sorted((f"new{number}", event) for number in range(count) for event in ("accepted", "sent"))
    told = "SELECT message, event FROM journal_events ORDER BY message, event"
    eventually(lambda: len(rows_of(tmp_path, told)) >= len(wanted), 60)
    running.stop()
    assert rows_of(tmp_path, told) == wanted
    files = sorted(path.name for path in sent_to.iterdir())
    assert executable("journal", "rebuild", "--anew", ini).status == 0
    for table, name in (("messages", "id"), ("files", "name")):
        assert sorted(row[0] for row in rows_of(tmp_path, f"SELECT {name} FROM journal_{table}")) == files
    assert rows_of(tmp_path, told) == wanted


def is_at_it(pid: int) -> bool:
    """Whether that process has the journal open."""
    with contextlib.suppress(FileNotFoundError):  # one that it is just closing
        return any(os.readlink(fd).endswith("journal/store.sqlite3") for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_one_that_is_killed(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """Nothing is missing meanwhile, nor after it."""
    gateway = at_work(make_gateway())
    for number in range(1500):
        gateway.put("sent", f"m{number:04}", sent(number=number % 256))
    eventually(lambda: len(known(gateway)) == 1500, 60)
    before, events = dump(gateway), rows(gateway, EVENTS)
    for _ in range(2):
        order = [SMSGW, "journal", "rebuild", "--anew", ini_of(gateway, tmp_path)]
        process = subprocess.Popen(order, stderr=subprocess.DEVNULL)
        eventually(lambda process=process: is_at_it(process.pid), 30)
        process.kill()
        process.wait()
        assert dump(gateway) == before
    assert command(gateway, "rebuild", "--anew", folder=tmp_path).returncode == 0
    assert dump(gateway) == before
    assert rows(gateway, EVENTS) == events


@pytest.mark.skipif(os.geteuid() != 0, reason="root, who can be others")
def test_root_is_the_gateway_s_user(ini: Ini, tmp_path: Path, as_nobody: Callable[[Path], None]) -> None:
    as_nobody(tmp_path / "spool")
    (tmp_path / "spool" / "sent" / "m1").write_text(sent())
    state = tmp_path / "spool" / "outgoing" / ".smsgw"
    state.mkdir()
    shutil.chown(state, "nobody")
    assert smsgw("journal", "rebuild", ini()).status == 0
    made = [state, *state.rglob("*")]
    assert state / "journal" / "store.sqlite3" in made
    assert {path.owner() for path in made} == {"nobody"}


@pytest.fixture
def as_nobody() -> Callable[[Path], None]:
    def give(folder: Path) -> None:
        for each in (folder, *folder.rglob("*")):
            shutil.chown(each, "nobody")
        for parent in folder.parents[:4]:
            parent.chmod(0o755)

    return give


def test_a_database_that_is_not_there(ini: Ini, postgresql: Any) -> None:
    ran = smsgw("journal", "rebuild", ini({"smsgw.store": f"{postgresql.create()}-that-is-not-there"}))
    assert ran.status == 1
    assert "The gateway's journal is out of service" in ran.err


def test_a_journal_that_is_locked_for_a_while(ini: Ini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgw.sqlite.LOCKED", 0.1)
    (tmp_path / "spool" / "sent" / "m1").write_text(sent())
    assert smsgw("journal", "rebuild", ini()).status == 0
    path = tmp_path / "spool" / "outgoing" / ".smsgw" / "journal" / "store.sqlite3"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(1, other.execute, ["ROLLBACK"])
        timer.start()
        assert smsgw("journal", "rebuild", ini()).status == 0
        timer.join()


def test_postgresql_knows_what_is_in_the_tables(
    ini: Ini, make_gateway: MakeGateway, postgresql: Postgresql, tmp_path: Path
) -> None:
    url = postgresql.create()
    (tmp_path / "spool" / "sent" / "m1").write_text(sent())
    assert smsgw("journal", "rebuild", ini({"smsgw.store": url})).status == 0
    store = Store(url)
    with store.begin(is_reading=True) as connection:
        known = "SELECT reltuples FROM pg_class WHERE relname = 'journal_messages'"
        assert connection.exec_driver_sql(known).scalar() == 1
    store.close()
