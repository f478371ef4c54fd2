"""What plugins decide of a whole request, and of each message's way: ``submit`` and ``route``, by both APIs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyramid.security import Allowed, Denied

from smsgw.hookspecs import hookimpl
from smsgw.model import Identity, Message, Options, Submission
from smsgw.testing import Gateway, MakeGateway
from tests.conftest import OUTGOING

V2 = "/api/v2/messages"
NUMBERS = ["79680000000", "79160000000"]
KEY = {"Idempotency-Key": "order-17-paid"}


def v1(gateway: Gateway, status: int, text: str = "Hi", numbers: Iterable[str] = NUMBERS, **more: Any) -> Any:
    body = {"mobiles": list(numbers), "text": text, "queue": "OLD", "validity": 60}
    return gateway.call("POST_JSON", OUTGOING, body, status=status, **more).json


def v2(gateway: Gateway, status: int, text: str = "Hi", numbers: Iterable[str] = NUMBERS, **more: Any) -> Any:
    body = {"to": list(numbers), "text": text, "queue": "OLD", "validity_minutes": 60}
    return gateway.call("POST_JSON", V2, body, status=status, **more).json


BOTH = pytest.mark.parametrize(("send", "accepted"), [(v1, 201), (v2, 202)])


def headers(gateway: Gateway) -> dict[str, dict[str, str]]:
    names = ("Queue", "Priority", "Validity", "Flash")
    return {
        found.headers["To"]: {name: found.headers[name] for name in names if name in found.headers}
        for found in gateway.messages()
    }


class Asked:
    """Notes what policies are asked about whole requests, and answers with what the test says."""

    answer: Any = None

    def __init__(self) -> None:
        self.submissions: list[Any] = []

    @hookimpl
    def permits(self, permission: str, context: object) -> Any:
        if permission != "submit":
            return None
        self.submissions.append(context)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Shout:
    @hookimpl
    def transform(self, text: str) -> str:
        return text.upper()


@BOTH
def test_submit_is_asked_once_for_what_would_go_out(make_gateway: MakeGateway, send: Any, accepted: int) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow asked shout"}, asked=Asked, shout=Shout)
    send(gateway, accepted, numbers=[*NUMBERS, "nobody", NUMBERS[0]])
    (submission,) = gateway.plugin("asked").submissions
    assert isinstance(submission, Submission)
    assert submission.identity == Identity("lvv", credential="htpasswd:lvv")
    assert [message.to for message in submission.messages] == NUMBERS
    assert {message.content.text for message in submission.messages} == {"HI"}
    assert {found.id for found in gateway.messages()} == {message.id for message in submission.messages}


@BOTH
@pytest.mark.parametrize("answer", [Denied("too much"), RuntimeError("secret detail"), True, "no"])
def test_submit_refuses_the_whole(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture, send: Any, accepted: int, answer: Any
) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow asked"}, asked=Asked)
    gateway.plugin("asked").answer = answer
    for more in ({}, {"headers": KEY}):
        found = send(gateway, 403, **more)
        assert (found.get("detail") or found["error"]) == "You may not send all this in one request"
        assert "errors" not in found
    assert gateway.files() == {}
    assert ("'asked'" in caplog.text) is (not isinstance(answer, Denied))
    gateway.plugin("asked").answer = None
    send(gateway, 403, headers=KEY)
    send(gateway, accepted)


@BOTH
def test_nobody_is_asked_about_a_request_of_which_nothing_goes_out(
    make_gateway: MakeGateway, send: Any, accepted: int
) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd asked", "smsgw.allow.admins": None}, asked=Asked)
    send(gateway, 403)
    assert gateway.plugin("asked").submissions == []


@BOTH
def test_a_policy_of_before_submit_works_as_it_did(make_gateway: MakeGateway, send: Any, accepted: int) -> None:
    """One that allows ``send``, and has no opinion on what it does not know."""

    class Ours:
        @hookimpl
        def permits(self, permission: str) -> Allowed | None:
            return Allowed("everybody sends") if permission == "send" else None

    gateway = make_gateway({"smsgw.plugins": "htpasswd ours", "smsgw.allow.admins": None}, ours=Ours)
    send(gateway, accepted)
    assert len(gateway.files()) == 2


class First:
    """Routes by number, and notes what it is asked about."""

    def __init__(self) -> None:
        self.asked: list[tuple[Message, Identity]] = []

    @hookimpl
    def route(self, message: Message, identity: Identity) -> Options | None:
        self.asked.append((message, identity))
        if message.to == NUMBERS[0]:
            return replace(message.content.options, queue="NEW", high_priority=True)
        return None


class Second:
    @hookimpl
    def route(self, message: Message) -> Options | None:
        return Options(flash=True)


@BOTH
def test_the_first_route_counts(make_gateway: MakeGateway, send: Any, accepted: int) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow shout first"}, shout=Shout, first=First)
    send(gateway, accepted, numbers=[*NUMBERS, NUMBERS[0]])
    assert headers(gateway) == {
        NUMBERS[0]: {"Queue": "NEW", "Priority": "HIGH", "Validity": "60 min"},
        NUMBERS[1]: {"Queue": "OLD", "Validity": "60 min"},
    }
    asked = gateway.plugin("first").asked
    assert [(message.to, message.content.text, message.content.options.queue) for message, _ in asked] == [
        (NUMBERS[0], "HI", "OLD"),
        (NUMBERS[1], "HI", "OLD"),
    ]
    assert {identity for _, identity in asked} == {Identity("lvv", credential="htpasswd:lvv")}


@BOTH
def test_a_route_takes_the_place_of_what_the_client_asked_for(
    make_gateway: MakeGateway, send: Any, accepted: int
) -> None:
    settings = {"smsgw.plugins": "htpasswd allow first second", "smsgw.default_queue": "USUAL"}
    gateway = make_gateway(settings, first=First, second=Second)
    send(gateway, accepted)
    assert headers(gateway) == {
        NUMBERS[0]: {"Queue": "NEW", "Priority": "HIGH", "Validity": "60 min"},
        NUMBERS[1]: {"Queue": "USUAL", "Flash": "yes"},
    }


def test_only_what_may_be_sent_is_routed(make_gateway: MakeGateway) -> None:
    settings: dict[str, str | None] = {
        "smsgw.plugins": "htpasswd allow whitelist first",
        "smsgw.whitelist.numbers": "lvv: 7916*",
    }
    gateway = make_gateway(settings, first=First)
    v2(gateway, 202)
    assert [message.to for message, _ in gateway.plugin("first").asked] == NUMBERS[1:]


@BOTH
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (True, "answered True"),
        ("NEW", "answered a value of type 'str'"),
        (Options(queue="NOWHERE"), "queue is none of smsd's: OLD, NEW"),
        (Options(queue=""), "queue should be at most 99 characters"),
        (Options(queue="a\nInclude: /etc/passwd"), "queue should be at most 99 characters"),
        (Options(queue=["NEW"]), "queue is ['NEW']"),  # type: ignore[arg-type]
        (Options(flash="no"), "flash is 'no'"),  # type: ignore[arg-type]
        (Options(high_priority=None), "high_priority is None"),  # type: ignore[arg-type]
        (Options(validity=True), "validity is True"),
        (Options(validity=0), "validity should be 1 to"),
        (Options(send_at=datetime(2026, 12, 1)), "send_at is datetime"),
        (Options(send_at=datetime.now(UTC) + timedelta(days=500)), "send_at should be at most"),
    ],
)
def test_a_route_that_cannot_be(
    make_gateway: MakeGateway,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    base_settings: dict[str, str],
    send: Any,
    accepted: int,
    answer: Any,
    words: str,
) -> None:
    class Acme:
        @hookimpl
        def route(self) -> Any:
            return answer

    conf = tmp_path / "smsd.conf"
    spool = base_settings["smsgw.spool"]
    folders = "".join(f"{kind} = {spool}/{kind}\n" for kind in ("outgoing", "checked", "sent", "failed", "incoming"))
    conf.write_text(f"{folders}[queues]\nOLD = {spool}/checked/OLD\nNEW = {spool}/checked/NEW\n")
    settings = {"smsgw.plugins": "htpasswd allow acme", "smsgw.spool": None, "smsgw.smsd_conf": str(conf)}
    gateway = make_gateway(settings, acme=Acme)
    assert "NEW" not in str(send(gateway, 500))
    assert "the plugin 'acme'" in caplog.text
    assert words in caplog.text
    assert list((Path(spool) / "outgoing").glob("smsgw*")) == []


def test_what_is_routed_alike_shares_one_content(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow asked second"}, asked=Asked, second=Second)
    v2(gateway, 202)
    (submission,) = gateway.plugin("asked").submissions
    assert len({id(message.content) for message in submission.messages}) == 1
