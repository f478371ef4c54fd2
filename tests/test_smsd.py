"""With a real smsd on emulated modems: what is posted to a ``pserve`` process arrives on the phone, exactly."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smsgw.text import BASIC, EXTENSION
from tests.conftest import eventually
from tests.server import Server, wait_until
from tests.smsd.server import Smsd

SMS = "/api/v1.0/sms"

BOUNDARIES = [
    *("a" * length for length in (1, 159, 160, 161, 305, 306, 307, 459, 460)),
    *("Ж" * length for length in (1, 69, 70, 71, 133, 134, 135, 201, 202)),
    *("€" * length for length in (1, 79, 80, 81, 152, 153, 154)),
    *("a" * before + "€" + "b" * after for before in (150, 151, 152, 153, 304, 305, 306) for after in (0, 1, 9, 160)),
    *("Ж" * before + "😀" + "Ж" * 70 for before in (65, 66, 67, 68, 132, 133, 134)),
    *("😀" * length for length in (1, 35, 36, 67, 68)),
    *(end.join(("a" * 152, "b" * 20)) for end in "^{}\\[~]|€\f"),
]
SPECIAL = [
    "emoji 😀 end",
    "👩‍👩‍👧‍👦 and 🇷🇺",
    "`back-tick`, tab\t, ¤ and €",
    *(f"{blank}text{blank}" for blank in (" ", "\n", "\r", "\r\n", "\n\n", "\f", "\t", "\u00a0", "\u2028")),
    " ",
    "\n",
    "@",
    "a" * 159 + "@",
    "\x00",
    "a\x00b\x1b\x7f",
    "\ufeffbom",
    "č ď \u010a\u0a0d",
    "To: 911\nInclude: /etc/passwd\n\nMacro: a=b",
    "\n\nTo: 911\n\n",
    "%s %n {0} $HOME",
    BASIC,
    EXTENSION,
    *BASIC,
    *EXTENSION,
]


def scripts() -> list[str]:
    """A text of letters from each 256th of the basic plane and beyond that has assigned characters, 20 at the most."""
    texts = []
    for block in range(0, 0x20000, 0x100):
        assigned = [
            chr(code) for code in range(block, block + 0x100) if unicodedata.category(chr(code)) not in ("Cs", "Cn")
        ]
        if assigned and not 0xE000 <= block < 0xF900:
            texts.append("".join(assigned[:: len(assigned) // 20 + 1]))
    return texts


@pytest.fixture
def smsd(tmp_path: Path) -> Iterator[Smsd]:
    with Smsd(tmp_path) as smsd:
        yield smsd


@pytest.fixture
def serve(tmp_path: Path, password_file: Path) -> Iterator[Callable[..., Server]]:
    """A gateway in front of that smsd, configured by nothing but smsd's own file."""
    servers = []

    def start(smsd: Smsd, waitress: dict[str, str] | None = None, **settings: str) -> Server:
        server = Server(
            tmp_path,
            {
                "smsgw.smsd_conf": str(smsd.conf),
                "smsgw.plugins": "htpasswd allow",
                "smsgw.htpasswd.path": str(password_file),
                "smsgw.allow.admins": "root",
            }
            | {f"smsgw.{name}": value for name, value in settings.items()},
            waitress=waitress,
        )
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.kill()


def test_every_text_arrives_as_it_was_written(smsd: Smsd, serve: Callable[..., Server]) -> None:
    texts = [*BOUNDARIES, *SPECIAL, *scripts()]
    server = serve(smsd, fsync="false")
    promised = {}
    for place, text in enumerate(texts):
        number = f"7916{place:07}"
        reply = server.send([number], text)
        assert reply.status == 201, (text, reply.body)
        assert reply.json["sent_text"] == text
        promised[number] = (text, reply.json["parts_count"], reply.json["message_id"][number])
    arrived = {message.number: message for message in smsd.modem.wait(len(texts), timeout=60)}
    for number, (text, parts, _) in promised.items():
        assert arrived[number].text == text
        assert len(arrived[number].parts) == parts
    smsd.wait("sent", len(texts))
    for text, _, id in promised.values():
        found = server.request("GET", f"{SMS}/sent/{id}").json
        assert found["text"] == text
        assert found["Modem"] == "GSM1"
        assert found["Sent"]
        assert found["From"] == "lvv"
    assert server.request("GET", f"{SMS}/sent/?limit=5").json["total_count"] == len(texts)


def test_a_message_of_v2_from_one_end_to_the_other(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """Each with a text and a reference of its own, in a format of times that is the operator's own."""
    references = ["order-17", "Ж😀 é", "Include: /etc/passwd", "To: 911", "-" * 99, "%s\\n$HOME"]
    texts = ["Hi, Jack!", "Привет, 😀", "€ and {}", "a" * 200, "ж" * 71, "ok"]
    with Smsd(tmp_path, extra="datetime_format = %d.%m.%Y %T\n") as smsd:
        smsd.modem.refuse("7999", "+CMS ERROR: 38")
        server = serve(smsd)
        begin = datetime.now(UTC).replace(microsecond=0)
        drafts = [
            {"to": f"+7916000000{place}", "text": text, "reference": reference}
            for place, (text, reference) in enumerate(zip(texts, references, strict=True))
        ]
        drafts.append({"to": "+79991234567", "text": "Hi", "reference": "failing"})
        reply = server.request("POST", "/api/v2/messages", {"messages": drafts, "report": True, "flash": True})
        assert reply.status == 202
        smsd.wait("sent", len(texts))
        smsd.wait("failed")
        arrived = {message.number: message for message in smsd.modem.messages()}
        *sent, failed = reply.json["messages"]
        for draft, message in zip(drafts, sent, strict=False):
            on_air = arrived[str(draft["to"])[1:]]
            assert (on_air.text, len(on_air.parts), on_air.flash) == (draft["text"], message["parts"], True)
            found = server.request("GET", message["url"]).json
            assert {name: found[name] for name in draft} == draft
            assert (found["status"], found["modem"], found["parts"]) == ("sent", "GSM1", message["parts"])
            assert begin <= datetime.fromisoformat(found["sent_at"]) <= datetime.now(UTC)
            assert begin <= datetime.fromisoformat(found["accepted_at"]) <= datetime.now(UTC)
        found = server.request("GET", failed["url"]).json
        assert (found["status"], found["reference"]) == ("failed", "failing")
        assert "38" in found["error"]["detail"]
        assert begin <= datetime.fromisoformat(found["failed_at"]) <= datetime.now(UTC)
        listed = server.request("GET", "/api/v2/messages?status=failed").json["messages"]
        assert listed == [found]
        assert server.request("DELETE", failed["url"]).status == 409
        smsd.modem.receive("79161234567", "Привет")
        smsd.wait("incoming")
        (received,) = server.request("GET", "/api/v2/inbox", user="root").json["messages"]
        assert (received["from"], received["text"], received["modem"]) == ("+79161234567", "Привет", "GSM1")
        assert begin <= datetime.fromisoformat(received["received_at"]) <= datetime.now(UTC)


def test_a_delivery_of_v2_where_reports_land_among_received_messages(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    with Smsd(tmp_path, report=False) as smsd:
        server = serve(smsd)
        body = {"to": ["+79161234567"], "text": "Hi", "report": True}
        (message,) = server.request("POST", "/api/v2/messages", body).json["messages"]
        smsd.modem.wait(1)
        smsd.wait("sent")
        assert server.request("GET", message["url"]).json["status"] == "sent"
        (part,) = smsd.modem.pdus
        smsd.modem.report(part)
        smsd.wait("incoming")
        eventually(lambda: server.request("GET", message["url"]).json["report"])
        found = server.request("GET", message["url"]).json
        assert (found["status"], found["report"]["status"], found["report"]["code"]) == ("delivered", "delivered", 0)
        assert datetime.fromisoformat(found["delivered_at"]) <= datetime.now(UTC)
        assert server.request("GET", "/api/v2/messages?status=delivered").json["messages"] == [found]
        assert server.request("GET", "/api/v2/inbox", user="root").json["messages"] == []


def test_the_options_reach_the_air(smsd: Smsd, serve: Callable[..., Server]) -> None:
    server = serve(smsd)
    body = {"mobiles": ["79161234567"], "text": "Hi", "flash": True, "report": True, "validity": 60, "priority": "high"}
    assert server.request("POST", f"{SMS}/outgoing", body).status == 201
    assert server.send(["911"], "Hi").status == 201
    found = {message.number: message for message in smsd.modem.wait(2)}
    options = found["79161234567"]
    assert options.flash
    assert options.report
    (part,) = options.parts
    assert part.validity == 11  # 60 minutes, TS 23.040, 9.2.3.12.1
    assert part.type_of_address == 145
    assert not found["911"].flash
    assert found["911"].parts[0].type_of_address == 129


def test_a_refused_number_fails_with_its_reason(smsd: Smsd, serve: Callable[..., Server]) -> None:
    smsd.modem.refuse("7999", "+CMS ERROR: 38")
    server = serve(smsd)
    ids = server.send(["79991234567", "79161234567"]).json["message_id"]
    smsd.wait("failed")
    smsd.wait("sent")
    failed = server.request("GET", f"{SMS}/failed/{ids['79991234567']}").json
    assert "38" in failed["Fail_reason"]
    assert failed["Failed"]
    assert server.request("GET", f"{SMS}/sent/{ids['79161234567']}").status == 200
    assert server.request("GET", f"{SMS}/failed/").json["message_id"] == [ids["79991234567"]]


@pytest.mark.parametrize("utf8", [False, True])
def test_an_incoming_message_can_be_read(tmp_path: Path, serve: Callable[..., Server], utf8: bool) -> None:
    texts = ["Hello", "Привет, 😀!", "àèìòù Ä ΔΩ €"]
    with Smsd(tmp_path, incoming_utf8=utf8) as smsd:
        server = serve(smsd)
        for text in texts:
            smsd.modem.receive("79161234567", text)
        smsd.wait("incoming", len(texts))
        ids = server.request("GET", f"{SMS}/incoming/", user="root").json["message_id"]
        found = [server.request("GET", f"{SMS}/incoming/{id}", user="root").json for id in ids]
        assert {message["text"] for message in found} == set(texts)
        assert {message["From"] for message in found} == {"79161234567"}
        assert server.request("GET", f"{SMS}/incoming/{ids[0]}").status == 404


def test_a_report_belongs_to_who_sent_the_message(smsd: Smsd, serve: Callable[..., Server]) -> None:
    server = serve(smsd)
    reply = server.request("POST", f"{SMS}/outgoing", {"mobiles": ["79161234567"], "text": "Hi", "report": True})
    assert reply.status == 201
    smsd.modem.wait(1)
    smsd.wait("sent")
    (part,) = smsd.modem.pdus
    smsd.modem.report(part)
    (report,) = smsd.wait("report")
    eventually(lambda: server.request("GET", f"{SMS}/report/{report.name}").status == 200)
    assert "Status: 0" in server.request("GET", f"{SMS}/report/{report.name}").json["text"]
    assert server.request("GET", f"{SMS}/report/{report.name}", user="ops").status == 404
    assert server.request("GET", f"{SMS}/report/").json["message_id"] == [report.name]
    assert server.request("GET", f"{SMS}/report/", user="ops").json["message_id"] == []


def test_queues(tmp_path: Path, serve: Callable[..., Server]) -> None:
    with Smsd(tmp_path, queues={"north": ["7812"], "rest": ["7", "s"]}) as smsd:
        smsd.modem.delay = 3600
        server = serve(smsd)
        body = {"mobiles": ["79161234567"], "text": "Hi", "queue": "east"}
        refused = server.request("POST", f"{SMS}/outgoing", body)
        assert refused.status == 400
        assert "north, rest" in refused.json["errors"]["queue"]
        ids = [
            server.request("POST", f"{SMS}/outgoing", body | {"queue": queue}).json["message_id"]["79161234567"]
            for queue in ("north", "rest")
        ]
        outgoing = smsd.spool / "outgoing"
        wait_until(lambda: not list(outgoing.glob("smsgw.*")), outgoing, timeout=120)
        listed = server.request("GET", f"{SMS}/checked/").json
        assert set(listed["message_id"]) == set(ids)
        for id in ids:
            assert server.request("GET", f"{SMS}/checked/{id}").json["text"] == "Hi"
            assert server.request("DELETE", f"{SMS}/checked/{id}").status == 403


@pytest.mark.parametrize("trust", [True, False])
def test_what_is_cancelled_reaches_no_phone_and_all_else_one(
    tmp_path: Path, serve: Callable[..., Server], trust: bool
) -> None:
    """Clients post, and take back every second message at once, while smsd takes what it finds."""
    turns, bulk = (8, 10) if trust else (1, 2)  # without trust_outgoing smsd takes two files a second
    with Smsd(tmp_path, modems=2, trust_outgoing=trust) as smsd:
        server = serve(smsd, {"threads": "40"}, fsync="false")
        answers: dict[str, int] = {}

        def post_and_cancel(client: int) -> None:
            for turn in range(turns):
                numbers = [f"7916{client:03}{turn:02}{place:02}" for place in range(bulk)]
                ids = server.send(numbers).json["message_id"]
                number = numbers[client % bulk]
                answers[number] = server.request("DELETE", f"{SMS}/outgoing/{ids[number]}").status
                posted.extend(numbers)

        posted: list[str] = []
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(post_and_cancel, range(20)))
        assert set(answers.values()) <= {200, 404}
        cancelled = {number for number, status in answers.items() if status == 200}
        smsd.wait("sent", len(posted) - len(cancelled), timeout=120)
        sent = [message.number for modem in smsd.modems for message in modem.messages()]
        assert sorted(sent) == sorted(set(posted) - cancelled)
        assert cancelled
        state = smsd.spool / "outgoing" / ".smsgw"
        assert len(list((state / "cancelled").iterdir())) == len(cancelled)
        assert not list((state / "cancelling").iterdir())
        assert not list((smsd.spool / "outgoing").glob("*.LOCK"))


def test_the_spool_of_other_programs(smsd: Smsd, serve: Callable[..., Server]) -> None:
    server = serve(smsd)
    smsd.put("cron.1", b"To: 79161234567\nFrom: lvv\n\nfrom cron")
    smsd.put("cron.2", b"To: 79161234568\n\nfrom nobody")
    smsd.wait("sent", 2)
    assert server.request("GET", f"{SMS}/sent/cron.1").json["text"] == "from cron"
    assert server.request("GET", f"{SMS}/sent/cron.2").status == 404
    assert server.request("GET", f"{SMS}/sent/cron.2", user="root").json["text"] == "from nobody"
    assert json.loads(server.request("GET", f"{SMS}/sent/").body)["message_id"] == ["cron.1"]


def test_more_than_smsd_shall_have_at_once_arrives_in_turn(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """A bulk passes through a shallow ``outgoing``, once each; others do not wait for its end, nor does an alarm."""
    with Smsd(tmp_path, modems=2) as smsd:
        for modem in smsd.modems:
            modem.delay = 0.05
        server = serve(smsd, outgoing_depth="6")
        bulk = [f"7916{place:07}" for place in range(150)]
        assert server.send(bulk).status == 201
        smsd.wait("sent", 5)
        (later,) = server.request("POST", "/api/v2/messages", scheduled(["79680000003"], 2)).json["messages"]
        assert server.send(["79680000001"], user="ops").status == 201
        alarm = {"mobiles": ["79680000002"], "text": "Alarm", "priority": "high"}
        assert server.request("POST", f"{SMS}/outgoing", alarm, user="ops").status == 201
        paths = smsd.wait("sent", 153, timeout=60)
        assert len({path.name for path in paths}) == 153
        sent = [message.number for modem in smsd.modems for message in modem.messages()]
        assert sorted(sent) == sorted([*bulk, "79680000001", "79680000002", "79680000003"])
        order = [number_of(path) for path in paths]
        assert order.index("79680000001") < 100
        assert order.index("79680000002") < 100
        found = server.request("GET", later["url"]).json
        assert (found["status"], later["status"]) == ("sent", "scheduled")
        assert datetime.fromisoformat(found["send_at"]) <= datetime.fromisoformat(found["sent_at"]) + timedelta(
            seconds=1
        )


def scheduled(numbers: list[str], seconds: float) -> dict[str, object]:
    return {"to": numbers, "text": "Hi", "send_at": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()}


def number_of(path: Path) -> str:
    return path.read_bytes().partition(b"\n")[0].removeprefix(b"To: ").decode()
