"""Modems that are down and queues that are stuck: who is told, once, also over restarts; with a real smsd."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from smsgw.hookspecs import hookimpl
from smsgw.journal.alarms import standing
from smsgw.journal.tables import EVENTS
from smsgw.model import Alarm, Event, ModemDown, ModemUp, QueueStuck, Unavailable
from smsgw.watchdog import PERIOD, SETTLED, Watchdog
from tests.conftest import Gateway, eventually
from tests.receiver import Receiver
from tests.smsd.server import Smsd

BLOCKED = "GSM1:\t26-11-29 10:08:42,\tBlocked,\t0,\t2,\t0,\tssi: -73 dBm (Excellent), ber: < 0.2 %\n"
IDLE = BLOCKED.replace("Blocked", "Idle")
Make = Callable[..., Gateway]


class Listening:
    """Hears of modems and queues, and fails as often as a test says."""

    hears = (ModemDown, ModemUp, QueueStuck)
    heard: ClassVar[list[Alarm]] = []
    failures = 0

    @hookimpl
    def notify(self, events: Sequence[Alarm]) -> None:
        if Listening.failures:
            Listening.failures -= 1
            raise RuntimeError("not now")
        self.heard.extend(events)


class Hearing:
    """Hears of all that a plugin hears of that says nothing."""

    heard: ClassVar[list[Event]] = []

    @hookimpl
    def notify(self, events: Sequence[Event]) -> None:
        self.heard.extend(events)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    assert PERIOD + SETTLED + 60 < 120  # a modem that hangs is silent for a minute before it counts
    assert PERIOD + 90 < 120
    monkeypatch.setattr("smsgw.watchdog.PERIOD", 0.2)
    monkeypatch.setattr("smsgw.watchdog.SETTLED", 0.4)
    monkeypatch.setattr("smsgw.journal.notifier.RETRY", 0.1)
    yield
    Listening.heard.clear()
    Hearing.heard.clear()
    Listening.failures = 0


@pytest.fixture
def status(tmp_path: Path) -> Path:
    (tmp_path / "stats").mkdir()
    path = tmp_path / "stats" / "status"
    path.write_text(IDLE)
    return path


@pytest.fixture
def watched(make_gateway: Make, status: Path) -> Gateway:
    return make_watched(make_gateway, status)


def make_watched(make_gateway: Make, status: Path) -> Gateway:
    changes = {"smsgw.plugins": "htpasswd allow listening hearing", "smsgw.health.stats": str(status.parent)}
    return make_gateway(changes, listening=Listening, hearing=Hearing)


def told() -> list[tuple[type[Alarm], str]]:
    return [(type(alarm), alarm.name) for alarm in Listening.heard]


def test_a_modem_is_down_and_up_again(watched: Gateway, status: Path, caplog: pytest.LogCaptureFixture) -> None:
    status.write_text(BLOCKED)
    eventually(lambda: told() == [(ModemDown, "GSM1")])
    (alarm,) = Listening.heard
    assert "blocked it" in alarm.what
    assert "Restart smsd" in alarm.remedy
    assert "modem.down: GSM1: smsd has blocked it" in caplog.text
    (problem,) = watched.get("/health", user="root").json["problems"]
    assert problem["since"]
    status.write_text(IDLE)
    eventually(lambda: told() == [(ModemDown, "GSM1"), (ModemUp, "GSM1")])
    assert "modem.up: GSM1: it works again" in caplog.text
    assert len({alarm.key for alarm in Listening.heard}) == 2
    watched.get("/health/ready", user=None)
    assert Hearing.heard == []


def test_a_modem_that_flutters_is_no_news(watched: Gateway, status: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgw.watchdog.SETTLED", 60.0)
    for content in (BLOCKED, IDLE) * 3:
        status.write_text(content)
        watched.application.watchdog.look()
    assert standing(watched.application.journal) == {}


def test_what_a_plugin_does_not_take_is_told_again(watched: Gateway, status: Path) -> None:
    Listening.failures = 3
    status.write_text(BLOCKED)
    eventually(lambda: told() == [(ModemDown, "GSM1")])
    status.write_text(IDLE)
    eventually(lambda: told() == [(ModemDown, "GSM1"), (ModemUp, "GSM1")])


def test_a_restart_tells_nothing_twice(watched: Gateway, make_gateway: Make, status: Path) -> None:
    status.write_text(BLOCKED)
    eventually(lambda: told() == [(ModemDown, "GSM1")])
    watched.application.close()
    second = make_watched(make_gateway, status)
    since = eventually(lambda: standing(second.application.journal))["modem/GSM1"].since
    status.write_text(IDLE)
    eventually(lambda: told() == [(ModemDown, "GSM1"), (ModemUp, "GSM1")])
    assert abs(Listening.heard[0].at - since) < timedelta(milliseconds=1)


def test_a_modem_that_is_configured_no_more(watched: Gateway, status: Path) -> None:
    status.write_text(BLOCKED)
    eventually(lambda: told() == [(ModemDown, "GSM1")])
    status.write_text(IDLE.replace("GSM1", "GSM2"))
    eventually(lambda: standing(watched.application.journal) == {})
    assert told() == [(ModemDown, "GSM1")]


def test_the_journal_is_out_of_service(
    watched: Gateway, status: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise Unavailable("The gateway's journal is out of service")

    with monkeypatch.context() as patch:
        patch.setattr("smsgw.watchdog.standing", fail)
        status.write_text(BLOCKED)
        eventually(lambda: "nobody can be told of modems and queues now" in caplog.text)
    eventually(lambda: told() == [(ModemDown, "GSM1")])


# Queues


def watch(gateway: Gateway, stuck: float) -> Watchdog:
    parts = gateway.application
    return Watchdog(parts.modems, parts.layout, parts.journal, stuck, lambda: [each.wake() for each in parts.notifiers])


def put(gateway: Gateway, kind: str, name: str, age: float = 0) -> Path:
    path = gateway.put(kind, name, "To: 79680000000\nFrom: lvv\n\nHi")
    at = time.time() - age
    os.utime(path, (at, at))
    return path


@pytest.mark.parametrize("kind", ["outgoing", "checked"])
def test_a_queue_that_nothing_leaves(watched: Gateway, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    look = watch(watched, 0.5).look
    path = put(watched, kind, "one")
    eventually(lambda: look() or standing(watched.application.journal))
    eventually(lambda: told() == [(QueueStuck, kind)])
    assert f"queue.stuck: {kind}: 1 message waits, and none has left for" in caplog.text
    found = watched.get("/health", user="root").json
    assert (found["status"], found["ready"]) == ("error", kind != "outgoing")
    assert [problem["part"] for problem in found["problems"]] == [f"queue {kind}"]
    watched.get("/health/ready", user=None, status=503 if kind == "outgoing" else 200)
    path.unlink()
    eventually(lambda: look() or standing(watched.application.journal) == {})
    assert told() == [(QueueStuck, kind)]
    assert watched.get("/health", user="root").json["status"] == "ok"


def test_a_queue_that_moves_is_not_stuck(watched: Gateway) -> None:
    """However long each message waits for its turn."""
    looks = watch(watched, 0.5)
    for number in range(20):
        put(watched, "checked", f"m{number}", age=80)
    for number in range(8):
        looks.look()
        (watched.spool / "checked" / f"m{number}").unlink()
        time.sleep(0.1)
    looks.look()
    assert standing(watched.application.journal) == {}


def test_one_message_that_stays_while_others_go(watched: Gateway) -> None:
    """smsd cannot read it, or a lock was left beside it."""
    looks = watch(watched, 5.0)
    path = put(watched, "outgoing", "unread", age=60)
    put(watched, "outgoing", "other", age=60)
    lock = put(watched, "checked", "locked.LOCK", age=600)
    put(watched, "checked", "locked", age=600)
    put(watched, "checked", "next")
    looks.look()
    for name in ("outgoing/other", "checked/next"):
        (watched.spool / name).unlink()
    looks.look()
    known = standing(watched.application.journal)
    assert {part: trouble.what for part, trouble in known.items()} == {
        "message/outgoing": "unread waits, and smsd does not take it",
        "message/checked": f"locked waits, and {lock} keeps smsd from taking it",
    }
    eventually(lambda: sorted(name for _, name in told()) == ["checked", "outgoing"])
    found = watched.get("/health", user="root").json
    assert (found["status"], found["ready"]) == ("warning", True)
    path.unlink()
    looks.look()
    assert standing(watched.application.journal).keys() == {"message/checked"}


def test_a_queue_that_was_stuck_before_a_restart_is_not_told_again(watched: Gateway) -> None:
    put(watched, "outgoing", "one", age=60)
    look = watch(watched, 0.5).look
    eventually(lambda: look() or standing(watched.application.journal))
    look = watch(watched, 0.5).look
    for _ in range(8):
        look()
        time.sleep(0.1)
    with watched.application.journal.database.reading() as connection:
        events = connection.execute(EVENTS.select().where(EVENTS.c.kind == "alarm")).all()
    assert len(events) == 1


# With a real smsd


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def test_a_webhook_hears_of_a_real_modem(tmp_path: Path, make_gateway: Make, receiver: Receiver) -> None:
    """And only that of who may see how the gateway is."""
    folder = tmp_path / "smsd"
    folder.mkdir()
    with Smsd(folder, modems=2) as smsd:
        gateway = make_gateway(
            {
                "smsgw.spool": None,
                "smsgw.smsd_conf": str(smsd.conf),
                "smsgw.plugins": "htpasswd allow webhooks",
                "smsgw.webhooks.allow_private": "true",
            }
        )
        body = {"url": receiver.url, "events": ["modem.down", "modem.up", "queue.stuck"]}
        made = gateway.call("POST_JSON", "/api/v2/webhooks", body, user="root", status=201).json
        receiver.secret = made["secret"]
        with Receiver() as other:
            gateway.call("POST_JSON", "/api/v2/webhooks", body | {"url": other.url}, user="lvv", status=201)
            smsd.modems[1].unplug()
            (delivery,) = receiver.wait(1, 60)
            assert delivery.type == "modem.down"
            data = delivery.content["data"]
            assert list(data) == ["modem", "detail", "remedy"]
            assert data["modem"] == "GSM2"
            assert data["detail"] == f"its device {smsd.modems[1].device} is not there"
            assert gateway.get("/health/ready", user=None).json == {"ready": True, "wrong": ["modem"]}
            smsd.kill()
            delivery = receiver.wait(2, 60)[1]
            assert (delivery.type, delivery.content["data"]["modem"]) == ("modem.down", "GSM1")
            gateway.get("/health/ready", user=None, status=503)
            smsd.modems.pop()
            smsd.start()
            delivery = receiver.wait(3, 60)[2]
            assert (delivery.type, delivery.content["data"]["modem"]) == ("modem.up", "GSM1")
            assert other.deliveries == []


def test_a_webhook_hears_of_a_real_queue(tmp_path: Path, make_gateway: Make, receiver: Receiver) -> None:
    """The modem has the message, and does not answer."""
    folder = tmp_path / "smsd"
    folder.mkdir()
    with Smsd(folder) as smsd:
        smsd.modem.delay = 600
        gateway = make_gateway(
            {
                "smsgw.spool": None,
                "smsgw.smsd_conf": str(smsd.conf),
                "smsgw.plugins": "htpasswd allow webhooks",
                "smsgw.webhooks.allow_private": "true",
                "smsgw.health.stuck_seconds": "10",
            }
        )
        body = {"url": receiver.url, "events": ["queue.stuck"]}
        gateway.call("POST_JSON", "/api/v2/webhooks", body, user="root", status=201)
        gateway.send()
        smsd.modem.wait_busy()
        (delivery,) = receiver.wait(1, 60)
        assert (delivery.type, delivery.content["data"]["queue"]) == ("queue.stuck", "checked")
        assert "1 message waits" in delivery.content["data"]["detail"]
