"""``allow``: what the v1.0 tests do not already show of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pyramid.security import Allowed

from smsgw.model import Identity, StoredMessage
from smsgw_plugins.allow import Allow
from tests.conftest import Gateway

OWN = StoredMessage("sent", "m1", {}, "", "lvv")
NOBODYS = StoredMessage("incoming", "m1", {}, "", None)


@pytest.mark.parametrize("permission", ["read", "read-all", "delete", "cancel"])
@pytest.mark.parametrize("context", [OWN, NOBODYS, None])
def test_administrators(permission: str, context: StoredMessage | None) -> None:
    plugin = Allow(admins=("root", "@wheel"))
    for identity in (Identity("root"), Identity("ann", frozenset({"wheel"}))):
        assert isinstance(plugin.permits(identity, permission, context), Allowed)
    for identity in (Identity("ann"), Identity("wheel"), Identity("ann", frozenset({"root"}))):
        assert plugin.permits(identity, permission, context) is None


def test_users() -> None:
    plugin = Allow(admins=())
    answers = {
        permission: plugin.permits(Identity("lvv"), permission, OWN)
        for permission in ("send", "list", "read", "cancel", "delete", "read-all", "bogus")
    }
    assert {name for name, answer in answers.items() if answer} == {"send", "list", "read", "cancel"}
    assert plugin.permits(Identity("lvv"), "read", NOBODYS) is None


def test_without_administrators(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway({"smsgw.allow.admins": None})
    gateway.put("sent", "m1", "To: 911\nFrom: lvv\n\nHi")
    gateway.get("/api/v1.0/sms/sent/m1")
    gateway.get("/api/v1.0/sms/sent/m1", user="root", status=404)
