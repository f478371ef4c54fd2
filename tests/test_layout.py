"""``smsd.conf`` as smsd itself reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsgw.model import ConfigurationError
from smsgw.spool.layout import Layout, from_folder, from_smsd_conf
from tests.conftest import Gateway


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str | bytes], Layout]:
    def read(text: str | bytes) -> Layout:
        path = tmp_path / "smsd.conf"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return from_smsd_conf(path)

    return read


def test_a_folder() -> None:
    layout = from_folder(Path("/spool"))
    assert layout.folders["sent"] == (Path("/spool/sent"),)
    assert layout.state == Path("/spool/outgoing/.smsgw")
    assert layout.queues is None


def test_smsd_s_defaults(read: Callable[[str], Layout]) -> None:
    layout = read("devices = GSM1\n")
    assert layout.outgoing == Path("/var/spool/sms/outgoing")
    assert layout.folders["checked"] == (Path("/var/spool/sms/checked"),)
    assert layout.folders["incoming"] == (Path("/var/spool/sms/incoming"),)
    assert layout.folders["sent"] == layout.folders["failed"] == layout.folders["report"] == ()
    assert layout.queues == ()
    assert layout.modems == ("GSM1",)


def test_all_of_it(read: Callable[[str], Layout]) -> None:
    layout = read(
        """
        # outgoing = /commented
        OUTGOING = /wrong
        Outgoing=/a # b/outgoing
        sent = /sent
        sent =
        failed = ? /failed | /other
        report = /report\r
        devices = GSM1, M* 9-11,, GSM2
        [queues]
        north = /q/north
        far east = /q/east
        north = /q/ignored
        [queues]
        other = /q/ignored
        [GSM1]
        outgoing = yes
        report = yes
        incoming = high
        """
    )
    assert layout.outgoing == Path("/a # b/outgoing")
    assert layout.state == Path("/a # b/outgoing/.smsgw")
    assert layout.folders["sent"] == ()
    assert layout.folders["failed"] == (Path("/failed"),)
    assert layout.folders["report"] == (Path("/report"),)
    assert layout.folders["checked"] == (Path("/q/north"), Path("/q/east"))
    assert layout.queues == ("north", "far east")
    assert layout.modems == ("GSM1", "M9", "M10", "M11")


def test_other_spellings(read: Callable[[str], Layout]) -> None:
    layout = read("spool = /out\n[queue]\nD1 = /q/d1\n[Queues]\nD2 = /q/d2\n")
    assert layout.outgoing == Path("/out")
    assert layout.queues == ("D1",)


@pytest.mark.parametrize(
    "line", ["keep_filename = no", "keep_filename = 0", "outgoing_utf8 = off", "Outgoing_UTF8 = false"]
)
def test_what_loses_or_garbles_messages(read: Callable[[str], Layout], line: str) -> None:
    with pytest.raises(ConfigurationError, match="set it to yes"):
        read(line)


@pytest.mark.parametrize("line", ["keep_filename = yes", "keep_filename = 1", "outgoing_utf8 = on", "x = no"])
def test_what_harms_no_message(read: Callable[[str], Layout], line: str) -> None:
    assert read(line).outgoing


def test_no_more_than_a_thousand_modems_of_one_word(read: Callable[[str], Layout]) -> None:
    modems = read("devices = M*1 - 999999, GSM1, S* 7-7\n").modems
    assert (modems[0], modems[999:]) == ("M1", ("M1000", "GSM1", "S7"))


@given(st.binary())
def test_any_file(read: Callable[[bytes], Layout], content: bytes) -> None:
    try:
        layout = read(content)
    except ConfigurationError:
        return
    assert layout.outgoing


def test_a_gateway_of_it(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    (spool / "north").mkdir()
    conf = tmp_path / "smsd.conf"
    folders = "".join(f"{kind} = {spool / kind}\n" for kind in ("outgoing", "checked", "sent", "failed", "incoming"))
    conf.write_text(f"{folders}[queues]\nnorth = {spool / 'north'}\n")
    settings = {"smsgw.smsd_conf": str(conf), "smsgw.spool": None, "smsgw.default_queue": "north"}
    gateway = make_gateway(settings)
    gateway.send()
    (content,) = gateway.files().values()
    assert b"Queue: north\n" in content
    gateway.put("north", "m1", "To: 911\nFrom: lvv\n\nHi")
    gateway.put("checked", "m2", "To: 911\nFrom: lvv\n\nHi")
    assert gateway.get("/api/v1.0/sms/checked/").json["message_id"] == ["m1"]
    assert gateway.get("/api/v1.0/sms/report/").json["message_id"] == []
    assert "north" in gateway.send(queue="south", status=400).json["errors"]["queue"]
    with pytest.raises(SystemExit):
        make_gateway(settings | {"smsgw.default_queue": "south"})


def test_times_without_a_year_are_none() -> None:
    """The year is not guessed: a message of 29 February would have none."""
    layout = from_folder(Path("spool"))
    assert replace(layout, datetime_format="%d.%m. %H:%M").moment("29.02. 09:16") is None
    for spelt, written in (
        ("%D %R", "11/22/26 09:16"),
        ("%F %T", "2026-11-22 09:16:00"),
        ("%c", "Sun Nov 22 09:16:00 2026"),
    ):
        moment = replace(layout, datetime_format=spelt).moment(written)
        assert moment == datetime(2026, 11, 22, 9, 16).astimezone(UTC)
