"""``notify``: what became of messages, to each plugin at least once, in order for each message."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import pytest

from smsgw.model import Accepted, Cancelled, Event, Failed, Received, Sent
from tests.conftest import Gateway, eventually

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
    monkeypatch.setattr("smsgw.spool.tracker.RETRY", 0.1)
    distribution("acme", PLUGINS, ear="Ear", deaf="Deaf")

    def make() -> tuple[Gateway, Any, Any]:
        gateway = make_gateway({"smsgw.plugins": "htpasswd allow ear deaf"})
        plugins = gateway.app.app.registry.plugins
        eventually(lambda: all((gateway.state / f"told.{name}").exists() for name in ("ear", "deaf")))
        return gateway, plugins.get_plugin("ear").heard, plugins.get_plugin("deaf").heard

    return make


def hear(heard: queue.Queue[Event], *wanted: type[Event]) -> list[Event]:
    events = [heard.get(timeout=10) for _ in wanted]
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


def test_what_was_not_seen_on_its_way(listening: Callable[[], tuple[Gateway, Any, Any]]) -> None:
    gateway, ear, _ = listening()
    gateway.put("failed", "m1", "To: 911\nFrom: lvv\nFail_reason: none\n\nHi")
    accepted, failed = hear(ear, Accepted, Failed)
    assert accepted.message.id == failed.message.id == "m1"
    gateway.put("incoming", "GSM1.x", "From: 7916\nModem: GSM1\n\nHi")
    (received,) = hear(ear, Received)
    assert received.message.owner is None


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
    gateway.app.app.registry.owner.stop()
    (gateway.spool / "outgoing" / id).rename(gateway.spool / "sent" / id)
    gateway.put("incoming", "GSM1.x", "From: 7916\n\nHi")
    _, ear, _ = listening()
    events = [ear.get(timeout=10) for _ in range(3)]
    assert [type(event) for event in events if event.message.id == id][-1] is Sent
    assert Received in {type(event) for event in events}
