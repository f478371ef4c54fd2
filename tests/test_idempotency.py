"""``Idempotency-Key`` in one process: the same request gets the same reply, and sends nothing again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import OUTGOING, Gateway

KEY = "order-17-paid"


def send(gateway: Gateway, status: int, key: str = KEY, user: str = "lvv", **fields: Any) -> Any:
    body = {"mobiles": ["79680000000"], "text": "Hi"} | fields
    return gateway.call("POST_JSON", OUTGOING, body, headers={"Idempotency-Key": key}, user=user, status=status)


def test_the_same_reply(gateway: Gateway) -> None:
    replies = [send(gateway, 201) for _ in range(3)]
    assert len({reply.body for reply in replies}) == 1
    assert len(gateway.files()) == 1


def test_another_body_another_user_another_key(gateway: Gateway) -> None:
    send(gateway, 201)
    assert send(gateway, 422, text="Ho").json["error"]
    send(gateway, 201, user="ops")
    send(gateway, 201, key=KEY + "2")
    assert len(gateway.files()) == 3


def test_whatever_policies_say_by_then(make_gateway: Callable[..., Gateway]) -> None:
    rules: dict[str, str | None] = {
        "smsgw.plugins": "htpasswd allow whitelist",
        "smsgw.whitelist.numbers": "lvv: 7968*",
    }
    first = send(make_gateway(rules), 201)
    gateway = make_gateway(rules | {"smsgw.whitelist.numbers": "lvv: 7916*", "smsgw.max_recipients": "1"})
    assert send(gateway, 201).body == first.body
    refused = send(gateway, 403, key="another-key")
    assert send(make_gateway(rules), 403, key="another-key").body == refused.body
    assert len(gateway.files()) == 1


def test_refusals_fill_no_disk(gateway: Gateway) -> None:
    """A refusal that is longer than a block is judged anew each time."""
    for number in range(3):
        send(gateway, 400, key=f"refused-{number}", mobiles=["x" * 50_000])
    assert list((gateway.state / "receipts").iterdir()) == []


def test_what_was_only_malformed_can_be_corrected(gateway: Gateway) -> None:
    send(gateway, 400, text="")
    send(gateway, 201)


def test_the_first_that_applies_is_the_answer(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway({"smsgw.spool": "/nonexistent"})
    send(gateway, 400, mobiles=["x"])
    send(gateway, 503)


def test_after_a_503_it_is_sent(make_gateway: Callable[..., Gateway], gateway: Gateway) -> None:
    outgoing = gateway.spool / "outgoing"
    outgoing.rename(gateway.spool / "away")
    send(gateway, 503)
    (gateway.spool / "away").rename(outgoing)
    send(gateway, 201)
    assert len(gateway.files()) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": 1}'])
def test_a_receipt_that_a_power_cut_broke(gateway: Gateway, content: bytes) -> None:
    """Nobody knows what was sent: so it is not sent again."""
    send(gateway, 201)
    (receipt,) = (gateway.state / "receipts").iterdir()
    receipt.write_bytes(content)
    send(gateway, 503)
    assert len(gateway.files()) == 1


def test_receipts_are_kept_for_a_day(gateway: Gateway) -> None:
    send(gateway, 201)
    (receipt,) = (gateway.state / "receipts").iterdir()
    receipts = gateway.application.receipts
    now = receipt.stat().st_mtime
    os.utime(receipt, (now - 24 * 3600, now - 24 * 3600))
    receipts.expire()
    assert receipt.exists()
    os.utime(receipt, (now - 26 * 3600, now - 26 * 3600))
    receipts.expire()
    assert not receipt.exists()


def test_sends_by_get(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway({"smsgw.get_send": "true"})
    headers = {"Idempotency-Key": KEY}
    replies = [gateway.get(f"{OUTGOING}?mobiles=911&text=Hi", headers=headers, status=201) for _ in range(2)]
    assert replies[0].body == replies[1].body
    gateway.get(f"{OUTGOING}?mobiles=911&text=Ho", headers=headers, status=422)
    assert len(gateway.files()) == 1


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=140))
def test_any_key(gateway: Gateway, key: str) -> None:
    before = len(gateway.files())
    is_one = 8 <= len(key) <= 128 and all("!" <= character <= "~" for character in key)
    send(gateway, 201 if is_one else 400, key=key)
    assert len(gateway.files()) - before in ((0, 1) if is_one else (0,))


def test_nothing_is_named_after_a_key(gateway: Gateway) -> None:
    send(gateway, 201, key="../../../../etc/passwd")
    send(gateway, 201, key="a" * 128)
    assert all(len(path.name) == 64 for path in Path(gateway.state / "receipts").iterdir())
