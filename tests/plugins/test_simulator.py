"""``simulator``: a message is sent, or fails, as with smsd."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.conftest import Gateway, eventually

SIMULATED: dict[str, str | None] = {"smsgw.plugins": "htpasswd allow simulator"}


def test_sent(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(SIMULATED)
    for text in ("Hi, Jack!", "Привет, 😀\n\nč", "a\n\nb"):
        (id,) = gateway.send(text=text).json["message_id"].values()
        eventually(lambda id=id: id in gateway.files("sent"))
        found = gateway.get(f"/api/v1.0/sms/sent/{id}").json
        assert found["text"] == text
        assert found["From"] == "lvv"
        assert found["To"] == "79680000000"
        assert found["Modem"]
        assert time.strptime(found["Sent"], "%y-%m-%d %H:%M:%S")
    assert gateway.files("checked") == gateway.files() == {}


def test_failed(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(SIMULATED | {"smsgw.simulator.fail": "+7999* 911"})
    ids = gateway.send(mobiles=["79990000000", "911", "79680000000"]).json["message_id"]
    eventually(lambda: len(gateway.files("failed")) == 2 and gateway.files("sent"))
    assert set(gateway.files("failed")) == {ids["79990000000"], ids["911"]}
    found = gateway.get(f"/api/v1.0/sms/failed/{ids['911']}").json
    assert "38" in found["Fail_reason"]
    assert found["Failed"]


def test_status_reports(make_gateway: Callable[..., Gateway]) -> None:
    """For who asks for one; the same byte in the sent file and in the report, as a modem counts."""
    gateway = make_gateway(SIMULATED | {"smsgw.simulator.undelivered": "7998*"})
    body = {"to": ["+79680000000", "+79980000000"], "text": "Hi, Jack!" * 30}
    sent = gateway.call("POST_JSON", "/api/v2/messages", body | {"report": True}, status=202).json["messages"]
    asked = gateway.call("POST_JSON", "/api/v2/messages", body | {"report": False}, status=202).json["messages"]
    for (message, end), other in zip(zip(sent, ("delivered", "undelivered"), strict=True), asked, strict=True):
        path = f"/api/v2/messages/{message['id']}"
        eventually(lambda path=path, end=end: gateway.get(path).json["status"] == end)
        eventually(lambda other=other: gateway.get(f"/api/v2/messages/{other['id']}").json["status"] == "sent")
    reports = gateway.messages("report")
    assert sorted(report.headers["From"] for report in reports) == ["79680000000", "79980000000"]
    for message in gateway.messages("sent"):
        is_asked = message.id in {each["id"] for each in sent}
        assert ("Message_id" in message.headers) == is_asked
    assert gateway.get("/api/v2/inbox", user="root").json["messages"] == []


def test_status_reports_without_a_folder_of_their_own(make_gateway: Callable[..., Gateway], tmp_path: Any) -> None:
    """As with smsd, they come where received messages are, and are none."""
    folders = "".join(f"{kind} = {tmp_path / 'spool' / kind}\n" for kind in ("outgoing", "checked", "sent", "incoming"))
    (tmp_path / "smsd.conf").write_text(f"devices = GSM1\n{folders}datetime_format = %d.%m.%Y %H:%M:%S\n")
    gateway = make_gateway(SIMULATED | {"smsgw.spool": None, "smsgw.smsd_conf": str(tmp_path / "smsd.conf")})
    body = {"to": ["+79680000000"], "text": "Hi, Jack!", "report": True}
    (message,) = gateway.call("POST_JSON", "/api/v2/messages", body, status=202).json["messages"]
    path = f"/api/v2/messages/{message['id']}"
    eventually(lambda: gateway.get(path).json["status"] == "delivered")
    assert gateway.get(path).json["sent_at"]
    assert gateway.get("/api/v2/inbox", user="root").json["messages"] == []


def test_what_is_locked_or_broken(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(SIMULATED)
    gateway.put("outgoing", "m1.LOCK", "")
    gateway.put("outgoing", "m1", "To: 911\n\nHi")
    gateway.put("outgoing", "m2", b"\xff\xfe")
    gateway.put("outgoing", "m3", "To: 911\n\nHi")
    eventually(lambda: "m2" in gateway.files("failed") and "m3" in gateway.files("sent"))
    assert set(gateway.files()) == {"m1", "m1.LOCK"}
    (gateway.spool / "outgoing" / "m1.LOCK").unlink()
    eventually(lambda: "m1" in gateway.files("sent"))


def test_delay_and_cancelling(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(SIMULATED | {"smsgw.simulator.delay": "3600"})
    (id,) = gateway.send().json["message_id"].values()
    eventually(lambda: id in gateway.files("checked"))
    gateway.get(f"/api/v1.0/sms/checked/{id}")
    gateway.delete(f"/api/v1.0/sms/checked/{id}", status=403)


def test_it_makes_the_folders(make_gateway: Callable[..., Gateway], tmp_path: Any) -> None:
    spool = tmp_path / "new" / "spool"
    gateway = make_gateway(SIMULATED | {"smsgw.spool": str(spool)})
    gateway.send()
    eventually(lambda: gateway.files("sent"))
