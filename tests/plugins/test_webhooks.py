"""``webhooks``: who registers hears of what, signed; real receivers on loopback, SQLite and a real PostgreSQL."""

from __future__ import annotations

import base64
import itertools
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyramid.security import Denied

from smsgw.hookspecs import hookimpl
from smsgw.model import Sent
from smsgw.testing import MakeGateway
from smsgw_plugins.webhooks.events import TYPES
from tests.conftest import Gateway, eventually
from tests.receiver import Receiver

WEBHOOKS = "/api/v2/webhooks"
ALL = list(TYPES.values())
SETTINGS: dict[str, str | None] = {
    "smsgw.plugins": "htpasswd allow webhooks",
    "smsgw.webhooks.allow_private": "true",
}

Register = Callable[..., Any]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def gateway(make_gateway: MakeGateway, store_url: str) -> Gateway:
    """One with webhooks, that hears of what happens from now on."""
    return listening(make_gateway(SETTINGS | {"smsgw.store": store_url}))


def listening(gateway: Gateway) -> Gateway:
    eventually(lambda: gateway.application.journal.standing().is_whole)
    return gateway


def register(gateway: Gateway, url: str, *events: str, user: str = "lvv", status: int = 201, **fields: Any) -> Any:
    body = {"url": url, "events": list(events or ALL)} | fields
    return gateway.call("POST_JSON", WEBHOOKS, body, user=user, status=status).json


_numbers = itertools.count(1)


def happen(gateway: Gateway, kind: str, headers: str = "", *, owner: str = "lvv", text: str = "Hi") -> str:
    """A message of that user is in that folder."""
    name = f"m{next(_numbers)}"
    gateway.put(".", f".{name}", f"To: 79680000000\nFrom: {owner}\n{headers}\n{text}").rename(
        gateway.spool / kind / name
    )
    return name


# What is told, and to whom


def test_the_life_of_a_message(gateway: Gateway, receiver: Receiver) -> None:
    receiver.secret = register(gateway, receiver.url)["secret"]
    id = happen(gateway, "sent", "Modem: GSM1\nMessage_id: 7\nSent: 26-11-23 09:16:03\n")
    (sent,) = receiver.wait(1)
    assert (sent.type, sent.message, sent.content["data"]["status"]) == ("message.sent", id, "sent")
    assert sent.content.keys() == {"type", "timestamp", "data"}
    assert sent.headers["content-type"] == "application/json"
    assert sent.path == "/sms"
    report = "SMS STATUS REPORT\nMessage_id: 7\nStatus: 0,Ok,received\n"
    gateway.put("report", "r1", f"From: 79680000000\nModem: GSM1\n\n{report}")
    _, delivered = receiver.wait(2)
    shown = gateway.get(f"/api/v2/messages/{id}").json
    assert delivered.type == "message.delivered"
    assert delivered.content["data"] == shown
    assert sent.content["data"] == shown | {"status": "sent", "report": None, "delivered_at": None}
    assert sent.id != delivered.id


@pytest.mark.parametrize(
    ("kind", "headers", "type_"),
    [("failed", "Fail_reason: no network\n", "message.failed"), ("sent", "Modem: GSM1\nMessage_id: 3\n", None)],
)
def test_bad_ends(gateway: Gateway, receiver: Receiver, kind: str, headers: str, type_: str | None) -> None:
    register(gateway, receiver.url, "message.failed", "message.undelivered")
    id = happen(gateway, kind, headers)
    if kind == "sent":
        report = "SMS STATUS REPORT\nMessage_id: 3\nStatus: 70,No\n"
        gateway.put("report", "r1", f"From: 79680000000\nModem: GSM1\n\n{report}")
    (told,) = receiver.wait(1)
    assert told.type == (type_ or "message.undelivered")
    assert told.content["data"] == gateway.get(f"/api/v2/messages/{id}").json


def test_cancelled(gateway: Gateway, receiver: Receiver) -> None:
    register(gateway, receiver.url, "message.cancelled")
    (id,) = gateway.send().json["message_id"].values()
    gateway.delete(f"/api/v2/messages/{id}")
    (told,) = receiver.wait(1)
    assert (told.type, told.message, told.content["data"]["status"]) == ("message.cancelled", id, "cancelled")


def test_everybody_hears_of_their_own_and_administrators_of_all(gateway: Gateway) -> None:
    with Receiver() as mine, Receiver() as others, Receiver() as roots:
        for receiver, user in ((mine, "lvv"), (others, "ops"), (roots, "root")):
            receiver.secret = register(gateway, receiver.url, user=user)["secret"]
        id = happen(gateway, "sent")
        gateway.put("incoming", "GSM1.a", "From: 79161234567\nReceived: 26-11-23 09:16:03\n\nHello")
        gateway.put("incoming", "GSM1.b", "From: ops\nReceived: 26-11-23 09:16:03\n\nI am ops")
        last = happen(gateway, "sent", owner="ops")
        assert {each.message for each in roots.wait(4)} == {id, "GSM1.a", "GSM1.b", last}
        (heard,) = (each for each in roots.deliveries if each.message == "GSM1.a")
        assert heard.type == "message.received"
        assert heard.content["data"] == gateway.get("/api/v2/inbox/GSM1.a", user="root").json
        assert [each.message for each in mine.wait(1)] == [id]
        assert [each.message for each in others.wait(1)] == [last]


def test_who_reads_all_no_more_hears_of_others_no_more(
    make_gateway: MakeGateway, store_url: str, receiver: Receiver
) -> None:
    settings = SETTINGS | {"smsgw.store": store_url}
    with_rights = listening(make_gateway(settings | {"smsgw.allow.admins": "ops"}))
    register(with_rights, receiver.url, user="ops")
    with_rights.application.owner.stop()
    gateway = make_gateway(settings)
    happen(gateway, "sent", owner="lvv")
    own = happen(gateway, "sent", owner="ops")
    assert [each.message for each in receiver.wait(1)] == [own]


class Discreet:
    """A policy: some messages nobody reads."""

    @hookimpl
    def permits(self, permission: str, context: Any) -> Denied | None:
        return Denied("it is nobody's business") if permission == "read" and "secret" in context.text else None


def test_what_a_policy_lets_nobody_read_is_not_told(make_gateway: MakeGateway, receiver: Receiver) -> None:
    changes = SETTINGS | {"smsgw.plugins": "htpasswd allow discreet webhooks"}
    gateway = listening(make_gateway(changes, discreet=Discreet))
    register(gateway, receiver.url)
    register(gateway, receiver.url, user="root")
    happen(gateway, "sent", text="This is secret")
    id = happen(gateway, "sent")
    assert [each.message for each in receiver.wait(2)] == [id, id]


def test_only_the_events_that_were_asked_for(gateway: Gateway, receiver: Receiver) -> None:
    register(gateway, receiver.url, "message.failed")
    happen(gateway, "sent")
    id = happen(gateway, "failed")
    assert [(each.type, each.message) for each in receiver.wait(1)] == [("message.failed", id)]


def test_what_was_before_a_webhook_is_not_told(gateway: Gateway, receiver: Receiver) -> None:
    """Such as what happened while no process ran, and is told now."""
    register(gateway, receiver.url)
    now = datetime.now(UTC)
    ids = (happen(gateway, "checked"), happen(gateway, "checked"))
    old, new = (gateway.application.folders.find("checked", id) for id in ids)
    gateway.plugin("webhooks").notify([Sent(old, now - timedelta(hours=1)), Sent(new, now)])
    assert [each.message for each in receiver.wait(1)] == [new.id]


# Registration


def test_registered_webhooks(gateway: Gateway, receiver: Receiver) -> None:
    made = register(gateway, receiver.url, "message.sent", description="orders")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"))) <= 64
    assert made == {
        "id": made["id"],
        "url": receiver.url,
        "events": ["message.sent"],
        "description": "orders",
        "created_at": made["created_at"],
    }
    assert gateway.get(WEBHOOKS).json == {"webhooks": [made | {"ended": None}]}
    path = f"{WEBHOOKS}/{made['id']}"
    assert gateway.get(path).json == made | {"ended": None, "waiting": 0, "failed": 0, "last_error": None}
    assert secret not in gateway.get(WEBHOOKS).text + gateway.get(path).text
    assert gateway.delete(path).json == made
    assert gateway.get(WEBHOOKS).json == {"webhooks": []}
    gateway.delete(path, status=404)


def test_where_it_is(gateway: Gateway, receiver: Receiver) -> None:
    reply = gateway.call("POST_JSON", WEBHOOKS, {"url": receiver.url, "events": ["message.sent"]}, status=201)
    assert reply.headers["Location"].endswith(f"{WEBHOOKS}/{reply.json['id']}")


def test_nobody_sees_another_s_not_even_root(gateway: Gateway, receiver: Receiver) -> None:
    id = register(gateway, receiver.url)["id"]
    for user in ("ops", "root"):
        assert gateway.get(WEBHOOKS, user=user).json == {"webhooks": []}
        for method, path in (
            ("GET", id),
            ("DELETE", id),
            ("GET", f"{id}/failures"),
            ("POST", f"{id}/failures/replay"),
            ("POST", f"{id}/failures/msg_{'0' * 32}/replay"),
        ):
            gateway.call(method, f"{WEBHOOKS}/{path}", user=user, status=404)
    gateway.get(WEBHOOKS, user=None, status=401)
    assert gateway.get(f"{WEBHOOKS}/{id}").json["id"] == id


@pytest.mark.parametrize("id", ["wh_%00", "wh_", "%FF", "x" * 5000, "wh_" + "0" * 20])
def test_there_is_no_such_webhook(gateway: Gateway, id: str) -> None:
    gateway.get(f"{WEBHOOKS}/{id}", status=404)
    gateway.call("POST", f"{WEBHOOKS}/{id}/failures/{id}/replay", status=404)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"url": None}, "#/url"),
        ({"url": "ftp://127.0.0.1/"}, "#/url"),
        ({"url": "http://lvv:secret@127.0.0.1/"}, "#/url"),
        ({"url": "http://127.0.0.1/" + "a" * 2000}, "#/url"),
        ({"url": "http://no-such-host.invalid/"}, "#/url"),
        ({"events": []}, "#/events"),
        ({"events": "message.sent"}, "#/events"),
        ({"events": ["message.sent", "message.accepted"]}, "#/events/1"),
        ({"events": ["message.sent", "message.sent"]}, "#/events"),
        ({"events": [["message.sent"]]}, "#/events/0"),
        ({"description": 1}, "#/description"),
        ({"description": "a\0b"}, "#/description"),
        ({"description": "a" * 201}, "#/description"),
        ({"secret": "whsec_"}, "#/secret"),
    ],
)
def test_what_is_wrong_is_named(make_gateway: MakeGateway, fields: dict[str, Any], pointer: str) -> None:
    gateway = make_gateway(SETTINGS)
    body = {"url": "http://127.0.0.1:1/", "events": ["message.sent"]} | fields
    reply = gateway.call("POST_JSON", WEBHOOKS, body, status=400)
    assert reply.content_type == "application/problem+json"
    assert [error["pointer"] for error in reply.json["errors"]] == [pointer]
    assert "secret@" not in reply.text
    assert gateway.get(WEBHOOKS).json == {"webhooks": []}


def test_a_user_has_so_many_and_no_more(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(SETTINGS | {"smsgw.webhooks.per_user": "2"})
    for _ in range(2):
        register(gateway, "http://127.0.0.1:1/")
    assert "2 webhooks" in register(gateway, "http://127.0.0.1:1/", status=403)["detail"]
    register(gateway, "http://127.0.0.1:1/", user="ops")


def test_the_database_of_secrets_is_the_gateway_s_alone(make_gateway: MakeGateway, tmp_path: Path) -> None:
    gateway = make_gateway(SETTINGS | {"smsgw.store": f"sqlite:///{tmp_path / 'secrets.sqlite3'}"})
    register(gateway, "http://127.0.0.1:1/")
    files = list(tmp_path.glob("secrets.sqlite3*"))
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_private_addresses_are_refused(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(SETTINGS | {"smsgw.webhooks.allow_private": None})
    for url in ("https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://2130706433/", "https://10.1/"):
        problem = register(gateway, url, status=400)
        assert problem["errors"] == [{"pointer": "#/url", "detail": "leads to an address that is not public"}]
    assert "https" in register(gateway, "http://8.8.8.8/", status=400)["detail"]
    register(gateway, "https://8.8.8.8/")


def test_a_wrong_ca_file_stops_the_start(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("ca.pem", "absent.pem"):
        assert name in refusal(SETTINGS | {"smsgw.webhooks.ca_file": str(tmp_path / name)})
