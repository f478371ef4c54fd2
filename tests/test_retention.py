"""What is old goes, from the journal and from the folders; what is needed stays."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from smsgw.journal import retention
from smsgw.journal.tables import CURSORS, EVENTS, FILES, PARTS, REPORTS, UNTOLD
from smsgw.testing import Gateway, MakeGateway, make_spool
from tests.conftest import eventually
from tests.remembered import (
    INBOX,
    MESSAGES,
    REPORT,
    Ear,
    at_work,
    database_of,
    found,
    known,
    put_old,
    received,
    rows,
    sent,
)

KEEP = {"smsgw.journal.keep_files_days": "10", "smsgw.journal.keep_days": "100"}

Make = Callable[..., Gateway]


@pytest.fixture(autouse=True)
def never_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only when a test says so."""
    monkeypatch.setattr("smsgw.journal.retention.Retention.run", lambda self, stop: stop.wait())


@pytest.fixture
def make(make_gateway: MakeGateway, store_url: str) -> Make:
    def make(changes: dict[str, str | None] | None = None, **classes: type) -> Gateway:
        return at_work(make_gateway({"smsgw.store": store_url} | KEEP | (changes or {}), **classes))

    return make


def expire(gateway: Gateway) -> bool:
    return bool(gateway.application.retention.expire(threading.Event()))


def files(gateway: Gateway) -> set[str]:
    return {f"{row.kind}/{row.name}" for row in rows(gateway, FILES)}


def test_messages_are_forgotten_whose_files_are_gone(make: Make) -> None:
    gateway = make({"smsgw.journal.keep_files_days": None})
    paths = [put_old(gateway, "sent", f"m{number}", sent(), 99 + number) for number in range(4)]
    paths += [put_old(gateway, "failed", "f1", sent(), 120), put_old(gateway, "incoming", "GSM1.a", received(), 120)]
    kept = put_old(gateway, "sent", "kept", sent(), 200)
    eventually(lambda: len(known(gateway)) == 7)
    for path in paths:
        path.unlink()
    eventually(lambda: files(gateway) == {"sent/kept"})
    assert expire(gateway)
    assert set(known(gateway)) == {"m0", "kept"}
    assert set(found(gateway)) == {"m0", "kept"}
    assert kept.exists()


def test_as_many_as_there_are(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 3)
    monkeypatch.setattr(retention, "FILES_STEP", 4)
    monkeypatch.setattr(retention, "PAUSE", 0)
    gateway = make()
    for number in range(20):
        put_old(gateway, "sent", f"m{number}", sent(number=number), (200, 201, 1)[number % 3])
    eventually(lambda: len(known(gateway)) == 20)
    expire(gateway)
    assert sorted(gateway.files("sent")) == sorted(f"m{number}" for number in range(2, 20, 3))
    assert len(known(gateway)) == 20
    expire(gateway)
    assert known(gateway).keys() == {row.message for row in rows(gateway, PARTS)} == gateway.files("sent").keys()


def test_old_files_go_and_are_remembered(make: Make, tmp_path: Path) -> None:
    gateway = make()
    (outside := tmp_path / "outside").write_text(sent())
    gone = [put_old(gateway, "sent", "m1", sent(number=7), 11), put_old(gateway, "failed", "m2", sent(), 11)]
    gone += [put_old(gateway, "incoming", "GSM1.a", received(), 11)]
    gone += [put_old(gateway, "incoming", "GSM1.b", REPORT.format(9, 0), 11)]
    gone += [put_old(gateway, "report", "GSM1.r", REPORT.format(9, 0), 11)]
    kept = [put_old(gateway, "sent", "m3", sent(), 9), put_old(gateway, "outgoing", "m5", sent(), 11)]
    kept += [put_old(gateway, "checked", "m6", sent(), 11)]
    for name in (".hidden", "m4.LOCK", "folder"):
        path = gateway.spool / "sent" / name
        path.mkdir() if name == "folder" else path.write_text("")
        os.utime(path, (1, 1))
        kept.append(path)
    os.utime(outside, (1, 1))
    (gateway.spool / "sent" / "link").symlink_to(outside)
    eventually(lambda: len(known(gateway)) == 4 and {"report/GSM1.r", "incoming/GSM1.b"} <= files(gateway))
    before = found(gateway)
    assert expire(gateway)
    assert [path.name for path in gone if path.exists()] == []
    assert all(path.exists() for path in [*kept, outside, gateway.spool / "sent" / "link"])
    assert files(gateway) == {"sent/m3"}
    assert found(gateway) == before
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "sent"
    assert gateway.get(f"{INBOX}/GSM1.a", user="root").json["text"] == "Hello"


def test_files_are_kept_where_nobody_says_otherwise(make: Make) -> None:
    gateway = make({"smsgw.journal.keep_files_days": None})
    path = put_old(gateway, "sent", "m1", sent(), 2000)
    eventually(lambda: known(gateway))
    assert expire(gateway)
    assert path.exists()


def test_no_file_goes_that_the_journal_does_not_have(make: Make) -> None:
    """As it is now: one of that name that was written since is another one."""
    gateway = make()
    changed = put_old(gateway, "sent", "m1", sent(), 12)
    eventually(lambda: known(gateway))
    gateway.application.owner.stop()
    os.utime(changed, (time.time() - 11 * 86400,) * 2)
    new = put_old(gateway, "sent", "m2", sent(), 11)
    assert expire(gateway)
    assert changed.exists()
    assert new.exists()


def test_no_file_goes_before_the_folders_were_looked_at(make_gateway: MakeGateway, store_url: str) -> None:
    gateway = make_gateway({"smsgw.store": store_url} | KEEP)
    gateway.application.owner.stop()
    put_old(gateway, "sent", "m1", sent(), 11)
    with database_of(gateway).writing() as connection:
        connection.exec_driver_sql("DELETE FROM journal_folders")
    assert not expire(gateway)
    assert gateway.files("sent")


def test_received_messages_where_smsd_keeps_reports(make: Make, tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "one")
    (spool / "report").rmdir()
    (conf := tmp_path / "smsd.conf").write_text(
        "".join(f"{kind} = {spool / kind}\n" for kind in ("outgoing", "checked", "sent", "failed", "incoming"))
        + f"report = {spool / 'incoming'}\n"
    )
    gateway = make({"smsgw.spool": None, "smsgw.smsd_conf": str(conf)})
    for name, content in {"GSM1.a": received(), "GSM1.r": REPORT.format(9, 0)}.items():
        (spool / "incoming" / f".{name}").write_text(content)
        os.utime(spool / "incoming" / f".{name}", (1_700_000_000,) * 2)
        os.rename(spool / "incoming" / f".{name}", spool / "incoming" / name)
    eventually(lambda: files(gateway) == {"incoming/GSM1.a", "incoming/GSM1.r"})
    assert expire(gateway)
    assert list((spool / "incoming").iterdir()) == []


def test_files_that_cannot_be_deleted(make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    """They are still known, and no news; the log says it once."""
    gateway = at_work(make_gateway(KEEP))
    for number in range(3):
        put_old(gateway, "sent", f"m{number}", sent(), 11)
    eventually(lambda: len(known(gateway)) == 3)
    with pytest.MonkeyPatch.context() as patch:

        def refuse(path: Path) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

        patch.setattr("smsgw.journal.retention.os.unlink", refuse)
        for _ in range(2):
            assert expire(gateway)
    assert files(gateway) == {"sent/m0", "sent/m1", "sent/m2"}
    assert caplog.text.count("cannot be deleted: Operation not permitted") == 1
    assert expire(gateway)
    assert files(gateway) == set()


def test_reports_of_long_ago(make: Make) -> None:
    gateway = make({"smsgw.journal.keep_files_days": None})
    paths = [put_old(gateway, "sent", "m1", sent(number=7), 61), put_old(gateway, "sent", "m2", sent(number=8), 59)]
    put_old(gateway, "sent", "m3", sent(number=9), 61)
    paths += [put_old(gateway, "report", "GSM1.r", REPORT.format(7, 0), 60.9)]
    paths += [put_old(gateway, "incoming", "GSM1.s", REPORT.format(8, 0), 58)]
    put_old(gateway, "report", "GSM1.t", REPORT.format(9, 0), 60.9)
    eventually(lambda: len(rows(gateway, REPORTS)) == 3)
    eventually(lambda: list(known(gateway).values()) == ["delivered"] * 3)
    for path in paths:
        path.unlink()
    eventually(lambda: files(gateway) == {"sent/m3", "report/GSM1.t"})
    expire(gateway)
    assert {row.message for row in rows(gateway, PARTS)} == {"m2", "m3"}
    assert {row.place for row in rows(gateway, REPORTS)} == {"incoming/GSM1.s", "report/GSM1.t"}
    assert list(known(gateway).values()) == ["delivered"] * 3


def age_events(gateway: Gateway, days: float) -> None:
    at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    with database_of(gateway).writing() as connection:
        connection.execute(update(EVENTS).values(at=at))


def test_events_that_all_were_told_of(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgw.journal.notifier.RETRY", 0.05)
    gateway = make({"smsgw.plugins": "htpasswd allow ear deaf"}, ear=Ear, deaf=Ear)
    deaf = gateway.plugin("deaf")
    deaf.is_open = False
    gateway.put("sent", "m1", sent())
    waiting = gateway.put("outgoing", "m2", sent())
    eventually(lambda: rows(gateway, UNTOLD) and len(gateway.plugin("ear").heard) == 3)
    age_events(gateway, 31)
    expire(gateway)
    assert len(rows(gateway, EVENTS)) == 3
    deaf.is_open = True
    eventually(lambda: len(set(deaf.heard)) == 3 and not rows(gateway, UNTOLD))
    eventually(lambda: {row.number for row in rows(gateway, CURSORS)} == {rows(gateway, EVENTS)[-1].number})
    expire(gateway)
    assert [row.message for row in rows(gateway, EVENTS)] == ["m2"]  # it is under way, and would be told once more
    waiting.rename(gateway.spool / "sent" / "m2")
    eventually(lambda: ("Sent", "m2") in deaf.heard)
    assert deaf.heard.count(("Accepted", "m2")) == 1
    eventually(lambda: files(gateway) == {"sent/m1", "sent/m2"})
    expire(gateway)
    assert [row.event for row in rows(gateway, EVENTS)] == ["sent"]
    age_events(gateway, 29)
    expire(gateway)
    assert len(rows(gateway, EVENTS)) == 1


def test_events_where_nobody_is_told(make: Make) -> None:
    gateway = make()
    gateway.put("sent", "m1", sent())
    eventually(lambda: known(gateway))
    age_events(gateway, 31)
    expire(gateway)
    assert rows(gateway, EVENTS) == []


def test_a_plugin_that_is_taken_out_holds_up_nothing(make: Make) -> None:
    gateway = make({"smsgw.plugins": "htpasswd allow ear deaf"}, ear=Ear, deaf=Ear)
    gateway.plugin("deaf").is_open = False
    gateway.put("sent", "m1", sent())
    eventually(lambda: rows(gateway, UNTOLD))
    gateway.application.owner.stop()
    gateway = make({"smsgw.plugins": "htpasswd allow ear"}, ear=Ear)
    age_events(gateway, 31)
    eventually(lambda: rows(gateway, CURSORS)[1].number == 2)
    expire(gateway)
    assert [row.plugin for row in rows(gateway, CURSORS)] == ["ear"]
    assert rows(gateway, UNTOLD) == rows(gateway, EVENTS) == []
    gateway.application.owner.stop()
    gateway.put("sent", "m2", sent())
    gateway = make({"smsgw.plugins": "htpasswd allow ear deaf"}, ear=Ear, deaf=Ear)
    gateway.put("sent", "m3", sent())
    eventually(lambda: ("Sent", "m3") in gateway.plugin("deaf").heard)
    assert ("Sent", "m1") not in gateway.plugin("deaf").heard
    # Of what the gateway had not seen, it is told as others are.
    eventually(lambda: ("Sent", "m2") in gateway.plugin("deaf").heard)


def test_others_who_share_the_database_keep_theirs(make_gateway: MakeGateway, postgresql: Any, tmp_path: Path) -> None:
    store = {"smsgw.store": postgresql.create(), "smsgw.plugins": "htpasswd allow ear"} | KEEP
    one = at_work(make_gateway(store, ear=Ear))
    other = at_work(make_gateway(store | {"smsgw.spool": str(make_spool(tmp_path / "other"))}, ear=Ear))
    path = Path(other.settings["smsgw.spool"]) / "sent"
    (path / ".m1").write_text(sent())
    os.utime(path / ".m1", (1_700_000_000,) * 2)
    (path / ".m1").rename(path / "m1")
    eventually(lambda: known(other) == {"m1": "sent"})
    (path / "m1").unlink()
    eventually(lambda: not rows(other, FILES))
    expire(one)
    assert known(other) == {"m1": "sent"}
    assert len(rows(other, CURSORS)) == 2
    expire(other)
    assert known(other) == {}
