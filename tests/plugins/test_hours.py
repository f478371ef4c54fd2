"""``hours``: when users may send."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyramid.security import Denied

from smsgw.model import ConfigurationError, Content, Identity, Message, Options
from smsgw.testing import MakeGateway
from smsgw_plugins.hours import DAYS, Hours

MESSAGES = "/api/v2/messages"

Make = Callable[..., Callable[..., Any]]

LOADED = {"smsgw.plugins": "htpasswd allow hours"}

LVV = Identity("lvv", frozenset({"alarms", "night"}))

# A week that begins on Monday, 23 November 2026; in Berlin, UTC is an hour behind.
AT = {
    "Sun 23:59": "2026-11-22T22:59:59.999999+00:00",
    "Mon 00:00": "2026-11-22T23:00+00:00",
    "Mon 07:59": "2026-11-23T06:59:59.999999+00:00",
    "Mon 08:00": "2026-11-23T07:00+00:00",
    "Mon 12:30": "2026-11-23T11:30+00:00",
    "Mon 17:59": "2026-11-23T16:59:59.999999+00:00",
    "Mon 18:00": "2026-11-23T17:00+00:00",
    "Mon 23:00": "2026-11-23T22:00+00:00",
    "Fri 23:00": "2026-11-27T22:00+00:00",
    "Sat 05:59": "2026-11-28T04:59+00:00",
    "Sat 06:00": "2026-11-28T05:00+00:00",
    "Sun 05:00": "2026-11-29T04:00+00:00",
}


def may_send(line: str, at: str, timezone: str | None = "Europe/Berlin") -> bool:
    zone = ZoneInfo(timezone) if timezone else None
    plugin = Hours({"lvv": line}, zone, urgent_always=False, clock=lambda: datetime.fromisoformat(at))
    content = Content("lvv", "Hi", "GSM", 1)
    return plugin.permits(LVV, "send", Message("m1", "79680000000", content)) is None


@pytest.mark.parametrize(
    ("line", "open"),
    [
        ("Mon-Fri 08:00-18:00", {"Mon 08:00", "Mon 12:30", "Mon 17:59"}),
        ("Mon 8:00-12:30 12:31-18:00", {"Mon 08:00", "Mon 17:59"}),
        ("Mon-Sun 00:00-24:00", set(AT)),
        ("Tue-Mon 00:00-24:00", set(AT)),
        ("Mon-Fri 22:00-06:00", {"Mon 23:00", "Fri 23:00", "Sat 05:59"}),
        ("Sun 22:00-06:00", {"Sun 23:59", "Mon 00:00"}),
        ("Sun 22:00-00:00", {"Sun 23:59"}),
        ("Sun 22:00-24:00", {"Sun 23:59"}),
        ("Sun-Mon 23:59-00:01", {"Sun 23:59", "Mon 00:00"}),
        ("Sat-Mon 05:00-08:00", {"Mon 07:59", "Sat 05:59", "Sat 06:00", "Sun 05:00"}),
        ("Mon Fri 22:00-06:00 Sun 04:00-06:00", {"Mon 23:00", "Fri 23:00", "Sat 05:59", "Sun 05:00"}),
        ("Mon 22:00-21:59", {"Mon 23:00"}),
    ],
)
def test_a_line(line: str, open: set[str]) -> None:
    assert {name for name, at in AT.items() if may_send(line, at)} == open


@pytest.mark.parametrize(
    ("line", "at", "open"),
    [
        # Summer time ends: 02:30 comes twice, and is in the hour from two to three both times.
        ("Sun 02:00-03:00", "2026-10-24T23:59+00:00", False),
        ("Sun 02:00-03:00", "2026-10-25T00:00+00:00", True),
        ("Sun 02:00-03:00", "2026-10-25T00:30+00:00", True),
        ("Sun 02:00-03:00", "2026-10-25T01:30+00:00", True),
        ("Sun 02:00-03:00", "2026-10-25T02:00+00:00", False),
        ("Sun 01:00-02:15", "2026-10-25T00:30+00:00", False),
        ("Sun 01:00-02:15", "2026-10-25T01:10+00:00", True),
        # It begins: there is no 02:30.
        ("Sun 02:00-03:00", "2026-03-29T00:59+00:00", False),
        ("Sun 02:00-03:00", "2026-03-29T01:00+00:00", False),
        ("Sun 01:00-03:01", "2026-03-29T01:00+00:00", True),
        ("Sat 22:00-06:00", "2026-03-29T03:59+00:00", True),
        ("Sat 22:00-06:00", "2026-03-29T04:00+00:00", False),
    ],
)
def test_summer_time(line: str, at: str, open: bool) -> None:
    assert may_send(line, at) is open


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1439), st.integers(0, 1440)).filter(lambda s: s[1] != s[2])),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia", "UTC"]),
)
def test_any_line_at_any_time(spans: list[tuple[int, int, int]], moment: datetime, timezone: str) -> None:
    """As the clock on the wall says: today's spans, and what yesterday's have of today."""
    spans = [*spans, (0, 0, 1)]
    line = " ".join(f"{DAYS[day]} {b // 60:02}:{b % 60:02}-{e // 60:02}:{e % 60:02}" for day, b, e in spans)
    wall = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(timezone)).replace(tzinfo=None)
    expected = False
    for back in (0, 1):
        midnight = datetime(wall.year, wall.month, wall.day) - timedelta(days=back)
        for day, begin, end in spans:
            until = end if end > begin else end + 24 * 60
            inside = midnight + timedelta(minutes=begin) <= wall < midnight + timedelta(minutes=until)
            expected = expected or (midnight.weekday() == day and inside)
    assert may_send(line, moment.replace(tzinfo=UTC).isoformat(), timezone) is expected


@pytest.fixture
def machine_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def move(timezone: str) -> None:
        monkeypatch.setenv("TZ", timezone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def test_the_clock_of_the_machine(machine_in: Callable[[str], None]) -> None:
    for timezone, open in (("Asia/Tokyo", True), ("Europe/Berlin", False)):
        machine_in(timezone)
        assert may_send("Tue 00:00-01:00", "2026-11-23T15:30+00:00", timezone=None) is open


@pytest.fixture
def make_office(make_trusting: Make) -> Make:
    """A gateway where it is a certain time; ``times`` are the lines."""

    def make(at: str, times: str, **settings: str) -> Callable[..., Any]:
        class Office(Hours):
            def __init__(self, **settings: Any) -> None:
                super().__init__(**settings, clock=lambda: datetime.fromisoformat(AT[at]))

        own = {f"smsgw.office.{name}": value for name, value in settings.items()}
        return make_trusting(
            "office",
            {"smsgw.office.times": times, "smsgw.office.timezone": "Europe/Berlin"} | own,
            office=Office,
        )

    return make


def test_the_nearest_lines_count(make_office: Make) -> None:
    lines = """
        *: Mon-Fri 08:00-18:00
        @alarms: Mon-Sun 00:00-06:00
        @night: Mon-Fri 22:00-06:00
        lvv: Sat 10:00-12:00
    """
    midnight, noon, late = (make_office(at, lines) for at in ("Mon 00:00", "Mon 12:30", "Mon 23:00"))
    noon("ops")
    noon("alarms @interns")
    for send in (midnight, late):
        send("ops", status=403)
    midnight("ops @alarms")
    late("ops @night")
    for send in (midnight, late):
        send("ops @night @alarms @interns")
    for who in ("ops @alarms", "ops @night @alarms", "lvv", "lvv @night"):
        noon(who, status=403)
    for send in (midnight, noon, late):
        send("lvv @alarms", status=403)


def test_who_has_no_line_may_send_anytime(make_office: Make) -> None:
    send = make_office("Mon 12:30", "\n    @interns: Sat 10:00-12:00\n    ops: Mon 12:00-13:00")
    send("lvv")
    send("ops @interns")
    errors = send("lvv @interns", mobiles=["112", "79680000000"], status=403)["errors"]
    assert errors == {"112": "forbidden", "79680000000": "forbidden"}


def test_urgent_messages(make_office: Make) -> None:
    line = "*: Sat 10:00-12:00"
    make_office("Mon 12:30", line)(priority="high", status=403)
    send = make_office("Mon 12:30", line, urgent_always="true")
    send(priority="high")
    send(status=403)


@pytest.mark.parametrize("is_bulk", [False, True])
def test_what_is_sent_later_is_judged_by_when_it_is_to_go_out(make_gateway: MakeGateway, is_bulk: bool) -> None:
    """On a Monday, ``lvv`` may send on Mondays, and ``ops`` on Saturdays."""

    class Monday(Hours):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings, clock=lambda: datetime.fromisoformat(AT["Mon 12:30"]))

    lines = "\n  lvv: Mon 08:00-18:00\n  ops: Sat 10:00-12:00"
    settings = {"smsgw.monday.times": lines, "smsgw.monday.timezone": "Europe/Berlin"}
    gateway = make_gateway({"smsgw.plugins": "htpasswd allow monday"} | settings, monday=Monday)
    now = datetime.now(ZoneInfo("Europe/Berlin"))
    saturday = (now + timedelta(days=(5 - now.weekday()) % 7 + 7)).replace(hour=11, minute=59)
    body = {"messages": [{"to": "112", "text": "Hi"}]} if is_bulk else {"to": ["112"], "text": "Hi"}
    for at, by_lvv, by_ops in (
        (None, "queued", None),
        (saturday, None, "scheduled"),
        (saturday + timedelta(minutes=1), None, None),
        (saturday - timedelta(days=5), "scheduled", None),
        (saturday - timedelta(days=14), "queued", None),  # which is past: it goes out at once
    ):
        fields = body | ({"send_at": at.isoformat()} if at else {})
        for user, status in (("lvv", by_lvv), ("ops", by_ops)):
            reply = gateway.call("POST_JSON", MESSAGES, fields, user=user, status=202 if status else 403).json
            assert [message["status"] for message in reply.get("messages", [])] == ([status] if status else [])


def test_a_refusal_names_the_time_that_is_outside() -> None:
    plugin = Hours(
        {"lvv": "Mon 08:00-18:00"},
        ZoneInfo("Europe/Berlin"),
        urgent_always=True,
        clock=lambda: datetime.fromisoformat(AT["Mon 18:00"]),
    )
    saturday = datetime.fromisoformat(AT["Sat 06:00"])

    def answer(**options: Any) -> Denied | None:
        content = Content("lvv", "Hi", "GSM", 1, Options(**options))
        found: Denied | None = plugin.permits(LVV, "send", Message("m1", "112", content))
        return found

    assert str(answer()) == "Mon 2026-11-23 18:00 CET is outside of the hours"
    assert str(answer(send_at=saturday)) == "Sat 2026-11-28 06:00 CET is outside of the hours"
    assert answer(send_at=saturday, high_priority=True) is None
    assert answer(send_at=datetime.fromisoformat(AT["Mon 12:30"]) + timedelta(days=7)) is None


def test_the_time_that_it_is_now(make_trusting: Make) -> None:
    today = datetime.now(UTC).weekday()
    send = make_trusting(
        "hours",
        {
            "smsgw.hours.times": f"\n  lvv: Mon-Sun 00:00-24:00\n  ops: {DAYS[(today + 3) % 7]} 00:00-24:00",
            "smsgw.hours.timezone": "UTC",
        },
    )
    send("lvv")
    send("ops", status=403)


def test_a_request_is_judged_at_one_moment() -> None:
    moments = iter([datetime.fromisoformat(AT["Mon 17:59"]), datetime.fromisoformat(AT["Mon 18:00"])])
    plugin = Hours(
        {"lvv": "Mon 08:00-18:00"}, ZoneInfo("Europe/Berlin"), urgent_always=False, clock=lambda: next(moments)
    )
    first, second = (Content("lvv", "Hi", "GSM", 1, Options()) for _ in range(2))
    answers = [plugin.permits(LVV, "send", Message("m1", to, first)) for to in ("112", "79680000000")]
    assert answers == [None, None]
    assert isinstance(plugin.permits(LVV, "send", Message("m2", "112", second)), Denied)


def test_other_permissions_are_not_its_business() -> None:
    plugin = Hours(
        {"lvv": "Mon 08:00-18:00"},
        ZoneInfo("UTC"),
        urgent_always=False,
        clock=lambda: datetime(2026, 11, 22, tzinfo=UTC),
    )
    assert plugin.permits(LVV, "list", None) is None
    assert plugin.permits(LVV, "send", Message("m1", "112", Content("lvv", "Hi", "GSM", 1))) is not None


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("08:00-18:00", "'08:00-18:00' has no day before it"),
        ("Mon", "'Mon' has no time after it"),
        ("Mon 08:00-18:00 Sat-Sun", "'Sat-Sun' has no time after it"),
        ("mon 08:00-18:00", "'mon' is neither"),
        ("Mon-Fr 08:00-18:00", "'Mon-Fr' is neither"),
        ("Mon-Fri,Sun 08:00-18:00", "'Mon-Fri,Sun' is neither"),
        ("Mon 08:00-25:00", "'08:00-25:00' is neither"),
        ("Mon 24:00-08:00", "'24:00-08:00' is neither"),
        ("Mon 08:00-24:01", "'08:00-24:01' is neither"),
        ("Mon 08:60-09:00", "'08:60-09:00' is neither"),
        ("Mon 8-18", "'8-18' is neither"),
        ("Mon 08:00 - 18:00", "'08:00' is neither"),
        ("Mon 08:00-08:00", "'08:00-08:00' ends when it begins; a whole day is 00:00-24:00"),
        ("Mon ٠٨:00-18:00", "'٠٨:00-18:00' is neither"),
        ("always", "'always' is neither"),
    ],
)
def test_a_wrong_line_stops_the_start(refusal: Callable[..., str], line: str, word: str) -> None:
    sentence = refusal(LOADED | {"smsgw.hours.times": f"\n  ops: Mon 08:00-18:00\n  *: {line}"})
    assert f"smsgw.hours.times has a wrong word for '*': {word}" in sentence


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berln", "did you mean 'Europe/Berlin'?"),
        ("Europe", "there is no time zone 'Europe'"),
        ("../etc/passwd", "there is no time zone '../etc/passwd'"),
        ("/etc/passwd", "there is no time zone '/etc/passwd'"),
    ],
)
def test_a_time_zone_that_there_is_not(refusal: Callable[..., str], name: str, hint: str) -> None:
    sentence = refusal(
        {"smsgw.plugins": "htpasswd allow hours"}
        | {"smsgw.hours.times": "*: Mon 08:00-18:00", "smsgw.hours.timezone": name}
    )
    assert "smsgw.hours.timezone: " in sentence
    assert hint in sentence


@given(st.text(st.sampled_from("MonFriSat-:0128 4"), min_size=1).filter(str.strip))
def test_any_line_is_understood_or_refused(line: str) -> None:
    try:
        plugin = Hours({"*": line}, None, urgent_always=False)
    except ConfigurationError:
        return
    plugin.permits(LVV, "send", Message("m1", "112", Content("lvv", "Hi", "GSM", 1)))
