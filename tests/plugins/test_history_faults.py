"""``history`` in trouble: whatever happens to the index, messages go out, searches answer, and it comes back."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from smsgw.hookspecs import hookimpl
from smsgw.model import Event, Query, Unavailable
from smsgw.spool.arrivals import LATELY
from smsgw.testing import Gateway, MakeGateway, make_spool
from smsgw_plugins.history import History, retention
from smsgw_plugins.history.index import FRESH
from tests.conftest import USERS, eventually, sha
from tests.plugins.test_history import (
    INBOX,
    MESSAGES,
    PLUGINS,
    REPORT,
    SENT,
    SMSGW,
    at_work,
    command,
    found,
    index_of,
    is_at_work,
    known,
    received,
    sent,
)
from tests.postgresql import Postgresql
from tests.server import Server
from tests.tmpfs import Tmpfs

DAY = 86400


@pytest.fixture
def lite(make_gateway: MakeGateway) -> Gateway:
    return at_work(make_gateway(PLUGINS))


def file_of(gateway: Gateway) -> Path:
    return gateway.state / "history" / "store.sqlite3"


def filled(gateway: Gateway) -> dict[str, str]:
    """Enough messages for some pages of the file, which is no more than its main part then."""
    for number in range(60):
        gateway.put("sent", f"m{number:02}", sent(text="x" * 500))
    eventually(lambda: len(known(gateway)) >= 60)
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
    gateway.plugin("history").store.close()


@pytest.mark.parametrize("harm", [garbage, truncated, zeroed])
def test_a_broken_file(lite: Gateway, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    before = filled(lite)
    harmed(lite, harm)
    lite.send(status=201)
    assert found(lite, "status=sent") == before
    aside = lite.state / "history.broken"
    eventually(aside.is_dir, 20)
    eventually(lambda: is_at_work(lite) and len(known(lite)) == 60, 20)
    assert found(lite, "status=sent") == before
    (line,) = (text for text in caplog.messages if "lies in" in text)
    assert line == f"the index of messages was broken; it lies in {aside} now, and a new one is made from the spool"


def test_what_was_put_aside_stays_there(lite: Gateway) -> None:
    """Also where another process, which read the old one still, finds it broken when the new one is there."""
    filled(lite)
    harmed(lite, garbage)
    aside = lite.state / "history.broken"
    broken = file_of(lite).read_bytes()
    found(lite)
    eventually(lambda: aside.is_dir() and is_at_work(lite), 20)
    mark = lite.state / "history" / "broken"
    mark.touch()
    eventually(lambda: not mark.exists())
    assert (aside / "store.sqlite3").read_bytes() == broken


def test_the_first_search_sees_what_nobody_was_told_of(lite: Gateway) -> None:
    """It came before that search, from which on the kernel tells of what comes."""
    with contextlib.closing(sqlite3.connect(file_of(lite), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        lite.put("sent", "m1", sent())
        assert found(lite) == {"m1": "sent"}
        assert is_at_work(lite)
        assert not known(lite)


def test_a_folder_that_cannot_be_read_hides_nothing_of_the_index(lite: Gateway) -> None:
    lite.put("sent", "m1", sent())
    eventually(lambda: known(lite))
    folder = lite.spool / "failed"
    folder.rmdir()
    folder.write_text("")
    assert found(lite) == {"m1": "sent"}


@pytest.mark.parametrize(
    "query", [Query(SENT, reference="\ud800"), Query(SENT, ids=("\ud800",)), Query(SENT, before=(1, "\ud800"))]
)
def test_no_question_makes_it_broken(lite: Gateway, query: Query) -> None:
    assert index_of(lite).find(query) == []
    assert not (lite.state / "history" / "broken").exists()


def test_a_file_that_is_taken_away(lite: Gateway) -> None:
    before = filled(lite)
    for path in file_of(lite).parent.iterdir():
        path.unlink()
    assert found(lite) == before
    eventually(lambda: is_at_work(lite) and len(known(lite)) == 60, 20)
    assert found(lite) == before


def test_tokens_and_quotas_are_not_touched(make_gateway: MakeGateway) -> None:
    settings = {"smsgw.plugins": "htpasswd allow quota history", "smsgw.quota.limits": "\n*: 5/month"}
    gateway = at_work(make_gateway(settings))
    gateway.send()
    filled(gateway)
    harmed(gateway, garbage)
    found(gateway)
    eventually(lambda: (gateway.state / "history.broken").is_dir() and is_at_work(gateway), 20)
    assert gateway.get("/api/v2/me").json["limits"][0]["left"] == 4


def test_postgresql_is_down_for_a_while(make_gateway: MakeGateway) -> None:
    with Postgresql() as server:
        gateway = at_work(make_gateway(PLUGINS | {"smsgw.store": server.create()}))
        gateway.put("sent", "m1", sent())
        eventually(lambda: known(gateway))
        server.stop()
        gateway.send(status=201)
        gateway.put("sent", "m2", sent())
        gateway.put("incoming", "GSM1.a", received())
        assert found(gateway, "status=sent") == {"m1": "sent", "m2": "sent"}
        gateway.delete(f"{INBOX}/GSM1.a", user="root", status=503)
        assert gateway.files("incoming")
        server.start()
        eventually(lambda: len(known(gateway)) == 3, 30)
        eventually(lambda: is_at_work(gateway))
        gateway.delete(f"{INBOX}/GSM1.a", user="root")


@pytest.fixture
def server_settings(tmp_path: Path) -> dict[str, str]:
    passwords = tmp_path / "passwords"
    passwords.write_text("".join(f"{user}:{sha(word)}\n" for user, word in USERS.items()))
    spool = make_spool(tmp_path / "spool")
    fixed = {"smsgw.spool": str(spool), "smsgw.htpasswd.path": str(passwords), "smsgw.allow.admins": "root"}
    return PLUGINS | fixed


# A process that is killed: SQLite puts nothing in order.
CHANGE = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit(); os._exit(0)"


def grow_old(disk: Tmpfs) -> None:
    """As if nobody had written to the index for long."""
    beat = "UPDATE history_spools SET beat = beat - 60000"
    disk.run(sys.executable, "-c", CHANGE, disk.path / "history" / "store.sqlite3", beat)
    assert (disk.outside / "history" / "store.sqlite3-wal").stat().st_size


@pytest.mark.parametrize("is_full", [True, False])
def test_no_room_and_no_right_to_write(tmp_path: Path, server_settings: dict[str, str], is_full: bool) -> None:
    """The database on a disk of its own, which is full, or read-only, and is well again."""
    with Tmpfs(tmp_path / "disk", "2m") as disk:
        url = {"smsgw.store": f"sqlite:///{disk.path / 'store.sqlite3'}"}
        with Server(tmp_path, server_settings | url, enter=disk.enter) as server:
            folder = tmp_path / "spool" / "sent"

            def are_found(count: int) -> bool:
                reply = server.request("GET", f"{MESSAGES}?status=sent&limit=100")
                assert reply.status == 200
                return len(reply.json["messages"]) == count

            def are_known(count: int) -> bool:
                status = [*disk.enter, SMSGW, "history", "status", next(tmp_path.glob("*.ini"))]
                ran = subprocess.run(status, capture_output=True, text=True, check=False)
                return bool(re.search(rf"^sent +{count}$", ran.stdout, re.M))

            (folder / "m1").write_text(sent())
            eventually(lambda: are_known(1), 30)
            server.kill()
            grow_old(disk)
            if is_full:
                filler = disk.fill()
            else:
                disk.run("mount", "-o", "remount,ro", disk.path)
            server.start()
            for number in range(40):
                (folder / f"n{number}").write_text(sent(text="x" * 1000))
            assert server.send(["79680000000"]).status == 201
            eventually(lambda: are_found(41), 60)
            if is_full:
                filler.unlink()
            else:
                disk.run("mount", "-o", "remount,rw", disk.path)
            eventually(lambda: are_known(41), 120)
            assert are_found(41)


def test_killed_in_the_middle_of_all(tmp_path: Path, server_settings: dict[str, str]) -> None:
    """While it is made and told, time after time: in the end all is there."""
    folder = tmp_path / "spool" / "sent"
    for number in range(3000):
        (folder / f"a{number}").write_text(sent())
    server = Server(tmp_path, server_settings, workers=2)
    written = 3000
    path = tmp_path / "spool" / "outgoing" / ".smsgw" / "history" / "store.sqlite3"

    def rows() -> int:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("SELECT count(*) FROM history_messages").fetchone()[0])
        return 0

    for _ in range(4):
        with server:
            before = rows()
            for _ in range(50):
                (folder / f"b{written}").write_text(sent())
                written += 1
            eventually(lambda before=before: rows() > before, 20)
    with server:
        eventually(lambda: rows() == written, 60)
        for _ in range(8):  # of both workers
            assert len(server.request("GET", f"{MESSAGES}?limit=100").json["messages"]) == 100


def test_a_rebuild_that_is_killed(lite: Gateway, tmp_path: Path) -> None:
    """The one that follows is whole, as searches are meanwhile."""
    for number in range(2000):
        lite.put("sent", f"m{number:04}", sent())
    eventually(lambda: len(known(lite)) == 2000, 30)
    assert command(lite, "status", folder=tmp_path).returncode == 0
    process = subprocess.Popen(
        [SMSGW, "history", "rebuild", "--anew", tmp_path / "gateway.ini"], stderr=subprocess.DEVNULL
    )
    eventually(lambda: not is_at_work(lite), 20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(found(lite, "limit=100")) == 2000
    eventually(lambda: is_at_work(lite) and len(known(lite)) == 2000, 30)


def test_an_index_that_nobody_wrote_to_for_long_is_not_believed(lite: Gateway) -> None:
    index = index_of(lite)
    lite.registry.owner.stop()
    with lite.plugin("history").store.begin() as connection:
        connection.exec_driver_sql("UPDATE history_spools SET beat = beat - 60000")
    assert index.find(Query(("sent",))) is None
    lite.put("sent", "m1", sent())
    assert found(lite) == {"m1": "sent"}


class Late(History):
    """The same, which can be told of nothing yet."""

    is_open = False

    @hookimpl
    def notify(self, events: Sequence[Event]) -> None:
        if not self.is_open:
            raise Unavailable("The index is out of service")
        super().notify(events)


def test_what_happened_while_nobody_ran(
    lite: Gateway, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found before the index has heard of it, however short the time was."""
    monkeypatch.setattr("smsgw.spool.tracker.RETRY", 0.1)
    lite.put("sent", "m1", sent(number=7))
    eventually(lambda: known(lite) == {"m1": "sent"})
    lite.registry.owner.stop()
    lite.put("sent", "m2", sent())
    lite.put("report", "GSM1.r", REPORT.format(7, 0))
    lite.put("incoming", "GSM1.a", received())
    (lite.state / "told.history").rename(lite.state / "told.late")
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow late"}, late=Late)
    late = gateway.plugin("late")
    assert late.index.find(Query(SENT)) is None
    assert found(gateway) == {"m1": "delivered", "m2": "sent"}
    assert [each["id"] for each in gateway.get(INBOX, user="root").json["messages"]] == ["GSM1.a"]
    late.is_open = True
    eventually(lambda: late.index.find(Query(SENT)) is not None)
    assert found(gateway) == {"m1": "delivered", "m2": "sent"}


def test_what_it_is_believed_without_is_looked_for_in_the_folders() -> None:
    assert LATELY * 1000 > FRESH


def test_an_index_of_a_newer_version(lite: Gateway, make_gateway: MakeGateway) -> None:
    lite.put("sent", "m1", sent())
    eventually(lambda: known(lite))
    lite.registry.owner.stop()
    with lite.plugin("history").store.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version_history SET version_num = 'v999'")
    gateway = make_gateway(PLUGINS)
    gateway.send(status=201)
    assert found(gateway, "status=sent") == {"m1": "sent"}
    with pytest.raises(Unavailable) as error:
        index_of(gateway).standing()
    assert "newer than what is installed here" in str(error.value.__cause__)


# What is old


def old(path: Path, days: float) -> Path:
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


@pytest.fixture
def keeping(make_gateway: MakeGateway) -> Callable[[], Gateway]:
    settings = PLUGINS | {"smsgw.history.keep_files_days": "10", "smsgw.history.keep_days": "100"}
    return lambda: at_work(make_gateway(settings))


def test_old_files_go_and_are_remembered(keeping: Callable[[], Gateway], tmp_path: Path) -> None:
    gateway = keeping()
    (outside := tmp_path / "outside").write_text(sent())
    gone = [old(gateway.put("sent", "m1", sent(number=7)), 11), old(gateway.put("failed", "m2", sent()), 11)]
    gone += [old(gateway.put("incoming", "GSM1.a", received()), 11)]
    gone += [old(gateway.put("incoming", "GSM1.b", REPORT.format(9, 0)), 11)]
    gone += [old(gateway.put("report", "GSM1.r", REPORT.format(9, 0)), 11)]
    kept = [old(gateway.put("sent", "m3", sent()), 9), old(gateway.put("sent", ".hidden", sent()), 11)]
    kept += [old(gateway.put("sent", "m4.LOCK", ""), 11), old(gateway.put("outgoing", "m5", sent()), 11)]
    kept += [old(gateway.put("checked", "m6", sent()), 11)]
    (gateway.spool / "sent" / "folder").mkdir()
    old(gateway.spool / "sent" / "folder", 11)
    (gateway.spool / "sent" / "link").symlink_to(old(outside, 11))
    eventually(lambda: len(known(gateway)) >= 4)
    before = found(gateway)
    gateway.registry.owner.stop()
    gateway = keeping()  # which looks for what is old when it starts
    eventually(lambda: not any(path.exists() for path in gone))
    assert all(path.exists() for path in [*kept, outside, gateway.spool / "sent" / "link"])
    assert (gateway.spool / "sent" / "folder").is_dir()
    assert found(gateway) == before
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "sent"


def test_no_file_goes_that_the_index_does_not_have(keeping: Callable[[], Gateway]) -> None:
    gateway = keeping()
    plugin = gateway.plugin("history")
    gateway.registry.owner.stop()
    path = old(gateway.put("sent", "m1", sent()), 11)
    retention.expire_files(plugin.index, plugin.census, 10, _never())
    assert path.exists()


class Deaf:
    """A plugin that is told of nothing while it is out of service."""

    is_open = True

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    @hookimpl
    def notify(self, events: Sequence[Event]) -> None:
        if not self.is_open:
            raise Unavailable("The database of receivers is out of service")
        self.heard += [(type(event).__name__, event.message.id) for event in events]


def test_no_file_goes_that_a_plugin_is_to_be_told_of(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor its message's; the index has both here."""
    monkeypatch.setattr("smsgw.spool.tracker.RETRY", 0.1)
    settings = {"smsgw.plugins": "htpasswd allow history deaf", "smsgw.history.keep_files_days": "10"}
    gateway = at_work(make_gateway(settings, deaf=Deaf))
    history, deaf = gateway.plugin("history"), gateway.plugin("deaf")

    def left() -> list[Path]:
        retention.expire_files(history.index, history.census, 10, _never())
        return [path for path in paths if path.exists()]

    paths = [old(gateway.put("sent", "m1", sent(number=7)), 12), old(gateway.put("sent", "m2", sent(number=8)), 12)]
    eventually(lambda: {("Sent", "m1"), ("Sent", "m2")} <= set(deaf.heard))
    deaf.is_open = False
    for folder, name, number in (("report", "GSM1.r", 7), ("incoming", "GSM1.s", 8)):
        hidden = old(gateway.put(folder, f".{name}", REPORT.format(number, 0)), 11)
        paths.append(hidden.rename(hidden.with_name(name)))
    paths += [old(gateway.put("failed", "m3", sent()), 11), old(gateway.put("incoming", "GSM1.a", received()), 11)]
    wanted = {"m1": "delivered", "m2": "delivered", "m3": "failed", "GSM1.a": "received"}
    eventually(lambda: known(gateway) == wanted)
    assert left() == paths
    deaf.is_open = True
    eventually(lambda: {("Delivered", "m1"), ("Delivered", "m2"), ("Failed", "m3")} <= set(deaf.heard))
    eventually(lambda: ("Received", "GSM1.a") in deaf.heard)
    eventually(lambda: not left())


def test_no_file_goes_before_the_folders_were_looked_at(keeping: Callable[[], Gateway]) -> None:
    """What came while nobody ran may be a status report."""
    gateway = keeping()
    path = old(gateway.put("sent", "m1", sent(number=7)), 12)
    eventually(lambda: known(gateway) == {"m1": "sent"})
    gateway.registry.owner.stop()
    hidden = old(gateway.put("report", ".r", REPORT.format(7, 0)), 11)
    report = hidden.rename(hidden.with_name("GSM1.r"))
    plugin = gateway.plugin("history")
    retention.expire_files(plugin.index, gateway.registry.census, 10, _never())
    assert path.exists()
    assert report.exists()
    gateway = keeping()
    eventually(lambda: known(gateway) == {"m1": "delivered"})
    eventually(lambda: not path.exists() and not report.exists())


def test_received_messages_where_smsd_keeps_reports(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """In one folder: what the index does not have stays, the reports go."""
    spool = make_spool(tmp_path / "one")
    (spool / "report").rmdir()
    (conf := tmp_path / "smsd.conf").write_text(
        "".join(f"{kind} = {spool / kind}\n" for kind in ("outgoing", "checked", "sent", "failed", "incoming"))
        + f"report = {spool / 'incoming'}\n"
    )
    settings = {"smsgw.spool": None, "smsgw.smsd_conf": str(conf), "smsgw.history.keep_files_days": "10"}
    gateway = at_work(make_gateway(PLUGINS | settings))
    plugin = gateway.plugin("history")
    files = {"GSM1.a": received(), "GSM1.r": REPORT.format(9, 0), "GSM1.b": received()}
    paths = []
    for name, content in files.items():
        paths.append(spool / "incoming" / name)
        paths[-1].write_text(content)
        old(paths[-1], 11)
    eventually(lambda: {"GSM1.a", "GSM1.b"} <= known(gateway).keys())
    with plugin.store.begin() as connection:
        connection.exec_driver_sql("DELETE FROM history_messages WHERE id = 'GSM1.b'")

    def are_gone() -> bool:
        retention.expire_files(plugin.index, plugin.census, 10, _never())
        return not paths[0].exists() and not paths[1].exists()

    eventually(are_gone)
    assert paths[2].exists()


def test_the_index_forgets(keeping: Callable[[], Gateway]) -> None:
    gateway = keeping()
    gateway.put("sent", "m1", sent())
    old(gateway.put("sent", "m2", sent()), 200)
    eventually(lambda: len(known(gateway)) == 2)
    retention.expire_rows(index_of(gateway), 100, _never())
    assert known(gateway) == {"m1": "sent"}
    assert gateway.get(f"{MESSAGES}/m2").json["status"] == "sent"


def _never() -> threading.Event:
    return threading.Event()
