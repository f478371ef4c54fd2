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
