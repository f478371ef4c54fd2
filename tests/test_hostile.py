"""Nothing that a client sends ends in a 5xx, a traceback, or a file that it did not ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webob import Request

from tests.conftest import OUTGOING, USERS, Gateway, basic

KINDS = ["outgoing", "checked", "sent", "failed", "incoming", "report"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
FIELDS = {
    "mobiles": st.lists(st.sampled_from(["79680000000", "+79680000000", "911", "x"]) | st.text(max_size=20)) | JSON,
    "text": st.text() | JSON,
    "queue": st.text() | JSON,
    "flash": st.booleans() | JSON,
    "priority": st.just("high") | JSON,
    "validity": st.integers() | JSON,
    "report": st.booleans() | JSON,
}
BODIES = st.fixed_dictionaries({}, optional=FIELDS) | JSON


def snapshot(gateway: Gateway) -> dict[str, bytes]:
    """Every file of the spool that smsd would look at."""
    return {f"{kind}/{name}": content for kind in KINDS for name, content in gateway.files(kind).items()}


def check_send(gateway: Gateway, before: dict[str, bytes], status: int, reply: dict[str, Any]) -> None:
    """A send left exactly the files that its reply names, each with the headers of a message and no others."""
    files = {name: content for name, content in snapshot(gateway).items() if name not in before}
    if status != 201:
        assert 400 <= status < 500
        assert reply["error"]
        assert files == {}
        return
    assert set(files) == {f"outgoing/{id}" for id in reply["message_id"].values()}
    for content in files.values():
        head, _, body = content.partition(b"\n\n")
        lines = [line.partition(b": ") for line in head.split(b"\n")]
        names = [name for name, colon, _ in lines if colon]
        assert len(names) == len(lines) == len(set(names))
        assert set(names) <= {b"To", b"From", b"Alphabet", b"Queue", b"Flash", b"Priority", b"Validity", b"Report"}
        values = {name: value for name, _, value in lines}
        assert values[b"From"] == b"lvv"
        assert body.decode("utf-16-be" if values[b"Alphabet"] == b"UCS2" else "utf-8") == reply["sent_text"]


@given(BODIES)
def test_any_json(gateway: Gateway, body: Any) -> None:
    before = snapshot(gateway)
    reply = gateway.call("POST", OUTGOING, json.dumps(body).encode(), content_type="application/json", status="*")
    check_send(gateway, before, reply.status_int, reply.json)


@given(st.binary())
def test_any_body(gateway: Gateway, body: bytes) -> None:
    gateway.call("POST", OUTGOING, body, content_type="application/json", status=400)
    assert snapshot(gateway) == {}


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text(gateway: Gateway, text: str) -> None:
    before = snapshot(gateway)
    reply = gateway.send(text=text, status="*")
    check_send(gateway, before, reply.status_int, reply.json)
    if reply.status_int == 201:
        assert reply.json["sent_text"] == text
        (id,) = reply.json["message_id"].values()
        assert gateway.get(f"/api/v1.0/sms/outgoing/{id}").json["text"] == text


HEADERS = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"))


NAMES = """Content-Type Accept Accept-Language Accept-Charset Idempotency-Key X-Forwarded-For Cookie Host Origin Range
If-Modified-Since If-None-Match X-HTTP-Method-Override"""
CONTENT_TYPES = ["application/json; charset=\xff", "application/json; charset=bogus", "text/html"]


@given(
    st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "BOGUS"]),
    st.sampled_from([OUTGOING, "/api/v1.0/sms/sent/", "/api/v1.0/sms/sent/m1", "/api/v1.0/monitoring", "/"]),
    st.dictionaries(st.sampled_from(NAMES.split()), HEADERS | st.sampled_from(CONTENT_TYPES)),
    st.binary(),
)
def test_any_headers(gateway: Gateway, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
    request = Request.blank(path, method=method, headers=headers, body=body)
    request.headers["Authorization"] = basic("lvv", USERS["lvv"])
    response = request.get_response(gateway.app.app)
    assert response.status_int < 500
    if method != "HEAD":
        assert isinstance(json.loads(response.body), dict)
    assert response.content_type == "application/json"
    assert snapshot(gateway) == {}


@given(
    st.text(min_size=1) | st.binary(min_size=1), st.sampled_from([*KINDS, "bogus"]), st.sampled_from(["GET", "DELETE"])
)
def test_any_id(gateway: Gateway, id: str | bytes, kind: str, method: str) -> None:
    gateway.put("sent", "m1", "To: 911\nFrom: ops\n\nHi")
    before = snapshot(gateway)
    escaped = quote(id.encode(errors="surrogatepass") if isinstance(id, str) else id, safe="")
    request = Request.blank(f"/api/v1.0/sms/{kind}/{escaped}", method=method)
    request.headers["Authorization"] = basic("lvv", USERS["lvv"])
    response = request.get_response(gateway.app.app)
    assert response.status_int == 404
    assert response.json == {"error": "Not found"}
    assert snapshot(gateway) == before


@given(st.text(st.characters(max_codepoint=127, exclude_characters="#\r\n")))
def test_any_query(gateway: Gateway, query: str) -> None:
    request = Request.blank("/api/v1.0/sms/sent/")
    request.query_string = query
    request.headers["Authorization"] = basic("lvv", USERS["lvv"])
    assert request.get_response(gateway.app.app).status_int in (200, 400)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_any_file_in_any_folder(gateway: Gateway, contents: list[bytes]) -> None:
    for kind in KINDS:
        for place, content in enumerate(contents):
            gateway.put(kind, f"junk{place}", content)
    for kind in KINDS:
        for user in ("lvv", "root"):
            for id in gateway.get(f"/api/v1.0/sms/{kind}/", user=user).json["message_id"]:
                assert isinstance(gateway.get(f"/api/v1.0/sms/{kind}/{id}", user=user, status="*").json, dict)


def test_a_file_that_is_very_large(gateway: Gateway) -> None:
    with (gateway.spool / "sent" / "large").open("wb") as stream:
        stream.write(b"To: 911\nFrom: lvv\n\n")
        stream.truncate(1 << 30)
    assert len(gateway.get("/api/v1.0/sms/sent/large").json["text"]) < 1 << 21
    assert gateway.get("/api/v1.0/sms/sent/").json["message_id"] == ["large"]


@pytest.mark.parametrize("name", ["a b", "ü", "a%b", "a?b", "a#b", "a\nb", "a\\b", "x" * 250, "-rf", "a;b"])
def test_names_of_other_programs(gateway: Gateway, name: str) -> None:
    gateway.put("sent", name, "To: 911\nFrom: lvv\n\nHi")
    assert gateway.get("/api/v1.0/sms/sent/").json["message_id"] == [name]
    assert gateway.get("/api/v1.0/sms/sent/" + quote(name, safe="")).json["text"] == "Hi"


def test_names_that_are_no_text(gateway: Gateway) -> None:
    Path(gateway.spool / "sent" / "a\udcff").write_text("To: 911\nFrom: lvv\n\nHi")
    assert gateway.get("/api/v1.0/sms/sent/").json["message_id"] == []
