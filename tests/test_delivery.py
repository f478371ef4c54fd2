"""Who carries a message: what plugins answer to ``deliver`` is checked, and nothing is accepted that nobody took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from smsgw.api import Forbidden
from smsgw.hookspecs import hookimpl
from smsgw.model import Message, Submission, Unavailable
from smsgw.testing import Gateway, MakeGateway, message
from tests.conftest import OUTGOING

V2 = "/api/v2/messages"
NUMBERS = ["79680000000", "79160000000", "79170000000"]
KEY = {"Idempotency-Key": "order-17-paid"}


def v1(gateway: Gateway, status: int, **more: Any) -> Any:
    return gateway.call("POST_JSON", OUTGOING, {"mobiles": NUMBERS, "text": "Hi"}, status=status, **more).json


def v2(gateway: Gateway, status: int, **more: Any) -> Any:
    return gateway.call("POST_JSON", V2, {"to": NUMBERS, "text": "Hi"}, status=status, **more).json


def in_spool(gateway: Gateway) -> set[str]:
    return {found.headers["To"] for found in gateway.messages()}


async def _later() -> list[Message]:
    return []


def nonsense(answer: Callable[[Submission], Any]) -> type:
    class Acme:
        @hookimpl
        def deliver(self, submission: Submission) -> Any:
            return answer(submission)

    return Acme


class Takes:
    """Takes the messages to some numbers."""

    numbers: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.offered: list[list[str]] = []
        self.took: list[Message] = []

    @hookimpl
    def deliver(self, submission: Submission) -> list[Message]:
        self.offered.append([message.to for message in submission.messages])
        taken = [message for message in submission.messages if message.to in self.numbers]
        self.took += taken
        return taken


class First(Takes):
    numbers = (NUMBERS[0],)


class Second(Takes):
    numbers = (NUMBERS[1],)


class Everything(Takes):
    numbers = tuple(NUMBERS)


class Down:
    @hookimpl
    def deliver(self) -> None:
        raise Unavailable("the line is down")


class Careless:
    @hookimpl
    def deliver(self) -> Any:
        return True


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda submission: True, "True"),
        (lambda submission: [found.id for found in submission.messages], "'list'"),
        (lambda submission: {found.id: found for found in submission.messages}, "'dict'"),
        (lambda submission: [message()], "not offered"),
        (lambda submission: [replace(submission.messages[0], to="911")], "not offered"),
        (lambda submission: [*submission.messages, submission.messages[0]], "twice"),
        (lambda submission: submission.messages[0].id, "'str'"),
        (lambda submission: (found for found in submission.messages), "generator"),
        (lambda submission: _later(), "coroutine"),
        (lambda submission: False, "False"),
    ],
)
def test_an_answer_that_is_none_accepts_nothing(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture, answer: Callable[[Submission], Any], word: str
) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow acme"}, acme=nonsense(answer))
    for send in (v1, v2):
        for headers in ({}, KEY):
            caplog.clear()
            found = send(gateway, 500, headers=headers)
            assert "message_id" not in found
            assert "messages" not in found
            assert "'acme'" in caplog.text
            assert word in caplog.text
    assert gateway.files() == {}


@pytest.mark.parametrize("answer", [lambda submission: None, lambda submission: [], lambda submission: ()])
def test_who_takes_nothing_leaves_all_to_the_spool(make_gateway: MakeGateway, answer: Any) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow acme"}, acme=nonsense(answer))
    assert set(v1(gateway, 201)["message_id"]) == set(NUMBERS)
    assert set(gateway.files()) == {found.id for found in gateway.messages()}
    assert in_spool(gateway) == set(NUMBERS)


def test_each_plugin_is_offered_what_is_left(make_gateway: MakeGateway) -> None:
    for order, offered in (("first second", [NUMBERS, NUMBERS[1:]]), ("second first", [NUMBERS[::2], NUMBERS])):
        gateway = make_gateway({"smsgw.plugins": f"htpasswd allow {order}"}, first=First, second=Second)
        sent = v2(gateway, 202)
        assert sent["rejected"] == []
        assert [found["to"] for found in sent["messages"]] == [f"+{number}" for number in NUMBERS]
        assert [gateway.plugin(name).offered for name in ("first", "second")] == [[each] for each in offered]
        assert {found.headers["To"] for found in gateway.messages()} >= {NUMBERS[2]}
    assert in_spool(gateway) == {NUMBERS[2]}


def test_who_comes_after_one_that_took_all_is_not_asked(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow everything down"}, everything=Everything, down=Down)
    v1(gateway, 201)
    assert gateway.files() == {}


@pytest.mark.parametrize(("name", "log"), [("down", "the line is down"), ("careless", "'careless' returned True")])
def test_what_was_taken_is_accepted_and_the_rest_is_not(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture, name: str, log: str
) -> None:
    settings = {"smsgw.plugins": f"htpasswd allow first {name}"}
    gateway = make_gateway(settings, first=First, down=Down, careless=Careless)
    found = v1(gateway, 201)
    assert set(found["message_id"]) == {NUMBERS[0]}
    assert set(found["errors"]) == set(NUMBERS[1:])
    found = v2(gateway, 202)
    assert [each["to"] for each in found["messages"]] == [f"+{NUMBERS[0]}"]
    assert [(each["pointer"], each["code"]) for each in found["rejected"]] == [
        ("#/to/1", "unavailable"),
        ("#/to/2", "unavailable"),
    ]
    assert log in caplog.text
    assert gateway.files() == {}


def test_a_spool_that_refuses_the_rest(make_gateway: MakeGateway, tmp_path: Path) -> None:
    settings = {"smsgw.plugins": "htpasswd allow first", "smsgw.state": str(tmp_path / "spool" / "state")}
    gateway = make_gateway(settings, first=First)
    outgoing = gateway.spool / "outgoing"
    outgoing.rename(outgoing.with_name("away"))
    replies = [v2(gateway, 202, headers=KEY) for _ in range(2)]
    assert replies[0] == replies[1]
    assert [each["code"] for each in replies[0]["rejected"]] == ["unavailable"] * 2
    assert len(gateway.plugin("first").took) == 1
    gateway.plugin("first").numbers = ()
    v1(gateway, 503)
    outgoing.with_name("away").rename(outgoing)
    v1(gateway, 201)
    assert in_spool(gateway) == set(NUMBERS)


def test_the_rest_and_the_receipt_enter_the_spool_together(make_gateway: MakeGateway) -> None:
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow first"}, first=First)
    replies = [v1(gateway, 201, headers=KEY) for _ in range(2)]
    assert replies[0] == replies[1]
    assert set(replies[0]["message_id"]) == set(NUMBERS)
    assert in_spool(gateway) == set(NUMBERS[1:])
    assert len(gateway.plugin("first").took) == 1


def test_a_receipt_that_cannot_be_kept_afterwards(make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    class Acme:
        @hookimpl
        def deliver(self, submission: Submission) -> tuple[Message, ...]:
            receipts = gateway.state / "receipts"
            receipts.rename(receipts.with_name("away"))
            receipts.touch()  # or the owner would make the folder anew
            return submission.messages

    gateway = make_gateway({"smsgw.plugins": "htpasswd allow acme"}, acme=Acme)
    assert set(v1(gateway, 201, headers=KEY)["message_id"]) == set(NUMBERS)
    assert "Idempotency-Key is not remembered" in caplog.text


class Forgets:
    @hookimpl(wrapper=True)
    def deliver(self) -> Iterator[None]:
        yield


class Another:
    @hookimpl(wrapper=True)
    def deliver(self) -> Any:
        yield
        return [message()]


class Twice:
    @hookimpl(wrapper=True)
    def deliver(self) -> Any:
        sent = yield
        yield
        return sent


class Stubborn:
    @hookimpl(wrapper=True)
    def deliver(self) -> Any:
        try:
            yield
            yield
        finally:
            yield


class Fails:
    @hookimpl(wrapper=True)
    def deliver(self) -> Any:
        yield
        raise Unavailable("the database is down")


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("it cannot be compared")

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]


class Odd:
    @hookimpl(wrapper=True)
    def deliver(self) -> Any:
        yield
        return Incomparable()


WRAPPERS: dict[str, type] = {
    found.__name__.lower(): found for found in (Forgets, Another, Twice, Stubborn, Fails, Odd, First, Down)
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("forgets", "returned None from its wrapper"),
        ("another", "returned a value of type 'list' from its wrapper"),
        ("odd", "returned a value of type 'Incomparable' from its wrapper"),
        ("twice", "yielded twice"),
        ("stubborn", "yielded twice"),
        ("fails", "failed after the messages were sent"),
    ],
)
def test_what_was_sent_is_answered_as_sent(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture, name: str, words: str
) -> None:
    gateway = make_gateway({"smsgw.plugins": f"htpasswd allow {name}"}, **WRAPPERS)
    for send, status in ((v1, 201), (v2, 202)):
        caplog.clear()
        send(gateway, status)
        (said,) = (each.getMessage() for each in caplog.records if words in each.getMessage())
        assert f"'{name}'" in said
    assert len(gateway.files()) == 2 * len(NUMBERS)


def test_each_wrapper_sees_what_was_sent(make_gateway: MakeGateway) -> None:
    seen = []

    class Sees:
        @hookimpl(wrapper=True)
        def deliver(self, submission: Submission) -> Any:
            whole = [message.to for message in submission.messages]
            sent = yield
            seen.append((whole, [message.to for message in sent]))
            return sent

    settings = {"smsgw.plugins": "htpasswd allow sees forgets first down"}
    gateway = make_gateway(settings, **WRAPPERS | {"sees": Sees})
    v1(gateway, 201)
    assert seen == [(NUMBERS, NUMBERS[:1])]


def test_a_wrapper_that_ends_before_its_yield(make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    class Acme:
        @hookimpl(wrapper=True)
        def deliver(self, submission: Submission) -> Any:
            if submission.messages:
                return
            yield

    gateway = make_gateway({"smsgw.plugins": "htpasswd allow acme"}, acme=Acme)
    v1(gateway, 500)
    v2(gateway, 500)
    assert "the plugin 'acme' returned from its wrapper of 'deliver' before 'yield'" in caplog.text
    assert gateway.files() == {}


def test_a_wrapper_refuses_the_whole(make_gateway: MakeGateway) -> None:
    class Acme:
        @hookimpl(wrapper=True)
        def deliver(self) -> Any:
            raise Forbidden("Nobody sends on Sundays")
            yield

    gateway = make_gateway({"smsgw.plugins": "htpasswd allow everything acme"}, everything=Everything, acme=Acme)
    assert v1(gateway, 403) == {"error": "Nobody sends on Sundays"}
    assert v2(gateway, 403)["detail"] == "Nobody sends on Sundays"
    assert gateway.plugin("everything").offered == []
    assert gateway.files() == {}


def test_a_wrapper_that_fails_is_named(make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    class Acme:
        @hookimpl(wrapper=True)
        def deliver(self) -> Any:
            raise RuntimeError("secret detail")
            yield

    gateway = make_gateway({"smsgw.plugins": "htpasswd allow acme"}, acme=Acme)
    assert "secret" not in str(v1(gateway, 500))
    assert "raised by the plugin 'acme'" in caplog.text
    assert gateway.files() == {}


def test_a_wrapper_that_hides_a_failure(make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    class Acme:
        @hookimpl(wrapper=True)
        def deliver(self, submission: Submission) -> Any:
            try:
                return (yield)
            except Unavailable:
                return submission.messages

    gateway = make_gateway({"smsgw.plugins": "htpasswd allow acme down"}, acme=Acme, down=Down)
    assert v1(gateway, 503) == {"error": "the line is down"}
    assert "the plugin 'acme' caught what its 'yield' raised" in caplog.text
