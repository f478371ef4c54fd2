"""``webhooks``: the figures that it promises. What counts as success, when it is tried again, how much at once."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from smsgw.model import TooMany
from smsgw.testing import MakeGateway
from smsgw_plugins.webhooks import receivers
from smsgw_plugins.webhooks.dispatcher import JITTER, SCHEDULE
from smsgw_plugins.webhooks.outbox import MARGIN
from smsgw_plugins.webhooks.receivers import Receivers
from smsgw_plugins.webhooks.registration import LookUps
from smsgw_plugins.webhooks.signature import check_secret, is_right, make_secret, sign
from tests.conftest import Gateway, eventually
from tests.plugins.test_webhooks import SETTINGS, WEBHOOKS, listening, register
from tests.plugins.test_webhooks_faults import (
    Clock,
    clock,
    counts,
    endless_headers,
    endless_informations,
    endless_line,
    let_it_look,
    make_clocked,
    tell,
)
from tests.receiver import Receiver, speaking

__all__ = ["clock", "make_clocked"]  # fixtures

# Success and failure


def test_what_counts_as_success(make_gateway: MakeGateway) -> None:
    gateway = listening(make_gateway(SETTINGS))
    statuses = (200, 201, 202, 204, 206, 226, 299)
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(Receiver()) for _ in statuses]
        webhooks = []
        for receiver, status in zip(found, statuses, strict=True):
            receiver.answer = lambda delivery, status=status: status  # type: ignore[misc]
            webhooks.append(register(gateway, receiver.url))
        tell(gateway)
        for receiver, webhook in zip(found, webhooks, strict=True):
            receiver.wait(1)
            eventually(lambda webhook=webhook: counts(gateway, webhook["id"]) == (0, 0))


def test_what_counts_as_failure(make_clocked: Callable[..., Gateway], clock: Clock) -> None:
    """It is tried again, where it was tried before: nobody follows a redirect."""
    gateway = make_clocked()
    statuses = (300, 301, 302, 303, 304, 307, 308, 399, 400, 410, 500, 599)
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(Receiver()) for _ in statuses]
        paths = [f"{WEBHOOKS}/{register(gateway, receiver.url)['id']}" for receiver in found]
        for receiver, status in zip(found, statuses, strict=True):
            receiver.answer = lambda delivery, status=status: status  # type: ignore[misc]
        tell(gateway)
        for path, status in zip(paths, statuses, strict=True):
            assert eventually(lambda path=path: gateway.get(path).json["last_error"]) == f"it answered {status}"
            assert gateway.get(path).json["waiting"] == 1
        for receiver in found:
            receiver.answer = lambda delivery: 204
        clock.now += SCHEDULE[0] * (1 + JITTER)
        for receiver, path in zip(found, paths, strict=True):
            first, second = receiver.wait(2)
            assert (first.id, first.path) == (second.id, second.path)
            eventually(lambda path=path: gateway.get(path).json["waiting"] == 0)
            assert len(receiver.deliveries) == 2


@pytest.mark.parametrize("status", [100, 103, 199])
def test_an_answer_before_the_answer_is_none(make_gateway: MakeGateway, status: int) -> None:
    gateway = listening(make_gateway(SETTINGS))

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 %d Early\r\n\r\n" % status)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    with speaking(talk) as url:
        webhook = register(gateway, url)
        tell(gateway)
        error = eventually(lambda: gateway.get(f"{WEBHOOKS}/{webhook['id']}").json["last_error"])
    assert error == "its answer is not HTTP, or too long, or ended too early"


@pytest.mark.parametrize("talk", [endless_headers, endless_line, endless_informations])
def test_no_more_is_read_than_is_said(make_gateway: MakeGateway, talk: Callable[..., None]) -> None:
    """Long before the time is up."""
    gateway = listening(make_gateway(SETTINGS | {"smsgw.webhooks.timeout": "60"}))
    with speaking(talk) as url:
        webhook = register(gateway, url)
        tell(gateway)
        error = eventually(lambda: gateway.get(f"{WEBHOOKS}/{webhook['id']}").json["last_error"], seconds=30)
    assert error == "its answer is not HTTP, or too long, or ended too early"


# When it is tried again


def test_attempts_are_spread(make_clocked: Callable[..., Gateway], clock: Clock) -> None:
    """Each a little later than the schedule says, and not all at once."""
    gateway, many = make_clocked(), 60
    with Receiver() as receiver:
        receiver.answer = lambda delivery: 500
        webhook = register(gateway, receiver.url, "message.sent")
        tell(gateway, many)
        waiting = sqlalchemy.text("SELECT due FROM webhooks_deliveries WHERE error IS NOT NULL")

        def dues() -> list[int]:
            with gateway.application.stores.shared.begin(is_reading=True) as connection:
                return list(connection.execute(waiting).scalars())

        found = eventually(lambda: len(rows := dues()) == many and rows, seconds=60)
        assert counts(gateway, webhook["id"]) == (many, 0)
    delays = sorted(due / 1000 - clock.now for due in found)
    assert SCHEDULE[0] - 0.001 <= delays[0] < SCHEDULE[0] * (1 + JITTER / 3)
    assert SCHEDULE[0] * (1 + JITTER * 2 / 3) < delays[-1] <= SCHEDULE[0] * (1 + JITTER)


@pytest.mark.parametrize("late", [204, 503])
@pytest.mark.parametrize("again", [204, 500])
def test_an_attempt_that_outlives_its_lease(
    make_clocked: Callable[..., Gateway], clock: Clock, late: int, again: int
) -> None:
    """Nobody else tries before that; afterwards one success is enough, and what is late spoils nothing."""
    gateway, held = make_clocked(timeout="60"), threading.Event()
    with Receiver() as receiver:

        def answer(delivery: object) -> int:
            if len(receiver.deliveries) > 1:
                return again
            assert held.wait(40)
            return late

        receiver.answer = answer
        path = f"{WEBHOOKS}/{register(gateway, receiver.url, 'message.sent')['id']}"
        tell(gateway)
        receiver.wait(1)
        clock.now += 60 + MARGIN - 1
        let_it_look(gateway)
        assert len(receiver.deliveries) == 1
        clock.now += 1
        first, second = receiver.wait(2)
        assert first.id == second.id
        ended = {"waiting": int(again == 500), "last_error": "it answered 500" if again == 500 else None}
        eventually(lambda: ended.items() <= gateway.get(path).json.items())
        held.set()
        if late == 204:
            ended = {"waiting": 0, "last_error": None}
        eventually(lambda: ended.items() <= gateway.get(path).json.items())
        let_it_look(gateway)
        assert ended.items() <= gateway.get(path).json.items()
        assert len(receiver.deliveries) == 2


# How much at once


def test_room_for_a_receiver() -> None:
    found = Receivers()
    for left in range(receivers.EACH, 0, -1):
        assert found.room("one") == left
        assert found.begin("one") is False
    assert found.room("one") == 0
    assert found.room("two") == receivers.EACH
    found.end("one", lane=False, is_failure=True, seconds=0.1)
    assert found.room("one") == 0  # of those that fail, one at a time
    for _ in range(receivers.EACH - 1):
        found.end("one", lane=False, is_failure=True, seconds=0.1)
    assert found.room("one") == 1
    lane = found.begin("one")
    assert (lane, found.room("one")) == (True, 0)
    found.end("one", lane, is_failure=False, seconds=0.1)
    assert found.room("one") == receivers.EACH


@pytest.mark.parametrize(("seconds", "is_troubled"), [(receivers.SLOW, False), (receivers.SLOW + 0.1, True)])
def test_who_is_slow_has_the_lane_of_the_troubled(seconds: float, is_troubled: bool) -> None:
    found = Receivers()
    found.end("one", found.begin("one"), is_failure=False, seconds=seconds)
    assert found.room("one") == receivers.EACH
    assert found.begin("one") is is_troubled


@pytest.mark.parametrize(("is_failure", "most"), [(False, receivers.QUICK), (True, receivers.TROUBLED)])
def test_room_for_all(is_failure: bool, most: int) -> None:
    found = Receivers()
    names = [str(number) for number in range(most + 1)]
    for name in names:
        found.end(name, found.begin(name), is_failure=is_failure, seconds=0.1)
    for name in names[:most]:
        assert found.room(name) > 0
        assert found.begin(name) is is_failure
    assert found.room(names[most]) == 0
    if is_failure:  # who is well has room yet
        assert found.room("another") == receivers.EACH


def test_look_ups_of_a_clock_that_goes_back() -> None:
    """Nobody waits longer than a minute."""
    clock = Clock()
    found, begun = LookUps(2, clock), clock.now
    for now in (begun, begun - 3600, begun - 3600 + 60):
        clock.now = now
        for _ in range(2):
            found.count("lvv")
        clock.now += 59.5
        with pytest.raises(TooMany) as refused:
            found.count("lvv")
        assert refused.value.retry_after == 1
        found.count("ops")


@pytest.mark.parametrize(("value", "is_good"), [("0", False), ("1", True), ("1000", True), ("1001", False)])
def test_how_many_an_operator_can_allow(
    make_gateway: MakeGateway, refusal: Callable[..., str], value: str, is_good: bool
) -> None:
    settings = SETTINGS | {"smsgw.webhooks.per_user": value}
    if is_good:
        make_gateway(settings)
    else:
        assert "smsgw.webhooks.per_user" in refusal(settings)


@pytest.mark.parametrize("value", ["0", "3651", "x", "1.5"])
def test_days_that_are_none(refusal: Callable[..., str], value: str) -> None:
    assert "smsgw.webhooks.groups_days" in refusal(SETTINGS | {"smsgw.webhooks.groups_days": value})


# Signatures


def test_the_example_of_standard_webhooks() -> None:
    """As its specification has it."""
    body = '{"event_type":"ping","data":{"success":true}}'
    headers = sign("whsec_plJ3nmyCDGBKInavdOK15jsl", "msg_loFOjxBNrRLzqYUf", 1731705121, body)
    assert headers == {
        "webhook-id": "msg_loFOjxBNrRLzqYUf",
        "webhook-timestamp": "1731705121",
        "webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    }


def test_what_is_signed_right() -> None:
    secret, now = make_secret(), int(time.time())
    check_secret(secret)
    body = '{"text": "Привет"}'
    headers = sign(secret, "msg_1", now, body)
    good = headers["webhook-signature"]
    assert is_right(secret, headers, body.encode())
    assert is_right(secret, {name.title(): value for name, value in headers.items()}, body.encode())
    assert is_right(secret, headers | {"webhook-signature": f"v1a,x v1,AAAA {good}"}, body.encode())
    for wrong in (
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(now - 1)},
        {"webhook-timestamp": "soon"},
        *(
            {"webhook-signature": value}
            for value in ("", "v1,", "v1", "v1,!", "v1,é", "v1,AAAA", good.replace("v1", "v2"))
        ),
    ):
        assert not is_right(secret, headers | wrong, body.encode())
    assert not is_right(secret, {}, body.encode())
    assert not is_right(make_secret(), headers, body.encode())
    for other in (b"", b"\xff", body.encode() + b" "):
        assert not is_right(secret, headers, other)
    assert not is_right(secret, sign(secret, "msg_1", now - 400, body), body.encode())
    assert not is_right(secret, sign(secret, "msg_1", now + 400, body), body.encode())


@pytest.mark.parametrize(("size", "is_good"), [(23, False), (24, True), (64, True), (65, False)])
def test_secrets_of_that_size(size: int, is_good: bool) -> None:
    secret = "whsec_" + base64.b64encode(b"a" * size).decode()
    with contextlib.nullcontext() if is_good else pytest.raises(ValueError, match="24 to 64 bytes"):
        check_secret(secret)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_" + "!" * 40, "whsec_" + "a" * 33, "whsec_é" + "a" * 39])
def test_what_is_no_secret(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        check_secret(secret)


def test_the_receiver_of_the_command_line_checks() -> None:
    smsgw, secret = Path(sys.executable).with_name("smsgw"), make_secret()
    refused = subprocess.run([smsgw, "webhooks", "listen", "--secret", "whsec_AAAA"], capture_output=True, check=False)
    assert refused.returncode == 2
    assert b"24 to 64 bytes" in refused.stderr
    command = [smsgw, "webhooks", "listen", "--secret", secret, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listener:
        try:
            assert listener.stderr is not None
            url = listener.stderr.readline().split()[-1].rstrip(";")

            def post(headers: dict[str, str], body: str) -> int:
                request = urllib.request.Request(url, body.encode(), headers)
                try:
                    with urllib.request.urlopen(request, timeout=20) as reply:
                        return int(reply.status)
                except urllib.error.HTTPError as error:
                    return error.code

            body = json.dumps({"type": "message.sent"})
            assert post(sign(secret, "msg_1", int(time.time()), body), body) == 204
            assert post(sign(make_secret(), "msg_2", int(time.time()), body), body) == 401
            assert post({}, body) == 401
        finally:
            listener.terminate()
        assert listener.stdout is not None
        said = listener.stdout.read()
    assert "msg_1: the signature is right" in said
    assert "msg_2: the signature is wrong" in said
