"""The lab itself: what a test drops into a real smsd's spool arrives at the emulated modem, and the other way round.

No code of smsgw is used here. Where one of these fails, no other test that uses smsd means anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from . import pdu
from .modem import Later, delivered
from .server import Smsd

NUMBER = "79161234567"
GREETING = "Grüße, 100 €"
CYRILLIC = "Съешь ещё этих мягких французских булок"
EMOJI = "\N{GRINNING FACE}"


@pytest.fixture
def smsd(tmp_path: Path) -> Iterator[Smsd]:
    with Smsd(tmp_path) as smsd:
        yield smsd


def file(text: str, *headers: str, number: str = NUMBER, alphabet: str = "UTF-8") -> bytes:
    """A file for `outgoing`."""
    lines = [f"To: {number}", f"Alphabet: {alphabet}", *headers, "", ""]
    return "\n".join(lines).encode() + text.encode("utf-16-be" if alphabet == "UCS2" else "utf-8", "surrogatepass")


def headers(path: Path) -> dict[str, str]:
    """The headers of a file that smsd wrote."""
    lines = path.read_bytes().partition(b"\n\n")[0].decode().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def body(path: Path) -> bytes:
    """The text of a file that smsd wrote."""
    return path.read_bytes().partition(b"\n\n")[2]


class TestSending:
    def test_gsm(self, smsd: Smsd) -> None:
        smsd.put("one", file(GREETING))
        [message] = smsd.modem.wait(1)
        assert (message.number, message.text, message.flash, message.report) == (NUMBER, GREETING, False, False)
        [part] = message.parts
        assert (part.coding, part.type_of_address, part.reference, part.total, part.index) == ("GSM", 145, None, 1, 1)
        [sent] = smsd.wait("sent")
        assert sent.name == "one"
        assert headers(sent)["Modem"] == "GSM1"

    def test_ucs2(self, smsd: Smsd) -> None:
        smsd.put("one", file(CYRILLIC + EMOJI, alphabet="UCS2"))
        [message] = smsd.modem.wait(1)
        assert message.text == CYRILLIC + EMOJI
        assert message.parts[0].coding == "UCS2"

    def test_gsm_in_parts(self, smsd: Smsd) -> None:
        text = "0123456789" * 40
        smsd.put("one", file(text))
        [message] = smsd.modem.wait(1)
        assert message.text == text
        assert [len(part.payload) for part in message.parts] == [153, 153, 94]
        assert [(part.index, part.total) for part in message.parts] == [(1, 3), (2, 3), (3, 3)]

    def test_an_emoji_across_a_cut_arrives(self, smsd: Smsd) -> None:
        text = "я" * 66 + EMOJI + "я" * 10
        smsd.put("one", file(text, alphabet="UCS2"))
        [message] = smsd.modem.wait(1)
        assert message.text == text
        assert [len(part.payload) for part in message.parts] == [134, 22]

    def test_an_escape_across_a_cut_does_not(self, smsd: Smsd) -> None:
        smsd.put("one", file("a" * 152 + "€" + "a" * 10))
        [message] = smsd.modem.wait(1)
        assert message.text == "a" * 152 + " e" + "a" * 10

    def test_flash_report_validity_and_short_number(self, smsd: Smsd) -> None:
        smsd.put("one", file("now", "Flash: yes", "Report: yes", "Validity: 1 hour", number="s911"))
        [message] = smsd.modem.wait(1)
        assert (message.number, message.flash, message.report) == ("911", True, True)
        [part] = message.parts
        assert (part.type_of_address, part.lifetime) == (129, timedelta(hours=1))

    def test_binary(self, smsd: Smsd) -> None:
        smsd.put("one", f"To: {NUMBER}\nAlphabet: binary\nUDH: no\n\n".encode() + bytes(range(100)))
        [message] = smsd.modem.wait(1)
        assert message.parts[0].coding == "binary"
        assert message.parts[0].payload == bytes(range(100))

    def test_many(self, smsd: Smsd) -> None:
        for index in range(50):
            smsd.put(f"many{index}", file(f"message {index}"))
        assert {message.text for message in smsd.modem.wait(50)} == {f"message {index}" for index in range(50)}
        smsd.wait("sent", 50)

    def test_refused_number_fails(self, smsd: Smsd) -> None:
        smsd.modem.refuse("7999", "+CMS ERROR: 38")
        smsd.put("bad", file("nobody", number="79991234567"))
        smsd.put("good", file("somebody"))
        [failed] = smsd.wait("failed")
        assert failed.name == "bad"
        assert headers(failed)["Fail_reason"] == "+CMS ERROR: 38 (Network out of order)"
        assert [path.name for path in smsd.wait("sent")] == ["good"]
        assert [message.text for message in smsd.modem.messages()] == ["somebody"]


class TestReceiving:
    def test_gsm(self, smsd: Smsd) -> None:
        smsd.modem.receive(NUMBER, GREETING)
        [path] = smsd.wait("incoming")
        assert (headers(path)["From"], headers(path)["Alphabet"]) == (NUMBER, "ISO")
        assert body(path).decode("iso-8859-15") == GREETING

    def test_ucs2(self, smsd: Smsd) -> None:
        smsd.modem.receive(NUMBER, CYRILLIC)
        [path] = smsd.wait("incoming")
        assert headers(path)["Alphabet"] == "UCS2"
        assert body(path).decode("utf-16-be") == CYRILLIC

    @pytest.mark.parametrize("texts", [("one, ", "two, ", "three"), ("раз, ", "два \ud83d", "\ude00, три")])
    def test_parts_are_joined(self, smsd: Smsd, texts: tuple[str, ...]) -> None:
        smsd.modem.receive(NUMBER, *texts)
        smsd.modem.wait_fetched()
        [path] = smsd.wait("incoming")
        encoding = {"ISO": "iso-8859-15", "UCS2": "utf-16-be"}[headers(path)["Alphabet"]]
        assert body(path) == "".join(texts).encode("utf-16", "surrogatepass").decode("utf-16").encode(encoding)

    def test_a_lost_part(self, smsd: Smsd) -> None:
        smsd.modem.receive(NUMBER, "one, ", "two", order=[2], reference=7)
        smsd.modem.wait_fetched()
        smsd.modem.receive(NUMBER, "whole")
        [path] = smsd.wait("incoming")
        assert body(path) == b"whole"
        smsd.modem.receive(NUMBER, "one, ", "two", order=[1], reference=7)
        [_, path] = smsd.wait("incoming", 2)
        assert body(path) == b"one, two"

    @pytest.mark.parametrize("order", [(3, 2, 1), (1, 3, 2), (1, 1, 2, 3)])
    @pytest.mark.parametrize("reference", [7, 700])
    def test_parts_in_another_order(self, smsd: Smsd, order: tuple[int, ...], reference: int) -> None:
        smsd.modem.receive(NUMBER, "one, ", "two, ", "three", order=order, reference=reference)
        smsd.modem.wait_fetched()
        [path] = smsd.wait("incoming")
        assert body(path) == b"one, two, three"

    def test_parts_of_two_messages_in_turn(self, smsd: Smsd) -> None:
        """Of two senders with one reference, and of one sender with two."""
        for number, reference in ((NUMBER, 7), ("79160000000", 7), (NUMBER, 8)):
            smsd.modem.receive(number, f"{number} ", f"{reference}", order=[1], reference=reference)
        for number, reference in ((NUMBER, 8), ("79160000000", 7), (NUMBER, 7)):
            smsd.modem.receive(number, f"{number} ", f"{reference}", order=[2], reference=reference)
        texts = {body(path).decode() for path in smsd.wait("incoming", 3)}
        assert texts == {f"{NUMBER} 7", "79160000000 7", f"{NUMBER} 8"}

    def test_each_modem_receives_its_own(self, tmp_path: Path) -> None:
        with Smsd(tmp_path, modems=3) as smsd:
            for modem in smsd.modems:
                modem.receive(NUMBER, "to ", modem.name, reference=7)
            found = {headers(path)["Modem"]: body(path).decode() for path in smsd.wait("incoming", 3)}
            assert found == {modem.name: f"to {modem.name}" for modem in smsd.modems}

    def test_from_a_name(self, smsd: Smsd) -> None:
        smsd.modem.receive("MyBank", "Your code is 1234")
        [path] = smsd.wait("incoming")
        assert headers(path)["From"] == "MyBank"

    def test_more_than_the_memory_holds(self, smsd: Smsd) -> None:
        for index in range(120):
            smsd.modem.receive(NUMBER, f"message {index}")
        texts = {body(path).decode() for path in smsd.wait("incoming", 120)}
        assert texts == {f"message {index}" for index in range(120)}


class TestReports:
    def test_by_hand(self, smsd: Smsd) -> None:
        smsd.put("one", file("hello", "Report: yes"))
        [message] = smsd.modem.wait(1)
        [sent] = smsd.wait("sent")
        smsd.modem.report(message.parts[0], 70)
        [report] = smsd.wait("report")
        assert headers(report)["From"] == NUMBER
        lines = body(report).decode().splitlines()
        assert lines[:2] == ["SMS STATUS REPORT", f"Message_id: {headers(sent)['Message_id']}"]
        assert lines[3].startswith("Status: 70,")

    def test_played_for_each_part_that_asks(self, smsd: Smsd) -> None:
        smsd.modem.reports = delivered
        smsd.put("silent", file("hello"))
        smsd.put("three", file("0123456789" * 40, "Report: yes"))
        reports = smsd.wait("report", 3)
        smsd.wait("sent", 2)
        ids = [body(report).decode().splitlines()[1] for report in reports]
        parts = [part for part in smsd.modem.pdus if part.report_requested]
        assert sorted(ids) == sorted(f"Message_id: {part.mr}" for part in parts)

    def test_left_out_and_doubled(self, smsd: Smsd) -> None:
        smsd.modem.reports = lambda part: {1: (), 2: (48, 0), 3: (0, 0)}[part.index]
        smsd.put("three", file("0123456789" * 40, "Report: yes"))
        reports = smsd.wait("report", 4)
        statuses = sorted(body(report).decode().splitlines()[3].split(",")[0] for report in reports)
        assert statuses == ["Status: 0", "Status: 0", "Status: 0", "Status: 48"]

    def test_late_and_in_another_order(self, smsd: Smsd) -> None:
        smsd.modem.mr, smsd.modem.most_mr = 2, 4
        smsd.modem.reports = lambda part: {1: (Later(0, 2),), 2: (Later(70, 99),), 3: (0,)}[part.index]
        smsd.put("three", file("0123456789" * 40, "Report: yes"))
        reports = smsd.wait("report", 2)
        assert [part.mr for part in smsd.modem.pdus] == [3, 4, 1]
        assert [body(report).decode().splitlines()[1] for report in reports] == ["Message_id: 1", "Message_id: 3"]


class TestLife:
    def test_queues(self, tmp_path: Path) -> None:
        with Smsd(tmp_path, modems=2, queues={"north": ["7812", "s"], "rest": ["7"]}) as smsd:
            smsd.put("one", file("a", number="78121234567"))
            smsd.put("two", file("b"))
            smsd.put("bad", file("c", "Queue: south"))
            smsd.wait("sent", 2)
            [failed] = smsd.wait("failed")
            assert headers(failed)["Fail_reason"] == "Wrong provider queue"
            assert {name for name, path in smsd.queues.items() if f" to {path}\n" in smsd.log} == {"north", "rest"}

    def test_utf8_and_reports_in_incoming(self, tmp_path: Path) -> None:
        with Smsd(tmp_path, incoming_utf8=True, report=False) as smsd:
            smsd.modem.reports = delivered
            text = pdu.GSM_CHARACTERS.replace("¤", "")  # which smsd takes for a euro sign, out and in
            smsd.modem.receive(NUMBER, text)
            [path] = smsd.wait("incoming")
            assert (headers(path)["Alphabet"], body(path).decode()) == ("UTF-8", text)
            smsd.put("one", file("hello", "Report: yes"))
            assert body(smsd.wait("incoming", 2)[1]).startswith(b"SMS STATUS REPORT")

    def test_a_slow_modem_holds_the_file(self, tmp_path: Path) -> None:
        with Smsd(tmp_path) as smsd:
            smsd.modem.delay = 60
            smsd.put("one", file("slow"))
            smsd.modem.wait_busy()
            assert sorted(path.name for path in (smsd.spool / "checked").iterdir()) == ["one", "one.LOCK"]
            assert smsd.modem.messages() == []
            assert smsd.files("sent") == []
            smsd.modem.delay = 0
            smsd.wait("sent")

    def test_the_plug_is_pulled(self, tmp_path: Path) -> None:
        with Smsd(tmp_path) as smsd:
            smsd.modem.delay = 60
            smsd.put("one", file("lost"))
            smsd.modem.wait_busy()
            smsd.modem.unplug()
            assert smsd.files("sent") == []

    def test_killed_and_started_again(self, tmp_path: Path) -> None:
        with Smsd(tmp_path) as smsd:
            smsd.modem.delay = 60
            smsd.put("one", file("again"))
            smsd.modem.wait_busy()
            smsd.kill()
            smsd.modem.delay = 0
            smsd.start()
            [sent] = smsd.wait("sent")
            assert sent.name == "one"
            assert "again" in {message.text for message in smsd.modem.messages()}

    def test_what_keeps_it_from_starting_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="Unknown global setting: nonsense"):
            Smsd(tmp_path, extra="nonsense = yes\n").__enter__()


class TestPdu:
    """The decoder against PDUs written by hand from the standard."""

    @pytest.mark.parametrize("count", range(1, 20))
    @pytest.mark.parametrize("fill", range(7))
    def test_septets(self, count: int, fill: int) -> None:
        septets = bytes((index * 37 + 1) % 128 for index in range(count))
        assert pdu.unpack(pdu.pack(septets, fill), count, fill) == septets

    def test_alphabet(self) -> None:
        assert len(pdu.GSM_CHARACTERS) == 137
        assert pdu.gsm_decode(pdu.gsm_encode(pdu.GSM_CHARACTERS)) == pdu.GSM_CHARACTERS

    def test_a_pdu_that_ends_too_early(self) -> None:
        with pytest.raises(ValueError, match=r"user data"):
            pdu.decode_submit("0011000B919761214365F70000FF05E8329B")
