"""The journal in trouble: whatever happens to it, messages go out, and it comes back."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from smsgw.journal.tables import CURSORS
from smsgw.model import Unavailable
from smsgw.testing import Gateway, MakeGateway, make_spool
from tests.conftest import USERS, eventually, sha
from tests.postgresql import Postgresql
from tests.remembered import (
    INBOX,
    MESSAGES,
    REPORT,
    SMSGW,
    Ear,
    at_work,
    database_of,
    found,
    is_whole,
    known,
    received,
    rows,
    sent,
)
from tests.server import Server
from tests.tmpfs import Tmpfs


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once, and nobody waits long for a journal that is out of service."""
    monkeypatch.setattr("smsgw.spool.following.follower.RETRY", 0.1)
    monkeypatch.setattr("smsgw.spool.following.follower.LONGEST", 0.5)
    monkeypatch.setattr("smsgw.journal.notifier.RETRY", 0.1)
    monkeypatch.setattr("smsgw.journal.journal.PATIENCE", 0.25)


@pytest.fixture
def lite(make_gateway: MakeGateway) -> Gateway:
    return at_work(make_gateway())


def file_of(gateway: Gateway) -> Path:
    return gateway.state / "journal" / "store.sqlite3"


def filled(gateway: Gateway) -> dict[str, str]:
    """Enough messages for some pages of the file, which is no more than its main part then."""
    for number in range(60):
        gateway.put("sent", f"m{number:02}", sent(text="x" * 500))
    eventually(lambda: len(known(gateway)) == 60)
    with contextlib.closing(sqlite3.connect(file_of(gateway))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return found(gateway)


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def zeroed(path: Path) -> None:
    """All pages but the first, and the scheme's."""
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.seek(4096 * 2)
        stream.write(bytes(size - 4096 * 2))


def harmed(gateway: Gateway, harm: Callable[[Path], None]) -> None:
    """And what connections have in their memory of the file as it was is forgotten."""
    harm(file_of(gateway))
    database_of(gateway).store.close()


def search(gateway: Gateway) -> int:
    """The status code of a search."""
    status: int = gateway.get(MESSAGES, status="*").status_int
    return status


@pytest.mark.parametrize("harm", [garbage, truncated, zeroed])
def test_a_broken_file(lite: Gateway, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    before = filled(lite)
    harmed(lite, harm)
    lite.send(status=201)
    assert lite.get(f"{MESSAGES}/m01").json["status"] == "sent"
    search(lite)
    aside = lite.state / "journal.broken"
    lite.put("sent", "last", sent())
    eventually(aside.is_dir, 20)
    eventually(lambda: is_whole(lite) and len(known(lite)) == 61, 20)
    after = found(lite, "status=sent")
    assert after.pop("last") == "sent"
    assert after == before
    (line,) = (text for text in caplog.messages if "lies in" in text)
    assert line == f"the journal was broken; it lies in {aside} now, and a new one is made from the spool"


def test_plugins_hear_of_nothing_old_where_it_is_made_again(make_gateway: MakeGateway) -> None:
    gateway = at_work(make_gateway({"smsgw.plugins": "htpasswd allow ear"}, ear=Ear))
    filled(gateway)
    ear = gateway.plugin("ear")
    eventually(lambda: len(ear.heard) == 120)
    harmed(gateway, garbage)
    gateway.put("sent", "new", sent())
    eventually(lambda: is_whole(gateway) and len(known(gateway)) == 61, 20)
    gateway.put("sent", "later", sent())
    eventually(lambda: ("Sent", "later") in ear.heard, 20)
    assert {id for _, id in ear.heard[120:]} <= {"new", "later"}


def test_what_was_put_aside_stays_there(lite: Gateway) -> None:
    """Also where another process, which read the old one still, finds it broken when the new one is there."""
    filled(lite)
    harmed(lite, garbage)
    aside = lite.state / "journal.broken"
    broken = file_of(lite).read_bytes()
    search(lite)
    lite.put("sent", "last", sent())
    eventually(lambda: aside.is_dir() and is_whole(lite), 20)
    mark = lite.state / "journal" / "broken"
    mark.touch()
    lite.put("sent", "later", sent())
    eventually(lambda: not mark.exists(), 20)
    assert (aside / "store.sqlite3").read_bytes() == broken


def test_a_file_that_is_taken_away(lite: Gateway) -> None:
    before = filled(lite)
    for path in file_of(lite).parent.iterdir():
        path.unlink()
    lite.send(status=201)
    eventually(lambda: is_whole(lite) and len(known(lite)) == 60, 30)
    assert found(lite, "status=sent") == before


def test_tokens_and_quotas_are_not_touched(make_gateway: MakeGateway) -> None:
    gateway = at_work(make_gateway({"smsgw.plugins": "htpasswd allow quota", "smsgw.quota.limits": "\n*: 5/month"}))
    gateway.send()
    filled(gateway)
    harmed(gateway, garbage)
    search(gateway)
    gateway.put("sent", "last", sent())
    eventually(lambda: (gateway.state / "journal.broken").is_dir() and is_whole(gateway), 20)
    assert gateway.get("/api/v2/me").json["limits"][0]["left"] == 4


def test_a_database_that_is_locked(lite: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending goes on, and one message is read from its file; what happens meanwhile is in it afterwards."""
    monkeypatch.setattr("smsgw.store.WAIT", 0.2)
    lite.put("sent", "m1", sent(number=7))
    lite.put("incoming", "GSM1.a", received())
    eventually(lambda: len(known(lite)) == 2)
    database_of(lite).store.close()
    with contextlib.closing(sqlite3.connect(file_of(lite), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        lite.send(status=201)
        lite.put("sent", "m2", sent())
        lite.put("report", "GSM1.r", REPORT.format(7, 0))
        assert lite.get(f"{MESSAGES}/m2").json["status"] == "sent"
        lite.delete(f"{INBOX}/GSM1.a", user="root", status=503)
        assert lite.files("incoming")
        other.execute("ROLLBACK")
    eventually(lambda: known(lite) == {"m1": "delivered", "m2": "sent", "GSM1.a": "received"}, 30)


def test_postgresql_is_down_for_a_while(make_gateway: MakeGateway) -> None:
    with Postgresql() as server:
        settings = {"smsgw.store": server.create(), "smsgw.plugins": "htpasswd allow ear"}
        gateway = at_work(make_gateway(settings, ear=Ear))
        gateway.put("sent", "m1", sent())
        eventually(lambda: known(gateway))
        server.stop()
        gateway.send(status=201)
        gateway.put("sent", "m2", sent())
        gateway.put("incoming", "GSM1.a", received())
        assert gateway.get(f"{MESSAGES}/m2").json["status"] == "sent"
        gateway.get(MESSAGES, status=503)
        gateway.get(INBOX, user="root", status=503)
        gateway.delete(f"{INBOX}/GSM1.a", user="root", status=503)
        assert gateway.files("incoming")
        server.start()
        eventually(lambda: len(known(gateway)) == 3, 60)
        eventually(lambda: ("Sent", "m2") in gateway.plugin("ear").heard, 60)
        gateway.delete(f"{INBOX}/GSM1.a", user="root")


@pytest.fixture
def server_settings(tmp_path: Path) -> dict[str, str]:
    passwords = tmp_path / "passwords"
    passwords.write_text("".join(f"{user}:{sha(word)}\n" for user, word in USERS.items()))
    spool = make_spool(tmp_path / "spool")
    fixed = {"smsgw.spool": str(spool), "smsgw.htpasswd.path": str(passwords), "smsgw.allow.admins": "root"}
    return {"smsgw.plugins": "htpasswd allow"} | fixed


@pytest.mark.parametrize("is_full", [True, False], ids=["full", "read-only"])
def test_no_room_and_no_right_to_write(tmp_path: Path, server_settings: dict[str, str], is_full: bool) -> None:
    """The database on a disk of its own, which is full, or read-only, and is well again."""
    with Tmpfs(tmp_path / "disk", "2m") as disk:
        url = {"smsgw.store": f"sqlite:///{disk.path / 'store.sqlite3'}"}
        with Server(tmp_path, server_settings | url, enter=disk.enter) as server:
            folder = tmp_path / "spool" / "sent"

            def are_known(count: int) -> bool:
                status = [*disk.enter, SMSGW, "journal", "status", next(tmp_path.glob("*.ini"))]
                ran = subprocess.run(status, capture_output=True, text=True, check=False)
                return bool(re.search(rf"^sent +{count}$", ran.stdout, re.M))

            (folder / "m1").write_text(sent())
            eventually(lambda: are_known(1), 60)
            server.kill()
            if is_full:
                filler = disk.fill()
            else:
                disk.run("mount", "-o", "remount,ro", disk.path)
            server.start()
            for number in range(40):
                (folder / f"n{number}").write_text(sent(text="x" * 1000))
            assert server.send(["79680000000"]).status == 201
            reply = server.request("GET", f"{MESSAGES}/n39")
            assert (reply.status, reply.json["status"]) == (200, "sent")
            assert server.request("GET", f"{MESSAGES}?status=sent&limit=100").status in (200, 503)
            if is_full:
                filler.unlink()
            else:
                disk.run("mount", "-o", "remount,rw", disk.path)
            eventually(lambda: are_known(41), 120)
            assert len(server.request("GET", f"{MESSAGES}?status=sent&limit=100").json["messages"]) == 41


def test_killed_in_the_middle_of_all(tmp_path: Path, server_settings: dict[str, str]) -> None:
    """While it is made, and while messages come, time after time: in the end all is there."""
    folder = tmp_path / "spool" / "sent"
    for number in range(3000):
        (folder / f"a{number}").write_text(sent())
    server = Server(tmp_path, server_settings, workers=2)
    written = 3000
    path = tmp_path / "spool" / "outgoing" / ".smsgw" / "journal" / "store.sqlite3"

    def count() -> int:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("SELECT count(*) FROM journal_messages").fetchone()[0])
        return 0

    for _ in range(4):
        with server:
            before = count()
            for _ in range(50):
                (folder / f"b{written}").write_text(sent())
                written += 1
            eventually(lambda before=before: count() > before, 60)
    with server:
        eventually(lambda: count() == written, 120)
        for _ in range(8):  # of both workers
            assert len(server.request("GET", f"{MESSAGES}?limit=100").json["messages"]) == 100


def test_a_journal_of_a_newer_version(lite: Gateway, make_gateway: MakeGateway) -> None:
    lite.put("sent", "m1", sent())
    eventually(lambda: known(lite))
    lite.application.owner.stop()
    with database_of(lite).writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version_journal SET version_num = 'v999'")
    gateway = make_gateway()
    gateway.send(status=201)
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "sent"
    gateway.get(MESSAGES, status=503)
    with pytest.raises(Unavailable) as error:
        gateway.application.journal.standing()
    assert "newer than what is installed here" in str(error.value.__cause__)


def test_plugins_go_on_where_they_stopped(make_gateway: MakeGateway) -> None:
    """Each from its own cursor: one that was told is not told again, one that was not is."""
    settings = {"smsgw.plugins": "htpasswd allow ear deaf"}
    first = at_work(make_gateway(settings, ear=Ear, deaf=Ear))
    first.plugin("deaf").is_open = False
    first.put("sent", "m1", sent())
    eventually(lambda: len(first.plugin("ear").heard) == 2)
    eventually(lambda: any(row.plugin == "ear" and row.number for row in rows(first, CURSORS)))
    first.application.owner.stop()
    second = at_work(make_gateway(settings, ear=Ear, deaf=Ear))
    eventually(lambda: ("Sent", "m1") in second.plugin("deaf").heard)
    second.put("sent", "m2", sent())
    eventually(lambda: ("Sent", "m2") in second.plugin("ear").heard)
    assert ("Sent", "m1") not in second.plugin("ear").heard
