"""docs/rules.md: its settings start a gateway, its tables are what happens."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pyramid.security import Denied

from smsgw.model import Content, Identity, Message
from smsgw.numbers import CLASSES, NumberSet
from smsgw_plugins.hours import DAYS, Hours
from tests.conftest import Gateway

RULES = (Path(__file__).parent.parent / "docs" / "rules.md").read_text()

Make = Callable[..., Gateway]


def rows(heading: str) -> list[list[str]]:
    """The cells of the table that begins so."""
    (table,) = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", RULES, re.M)
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in table.splitlines()]


def words(cell: str) -> list[str]:
    return re.findall("`(.+?)`", cell)


def settings(setting: str) -> dict[str, str | None]:
    """The settings of the block in which that one stands."""
    (block,) = (found for found in re.findall(r"```ini\n(.*?)```", RULES, re.S) if found.startswith(f"{setting} ="))
    parser = configparser.ConfigParser(delimiters="=")
    parser.read_string(f"[app:main]\n{block}")
    return dict(parser["app:main"])


def test_words_for_numbers() -> None:
    named = set()
    for word, _, has, has_not in rows("word"):
        for each in words(word):
            named.add(each)
            numbers = NumberSet.parse([each])
            assert [number in numbers for number in words(has)] == [True] * len(words(has))
            assert [number in numbers for number in words(has_not)] == [False] * len(words(has_not))
    assert {word for word in CLASSES if len(word) > 2} <= named


def test_hours() -> None:
    monday = datetime.fromisoformat("2026-11-23T00:00+00:00")
    for line, may, may_not in rows("line"):
        for answer, times in ((None, words(may)), (Denied, words(may_not))):
            assert times
            for day, time in (moment.split() for moment in times):
                hour, minute = map(int, time.split(":"))
                now = monday + timedelta(days=DAYS.index(day), hours=hour, minutes=minute)
                plugin = Hours({"*": words(line)[0]}, ZoneInfo("UTC"), urgent_always=False, clock=lambda now=now: now)
                found = plugin.permits(Identity("lvv"), "send", Message("m", "112", Content("lvv", "Hi", "GSM", 1)))
                assert found is None if answer is None else isinstance(found, answer), (line, day, time)


def test_templates(make_gateway: Make) -> None:
    gateway = make_gateway(settings("smsgw.template.texts") | {"smsgw.plugins": "htpasswd allow template"})
    for asked, sent in rows("text"):
        assert gateway.send(text=words(asked)[0]).json["sent_text"] == words(sent)[0]


def test_the_lines_of_the_whitelist_add_up(make_gateway: Make) -> None:
    gateway = make_gateway(settings("smsgw.whitelist.numbers") | {"smsgw.plugins": "htpasswd allow whitelist"})
    numbers = ["112", "79161234567", "79680000000", "79680000001"]
    assert set(gateway.send(mobiles=numbers).json["errors"]) == {"79680000001"}
    assert set(gateway.send(user="ops", mobiles=numbers).json["message_id"]) == {"79680000000"}


def test_the_blacklist_that_the_document_recommends(make_gateway: Make) -> None:
    gateway = make_gateway(settings("smsgw.blacklist.numbers") | {"smsgw.plugins": "htpasswd allow blacklist"})
    reply = gateway.send(mobiles=["78091234567", "780912345678", "79680000000", "112"]).json
    assert set(reply["message_id"]) == {"79680000000", "112"}


@pytest.mark.parametrize("group", ["night", "alarms", ""])
def test_the_hours_that_the_document_recommends(group: str) -> None:
    found = settings("smsgw.hours.times")
    lines = dict(line.strip().split(": ", 1) for line in str(found["smsgw.hours.times"]).strip().splitlines())
    moment = datetime.fromisoformat("2026-11-28T04:00+00:00")  # Saturday at five in the morning
    plugin = Hours(lines, ZoneInfo(found["smsgw.hours.timezone"]), urgent_always=False, clock=lambda: moment)
    identity = Identity("ops", frozenset({group} - {""}))
    answer = plugin.permits(identity, "send", Message("m", "112", Content("ops", "Hi", "GSM", 1)))
    assert (answer is None) == bool(group)


TEXT = "“It’s down” — " + "a word " * 60


@pytest.mark.parametrize("order", [words(row[0])[0] for row in rows("order")])
def test_the_order_of_transforms(make_gateway: Make, order: str) -> None:
    own: dict[str, str | None] = settings("smsgw.limit.parts")
    if "signature" in order:
        own["smsgw.signature.text"] = "ACME alarm centre"
    reply = make_gateway(own | {"smsgw.plugins": f"htpasswd allow {order}"}).send(text=TEXT).json
    sent = reply["sent_text"]
    if order.startswith("limit"):
        assert len(sent) < 153  # UCS2 holds half as much
        return
    assert len(sent) > 290
    assert sent.endswith("ACME alarm centre") == order.endswith("signature")
    assert reply["parts_count"] == (3 if order.endswith("signature") else 2)


def test_all_together(make_gateway: Make, tmp_path: Path) -> None:
    """Every block of settings in the document, and its order of plugins."""
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "weekly.txt").write_text("“{what}”\n" + "word " * 100)
    own: dict[str, str | None] = {
        "smsgw.hours.urgent_always": "true",
        "smsgw.signature.text": "ACME",
    }
    for block in re.findall(r"```ini\n(smsgw\.[\w.]+) =", RULES):
        own |= settings(block)
    assert str(own["smsgw.plugins"]).startswith("ldap ")
    own["smsgw.plugins"] = str(own["smsgw.plugins"]).replace("ldap", "htpasswd")
    own["smsgw.template.folder"] = str(folder)
    own["smsgw.region"] = "FR"
    gateway = make_gateway(own)
    reply = gateway.send(
        text="template:weekly what=it’s", mobiles=["112", "1000", "79161234567", "12025550123"], priority="high"
    ).json
    assert set(reply["message_id"]) == {"112", "79161234567"}
    assert reply["sent_text"].startswith('"it\'s"\nword')
    assert reply["parts_count"] == 2
    assert set(gateway.send(text="template:all-clear", mobiles=["112"], priority="high").json["message_id"]) == {"112"}
