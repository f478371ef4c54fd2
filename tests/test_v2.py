"""The v2 contract, line by line, through HTTP."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyramid.httpexceptions import HTTPGone, HTTPServiceUnavailable
from pyramid.security import Allowed, Denied
from webob import Request

from smsgw.hookspecs import hookimpl
from smsgw.model import Allowance, Identity, Message, StoredMessage, Submission, TextRefused, TooMany, Unavailable
from smsgw.spool.sending.idempotency import digest
from smsgw.testing import Gateway, MakeGateway, basic
from tests.conftest import USERS, at_length, eventually
from tests.server import Server
from tests.test_hostile import CONTENT_TYPES, HEADERS, JSON, NAMES, snapshot
from tests.test_v1 import BAD_IDS

V2 = "/api/v2"
MESSAGES = f"{V2}/messages"
PATHS = [MESSAGES, f"{MESSAGES}/m1", f"{V2}/inbox", f"{V2}/inbox/m1", f"{V2}/preview", f"{V2}/me", f"{V2}/webhooks", V2]
SENT = "To: 79160000000\nFrom: lvv\nAlphabet: UTF-8\nModem: GSM1\nSent: 26-11-22 09:16:03\n\nHi, Jack!"
RECEIVED = "From: 79161234567\nReceived: 26-11-22 09:16:03\nModem: GSM1\nAlphabet: UTF-8\n\nHello"
FIELDS = ["id", "status", "from", "to", "text", "parts", "alphabet", "queue", "priority", "flash", "reference"]
FIELDS += ["accepted_at", "send_at", "sent_at", "delivered_at", "failed_at", "modem", "report", "error"]


def send(
    gateway: Gateway, body: Any = None, *, status: int | str = 202, user: str | None = "lvv", **fields: Any
) -> Any:
    """POST a send; ``fields`` go over a body that would be sent as it stands."""
    headers = fields.pop("headers", {})
    if body is None:
        body = {"to": ["+79680000000"], "text": "Hi, Jack!"} | fields
    reply = gateway.call("POST_JSON", MESSAGES, body, user=user, status=status, headers=headers)
    if reply.status_int >= 400:
        check_problem(reply)
    return reply.json


def check_problem(reply: Any) -> Any:
    """Every error is a problem whose type the documentation explains, and has that status in its table."""
    found = json.loads(reply.body)
    assert reply.content_type == "application/problem+json"
    assert found["status"] == reply.status_int
    assert found["detail"]
    assert found["title"]
    if found["type"] != "about:blank":
        path, _, anchor = found["type"].partition("#")
        text = (Path(__file__).parent.parent / path.lstrip("/")).read_text()
        assert f"\n### {anchor}\n" in text
        assert f"\n| {reply.status_int} | [{anchor}](#{anchor}) |" in text
    for error in found.get("errors", []):
        assert error.keys() - {"code"} == {"pointer", "detail"}
        assert error["pointer"].startswith("#")
        assert error["detail"]
    return found


def pointers(problem: Any) -> list[str]:
    return [error["pointer"] for error in problem["errors"]]


class TestErrors:
    @pytest.mark.shared
    @pytest.mark.parametrize("path", [*PATHS, f"{V2}/%ff", f"{V2}/messages/%ff"])
    @pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "OPTIONS"])
    def test_authentication_comes_first(self, gateway: Gateway, path: str, method: str) -> None:
        reply = gateway.call(method, path, user=None, status=401)
        assert check_problem(reply)["type"].endswith("#unauthorized")
        assert reply.headers["WWW-Authenticate"] == 'Basic realm="smsgw"'

    @pytest.mark.shared
    @pytest.mark.parametrize("path", [f"{V2}/bogus", V2, f"{V2}/", f"{MESSAGES}/", f"{V2}/%ff", f"{MESSAGES}/a/b"])
    def test_no_such_path(self, gateway: Gateway, path: str) -> None:
        assert check_problem(gateway.get(path, status=404))["detail"] == "Not found"

    @pytest.mark.shared
    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("PUT", MESSAGES, {"GET", "HEAD", "POST"}),
            ("DELETE", MESSAGES, {"GET", "HEAD", "POST"}),
            ("POST", f"{MESSAGES}/m1", {"GET", "HEAD", "DELETE"}),
            ("POST", f"{V2}/inbox", {"GET", "HEAD"}),
            ("PATCH", f"{V2}/inbox/m1", {"GET", "HEAD", "DELETE"}),
            ("GET", f"{V2}/preview", {"POST"}),
            ("OPTIONS", f"{V2}/me", {"GET", "HEAD"}),
        ],
    )
    def test_a_method_that_is_none(self, gateway: Gateway, method: str, path: str, allowed: set[str]) -> None:
        reply = gateway.call(method, path, status=405)
        check_problem(reply)
        assert set(reply.headers["Allow"].split(", ")) == allowed

    def test_too_large(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway({"smsgw.max_body": "100"})
        check_problem(gateway.call("POST_JSON", MESSAGES, {"text": "a" * 100}, status=413))

    @pytest.mark.shared
    @pytest.mark.parametrize("type", ["text/plain", "application/problem+json", "application/json; charset=utf-16"])
    def test_not_json_by_its_type(self, gateway: Gateway, type: str) -> None:
        for path in (MESSAGES, f"{V2}/preview"):
            check_problem(gateway.call("POST", path, b"{}", content_type=type, status=415))

    def test_guessing(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway({"smsgw.guesses_per_user": "1"})
        gateway.users["lvv"] = "wrong"
        check_problem(gateway.get(f"{V2}/me", status=401))
        reply = gateway.get(f"{V2}/me", status=429)
        check_problem(reply)
        assert int(reply.headers["Retry-After"]) > 0

    def test_a_limit(self, make_gateway: MakeGateway, tmp_path: Path) -> None:
        limits = {"smsgw.plugins": "htpasswd allow quota", "smsgw.quota.limits": "*: 2/day"}
        gateway = make_gateway(limits | {"smsgw.store": f"sqlite:///{tmp_path / 'store'}"})
        several = [{"to": number, "text": text} for number, text in (("911", "a"), ("912", "b"), ("913", "c"))]
        never = gateway.call("POST_JSON", MESSAGES, {"messages": several}, status=422)
        assert check_problem(never)["type"].endswith("#over-limit")
        assert gateway.files() == {}
        send(gateway, {"messages": several[:2]})
        refused = gateway.call("POST_JSON", MESSAGES, {"messages": several[2:]}, status=429)
        assert "2 messages/day" in check_problem(refused)["detail"]
        assert int(refused.headers["Retry-After"]) > 0
        assert refused.headers["RateLimit-Policy"]

    def test_out_of_service(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway({"smsgw.spool": "/nonexistent/spool"})
        for reply in (
            gateway.call("POST_JSON", MESSAGES, {"to": ["911"], "text": "a"}, status=503),
            gateway.get(MESSAGES, status=503),
            gateway.get(f"{MESSAGES}/m1", status=503),
            gateway.delete(f"{MESSAGES}/m1", status=503),
            gateway.get(f"{V2}/inbox", status=503),
        ):
            check_problem(reply)
            assert int(reply.headers["Retry-After"]) > 0
            assert "/nonexistent" not in reply.text

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (RuntimeError("secret"), 500),
            (Unavailable("The directory is down"), 503),
            (HTTPServiceUnavailable("down"), 503),
            (HTTPGone("gone"), 410),
        ],
    )
    def test_what_plugins_raise(self, make_gateway: MakeGateway, error: Exception, status: int) -> None:
        class Broken:
            @hookimpl
            def transform(self, text: str) -> str:
                raise error

        gateway = make_gateway({"smsgw.plugins": "htpasswd allow broken"}, broken=Broken)
        assert "secret" not in json.dumps(send(gateway, status=status))

    @pytest.mark.shared
    def test_v1_is_not_touched(self, gateway: Gateway) -> None:
        for path in ("/api/v1.0/sms/sent/m1", "/api/v20", "/api/v2x/messages"):
            reply = gateway.get(path, status=404)
            assert (reply.content_type, reply.json) == ("application/json", {"error": "Not found"})


class TestSend:
    def test_one_text_to_many(self, gateway: Gateway) -> None:
        reply = send(gateway, to=["+79680000000", "8(968)", "911", "12"], reference="order-17")
        assert [message.keys() for message in reply["messages"]] == [
            {"id", "to", "status", "parts", "alphabet", "text", "reference", "url"}
        ] * 3
        first, _, last = reply["messages"]
        assert first == {
            "id": first["id"],
            "to": "+79680000000",
            "status": "queued",
            "parts": 1,
            "alphabet": "GSM",
            "text": "Hi, Jack!",
            "reference": "order-17",
            "url": f"{MESSAGES}/{first['id']}",
        }
        assert last["to"] == "911"
        assert reply["rejected"] == [
            {"pointer": "#/to/3", "to": "12", "code": "invalid_number", "detail": reply["rejected"][0]["detail"]}
        ]
        assert gateway.files()[first["id"]] == (
            b"To: 79680000000\nX-Reference: order-17\nFrom: lvv\nAlphabet: UTF-8\n\nHi, Jack!"
        )
        assert gateway.files().keys() == {message["id"] for message in reply["messages"]}
        assert first["id"].startswith("smsgw.http.")

    def test_a_different_text_to_each(self, gateway: Gateway) -> None:
        texts = {"+79680000000": "Hi, Jack!", "+79160000000": "Привет", "911": "Hi, Jack!"}
        body = {"messages": [{"to": to, "text": text, "reference": to} for to, text in texts.items()], "flash": True}
        reply = send(gateway, body)
        assert reply["rejected"] == []
        assert {message["to"]: message["text"] for message in reply["messages"]} == texts
        assert [message["alphabet"] for message in reply["messages"]] == ["GSM", "UCS2", "GSM"]
        assert [message["reference"] for message in reply["messages"]] == list(texts)
        stored = {message.headers["X-Reference"]: message for message in gateway.messages()}
        assert {to: message.text for to, message in stored.items()} == texts
        assert {message.headers["Flash"] for message in stored.values()} == {"yes"}

    def test_a_reference_for_those_that_have_none(self, gateway: Gateway) -> None:
        body = {"messages": [{"to": "911", "text": "a"}, {"to": "911", "text": "a", "reference": "own"}]}
        reply = send(gateway, body | {"reference": "all"})
        assert [message["reference"] for message in reply["messages"]] == ["all", "own"]

    def test_options(self, gateway: Gateway) -> None:
        send(gateway, queue="GSM1", flash=True, priority="high", validity_minutes=60, report=True)
        send(gateway, flash=False, priority="normal", report=False)
        contents = sorted(gateway.files().values(), key=len)
        assert contents == [
            b"To: 79680000000\nFrom: lvv\nAlphabet: UTF-8\nReport: no\n\nHi, Jack!",
            b"To: 79680000000\nFrom: lvv\nAlphabet: UTF-8\nQueue: GSM1\nFlash: yes\nPriority: HIGH\n"
            b"Validity: 60 min\nReport: yes\n\nHi, Jack!",
        ]

    def test_the_most_parts_that_may_be(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway({"smsgw.max_parts": "2"})
        drafts = [{"to": "911", "text": "a" * length} for length in (306, 307)]
        reply = send(gateway, {"messages": drafts})
        assert [message["parts"] for message in reply["messages"]] == [2]
        assert [(why["pointer"], why["code"]) for why in reply["rejected"]] == [("#/messages/1/text", "too_many_parts")]

    def test_a_queue_that_was_asked_for_comes_before_the_default(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway({"smsgw.default_queue": "GSM1"})
        send(gateway, queue="GSM2")
        send(gateway)
        assert sorted(message.headers["Queue"] for message in gateway.messages()) == ["GSM1", "GSM2"]

    def test_duplicates(self, gateway: Gateway) -> None:
        reply = send(gateway, to=["+7 (968) 000-00-00", "79680000000", "0079680000000"])
        assert [message["to"] for message in reply["messages"]] == ["+79680000000"]
        assert [(why["pointer"], why["code"]) for why in reply["rejected"]] == [
            ("#/to/1", "duplicate"),
            ("#/to/2", "duplicate"),
        ]
        drafts = [("a", "1"), ("b", "1"), ("a", "2"), ("a", "1")]
        body = {"messages": [{"to": "911", "text": text, "reference": reference} for text, reference in drafts]}
        reply = send(gateway, body)
        assert len(reply["messages"]) == 3
        assert [(why["pointer"], why["code"]) for why in reply["rejected"]] == [("#/messages/3", "duplicate")]

    def test_codes_of_numbers_and_texts(self, make_gateway: MakeGateway) -> None:
        class Fussy:
            texts: ClassVar[list[str]] = []

            @hookimpl
            def transform(self, text: str) -> str:
                self.texts.append(text)
                if text == "bad":
                    raise TextRefused("is bad")
                return text.replace("empty", "")

        plugins = {"smsgw.plugins": "htpasswd allow whitelist fussy", "smsgw.whitelist.numbers": "lvv: 7* 911"}
        gateway = make_gateway(plugins, fussy=Fussy)
        drafts = [("911", "a"), ("912", "b"), ("x", "c"), ("911", "bad"), ("911", "empty"), ("7968000000", "a")]
        drafts += [("911", "x" * 2000), ("7968000001", "bad")]
        reply = send(gateway, {"messages": [{"to": to, "text": text} for to, text in drafts]})
        assert [message["to"] for message in reply["messages"]] == ["911", "+7968000000"]
        assert [(why["pointer"], why["code"]) for why in reply["rejected"]] == [
            ("#/messages/1/to", "forbidden"),
            ("#/messages/2/to", "invalid_number"),
            ("#/messages/3/text", "text_refused"),
            ("#/messages/4/text", "text_refused"),
            ("#/messages/6/text", "too_many_parts"),
            ("#/messages/7/text", "text_refused"),
        ]
        assert [why["to"] for why in reply["rejected"]] == ["912", "x", "911", "911", "911", "7968000001"]
        assert sorted(Fussy.texts) == sorted(["a", "bad", "empty", "x" * 2000])
        assert pointers(send(gateway, to=["911", "7968000000"], text="bad", status=422)) == ["#/text"]

    def test_nobody_is_accepted(self, make_gateway: MakeGateway) -> None:
        rules = {"smsgw.plugins": "htpasswd allow whitelist", "smsgw.whitelist.numbers": "lvv: 7968*"}
        gateway = make_gateway(rules)
        assert pointers(send(gateway, to=["12", "x"], status=422)) == ["#/to/0", "#/to/1"]
        found = send(gateway, to=["12", "+79160000000"], status=403)
        assert pointers(found) == ["#/to/0", "#/to/1"]
        assert found["type"].endswith("#forbidden")
        assert pointers(send(gateway, {"messages": [{"to": "x", "text": "a"}]}, status=422)) == ["#/messages/0/to"]
        assert gateway.files() == {}

    @pytest.mark.shared
    @pytest.mark.parametrize(
        ("fields", "at_fault"),
        [
            ({"to": None}, ["#/to"]),
            ({"to": "911"}, ["#/to"]),
            ({"to": []}, ["#/to"]),
            ({"to": ["911", 911, None]}, ["#/to/1", "#/to/2"]),
            ({"text": ""}, ["#/text"]),
            ({"text": 5}, ["#/text"]),
            ({"text": "\ud800"}, ["#/text"]),
            ({"mobiles": ["911"]}, ["#/mobiles"]),
            ({"a/b~c": 1}, ["#/a~1b~0c"]),
            ({"x" * 1000: 1}, ["#"]),
            ({"queue": ""}, ["#/queue"]),
            ({"queue": None}, ["#/queue"]),
            ({"queue": "a\nInclude: /etc/passwd"}, ["#/queue"]),
            ({"flash": 1}, ["#/flash"]),
            ({"flash": "true"}, ["#/flash"]),
            ({"priority": "low"}, ["#/priority"]),
            ({"priority": True}, ["#/priority"]),
            ({"validity_minutes": "5"}, ["#/validity_minutes"]),
            ({"validity_minutes": True}, ["#/validity_minutes"]),
            ({"validity_minutes": 1.0}, ["#/validity_minutes"]),
            ({"validity_minutes": 0}, ["#/validity_minutes"]),
            ({"validity_minutes": 10**9}, ["#/validity_minutes"]),
            ({"validity": 5}, ["#/validity"]),
            ({"report": "yes"}, ["#/report"]),
            ({"reference": ""}, ["#/reference"]),
            ({"reference": 17}, ["#/reference"]),
            ({"reference": " a"}, ["#/reference"]),
            ({"reference": "a\nInclude: /etc/passwd"}, ["#/reference"]),
            ({"reference": "a\x85b"}, ["#/reference"]),
            ({"reference": "a\tb"}, ["#/reference"]),
            ({"reference": "a\0b"}, ["#/reference"]),
            ({"reference": "a\x1b[2Jb"}, ["#/reference"]),
            ({"reference": "a\x7fb"}, ["#/reference"]),
            ({"reference": "\udc80"}, ["#/reference"]),
            ({"reference": "é" * 50}, ["#/reference"]),
            ({"send_at": "tomorrow"}, ["#/send_at"]),
            ({"send_at": 1795418015}, ["#/send_at"]),
            ({"send_at": "2026-12-01"}, ["#/send_at"]),
            ({"send_at": "2026-12-01T08:00:00"}, ["#/send_at"]),
            ({"send_at": "2026-13-01T08:00:00Z"}, ["#/send_at"]),
            ({"send_at": "٢٠٢٦-12-01T08:00:00Z"}, ["#/send_at"]),
            ({"messages": [{"to": "911", "text": "a"}]}, ["#/to", "#/text"]),
            ({"flash": 1, "report": 1, "colour": 1}, ["#/colour", "#/flash", "#/report"]),
        ],
    )
    def test_bad_fields(self, gateway: Gateway, fields: dict[str, Any], at_fault: list[str]) -> None:
        found = send(gateway, status=400, **fields)
        assert pointers(found) == at_fault
        assert found["type"].endswith("#malformed")
        assert gateway.files() == {}

    @pytest.mark.shared
    @pytest.mark.parametrize(
        ("item", "at_fault"),
        [
            ("911", ""),
            (None, ""),
            ({}, "/to /text"),
            ({"to": 911, "text": "a"}, "/to"),
            ({"to": ["911"], "text": "a"}, "/to"),
            ({"to": "911", "text": ""}, "/text"),
            ({"to": "911", "text": "\ud800"}, "/text"),
            ({"to": "911", "text": "a", "reference": "a\n"}, "/reference"),
            ({"to": "911", "text": "a", "reference": None}, "/reference"),
            ({"to": "911", "text": "a", "queue": "GSM1"}, "/queue"),
            ({"to": "911", "text": "a", "x" * 100: 1}, ""),
            ({"to": 1, "text": 1, "reference": 1}, "/to /text /reference"),
        ],
    )
    def test_bad_messages(self, gateway: Gateway, item: Any, at_fault: str) -> None:
        found = send(gateway, {"messages": [{"to": "911", "text": "a"}, item]}, status=400)
        assert pointers(found) == [f"#/messages/1{pointer}" for pointer in at_fault.split(" ")]
        assert gateway.files() == {}

    @pytest.mark.shared
    @pytest.mark.parametrize(
        ("body", "at_fault"),
        [
            ({}, ["#/to", "#/text"]),
            ({"to": ["911"]}, ["#/text"]),
            ({"text": "a"}, ["#/to"]),
            ({"messages": []}, ["#/messages"]),
            ({"messages": {}}, ["#/messages"]),
            ({"messages": [1] * 100}, [f"#/messages/{place}" for place in range(20)]),
        ],
    )
    def test_bad_bodies(self, gateway: Gateway, body: Any, at_fault: list[str]) -> None:
        assert pointers(send(gateway, body, status=400)) == at_fault

    @pytest.mark.shared
    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'"a"', b"\xff", b"[" * 1500, b"1" * 5000])
    def test_no_object(self, gateway: Gateway, body: bytes) -> None:
        for path in (MESSAGES, f"{V2}/preview"):
            check_problem(gateway.call("POST", path, body, content_type="application/json", status=400))

    def test_too_many_recipients(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway({"smsgw.max_recipients": "1"})
        assert pointers(send(gateway, to=["911", "912"], status=400)) == ["#/to"]
        each = [{"to": "911", "text": "a"}, {"to": "911", "text": "b"}]
        assert pointers(send(gateway, {"messages": each}, status=400)) == ["#/messages"]

    @pytest.mark.parametrize(
        "at", ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00.123+03:00", "0001-01-01T00:00:00+23:59"]
    )
    def test_a_past_time(self, gateway: Gateway, at: str) -> None:
        send(gateway, send_at=at)
        assert len(gateway.files()) == 1

    def test_all_or_none(self, gateway: Gateway) -> None:
        outgoing = gateway.spool / "outgoing"
        outgoing.rename(gateway.spool / "away")
        body = {"messages": [{"to": "911", "text": text} for text in "abc"]}
        reply = send(gateway, body, status=503)
        assert reply["type"].endswith("#unavailable")
        (gateway.spool / "away").rename(outgoing)
        assert gateway.files() == {}

    def test_policies_and_wrappers_see_the_whole_request_once(self, make_gateway: MakeGateway) -> None:
        class Watch:
            asked: ClassVar[list[Message]] = []
            submissions: ClassVar[list[Submission]] = []

            @hookimpl
            def permits(self, permission: str, context: object) -> None:
                if permission == "send":
                    assert isinstance(context, Message)
                    self.asked.append(context)

            @hookimpl
            def transform(self, text: str) -> str:
                return text.upper()

            @hookimpl(wrapper=True)
            def deliver(self, submission: Submission) -> Iterator[None]:
                self.submissions.append(submission)
                return (yield)

        gateway = make_gateway({"smsgw.plugins": "htpasswd allow watch"}, watch=Watch)
        body = {"messages": [{"to": "911", "text": "a"}, {"to": "912", "text": "b", "reference": "r"}]}
        reply = send(gateway, body)
        assert [message["text"] for message in reply["messages"]] == ["A", "B"]
        (submission,) = Watch.submissions
        assert [message.id for message in submission.messages] == [message["id"] for message in reply["messages"]]
        assert [(asked.to, asked.content.text, asked.reference) for asked in Watch.asked] == [
            ("911", "a", None),
            ("912", "b", "r"),
        ]


class TestOnce:
    KEY: ClassVar = {"Idempotency-Key": "order-17-paid"}

    def test_the_same_reply(self, gateway: Gateway) -> None:
        body = {"messages": [{"to": "911", "text": "a"}, {"to": "912", "text": "b"}, {"to": "x", "text": "c"}]}
        replies = [send(gateway, body, headers=self.KEY) for _ in range(3)]
        assert replies[0] == replies[1] == replies[2]
        assert len(gateway.files()) == 2
        assert send(gateway, headers=self.KEY, status=422)["type"].endswith("#key-reused")
        send(gateway, headers=self.KEY, user="ops")
        assert len(gateway.files()) == 3

    def test_whatever_policies_say_by_then(self, make_gateway: MakeGateway) -> None:
        rules = {"smsgw.plugins": "htpasswd allow whitelist", "smsgw.whitelist.numbers": "lvv: 7968*"}
        first = send(make_gateway(rules), headers=self.KEY)
        gateway = make_gateway(rules | {"smsgw.whitelist.numbers": "lvv: 7916*"})
        assert send(gateway, headers=self.KEY) == first
        other = {"Idempotency-Key": "another-key"}
        refused = send(gateway, headers=other, status=403)
        assert send(make_gateway(rules), headers=other, status=403) == refused
        assert len(gateway.files()) == 1

    def test_v1_and_v2_have_keys_in_common(self, gateway: Gateway) -> None:
        """A key is a user's: under one of them two requests cannot be sent."""
        send(gateway, headers=self.KEY)
        body = {"mobiles": ["79680000000"], "text": "Hi, Jack!"}
        gateway.call("POST_JSON", "/api/v1.0/sms/outgoing", body, headers=self.KEY, status=422)

    @pytest.mark.shared
    @pytest.mark.parametrize("key", ["short", "x" * 129, "white space", "é" * 10])
    def test_no_key(self, gateway: Gateway, key: str) -> None:
        assert "Idempotency-Key" in send(gateway, headers={"Idempotency-Key": key}, status=400)["detail"]

    def test_under_way(self, gateway: Gateway) -> None:
        with gateway.application.receipts.hold(digest("lvv", self.KEY["Idempotency-Key"])):
            assert send(gateway, headers=self.KEY, status=409)["type"].endswith("#key-in-use")
        send(gateway, headers=self.KEY)


class TestRead:
    def test_what_was_sent(self, gateway: Gateway) -> None:
        before = datetime.now(UTC) - timedelta(milliseconds=1)
        reply = send(gateway, reference="Ж😀 é", flash=True, priority="high", queue="GSM1")
        (sent,) = reply["messages"]
        found = gateway.get(sent["url"]).json
        assert list(found) == FIELDS
        assert found == dict.fromkeys(FIELDS) | {
            "id": sent["id"],
            "status": "queued",
            "from": "lvv",
            "to": "+79680000000",
            "text": "Hi, Jack!",
            "parts": 1,
            "alphabet": "GSM",
            "queue": "GSM1",
            "priority": "high",
            "flash": True,
            "reference": "Ж😀 é",
            "accepted_at": found["accepted_at"],
        }
        assert found["accepted_at"].endswith("Z")
        assert before <= datetime.fromisoformat(found["accepted_at"]) <= datetime.now(UTC)

    def test_where_it_stands(self, gateway: Gateway) -> None:
        (sent,) = send(gateway)["messages"]
        path = gateway.spool / "outgoing" / sent["id"]
        for kind, status in (("checked", "sending"), ("sent", "sent"), ("failed", "failed")):
            path = path.rename(gateway.spool / kind / sent["id"])
            assert gateway.get(sent["url"]).json["status"] == status

    def test_times_are_local_to_smsd(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        try:
            gateway.put("sent", "m1", SENT)
            gateway.put("sent", "m2", SENT.replace("26-11-22 09:16:03", "26-07-01 09:16:03"))
            gateway.put("sent", "m3", SENT.replace("26-11-22 09:16:03", "yesterday"))
            found = [gateway.get(f"{MESSAGES}/m{number}").json["sent_at"] for number in (1, 2, 3)]
            assert found == ["2026-11-22T08:16:03Z", "2026-07-01T07:16:03Z", None]
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_the_format_is_that_of_smsd_conf(self, make_gateway: MakeGateway, tmp_path: Path) -> None:
        spool = tmp_path / "spool"
        folders = "\n".join(
            f"{kind} = {spool / kind}" for kind in ("outgoing", "checked", "sent", "failed", "incoming")
        )
        (tmp_path / "smsd.conf").write_text(f"devices = GSM1\n{folders}\ndatetime_format = %d.%m.%Y %T\n")
        gateway = make_gateway({"smsgw.spool": None, "smsgw.smsd_conf": str(tmp_path / "smsd.conf")})
        gateway.put("sent", "m1", SENT.replace("26-11-22 09:16:03", "22.11.2026 09:16:03"))
        local = datetime(2026, 11, 22, 9, 16, 3).astimezone(UTC)
        assert gateway.get(f"{MESSAGES}/m1").json["sent_at"] == f"{local:%Y-%m-%dT%H:%M:%SZ}"

    def test_of_other_programs(self, gateway: Gateway) -> None:
        gateway.put("sent", "cron.1", SENT.replace("79160000000", "s911") + " again")
        found = gateway.get(f"{MESSAGES}/cron.1").json
        assert (found["to"], found["accepted_at"], found["modem"]) == ("911", None, "GSM1")
        gateway.put("sent", "cron.2", b"To: 7916\nFrom: lvv\nAlphabet: binary\n\n\x00\xff")
        found = gateway.get(f"{MESSAGES}/cron.2").json
        assert (found["text"], found["alphabet"], found["parts"]) == ("00ff", "binary", None)
        gateway.put("sent", "cron.3", "To: nobody\nFrom: lvv\n\n")
        assert gateway.get(f"{MESSAGES}/cron.3").json["to"] == "nobody"
        gateway.put("sent", "smsgw.http.7ZZZZZZZZZZZZZZZZZZZZZZZZZ", SENT)
        assert gateway.get(f"{MESSAGES}/smsgw.http.7ZZZZZZZZZZZZZZZZZZZZZZZZZ").json["accepted_at"] is None

    def test_why_it_failed(self, gateway: Gateway) -> None:
        head = "To: 7999\nFrom: lvv\nFail_reason: +CMS ERROR: 38\nFailed: 26-11-22 09:16:03\n"
        gateway.put("failed", "m1", f"{head}\nHi")
        found = gateway.get(f"{MESSAGES}/m1").json
        local = datetime(2026, 11, 22, 9, 16, 3).astimezone(UTC)
        assert found["error"] == {"detail": "+CMS ERROR: 38"}
        assert found["failed_at"] == f"{local:%Y-%m-%dT%H:%M:%SZ}"
        assert found["sent_at"] is None

    def test_status_reports(self, gateway: Gateway) -> None:
        head = "From: lvv\nAlphabet: UTF-8\nModem: GSM1\nSent: 26-11-22 09:16:03\n"
        said = {"m1": "0,Ok,received", "m2": "70,Error,validity period expired", "m3": "32,Still trying", "m4": None}
        for place, (id, status) in enumerate(said.items(), 1):
            gateway.put("sent", id, f"To: 7916000000{place}\n{head}Message_id: {place}\n\nHi")
            if status:
                report = f"From: 7916000000{place}\nModem: GSM1\n\nSMS STATUS REPORT\nMessage_id: {place}\n"
                gateway.put(
                    "report", f"GSM1.{id}", f"{report}Discharge_timestamp: 26-11-22 09:16:35\nStatus: {status}\n"
                )
        found = {id: gateway.get(f"{MESSAGES}/{id}").json for id in said}
        assert [each["status"] for each in found.values()] == ["delivered", "undelivered", "sent", "sent"]
        assert found["m1"]["report"] == {"status": "delivered", "code": 0, "detail": "Ok,received"}
        assert found["m2"]["report"]["code"] == 70
        assert found["m3"]["report"] is None
        at = (gateway.spool / "report" / "GSM1.m1").stat().st_mtime
        assert datetime.fromisoformat(found["m1"]["delivered_at"]).timestamp() == int(at)
        assert found["m2"]["delivered_at"] is None
        for status in ("sent", "delivered", "undelivered"):
            listed = gateway.get(f"{MESSAGES}?status={status}").json["messages"]
            wanted = [each for each in found.values() if each["status"] == status]
            assert sorted(listed, key=lambda each: each["id"]) == wanted
        check_problem(gateway.delete(f"{MESSAGES}/m1", status=409))

    @pytest.mark.parametrize("kind", ["outgoing", "checked", "sent", "failed"])
    def test_only_ones_own(self, gateway: Gateway, kind: str) -> None:
        gateway.put(kind, "m1", SENT)
        assert gateway.get(f"{MESSAGES}/m1").json["text"] == "Hi, Jack!"
        assert gateway.get(f"{MESSAGES}/m1", user="root").json["from"] == "lvv"
        others, none = (check_problem(gateway.get(f"{MESSAGES}/{id}", user="ops", status=404)) for id in ("m1", "m2"))
        assert others | {"request_id": none["request_id"]} == none
        check_problem(gateway.delete(f"{MESSAGES}/m1", user="ops", status=404))
        assert gateway.files(kind)

    def test_received_ones_are_elsewhere(self, gateway: Gateway) -> None:
        gateway.put("incoming", "m1", RECEIVED)
        gateway.put("report", "m2", RECEIVED)
        for id in ("m1", "m2"):
            gateway.get(f"{MESSAGES}/{id}", user="root", status=404)

    @pytest.mark.parametrize("id", BAD_IDS)
    def test_no_such_message(self, gateway: Gateway, id: str) -> None:
        gateway.put("outgoing", "x", SENT)
        gateway.put("outgoing", "x.LOCK", SENT)
        before = snapshot(gateway)
        for path in (f"{MESSAGES}/{id}", f"{V2}/inbox/{id}"):
            for user in ("lvv", "root"):
                check_problem(gateway.get(path, user=user, status=404))
                check_problem(gateway.delete(path, user=user, status=404))
        assert snapshot(gateway) == before

    @pytest.mark.parametrize("name", ["a b", "ü", "a%b", "a?b", "a#b", "a\nb", "a\\b", "x" * 250, "-rf"])
    def test_names_of_other_programs(self, gateway: Gateway, name: str) -> None:
        gateway.put("sent", name, SENT)
        assert gateway.get(f"{MESSAGES}/{quote(name, safe='')}").json["id"] == name
        assert [message["id"] for message in gateway.get(MESSAGES).json["messages"]] == [name]


class TestCancel:
    def test_cancel(self, gateway: Gateway) -> None:
        (sent,) = send(gateway, reference="r")["messages"]
        gateway.delete(sent["url"], user="ops", status=404)
        found = gateway.delete(sent["url"]).json
        assert (found["status"], found["text"], found["reference"]) == ("cancelled", "Hi, Jack!", "r")
        assert gateway.files() == {}
        assert gateway.get(sent["url"]).json == found == gateway.delete(sent["url"]).json
        gateway.get(sent["url"], user="ops", status=404)
        assert gateway.get(sent["url"], user="root").json == found
        gateway.get(f"/api/v1.0/sms/outgoing/{sent['id']}", status=404)
        gateway.get(f"/api/v1.0/sms/cancelled/{sent['id']}", status=404)

    @pytest.mark.parametrize("kind", ["checked", "sent", "failed"])
    def test_too_late(self, gateway: Gateway, kind: str) -> None:
        gateway.put(kind, "m1", SENT)
        for user in ("lvv", "root"):
            assert check_problem(gateway.delete(f"{MESSAGES}/m1", user=user, status=409))["type"].endswith("#too-late")
        assert gateway.files(kind)

    def test_one_that_may_be_read_alone(self, make_gateway: MakeGateway) -> None:
        class Readers:
            @hookimpl
            def permits(self, permission: str) -> Allowed | Denied:
                return Denied("no") if permission == "cancel" else Allowed("yes")

        gateway = make_gateway({"smsgw.plugins": "htpasswd readers", "smsgw.allow.admins": None}, readers=Readers)
        (sent,) = send(gateway)["messages"]
        check_problem(gateway.delete(sent["url"], status=403))
        assert len(gateway.files()) == 1

    def test_by_several_at_once(self, gateway: Gateway) -> None:
        """Whoever asks is told the same, and not that smsd has it."""
        (sent,) = send(gateway)["messages"]

        def cancel(user: str) -> int:
            request = Request.blank(sent["url"], method="DELETE")
            request.headers["Authorization"] = basic(user, USERS[user])
            return int(request.get_response(gateway.app.app).status_int)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(cancel, ["lvv", "root", "lvv", "root"])) == [200] * 4
        assert gateway.files() == {}

    def test_while_it_is_taken_back(self, gateway: Gateway) -> None:
        """It is neither in ``outgoing`` nor known to be cancelled for a second."""
        gateway.get(MESSAGES)
        gateway.send()
        gateway.spool.joinpath("outgoing", ".smsgw", "cancelling", "m1").write_text(SENT)
        assert gateway.get(f"{MESSAGES}/m1").json["status"] == "queued"
        assert "m1" in [message["id"] for message in gateway.get(f"{MESSAGES}?status=queued").json["messages"]]
        os.unlink(gateway.state / "cancelling" / "m1")


class TestSearch:
    def ids(self, gateway: Gateway, query: str = "", **kw: Any) -> list[str]:
        found = gateway.get(f"{MESSAGES}{query}", **kw).json
        assert found.keys() == {"messages", "next"}
        return [message["id"] for message in found["messages"]]

    def test_newest_first(self, gateway: Gateway) -> None:
        ids = [send(gateway)["messages"][0]["id"] for _ in range(5)]
        other = send(gateway, user="ops")["messages"][0]["id"]
        assert self.ids(gateway) == ids[::-1]
        assert self.ids(gateway, user="ops") == [other]
        assert self.ids(gateway, user="root") == [other, *ids[::-1]]
        assert self.ids(gateway, "?from=ops", user="root") == [other]
        assert self.ids(gateway, "?from=ops") == []
        assert self.ids(gateway, "?from=lvv") == ids[::-1]
        found = gateway.get(MESSAGES).json["messages"][0]
        assert found == gateway.get(f"{MESSAGES}/{ids[-1]}").json

    def test_every_filter(self, gateway: Gateway) -> None:
        (first,) = send(gateway, to=["+79680000001"], reference="a b+c")["messages"]
        (second,) = send(gateway, to=["911"])["messages"]
        at = gateway.get(second["url"]).json["accepted_at"]
        (gateway.spool / "outgoing" / first["id"]).rename(gateway.spool / "sent" / first["id"])
        one, two = [first["id"]], [second["id"]]
        assert self.ids(gateway, "?status=sent") == one
        assert self.ids(gateway, "?status=queued") == two
        assert self.ids(gateway, "?status=sent,queued") == two + one
        assert self.ids(gateway, "?status=scheduled") == self.ids(gateway, "?status=failed,cancelled,sending") == []
        assert self.ids(gateway, "?to=%2B79680000001") == self.ids(gateway, "?to=+7 968 000-00-01") == one
        assert self.ids(gateway, "?to=911") == self.ids(gateway, "?to=s911") == two
        assert self.ids(gateway, "?reference=a+b%2Bc") == one
        assert self.ids(gateway, "?reference=a") == []
        assert self.ids(gateway, f"?since={at}")[:1] == two
        assert self.ids(gateway, f"?until={at}&since=2020-01-01T00:00:00%2B03:00") in (one, [])
        assert self.ids(gateway, "?since=2999-01-01T00:00:00+00:00") == []
        assert self.ids(gateway, "?until=2020-01-01T00:00:00Z") == []
        assert self.ids(gateway, "?status=&to=&from=&reference=&since=&until=&limit=&cursor=") == two + one
        assert self.ids(gateway, "?status=sent&reference=a+b%2Bc&to=79680000001&from=lvv") == one

    def test_cancelled_ones(self, gateway: Gateway) -> None:
        kept, gone = (send(gateway)["messages"][0] for _ in range(2))
        gateway.delete(gone["url"])
        assert self.ids(gateway, "?status=cancelled") == [gone["id"]]
        assert self.ids(gateway) == [gone["id"], kept["id"]]
        assert self.ids(gateway, "?status=cancelled", user="ops") == []

    def test_pages(self, gateway: Gateway) -> None:
        """Messages come, move on and go between two pages; those that stay are each shown once."""
        ids = [send(gateway, reference="x")["messages"][0]["id"] for _ in range(10)]
        page = gateway.get(f"{MESSAGES}?limit=3&reference=x").json
        seen = [message["id"] for message in page["messages"]]
        assert seen == ids[:-4:-1]
        outgoing = gateway.spool / "outgoing"
        send(gateway, reference="x")
        (outgoing / ids[-3]).unlink()  # the very one that the cursor names
        (outgoing / ids[5]).unlink()
        (outgoing / ids[4]).rename(gateway.spool / "sent" / ids[4])
        while page["next"]:
            assert re.fullmatch(rf"{MESSAGES}\?cursor=[A-Za-z0-9_-]+", page["next"])
            page = gateway.get(page["next"]).json
            assert len(page["messages"]) <= 3
            seen += [message["id"] for message in page["messages"]]
        assert seen == [id for id in ids[::-1] if id != ids[5]]

    def test_limit_beside_a_cursor(self, gateway: Gateway) -> None:
        ids = [send(gateway)["messages"][0]["id"] for _ in range(4)]
        following = gateway.get(f"{MESSAGES}?limit=1").json["next"]
        assert self.ids(gateway, f"{following.removeprefix(MESSAGES)}&limit=9") == ids[2::-1]

    def test_a_cursor_is_of_its_user_s_own(self, gateway: Gateway) -> None:
        for _ in range(3):
            send(gateway)
        following = gateway.get(f"{MESSAGES}?limit=1", user="root").json["next"]
        assert gateway.get(following, user="ops").json == {"messages": [], "next": None}

    def test_only_so_many_are_looked_at(self, gateway: Gateway) -> None:
        for number in range(1001):
            gateway.put("outgoing", f"m{number}", SENT)
        page = gateway.get(f"{MESSAGES}?to=911").json
        assert page["messages"] == []
        assert gateway.get(page["next"]).json == {"messages": [], "next": None}

    def test_what_may_not_be_read_does_not_show(self, make_gateway: MakeGateway) -> None:
        class Secrets:
            @hookimpl
            def permits(self, permission: str, context: object) -> Denied | None:
                secret = isinstance(context, StoredMessage) and "secret" in context.text
                return Denied("secret") if permission == "read" and secret else None

            @hookimpl
            def transform(self, text: str, identity: Identity) -> str:
                return text

        gateway = make_gateway({"smsgw.plugins": "htpasswd allow secrets"}, secrets=Secrets)
        send(gateway, text="a secret")
        (shown,) = send(gateway)["messages"]
        assert self.ids(gateway) == [shown["id"]]

    def test_who_may_not_list(self, make_gateway: MakeGateway) -> None:
        class Closed:
            @hookimpl
            def permits(self, permission: str) -> Denied | None:
                return Denied("no") if permission == "list" else None

        gateway = make_gateway({"smsgw.plugins": "htpasswd allow closed"}, closed=Closed)
        for path in (MESSAGES, f"{V2}/inbox"):
            check_problem(gateway.get(path, status=403))

    @pytest.mark.parametrize(
        "query",
        [
            *("limit=0", "limit=101", "limit=x", "limit=-1", "limit=1.0", "limit=٣", "limit=" + "9" * 30, "limit=%ff"),
            *("status=bogus", "status=sent,", "status=sent,sent", "to=x", "to=12", "offset=1", "a=1", "%ff=1", "%00=1"),
            *("since=yesterday", "until=2026-12-01", "since=9999-12-31T23:59:59-23:59&until=x"),
            *("to=911&to=912", "limit=1&limit=1", "reference=" + "x" * 100),
            *("cursor=x", "cursor=" + "A" * 100, "cursor=é", "cursor=%ff"),
        ],
    )
    def test_bad_query(self, gateway: Gateway, query: str) -> None:
        gateway.put("sent", "m1", SENT)
        check_problem(gateway.get(f"{MESSAGES}?{query}", status=400))

    def test_hostile_cursors(self, gateway: Gateway) -> None:
        for _ in range(2):
            send(gateway)
        following = gateway.get(f"{MESSAGES}?limit=1&status=queued").json["next"]
        gateway.get(following)
        for place in range(len(f"{MESSAGES}?cursor="), len(following)):
            other = "A" if following[place] != "A" else "B"
            changed = following[:place] + other + following[place + 1 :]
            check_problem(gateway.get(changed, status=400))
        check_problem(gateway.get(f"{following}&status=sent", status=400))
        check_problem(gateway.get(following.replace("/messages", "/inbox"), status=400))

    @pytest.mark.shared
    @given(
        st.tuples(
            st.dictionaries(st.sampled_from(["status", "to", "since", "bogus"]), st.text() | JSON) | JSON,
            st.integers() | JSON,
            st.text() | JSON,
            st.integers() | JSON,
        )
        | JSON
    )
    def test_cursors_with_the_right_digest(self, gateway: Gateway, content: Any) -> None:
        written = json.dumps(content).encode()
        cursor = urlsafe_b64encode(blake2b(written, digest_size=9).digest() + written).decode().rstrip("=")
        reply = gateway.get(f"{MESSAGES}?cursor={cursor}", status="*")
        assert reply.status_int in (200, 400)

    @pytest.mark.shared
    @pytest.mark.parametrize(
        "content",
        [
            *([{}, began, "m1", 1] for began in (2**62, -(2**62), 2**70)),
            *([{}, 1, name, 1] for name in ("\ud800", "\0", "", "a/b", "m1.LOCK")),
            *([{name: "\ud800"}, 1, "m1", 1] for name in ("from", "reference")),
        ],
    )
    def test_cursors_that_no_database_takes(self, gateway: Gateway, content: Any) -> None:
        written = json.dumps(content).encode()
        cursor = urlsafe_b64encode(blake2b(written, digest_size=9).digest() + written).decode().rstrip("=")
        check_problem(gateway.get(f"{MESSAGES}?cursor={cursor}", user="root", status=400))


class TestInbox:
    def test_administrators_read(self, gateway: Gateway) -> None:
        gateway.put("incoming", "GSM1.ZTmYXZ", RECEIVED)
        gateway.put("incoming", "GSM1.name", RECEIVED.replace("79161234567", "MegaFon"))
        os.utime(gateway.spool / "incoming" / "GSM1.ZTmYXZ", (1e9, 1e9))
        local = datetime(2026, 11, 22, 9, 16, 3).astimezone(UTC)
        found = gateway.get(f"{V2}/inbox/GSM1.ZTmYXZ", user="root").json
        assert found == {
            "id": "GSM1.ZTmYXZ",
            "from": "+79161234567",
            "text": "Hello",
            "received_at": f"{local:%Y-%m-%dT%H:%M:%SZ}",
            "modem": "GSM1",
        }
        both = gateway.get(f"{V2}/inbox", user="root").json
        assert [message["from"] for message in both["messages"]] == ["MegaFon", "+79161234567"]
        assert both["next"] is None
        for query in ("from=+79161234567", "from=79161234567", "until=2001-09-10T00:00:00Z"):
            assert gateway.get(f"{V2}/inbox?{query}", user="root").json["messages"] == [found]
        assert len(gateway.get(f"{V2}/inbox?from=MegaFon", user="root").json["messages"]) == 1
        page = gateway.get(f"{V2}/inbox?limit=1", user="root").json
        assert page["next"].startswith(f"{V2}/inbox?cursor=")
        assert gateway.get(page["next"], user="root").json == {"messages": [found], "next": None}
        check_problem(gateway.get(f"{V2}/inbox?to=911", user="root", status=400))

    def test_nobody_else(self, gateway: Gateway) -> None:
        """Whatever a phone, or a user, is called."""
        gateway.put("incoming", "m1", RECEIVED.replace("79161234567", "lvv"))
        assert gateway.get(f"{V2}/inbox").json == {"messages": [], "next": None}
        check_problem(gateway.get(f"{V2}/inbox/m1", status=404))
        check_problem(gateway.delete(f"{V2}/inbox/m1", status=404))
        assert gateway.files("incoming")

    def test_status_reports_are_none(self, gateway: Gateway) -> None:
        """smsd leaves them in ``incoming`` where it has no other folder for them."""
        report = "SMS STATUS REPORT\nMessage_id: 21\nDischarge_timestamp: 26-11-22 09:16:35\nStatus: 0,Ok,received\n"
        gateway.put("incoming", "GSM1.report", f"From: 7916\nModem: GSM1\nUDH: no\n\n{report}")
        gateway.put("incoming", "GSM1.text", RECEIVED)
        assert [each["id"] for each in gateway.get(f"{V2}/inbox", user="root").json["messages"]] == ["GSM1.text"]
        check_problem(gateway.get(f"{V2}/inbox/GSM1.report", user="root", status=404))
        check_problem(gateway.delete(f"{V2}/inbox/GSM1.report", user="root", status=404))
        assert len(gateway.files("incoming")) == 2

    def test_delete(self, gateway: Gateway) -> None:
        gateway.put("incoming", "m1", RECEIVED)
        assert gateway.delete(f"{V2}/inbox/m1", user="root").json["text"] == "Hello"
        assert gateway.files("incoming") == {}
        check_problem(gateway.delete(f"{V2}/inbox/m1", user="root", status=404))

    def test_sent_ones_are_elsewhere(self, gateway: Gateway) -> None:
        gateway.put("sent", "m1", SENT)
        check_problem(gateway.delete(f"{V2}/inbox/m1", user="root", status=404))
        assert gateway.files("sent")


class TestPreview:
    def show(self, gateway: Gateway, text: Any, status: int = 200) -> Any:
        return gateway.call("POST_JSON", f"{V2}/preview", {"text": text}, status=status)

    @pytest.mark.shared
    @pytest.mark.parametrize(
        ("text", "alphabet", "parts", "used", "left", "forcing"),
        [
            ("a", "GSM", 1, 1, 159, []),
            ("€" * 80, "GSM", 1, 160, 0, []),
            ("a" * 161, "GSM", 2, 161, 145, []),
            ("aЖ’Ж😀", "UCS2", 1, 6, 64, ["Ж", "’", "😀"]),
            ("a" * 152 + "€" + "a" * 9, "UCS2", 3, 162, 39, []),
        ],
    )
    def test_measures(
        self, gateway: Gateway, text: str, alphabet: str, parts: int, used: int, left: int, forcing: list[str]
    ) -> None:
        assert self.show(gateway, text).json == {
            "text": text,
            "alphabet": alphabet,
            "parts": parts,
            "units_used": used,
            "units_left": left,
            "forcing_ucs2": forcing,
        }
        assert gateway.files() == {}

    def test_as_the_transforms_make_it(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway(
            {"smsgw.plugins": "htpasswd allow transliterate template signature"}
            | {"smsgw.signature.text": "ACME", "smsgw.template.texts": "x: y"}
        )
        found = self.show(gateway, "It’s").json
        assert (found["text"], found["alphabet"]) == (send(gateway, text="It’s")["messages"][0]["text"], "GSM")
        assert pointers(check_problem(self.show(gateway, "template:nope", status=422))) == ["#/text"]

    @pytest.mark.shared
    @pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": 5}, {"text": "\udfff"}, {"text": "a", "to": ["911"]}])
    def test_bad_bodies(self, gateway: Gateway, body: Any) -> None:
        found = check_problem(gateway.call("POST_JSON", f"{V2}/preview", body, status=400))
        assert pointers(found) == ["#/to" if "to" in body else "#/text"]


class TestMe:
    def test_who_one_is(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway({"smsgw.plugins": "users allow", "smsgw.htpasswd.path": None})
        assert gateway.get(f"{V2}/me", user="ops").json == {
            "userid": "ops",
            "groups": ["alarms"],
            "permissions": {"list": True, "read_all": False},
            "limits": [],
        }
        assert gateway.get(f"{V2}/me", user="root").json["permissions"] == {"list": True, "read_all": True}

    def test_limits_of_every_plugin_in_their_order(self, make_gateway: MakeGateway) -> None:
        class Weekly:
            left = 3

            @hookimpl
            def limits(self, identity: Identity) -> list[Allowance]:
                until = datetime(2026, 11, 30, tzinfo=UTC)
                return [Allowance(f"{identity.userid} a week", "messages", 5, self.left, until)]

        class Silent:
            @hookimpl
            def limits(self) -> list[Allowance]:
                return []

        class Other(Weekly):
            left = 0

        plugins = {"smsgw.plugins": "htpasswd allow weekly silent other"}
        gateway = make_gateway(plugins, weekly=Weekly, silent=Silent, other=Other)
        found = gateway.get(f"{V2}/me").json["limits"]
        limit = {"limit": "lvv a week", "counted": "messages", "most": 5, "until": "2026-11-30T00:00:00Z"}
        assert found == [limit | {"left": 3}, limit | {"left": 0}]

    def test_what_is_left_of_a_quota(self, make_gateway: MakeGateway) -> None:
        limits = "lvv: 10/day 20 parts/month\nops: 1/day\n*: 100/hour"
        gateway = make_gateway({"smsgw.plugins": "htpasswd allow quota", "smsgw.quota.limits": limits})
        before = {limit["limit"]: limit for limit in gateway.get(f"{V2}/me").json["limits"]}
        assert {name: limit["left"] for name, limit in before.items()} == {
            "10 messages/day for lvv": 10,
            "20 parts/month for lvv": 20,
            "100 messages/hour for everybody": 100,
        }
        send(gateway, to=["911", "912"], text="a" * 161)
        after = {limit["limit"]: limit["left"] for limit in gateway.get(f"{V2}/me").json["limits"]}
        assert sorted(after.values()) == [8, 16, 98]
        for limit in before.values():
            assert datetime.fromisoformat(limit["until"]) > datetime.now(UTC)
            assert limit["counted"] in limit["limit"]

    def test_limits_that_nobody_can_tell(self, make_gateway: MakeGateway) -> None:
        class Down:
            @hookimpl
            def limits(self) -> list[Allowance]:
                raise Unavailable("The limits are not known now")

        gateway = make_gateway({"smsgw.plugins": "htpasswd allow down"}, down=Down)
        check_problem(gateway.get(f"{V2}/me", status=503))
        send(gateway)


DRAFTS = st.lists(
    st.fixed_dictionaries(
        {"to": st.sampled_from(["911", "+79680000000", "x"]) | st.text(max_size=20), "text": st.text(max_size=20)},
        optional={"reference": st.text(max_size=20), "flash": JSON},
    )
    | JSON,
    max_size=4,
)
BODY_FIELDS = {
    "to": st.lists(st.sampled_from(["79680000000", "+79680000000", "911", "x"]) | st.text(max_size=20)) | JSON,
    "text": st.text() | JSON,
    "messages": DRAFTS | JSON,
    "queue": st.text() | JSON,
    "flash": st.booleans() | JSON,
    "priority": st.sampled_from(["high", "normal"]) | JSON,
    "validity_minutes": st.integers() | JSON,
    "report": st.booleans() | JSON,
    "send_at": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | JSON,
    "reference": st.text() | JSON,
}
LIKELY = st.fixed_dictionaries(
    {"to": st.lists(st.sampled_from(["79680000000", "911", "x"]), min_size=1), "text": st.text(min_size=1)},
    optional={name: BODY_FIELDS[name] for name in ("reference", "queue", "validity_minutes")},
)
SEVERAL = st.fixed_dictionaries({"messages": DRAFTS}, optional={"reference": st.text(min_size=1, max_size=9)})


class TestHostile:
    @given(st.fixed_dictionaries({}, optional=BODY_FIELDS) | LIKELY | SEVERAL | JSON)
    def test_any_json(self, gateway: Gateway, body: Any) -> None:
        before = snapshot(gateway)
        content = json.dumps(body).encode()
        reply = gateway.call("POST", MESSAGES, content, content_type="application/json", status="*")
        files = {name: content for name, content in snapshot(gateway).items() if name not in before}
        if reply.status_int != 202:
            assert reply.status_int in (400, 422)
            check_problem(reply)
            assert files == {}
            return
        messages = {f"outgoing/{message['id']}": message for message in reply.json["messages"]}
        assert files.keys() == messages.keys()
        for name, written in files.items():
            head, _, text = written.partition(b"\n\n")
            headers = dict(line.split(b": ", 1) for line in head.split(b"\n"))
            assert len(headers) == len(head.split(b"\n"))
            assert headers.keys() <= {b"To", b"X-Reference", b"From", b"Alphabet", b"Queue", b"Flash"} | {
                b"Priority",
                b"Validity",
                b"Report",
            }
            assert headers[b"From"] == b"lvv"
            assert text.decode("utf-16-be" if headers[b"Alphabet"] == b"UCS2" else "utf-8") == messages[name]["text"]
            assert headers.get(b"X-Reference", b"").decode() == (messages[name]["reference"] or "")
            found = gateway.get(messages[name]["url"]).json
            assert {key: found[key] for key in messages[name] if key != "url"} | {"url": messages[name]["url"]} == (
                messages[name]
            )

    @pytest.mark.shared
    @given(st.binary())
    def test_any_body(self, gateway: Gateway, body: bytes) -> None:
        for path in (MESSAGES, f"{V2}/preview"):
            check_problem(gateway.call("POST", path, body, content_type="application/json", status=400))

    @pytest.mark.shared
    @given(
        st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "BOGUS"]),
        st.sampled_from(PATHS),
        st.dictionaries(st.sampled_from(NAMES.split()), HEADERS | st.sampled_from(CONTENT_TYPES)),
        st.binary(),
    )
    def test_any_headers(self, gateway: Gateway, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        request = Request.blank(path, method=method, headers=headers, body=body)
        request.headers["Authorization"] = basic("lvv", USERS["lvv"])
        response = request.get_response(gateway.app.app)
        assert response.status_int < 500
        if response.status_int >= 400 and method != "HEAD":
            check_problem(response)
        assert snapshot(gateway) == {}

    @given(st.text(min_size=1) | st.binary(min_size=1), st.sampled_from(["messages", "inbox"]))
    def test_any_id(self, gateway: Gateway, id: str | bytes, path: str) -> None:
        gateway.put("sent", "m1", SENT.replace("lvv", "ops"))
        escaped = quote(id.encode(errors="surrogatepass") if isinstance(id, str) else id, safe="")
        for method in ("GET", "DELETE"):
            request = Request.blank(f"{V2}/{path}/{escaped}", method=method)
            request.headers["Authorization"] = basic("lvv", USERS["lvv"])
            response = request.get_response(gateway.app.app)
            assert response.status_int == 404
            check_problem(response)

    @pytest.mark.shared
    @given(
        st.text(st.characters(max_codepoint=127, exclude_characters="#\r\n")),
        st.sampled_from([MESSAGES, f"{V2}/inbox"]),
    )
    def test_any_query(self, gateway: Gateway, query: str, path: str) -> None:
        request = Request.blank(path)
        request.query_string = query
        request.headers["Authorization"] = basic("lvv", USERS["lvv"])
        assert request.get_response(gateway.app.app).status_int in (200, 400)

    @given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
    def test_any_file_in_any_folder(self, gateway: Gateway, contents: list[bytes]) -> None:
        for kind in ("outgoing", "checked", "sent", "failed", "incoming"):
            for place, content in enumerate(contents):
                gateway.put(kind, f"junk{place}", content)
        for user in ("lvv", "root"):
            for path in (MESSAGES, f"{V2}/inbox"):
                for message in gateway.get(path, user=user).json["messages"]:
                    assert gateway.get(f"{path}/{message['id']}", user=user).json["id"] == message["id"]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"to": ["911"], "text": "Hi', "Unterminated string starting at line 1, column 25"),
        (b'{"to": ["911"],\n "text" "Hi"}', "Expecting ':' delimiter at line 2, column 9"),
        (b"", "Expecting value at line 1, column 1"),
        (b'{"text": "\xff"}', "UTF-8: byte 11 is 0xff"),
    ],
)
def test_what_is_no_json_says_where(gateway: Gateway, body: bytes, where: str) -> None:
    for path in (MESSAGES, "/api/v1.0/sms/outgoing"):
        assert where in gateway.call("POST", path, body, headers={"Content-Type": "application/json"}, status=400).text


@pytest.mark.shared
def test_a_wrong_charset_is_named(gateway: Gateway) -> None:
    headers = {"Content-Type": "application/json; charset=windows-1251"}
    reply = gateway.call("POST", MESSAGES, b"{}", headers=headers, status=415)
    assert reply.json["detail"] == "The charset of JSON is UTF-8, and Content-Type says 'windows-1251'"


@pytest.mark.shared
def test_a_plugin_that_is_not_enabled_is_named(gateway: Gateway) -> None:
    for path in ("webhooks", "webhooks/wh_1/failures"):
        detail = gateway.get(f"{V2}/{path}", status=404).json["detail"]
        assert detail == "Not found; the plugin 'webhooks' is installed, and not enabled (smsgw.plugins)"
    gateway.get(f"{V2}/webhooks", user=None, status=401)
    for path in (f"{V2}/bogus", f"{V2}/allow", f"{V2}/"):
        assert gateway.get(path, status=404).json["detail"] == "Not found"


def test_too_many_errors_are_told_once(make_gateway: MakeGateway) -> None:
    """A wrapper that refuses is asked once for all of a request."""

    class Shut:
        calls = 0

        @hookimpl(wrapper=True)
        def deliver(self) -> Iterator[None]:
            Shut.calls += 1
            raise TooMany(7, "closed", {"RateLimit": '"x";r=0;t=7'})
            yield

    gateway = make_gateway({"smsgw.plugins": "htpasswd allow shut"}, shut=Shut)
    body = {"messages": [{"to": "911", "text": text} for text in "abc"]}
    reply = gateway.call("POST_JSON", MESSAGES, body, status=429)
    assert check_problem(reply)["detail"] == "closed"
    assert (reply.headers["Retry-After"], reply.headers["RateLimit"]) == ("7", '"x";r=0;t=7')
    assert Shut.calls == 1
    assert gateway.files() == {}


def test_requests_that_are_repeated_through_kills_send_each_message_once(
    tmp_path: Path, base_settings: dict[str, str]
) -> None:
    """Clients repeat each request under its key until they are answered, while ``kill -9`` ends the server again."""
    server, finish, alive = Server(tmp_path, base_settings), threading.Event(), threading.Event()
    replies: dict[str, Any] = {}
    cut_off = []

    def live(client: int) -> None:
        for turn in itertools.count():
            if finish.is_set():
                return
            key = f"client-{client}-turn-{turn}"
            drafts = [{"to": "911", "text": f"{key}-{place}", "reference": key} for place in range(5)]
            while key not in replies:
                assert alive.wait(60)
                try:
                    reply = server.request("POST", MESSAGES, {"messages": drafts}, headers={"Idempotency-Key": key})
                except (OSError, http.client.HTTPException):
                    cut_off.append(key)
                    continue
                assert reply.status == 202, reply.body
                replies[key] = reply.json["messages"]

    with ThreadPoolExecutor(3) as clients:
        try:
            lives = [clients.submit(live, client) for client in range(3)]
            for more in (7, 13, 5, 17, 11)[: at_length(5, 2)]:
                server.start()
                alive.set()
                answered = len(replies) + more
                eventually(lambda answered=answered: len(replies) >= answered, 60)  # type: ignore[misc]
                alive.clear()
                server.kill()
            server.start()
            alive.set()
            finish.set()
            for each in lives:
                each.result(60)
            for key, messages in replies.items():
                found = server.request("GET", f"{MESSAGES}?reference={key}&limit=100").json["messages"]
                assert sorted(message["id"] for message in found) == sorted(message["id"] for message in messages)
        finally:
            finish.set()
            alive.set()
            server.kill()
    assert cut_off
    outgoing = Path(base_settings["smsgw.spool"]) / "outgoing"
    texts = [path.read_text().partition("\n\n")[2] for path in outgoing.glob("smsgw.*")]
    assert sorted(texts) == sorted(message["text"] for messages in replies.values() for message in messages)
