"""``notify``: what became of messages, to each plugin at least once, in order for each message."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import queue
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from inotify_simple import INotify, flags

from smsgw.hookspecs import hookimpl
from smsgw.journal.database import Database
from smsgw.journal.journal import Journal
from smsgw.journal.notifier import Notifier
from smsgw.journal.tables import CURSORS, FILES, SCRIPTS, TABLES, UNTOLD
from smsgw.model import Accepted, Cancelled, Delivered, Event, Failed, Received, Sent, Unavailable
from smsgw.spool.folders import Folders
from smsgw.spool.following.follower import Follower
from smsgw.spool.following.reader import Reader, followed
from smsgw.spool.layout import Layout, from_folder
from smsgw.spool.locks import Locks
from smsgw.spool.sending.queue import Queue
from smsgw.store import Store
from tests.conftest import PATIENCE, Gateway, eventually, make_spool

PLUGINS = """
import queue
from smsgw.hookspecs import hookimpl

class Ear:
    def __init__(self):
        self.heard = queue.Queue()

    @hookimpl
    def notify(self, events):
        for event in events:
            self.heard.put(event)

class Deaf(Ear):
    fails = 1

    @hookimpl
    def notify(self, events):
        if self.fails:
            self.fails -= 1
            raise RuntimeError("the database is down")
        super().notify(events)
"""


@pytest.fixture
def listening(
    make_gateway: Callable[..., Gateway], distribution: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[Gateway, Any, Any]]:
    monkeypatch.setattr("smsgw.journal.notifier.RETRY", 0.1)
    distribution("acme", PLUGINS, ear="Ear", deaf="Deaf")

    def make() -> tuple[Gateway, Any, Any]:
        gateway = make_gateway({"smsgw.plugins": "htpasswd allow ear deaf"})
        plugins = gateway.application.plugins
        eventually(lambda: gateway.application.journal.standing().is_whole)
        return gateway, plugins.get_plugin("ear").heard, plugins.get_plugin("deaf").heard

    return make


def hear(heard: queue.Queue[Event], *wanted: type[Event]) -> list[Event]:
    events = [heard.get(timeout=60) for _ in wanted]
    assert [type(event) for event in events] == list(wanted)
    return events


def test_a_life(listening: Callable[[], tuple[Gateway, Any, Any]]) -> None:
    gateway, ear, deaf = listening()
    (id,) = gateway.send().json["message_id"].values()
    for heard in (ear, deaf):
        (event,) = hear(heard, Accepted)
        assert event.message.id == id
        assert event.message.owner == "lvv"
        assert event.message.text == "Hi, Jack!"
        assert event.at.tzinfo is not None
    (gateway.spool / "outgoing" / id).rename(gateway.spool / "sent" / id)
    hear(ear, Sent)
    hear(deaf, Sent)


class Choosy:
    """A plugin that wants to hear of some ends alone."""

    hears = (Failed, Delivered)

    def __init__(self) -> None:
        self.heard: queue.Queue[Event] = queue.Queue()

    @hookimpl
    def notify(self, events: Sequence[Event]) -> None:
        for event in events:
            self.heard.put(event)


def test_a_plugin_hears_of_what_it_wants(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow choosy"}, choosy=Choosy)
    heard = gateway.plugin("choosy").heard
    (id,) = gateway.send().json["message_id"].values()
    (gateway.spool / "outgoing" / id).rename(gateway.spool / "failed" / id)
    (failed,) = hear(heard, Failed)
    assert failed.message.id == id
    gateway.put("sent", "m1", "To: 911\nFrom: lvv\nModem: GSM1\nMessage_id: 7\n\nHi")
    gateway.put("incoming", "GSM1.x", "From: 7916\nModem: GSM1\n\nHi")
    gateway.put("report", "r1", "From: 911\nModem: GSM1\n\nSMS STATUS REPORT\nMessage_id: 7\nStatus: 0,Ok\n")
    (delivered,) = hear(heard, Delivered)
    assert delivered.message.id == "m1"
    gateway.put("failed", "m2", "To: 911\nFrom: lvv\n\nHi")
    hear(heard, Failed)
    assert heard.empty()


def test_what_was_not_seen_on_its_way(listening: Callable[[], tuple[Gateway, Any, Any]]) -> None:
    gateway, ear, _ = listening()
    gateway.put("failed", "m1", "To: 911\nFrom: lvv\nFail_reason: none\n\nHi")
    accepted, failed = hear(ear, Accepted, Failed)
    assert accepted.message.id == failed.message.id == "m1"
    gateway.put("incoming", "GSM1.x", "From: 7916\nModem: GSM1\n\nHi")
    (received,) = hear(ear, Received)
    assert received.message.owner is None


def test_what_was_put_back_is_of_the_time_when_it_was_written(
    listening: Callable[[], tuple[Gateway, Any, Any]], tmp_path: Path
) -> None:
    """As by tar: a new file with an old time. Nobody else may read the journal."""
    gateway, ear, _ = listening()
    path = gateway.put(".", "m1", "To: 911\nFrom: lvv\n\nHi")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    path.rename(gateway.spool / "sent" / "m1")
    assert [event.at.timestamp() for event in hear(ear, Accepted, Sent)] == [1_700_000_000] * 2
    assert (gateway.state / "journal").stat().st_mode & 0o777 == 0o700
    assert (gateway.state / "journal" / "store.sqlite3").stat().st_mode & 0o777 == 0o600


def test_cancelled(listening: Callable[[], tuple[Gateway, Any, Any]]) -> None:
    gateway, ear, _ = listening()
    (id,) = gateway.send().json["message_id"].values()
    hear(ear, Accepted)
    gateway.delete(f"/api/v1.0/sms/outgoing/{id}")
    (event,) = hear(ear, Cancelled)
    assert event.message.id == id
    assert event.message.text == "Hi, Jack!"


def test_what_happened_while_nobody_ran(listening: Callable[[], tuple[Gateway, Any, Any]]) -> None:
    gateway, ear, _ = listening()
    (id,) = gateway.send().json["message_id"].values()
    hear(ear, Accepted)
    gateway.application.owner.stop()
    (gateway.spool / "outgoing" / id).rename(gateway.spool / "sent" / id)
    gateway.put("incoming", "GSM1.x", "From: 7916\n\nHi")
    _, ear, _ = listening()
    events = [ear.get(timeout=PATIENCE) for _ in range(2)]
    assert {type(event): event.message.id for event in events} == {Sent: id, Received: "GSM1.x"}


@contextlib.contextmanager
def following(
    layout: Layout,
    notify: Callable[[Sequence[Event]], None],
    folder: Path | None = None,
    *,
    stop: threading.Event | None = None,
    is_waiting: bool = True,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[Journal]:
    """The plugin ``ear`` is told what becomes of messages, as in the process that owns the spool.

    :param meanwhile: is done when the kernel tells of changes already, and before the first look.
    """
    locks = Locks(layout.state)
    locks.make()
    queue = Queue(layout, depth=500, fsync=False)
    folders = Folders(layout, queue, "smsgw.")
    store = Store(f"sqlite:///{folder or layout.state / 'journal'}/store.sqlite3")
    store.keep(TABLES, SCRIPTS)
    journal = Journal(Database(store), "spool", followed(layout))
    notifier = Notifier(journal, "ear", notify)
    follower = Follower(
        Reader(layout, queue, folders, "smsgw."), journal, ["ear"], wants_accepted=True, tell=notifier.wake
    )
    follower.begin()
    meanwhile()
    stop = stop or threading.Event()
    threads = [threading.Thread(target=each.run, args=(stop,)) for each in (follower, notifier)]
    for thread in threads:
        thread.start()
    try:
        if is_waiting:
            eventually(lambda: journal.standing().is_whole or any(not each.is_dir() for each in followed(layout)))
        yield journal
    finally:
        stop.set()
        for each in (follower, notifier):
            each.wake()
        for thread in threads:
            thread.join()
        store.close()


class Ear:
    """A plugin that hears what becomes of messages in a spool of its own, but what ``refuses`` is true of."""

    def __init__(self, spool: Path) -> None:
        self.spool = make_spool(spool)
        self.layout = from_folder(spool)
        self.heard: queue.Queue[str] = queue.Queue()
        self.refused: queue.Queue[int] = queue.Queue()
        self.refuses: Callable[[str], bool] = lambda event: False
        self.tries = 0

    def notify(self, events: Sequence[Event]) -> None:
        names = [f"{type(event).__name__} {event.message.id}" for event in events]
        self.tries += 1
        if any(map(self.refuses, names)):
            self.refused.put(len(names))
            raise RuntimeError("the database is down")
        for name in names:
            self.heard.put(name)

    @contextlib.contextmanager
    def listening(self, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
        with following(self.layout, self.notify, meanwhile=meanwhile) as self.journal:
            yield

    def put(self, kind: str, name: str) -> Path:
        path = self.spool / kind / name
        path.write_text("To: 911\nFrom: lvv\n\nHi")
        return path

    def sent(self, name: str, ids: str, ago: float = 0) -> Path:
        """A message that smsd sent so many seconds ago, with what its modem counted."""
        content = f"To: s911\nFrom: lvv\nModem: GSM1\nSending_time: 0\nMessage_id: {ids}\n\nHi"
        return self._appear("sent", name, content, ago)

    def report(self, name: str, byte: int, status: str = "0,Ok", kind: str = "report", ago: float = 0) -> Path:
        """What the network says of it."""
        text = f"SMS STATUS REPORT\nMessage_id: {byte}\nStatus: {status}"
        return self._appear(kind, name, f"From: 911\nModem: GSM1\nUDH: no\nLength: {len(text)}\n\n{text}", ago)

    def _appear(self, kind: str, name: str, content: str, ago: float) -> Path:
        """A file appears, whole."""
        path = self.spool / kind / f".{name}"
        path.write_text(content)
        os.utime(path, (time.time() - ago,) * 2)
        return path.rename(self.spool / kind / name)

    def ended(self, kind: str, name: str, second: int, head: str = "") -> Path:
        """A file as smsd leaves it at the end: it says when that was."""
        when = {"sent": "Sent", "failed": "Failed"}[kind]
        path = self.spool / kind / name
        path.write_text(f"To: s911\nFrom: lvv\nModem: GSM1\n{when}: 26-11-22 09:16:0{second}\n{head}\nHi")
        return path

    def hear_all(self, count: int) -> None:
        for _ in range(count):
            self.heard.get(timeout=60)

    def hear(self, *wanted: str) -> None:
        """That comes next, and nothing else."""
        assert [self.heard.get(timeout=60) for _ in wanted] == list(wanted)

    def hear_at_last(self, *wanted: str) -> None:
        """That comes, in this order; other things may come before: a restart tells again what has just been told."""
        for event in wanted:
            while self.heard.get(timeout=60) != event:
                pass

    def listen(self) -> None:
        """All folders are looked into once more, and nothing is heard."""
        for _ in range(2):
            name = f"ping{time.monotonic_ns()}"
            self.put("incoming", name)
            self.hear(f"Received {name}")

    def count(self, table: Any) -> int:
        """How many rows there are in a table of the journal."""
        with self.journal.database.reading() as connection:
            return len(connection.execute(table.select()).all())


@pytest.fixture
def ear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ear:
    monkeypatch.setattr("smsgw.spool.following.follower.PERIOD", 0.02)
    monkeypatch.setattr("smsgw.spool.following.follower.RETRY", 0.05)
    monkeypatch.setattr("smsgw.journal.notifier.RETRY", 0.05)
    return Ear(tmp_path / "spool")


@contextlib.contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """A file that nobody else can open now, not even root: fcntl(2), "Leases"."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    with path.with_name(".hidden").open("w+") as stream:
        stream.write("From: 911\n\nHi")
        stream.flush()
        fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        os.rename(stream.name, path)
        yield
    signal.signal(signal.SIGIO, before)


def test_smsd_takes_its_time_over_a_file(ear: Ear) -> None:
    with ear.listening():
        original = ear.put("checked", "slow")
        ear.hear("Accepted slow")
        lock = ear.put("sent", "slow.LOCK")
        ear.put("sent", "slow")
        ear.listen()
    with ear.listening():
        ear.put("incoming", "later")
        ear.hear("Received later")
        original.unlink()
        lock.unlink()
        ear.hear("Sent slow")
        ear.listen()


def test_a_file_that_cannot_be_read_holds_up_no_other(ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    with ear.listening():
        with unreadable(ear.spool / "incoming" / "broken"):
            eventually(lambda: "broken" in caplog.text)
            for _ in range(5):
                ear.listen()
            assert caplog.text.count("following incoming/broken") == 1
        ear.hear("Received broken")


def test_a_folder_that_cannot_be_read_holds_up_no_other(ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    with ear.listening():
        (ear.spool / "sent").rmdir()
        (ear.spool / "sent").symlink_to("sent")
        ear.listen()
        ear.listen()
        assert caplog.text.count("following sent: ") == 1
        (ear.spool / "sent").unlink()
        (ear.spool / "sent").mkdir()
        ear.put("sent", "m1")
        ear.hear("Accepted m1", "Sent m1")


def test_what_was_told_is_not_told_again_for_a_new_mode_or_link(ear: Ear, tmp_path: Path) -> None:
    with ear.listening():
        sent = ear.put("sent", "m1")
        ear.hear("Accepted m1", "Sent m1")
        sent.chmod(0o600)
        os.link(sent, tmp_path / "backup")
        ear.put("sent", "m2")
        ear.hear("Accepted m2", "Sent m2")
        ear.listen()


def test_a_name_that_comes_again(ear: Ear) -> None:
    with ear.listening():
        for second in range(3):
            path = ear.put("outgoing", "alarm")
            ear.hear("Accepted alarm")
            ear.ended("sent", "alarm", second)
            path.unlink()
            ear.hear("Sent alarm")
        ear.ended("sent", "alarm", 3)
        ear.spool.joinpath("sent", "other").touch()  # as smsd's lock would show
        ear.hear("Accepted alarm", "Sent alarm")


def test_a_message_that_an_operator_sends_again(ear: Ear) -> None:
    """Copied from where it ended: the same name is in two folders."""
    with ear.listening():
        for before, kind in enumerate(("failed", "sent", "sent")):
            if before:
                ended = next(path for path in ear.spool.glob("*/alarm"))
                (ear.spool / "outgoing" / "alarm").write_bytes(ended.read_bytes())
            else:
                ear.put("outgoing", "alarm")
            ear.hear("Accepted alarm")
            ear.ended(kind, "alarm", before)
            (ear.spool / "outgoing" / "alarm").unlink()
            ear.hear(f"{kind.title()} alarm")
        ear.listen()


@pytest.mark.parametrize("is_running", [True, False])
def test_a_file_that_is_touched_or_written_anew_is_no_news(ear: Ear, is_running: bool) -> None:
    """By a user, by smsd's event handler: an event's key is the same for the same message and status."""

    def change() -> None:
        for path in (sent, ours, received, bare):
            path.write_text(f"X-Seen: yes\n{path.read_text()}")
        for path in (ear.spool / "incoming").glob("*"):
            path.touch()

    with ear.listening():
        sent = ear.ended("sent", "m1", 1, "Message_id: 21\n")
        ours = ear.ended("failed", "smsgw.01JDNVZZZZZZZZZZZZZZZZZZZZ", 2)
        received, bare = (ear.spool / "incoming" / name for name in ("GSM1.a", "GSM1.b"))
        received.write_text("From: 7916\nReceived: 26-11-22 09:16:03\n\nHi")
        bare.write_text("From: 7916\n\nHi")
        ear.report("r1", 21)
        eventually(lambda: ear.heard.qsize() == 7)
        if is_running:
            change()
            ear.hear_all(7)
            ear.listen()
    if not is_running:
        change()
    with ear.listening():
        while not ear.heard.empty():
            ear.heard.get()
        ear.listen()
        found = ear.journal.message("m1", is_received=False)
        assert found is not None
        assert found.report is not None
        assert found.report.is_delivered
        assert found.message.headers["X-Seen"] == "yes"


def test_names_that_nobody_can_ask_for(ear: Ear) -> None:
    names = [b"\xff\xfe", b"x" * 255, b".hidden", b"m1.LOCK", b"GSM1-concatenated", b"a\nb", "Ж😀".encode()]
    with ear.listening():
        for kind in ("outgoing", "sent", "incoming", "report"):
            for name in names:
                with open(os.fsencode(ear.spool / kind) + b"/" + name, "wb") as stream:
                    stream.write(b"To: 911\nFrom: lvv\n\nHi")
        heard = {ear.heard.get(timeout=60) for _ in range(6)}
        assert heard == {f"{event} {name}" for event in ("Accepted", "Sent", "Received") for name in ("a\nb", "Ж😀")}
        ear.listen()
    with ear.listening():
        ear.sent("m1", "21")
        ear.hear("Accepted m1", "Sent m1")


def test_one_message_that_is_refused_holds_up_no_other(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgw.journal.notifier.MOST", 4)
    with ear.listening():
        pass
    ear.refuses = "Received in6".__eq__
    names = [f"in{number:x}" for number in range(16)]
    for name in names:
        ear.put("incoming", name)
    with ear.listening():
        heard = [ear.heard.get(timeout=60) for _ in names[1:]]
        assert sorted(heard) == [f"Received {name}" for name in names if name != "in6"]
        ear.listen()
        eventually(lambda: ear.refused.get(timeout=PATIENCE) == 1)  # alone
        ear.refuses = lambda event: False
        ear.hear("Received in6")
        ear.listen()


def test_many_messages_that_are_refused_hold_up_no_other(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not those that were put off with them, and can be told by now."""
    monkeypatch.setattr("smsgw.journal.notifier.MOST", 3)
    ear.refuses = lambda event: event.startswith("Received")
    with ear.listening():
        for number in range(6):
            ear.put("incoming", f"in{number}")
        eventually(lambda: ear.count(UNTOLD) == 6)
        ear.refuses = lambda event: event != "Received in5"
        ear.hear("Received in5")


def test_times_that_no_file_should_have() -> None:
    """On file systems that take any: they stop nobody who follows."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        ear = Ear(Path(folder) / "spool")
        with ear.listening():
            for name, time_ns in (("late", 2**62), ("later", 2**63 - 1), ("early", -(2**62))):
                path = ear.spool / "incoming" / f".{name}"
                path.write_text("From: 911\n\nHi")
                os.utime(path, ns=(time_ns, time_ns))
                path.rename(ear.spool / "incoming" / name)
                ear.hear(f"Received {name}")
            ear.listen()


def test_a_message_that_is_refused_keeps_its_order(ear: Ear) -> None:
    with ear.listening():
        ear.refuses = "Accepted m1".__eq__
        path = ear.put("outgoing", "m1")
        ear.refused.get(timeout=PATIENCE)
        path.rename(ear.spool / "sent" / "m1")
        ear.listen()
        ear.refuses = lambda event: False
        ear.hear("Accepted m1", "Sent m1")
        ear.listen()


def test_what_was_told_is_noted_before_all_is(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed over a great many files is not to begin with the first of them again and again."""
    monkeypatch.setattr("smsgw.journal.notifier.MOST", 1)
    with ear.listening():
        pass
    for number in range(10):
        ear.put("incoming", f"in{number}")
    hold = threading.Event()

    def is_slow(event: str) -> bool:
        if ear.heard.qsize() == 5:
            hold.wait(10)
        return False

    ear.refuses = is_slow
    with ear.listening():
        eventually(lambda: ear.heard.qsize() == 5)
        with ear.journal.database.reading() as connection:
            assert connection.execute(CURSORS.select()).one().number >= 4
        hold.set()
        told = [ear.heard.get(timeout=60) for _ in range(10)]
        assert sorted(told) == [f"Received in{number}" for number in range(10)]


def test_folders_in_which_nothing_happens_are_not_read(ear: Ear) -> None:
    with ear.listening(), INotify() as watch:
        ear.put("sent", "m1")
        ear.hear("Accepted m1", "Sent m1")
        watch.add_watch(ear.spool / "sent", flags.OPEN)
        eventually(lambda: not watch.read(timeout=200))  # a folder that has just changed is not trusted yet
        for _ in range(5):
            ear.listen()
        assert not watch.read(timeout=0)


def test_a_clock_that_is_set_back(ear: Ear) -> None:
    """While a gateway runs, and while none does: what is in a folder and not in the journal is new."""
    with ear.listening():
        ear.put("sent", "m1")
        ear.hear("Accepted m1", "Sent m1")
        old = time.time() - 3600
        path = ear.put("checked", "m2")
        os.utime(path, (old, old))
        ear.hear("Accepted m2")
        path.rename(ear.spool / "sent" / "m2")
        ear.hear("Sent m2")
    path = ear.put("checked", "m3")
    os.utime(path, (old, old))
    path.rename(ear.spool / "sent" / "m3")
    os.utime(ear.spool / "sent", (old, old))
    with ear.listening():
        ear.hear("Accepted m3", "Sent m3")
        ear.listen()


def test_delivered(listening: Callable[[], tuple[Gateway, Any, Any]]) -> None:
    gateway, ear, deaf = listening()
    gateway.put("sent", "m1", "To: 79680000007\nFrom: lvv\nModem: GSM1\nMessage_id: 21\n\nHi")
    text = "SMS STATUS REPORT\nMessage_id: 21\nDischarge_timestamp: today\nStatus: 0,Ok,received"
    report = gateway.put("report", "GSM1.r", f"From: 79680000007\nModem: GSM1\n\n{text}")
    for heard in (ear, deaf):
        delivered = hear(heard, Accepted, Sent, Delivered)[-1]
        assert isinstance(delivered, Delivered)
        assert (delivered.message.kind, delivered.message.id, delivered.message.owner) == ("sent", "m1", "lvv")
        assert delivered.at == delivered.report.at
        assert delivered.at.timestamp() == pytest.approx(report.stat().st_mtime, abs=1e-3)
        said = delivered.report
        assert (said.place, said.code, said.detail, said.discharged) == ("report/GSM1.r", 0, "Ok,received", "today")


def test_undelivered(ear: Ear) -> None:
    with ear.listening():
        ear.sent("m1", "21")
        ear.report("r1", 21, "48,still trying")
        ear.report("r2", 21, "70,No")
        ear.hear("Accepted m1", "Sent m1", "Undelivered m1")
        ear.report("r3", 21)
        ear.report("r4", 21, "70,No")
        ear.listen()


def test_parts_that_arrive_and_parts_that_do_not(ear: Ear) -> None:
    with ear.listening():
        ear.sent("m1", "255 1 .")
        ear.sent("m2", "2 3 .")
        ear.hear("Accepted m1", "Sent m1", "Accepted m2", "Sent m2")
        ear.report("r1", 1)
        ear.listen()
        ear.report("r2", 2, "70,No")
        ear.hear("Undelivered m2")
        ear.report("r3", 3)
        ear.listen()
        ear.report("r4", 255)
        ear.hear("Delivered m1")
        ear.listen()


def test_reports_in_parts_across_a_restart(ear: Ear) -> None:
    with ear.listening():
        ear.sent("m1", "1 2 .")
        ear.report("r1", 1)
        ear.hear("Accepted m1", "Sent m1")
        ear.listen()
    ear.report("r2", 2)
    with ear.listening():
        ear.hear_at_last("Delivered m1")
        ear.listen()


def test_reports_before_and_after_a_start(ear: Ear) -> None:
    """Of two about a message the first counts, and what they decide together is told."""
    with ear.listening():
        ear.sent("m1", "21")
        ear.sent("m2", "22 23 .")
        ear.hear("Accepted m1", "Sent m1", "Accepted m2", "Sent m2")
    ear.report("r1", 21, "70,No")
    ear.report("r2", 22)

    def report() -> None:
        ear.report("r3", 21)
        ear.report("r4", 23)

    with ear.listening(report):
        ear.hear("Undelivered m1", "Delivered m2")
        ear.listen()


def test_a_report_that_comes_before_its_message(ear: Ear) -> None:
    with ear.listening():
        ear.report("r1", 21, ago=990)
        ear.listen()
        ear.sent("m1", "21", ago=1000)
        ear.hear("Accepted m1", "Sent m1", "Delivered m1")
        # The byte comes again, and smsd has not moved the file yet: it may be a double of the first, or not.
        ear.report("r2", 21)
        came = time.time()
        ear.listen()
        ear.sent("m2", "21", ago=time.time() - came - 0.5)
        ear.hear("Accepted m2", "Sent m2", "Delivered m2")


def test_what_is_sent_is_told_before_what_arrived(ear: Ear) -> None:
    with ear.listening():
        ear.refuses = "Sent m1".__eq__
        ear.sent("m1", "21")
        ear.refused.get(timeout=PATIENCE)
        ear.report("r1", 21)
        ear.hear("Accepted m1")
        ear.listen()
        ear.refuses = "Delivered m1".__eq__
        ear.hear("Sent m1")
        ear.refused.get(timeout=PATIENCE)
    with ear.listening():
        ear.refused.get(timeout=PATIENCE)
        ear.refuses = lambda event: False
        ear.hear_at_last("Delivered m1")


def test_of_two_reports_the_first_counts_also_where_it_is_refused(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told by itself, and what was refused comes after what was not."""
    monkeypatch.setattr("smsgw.journal.notifier.MOST", 1)
    with ear.listening():
        ear.sent("m1", "21")
        ear.sent("m2", "22")
        ear.hear("Accepted m1", "Sent m1", "Accepted m2", "Sent m2")
        ear.refuses = "Undelivered m1".__eq__
        ear.report("r1", 21, "70,No")
        ear.refused.get(timeout=PATIENCE)
        ear.report("r2", 21)
        ear.report("r3", 22)
        ear.hear("Delivered m2")
        ear.listen()
        ear.refuses = lambda event: False
        ear.hear("Undelivered m1")
        ear.listen()


def test_a_plugin_that_is_out_of_service(ear: Ear) -> None:
    def is_down(event: str) -> bool:
        raise Unavailable("the database does not answer")

    with ear.listening():
        ear.refuses = is_down
        ear.sent("m1", "21")
        ear.report("r1", 21)
        eventually(lambda: ear.count(UNTOLD))
        ear.refuses = lambda event: False
        ear.hear("Accepted m1", "Sent m1", "Delivered m1")


def test_reports_of_nobody_are_not_looked_at_for_ever(ear: Ear) -> None:
    with ear.listening():
        for name, content in (
            ("empty", ""),
            ("half", "From: 911"),
            ("binary", "\0\xff\n\n\0"),
            ("text", "From: 1\n\nHi"),
        ):
            path = ear.spool / "report" / name
            path.write_text(content)
            os.utime(path, (time.time() - 100,) * 2)
        old = ear.report("stranger", 77)
        os.utime(old, (time.time() - 100,) * 2)
        future = ear.report("future", 78, "48,trying")
        os.utime(future, (2**36, 2**36))  # the year 4147
        (ear.spool / "report" / "folder").mkdir()
        (ear.spool / "report" / "link").symlink_to("/etc/passwd")
        ear.sent("m1", "21")
        ear.hear("Accepted m1", "Sent m1")
        ear.report("r1", 21)
        ear.hear("Delivered m1")


def test_many_reports_of_nobody_hold_up_no_other(ear: Ear) -> None:
    with ear.listening():
        ear.sent("m1", "21")
        ear.hear("Accepted m1", "Sent m1")
        for number in range(2000):
            ear.report(f"stranger{number}", 22 + number % 200)
        ear.report("r1", 21)
        ear.hear("Delivered m1")


def test_one_report_thousands_of_times(ear: Ear) -> None:
    with ear.listening():
        ear.sent("m1", "21 22 .")
        ear.hear("Accepted m1", "Sent m1")
        for number in range(4000):
            ear.report(f"double{number}", 21)
        ear.report("r1", 22)
        ear.hear("Delivered m1")
        ear.listen()


def test_reports_among_received_messages(ear: Ear) -> None:
    (ear.spool / "report").rmdir()
    with ear.listening():
        ear.sent("m1", "21")
        ear.hear("Accepted m1", "Sent m1")
        ear.report("r1", 21, kind="incoming")
        ear.hear("Delivered m1")
        ear.listen()


@pytest.mark.parametrize("missing", ["sent", "report"])
def test_folders_that_smsd_does_not_keep(ear: Ear, missing: str) -> None:
    ear.layout = dataclasses.replace(ear.layout, folders={**ear.layout.folders, missing: ()})
    with ear.listening():
        ear.sent("m1", "21")
        ear.report("r1", 21)
        ear.put("failed", "m2")
        ear.hear_at_last("Accepted m2", "Failed m2")
        ear.listen()


def test_more_than_the_kernel_remembers(ear: Ear) -> None:
    """The queue of inotify(7) is full while the plugin does not come back from one event."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    begun, hold = threading.Event(), threading.Event()

    def hangs(event: str) -> bool:
        begun.set()
        hold.wait(30)
        return False

    with ear.listening():
        ear.refuses = hangs
        ear.put("incoming", "first")
        assert begun.wait(PATIENCE)
        for number in range(most // 2 + 100):  # each makes and removes a name
            path = ear.spool / "outgoing" / f".{number}"
            path.touch()
            path.unlink()
        ear.sent("m1", "21")
        hold.set()
        ear.hear("Received first", "Accepted m1", "Sent m1")
        ear.refuses = lambda event: False
        ear.listen()


def test_where_the_kernel_watches_nothing(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(closefd: bool) -> INotify:
        raise OSError(24, "Too many open files")  # fs.inotify.max_user_instances

    monkeypatch.setattr("smsgw.spool.following.watch.INotify", none_left)
    with ear.listening():
        path = ear.put("outgoing", "m1")
        ear.hear("Accepted m1")
        path.rename(ear.spool / "sent" / "m1")
        ear.hear("Sent m1")
        ear.sent("m2", "21")
        ear.report("r1", 21)
        ear.hear("Accepted m2", "Sent m2", "Delivered m2")
        ear.listen()


def test_a_folder_that_is_made_anew(ear: Ear) -> None:
    with ear.listening():
        ear.listen()
        (ear.spool / "sent").rename(ear.spool / "old")
        (ear.spool / "sent").mkdir()
        ear.listen()
        ear.sent("m1", "21")
        ear.hear("Accepted m1", "Sent m1")


def test_an_event_is_told_at_once(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the next look, where the kernel tells what happens."""
    monkeypatch.setattr("smsgw.spool.following.follower.PERIOD", 3600)
    monkeypatch.setattr("smsgw.spool.following.follower.LONGEST", 3600)
    with ear.listening():
        ear.sent("m1", "21")
        ear.hear("Accepted m1", "Sent m1")


def test_a_first_look_that_is_interrupted(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before is no news, and what comes from then on is, also where the process ends meanwhile."""
    monkeypatch.setattr("smsgw.spool.following.follower.MOST", 3)
    for number in range(12):
        ear.put("sent", f"old{number}")
    time.sleep(0.05)  # the kernel's clock has ticked
    with monkeypatch.context() as patched:
        stop = threading.Event()

        def put(journal: Journal, *arguments: Any) -> bool:
            stop.set()
            return written(journal, *arguments)

        written = Journal.put
        patched.setattr(Journal, "put", put)
        with following(ear.layout, ear.notify, stop=stop, is_waiting=False):
            assert stop.wait(PATIENCE)
    ear.put("sent", "new")
    with ear.listening():
        ear.hear("Accepted new", "Sent new")
        ear.listen()
        assert ear.count(FILES) == 15


def test_a_journal_that_is_locked_before_the_first_look(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgw.store.WAIT", 0.1)
    monkeypatch.setattr("smsgw.sqlite.LOCKED", 0.1)
    for number in range(3):
        ear.put("sent", f"old{number}")
    time.sleep(0.05)
    path = ear.layout.state / "journal" / "store.sqlite3"
    path.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with following(ear.layout, ear.notify, is_waiting=False) as ear.journal:
            time.sleep(0.3)  # looks that fail
            ear.put("sent", "new")
            time.sleep(0.3)
            other.execute("ROLLBACK")
            ear.hear("Accepted new", "Sent new")
            ear.listen()


def test_a_report_after_the_clock_was_set_back(ear: Ear) -> None:
    """Ten seconds, or an hour: the message was sent later than now."""
    with ear.listening():
        ear.sent("m0", "21", ago=3000)
        ear.sent("m1", "21", ago=-10)
        ear.sent("m2", "22 23 .", ago=-3600)
        ear.hear_all(6)
        ear.report("r1", 21)
        ear.hear("Delivered m1")
        ear.report("r2", 22)
        ear.listen()
    with ear.listening():
        ear.report("r3", 23)
        ear.hear_at_last("Delivered m2")


def test_a_search_after_the_clock_was_set_back(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits until the journal has what is new, also where the folder's time is earlier than before."""
    monkeypatch.setattr("smsgw.journal.journal.PATIENCE", 30)
    with ear.listening():
        folder = ear.spool / "sent"
        ear.put("sent", "m1")
        ear.hear("Accepted m1", "Sent m1")
        ear.listen()
        for number in range(2, 5):
            ear.put("sent", f"m{number}")
            os.utime(folder, (time.time() - 1000 * number,) * 2)
            ear.journal.catch_up()
            assert ear.journal.message(f"m{number}", is_received=False)


def test_a_failure_is_logged_once(ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    """And again when it is another one, and when it is over."""

    def fails(words: str) -> Callable[[str], bool]:
        def refuse(event: str) -> bool:
            raise OSError(words)

        return refuse

    with ear.listening():
        ear.refuses = fails("no")
        ear.put("incoming", "a")
        ear.put("incoming", "b")
        eventually(lambda: ear.count(UNTOLD) == 2)
        eventually(lambda: ear.tries > 6)
        assert caplog.text.count("failed to take events") == 1
        ear.refuses = fails("still no")
        eventually(lambda: "still no" in caplog.text)
        ear.refuses = lambda event: False
        ear.hear_all(2)
        eventually(lambda: "was told of all events" in caplog.text)
        assert caplog.text.count("failed to take events") == 2
