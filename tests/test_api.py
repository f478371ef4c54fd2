"""What plugins call: ``smsgw.api``, in the real application, as a plugin has it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.request import Request

from smsgw.api import (
    Draft,
    Forbidden,
    Invalid,
    NoneAccepted,
    NotFound,
    Refused,
    TooLate,
    cancel,
    client_address,
    find,
    find_received,
    problem,
    search,
    send,
)
from smsgw.hookspecs import hookimpl
from smsgw.model import Identity, Options, Query, TooMany, Unavailable
from smsgw.testing import Gateway, MakeGateway
from tests.conftest import OUTGOING

LVV = Identity("lvv")
HI = Draft("+79680000000", "Hi")


@pytest.fixture
def registry(gateway: Gateway) -> Registry:
    found: Registry = gateway.registry
    return found


class TestSend:
    def test_as_a_request_would(self, make_gateway: MakeGateway) -> None:
        class Shout:
            @hookimpl
            def transform(self, text: str, identity: Identity) -> str:
                return f"{text.upper()} from {identity.userid}"

        settings: dict[str, str | None] = {
            "smsgw.plugins": "htpasswd allow whitelist shout",
            "smsgw.whitelist.numbers": "@night: 7*",
        }
        gateway = make_gateway(settings, shout=Shout)
        drafts = [HI, Draft("112", "Hi"), Draft("nobody", "Hi"), HI, Draft("79160000000", "Ho", "order-17")]
        found = send(gateway.registry, Identity("robot", {"night"}), drafts, Options(flash=True))
        assert [(why.place, why.code) for why in found.rejected] == [
            (1, "forbidden"),
            (2, "invalid_number"),
            (3, "duplicate"),
        ]
        messages = {message.id: message for message in gateway.messages()}
        assert [messages[found.ids[place]].text for place in (0, 4)] == ["HI from robot", "HO from robot"]
        assert {message.owner for message in messages.values()} == {"robot"}
        assert {message.headers["Flash"] for message in messages.values()} == {"yes"}
        assert messages[found.ids[4]].headers["X-Reference"] == "order-17"

    def test_once_under_a_key(self, gateway: Gateway, registry: Registry) -> None:
        drafts = [HI, Draft("nobody", "Hi")]
        found = [send(registry, LVV, drafts, key="event-17") for _ in range(2)]
        found.append(send(registry, LVV, [Draft("+79680000000", "Ho")], key="event-17"))
        assert found[0] == found[1] == found[2]
        assert list(found[0].ids) == [0]
        assert [why.code for why in found[0].rejected] == ["invalid_number"]
        assert len(gateway.files()) == 1
        send(registry, Identity("ops"), drafts, key="event-17")
        send(registry, LVV, drafts, key="event-18")
        send(registry, LVV, drafts)
        assert len(gateway.files()) == 4

    def test_a_key_of_a_client(self, gateway: Gateway, registry: Registry) -> None:
        send(registry, LVV, [HI], key="event-17")
        body = {"mobiles": ["79680000000"], "text": "Hi"}
        gateway.call("POST_JSON", OUTGOING, body, headers={"Idempotency-Key": "event-17"}, status=422)
        gateway.call("POST_JSON", OUTGOING, body, headers={"Idempotency-Key": "event-18"}, status=201)
        with pytest.raises(Refused, match="used for another request"):
            send(registry, LVV, [HI], key="event-18")

    def test_a_refusal_is_not_remembered(self, gateway: Gateway, registry: Registry) -> None:
        for _ in range(2):
            with pytest.raises(NoneAccepted) as refused:
                send(registry, LVV, [Draft("nobody", "Hi")], key="event-17")
            assert [why.code for why in refused.value.rejected] == ["invalid_number"]
        send(registry, LVV, [HI], key="event-17")
        assert len(gateway.files()) == 1

    @pytest.mark.parametrize("error", [TooMany(7, "enough"), Unavailable("down"), Forbidden("no")])
    def test_what_plugins_refuse(self, make_gateway: MakeGateway, error: Exception) -> None:
        class Acme:
            @hookimpl(wrapper=True)
            def deliver(self) -> Any:
                raise error
                yield

        gateway = make_gateway({"smsgw.plugins": "htpasswd allow acme"}, acme=Acme)
        for key in (None, "event-17"):
            with pytest.raises(type(error)):
                send(gateway.registry, LVV, [HI], key=key)
        assert gateway.files() == {}

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda registry: send(registry, Identity("a\nInclude: /etc/passwd"), [HI]), "userid"),
            (lambda registry: send(registry, LVV, [Draft("112", "Hi", "a\nInclude: /etc/passwd")]), "0/reference"),
            (lambda registry: send(registry, LVV, [HI, Draft("112", "")]), "1/text should not be empty"),
            (lambda registry: send(registry, LVV, [Draft("112", "\ud800")]), "0/text"),
            (lambda registry: send(registry, LVV, [Draft(112, "Hi")]), "0/to should be a string"),  # type: ignore[arg-type]
            (lambda registry: send(registry, LVV, [HI], Options(queue="a\nb")), "queue should be"),
            (lambda registry: send(registry, LVV, [HI], Options(queue=7)), "queue has a value"),  # type: ignore[arg-type]
            (lambda registry: send(registry, LVV, [HI], Options(send_at=datetime(2026, 1, 1))), "send_at"),
            (lambda registry: send(registry, LVV, [HI], Options(validity=0)), "validity should be"),
            (lambda registry: send(registry, LVV, [HI], key="short"), "Idempotency-Key should be"),
        ],
    )
    def test_what_no_client_could_send(
        self, gateway: Gateway, registry: Registry, call: Callable[[Registry], Any], words: str
    ) -> None:
        with pytest.raises(Invalid, match=words):
            call(registry)
        assert gateway.files() == {}


class TestFound:
    def test_find_and_cancel(self, gateway: Gateway, registry: Registry) -> None:
        (id,) = send(registry, LVV, [HI]).ids.values()
        found, report = find(registry, LVV, id)
        assert (found.kind, found.text, found.owner, report) == ("outgoing", "Hi", "lvv", None)
        with pytest.raises(NotFound):
            find(registry, Identity("ops"), id)
        with pytest.raises(NotFound):
            cancel(registry, Identity("ops"), id)
        assert find(registry, Identity("root"), id) == (found, None)
        assert cancel(registry, LVV, id).kind == cancel(registry, LVV, id).kind == "cancelled"
        assert gateway.files() == {}

    def test_what_smsd_has(self, gateway: Gateway, registry: Registry) -> None:
        gateway.put("sent", "m1", "To: 7916\nFrom: lvv\nModem: GSM1\nMessage_id: 7\n\nHi")
        gateway.put("report", "r1", "From: 7916\nModem: GSM1\n\nSMS STATUS REPORT\nMessage_id: 7\nStatus: 0,Ok\n")
        with pytest.raises(TooLate):
            cancel(registry, LVV, "m1")
        report = find(registry, LVV, "m1")[1]
        assert report is not None
        assert report.is_delivered

    def test_what_came_in(self, gateway: Gateway, registry: Registry) -> None:
        gateway.put("incoming", "GSM1.x", "From: 79160000000\nModem: GSM1\n\nHo")
        root = Identity("root")
        assert find_received(registry, root, "GSM1.x").text == "Ho"
        for id in ("GSM1.x", "../incoming/GSM1.x", "\0", ""):
            with pytest.raises(NotFound):
                find(registry, root, id)
        (found,) = search(registry, root, Query(("received",), limit=10)).messages
        assert (found[0].id, found[1]) == ("GSM1.x", None)
        assert search(registry, LVV, Query(("received",), limit=10)).messages == []

    def test_pages(self, registry: Registry) -> None:
        sent = list(send(registry, LVV, [Draft(f"7916000000{number}", "Hi") for number in range(5)]).ids.values())
        (other,) = send(registry, Identity("ops"), [HI]).ids.values()
        pages, before = [], None
        while True:
            page = search(registry, LVV, Query(("queued", "sent"), before=before, limit=2))
            pages.append([message.id for message, _ in page.messages])
            if (before := page.last) is None:
                break
        assert pages == [sent[:2:-1], sent[2:0:-1], sent[:1]]
        assert search(registry, LVV, Query(("queued",), owner="ops", limit=9)).messages == []
        everybody = search(registry, Identity("root"), Query(("queued",), limit=9)).messages
        assert {message.id for message, _ in everybody} == {*sent, other}

    def test_what_nobody_can_search_for(self, registry: Registry) -> None:
        with pytest.raises(Invalid, match="statuses has 'waiting', and should be of scheduled, "):
            search(registry, LVV, Query(("queued", "waiting")))
        with pytest.raises(Invalid, match="limit should be at least 1"):
            search(registry, LVV, Query(("queued",), limit=0))


class Views:
    def includeme(self, config: Configurator) -> None:
        config.add_route("address", "/address")
        config.add_view(lambda request: {"address": client_address(request)}, route_name="address", renderer="json")
        config.add_route("full", "/api/v2/full")
        config.add_view(self.full, route_name="full")

    def full(self, request: Request) -> Any:
        return problem(409, "The box is full", {"#/to/0": "has no room"}, Retry_After="7")


def test_the_address_is_the_one_that_trusted_proxies_tell(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow views", "smsgw.trusted_proxies": "10.0.0.1"}, views=Views)
    headers = {"X-Forwarded-For": "192.0.2.7"}
    for proxy, address in (("10.0.0.1", "192.0.2.7"), ("10.0.0.2", "10.0.0.2")):
        gateway.app.extra_environ["REMOTE_ADDR"] = proxy
        assert gateway.get("/address", headers=headers).json == {"address": address}


def test_problems_are_the_core_s(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow views"}, views=Views)
    found = gateway.get("/api/v2/full", status=409)
    assert found.content_type == "application/problem+json"
    assert found.headers["Retry-After"] == "7"
    assert found.json["detail"] == "The box is full"
    assert found.json["errors"] == [{"pointer": "#/to/0", "detail": "has no room"}]
