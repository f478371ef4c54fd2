"""The v1.0 contract, row by row, through HTTP."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

import pytest

from tests.conftest import OUTGOING, Gateway, eventually

SMS = "/api/v1.0/sms"
BAD_IDS = [
    "../outgoing/x",
    "%2e%2e%2foutgoing%2fx",
    "%2fetc%2fpasswd",
    "a%00b",
    "x.LOCK",
    ".smsgw",
    "%ff",
    "a" * 300,
    "%0a",
    "x%0a",
]


class TestSend:
    def test_one_file_a_recipient(self, gateway: Gateway) -> None:
        reply = gateway.send(mobiles=["79680000000", "79160000000"])
        assert reply.json["parts_count"] == 1
        assert reply.json["sent_text"] == "Hi, Jack!"
        ids = reply.json["message_id"]
        assert list(ids) == ["79680000000", "79160000000"]
        assert gateway.files() == {
            id: f"To: {number}\nFrom: lvv\nAlphabet: UTF-8\n\nHi, Jack!".encode() for number, id in ids.items()
        }
        assert all(id.startswith("smsgw.http.") for id in ids.values())
        assert "errors" not in reply.json
        assert reply.content_type == "application/json"

    def test_options(self, gateway: Gateway) -> None:
        gateway.send(queue="GSM1", flash=True, priority="high", validity=60, report=True)
        (content,) = gateway.files().values()
        assert content == (
            b"To: 79680000000\nFrom: lvv\nAlphabet: UTF-8\nQueue: GSM1\nFlash: yes\nPriority: HIGH\n"
            b"Validity: 60 min\nReport: yes\n\nHi, Jack!"
        )

    def test_no_report_and_no_flash(self, gateway: Gateway) -> None:
        gateway.send(flash=False, report=False)
        (content,) = gateway.files().values()
        assert b"Flash" not in content
        assert b"Report: no\n" in content

    def test_a_number_written_twice_is_sent_to_once(self, gateway: Gateway) -> None:
        written = ["+7 (968) 000-00-00", "79680000000", "0079680000000", "+79680000000", "79680000000"]
        ids = gateway.send(mobiles=written).json["message_id"]
        assert set(ids) == set(written)
        assert len(set(ids.values())) == 1
        assert len(gateway.files()) == 1

    def test_some_numbers_are_none(self, gateway: Gateway) -> None:
        reply = gateway.send(mobiles=["79680000000", "12", "Jack", "s79680000000"])
        assert list(reply.json["message_id"]) == ["79680000000"]
        assert set(reply.json["errors"]) == {"12", "Jack", "s79680000000"}
        assert len(gateway.files()) == 1

    def test_all_numbers_are_none(self, gateway: Gateway) -> None:
        reply = gateway.send(mobiles=["12", "Jack"], status=400)
        assert set(reply.json["errors"]) == {"12", "Jack"}
        assert gateway.files() == {}

    def test_short_numbers(self, gateway: Gateway) -> None:
        ids = gateway.send(mobiles=["911", "s911", "+911"]).json["message_id"]
        assert len(set(ids.values())) == 1
        assert next(iter(gateway.files().values())).startswith(b"To: s911\n")

    def test_numbers_of_a_region(self, make_gateway: Any) -> None:
        gateway = make_gateway({"smsgw.region": "RU"})
        ids = gateway.send(mobiles=["8 (968) 000-00-00", "+79680000000", "+81312345678"]).json["message_id"]
        assert len(set(ids.values())) == 2
        assert {content.split(b"\n")[0] for content in gateway.files().values()} == {
            b"To: 79680000000",
            b"To: 81312345678",
        }
        assert "8613800138000" in gateway.send(mobiles=["8613800138000"], status=400).json["errors"]

    @pytest.mark.lasting
    @pytest.mark.parametrize(
        "body",
        [
            {"mobiles": ["79680000000"]},
            {"text": "a"},
            {"mobiles": [], "text": "a"},
            {"mobiles": ["79680000000"], "text": ""},
            {"mobiles": "79680000000", "text": "a"},
            {"mobiles": [79680000000], "text": "a"},
            {"mobiles": ["79680000000", None], "text": "a"},
            {"mobiles": ["79680000000"], "text": 5},
            {"mobiles": ["79680000000"], "text": None},
            {"mobiles": ["79680000000"], "text": ["a"]},
            {"mobiles": ["79680000000"], "text": "\ud800"},
            {"mobiles": ["79680000000"], "text": "a", "queue": ""},
            {"mobiles": ["79680000000"], "text": "a", "queue": 1},
            {"mobiles": ["79680000000"], "text": "a", "queue": None},
            {"mobiles": ["79680000000"], "text": "a", "queue": "a\nInclude: /etc/passwd"},
            {"mobiles": ["79680000000"], "text": "a", "queue": "a\x85b"},
            {"mobiles": ["79680000000"], "text": "a", "queue": "\u2028"},
            {"mobiles": ["79680000000"], "text": "a", "queue": "\udc80"},
            {"mobiles": ["79680000000"], "text": "a", "queue": "é" * 50},
            {"mobiles": ["79680000000"], "text": "a", "flash": "yes"},
            {"mobiles": ["79680000000"], "text": "a", "flash": 1},
            {"mobiles": ["79680000000"], "text": "a", "priority": "low"},
            {"mobiles": ["79680000000"], "text": "a", "priority": True},
            {"mobiles": ["79680000000"], "text": "a", "validity": "5"},
            {"mobiles": ["79680000000"], "text": "a", "validity": True},
            {"mobiles": ["79680000000"], "text": "a", "validity": 1.0},
            {"mobiles": ["79680000000"], "text": "a", "validity": 0},
            {"mobiles": ["79680000000"], "text": "a", "validity": -5},
            {"mobiles": ["79680000000"], "text": "a", "validity": 10**12},
            {"mobiles": ["79680000000"], "text": "a", "report": "no"},
        ],
    )
    def test_a_field_is_wrong(self, gateway: Gateway, body: dict[str, Any]) -> None:
        reply = gateway.send(body, status=400)
        (field,) = reply.json["errors"]
        assert field in reply.json["error"]
        assert gateway.files() == {}

    @pytest.mark.lasting
    def test_several_fields_are_wrong(self, gateway: Gateway) -> None:
        assert set(gateway.send({"text": 5, "flash": 1}, status=400).json["errors"]) == {"mobiles", "text", "flash"}

    @pytest.mark.lasting
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"null",
            b"[]",
            b'"text"',
            b"\xff\xfe",
            b"[" * 1500,
            b'{"a":' * 1500,
            b"1" * 5000,
            b'{"mobiles": ["79680000000"], "text": "\xff"}',
        ],
    )
    def test_not_a_json_object(self, gateway: Gateway, body: bytes) -> None:
        reply = gateway.call("POST", OUTGOING, body, content_type="application/json", status=400)
        assert reply.json["error"]
        assert gateway.files() == {}

    def test_unknown_fields_are_ignored(self, gateway: Gateway) -> None:
        gateway.send(reference="order-17", send_at=None)
        assert len(gateway.files()) == 1

    def test_too_many_parts(self, make_gateway: Any) -> None:
        gateway = make_gateway({"smsgw.max_parts": "2"})
        assert gateway.send(text="a" * 306).json["parts_count"] == 2
        assert "text" in gateway.send(text="a" * 307, status=400).json["errors"]
        assert len(gateway.files()) == 1

    def test_too_many_recipients(self, make_gateway: Any) -> None:
        gateway = make_gateway({"smsgw.max_recipients": "2"})
        gateway.send(mobiles=["79680000001", "79680000002"])
        assert "mobiles" in gateway.send(mobiles=["7968000000" + n for n in "345"], status=400).json["errors"]
        assert len(gateway.files()) == 2

    def test_body_too_large(self, make_gateway: Any) -> None:
        gateway = make_gateway({"smsgw.max_body": "100"})
        body = json.dumps({"mobiles": ["79680000000"], "text": "a" * 100})
        reply = gateway.call("POST", OUTGOING, body, content_type="application/json", status=413)
        assert "100" in reply.json["error"]
        gateway.call("POST", OUTGOING, body, content_type="application/json", status=413, user=None)
        assert gateway.files() == {}

    @pytest.mark.lasting
    @pytest.mark.parametrize(
        "content_type",
        ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=bogus", "application/jsonx", ""],
    )
    def test_content_type_is_not_json(self, gateway: Gateway, content_type: str) -> None:
        body = b'{"mobiles": ["79680000000"], "text": "a"}'
        assert gateway.call("POST", OUTGOING, body, content_type=content_type, status=415).json["error"]
        gateway.call("POST", OUTGOING, body, content_type=content_type, status=401, user=None)
        assert gateway.files() == {}

    @pytest.mark.parametrize(
        "content_type",
        ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
    )
    def test_content_type_is_json(self, gateway: Gateway, content_type: str) -> None:
        body = '{"mobiles": ["79680000000"], "text": "Ж"}'.encode()
        reply = gateway.call("POST", OUTGOING, body, content_type=content_type, status=201)
        assert reply.json["sent_text"] == "Ж"

    def test_nobody_may_send(self, make_gateway: Any) -> None:
        gateway = make_gateway({"smsgw.plugins": "htpasswd", "smsgw.allow.admins": None})
        reply = gateway.send(status=403)
        assert list(reply.json["errors"]) == ["79680000000"]
        assert gateway.files() == {}

    def test_the_first_that_applies_is_the_answer(self, make_gateway: Any) -> None:
        gateway = make_gateway(
            {
                "smsgw.plugins": "htpasswd allow whitelist",
                "smsgw.whitelist.numbers": "lvv: 7916*",
                "smsgw.max_parts": "1",
                "smsgw.spool": "/nonexistent",
            }
        )
        forbidden = ["79680000000"]
        assert "text" in gateway.send(mobiles=forbidden, text="a" * 161, status=400).json["errors"]
        gateway.send(mobiles=forbidden, status=403)
        gateway.send(mobiles=["79160000000"], status=503)
        gateway.send(mobiles=[*forbidden, "12"], status=403)


class TestSendByGet:
    def test_off(self, gateway: Gateway) -> None:
        reply = gateway.get(f"{OUTGOING}?mobiles=79680000000&text=a", status=405)
        assert reply.json["error"]
        assert reply.headers["Allow"] == "POST"
        gateway.get(f"{OUTGOING}?mobiles=79680000000&text=a", user=None, status=401)
        assert gateway.files() == {}

    def test_on(self, make_gateway: Any) -> None:
        gateway = make_gateway({"smsgw.get_send": "true"})
        reply = gateway.get(f"{OUTGOING}?mobiles=+79680000000,79160000000,%2B79150000000&text=Hi+Jack%2B", status=201)
        assert set(reply.json["message_id"]) == {"+79680000000", "79160000000", "+79150000000"}
        assert reply.json["sent_text"] == "Hi Jack+"
        assert len(gateway.files()) == 3

    @pytest.mark.parametrize(
        "query",
        ["", "text=a", "mobiles=79680000000", "mobiles=&text=a", "mobiles=79680000000&text=%ff", "text=a&mobiles=x"],
    )
    def test_bad(self, make_gateway: Any, query: str) -> None:
        gateway = make_gateway({"smsgw.get_send": "true"})
        assert gateway.get(f"{OUTGOING}?{query}", status=400).json["error"]
        assert gateway.files() == {}

    def test_options(self, make_gateway: Any) -> None:
        gateway = make_gateway({"smsgw.get_send": "true"})
        gateway.get(f"{OUTGOING}?mobiles=911&text=a&flash=true&report=false&validity=5&priority=high", status=201)
        (content,) = gateway.files().values()
        assert b"Flash: yes\nPriority: HIGH\nValidity: 5 min\nReport: no\n" in content
        gateway.get(f"{OUTGOING}?mobiles=911&text=a&flash=maybe", status=400)

    def test_head_sends_nothing(self, make_gateway: Any) -> None:
        gateway = make_gateway({"smsgw.get_send": "true"})
        gateway.call("HEAD", f"{OUTGOING}?mobiles=79680000000&text=a", status=405)
        assert gateway.files() == {}


class TestRead:
    SENT = "To: 79160000000\nFrom: lvv\nAlphabet: UTF-8\nModem: GSM1\nSent: 26-11-22 09:16:03\n\nHi, Jack!"

    def test_sent(self, gateway: Gateway) -> None:
        gateway.put("sent", "smsgw.http.2bpDiR", self.SENT)
        assert gateway.get(f"{SMS}/sent/smsgw.http.2bpDiR").json == {
            "To": "79160000000",
            "From": "lvv",
            "Alphabet": "UTF-8",
            "Modem": "GSM1",
            "Sent": "26-11-22 09:16:03",
            "message_id": "smsgw.http.2bpDiR",
            "text": "Hi, Jack!",
        }

    @pytest.mark.parametrize("kind", ["outgoing", "checked", "sent", "failed"])
    def test_only_ones_own(self, gateway: Gateway, kind: str) -> None:
        gateway.put(kind, "m1", self.SENT)
        assert gateway.get(f"{SMS}/{kind}/m1").json["text"] == "Hi, Jack!"
        assert gateway.get(f"{SMS}/{kind}/m1", user="ops", status=404).json == {"error": "Not found"}
        assert gateway.get(f"{SMS}/{kind}/m1", user="root").json["text"] == "Hi, Jack!"
        gateway.get(f"{SMS}/{kind}/m1", user=None, status=401)

    def test_incoming_is_for_administrators(self, gateway: Gateway) -> None:
        gateway.put("incoming", "GSM1.ZTmYXZ", "From: lvv\nAlphabet: ISO\n\nHi")
        gateway.get(f"{SMS}/incoming/GSM1.ZTmYXZ", status=404)
        assert gateway.get(f"{SMS}/incoming/GSM1.ZTmYXZ", user="root").json["text"] == "Hi"
        assert gateway.get(f"{SMS}/incoming/").json["total_count"] == 0
        assert gateway.get(f"{SMS}/incoming/", user="root").json["message_id"] == ["GSM1.ZTmYXZ"]

    def test_a_report_is_its_message_senders(self, gateway: Gateway) -> None:
        report = "From: 79680000007\nModem: GSM1\n\nSMS STATUS REPORT\nMessage_id: 21\nStatus: 0,Ok,received\n"
        for name, owner, number, reference in (
            ("m1", "lvv", "79680000007", "21"),
            ("m2", "ops", "79680000007", "22"),
            ("m3", "ops", "79680000008", "21"),
        ):
            head = f"To: {number}\nFrom: {owner}\nModem: GSM1\nMessage_id: {reference}\n"
            gateway.put("sent", name, f"{head}\nHi")
        gateway.put("report", "GSM1.2rV5Xc", report)
        gateway.put("report", "GSM2.2rV5Xc", report.replace("GSM1", "GSM2"))
        assert "Status: 0" in gateway.get(f"{SMS}/report/GSM1.2rV5Xc").json["text"]
        gateway.get(f"{SMS}/report/GSM1.2rV5Xc", user="ops", status=404)
        gateway.get(f"{SMS}/report/GSM2.2rV5Xc", status=404)
        assert gateway.get(f"{SMS}/report/").json["message_id"] == ["GSM1.2rV5Xc"]
        assert gateway.get(f"{SMS}/report/", user="ops").json["message_id"] == []

    @pytest.mark.parametrize("id", BAD_IDS)
    @pytest.mark.parametrize("kind", ["outgoing", "checked", "sent", "failed", "incoming", "report", "bogus"])
    def test_no_such_message(self, gateway: Gateway, kind: str, id: str) -> None:
        gateway.put("outgoing", "x", self.SENT)
        gateway.put("outgoing", "x.LOCK", self.SENT)
        for user in ("lvv", "root"):
            assert gateway.get(f"{SMS}/{kind}/{id}", user=user, status=404).json == {"error": "Not found"}
            assert gateway.delete(f"{SMS}/{kind}/{id}", user=user, status=404).json == {"error": "Not found"}
        assert set(gateway.files()) == {"x", "x.LOCK"}

    @pytest.mark.parametrize(
        ("alphabet", "body", "text"),
        [
            ("UTF-8", "Ж😀".encode(), "Ж😀"),
            ("UCS2", "Ж😀".encode("utf-16-be"), "Ж😀"),
            ("UCS2", b"\x04", "\ufffd"),
            ("ISO", b"\xa4", "€"),
            ("binary", b"\x00\xff", "00ff"),
            ("GSM", b"\x00\x1b\x65a\x1b", "@€a\x1b"),
            ("UTF-8", b"\xff", "\ufffd"),
            ("bogus", b"a", "a"),
            ("UCS2", "č".encode("utf-16-be"), "č"),
        ],
    )
    def test_alphabets(self, gateway: Gateway, alphabet: str, body: bytes, text: str) -> None:
        gateway.put("sent", "m1", f"To: 1\nFrom: lvv\nAlphabet: {alphabet}\n\n".encode() + body)
        assert gateway.get(f"{SMS}/sent/m1").json["text"] == text

    def test_a_file_that_the_gateway_may_not_read(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        """Root reads everything: so a refusal of the system is played."""
        gateway.put("sent", "m1", self.SENT)
        path = gateway.put("sent", "m2", self.SENT)
        system = os.open

        def refuse(name: Any, *args: Any, **kw: Any) -> int:
            if str(name) == str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return system(name, *args, **kw)

        with monkeypatch.context() as refused:
            refused.setattr(os, "open", refuse)
            gateway.get(f"{SMS}/sent/m2", status=404)
            assert gateway.get(f"{SMS}/sent/").json["message_id"] == ["m1"]
        eventually(lambda: gateway.get(f"{SMS}/sent/").json["total_count"] == 2)

    def test_a_message_on_its_way_into_outgoing(self, gateway: Gateway) -> None:
        """What a full disk keeps in smsgw's own folder is there for its sender, and can be taken back."""
        gateway.send()
        waiting = gateway.state / "ready" / "waiting"
        with gateway.application.locks.take("ready waiting"):
            (waiting / "0000000000000.normal.lvv+1").mkdir(parents=True)
            (waiting / "0000000000000.normal.lvv+1" / "m1").write_text(self.SENT)
            assert gateway.get(f"{SMS}/outgoing/m1").json["message_id"] == "m1"
            assert gateway.get(f"{SMS}/outgoing/").json["total_count"] == 2
        gateway.delete(f"{SMS}/outgoing/m1")
        assert "m1" not in gateway.files("outgoing")
        gateway.get(f"{SMS}/outgoing/m1", status=404)

    def test_half_copied_by_smsd(self, gateway: Gateway) -> None:
        gateway.put("outgoing", "m1", self.SENT)
        gateway.put("checked", "m1", self.SENT[:-5])
        lock = gateway.put("checked", "m1.LOCK", "")
        gateway.get(f"{SMS}/checked/m1", status=404)
        (gateway.spool / "outgoing" / "m1").unlink()
        assert gateway.get(f"{SMS}/checked/m1").json["message_id"] == "m1"
        lock.unlink()
        assert gateway.get(f"{SMS}/checked/m1").json["message_id"] == "m1"


class TestList:
    def test_newest_first(self, gateway: Gateway) -> None:
        ids = [next(iter(gateway.send().json["message_id"].values())) for _ in range(5)]
        gateway.send(user="ops")
        newest = ids[::-1]
        assert gateway.get(f"{SMS}/outgoing/").json == {"message_id": newest, "limit": 1000, "total_count": 5}
        assert gateway.get(f"{SMS}/outgoing/?limit=2&offset=1").json == {
            "message_id": newest[1:3],
            "limit": 2,
            "total_count": 5,
        }
        assert gateway.get(f"{SMS}/outgoing/?limit=&offset=").json["total_count"] == 5
        assert gateway.get(f"{SMS}/outgoing/?limit=0").json["message_id"] == []
        assert gateway.get(f"{SMS}/outgoing/?offset=9").json["message_id"] == []
        assert gateway.get(f"{SMS}/outgoing/", user="root").json["total_count"] == 6

    def test_it_follows_the_folder(self, gateway: Gateway) -> None:
        for step in range(4):
            gateway.send()
            assert gateway.get(f"{SMS}/outgoing/").json["total_count"] == step + 1
        for path in sorted((gateway.spool / "outgoing").glob("smsgw.*")):
            path.rename(gateway.spool / "sent" / path.name)
            left, sent = (gateway.get(f"{SMS}/{kind}/").json for kind in ("outgoing", "sent"))
            assert left["total_count"] + sent["total_count"] == 4
            assert path.name in sent["message_id"]

    def test_a_file_that_is_still_being_written(self, gateway: Gateway) -> None:
        path = gateway.put("sent", "m1", "To: 7968")
        assert gateway.get(f"{SMS}/sent/").json["total_count"] == 0
        path.write_text("To: 79680000000\nFrom: lvv\n\nHi")
        eventually(lambda: gateway.get(f"{SMS}/sent/").json["message_id"] == ["m1"])

    def test_another_file_under_the_same_name(self, gateway: Gateway) -> None:
        gateway.put("sent", "m1", TestRead.SENT)
        assert gateway.get(f"{SMS}/sent/").json["total_count"] == 1
        gateway.put("sent", ".m1", TestRead.SENT.replace("lvv", "ops")).rename(gateway.spool / "sent" / "m1")
        assert gateway.get(f"{SMS}/sent/").json["message_id"] == []
        assert gateway.get(f"{SMS}/sent/", user="ops").json["message_id"] == ["m1"]

    def test_a_file_whose_headers_are_many(self, gateway: Gateway) -> None:
        gateway.put("sent", "m1", "To: 911\n" + "X-Note: x\n" * 1000 + "From: lvv\n\nHi")
        assert gateway.get(f"{SMS}/sent/").json["message_id"] == ["m1"]

    def test_a_file_that_was_incomplete_for_long(self, gateway: Gateway) -> None:
        path = gateway.put("sent", "m1", "To: 911\n")
        os.utime(path, (0, 0))
        assert gateway.get(f"{SMS}/sent/", user="root").json["message_id"] == ["m1"]
        path.write_text(TestRead.SENT)
        os.utime(path, (1, 1))
        eventually(lambda: gateway.get(f"{SMS}/sent/").json["message_id"] == ["m1"])

    def test_locks_and_hidden_files_never_show(self, gateway: Gateway) -> None:
        for name in ("m1.LOCK", ".hidden"):
            gateway.put("sent", name, TestRead.SENT)
        (gateway.spool / "sent" / "folder").mkdir()
        (gateway.spool / "sent" / "link").symlink_to("/etc/passwd")
        assert gateway.get(f"{SMS}/sent/", user="root").json == {"message_id": [], "limit": 1000, "total_count": 0}
        gateway.get(f"{SMS}/sent/link", user="root", status=404)
        gateway.get(f"{SMS}/sent/folder", user="root", status=404)

    @pytest.mark.lasting
    @pytest.mark.parametrize(
        "query", ["limit=-1", "limit=x", "limit=1.0", "offset=-1", "offset=٣", "limit=" + "9" * 30, "limit=%ff"]
    )
    def test_bad_query(self, gateway: Gateway, query: str) -> None:
        assert gateway.get(f"{SMS}/sent/?{query}", status=400).json["error"]

    @pytest.mark.lasting
    def test_unknown_kind(self, gateway: Gateway) -> None:
        assert gateway.get(f"{SMS}/bogus/", status=404).json == {"error": "Not found"}

    def test_a_folder_that_smsd_does_not_keep(self, gateway: Gateway) -> None:
        (gateway.spool / "report").rmdir()
        assert gateway.get(f"{SMS}/report/").json["message_id"] == []


class TestDelete:
    def test_cancel(self, gateway: Gateway) -> None:
        (id,) = gateway.send().json["message_id"].values()
        gateway.delete(f"{SMS}/outgoing/{id}", user="ops", status=404)
        assert gateway.delete(f"{SMS}/outgoing/{id}").json == {"deleted": f"outgoing/{id}"}
        assert gateway.files() == {}
        gateway.get(f"{SMS}/outgoing/{id}", status=404)
        gateway.delete(f"{SMS}/outgoing/{id}", status=404)

    def test_an_administrator_cancels_too(self, gateway: Gateway) -> None:
        (id,) = gateway.send().json["message_id"].values()
        gateway.delete(f"{SMS}/outgoing/{id}", user="root")
        assert (gateway.state / "cancelled" / id).exists()
        assert gateway.files() == {}

    def test_a_name_that_was_cancelled_before(self, gateway: Gateway) -> None:
        for content in (TestRead.SENT, TestRead.SENT + " again"):
            gateway.put("outgoing", "alarm", content)
            gateway.delete(f"{SMS}/outgoing/alarm")
        assert (gateway.state / "cancelled" / "alarm").read_text().endswith("again")
        gateway.put("outgoing", "alarm", TestRead.SENT)
        gateway.put("checked", "alarm", TestRead.SENT)
        gateway.delete(f"{SMS}/outgoing/alarm", status=404)

    def test_a_file_that_the_gateway_may_not_delete(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        gateway.put("sent", "m1", TestRead.SENT)

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        with monkeypatch.context() as refused:
            refused.setattr(os, "unlink", refuse)
            assert "user" in gateway.delete(f"{SMS}/sent/m1", user="root", status=403).json["error"]

    def test_smsd_s_queue_is_smsd_s(self, gateway: Gateway) -> None:
        gateway.put("checked", "m1", TestRead.SENT)
        gateway.delete(f"{SMS}/checked/m1", status=403)
        gateway.delete(f"{SMS}/checked/m1", user="root", status=403)
        gateway.delete(f"{SMS}/checked/m1", user="ops", status=404)
        assert gateway.files("checked")

    @pytest.mark.parametrize("kind", ["sent", "failed"])
    def test_what_is_done_is_for_administrators(self, gateway: Gateway, kind: str) -> None:
        gateway.put(kind, "m1", TestRead.SENT)
        gateway.delete(f"{SMS}/{kind}/m1", status=403)
        gateway.delete(f"{SMS}/{kind}/m1", user="ops", status=404)
        assert gateway.delete(f"{SMS}/{kind}/m1", user="root").json == {"deleted": f"{kind}/m1"}
        assert gateway.files(kind) == {}
        gateway.delete(f"{SMS}/{kind}/m1", user="root", status=404)


class TestEverywhere:
    @pytest.mark.lasting
    @pytest.mark.parametrize(
        "path", ["/", "/favicon.ico", "/api/v1.0", f"{SMS}/sent/m1", f"{SMS}/sent/", OUTGOING, "/%ff"]
    )
    @pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "PATCH"])
    def test_authentication_comes_first(self, gateway: Gateway, path: str, method: str) -> None:
        reply = gateway.call(method, path, user=None, status=401)
        assert reply.json["error"]
        assert reply.headers["WWW-Authenticate"] == 'Basic realm="smsgw"'

    @pytest.mark.lasting
    @pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "DELETE"])
    def test_a_method_that_is_none(self, gateway: Gateway, method: str) -> None:
        assert gateway.call(method, OUTGOING, status=405).json["error"]

    @pytest.mark.lasting
    def test_unknown_path(self, gateway: Gateway) -> None:
        assert gateway.get("/api/v3/messages", status=404).json == {"error": "Not found"}

    def test_monitoring(self, gateway: Gateway) -> None:
        assert gateway.get("/api/v1.0/monitoring", user=None).json == {"monitoring": "ok"}
        assert gateway.files() == {}

    def test_no_spool(self, make_gateway: Any) -> None:
        gateway = make_gateway({"smsgw.spool": "/nonexistent/spool"})
        for reply in (
            gateway.get("/api/v1.0/monitoring", user=None, status=503),
            gateway.send(status=503),
            gateway.get(f"{SMS}/sent/", status=503),
            gateway.get(f"{SMS}/sent/m1", status=503),
        ):
            assert reply.json["error"]
            assert int(reply.headers["Retry-After"]) > 0
            assert "/nonexistent" not in reply.text
