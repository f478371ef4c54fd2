"""``quota``: limits of users, groups and everybody, by the calendar; exact with several processes."""

from __future__ import annotations

import configparser
import itertools
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from smsgw.hookspecs import hookimpl
from smsgw.model import Unavailable
from smsgw.store import Store, close_with
from smsgw.testing import Gateway, MakeGateway
from smsgw_plugins.quota import Quota
from smsgw_plugins.quota.counters import SCRIPTS, TABLES, Counters, Exhausted
from smsgw_plugins.quota.limits import PERIODS, Claim, Limit, window
from tests.conftest import OUTGOING, at_length
from tests.postgresql import Postgresql
from tests.server import Server
from tests.tmpfs import Tmpfs, need

BERLIN = ZoneInfo("Europe/Berlin")
MOBILES = [f"7968{number:07}" for number in range(100)]


def at(written: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(written).replace(tzinfo=ZoneInfo(zone)).timestamp()


class Clock:
    """What ``Quota`` takes for the time."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(at("2026-11-23 10:00:30"))


@pytest.fixture
def limited(make_gateway: MakeGateway, store_url: str, clock: Clock) -> Callable[..., Gateway]:
    """A gateway with those lines, with that clock, in Berlin; ``ops`` and ``root`` are in the group ``alarms``."""

    class Clocked(Quota):
        def __init__(self, **values: Any) -> None:
            super().__init__(**values, clock=clock)

    def make(*lines: str, plugins: str = "", **classes: type) -> Gateway:
        changes = {
            "smsgw.plugins": f"users allow clocked {plugins}",
            "smsgw.htpasswd.path": None,
            "smsgw.users.groups": "\n@alarms: ops root\n@all: lvv ops root",
            "smsgw.clocked.limits": "\n" + "\n".join(lines),
            "smsgw.clocked.timezone": "Europe/Berlin",
            "smsgw.store": store_url,
        }
        return make_gateway(changes, clocked=Clocked, **classes)

    return make


def send(gateway: Gateway, *users: str, count: int = 1, **fields: Any) -> list[int]:
    """The statuses of one send of each, in turn, to so many numbers."""
    return [gateway.send(mobiles=MOBILES[:count], user=user, status="*", **fields).status_int for user in users]


def database(gateway: Gateway) -> Store:
    """Where the counters are used. It is closed with the gateway."""
    found = Counters(gateway.application.stores.shared).used
    close_with(gateway.application, found)
    return found


def used(gateway: Gateway) -> dict[str, int]:
    """The counters that are above nought."""
    with database(gateway).begin(is_reading=True) as connection:
        rows = connection.exec_driver_sql("SELECT name, counted, used FROM quota WHERE used <> 0")
        return {f"{name} {counted}": used for name, counted, used in rows}


# What is counted, and when


@pytest.mark.parametrize(
    ("period", "last", "opens"),
    [
        ("second", "2026-11-23 10:00:30.999", "2026-11-23 10:00:31+01:00"),
        ("minute", "2026-11-23 10:00:59.999", "2026-11-23 10:01:00+01:00"),
        ("hour", "2026-11-23 10:59:59", "2026-11-23 11:00:00+01:00"),
        ("day", "2026-11-23 23:59:59", "2026-11-24 00:00:00+01:00"),
        ("month", "2026-11-30 23:59:59", "2026-12-01 00:00:00+01:00"),
    ],
)
def test_each_window(limited: Callable[..., Gateway], clock: Clock, period: str, last: str, opens: str) -> None:
    gateway = limited(f"lvv: 2/{period}")
    begin = clock.now
    assert send(gateway, "lvv", "lvv", "lvv", "ops") == [201, 201, 429, 201]
    clock.now = at(last)
    reply = gateway.send(status=429)
    assert reply.json == {
        "error": f"The limit of 2 messages/{period} for lvv has 0 left, and this request needs 1; "
        f"it opens again at {opens}"
    }
    assert reply.headers["Retry-After"] == "1"
    clock.now = begin
    wait = int(gateway.send(status=429).headers["Retry-After"])
    assert clock.now + wait == datetime.fromisoformat(opens).timestamp()
    clock.now += wait
    assert send(gateway, "lvv", "lvv", "lvv") == [201, 201, 429]
    assert len(gateway.files()) == 5


def test_messages_are_recipients_and_parts_are_real_parts(limited: Callable[..., Gateway]) -> None:
    gateway = limited("lvv: 5/day", "ops: 5 parts/day", "root: 5 messages/day")
    two_parts = "x" * 161
    assert send(gateway, "lvv", count=5, text=two_parts) == [201]
    assert send(gateway, "root", count=6, text="x") == [429]
    assert send(gateway, "ops", "ops", count=2, text=two_parts) == [201, 429]
    assert send(gateway, "ops", "ops", text="Привет") == [201, 429]
    assert used(gateway) == {"lvv messages/day": 5, "ops parts/day": 5}


def test_parts_are_those_of_the_text_that_goes_out(limited: Callable[..., Gateway]) -> None:
    class Long:
        @hookimpl
        def transform(self, text: str) -> str:
            return text * 200

    gateway = limited("lvv: 10 parts/day", plugins="long", long=Long)
    gateway.send(text="x")
    assert used(gateway) == {"lvv parts/day": 2}


def test_a_number_given_twice_is_one_message(limited: Callable[..., Gateway]) -> None:
    gateway = limited("lvv: 1/day")
    gateway.send(mobiles=["79680000000", "+79680000000"])
    assert used(gateway) == {"lvv messages/day": 1}


def test_a_group_and_everybody_share_one_limit(limited: Callable[..., Gateway]) -> None:
    gateway = limited("@alarms: 3/hour", "*: 4/hour")
    assert send(gateway, "ops", "root", "ops", "root", "ops") == [201, 201, 201, 429, 429]
    assert send(gateway, "lvv", "lvv") == [201, 429]
    error = gateway.send(user="ops", status=429).json["error"]
    assert "for @alarms" in error or "for everybody" in error


def test_a_user_s_own_limit_is_no_other_s(limited: Callable[..., Gateway]) -> None:
    gateway = limited("lvv: 1/hour", "ops: 1/hour")
    assert send(gateway, "lvv", "ops", "root", "lvv", "ops", "root") == [201, 201, 201, 429, 429, 201]


def test_all_that_apply_count_at_once_and_a_refusal_takes_none(limited: Callable[..., Gateway], clock: Clock) -> None:
    gateway = limited("ops: 2/minute 5/day 100 parts/month", "@alarms: 4/day", "@all: 90/month", "*: 3/second")
    assert send(gateway, "ops", "ops", "ops") == [201, 201, 429]
    counted = {
        "ops messages/minute": 2,
        "ops messages/day": 2,
        "ops parts/month": 2,
        "@alarms messages/day": 2,
        "@all messages/month": 2,
        "* messages/second": 2,
    }
    assert used(gateway) == counted
    clock.now += 60
    reply = gateway.send(mobiles=MOBILES[:3], user="root", status=429)
    assert "4 messages/day for @alarms has 2 left, and this request needs 3" in reply.json["error"]
    assert used(gateway) == counted
    assert send(gateway, "ops", "ops") == [201, 201]
    clock.now += 60
    assert send(gateway, "ops", "lvv") == [429, 201]
    assert used(gateway)["ops messages/day"] == 4


def test_of_several_limits_that_refuse_the_one_that_opens_last_is_named(limited: Callable[..., Gateway]) -> None:
    reply = limited("lvv: 2/minute 3/day", "*: 1/second").send(mobiles=MOBILES[:1])
    assert reply.status_int == 201
    gateway = limited("lvv: 2/minute 1/day", "*: 1/second")
    reply = gateway.send(status=429)
    assert "1 messages/day for lvv" in reply.json["error"]
    assert reply.headers["Retry-After"] == str(int(at("2026-11-24 00:00") - at("2026-11-23 10:00:30")))


def test_a_bulk_request_passes_whole_or_not_at_all(limited: Callable[..., Gateway]) -> None:
    gateway = limited("lvv: 10/hour")
    assert send(gateway, "lvv", count=6) == [201]
    assert send(gateway, "lvv", count=5) == [429]
    assert send(gateway, "lvv", count=4) == [201]
    assert len(gateway.files()) == 10


def test_who_has_no_limit_needs_no_database(make_gateway: MakeGateway) -> None:
    changes = {
        "smsgw.plugins": "htpasswd allow quota",
        "smsgw.quota.limits": "ops: 1/day",
        "smsgw.store": "sqlite:////proc/nowhere/store.sqlite3",
    }
    gateway = make_gateway(changes)
    assert send(gateway, "lvv", "ops", "lvv") == [201, 503, 201]


# What the client is told


def test_the_fields(limited: Callable[..., Gateway]) -> None:
    """draft-ietf-httpapi-ratelimit-headers-11, 3 and 4."""
    gateway = limited("lvv: 3/minute 40 parts/month", "*: 5/second")
    gateway.send(mobiles=MOBILES[:2])
    headers = gateway.send(mobiles=MOBILES[:2], status=429).headers
    assert headers["RateLimit-Policy"].split(", ") == [
        '"5 messages/second for everybody";q=5;w=1;qu="messages"',
        '"3 messages/minute for lvv";q=3;w=60;qu="messages"',
        f'"40 parts/month for lvv";q=40;w={30 * 86400};qu="parts"',
    ]
    assert headers["RateLimit"] == '"3 messages/minute for lvv";r=1;t=30'
    assert headers["Retry-After"] == "30"


def test_a_request_that_is_larger_than_the_limit(limited: Callable[..., Gateway]) -> None:
    gateway = limited("lvv: 3/minute 9/day")
    reply = gateway.send(mobiles=MOBILES[:5], status=429)
    assert reply.json["error"] == (
        "This request needs 5 and can never pass the limit of 3 messages/minute for lvv; send smaller ones"
    )
    assert reply.headers["Retry-After"] == "30"
    assert reply.headers["RateLimit"] == '"3 messages/minute for lvv";r=3;t=30'
    assert used(gateway) == {}
    assert send(gateway, "lvv", count=3) == [201]
    assert gateway.send(mobiles=MOBILES[:5], status=429).headers["RateLimit"] == '"3 messages/minute for lvv";r=0;t=30'
    body = {"to": MOBILES[:5], "text": "Hi"}
    never = gateway.call("POST_JSON", "/api/v2/messages", body, headers={"Idempotency-Key": "order-17"}, status=422)
    assert never.json["type"] == "/docs/api-v2.md#over-limit"
    assert never.json["detail"] == reply.json["error"]
    assert never.json["errors"] == [{"pointer": "#", "code": "over_limit", "detail": reply.json["error"]}]
    assert never.headers["RateLimit"] == '"3 messages/minute for lvv";r=0;t=30'
    assert "Retry-After" not in never.headers
    later = gateway.call("POST_JSON", "/api/v2/messages", body | {"to": MOBILES[:1]}, status=429)
    assert later.headers["Retry-After"] == "30"


def test_a_userid_that_no_field_can_hold(make_gateway: MakeGateway, store_url: str) -> None:
    class Anybody:
        @hookimpl
        def authenticate(self, credentials: Any) -> Any:
            from smsgw.model import Identity

            return Identity('Яна "Я" 100%\\')

    changes = {
        "smsgw.plugins": "anybody allow quota",
        "smsgw.htpasswd.path": None,
        "smsgw.quota.limits": 'Яна "Я" 100%\\: 1/month',
        "smsgw.store": store_url,
    }
    gateway = make_gateway(changes, anybody=Anybody)
    gateway.send()
    reply = gateway.send(status=429)
    assert 'for Яна "Я" 100%\\ has 0 left' in reply.json["error"]
    assert re.fullmatch(r'"1 messages/month for [ !#-\[\]-~]+";r=0;t=\d+', reply.headers["RateLimit"])


# What was not sent is given back


def test_a_spool_that_is_missing(limited: Callable[..., Gateway]) -> None:
    gateway = limited("lvv: 2/day 9 parts/month", "*: 3/hour")
    outgoing, away = gateway.spool / "outgoing", gateway.spool / "away"
    outgoing.rename(away)
    assert send(gateway, *["lvv"] * 4) == [503] * 4
    assert used(gateway) == {}
    away.rename(outgoing)
    assert send(gateway, "lvv", "lvv", "lvv") == [201, 201, 429]


def test_what_nobody_delivers_is_not_counted(limited: Callable[..., Gateway]) -> None:
    class Elsewhere:
        @hookimpl
        def deliver(self, submission: Any) -> Any:
            return submission.messages[: int(submission.messages[0].content.text)]

    class Broken:
        @hookimpl
        def deliver(self) -> Any:
            raise Unavailable("the line is down")

    gateway = limited("lvv: 20/day 200 parts/day", plugins="elsewhere broken", elsewhere=Elsewhere, broken=Broken)
    for delivered, status, expected in ((2, 201, 2), (0, 503, 2), (3, 201, 5)):
        assert send(gateway, "lvv", count=3, text=str(delivered)) == [status]
        assert used(gateway) == {"lvv messages/day": expected, "lvv parts/day": expected}


def test_it_is_given_back_to_the_window_that_it_was_taken_from(limited: Callable[..., Gateway], clock: Clock) -> None:
    class Slow:
        @hookimpl
        def deliver(self, submission: Any) -> Any:
            if submission.messages[0].content.text == "slow":
                clock.now += 60
                raise Unavailable("the line is down")
            return None

    gateway = limited("lvv: 2/minute", plugins="slow", slow=Slow)
    begin = clock.now
    assert send(gateway, "lvv") == [201]
    assert send(gateway, "lvv", text="slow") == [503]  # taken in this minute, given back in the next
    clock.now = begin + 60
    assert send(gateway, "lvv", "lvv", "lvv") == [201, 201, 429]
    clock.now = begin
    assert send(gateway, "lvv", "lvv") == [201, 429]


def test_a_repetition_under_a_key_is_not_counted(limited: Callable[..., Gateway], clock: Clock) -> None:
    gateway = limited("lvv: 1/day")

    def again(key: str) -> int:
        body = {"mobiles": MOBILES[:1], "text": "Hi"}
        headers = {"Idempotency-Key": key}
        return int(gateway.call("POST_JSON", OUTGOING, body, headers=headers, status="*").status_int)

    assert [again("the-first") for _ in range(3)] == [201] * 3
    assert [again("the-second") for _ in range(2)] == [429] * 2
    assert used(gateway) == {"lvv messages/day": 1}
    clock.now += 24 * 3600
    assert again("the-second") == 201  # a refusal is no reply to keep


# The calendar and the clock


def test_counters_outlive_the_gateway_and_change_with_its_settings(limited: Callable[..., Gateway]) -> None:
    assert send(limited("lvv: 3/day"), "lvv", "lvv") == [201, 201]
    assert send(limited("lvv: 3/day"), "lvv", "lvv") == [201, 429]
    assert send(limited("lvv: 5/day"), "lvv", "lvv", "lvv") == [201, 201, 429]
    gateway = limited("lvv: 2/day")
    assert gateway.send(status=429).headers["RateLimit"].partition(";t")[0] == '"2 messages/day for lvv";r=0'


def test_a_clock_that_goes_back_opens_nothing_again(limited: Callable[..., Gateway], clock: Clock) -> None:
    gateway = limited("lvv: 2/minute")
    begin = clock.now
    assert send(gateway, "lvv", "lvv", "lvv") == [201, 201, 429]
    clock.now = begin + 60
    assert send(gateway, "lvv", "lvv", "lvv") == [201, 201, 429]
    for back in (1, 60, 100, 23 * 3600):
        clock.now = begin + back
        gateway.application.plugins.get_plugin("clocked").background(_set())
        clock.now = begin
        assert send(gateway, "lvv") == [429]


def test_counters_are_removed_a_day_after_their_windows(limited: Callable[..., Gateway], clock: Clock) -> None:
    gateway = limited("lvv: 2/minute 9/month")
    gateway.send()
    for after, expected in ((24 * 3600, 2), (24 * 3600 + 60, 1), (40 * 24 * 3600, 0)):
        clock.now = at("2026-11-23 10:00:30") + after
        gateway.application.plugins.get_plugin("clocked").background(_set())
        assert len(used(gateway)) == expected


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@pytest.mark.parametrize(
    ("period", "now", "zone", "begin", "until"),
    [
        ("month", "2024-02-29 23:59:59", "UTC", "2024-02-01", "2024-03-01"),
        ("month", "2026-12-31 23:59:59", "Asia/Tokyo", "2026-12-01", "2027-01-01"),
        ("month", "2026-01-31 12:00", "Europe/Berlin", "2026-01-01", "2026-02-01"),
        ("day", "2026-03-29 12:00", "Europe/Berlin", "2026-03-29", "2026-03-30"),  # 23 hours
        ("day", "2026-10-25 12:00", "Europe/Berlin", "2026-10-25", "2026-10-26"),  # 25 hours
        ("day", "2026-04-24 12:00", "Africa/Cairo", "2026-04-24", "2026-04-25"),  # begins at one
        ("day", "2011-12-29 12:00", "Pacific/Apia", "2011-12-29", "2011-12-31"),  # the 30th was left out
        ("hour", "2026-11-23 10:29:59", "Asia/Kolkata", "2026-11-23 10:00", "2026-11-23 11:00"),
        ("minute", "2026-11-23 10:29:59", "Asia/Kolkata", "2026-11-23 10:29", "2026-11-23 10:30"),
        ("second", "2026-11-23 10:29:59", "Asia/Kolkata", "2026-11-23 10:29:59", "2026-11-23 10:30"),
    ],
)
def test_windows_are_those_of_the_calendar(period: str, now: str, zone: str, begin: str, until: str) -> None:
    assert window(period, at(now, zone), ZoneInfo(zone)) == (at(begin, zone), at(until, zone))


def test_days_of_23_and_25_hours() -> None:
    for written, hours in (("2026-03-29 12:00", 23), ("2026-10-25 12:00", 25), ("2026-10-26 12:00", 24)):
        begin, until = window("day", at(written), BERLIN)
        assert until - begin == hours * 3600


def test_an_hour_that_comes_twice_is_two() -> None:
    first, second = (at("2026-10-25 01:30") + hours * 3600 for hours in (1, 2))
    assert [datetime.fromtimestamp(moment, BERLIN).hour for moment in (first, second)] == [2, 2]
    assert window("hour", first, BERLIN)[1] == window("hour", second, BERLIN)[0]


ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/Havana", "Asia/Beirut", "America/Sao_Paulo", "Pacific/Apia"]
MOMENTS = st.floats(at("2000-01-01"), at("2037-01-01"))


@settings(max_examples=at_length(1000, 125))
@given(MOMENTS, st.sampled_from(PERIODS), st.sampled_from(ZONES))
def test_windows_follow_each_other_without_a_gap(now: float, period: str, zone: str) -> None:
    begin, until = window(period, now, ZoneInfo(zone))
    assert begin <= now < until
    assert window(period, begin, ZoneInfo(zone)) == window(period, until - 0.001, ZoneInfo(zone)) == (begin, until)
    assert window(period, until, ZoneInfo(zone))[0] == until
    assert window(period, begin - 0.001, ZoneInfo(zone))[1] == begin


@given(MOMENTS, st.sampled_from(PERIODS))
def test_the_machine_s_own_time_zone(now: float, period: str) -> None:
    begin, until = window(period, now, None)
    assert begin <= now < until
    local = datetime.fromtimestamp(begin)
    assert (local.second, local.microsecond) == (0, 0) or period == "second"
    assert period != "month" or (local.day, local.hour, local.minute) == (1, 0, 0)


# docs/limits.md


def test_the_examples_of_the_documentation(limited: Callable[..., Gateway], clock: Clock) -> None:
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
    ini, http, *sql = re.findall(r"```(?:ini|http|sql)\n(.*?)```", page, re.S)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(f"[app]\n{ini}")
    limits, zone = parser["app"]["smsgw.quota.limits"], parser["app"]["smsgw.quota.timezone"]
    assert zone == "Europe/Berlin"  # as ``limited`` has it
    gateway = limited(*limits.strip().splitlines())
    gateway.application.plugins.get_plugin("clocked").background(_set())
    head, _, body = http.partition("\n\n")
    for _ in range(2):
        clock.now -= 1
        gateway.send(mobiles=MOBILES[:5], user="root")
    begin = at("2026-11-23 10:00:30")
    for back in (2, 1):
        clock.now = begin - back - 10
        gateway.send(mobiles=MOBILES[:5], user="ops")
    clock.now = begin
    reply = gateway.send(user="ops", status=429)
    assert reply.json == json.loads(body)
    for line in head.splitlines()[1:]:
        name, _, value = line.partition(": ")
        if name == "RateLimit-Policy":
            group = '"600 parts/month for @alarms";q=600;w=2592000;qu="parts"'
            assert set(reply.headers[name].split(", ")) == {*value.split(", "), group}
        else:
            assert reply.headers[name] == value
    select, delete = sql
    with database(gateway).begin() as connection:
        rows = connection.exec_driver_sql(select).fetchall()
        assert ("ops", "messages/minute", begin + 30, 10, 10) in [tuple(row) for row in rows]
        connection.exec_driver_sql(delete)
    gateway.send(user="ops")


# Settings


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ("ops: 10/fortnight", ["'10/fortnight'", "'ops'", "10/minute", "month"]),
        ("ops: 0/minute", ["'0/minute'"]),
        ("ops: -1/minute", ["'-1/minute'"]),
        ("ops: 1.5/minute", ["'1.5/minute'"]),
        ("ops: 10/minutes", ["'10/minutes'"]),
        ("ops: 10/minute,5/day", ["'10/minute,5/day'"]),
        ("ops: 10/minute 5", ["'5'"]),
        ("ops: 600 part/month", ["'600 part/month'"]),
        ("ops: parts/month", ["'parts/month'"]),
        ("@alarms: 600 parts", ["'600 parts'", "'@alarms'"]),
        ("ops: many", ["'many'"]),
        ("ops: ١٠/minute", ["'١٠/minute'"]),
        ("ops: 9999999999999/day", ["'9999999999999/day'"]),
        ("ops: 10/minute 20/minute", ["two limits of messages/minute", "'ops'"]),
        ("ops: 10/minute 20 messages/minute", ["two limits of messages/minute"]),
        ("ops: 10/minute\n    ops: 20/day", ["two lines for 'ops'"]),
        ("ops", ["'ops'"]),
        ("ops:", ["'ops:'"]),
        ("", ["empty"]),
        (None, ["missing"]),
    ],
)
def test_lines_that_are_wrong(refusal: Callable[..., str], limits: str | None, words: list[str]) -> None:
    sentence = refusal({"smsgw.plugins": "htpasswd allow quota", "smsgw.quota.limits": limits})
    assert "'quota'" in sentence
    assert all(word in sentence for word in ("smsgw.quota.limits", *words)), sentence


@pytest.mark.parametrize("zone", ["Europe/Berln", "Europe", "../etc/passwd", "/etc/passwd", "x" * 1000])
def test_time_zones_that_are_wrong(refusal: Callable[..., str], zone: str) -> None:
    changes = {"smsgw.plugins": "htpasswd allow quota", "smsgw.quota.limits": "*: 1/day", "smsgw.quota.timezone": zone}
    sentence = refusal(changes)
    assert "smsgw.quota.timezone: there is no time zone" in sentence
    assert zone != "Europe/Berln" or "did you mean 'Europe/Berlin'" in sentence


def test_a_database_that_is_wrong(refusal: Callable[..., str]) -> None:
    changes = {"smsgw.plugins": "htpasswd allow quota", "smsgw.quota.limits": "*: 1/day"}
    sentence = refusal(changes | {"smsgw.store": "mysql://smsgw:geheim@host/smsgw"})
    assert "smsgw.store should begin with" in sentence
    assert "geheim" not in sentence


# The counters against a model


@pytest.fixture
def counters(store_url: str) -> Iterator[Counters]:
    store = Store(store_url)
    store.keep(TABLES, SCRIPTS)
    found = Counters(store)
    yield found
    found.used.close()
    store.close()


CLAIMS = st.dictionaries(st.integers(0, 4), st.integers(1, 6), min_size=1, max_size=5)
_numbers = itertools.count()


@settings(max_examples=at_length(120, 15))
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), CLAIMS), max_size=30))
def test_takes_and_what_is_given_back(counters: Counters, steps: list[tuple[bool, int, dict[int, int]]]) -> None:
    """As with a dictionary of what is used: all or none, never over the limit, never refused while there is room."""
    limits = [Limit(f"{next(_numbers)}", 6 + 3 * number, "messages", "day") for number in range(5)]
    used: dict[tuple[Limit, int], int] = {}
    taken: list[list[Claim]] = []
    for is_back, day, amounts in steps:
        if is_back and taken:
            back = taken.pop(day % len(taken))
            counters.give_back(back)
            for claim in back:
                used[claim.limit, claim.until] -= claim.amount
            continue
        claims = [Claim(limits[number], day, day + 1, amounts[number]) for number in sorted(amounts)]
        left = {claim: claim.limit.most - used.get((claim.limit, claim.until), 0) for claim in claims}
        short = {claim: rest for claim, rest in left.items() if rest < claim.amount}
        if short:
            with pytest.raises(Exhausted) as refused:
                counters.take(claims)
            assert refused.value.left == short
        else:
            counters.take(claims)
            taken.append(claims)
            for claim in claims:
                used[claim.limit, claim.until] = used.get((claim.limit, claim.until), 0) + claim.amount
        assert counters.left(claims) == {
            claim: claim.limit.most - used.get((claim.limit, claim.until), 0) for claim in claims
        }


def test_threads_that_take_in_every_order(counters: Counters) -> None:
    """Nobody waits for one who waits for them, and each counter ends where it should."""
    limits = [Limit(f"user-{number}", 400, "messages", "day") for number in range(4)]

    def hammer(seed: int) -> dict[Limit, int]:
        chance, total = random.Random(seed), dict.fromkeys(limits, 0)
        for _ in range(40):
            chosen = sorted(chance.sample(limits, chance.randrange(1, 5)), key=lambda limit: limit.name)
            claims = [Claim(limit, 0, 1, chance.randrange(1, 5)) for limit in chosen]
            try:
                counters.take(claims)
            except Exhausted:
                continue
            if chance.random() < 0.3:
                counters.give_back(claims)
            else:
                for claim in claims:
                    total[claim.limit] += claim.amount
        return total

    with ThreadPoolExecutor(8) as pool:
        totals = list(pool.map(hammer, range(8)))
    for limit in limits:
        (left,) = counters.left([Claim(limit, 0, 1, 1)]).values()
        assert left == limit.most - sum(total[limit] for total in totals)


# Several processes


@pytest.fixture
def server_settings(base_settings: dict[str, str], store_url: str) -> dict[str, str]:
    return base_settings | {"smsgw.plugins": "htpasswd allow quota", "smsgw.store": store_url}


def outgoing(settings: dict[str, str]) -> int:
    return sum(not path.name.startswith(".") for path in (Path(settings["smsgw.spool"]) / "outgoing").iterdir())


def test_four_gateways_and_many_threads_let_exactly_so_many_through(
    tmp_path: Path, server_settings: dict[str, str]
) -> None:
    limits = "\n".join(["lvv: 100/month", "ops: 100/month", "*: 150/month 1000 parts/month"])
    with ExitStack() as stack:
        servers = [Server(tmp_path, server_settings | {"smsgw.quota.limits": limits}) for _ in range(4)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda server: stack.enter_context(server), servers))
            work = [(servers[n % 4], MOBILES[: 1 + n % 2], "lvv" if n % 3 else "ops") for n in range(160)]
            replies = list(pool.map(lambda job: (job[0].send(job[1], user=job[2]), len(job[1])), work))
            assert {reply.status for reply, _ in replies} <= {201, 429}
            accepted = sum(count for reply, count in replies if reply.status == 201)
            assert accepted == outgoing(server_settings) <= 150
            # One by one, whatever room is left is found.
            rest = list(pool.map(lambda n: servers[n % 4].send(MOBILES[:1], user=("lvv", "ops")[n % 2]), range(40)))
            accepted += sum(reply.status == 201 for reply in rest)
        assert {reply.status for reply in rest} <= {201, 429}
        assert accepted == outgoing(server_settings) == 150


@pytest.mark.parametrize("arguments", ["", "--preload"])
def test_gunicorn(
    tmp_path: Path, server_settings: dict[str, str], arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", f"{arguments} --threads 4")
    settings = server_settings | {"smsgw.quota.limits": "lvv: 40/month"}
    with Server(tmp_path, settings, workers=3) as server, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: server.send(MOBILES[:1]).status, range(60)))
        assert sorted(replies) == [201] * 40 + [429] * 20, server.stderr
        assert outgoing(settings) == 40
        assert "Traceback" not in server.stderr


def test_kill_9_under_load_never_lets_more_through(tmp_path: Path, server_settings: dict[str, str]) -> None:
    most = at_length(200, 100)
    settings = server_settings | {"smsgw.quota.limits": f"lvv: {most}/month 100000 parts/month"}
    server, stop, counted = Server(tmp_path, settings), threading.Event(), [0]
    chance = random.Random()

    def client(number: int) -> int:
        accepted = 0
        while not stop.is_set():
            try:
                reply = server.send(MOBILES[: 1 + number % 3])
            except (OSError, HTTPException):
                continue
            assert reply.status in (201, 429)
            if reply.status == 201:
                accepted += len(reply.json["message_id"])
                counted[0] += 1
        return accepted

    with ThreadPoolExecutor(5) as pool:
        clients = []
        try:
            for _ in range(at_length(4, 2)):
                server.start()
                clients = clients or [pool.submit(client, number) for number in range(5)]
                before, more = counted[0], chance.randrange(3, 12)
                _wait_for(lambda before=before, more=more: counted[0] >= before + more)
                server.kill()
            server.start()
            _wait_for(lambda: server.send(MOBILES[:1]).status == 429)
        finally:
            stop.set()
            accepted = sum(found.result(30) for found in clients)
            server.kill()
    assert accepted <= outgoing(settings) <= most


def _wait_for(condition: Callable[[], bool]) -> None:
    from tests.conftest import eventually

    eventually(condition, 30)


# A power failure

START = """
import sys
from smsgw.store import Store
from smsgw_plugins.quota.counters import SCRIPTS, TABLES, Counters
from smsgw_plugins.quota.limits import Claim, Limit

store = Store(sys.argv[1])
store.keep(TABLES, SCRIPTS)
counters = Counters(store)
counters.remove_old_files()
limits = [Claim(Limit("ops", 100, counted, "month"), 0, 1, 1) for counted in ("messages", "parts")]
for word in sys.argv[2:]:
    counters.save() if word == "save" else counters.take(limits)
print(*counters.left(limits).values())
"""


def test_what_was_saved_outlives_a_start_of_the_machine(tmp_path: Path, store_url: str) -> None:
    """In a namespace in which the machine has been started anew. What was not saved is lost with SQLite alone."""
    need("unshare", "mount")
    boot = tmp_path / "boot_id"
    command = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'

    def start(*words: str) -> str:
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", command, str(boot)]
        python = [sys.executable, "-W", "ignore", "-c", START, store_url, *words]
        return subprocess.run([*enter, *python], capture_output=True, text=True, check=True).stdout

    boot.write_text("one\n")
    assert start("take", "take", "save", "take") == "97 97\n"
    assert start("take") == "96 96\n"  # the end of a process loses nothing
    boot.write_text("two\n")
    lost = 2 if store_url.startswith("sqlite") else 0
    assert start() == f"{96 + lost} {96 + lost}\n"
    assert {path.name.removesuffix("-journal") for path in tmp_path.glob("quota-*")} <= {"quota-two.sqlite3"}
    for path in tmp_path.glob("quota-*"):  # an operator may remove the file
        path.unlink()
    assert start() == f"{96 + lost} {96 + lost}\n"


def test_a_gateway_saves_now_and_then(tmp_path: Path, server_settings: dict[str, str]) -> None:
    with Server(tmp_path, server_settings | {"smsgw.quota.limits": "lvv: 5/month"}) as server:
        assert [server.send(MOBILES[:1]).status for _ in range(3)] == [201] * 3
        store = Store(server_settings["smsgw.store"])

        def saved() -> list[int]:
            with store.begin(is_reading=True) as connection:
                return list(connection.execute(text("SELECT used FROM quota")).scalars())

        _wait_for(lambda: saved() == [3])
        store.close()


# The database out of service


def test_a_database_that_is_down_at_the_start_and_for_a_while(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with Postgresql() as server:
        url = server.create().replace("smsgw@", "smsgw:geheim@")
        server.stop()
        changes = {"smsgw.plugins": "htpasswd allow quota", "smsgw.quota.limits": "lvv: 3/month", "smsgw.store": url}
        gateway = make_gateway(changes)
        for status in (503, 201, 503, 201):
            reply = gateway.send(status=status)
            if status == 503:
                assert reply.json == {"error": "The gateway's database is out of service"}
                assert int(reply.headers["Retry-After"]) > 0
                server.start()
            elif len(gateway.files()) == 1:
                server.stop()
        assert send(gateway, "lvv", "lvv") == [201, 429]
        assert len(gateway.files()) == 3
    assert "geheim" not in caplog.text
    assert "Traceback" not in caplog.text


def test_a_file_that_is_no_database(make_gateway: MakeGateway, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    path.write_bytes(bytes(range(256)) * 64)
    changes = {"smsgw.plugins": "htpasswd allow quota", "smsgw.quota.limits": "lvv: 1/month"}
    gateway = make_gateway(changes | {"smsgw.store": f"sqlite:///{path}"})
    assert send(gateway, "lvv", "lvv", "ops") == [503, 503, 201]
    path.unlink()
    assert send(gateway, "lvv", "lvv") == [201, 429]
    assert len(gateway.files()) == 2


def test_a_disk_that_is_read_only_or_full(tmp_path: Path, base_settings: dict[str, str]) -> None:
    """Of the database; the spool is on another one."""
    with Tmpfs(tmp_path / "small", "1m") as small:
        changes = {
            "smsgw.plugins": "htpasswd allow quota",
            "smsgw.quota.limits": "lvv: 5/month",
            "smsgw.store": f"sqlite:///{small.path}/store.sqlite3",
        }
        settings = base_settings | changes
        with Server(tmp_path, settings, enter=small.enter) as server:

            def statuses(count: int) -> list[int]:
                return [server.send(MOBILES[:1]).status for _ in range(count)]

            assert statuses(2) == [201, 201]
            mount_read_only(small)
            assert statuses(2) == [503, 503]
            small.run("umount", small.path)
            assert statuses(1) == [201]
            filler = small.fill()
            full = statuses(20)
            assert set(full) <= {201, 429, 503}
            filler.unlink()
            found = full + statuses(3)
            assert set(found) <= {201, 429, 503}
            assert found.count(201) == 2
            assert outgoing(settings) == 5
            assert "Traceback" not in server.stderr


def mount_read_only(small: Tmpfs) -> None:
    """Another file system in its place; one that is in use cannot be made read-only."""
    small.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", small.path)


def test_a_spool_that_is_read_only(tmp_path: Path, base_settings: dict[str, str], store_url: str) -> None:
    """The messages that it did not take are given back."""
    with Tmpfs(tmp_path / "small", "1m") as small:
        (small.outside / "outgoing").mkdir()
        changes = {
            "smsgw.plugins": "htpasswd allow quota",
            "smsgw.quota.limits": "lvv: 3/month",
            "smsgw.spool": str(small.path),
            "smsgw.store": store_url,
        }
        with Server(tmp_path, base_settings | changes, enter=small.enter) as server:
            assert server.send(MOBILES[:1]).status == 201
            mount_read_only(small)
            assert [server.send(MOBILES[:2]).status for _ in range(3)] == [503, 503, 503]
            small.run("umount", small.path)
            assert [server.send(MOBILES[:1]).status for _ in range(3)] == [201, 201, 429]
