"""``urgent``: who may send urgently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from pyramid.security import Denied
from smsgw.model import Identity, Options
from smsgw.testing import MakeGateway, PolicyConformance, message

ANN, OPS = Identity("ann"), Identity("ops", frozenset({"alarms"}))
HIGH, FLASH = Options(high_priority=True), Options(flash=True)


class TestUrgent(PolicyConformance):
    plugin = "urgent"

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        return {"smsgw.urgent.users": "@alarms bob"}

    @pytest.fixture
    def answers(self) -> Sequence[object]:
        return [
            (None, ANN, "send", message()),
            (Denied, ANN, "send", message(options=HIGH)),
            (Denied, ANN, "send", message(options=FLASH)),
            (None, OPS, "send", message(options=HIGH)),
            (None, Identity("bob"), "send", message(options=FLASH)),
            (Denied, Identity("alarms"), "send", message(options=FLASH)),
            (None, ANN, "list", None),
        ]


def test_through_http(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "users allow urgent", "smsgw.urgent.users": "@alarms"})
    gateway.send()
    gateway.send(priority="high", status=403)
    gateway.send(user="ops", priority="high")
    priorities = [message.headers.get("Priority") for message in gateway.messages()]
    assert sorted(priorities, key=str) == ["HIGH", None]
