"""``outgoing`` stays shallow, and messages wait for their turn or their time: in order, through anything, once each."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inotify_simple import INotify, flags

from smsgw.hookspecs import hookimpl
from smsgw.model import Accepted, Content, Event, Message, Options, Sent
from smsgw.spool.layout import Layout, from_folder
from smsgw.spool.locks import FOLDERS, Locks
from smsgw.spool.sending.feeder import Feeder
from smsgw.spool.sending.idempotency import Receipts
from smsgw.testing import MakeGateway, running
from tests.conftest import Gateway, at_length, eventually, make_spool
from tests.server import Server
from tests.test_faults import RECEIPT, is_killed_at, look_after, queue_of, set_immutable, small, submission, writer_of
from tests.tmpfs import Ext4, Small

__all__ = ["small"]  # a fixture

SMS, MESSAGES = "/api/v1.0/sms", "/api/v2/messages"
OLD = "To: 79680000000\nFrom: lvv\nAlphabet: UTF-8\n\nHi"


def shallow(depth: int) -> dict[str, str]:
    return {"smsgw.outgoing_depth": str(depth), "smsgw.fsync": "false"}


def send(gateway: Gateway, *, user: str = "lvv", **fields: Any) -> list[str]:
    """The ids of what is sent by the v2 API."""
    body = {"to": ["79680000000"], "text": "Hi, Jack!"} | fields
    return [each["id"] for each in gateway.call("POST_JSON", MESSAGES, body, user=user, status=202).json["messages"]]


def numbers(count: int) -> list[str]:
    return [f"7916{number:07}" for number in range(count)]


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def names(folder: Path) -> set[str]:
    """What is in a folder, as far as smsd would look at it; nothing where there is none."""
    try:
        return {name for name in os.listdir(folder) if not name.startswith(".")}
    except FileNotFoundError:
        return set()


def queued(gateway: Gateway, kind: str) -> set[str]:
    """The messages that wait for their turn (``waiting``) or their time (``scheduled``)."""
    return {path.name for path in (gateway.state / kind).rglob("*") if not path.is_dir()}


class Smsd:
    """Takes messages from ``outgoing`` one by one, by priority and age as smsd does, and keeps count of them."""

    def __init__(self, spool: Path) -> None:
        self.outgoing, self.sent = spool / "outgoing", spool / "sent"
        self.taken: list[str] = []
        self.stop = threading.Event()

    def take(self) -> str | None:
        found, there = [], names(self.outgoing)
        for name in there:
            if not name.endswith(".LOCK") and f"{name}.LOCK" not in there:
                with contextlib.suppress(FileNotFoundError):
                    path = self.outgoing / name
                    found.append(("\nPriority: HIGH\n" not in path.read_text(), path.stat().st_mtime_ns, name))
        for _, _, name in sorted(found):
            lock = self.outgoing / f"{name}.LOCK"
            with contextlib.suppress(FileExistsError):  # it is being taken back
                lock.touch(exist_ok=False)
                try:
                    (self.outgoing / name).rename(self.sent / name)
                    self.taken.append(name)
                    return name
                except FileNotFoundError:  # it was taken back
                    continue
                finally:
                    lock.unlink()
        return None

    def drain(self, count: int) -> list[str]:
        """Take so many, as they come; in the order in which they were taken."""
        for _ in range(count):
            eventually(self.take)
        return self.taken

    @contextlib.contextmanager
    def running(self) -> Iterator[Smsd]:
        def run() -> None:
            while not self.stop.is_set():
                if self.take() is None:
                    self.stop.wait(0.001)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            thread.join()


class Depth:
    """The most messages that were in a folder at once, by what the kernel says of it."""

    def __init__(self, folder: Path) -> None:
        self._watch = INotify()
        self._watch.add_watch(folder, flags.CREATE | flags.DELETE | flags.MOVED_TO | flags.MOVED_FROM)
        self._there = self.most = len(names(folder))

    def __enter__(self) -> Depth:
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()

    def read(self) -> int:
        for event in self._watch.read(timeout=0):
            assert not event.mask & flags.Q_OVERFLOW
            if not event.name.startswith(".") and not event.name.endswith(".LOCK"):
                self._there += 1 if event.mask & (flags.CREATE | flags.MOVED_TO) else -1
                self.most = max(self.most, self._there)
        return self.most


# Waiting for one's turn


def test_what_does_not_fit_waits_and_enters_as_outgoing_empties(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(shallow(3))
    ids = [send(gateway)[0] for _ in range(8)]
    assert list(gateway.files()) == ids[:3]
    assert gateway.get(f"{SMS}/outgoing/").json == {"message_id": ids[::-1], "limit": 1000, "total_count": 8}
    assert gateway.get(f"{SMS}/outgoing/{ids[7]}").json["From"] == "lvv"
    found = gateway.get(f"{MESSAGES}?status=queued").json["messages"]
    assert [message["id"] for message in found] == ids[::-1]
    assert gateway.get(f"{MESSAGES}/{ids[7]}").json == found[0]
    assert found[0]["status"] == "queued"
    smsd = Smsd(gateway.spool)
    for place in range(5):
        assert smsd.take() == ids[place]
        eventually(lambda place=place: list(gateway.files()) == ids[place + 1 : place + 4])
    assert queued(gateway, "waiting") == set()


@pytest.mark.parametrize("key", [None, "feeder-0001"])
def test_a_bulk_over_the_depth(make_gateway: MakeGateway, key: str | None) -> None:
    gateway = make_gateway(shallow(20))
    with Depth(gateway.spool / "outgoing") as depth:
        headers = {"Idempotency-Key": key} if key else {}
        body = {"to": numbers(200), "text": "Hi, Jack!"}
        reply = gateway.call("POST_JSON", MESSAGES, body, headers=headers, status=202)
        ids = [message["id"] for message in reply.json["messages"]]
        assert gateway.get(f"{SMS}/outgoing/").json["total_count"] == 200
        if key:
            assert gateway.call("POST_JSON", MESSAGES, body, headers=headers, status=202).body == reply.body
        assert Smsd(gateway.spool).drain(200) == ids
        assert depth.read() == 20
        assert names(gateway.state / "ready") == queued(gateway, "waiting") == set()


def test_many_threads_of_one_process_never_exceed_the_depth(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(shallow(12))
    with Depth(gateway.spool / "outgoing") as depth:
        writer = gateway.application.writer
        content = Content("lvv", "Hi", "GSM", 1)
        ids = (f"smsgw.http.{number:05}" for number in itertools.count())

        def put(client: int) -> int:
            counts = [1 if turn % 4 else 5 for turn in range(40)]
            for count in counts:
                writer.put([Message(next(ids), "79160000000", content) for _ in range(count)])
            return sum(counts)

        with Smsd(gateway.spool).running() as smsd, ThreadPoolExecutor(8) as pool:
            total = sum(pool.map(put, range(8)))
            eventually(lambda: len(smsd.taken) == total, 60)
        assert len(set(smsd.taken)) == total
        assert depth.read() <= 12


def test_alarms_come_first_and_users_take_turns(base_settings: dict[str, str]) -> None:
    with running(base_settings | shallow(1)) as gateway:
        (first,) = send(gateway)
        bulk = send(gateway, to=numbers(6))
        ops = send(gateway, user="ops", to=numbers(2))
        root = send(gateway, user="root")
        alarms = send(gateway, user="ops", to=numbers(2), priority="high") + send(gateway, user="root", priority="high")
        assert len(queued(gateway, "waiting")) == 12
    order = [first, alarms[0], alarms[2], alarms[1], bulk[0], ops[0], root[0], bulk[1], ops[1], *bulk[2:]]
    with running(base_settings | shallow(1)) as gateway:  # which reads all that wait before one enters
        assert Smsd(gateway.spool).drain(len(order)) == order


def test_a_newcomer_passes_the_rest_of_a_bulk_also_as_smsd_sees_it(make_gateway: MakeGateway) -> None:
    """smsd takes the oldest of what is in ``outgoing``; what waited there longest is what entered first."""
    gateway = make_gateway(shallow(5))
    bulk = send(gateway, to=numbers(60))
    smsd = Smsd(gateway.spool)
    smsd.drain(10)
    (newcomer,) = send(gateway, user="ops")
    smsd.drain(51)
    assert smsd.taken.index(newcomer) < 25
    assert [id for id in smsd.taken if id != newcomer] == bulk


def test_without_a_limit_nobody_waits_and_whoever_did_enters(base_settings: dict[str, str]) -> None:
    with running(base_settings | shallow(2)) as gateway:
        ids = send(gateway, to=numbers(30))
        assert len(gateway.files()) == 2
    with running(base_settings | shallow(0)) as gateway:
        eventually(lambda: len(gateway.files()) == 30)
        ids += send(gateway, to=numbers(3000)) + send(gateway)
        assert sorted(gateway.files()) == sorted(ids)


@pytest.mark.parametrize("depth", ["-1", "many", "1.5"])
def test_a_depth_that_is_none(refusal: Callable[..., str], depth: str) -> None:
    assert "smsgw.outgoing_depth" in refusal({"smsgw.outgoing_depth": depth})


def test_files_of_other_programs_count_and_what_smsd_passes_over_does_not(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(shallow(2))
    gateway.put("outgoing", "cron.1", OLD)
    gateway.put("outgoing", "other.LOCK", "")
    gateway.put("outgoing", ".hidden", "")
    (gateway.spool / "outgoing" / "old").mkdir()
    ids = [send(gateway)[0] for _ in range(2)]
    assert names(gateway.spool / "outgoing") == {"cron.1", "other.LOCK", "old", ids[0]}
    (gateway.spool / "outgoing" / "cron.1").unlink()
    eventually(lambda: ids[1] in names(gateway.spool / "outgoing"))


def test_what_smsd_has_in_its_queue_counts_too(make_gateway: MakeGateway) -> None:
    """It moves there all that is in ``outgoing``, whether or not a modem has time for it."""
    gateway = make_gateway(shallow(3))
    ids = send(gateway, to=numbers(6))
    for id in ids[:2]:
        (gateway.spool / "outgoing" / id).rename(gateway.spool / "checked" / id)
    gateway.put("checked", f"{ids[0]}.LOCK", "")
    (later,) = send(gateway)
    assert list(gateway.files()) == [ids[2]]
    (gateway.spool / "checked" / ids[0]).unlink()
    eventually(lambda: list(gateway.files()) == ids[2:4])
    assert queued(gateway, "waiting") == {*ids[4:], later}


def test_a_queue_that_nobody_empties_holds_up_no_other(make_gateway: MakeGateway, tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "queues")
    folders = "".join(f"{kind} = {spool / kind}\n" for kind in ("outgoing", "sent", "failed", "incoming"))
    for queue in ("dead", "well"):
        (spool / queue).mkdir()
        folders += f"[queues]\n{queue} = {spool / queue}\n" if queue == "dead" else f"{queue} = {spool / queue}\n"
    conf = tmp_path / "smsd.conf"
    conf.write_text(f"devices = GSM1\n{folders}")
    gateway = make_gateway({"smsgw.spool": None, "smsgw.smsd_conf": str(conf)} | shallow(3))
    ids = send(gateway, to=numbers(9), queue="dead")
    for _ in range(3):
        eventually(lambda: len(names(spool / "outgoing")) == 3)
        for name in names(spool / "outgoing"):
            (spool / "outgoing" / name).rename(spool / "dead" / name)
    assert names(spool / "dead") == set(ids)
    (other,) = send(gateway, queue="well")
    eventually(lambda: names(spool / "outgoing") == {other})


def test_strays_stop_nobody(base_settings: dict[str, str]) -> None:
    with running(base_settings) as gateway:
        waiting, scheduled = gateway.state / "waiting", gateway.state / "scheduled"
    for folder in (waiting, scheduled):
        (folder / "a folder").mkdir()
        (folder / "a folder" / "m0").write_text(OLD)
        (folder / "b link").symlink_to("/etc/passwd")
        (folder / "c dangling").symlink_to("nowhere")
        os.mkfifo(folder / "d pipe")
        (folder / ".hidden").write_text(OLD)
        (folder / "m.LOCK").write_text(OLD)
        (folder / os.fsdecode(b"not \xff UTF-8")).write_text(OLD)
    (waiting / "e nobody's").write_text("To: 911\n\nHi")
    (waiting / "f empty").touch()
    (waiting / "g binary").write_bytes(os.urandom(5000))
    (scheduled / "h untimely").write_text(OLD.replace("From", "X-Send-At: tomorrow\nFrom"))
    (scheduled / "i beyond").write_text(OLD.replace("From", "X-Send-At: 0001-01-01T00:00:00+23:59\nFrom"))
    (waiting / "j last").write_text(OLD)
    found = {"e nobody's", "f empty", "g binary", "h untimely", "i beyond", "j last"}
    with running(base_settings | shallow(3)) as gateway:
        smsd = Smsd(gateway.spool)
        eventually(lambda: len(gateway.files()) == 3)
        for _ in found:
            (name,) = [eventually(lambda: next(iter(names(gateway.spool / "outgoing")), None))]
            (gateway.spool / "outgoing" / name).rename(gateway.spool / "sent" / name)
            smsd.taken.append(name)
        assert set(smsd.taken) == found
        assert len(names(waiting) - {"high", "normal"}) == len(names(scheduled)) == 6
        gateway.send()


def test_what_stands_in_the_way_of_one_holds_up_no_other(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("smsgw.spool.sending.feeder.RETRY", 0.2)
    gateway = make_gateway(shallow(2))
    outgoing = gateway.spool / "outgoing"
    ids = [send(gateway)[0] for _ in range(4)]
    obstacle = outgoing / ids[2]
    obstacle.mkdir()
    for id in ids[:2]:
        (outgoing / id).unlink()
    eventually(lambda: names(outgoing) == {ids[2], ids[3]})
    assert queued(gateway, "waiting") == {ids[2]}
    obstacle.rmdir()
    eventually(lambda: set(gateway.files()) == {ids[2], ids[3]})
    (said,) = [record.message for record in caplog.records if "messages wait for" in record.message]
    assert ids[2] in said


def test_what_cannot_be_read_for_a_moment_is_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the process has no descriptor left for it, which the folder does not tell of."""
    monkeypatch.setattr("smsgw.spool.sending.feeder.RETRY", 0.0)
    layout, files = spool_with(tmp_path / "spool", waiting=1, due=1)
    feeder = feeder_of(layout)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            feeder.look()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert contents(layout.outgoing) == {}
    feeder.look()
    assert contents(layout.outgoing) == files


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_smsgw_s_own_that_somebody_removes(make_gateway: MakeGateway, folder: str) -> None:
    gateway = make_gateway(shallow(1))
    (first,) = send(gateway)
    # In one step, as the gateway would put new folders into one that is emptied.
    shutil.rmtree((gateway.state / folder).rename(gateway.spool / "removed"))
    (one,) = send(gateway)
    many = send(gateway, to=numbers(2))
    (later,) = send(gateway, send_at=at(60))
    gateway.call("DELETE", f"{MESSAGES}/{later}", status=200)
    (gateway.spool / "outgoing" / first).unlink()
    assert Smsd(gateway.spool).drain(3) == [one, *many]


# Several processes


@pytest.mark.parametrize(("workers", "granian"), [(2, None), (4, None), (2, {})])
def test_several_processes_stay_near_the_depth(
    tmp_path: Path, base_settings: dict[str, str], workers: int, granian: dict[str, str] | None
) -> None:
    spool = Path(base_settings["smsgw.spool"])
    shared = Server(tmp_path, base_settings | shallow(40), workers=workers, granian=granian)
    took = 10 if granian is None else 30  # at once by a process; granian's often take a bulk each at the same time
    with shared as server, Depth(spool / "outgoing") as depth:

        def post(client: int) -> list[str]:
            ids = []
            for turn in range(15):
                reply = server.send(numbers(1 if turn % 5 else 30), f"{client}-{turn}")
                ids += reply.json["message_id"].values()
            return ids

        with ThreadPoolExecutor(8) as pool:
            ids = [id for found in pool.map(post, range(8)) for id in found]
        assert depth.read() <= 40 + took * (workers - 1)
        with Smsd(spool).running() as smsd:
            eventually(lambda: len(smsd.taken) == len(ids), 60)
        assert sorted(smsd.taken) == sorted(ids)
        assert depth.read() <= 40 + took * (workers - 1)


def test_kills_under_load_lose_and_double_nothing(tmp_path: Path, base_settings: dict[str, str]) -> None:
    spool = Path(base_settings["smsgw.spool"])
    server = Server(tmp_path, base_settings | shallow(5))
    with Smsd(spool).running() as smsd:
        promised: list[str] = []
        try:
            for life in range(at_length(6, 2)):
                server.start()
                for turn in range(3):
                    promised += server.send(numbers(20), f"{life}-{turn}").json["message_id"].values()
                server.kill()  # while what was sent is being let in
            server.start()
            eventually(lambda: len(set(smsd.taken)) == len(promised), 60)
        finally:
            server.kill()
    assert sorted(smsd.taken) == sorted(promised)


# Taking back


def test_what_waits_is_taken_back_by_a_rename_also_where_smsd_could_not_be_asked(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    spool = make_spool(tmp_path / "kept")
    conf = tmp_path / "smsd.conf"
    conf.write_text(f"devices = GSM1\noutgoing = {spool / 'outgoing'}\nincoming = {spool / 'incoming'}\n")
    gateway = make_gateway({"smsgw.spool": None, "smsgw.smsd_conf": str(conf)} | shallow(1))
    gateway.spool = spool
    (entered,) = send(gateway)
    waiting, other = send(gateway, to=numbers(2))
    (later,) = send(gateway, send_at=at(3600))
    assert gateway.delete(f"{SMS}/outgoing/{waiting}").json == {"deleted": f"outgoing/{waiting}"}
    assert gateway.delete(f"{MESSAGES}/{later}").json["status"] == "cancelled"
    assert gateway.delete(f"{MESSAGES}/{other}").json["status"] == "cancelled"
    assert names(gateway.state / "cancelled") == {waiting, other, later}
    gateway.delete(f"{MESSAGES}/{entered}", status=503)
    assert set(gateway.files()) == {entered}
    assert queued(gateway, "waiting") == queued(gateway, "scheduled") == set()


def test_what_waited_for_long_and_was_taken_back_is_kept_as_long_as_others(gateway: Gateway) -> None:
    (id,) = send(gateway, send_at=at(3600))
    (path,) = (gateway.state / "scheduled").glob(f"*/{id}")
    os.utime(path, (0, 0))
    gateway.delete(f"{MESSAGES}/{id}")
    gateway.application.owner._next_expiry = 0.0
    gateway.application.owner.look_after()
    assert gateway.get(f"{MESSAGES}/{id}").json["status"] == "cancelled"


def test_cancels_race_with_the_feeder_and_each_message_ends_once(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(shallow(2) | {"smsgw.allow.admins": "root"})
    cancel = gateway.application.cancel.cancel
    ids = send(gateway, to=numbers(300))
    with Smsd(gateway.spool).running() as smsd, ThreadPoolExecutor(4) as pool:
        answers = dict(zip(ids[::-3], pool.map(cancel, ids[::-3]), strict=True))
        cancelled = {id for id, done in answers.items() if done}
        eventually(lambda: len(smsd.taken) == len(ids) - len(cancelled), 60)
    assert names(gateway.state / "cancelled") == cancelled
    assert sorted([*smsd.taken, *cancelled]) == sorted(ids)
    assert cancelled
    assert names(gateway.state / "cancelling") == set()


# Later


def test_a_message_for_later(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    then = datetime.now(UTC) + timedelta(seconds=1.5)
    body = {"to": ["+79680000000"], "text": "Hi", "send_at": then.isoformat(), "reference": "r"}
    (sent,) = gateway.call("POST_JSON", MESSAGES, body, status=202).json["messages"]
    (now,) = send(gateway)
    assert sent["status"] == "scheduled"
    found = gateway.get(sent["url"]).json
    assert (found["status"], found["reference"]) == ("scheduled", "r")
    assert abs(datetime.fromisoformat(found["send_at"]) - then) <= timedelta(milliseconds=1)
    assert gateway.get(f"{MESSAGES}?status=scheduled").json["messages"] == [found]
    assert [each["id"] for each in gateway.get(f"{MESSAGES}?status=queued").json["messages"]] == [now]
    assert [each["id"] for each in gateway.get(MESSAGES).json["messages"]] == [now, sent["id"]]
    assert gateway.get(f"{SMS}/outgoing/").json["message_id"] == [now, sent["id"]]
    assert gateway.get(f"{SMS}/outgoing/{sent['id']}").json["To"] == "79680000000"
    assert list(gateway.files()) == [now]
    eventually(lambda: sent["id"] in gateway.files())
    assert then <= datetime.now(UTC)
    found = gateway.get(sent["url"]).json
    assert found["status"] == "queued"
    assert gateway.get(f"{MESSAGES}?status=scheduled").json["messages"] == []
    (gateway.spool / "outgoing" / sent["id"]).rename(gateway.spool / "sent" / sent["id"])
    assert gateway.get(sent["url"]).json == found | {"status": "sent"}


@pytest.mark.parametrize("key", [None, "feeder-0002"])
def test_a_bulk_for_later(make_gateway: MakeGateway, key: str | None) -> None:
    gateway = make_gateway(shallow(5))
    body = {"to": numbers(20), "text": "Hi", "send_at": at(1)}
    headers = {"Idempotency-Key": key} if key else {}
    reply = gateway.call("POST_JSON", MESSAGES, body, headers=headers, status=202)
    ids = [each["id"] for each in reply.json["messages"]]
    assert {each["status"] for each in reply.json["messages"]} == {"scheduled"}
    assert queued(gateway, "scheduled") == set(ids)
    if key:
        assert gateway.call("POST_JSON", MESSAGES, body, headers=headers, status=202).body == reply.body
    assert sorted(Smsd(gateway.spool).drain(20)) == sorted(ids)


@pytest.mark.parametrize(("days", "status"), [(399.9, 202), (400.1, 400), (40000, 400)])
def test_how_far_ahead(gateway: Gateway, days: float, status: int) -> None:
    body = {"to": ["+79680000000"], "text": "Hi", "send_at": at(days * 86400)}
    found = gateway.call("POST_JSON", MESSAGES, body, status=status).json
    if status != 202:
        assert [error["pointer"] for error in found["errors"]] == ["#/send_at"]
        assert "400 days" in found["detail"]
    assert len(queued(gateway, "scheduled")) == (status == 202)


class Clock:
    """The time of day, which can be set."""

    monotonic = staticmethod(time.monotonic)
    ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead


def test_its_time_may_come_while_no_gateway_runs(
    base_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("smsgw.spool.sending.feeder.time", clock)
    with running(base_settings) as gateway:
        (id,) = send(gateway, send_at=at(1000))
        (later,) = send(gateway, send_at=at(3600))
    clock.ahead = 2000.0
    assert queued(gateway, "scheduled") == {id, later}
    with running(base_settings) as gateway:
        eventually(lambda: list(gateway.files()) == [id])
        assert gateway.get(f"{MESSAGES}/{later}").json["status"] == "scheduled"


def test_the_clock_may_be_set(make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("smsgw.spool.sending.feeder.time", clock)
    gateway = make_gateway()
    first, second = (send(gateway, send_at=at(seconds))[0] for seconds in (3000, 5000))
    clock.ahead = 4000.0
    eventually(lambda: list(gateway.files()) == [first])
    clock.ahead = -4000.0
    (third,) = send(gateway, send_at=at(100))
    eventually(lambda: third in queued(gateway, "scheduled"))
    clock.ahead = 200.0
    eventually(lambda: list(gateway.files()) == [first, third])
    assert queued(gateway, "scheduled") == {second}


def test_plugins_hear_once_of_what_waits(make_gateway: MakeGateway) -> None:
    class Ear:
        def __init__(self) -> None:
            self.heard: list[tuple[type[Event], str]] = []

        @hookimpl
        def notify(self, events: Sequence[Event]) -> None:
            self.heard += [(type(event), event.message.id) for event in events]

    gateway = make_gateway({"smsgw.plugins": "htpasswd allow ear"} | shallow(1), ear=Ear)
    heard = gateway.plugin("ear").heard
    (first,) = send(gateway)
    (later,) = send(gateway, send_at=at(1))
    eventually(lambda: len(heard) == 2)  # as soon as they are accepted
    assert queued(gateway, "scheduled") == {later}
    eventually(lambda: queued(gateway, "waiting") == {later})
    smsd = Smsd(gateway.spool)
    assert smsd.drain(2) == [first, later]
    eventually(lambda: len(heard) == 4)
    for id in (first, later):
        assert [event for event, about in heard if about == id] == [Accepted, Sent]


# A process that dies at any step, and a spool that goes out of service


def feeder_of(layout: Layout, depth: int = 3) -> Feeder:
    return Feeder(layout, queue_of(layout, depth))


def look(layout: Layout, depth: int = 3) -> None:
    feeder_of(layout, depth).look()


def spool_with(folder: Path, waiting: int, due: int, *, is_old: bool = False) -> tuple[Layout, dict[str, bytes]]:
    """A spool in which so many messages wait, and what they are.

    :param is_old: they lie where earlier versions put them.
    """
    layout = from_folder(make_spool(folder))
    Locks(layout.state).take("first of all").release()  # which makes smsgw's own folder
    files = {}
    for folder, count, head in (
        ("waiting" if is_old else "waiting/normal/lvv", waiting, ""),
        ("scheduled" if is_old else "scheduled/1767225600000.normal.lvv", due, "X-Send-At: 2026-01-01T00:00:00Z\n"),
    ):
        (layout.state / folder).mkdir(exist_ok=True)
        for number in range(count):
            name = f"smsgw.{'scheduled' if head else 'waiting'}.{number}"
            files[name] = f"To: 7916000000{number}\nFrom: lvv\n{head}\n{name}".encode()
            (layout.state / folder / name).write_bytes(files[name])
    return layout, files


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder, or, of smsgw's own, in the folders in it."""
    paths = folder.glob("*") if folder.name == "outgoing" else folder.rglob("*")
    return {path.name: path.read_bytes() for path in paths if path.is_file() and not path.name.startswith(".")}


@pytest.mark.parametrize("is_old", [False, True], ids=["", "from earlier versions"])
def test_each_message_enters_once_wherever_the_feeder_dies(tmp_path: Path, is_old: bool) -> None:
    for step in range(1, 1000, at_length(1, 4)):
        layout, files = spool_with(tmp_path / str(step), waiting=3, due=2, is_old=is_old)
        killed = is_killed_at(step, functools.partial(look, layout, 4))
        found = [contents(folder) for folder in (layout.state / "scheduled", layout.state / "waiting", layout.outgoing)]
        assert sum(map(len, found)) == 5, step
        assert found[0] | found[1] | found[2] == files, step
        assert len(found[2]) <= 4
        look(layout, 4)
        assert len(contents(layout.outgoing)) == 4, step
        look(layout, 5)
        assert contents(layout.outgoing) == files, step
        if not killed:
            assert step > 20  # the hook has seen the work
            return
    raise AssertionError("the work has no end")


@pytest.mark.parametrize("kind", ["waiting", "scheduled"])
@pytest.mark.parametrize("count", [1, 6])
def test_what_waits_is_whole_or_not_there_wherever_its_process_dies(tmp_path: Path, count: int, kind: str) -> None:
    options = Options(send_at=datetime.now(UTC) + timedelta(days=1) if kind == "scheduled" else None)
    messages = [replace(message, content=replace(message.content, options=options)) for message in submission(count)[0]]
    receipt = RECEIPT if count > 1 else None
    seen = set()

    def put(layout: Layout) -> None:
        writer_of(layout, 1).put(messages, receipt)

    for step in range(1, 1000, at_length(1, 4)):
        layout = from_folder(make_spool(tmp_path / str(step)))
        (layout.outgoing / "another").touch()
        killed = is_killed_at(step, functools.partial(put, layout))
        look_after(layout, 1)
        found = contents(layout.state / kind)
        assert found.keys() in (set(), {message.id for message in messages}), step
        assert all(content.endswith(b"\n\nHi, Jack!") for content in found.values())
        kept = Receipts(layout, Locks(layout.state), queue_of(layout, 1), fsync=True).find(RECEIPT.key)
        assert kept == (receipt if found else None), step
        assert names(layout.outgoing) == {"another"}, step
        assert names(layout.state / "ready") == names(layout.state / "writers") == set(), step
        seen.add(len(found))
        if not killed:
            break
    assert seen == {0, count}


@pytest.mark.parametrize("place", ["checked", "sent", "failed", "cancelled", "cancelling"])
def test_what_a_power_failure_brought_back_is_not_sent_again(tmp_path: Path, place: str) -> None:
    """A rename that was not on disk yet is undone; smsd may have worked meanwhile."""
    layout, files = spool_with(tmp_path / "spool", waiting=2, due=1)
    before = layout.state / place if place.startswith("cancel") else layout.folders[place][0]
    (again, other, due) = sorted(files, key=lambda name: ("waiting" not in name, name))
    for name in (again, due):
        (before / name).write_bytes(files[name])
    look(layout)
    assert contents(layout.outgoing) == {other: files[other]}
    assert contents(layout.state / "waiting") == contents(layout.state / "scheduled") == {}
    assert contents(before).keys() == {again, due}


def test_a_spool_that_goes_out_of_service_while_messages_wait(
    small: Small, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("smsgw.spool.sending.feeder.RETRY", 0.0)
    layout, files = spool_with(small.outside / "spool", waiting=30, due=20)
    set_immutable(layout.outgoing, True)
    feeder = feeder_of(layout, 100)
    for _ in range(5):
        feeder.look()
    assert contents(layout.outgoing) == {}
    assert contents(layout.state / "waiting") | contents(layout.state / "scheduled") == files
    assert len(caplog.records) == 1
    set_immutable(layout.outgoing, False)
    for _ in range(2):
        feeder.look()
    assert contents(layout.outgoing) == files


def test_a_disk_that_is_full_while_messages_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On ext4 a folder needs a block more for some names: it takes some messages, and not others."""
    monkeypatch.setattr("smsgw.spool.sending.feeder.RETRY", 0.0)
    with Ext4(tmp_path / "small") as small:
        layout, files = spool_with(small.outside / "spool", waiting=60, due=0)
        filler = small.fill()
        feeder = feeder_of(layout, 100)
        for _ in range(3):
            feeder.look()
        entered = contents(layout.outgoing)
        assert 0 < len(entered) < 60  # it is this that it is about
        assert entered | contents(layout.state / "waiting") == files
        filler.unlink()
        feeder.look()
        assert contents(layout.outgoing) == files


def test_a_feeder_whose_spool_is_taken_away_and_made_anew(
    base_settings: dict[str, str], make_gateway: MakeGateway, tmp_path: Path
) -> None:
    gateway = make_gateway(shallow(1))
    ids = [send(gateway)[0] for _ in range(3)]
    gateway.spool.rename(tmp_path / "away")
    make_spool(gateway.spool)
    eventually(lambda: gateway.call("GET", f"{SMS}/outgoing/", status="*").json.get("total_count") == 0)
    others = [send(gateway)[0] for _ in range(3)]
    assert Smsd(gateway.spool).drain(3) == others
    away = tmp_path / "away" / "outgoing"
    assert names(away) | contents(away / ".smsgw" / "waiting").keys() == set(ids)


# A model


@settings(max_examples=at_length(100, 12))
@given(
    depth=st.integers(1, 6),
    waves=st.lists(
        st.lists(
            st.tuples(st.sampled_from(["lvv", "ops", "root"]), st.booleans(), st.booleans()), min_size=0, max_size=8
        ),
        min_size=1,
        max_size=5,
    ),
    drains=st.lists(st.integers(0, 6), min_size=5, max_size=5),
)
def test_what_enters_is_what_turns_say(
    depth: int, waves: list[list[tuple[str, bool, bool]]], drains: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Messages come in waves, and leave ``outgoing`` between them; the feeder looks after each."""
    layout = from_folder(make_spool(tmp_path_factory.mktemp("model") / "spool"))
    Locks(layout.state).make()
    feeder, turns = feeder_of(layout, depth), Turns()
    numbers = itertools.count(1)
    inside: list[str] = []

    def step() -> None:
        feeder.look()
        while len(inside) < depth and (name := turns.take()) is not None:
            inside.append(name)
        assert names(layout.outgoing) == set(inside)

    for wave, drained in zip(waves, drains, strict=False):
        for user, is_high, is_single in wave:
            name = f"smsgw.{next(numbers):04}"
            folder = (
                layout.state / "waiting" / ("high" if is_high else "normal") / (user if is_single else f"{user}+{name}")
            )
            folder.mkdir(exist_ok=True)
            (folder / name).write_text("To: 911\n\nHi")
            turns.waiting[not is_high].setdefault(user, []).append(name)
        step()
        for name in inside[:drained]:
            (layout.outgoing / name).unlink()
        del inside[:drained]
        step()
    while inside:
        (layout.outgoing / inside.pop(0)).unlink()
        step()
    assert contents(layout.state / "waiting") == {}
    assert not any(users for users in turns.waiting)


class Turns:
    """Who enters next: of each priority, the users that wait, in the order of their names, and who was last."""

    def __init__(self) -> None:
        self.waiting: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
        self.last = ["", ""]

    def take(self) -> str | None:
        for number, users in enumerate(self.waiting):
            if users:
                user = min(users, key=lambda user: (user <= self.last[number], user))
                self.last[number] = user
                name = users[user].pop(0)
                if not users[user]:
                    del users[user]
                return name
        return None
