"""``smsgw usage``: messages and parts by user and month."""

from __future__ import annotations

import csv
import os
from datetime import datetime
from pathlib import Path

import pytest

from smsgw.testing import Gateway, MakeGateway
from tests.cli.conftest import Ended, Ini, smsgw
from tests.conftest import eventually
from tests.remembered import REPORT, at_work, ini_of, known, sent
from tests.test_documentation import ROOT

NOVEMBER = datetime(2026, 11, 1).timestamp()  # of the machine's own time zone
DECEMBER = datetime(2026, 12, 1).timestamp()


@pytest.fixture
def gateway(make_gateway: MakeGateway, store_url: str) -> Gateway:
    return at_work(make_gateway({"smsgw.store": store_url}))


def put(
    gateway: Gateway, kind: str, name: str, at: float, owner: str = "lvv", text: str = "Hi", head: str = ""
) -> None:
    """A message of another program, which began when its file was written."""
    path = gateway.put(".", f".{name}", f"To: 79680000000\nFrom: {owner}\n{head}\n{text}")
    os.utime(path, (at, at))
    path.rename(gateway.spool / kind / name)


def usage(gateway: Gateway, folder: Path, *options: str) -> Ended:
    return smsgw("usage", ini_of(gateway, folder), *options)


def test_a_month(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgw.journal.usage.MANY", 2)
    for number in range(5):
        put(gateway, "sent", f"m{number}", NOVEMBER + number // 2)
    put(gateway, "sent", "long", DECEMBER - 1, text="x" * 161)
    put(gateway, "sent", "binary", DECEMBER - 1, text="\x01", head="Alphabet: binary\n")
    put(gateway, "sent", "ops", NOVEMBER + 86400, owner="ops", text="Ж" * 71, head="Alphabet: UTF-8\n")
    put(gateway, "failed", "failed", NOVEMBER, text="x" * 161)
    put(gateway, "sent", "before", NOVEMBER - 1)
    put(gateway, "sent", "after", DECEMBER)
    gateway.put("incoming", "GSM1.a", "From: 79161234567\n\nHello")
    put(gateway, "sent", "delivered", NOVEMBER + 100, head="Modem: GSM1\nMessage_id: 7\n")
    report = gateway.put(".", ".r", REPORT.format(7, 0).replace("79160000000", "79680000000"))
    os.utime(report, (NOVEMBER + 110, NOVEMBER + 110))
    report.rename(gateway.spool / "report" / "GSM1.r")
    eventually(lambda: len(known(gateway)) == 13 and known(gateway)["delivered"] == "delivered")
    ran = usage(gateway, tmp_path, "--month", "2026-11")
    assert (ran.status, ran.err) == (0, "")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["user", "messages", "parts", "failed"],
        ["lvv", "8", "9", "1"],
        ["ops", "1", "2", "0"],
        ["all", "9", "11", "1"],
    ]
    ran = usage(gateway, tmp_path, "--month", "2026-11", "--csv")
    assert ran.out == "user,messages,parts,failed\nlvv,8,9,1\nops,1,2,0\n"
    assert usage(gateway, tmp_path, "--month", "2026-12", "--csv").out.splitlines()[1:] == ["lvv,1,1,0"]


def test_the_current_month(gateway: Gateway, tmp_path: Path) -> None:
    gateway.put("sent", "m1", sent(number=1))
    eventually(lambda: "m1" in known(gateway))
    assert len(usage(gateway, tmp_path, "--csv").out.splitlines()) == 2


def test_before_the_gateway_ran(ini: Ini) -> None:
    ran = smsgw("usage", ini(), "--month", "2026-11")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[1].split() == ["all", "0", "0", "0"]


@pytest.mark.parametrize("month", ["2026", "2026-13", "November", "9999-12", "0000-01", "2026-11-01"])
def test_what_is_no_month(ini: Ini, month: str) -> None:
    ran = smsgw("usage", ini(), "--month", month)
    assert ran.status == 2
    assert "should be a month such as 2026-11" in ran.err


def test_the_page_shows_what_is_written() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    shown = page.partition("```csv\n")[2].partition("```")[0]
    assert next(csv.reader(shown.splitlines())) == ["user", "messages", "parts", "failed"]
