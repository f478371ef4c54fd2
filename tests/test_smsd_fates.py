"""With a real smsd on emulated modems: what clients read of a message, in both APIs, once its reports have come."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta, timezone
from pathlib import Path

import pytest

from tests.conftest import Gateway, eventually
from tests.smsd.modem import Later, Modem
from tests.smsd.pdu import Submitted
from tests.smsd.server import Smsd

ALL_IDS = "messageids = 3\n"
LONG = "0123456789" * 40  # three parts
NUMBER = "79160000000"


@dataclass(frozen=True, slots=True)
class Fate:
    """The statuses that the network reports of each part, and what becomes of the message.

    ``by_last`` is that where smsd records the last part's id alone.
    """

    parts: tuple[tuple[int | Later, ...], ...]
    status: str
    by_last: str


def alike(status: str, *parts: tuple[int | Later, ...]) -> Fate:
    return Fate(parts, status, status)


FATES = {
    "lost": alike("sent", ()),
    "delivered": alike("delivered", (0,)),
    "replaced by the network": alike("delivered", (31,)),
    "failed": alike("undelivered", (64,)),
    "doubled": alike("delivered", (0, 0)),
    "failed twice": alike("undelivered", (70, 70)),
    "failed after it was delivered": alike("delivered", (0, 70)),
    "delivered after it failed": alike("undelivered", (70, 0)),
    "still tried": alike("sent", (48, 32)),
    "delivered in the end": alike("delivered", (48, 48, 0)),
    "trying again after the end": alike("delivered", (0, 48)),
    "all parts": alike("delivered", (0,), (0,), (0,)),
    "parts from the last to the first": alike("delivered", (Later(0, 2),), (Later(0, 1),), (0,)),
    "parts doubled": alike("delivered", (0, 0), (0, 0, 0), (0, 0)),
    "the first part lost": Fate(((), (0,), (0,)), "sent", "delivered"),
    "the last part lost": alike("sent", (0,), (0,), ()),
    "one part doubled, another lost": Fate(((0, 0), (), (0,)), "sent", "delivered"),
    "one part failed": Fate(((0,), (70,), (0,)), "undelivered", "delivered"),
    "one part failed, and arrived late": Fate(((0,), (70, Later(0, 1)), (0,)), "undelivered", "delivered"),
    "the last part failed": alike("undelivered", (0,), (0,), (70,)),
    "one part still tried": Fate(((0,), (48,), (0,)), "sent", "delivered"),
}
NUMBERS = {name: f"7916000{place:04}" for place, name in enumerate(FATES)}
OF_NUMBER = {number: FATES[name] for name, number in NUMBERS.items()}


def network(part: Submitted) -> Iterable[int | Later]:
    return OF_NUMBER[part.number].parts[part.index - 1]


@pytest.fixture
def serve(make_gateway: Callable[..., Gateway]) -> Callable[[Smsd], Gateway]:
    """A gateway in front of that smsd."""
    return lambda smsd: make_gateway({"smsgw.spool": None, "smsgw.smsd_conf": str(smsd.conf)})


def post(gateway: Gateway, texts: Mapping[str, str]) -> dict[str, str]:
    """Send each number its text by v2, with a report; the messages' ids by number."""
    drafts = [{"to": f"+{number}", "text": text} for number, text in texts.items()]
    reply = gateway.call("POST_JSON", "/api/v2/messages", {"messages": drafts, "report": True}, status=202)
    return {message["to"].removeprefix("+"): message["id"] for message in reply.json["messages"]}


def send(gateway: Gateway, smsd: Smsd, number: str = NUMBER, text: str = "Hi") -> str:
    """One message, and it is sent; its id."""
    (id,) = post(gateway, {number: text}).values()
    eventually(lambda: id in [path.name for path in smsd.files("sent")])
    return id


def status(gateway: Gateway, id: str) -> str:
    """What a message's status is, which both APIs agree about, and every way to ask for it."""
    found = gateway.get(f"/api/v2/messages/{id}").json
    listed = gateway.get(f"/api/v2/messages?status={found['status']}&limit=100").json["messages"]
    assert found in listed
    old = gateway.get(f"/api/v1.0/sms/sent/{id}").json
    assert ("Delivered" in old) == (found["status"] == "delivered") == (found["delivered_at"] is not None)
    assert (found["report"] is not None) == (found["status"] in ("delivered", "undelivered"))
    said: str = found["status"]
    return said


def part_of(modem: Modem, number: str) -> Submitted:
    """The last part that the modem took to that number."""
    return [part for part in modem.pdus if part.number == number][-1]


@pytest.mark.parametrize("all_ids", [True, False])
@pytest.mark.parametrize("report_folder", [True, False])
def test_each_message_has_its_fate(
    tmp_path: Path, serve: Callable[[Smsd], Gateway], all_ids: bool, report_folder: bool
) -> None:
    """Each twice, on two modems that count alike, and wrap."""
    with Smsd(tmp_path, modems=2, report=report_folder, extra_modem=ALL_IDS if all_ids else "") as smsd:
        for modem in smsd.modems:
            modem.mr, modem.reports = 240, network
        gateway = serve(smsd)
        texts = {NUMBERS[name]: LONG if len(fate.parts) > 1 else "Hi" for name, fate in FATES.items()}
        sent = [post(gateway, texts), post(gateway, texts)]
        reports = 2 * sum(len(part) for fate in FATES.values() for part in fate.parts)
        smsd.wait("sent", 2 * len(FATES), timeout=120)
        smsd.wait("report" if report_folder else "incoming", reports, timeout=120)
        wanted = {name: fate.status if all_ids else fate.by_last for name, fate in FATES.items()}
        for ids in sent:
            assert {name: status(gateway, ids[NUMBERS[name]]) for name in FATES} == wanted
        if report_folder:
            mine = gateway.get("/api/v1.0/sms/report/?limit=1000").json["message_id"]
            known = reports if all_ids else 2 * sum(len(fate.parts[-1]) for fate in FATES.values())
            assert len(mine) == known
        assert gateway.get("/api/v2/inbox", user="root").json["messages"] == []


def test_a_report_that_comes_after_the_next_message_with_its_id(
    tmp_path: Path, serve: Callable[[Smsd], Gateway]
) -> None:
    """So soon after it, it is taken for one of that one, which has its own by then: nothing is said twice."""
    with Smsd(tmp_path) as smsd:
        smsd.modem.most_mr = 3
        smsd.modem.reports = lambda part: (Later(70, 3),) if len(smsd.modem.pdus) == 1 else (0,)
        gateway = serve(smsd)
        late, *others, latest = (send(gateway, smsd, number) for number in (NUMBER, "7916111", "7916222", NUMBER))
        assert [part.mr for part in smsd.modem.pdus] == [1, 2, 3, 1]
        smsd.wait("report", 4)
        assert status(gateway, late) == "sent"
        assert [status(gateway, id) for id in (*others, latest)] == ["delivered"] * 3


def test_a_report_that_comes_long_after_the_next_message_with_its_id(
    tmp_path: Path, serve: Callable[[Smsd], Gateway]
) -> None:
    """The network says when it took the message, in a time zone of its own: an hour before the latest was sent."""
    hour = timedelta(hours=1)
    with Smsd(tmp_path) as smsd:
        smsd.modem.most_mr, smsd.modem.zone = 1, timezone(-7 * hour)
        gateway = serve(smsd)
        late = send(gateway, smsd)
        part = part_of(smsd.modem, NUMBER)
        before = time.time() - hour.total_seconds()
        os.utime(smsd.spool / "sent" / late, (before, before))
        latest = send(gateway, smsd)
        assert part.taken
        smsd.modem.report(replace(part, taken=part.taken - hour), 70)
        smsd.wait("report")
        assert [status(gateway, id) for id in (late, latest)] == ["undelivered", "sent"]
        smsd.modem.report(part_of(smsd.modem, NUMBER))
        smsd.wait("report", 2)
        assert [status(gateway, id) for id in (late, latest)] == ["undelivered", "delivered"]


def test_a_report_that_comes_late_but_before_the_next_message_with_its_id(
    tmp_path: Path, serve: Callable[[Smsd], Gateway]
) -> None:
    with Smsd(tmp_path) as smsd:
        smsd.modem.most_mr = 3
        gateway = serve(smsd)
        late, other, third = (send(gateway, smsd, number) for number in (NUMBER, "7916111", "7916222"))
        smsd.modem.report(part_of(smsd.modem, NUMBER), 70)
        smsd.wait("report")
        latest = send(gateway, smsd)
        assert [status(gateway, id) for id in (late, other, third, latest)] == ["undelivered", "sent", "sent", "sent"]
        smsd.modem.report(part_of(smsd.modem, NUMBER))
        smsd.wait("report", 2)
        assert [status(gateway, id) for id in (late, latest)] == ["undelivered", "delivered"]


def test_reports_of_strangers_say_nothing(tmp_path: Path, serve: Callable[[Smsd], Gateway]) -> None:
    """Of a number that nobody wrote to, of an id that was not given, of another modem's message, of other programs'."""
    with Smsd(tmp_path, modems=2) as smsd:
        gateway = serve(smsd)
        id = send(gateway, smsd)
        modem, other = sorted(smsd.modems, key=lambda modem: modem.taken, reverse=True)
        part = part_of(modem, NUMBER)
        modem.report(replace(part, number="79169999999"))
        modem.report(replace(part, mr=part.mr + 1))
        other.report(part)
        smsd.put("cron.1", b"To: 79168888888\nReport: yes\n\nfrom cron")
        smsd.wait("sent", 2)
        for each in smsd.modems:
            for theirs in each.pdus:
                if theirs.number == "79168888888":
                    each.report(theirs)
        smsd.wait("report", 4)
        assert status(gateway, id) == "sent"
        assert gateway.get("/api/v1.0/sms/report/").json["message_id"] == []
        assert gateway.get("/api/v2/messages/cron.1", status=404)
        assert gateway.get("/api/v2/messages/cron.1", user="root").json["status"] == "delivered"
        modem.report(part)
        smsd.wait("report", 5)
        assert status(gateway, id) == "delivered"


def test_a_sender_whose_name_is_a_header_of_reports(tmp_path: Path, serve: Callable[[Smsd], Gateway]) -> None:
    """A name has up to eleven characters, a line break may be one of them, and smsd writes it as it is."""
    with Smsd(tmp_path, report=False) as smsd:
        gateway = serve(smsd)
        id = send(gateway, smsd, "911")
        part = part_of(smsd.modem, "911")
        smsd.modem.receive("911\nUDH: no", f"SMS STATUS REPORT\nMessage_id: {part.mr}\nStatus: 0,Ok")
        (path,) = smsd.wait("incoming")
        assert b"From: 911\nUDH: no\n" in path.read_bytes()
        assert status(gateway, id) == "sent"
        (found,) = gateway.get("/api/v2/inbox", user="root").json["messages"]
        assert found["text"].startswith("SMS STATUS REPORT")
        smsd.modem.report(part)
        smsd.wait("incoming", 2)
        assert status(gateway, id) == "delivered"


def test_reports_that_waited_while_smsd_was_down(tmp_path: Path, serve: Callable[[Smsd], Gateway]) -> None:
    """It was killed after the message was sent; the modem keeps what the network says, more than it has room for."""
    numbers = [f"7916111{place:04}" for place in range(60)]
    with Smsd(tmp_path) as smsd:
        gateway = serve(smsd)
        ids = post(gateway, dict.fromkeys(numbers, "Hi"))
        smsd.wait("sent", len(ids))
        smsd.kill()
        parts = {part.number: part for part in smsd.modem.pdus}
        for number in numbers:
            smsd.modem.report(parts[number], 48)
        for number in reversed(numbers):
            smsd.modem.report(parts[number], 70 if number.endswith("7") else 0)
        smsd.start()
        smsd.wait("report", 2 * len(numbers), timeout=120)
        found = {number: status(gateway, ids[number]) for number in numbers}
        assert found == {number: "undelivered" if number.endswith("7") else "delivered" for number in numbers}


@pytest.mark.parametrize("utf8", [False, True])
def test_messages_in_parts_come_in_once_and_whole(tmp_path: Path, serve: Callable[[Smsd], Gateway], utf8: bool) -> None:
    """On two modems, in several orders, doubled, among each other; what lacks a part is no message yet."""
    whole = {
        "GSM1": [
            ("one, ", "two, ", "three"),
            ("раз, ", "два \ud83d", "\ude00, три"),
            ("a" * 152, "b" * 152, "c" * 152),
        ],
        "GSM2": [("four, ", "five, ", "six"), ("Ж" * 66, "ж" * 66, "1"), ("€" * 76, "{" * 76, "}")],
    }
    orders = [(1, 2, 3), (3, 1, 2), (2, 2, 3, 1)]
    with Smsd(tmp_path, modems=2, incoming_utf8=utf8) as smsd:
        gateway = serve(smsd)
        for modem in smsd.modems:
            for place, (texts, order) in enumerate(zip(whole[modem.name], orders, strict=True), 1):
                modem.receive(NUMBER, *texts, order=order[:-1], reference=300 * place)
            modem.receive(NUMBER, "a part", "is lost", order=[2], reference=99)
            modem.wait_fetched()
        assert received(gateway) == []
        for modem in smsd.modems:
            for place, (texts, order) in enumerate(zip(whole[modem.name], orders, strict=True), 1):
                modem.receive(NUMBER, *texts, order=order[-1:], reference=300 * place)
            modem.receive(NUMBER, "short")
        smsd.wait("incoming", 8)
        joined = [
            (name, "".join(texts).encode("utf-16", "surrogatepass").decode("utf-16"))
            for name, messages in whole.items()
            for texts in (*messages, ("short",))
        ]
        assert received(gateway) == sorted(joined)
        smsd.modems[1].receive(NUMBER, "a part ", "is lost", order=[1], reference=99)
        smsd.wait("incoming", 9)
        assert received(gateway) == sorted([*joined, ("GSM2", "a part is lost")])


def received(gateway: Gateway) -> list[tuple[str, str]]:
    """Modems and texts in the inbox, which both APIs agree about."""
    found = gateway.get("/api/v2/inbox?limit=100", user="root").json["messages"]
    assert {each["from"] for each in found} <= {f"+{NUMBER}"}
    old = gateway.get("/api/v1.0/sms/incoming/?limit=100", user="root").json["message_id"]
    assert sorted(old) == sorted(each["id"] for each in found)
    for each in found:
        one = gateway.get(f"/api/v1.0/sms/incoming/{each['id']}", user="root").json
        assert (one["Modem"], one["text"]) == (each["modem"], each["text"])
    return sorted((each["modem"], each["text"]) for each in found)
