"""Status reports: which message each is about, and what they say of it, as clients read it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsgw.spool import file
from smsgw.spool.following import reports
from smsgw.spool.layout import from_folder
from tests.conftest import Gateway, make_spool

DAY, HOUR = 86400, 3600
NOW = time.time() - 1000  # when the first of a test's messages was sent


def clock(at: float) -> str:
    """That time as smsd writes it."""
    return time.strftime("%y-%m-%d %H:%M:%S", time.localtime(NOW + at))


class Left:
    """What smsd leaves of messages and reports, at seconds after ``NOW``."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self._count = 0

    def sent(
        self,
        id: str,
        at: float,
        ids: str,
        to: str = "79680000007",
        modem: str = "GSM1",
        took: int = 0,
        owner: str = "lvv",
    ) -> Path:
        head = f"To: {to}\nFrom: {owner}\nModem: {modem}\nSent: {clock(at)}\nSending_time: {took}\nMessage_id: {ids}\n"
        return self._put("sent", id, f"{head}\nHi", at)

    def report(
        self,
        at: float,
        byte: int,
        status: str = "0,Ok",
        number: str = "79680000007",
        modem: str = "GSM1",
        taken: tuple[float, float] | None = None,
    ) -> Path:
        """``taken``: when the network says that it took the message, and that it was done with it."""
        self._count += 1
        since, until = map(clock, taken) if taken else ("x", f"after {at:g} s")
        text = f"SMS STATUS REPORT\nMessage_id: {byte}\nDischarge_timestamp: {until}\nStatus: {status}\n"
        head = f"From: {number}\nSent: {since}\nReceived: {clock(at)}\nModem: {modem}\n"
        return self._put("report", f"{modem}.{self._count:06}", f"{head}\n{text}", at)

    def _put(self, kind: str, name: str, content: str, at: float) -> Path:
        path = self.spool / kind / f".{name}"
        path.write_text(content)
        os.utime(path, (NOW + at, NOW + at))
        return path.rename(self.spool / kind / name)


class Network(Left):
    """The same, and what a gateway says of it."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway.spool)
        self.gateway = gateway

    def delivered(self, id: str) -> Any:
        """The field of that name."""
        return self.gateway.get(f"/api/v1.0/sms/sent/{id}").json.get("Delivered")

    def code(self, id: str) -> int | None:
        """Of the report that decided."""
        said = self.gateway.get(f"/api/v2/messages/{id}", user="root").json["report"]
        return None if said is None else said["code"]


@pytest.fixture
def network(make_gateway: Callable[..., Gateway]) -> Network:
    return Network(make_gateway())


def test_delivered(network: Network) -> None:
    network.sent("m1", 0, "21")
    assert network.delivered("m1") is None
    network.report(1, 21, "48,Temporary error")
    assert network.delivered("m1") is None
    network.report(2, 21)
    assert network.delivered("m1") == "after 2 s"


def test_undelivered(network: Network) -> None:
    network.sent("m1", 0, "21")
    network.report(1, 21, "70,No interworking available")
    assert network.delivered("m1") is None
    assert network.code("m1") == 70


@pytest.mark.parametrize(
    ("first", "second", "decides"), [(0, 70, 0), (70, 0, 70), (32, 70, 70), (63, 31, 31), (64, 255, 64)]
)
def test_the_first_final_one_counts(network: Network, first: int, second: int, decides: int) -> None:
    network.report(9, 21, f"{second},later")
    network.report(5, 21, f"{first},earlier")
    network.sent("m1", 0, "21")
    assert network.code("m1") == decides


@pytest.mark.parametrize("to", ["79680000007", "+79680000007", "0079680000007", "+7 968 000-00-07"])
def test_numbers_however_they_are_written(network: Network, to: str) -> None:
    network.sent("m1", 0, "21", to=to)
    network.report(1, 21)
    assert network.delivered("m1")


def test_short_numbers(network: Network) -> None:
    network.sent("m1", 0, "21", to="s911")
    network.report(1, 21, number="911")
    assert network.delivered("m1")


def test_of_others_it_says_nothing(network: Network) -> None:
    network.sent("m1", 0, "21")
    network.report(1, 22)
    network.report(1, 21, number="79680000008")
    network.report(1, 21, modem="GSM2")
    network.report(-60, 21)  # about one that was sent before
    assert network.delivered("m1") is None


def test_the_byte_wraps(network: Network) -> None:
    for number, at in enumerate((0, 100, 200)):
        network.sent(f"m{number}", at, "21")
    network.report(190, 21, "70,No")
    network.report(201, 21)
    assert [network.code(f"m{number}") for number in range(3)] == [None, 70, 0]


def test_a_report_before_its_message(network: Network) -> None:
    network.sent("m0", 0, "21")
    network.report(1, 21)
    network.report(160, 21)
    network.sent("m1", 200, "21 22", took=60)
    network.report(202, 22)
    assert network.delivered("m0") == "after 1 s"
    assert network.delivered("m1") == "after 202 s"


def test_a_report_comes_within_two_weeks(network: Network) -> None:
    network.sent("m1", -40 * DAY, "21")
    report = network.report(-27 * DAY, 21, "48,Temporary error")
    network.report(-25 * DAY, 21)
    assert network.code("m1") is None
    assert network.gateway.get("/api/v1.0/sms/report/").json["message_id"] == [report.name]
    network.sent("m2", -38 * DAY, "21")
    assert network.delivered("m2")


def test_a_report_that_comes_after_the_next_message(network: Network) -> None:
    """The network says how long it took, in a time zone of its own."""
    network.sent("m1", -9000, "21")
    network.sent("m2", -4000, "21", took=7)
    network.report(-3990, 21, taken=(-4000 - 5 * HOUR, -3991 - 5 * HOUR))
    assert [network.code(id) for id in ("m1", "m2")] == [None, 0]
    network.report(-1000, 21, "70,No", taken=(-9000 - 5 * HOUR, -1002 - 5 * HOUR))
    assert [network.code(id) for id in ("m1", "m2")] == [70, 0]


def test_a_report_that_comes_again_after_the_next_message(network: Network) -> None:
    network.sent("m1", -9000, "21")
    taken = (-9000 - 5 * HOUR, -5003 - 5 * HOUR)
    network.report(-5000, 21, taken=taken)
    network.sent("m2", -4000, "21")
    network.report(-1000, 21, taken=taken)
    assert [network.code(id) for id in ("m1", "m2")] == [0, None]
    network.report(-900, 21, "70,No", taken=(-4000 - 5 * HOUR, -902 - 5 * HOUR))
    assert [network.code(id) for id in ("m1", "m2")] == [0, 70]


def test_times_without_a_year(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """As smsd writes them where its ``datetime_format`` says so: the files' own times count."""
    spool = make_spool(tmp_path / "short")
    folders = "".join(f"{path.name} = {path}\n" for path in spool.iterdir() if path.name != "queues")
    conf = tmp_path / "smsd.conf"
    conf.write_text(f"devices = GSM1\ndatetime_format = %d.%m. %H:%M\n{folders}")
    left = Left(spool)
    for name, at in (("m1", 0), ("m2", 100)):
        path = left.sent(name, at, "21")
        content = path.read_text().replace(f"Sent: {clock(at)}", "Sent: 22.11. 09:16")
        left._put("sent", name, content, at)
    left.report(50, 21)
    left.report(150, 21, "70,No")
    gateway = make_gateway({"smsgw.smsd_conf": str(conf), "smsgw.spool": None})
    network = Network(gateway)
    assert [network.code(id) for id in ("m1", "m2")] == [0, 70]


class Line:
    """What comes of messages that all have one reference, as of a modem that does not count, without any files."""

    def __init__(self) -> None:
        self.moment = from_folder(Path()).moment
        self.went: list[reports.Sending] = []
        self.came: list[reports.Report] = []

    @property
    def reports(self) -> reports.Reports:
        return reports.Reports(self.went, self.came)

    def about(self) -> list[str | None]:
        """The messages that the reports are about."""
        return [self.reports.message_of(report) for report in self.came]

    def sent(self, id: str, at: float, took: int) -> None:
        head = {"To": "911", "Modem": "GSM1", "Message_id": "1", "Sending_time": str(took)}
        sending = reports.sending_of(id, file.SpoolFile(head, b"", True), at, "lvv", self.moment)
        assert sending
        self.went.append(sending)

    def report(self, name: str, at: float, taken: str, discharged: str) -> reports.Report:
        text = f"SMS STATUS REPORT\nMessage_id: 1\nDischarge_timestamp: {discharged}\nStatus: 0,Ok"
        head = {"From": "911", "Modem": "GSM1", "Sent": taken}
        found = file.SpoolFile(head, text.encode(), True)
        report = reports.parse(f"report/{name}", found, at, self.moment)
        assert report
        self.came.append(report)
        return report


SECONDS = st.floats(0.01, 3)
TOOK = st.sampled_from([0, 7, 200])
DELAYS = st.sampled_from([1, 30, 500, 5000, 3 * DAY])


@given(
    gap=st.sampled_from([300, 2000, DAY]),
    took=st.tuples(TOOK, TOOK),
    delays=st.tuples(DELAYS, DELAYS),
    fetched=st.tuples(SECONDS, SECONDS),
    behind=st.sampled_from([0, 0.5, 30, 3 * HOUR, 14 * HOUR, 9 * DAY]),
)
def test_of_two_messages_each_gets_its_own_report(
    gap: int, took: tuple[int, int], delays: tuple[int, int], fetched: tuple[float, float], behind: float
) -> None:
    """In whatever order they come; the network's clock is behind ours, but goes."""
    line = Line()
    sent = (0.0, float(gap + took[1]))
    for number, at in enumerate(sent):
        line.sent(f"m{number}", NOW + at, took[number])
    said = [
        line.report(str(n), NOW + at + delay + late, clock(at - 0.5 - behind), clock(at + delay - behind))
        for n, (at, delay, late) in enumerate(zip(sent, delays, fetched, strict=True))
    ]
    assert line.about() == ["m0", "m1"]
    for number, report in enumerate(said):
        assert line.reports.fate(f"m{number}") == report.status


ABSURD = st.sampled_from(["", "x", "00-00-00 00:00:00", "99-12-31 23:59:59"])
CLOCKS = ABSURD | st.integers(-3000, 20000).map(clock) | st.integers(-20 * DAY, 20 * DAY).map(clock)


@given(
    st.lists(
        st.tuples(st.integers(1, 3000), TOOK, st.sampled_from([-1.5, 0.01, 3]), CLOCKS, CLOCKS),
        min_size=1,
        max_size=8,
        unique_by=lambda message: message[3:],  # what says the same again is taken for the same
    )
)
def test_whatever_the_network_says_of_times(messages: list[tuple[int, int, float, str, str]]) -> None:
    """Where each report comes before the next message, what it is about is as if the network said nothing."""
    silent, absurd, now = Line(), Line(), NOW
    for number, (pause, took, delay, *times) in enumerate(messages):
        now += 3 + pause + took + reports.EARLY
        for line, said in ((silent, ["", ""]), (absurd, times)):
            line.sent(f"m{number}", now, took)
            line.report(f"{number}", now + delay, *said)
    assert absurd.about() == silent.about()
    if all(delay > 0 for _, _, delay, *_ in messages):
        assert absurd.about() == [f"m{number}" for number in range(len(messages))]


def test_a_report_is_its_owners_once_there_is_a_message(network: Network) -> None:
    def listed() -> list[str]:
        found: list[str] = network.gateway.get("/api/v1.0/sms/report/").json["message_id"]
        return found

    report = network.report(1, 21)
    stranger = network.report(1, 22)
    assert listed() == []
    network.sent("m0", 0, "20")
    network.sent("m1", 500, "22")
    assert listed() == []
    network.sent("m2", 0.5, "21")
    assert listed() == [report.name]
    network.sent("m3", 0, "22")
    assert sorted(listed()) == sorted([report.name, stranger.name])


def test_a_report_that_is_there_before_its_message_is_that_one_s_owner_s(network: Network) -> None:
    """Also where an earlier message, which has its report, is another user's."""

    def listed(user: str) -> set[str]:
        return set(network.gateway.get("/api/v1.0/sms/report/", user=user).json["message_id"])

    network.sent("m1", -100, "21")
    first, second = network.report(-90, 21), network.report(0, 21)
    assert listed("lvv") == {first.name, second.name}
    network.sent("m2", 1, "21", owner="ops")
    assert network.code("m2") == 0
    assert (listed("lvv"), listed("ops")) == ({first.name}, {second.name})


def test_a_later_message_takes_no_report_away(network: Network) -> None:
    """Some modems count little, or not at all."""
    network.sent("m0", 0, "1")
    network.report(1, 1)
    assert network.delivered("m0")
    network.sent("m1", 1.5, "1")
    assert network.delivered("m0")
    assert network.delivered("m1") is None
    network.report(3, 1)
    assert network.delivered("m1") == "after 3 s"


def test_parts(network: Network) -> None:
    network.sent("m1", 0, "255 1 2 .")
    for at, byte in ((1, 2), (2, 255), (3, 2), (4, 1)):
        assert network.delivered("m1") is None
        network.report(at, byte)
    network.report(5, 1, "70,too late")
    assert network.delivered("m1") == "after 4 s"


def test_a_part_that_is_lost(network: Network) -> None:
    network.sent("m1", 0, "1 2 3 .")
    for at, byte, status in ((1, 2, "0,Ok"), (2, 3, "70,No"), (3, 1, "0,Ok"), (4, 3, "0,Ok")):
        network.report(at, byte, status)
    assert network.code("m1") == 70


def test_files_that_are_deleted(network: Network) -> None:
    sent = network.sent("m1", 0, "21")
    report = network.report(1, 21)
    assert network.delivered("m1")
    report.unlink()
    assert network.delivered("m1")
    sent.unlink()
    assert network.code("m1") == 0


@pytest.mark.parametrize("touched", ["message", "report", "both"])
def test_files_that_were_touched_or_put_back(network: Network, touched: str) -> None:
    """What smsd wrote says when; the next message with that reference shows what order they are in."""
    sent = network.sent("m1", -20 * DAY, "21", took=7)
    report = network.report(-20 * DAY + 5, 21)
    network.sent("m2", -1.5 * DAY, "21")
    for path in {"message": [sent], "report": [report], "both": [report, sent]}[touched]:
        path.touch()
    assert [network.code(id) for id in ("m1", "m2")] == [0, None]
    found = network.gateway.get("/api/v2/messages/m1", user="root").json
    assert found["report"]["status"] == "delivered"
    at = datetime.fromisoformat(found["delivered_at"])
    assert at.timestamp() == pytest.approx(NOW - 20 * DAY + 5, abs=1)


def test_where_smsd_keeps_no_reports(network: Network) -> None:
    (network.gateway.spool / "report").rmdir()
    network.sent("m1", 0, "21")
    assert network.delivered("m1") is None


def test_reports_among_received_messages(network: Network) -> None:
    """smsd says ``UDH: no`` of reports; of a text that only looks like one it says nothing."""
    network.sent("m1", 0, "21")
    text = "SMS STATUS REPORT\nMessage_id: 21\nDischarge_timestamp: now\nStatus: 0,Ok"
    head = "From: 79680000007\nModem: GSM1\nAlphabet: ISO\n"
    network.gateway.put("incoming", "GSM1.a", f"{head}\n{text}")
    network.gateway.put("incoming", "GSM1.b", f"{head.replace('ISO', 'binary')}UDH: no\n\n{text}")
    assert network.delivered("m1") is None
    network.gateway.put("incoming", "GSM1.c", f"{head}UDH: no\n\n{text}")
    assert network.delivered("m1") == "now"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SMS STATUS REPORT",
        "Message_id: 21\nStatus: 0,Ok",
        "SMS STATUS REPORT\nMessage_id: 21\nStatus: 0",
        "SMS STATUS REPORT\nMessage_id: 21\nStatus: 256,Ok",
        "SMS STATUS REPORT\nMessage_id: 21\nStatus: -1,Ok",
        "SMS STATUS REPORT\nMessage_id: 21\nStatus: \u0660,Ok",
        "SMS STATUS REPORT\nMessage_id: 2²\nStatus: 0,Ok",
        f"SMS STATUS REPORT\nMessage_id: {'9' * 5000}\nStatus: 0,Ok",
        "SMS STATUS REPORT\nMessage_id: 21\nStatus: ,",
    ],
)
def test_what_is_no_report(network: Network, text: str) -> None:
    network.sent("m1", 0, f"21 2² {'9' * 5000} \u0660 -1")
    network.gateway.put("report", "GSM1.x", f"From: 79680000007\nModem: GSM1\nAlphabet: UTF-8\n\n{text}")
    assert network.delivered("m1") is None
    network.report(1, 21)
    assert network.delivered("m1")


PIECES = st.sampled_from(
    [
        *(
            "From: 79680000007",
            "Modem: GSM1",
            "Subject: GSM1",
            "UDH: no",
            "Alphabet: UCS2",
            "Alphabet: binary",
            ":",
            " ",
        ),
        *("SMS STATUS REPORT", "Message_id: 21", "Message_id: -1", "Message_id: \u0661", "Message_id:", "Message_id"),
        *("Status: 0,Ok", "Status: 70,", "Status: 999,Ok", "Status: 0", "Status: 0," + "\x1b" * 300, "Status: ,,"),
        *("Discharge_timestamp: 26-11-23 10:10:52", "\0", "\r", "\ud800", "\n", "\n\n", "x" * 5000),
    ]
)


@given(
    content=st.one_of(st.binary(), st.lists(PIECES, max_size=12).map("\n".join)),
    kind=st.sampled_from(["incoming", "report"]),
    written=st.floats(allow_nan=False, allow_infinity=False),
)
def test_whatever_lies_there_is_a_report_or_none(content: bytes | str, kind: str, written: float) -> None:
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    moment = from_folder(Path()).moment
    if report := reports.parse(f"{kind}/x", file.parse(content), written, moment):
        assert 0 <= report.reference[2] <= 999
        assert 0 <= report.status.code <= 255
        for shown in (report.status.detail, report.status.discharged):
            assert len(shown) <= 200
            assert shown.isprintable()


def test_what_a_report_says_is_one_line(network: Network) -> None:
    network.sent("m1", 0, "21")
    text = f"SMS STATUS REPORT\nMessage_id: 21\nDischarge_timestamp: a\x1b\rb{'x' * 500}\nStatus: 0,\x1b[2J"
    network.gateway.put("report", "GSM1.x", f"From: 79680000007\nModem: GSM1\nAlphabet: UTF-8\n\n{text}")
    assert network.delivered("m1") == f"ab{'x' * 198}"
