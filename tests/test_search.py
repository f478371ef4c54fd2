"""Searches that a plugin answers: what it remembers, what the files say, and what happens when it cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smsgw.hookspecs import hookimpl
from smsgw.model import Query, Remembered, StatusReport, StoredMessage, Unavailable
from smsgw.testing import Gateway, MakeGateway

MESSAGES, INBOX = "/api/v2/messages", "/api/v2/inbox"
SENT = "To: 79160000000\nFrom: {}\nX-Reference: {}\nModem: GSM1\nMessage_id: 7\nSent: 26-11-22 09:16:03\n\nHi"
RECEIVED = "From: 79161234567\nReceived: 26-11-22 09:16:03\nModem: GSM1\nUDH: false\n\nHello"
REPORT = StatusReport("report/GSM1.x", 0, "Ok", "26-11-22 09:16:09", datetime(2026, 11, 22, 9, 16, 10, tzinfo=UTC))


class Notebook:
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, Remembered]] = {}
        self.asked: list[Query] = []
        self.is_open = True
        self.is_silent = False

    def note(self, status: str, message: StoredMessage, began: int, report: StatusReport | None = None) -> None:
        self.rows[message.id] = status, Remembered(message, report, began)

    @hookimpl
    def find_messages(self, query: Query) -> Sequence[Remembered] | None:
        self.asked.append(query)
        if not self.is_open:
            raise Unavailable("The notebook is shut") from OSError("no key")
        found = [row for status, row in self.rows.values() if status in query.statuses]
        found = [row for row in found if query.ids is None or row.message.id in query.ids]
        found = [row for row in found if query.before is None or row.place < query.before]
        return None if self.is_silent else sorted(found, key=lambda row: row.place, reverse=True)[: query.limit]

    @hookimpl
    def forget_message(self, message: StoredMessage) -> Callable[[], None]:
        if not self.is_open:
            raise Unavailable("The notebook is shut")
        before = dict(self.rows)
        self.rows.pop(message.id, None)
        return lambda: self.rows.update(before)


class Locked:
    """Forgets nothing."""

    @hookimpl
    def forget_message(self, message: StoredMessage) -> None:
        raise Unavailable("The safe is locked")


def test_all_forget_or_nobody(make_gateway: MakeGateway) -> None:
    plugins = {"smsgw.plugins": "htpasswd allow notebook locked"}
    gateway = make_gateway(plugins, notebook=Notebook, locked=Locked)
    notebook = gateway.plugin("notebook")
    gateway.put("incoming", "GSM1.a", RECEIVED)
    notebook.note("received", gateway.registry.folders.find("incoming", "GSM1.a"), 1000)
    gateway.delete(f"{INBOX}/GSM1.a", user="root", status=503)
    assert list(notebook.rows) == ["GSM1.a"]
    assert gateway.files("incoming")


@pytest.fixture
def gateway(make_gateway: MakeGateway) -> Gateway:
    return make_gateway({"smsgw.plugins": "htpasswd allow notebook"}, notebook=Notebook)


@pytest.fixture
def notebook(gateway: Gateway) -> Notebook:
    found: Notebook = gateway.plugin("notebook")
    return found


def gone(gateway: Gateway, kind: str, id: str, content: str) -> StoredMessage:
    """A message whose file is gone."""
    path = gateway.put(kind, id, content)
    message = gateway.registry.folders.find(kind, id)
    assert isinstance(message, StoredMessage)
    path.unlink()
    return message


def found(gateway: Gateway, query: str = "", user: str = "lvv", **options: Any) -> dict[str, str]:
    reply = gateway.get(f"{MESSAGES}?{query}", user=user, **options)
    return {each["id"]: each["status"] for each in reply.json["messages"]}


def test_messages_whose_files_are_gone(gateway: Gateway, notebook: Notebook) -> None:
    notebook.note("delivered", gone(gateway, "sent", "m1", SENT.format("lvv", "a")), 1000, REPORT)
    notebook.note("failed", gone(gateway, "failed", "m2", SENT.format("lvv", "b")), 2000)
    notebook.note("received", gone(gateway, "incoming", "GSM1.a", RECEIVED), 3000)
    assert found(gateway) == {"m2": "failed", "m1": "delivered"}
    assert gateway.get(f"{MESSAGES}/m1").json["report"] == {"status": "delivered", "code": 0, "detail": "Ok"}
    assert gateway.get(f"{MESSAGES}/m1").json["text"] == "Hi"
    assert gateway.get(f"{MESSAGES}/m2").json["status"] == "failed"
    gateway.get(f"{MESSAGES}/GSM1.a", user="root", status=404)
    (received,) = gateway.get(INBOX, user="root").json["messages"]
    assert gateway.get(f"{INBOX}/GSM1.a", user="root").json == received
    assert gateway.call("DELETE", f"{MESSAGES}/m1", status=409).json["title"]


def test_what_is_asked_for(gateway: Gateway, notebook: Notebook) -> None:
    found(gateway, "status=sent,failed&to=%2B7 916 0000000&reference=a&since=1970-01-01T00:00:01Z&limit=7")
    found(gateway, "until=1970-01-01T00:00:02Z", user="root")
    gateway.get(f"{INBOX}?from=%2B79161234567", user="root")
    assert notebook.asked == [
        Query(("sent", "failed"), "lvv", "79160000000", None, "a", None, 1000, None, 7),
        Query(
            ("scheduled", "queued", "sending", "sent", "delivered", "undelivered", "failed", "cancelled"),
            before=(2000, ""),
            limit=50,
        ),
        Query(("received",), sender="+79161234567", limit=50),
    ]


def test_the_file_counts_while_there_is_one(gateway: Gateway, notebook: Notebook) -> None:
    message = gone(gateway, "sent", "m1", SENT.format("lvv", "a"))
    notebook.note("queued", message, 1000)
    gateway.put("checked", "m1", SENT.format("lvv", "a"))
    assert found(gateway) == {"m1": "sending"}
    assert found(gateway, "status=queued") == {}
    assert found(gateway, "status=sending") == {"m1": "sending"}
    (gateway.spool / "checked" / "m1").rename(gateway.spool / "sent" / "m1")
    assert found(gateway) == {"m1": "sent"}
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "sent"


def test_what_is_under_way_need_not_be_remembered(gateway: Gateway) -> None:
    sent = gateway.call("POST_JSON", MESSAGES, {"to": ["+79680000000"], "text": "Hi"}, status=202).json["messages"]
    gateway.put("checked", "m1", SENT.format("lvv", "a"))
    assert found(gateway) == {sent[0]["id"]: "queued", "m1": "sending"}
    assert found(gateway, "reference=a") == {"m1": "sending"}


def test_what_came_to_its_end_a_moment_ago_need_not_be_remembered(gateway: Gateway, notebook: Notebook) -> None:
    """Between the folders and what a plugin has heard of there is no gap that a message disappears in."""
    assert found(gateway) == {}
    gateway.put("checked", "m1", SENT.format("lvv", "a"))
    assert found(gateway) == {"m1": "sending"}
    (gateway.spool / "checked" / "m1").rename(gateway.spool / "sent" / "m1")
    gateway.put("failed", "m2", SENT.format("ops", "b"))
    gateway.put("incoming", "GSM1.a", RECEIVED)
    assert found(gateway) == found(gateway, "status=sent") == {"m1": "sent"}
    assert found(gateway, user="root") == {"m1": "sent", "m2": "failed"}
    assert [each["id"] for each in gateway.get(INBOX, user="root").json["messages"]] == ["GSM1.a"]
    since = "since=2100-01-01T00:00:00Z"
    assert found(gateway, since) == found(gateway, "until=2000-01-01T00:00:00Z") == found(gateway, "reference=b") == {}
    notebook.note("delivered", gateway.registry.folders.find("sent", "m1"), 1000, REPORT)
    assert found(gateway) == {"m1": "delivered"}
    assert found(gateway, "status=sent") == {}


def test_a_final_report_is_remembered_when_its_file_is_gone(gateway: Gateway, notebook: Notebook) -> None:
    path = gateway.put("sent", "m1", SENT.format("lvv", "a"))
    message = gateway.registry.folders.find("sent", "m1")
    notebook.note("delivered", message, int(path.stat().st_mtime * 1000), REPORT)
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "delivered"
    assert found(gateway, "status=delivered") == {"m1": "delivered"}
    assert found(gateway, "status=sent") == {}
    assert gateway.get("/api/v1.0/sms/sent/m1").json["Delivered"]
    notebook.is_silent = True
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "sent"


def test_nobody_sees_more_for_it(gateway: Gateway, notebook: Notebook) -> None:
    notebook.note("sent", gone(gateway, "sent", "m1", SENT.format("ops", "a")), 1000)
    notebook.note("received", gone(gateway, "incoming", "GSM1.a", RECEIVED), 3000)
    assert found(gateway) == {}
    assert found(gateway, "from=ops") == {}
    gateway.get(f"{MESSAGES}/m1", status=404)
    gateway.get(f"{INBOX}/GSM1.a", status=404)
    gateway.delete(f"{INBOX}/GSM1.a", status=404)
    assert gateway.get(INBOX).json["messages"] == []
    assert found(gateway, user="ops") == found(gateway, user="root") == {"m1": "sent"}


@pytest.mark.parametrize("other", ["is_open", "is_silent"])
def test_pages_go_on_in_the_folders_and_back(gateway: Gateway, notebook: Notebook, other: str) -> None:
    for number in range(9):
        gateway.put("sent", f"m{number}", SENT.format("lvv", number))
        message = gateway.registry.folders.find("sent", f"m{number}")
        notebook.note("sent", message, int((gateway.spool / "sent" / f"m{number}").stat().st_mtime * 1000))
    before, ids = found(gateway), []
    url: str | None = f"{MESSAGES}?limit=2"
    while url:
        setattr(notebook, other, not getattr(notebook, other))
        page = gateway.get(url).json
        ids += [each["id"] for each in page["messages"]]
        url = page["next"]
    assert ids == list(before)
    assert len(ids) == 9


def test_a_plugin_that_cannot_answer(gateway: Gateway, notebook: Notebook, caplog: pytest.LogCaptureFixture) -> None:
    gateway.put("sent", "m1", SENT.format("lvv", "a"))
    notebook.is_open = False
    with caplog.at_level(logging.WARNING, "smsgw.search"):
        for _ in range(3):
            assert found(gateway) == {"m1": "sent"}
            gateway.get(f"{MESSAGES}/m2", status=404)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == "The notebook is shut (no key); messages are looked for in the folders"


@pytest.mark.parametrize(
    ("kind", "id", "url"),
    [("incoming", "GSM1.a", f"{INBOX}/GSM1.a"), ("sent", "m1", "/api/v1.0/sms/sent/m1")],
)
def test_what_users_delete(gateway: Gateway, notebook: Notebook, kind: str, id: str, url: str) -> None:
    path = Path(gateway.put(kind, id, RECEIVED if kind == "incoming" else SENT.format("root", "a")))
    notebook.note("received" if kind == "incoming" else "sent", gateway.registry.folders.find(kind, id), 1000)
    notebook.is_open = False
    gateway.delete(url, user="root", status=503)
    assert path.exists()
    notebook.is_open = True
    gateway.delete(url, user="root")
    assert not path.exists()
    assert notebook.rows == {}
    gateway.delete(url, user="root", status=404)


def test_a_received_message_that_is_only_remembered_can_be_deleted(gateway: Gateway, notebook: Notebook) -> None:
    notebook.note("received", gone(gateway, "incoming", "GSM1.a", RECEIVED), 3000)
    assert gateway.delete(f"{INBOX}/GSM1.a", user="root").json["text"] == "Hello"
    assert gateway.get(INBOX, user="root").json["messages"] == []
