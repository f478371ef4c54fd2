"""The journal: filled by files, asked through HTTP; what it knows is what the spool says, also when that is gone."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, event

from smsgw.journal.database import Database
from smsgw.journal.journal import Journal
from smsgw.journal.notifier import Notifier
from smsgw.journal.pages import page
from smsgw.journal.retention import Retention
from smsgw.journal.tables import EVENTS, FILES, PARTS, REPORTS, SCRIPTS, TABLES
from smsgw.journal.tables import MESSAGES as TABLE
from smsgw.journal.writing import Found
from smsgw.model import Event, Query, StoredMessage
from smsgw.settings import JournalSettings
from smsgw.spool.following import reports
from smsgw.spool.layout import from_folder
from smsgw.store import Store
from smsgw.testing import Gateway, MakeGateway, make_spool
from tests.conftest import eventually
from tests.postgresql import Postgresql
from tests.remembered import (
    INBOX,
    MESSAGES,
    REPORT,
    SENT,
    at_work,
    database_of,
    found,
    known,
    put_old,
    received,
    rows,
    sent,
)


@pytest.fixture
def gateway(make_gateway: MakeGateway, store_url: str) -> Gateway:
    return at_work(make_gateway({"smsgw.store": store_url}))


@pytest.fixture
def lite(make_gateway: MakeGateway) -> Gateway:
    return at_work(make_gateway())


# What it remembers


def test_messages_outlive_their_files(gateway: Gateway) -> None:
    paths = [gateway.put("sent", "m1", sent(number=7, reference="a")), gateway.put("failed", "m2", sent())]
    paths += [gateway.put("incoming", "GSM1.a", received()), gateway.put("report", "GSM1.r", REPORT.format(7, 0))]
    eventually(lambda: known(gateway) == {"m1": "delivered", "m2": "failed", "GSM1.a": "received"})

    def answers() -> tuple[Any, ...]:
        urls = (MESSAGES, f"{MESSAGES}/m1", INBOX)
        return tuple(gateway.get(url, user=user).json for url in urls for user in ("lvv", "root"))

    before = answers()
    assert before[2]["status"] == "delivered"
    for path in paths:
        path.unlink()
    eventually(lambda: not rows(gateway, FILES))
    assert answers() == before
    assert found(gateway, "reference=a") == found(gateway, "status=delivered") == {"m1": "delivered"}
    assert gateway.get(f"{INBOX}/GSM1.a", user="root").json["text"] == "Hello"
    gateway.get("/api/v1.0/sms/sent/m1", status=404)
    gateway.delete(f"{MESSAGES}/m1", status=409)


def test_a_status_report_s_file_may_go(gateway: Gateway) -> None:
    gateway.put("sent", "m1", sent(number=7))
    report = gateway.put("report", "GSM1.r", REPORT.format(7, 70))
    eventually(lambda: known(gateway) == {"m1": "undelivered"})
    report.unlink()
    gateway.put("report", "GSM1.s", REPORT.format(7, 0))  # of two final ones the first counts
    gateway.put("sent", "m2", sent())
    eventually(lambda: "m2" in known(gateway))
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "undelivered"
    assert gateway.get(f"{MESSAGES}/m1").json["report"]["code"] == 70


def test_a_message_that_the_journal_lost_is_read_from_its_file(gateway: Gateway) -> None:
    gateway.put("sent", "m1", sent(number=7))
    eventually(lambda: known(gateway))
    with database_of(gateway).writing() as connection:
        connection.execute(delete(TABLE))
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "sent"
    assert found(gateway) == {}


def test_a_spool_that_was_there_before(make_gateway: MakeGateway, tmp_path: Path, store_url: str) -> None:
    """Of what it had before the gateway ran for the first time, nobody is told."""
    spool = make_spool(tmp_path / "old")
    for kind, name, content in (
        ("sent", "m1", sent(number=7)),
        ("report", "GSM1.r", REPORT.format(7, 0)),
        ("incoming", "GSM1.a", received()),
        ("incoming", "GSM1.b", REPORT.format(9, 0)),
        ("outgoing", "m2", sent()),
    ):
        (spool / kind / name).write_text(content)
    gateway = at_work(make_gateway({"smsgw.store": store_url, "smsgw.spool": str(spool)}))
    assert known(gateway) == {"m1": "delivered", "GSM1.a": "received"}
    assert found(gateway) == {"m2": "queued", "m1": "delivered"}
    assert rows(gateway, EVENTS) == []


def test_several_machines_share_a_database(make_gateway: MakeGateway, postgresql: Postgresql, tmp_path: Path) -> None:
    """Each has its own spool and its own files; searches find what all of them sent."""
    store = {"smsgw.store": postgresql.create()}
    one = at_work(make_gateway(store))
    other = at_work(make_gateway(store | {"smsgw.spool": str(make_spool(tmp_path / "other"))}))
    one.put("sent", "m1", sent(number=7))
    Path(other.settings["smsgw.spool"], "sent", "m2").write_text(sent(number=7))
    eventually(lambda: known(one) == {"m1": "sent", "m2": "sent"})
    assert found(one) == found(other) == {"m1": "sent", "m2": "sent"}
    one.put("report", "GSM1.r", REPORT.format(7, 0))
    eventually(lambda: known(one) == {"m1": "delivered", "m2": "sent"})
    assert other.get("/api/v1.0/sms/sent/", user="lvv").json["message_id"] == ["m2"]


# What users delete


def test_users_delete_received_messages_for_ever(gateway: Gateway) -> None:
    """Also while the gateway is reading them."""
    for number in range(30):
        gateway.put("incoming", f"GSM1.{number}", received())
        gateway.delete(f"{INBOX}/GSM1.{number}", user="root")
    gateway.put("incoming", "GSM1.last", received())
    eventually(lambda: "GSM1.last" in known(gateway))
    assert known(gateway) == {"GSM1.last": "received"}
    assert [each["id"] for each in gateway.get(INBOX, user="root").json["messages"]] == ["GSM1.last"]
    gateway.get(f"{INBOX}/GSM1.1", user="root", status=404)


def test_a_received_message_whose_file_is_gone_can_be_deleted(gateway: Gateway) -> None:
    path = gateway.put("incoming", "GSM1.a", received())
    eventually(lambda: known(gateway))
    path.unlink()
    gateway.delete(f"{INBOX}/GSM1.a", status=404)
    assert gateway.delete(f"{INBOX}/GSM1.a", user="root").json["text"] == "Hello"
    assert known(gateway) == {}


@pytest.mark.parametrize(("code", "status"), [(errno.EPERM, 403), (errno.EIO, 503)])
def test_what_cannot_be_deleted_is_still_found(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    gateway.put("sent", "m1", sent(number=7, reference="a"))
    gateway.put("report", "GSM1.r", REPORT.format(7, 0))
    gateway.put("incoming", "GSM1.a", received())
    eventually(lambda: known(gateway) == {"m1": "delivered", "GSM1.a": "received"})
    before = dump(gateway)

    def refuse(path: Path) -> None:
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as patched:
        patched.setattr("smsgw.spool.folders.os.unlink", refuse)
        for url in (f"{INBOX}/GSM1.a", "/api/v1.0/sms/incoming/GSM1.a", "/api/v1.0/sms/sent/m1"):
            gateway.delete(url, user="root", status=status)
    assert dump(gateway) == before
    assert found(gateway, "reference=a", user="root") == {"m1": "delivered"}
    gateway.delete("/api/v1.0/sms/sent/m1", user="root")
    gateway.delete(f"{INBOX}/GSM1.a", user="root")
    assert known(gateway) == found(gateway, "reference=a", user="root") == {}
    assert gateway.get(INBOX, user="root").json["messages"] == []


# Names that are used again


def test_a_name_that_is_used_again(gateway: Gateway) -> None:
    """Other programs may do so: it is another message, of which nothing is known from the one before."""
    gateway.put("sent", "alarm", sent(number=7))
    gateway.put("report", "GSM1.r", REPORT.format(7, 0))
    eventually(lambda: known(gateway) == {"alarm": "delivered"})
    path = gateway.put("sent", "alarm", sent("79680000000", number=8, text="Fire!"))
    eventually(lambda: known(gateway) == {"alarm": "sent"})
    assert found(gateway) == found(gateway, "to=79680000000") == {"alarm": "sent"}
    path.unlink()
    assert gateway.get(f"{MESSAGES}/alarm").json["text"] == "Fire!"
    assert found(gateway, "to=79160000000") == {}


def test_a_received_message_of_the_name_of_one_that_was_deleted(gateway: Gateway) -> None:
    gateway.put("incoming", "GSM1.a", received())
    eventually(lambda: known(gateway))
    gateway.delete(f"{INBOX}/GSM1.a", user="root")
    gateway.put("incoming", "GSM1.a", received("79162222222"))
    eventually(lambda: known(gateway) == {"GSM1.a": "received"})
    (message,) = gateway.get(INBOX, user="root").json["messages"]
    assert message["from"] == "+79162222222"


def test_a_message_that_is_sent_again(gateway: Gateway) -> None:
    path = gateway.put("failed", "m1", sent())
    eventually(lambda: known(gateway) == {"m1": "failed"})
    path = path.rename(gateway.spool / "outgoing" / "m1")
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "queued"
    path.rename(gateway.spool / "sent" / "m1")
    eventually(lambda: known(gateway) == {"m1": "sent"})
    assert found(gateway) == {"m1": "sent"}


# What files hold, and what is asked


@pytest.fixture
def journal(store_url: str) -> Iterator[Journal]:
    store = Store(store_url)
    store.keep(TABLES, SCRIPTS)
    journal = Journal(Database(store), "spool", [])
    journal.begin([], [], 0)
    yield journal
    store.close()


def emptied(journal: Journal) -> Journal:
    with journal.database.writing() as connection:
        for table in (FILES, TABLE, PARTS, REPORTS, EVENTS):
            connection.execute(delete(table))
    return journal


def seen(message: StoredMessage, *, is_news: bool = True) -> Found:
    at = datetime(2026, 11, 22, 9, 16, 3, tzinfo=UTC)
    return Found(message.kind, message.id, 1, 1, at, message, None, None, is_news)


HOSTILE = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@settings(max_examples=60)
@given(owner=HOSTILE, to=HOSTILE, reference=HOSTILE, text=HOSTILE, id=st.text("abc.-_é\u0001", min_size=1, max_size=60))
def test_whatever_a_file_holds(journal: Journal, owner: str, to: str, reference: str, text: str, id: str) -> None:
    emptied(journal)
    message = StoredMessage("sent", id, {"To": to, "From": owner, "X-Reference": reference, "\0": "\0"}, text, owner)
    for _ in range(2):
        journal.put([seen(message)], [], {})
    for query in (Query(SENT), Query(SENT, owner=owner), Query(SENT, reference=reference), Query(SENT, ids=(id,))):
        assert [each.message for each in journal.find(query)] == [message]


@settings(max_examples=40)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from(["sent", "failed", "cancelled", "incoming"]), st.sampled_from("abc"))),
        max_size=5,
    )
)
def test_what_is_seen_last_counts(journal: Journal, batches: list[list[tuple[str, str]]]) -> None:
    emptied(journal)
    model: dict[tuple[str, bool], str] = {}
    for batch in batches:
        messages = [StoredMessage(kind, id, {"To": "7916", "From": "lvv"}, kind, None) for kind, id in batch]
        journal.put([seen(message, is_news=False) for message in messages], [], {})
        model |= {(id, kind == "incoming"): kind for kind, id in batch}
    for statuses, is_received in ((SENT, False), (("received",), True)):
        wanted = {id: kind for (id, received), kind in model.items() if received is is_received}
        assert {each.message.id: each.message.kind for each in journal.find(Query(statuses, limit=10))} == wanted


HOSTILE_KEYS = st.one_of(st.none(), st.text(max_size=300), st.sampled_from(["\0", "\ud800", "%", "' OR 1=1 --"]))
TIMES = st.one_of(st.integers(-(10**30), 10**30), st.integers(0, 2000))


@settings(max_examples=100)
@given(
    query=st.builds(
        Query,
        st.lists(st.sampled_from(SENT), min_size=1, unique=True).map(tuple),
        *[HOSTILE_KEYS] * 4,
        before=st.one_of(st.none(), st.tuples(TIMES, st.text(max_size=300))),
        limit=st.integers(1, 100),
    )
)
def test_whatever_is_asked(journal: Journal, query: Query) -> None:
    """Who asks for nonsense finds nothing, and breaks nothing."""
    assert journal.find(query) == []


@pytest.mark.parametrize(
    "query", [Query(SENT, reference="\ud800"), Query(SENT, ids=("\ud800",)), Query(SENT, before=(1, "\ud800"))]
)
def test_no_question_makes_it_broken(lite: Gateway, query: Query) -> None:
    assert lite.application.journal.find(query) == []
    assert not (lite.state / "journal" / "broken").exists()


# Searches

NUMBERS, USERS = ("79160000000", "79680000000", "112"), ("lvv", "ops")
PLACES = (("sent", None), ("sent", 0), ("sent", 70), ("failed", None), ("checked", None), ("outgoing", None))
STATUSES = ("sent", "delivered", "undelivered", "failed", "sending", "queued")
BEGAN = 1_700_000_000


def is_wanted(number: int, query: Mapping[str, str], user: str) -> bool:
    """Whether that message of ``filled`` is one that the search is for."""
    owner, second = USERS[number % 2], number // 3
    return (
        STATUSES[number % 6] in query.get("status", ",".join(STATUSES)).split(",")
        and (user == "root" or owner == user)
        and query.get("from", owner) == owner
        and query.get("to", NUMBERS[number % 3]) == NUMBERS[number % 3]
        and ("reference" not in query or (number % 5 > 0 and query["reference"] == "ab"[number % 2]))
        and _moment(second) >= query.get("since", "")
        and ("until" not in query or _moment(second) < query["until"])
    )


@pytest.fixture
def filled(gateway: Gateway) -> Gateway:
    """48 messages, of all statuses but one, and nine that were received."""
    for number in range(48):
        kind, status = PLACES[number % 6]
        text = sent(NUMBERS[number % 3], USERS[number % 2], "ab"[number % 2] if number % 5 else "", number)
        _put_at(gateway, kind, f"m{number:02}", text, number // 3)
        if status is not None:
            report = REPORT.format(number, status).replace("79160000000", NUMBERS[number % 3])
            _put_at(gateway, "report", f"GSM1.{number}", report, number // 3)
    for number in range(9):
        _put_at(gateway, "incoming", f"GSM1.i{number}", received(NUMBERS[number % 3]), number)
    eventually(lambda: len(known(gateway)) == 41 and list(known(gateway).values()).count("undelivered") == 8)
    eventually(lambda: list(known(gateway).values()).count("delivered") == 8)
    return gateway


def _put_at(gateway: Gateway, kind: str, name: str, content: str, second: int) -> None:
    path = gateway.put(kind, f".{name}", content)
    os.utime(path, (BEGAN + second,) * 2)
    path.rename(path.with_name(name))


def _moment(second: int) -> str:
    return datetime.fromtimestamp(BEGAN + second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.lists(st.sampled_from(STATUSES), min_size=1, unique=True).map(",".join),
        "to": st.sampled_from(NUMBERS),
        "from": st.sampled_from([*USERS, "nobody"]),
        "reference": st.sampled_from("abc"),
        "since": st.integers(-1, 17).map(_moment),
        "until": st.integers(0, 17).map(_moment),
        "limit": st.integers(1, 20).map(str),
    },
)


def test_searches_find_what_is_asked_for(filled: Gateway) -> None:
    """In the order of time, page by page, what is under way and what has ended."""

    @settings(max_examples=100)
    @given(query=QUERIES, user=st.sampled_from(["lvv", "ops", "root"]))
    def check(query: dict[str, str], user: str) -> None:
        words = "&".join(f"{name}={value}" for name, value in query.items())
        wanted = sorted((n for n in range(48) if is_wanted(n, query, user)), key=lambda n: (n // 3, n), reverse=True)
        assert list(found(filled, words, user).items()) == [(f"m{n:02}", STATUSES[n % 6]) for n in wanted]

    check()
    inbox = filled.get(f"{INBOX}?limit=4&from=112", user="root").json
    assert [each["id"] for each in inbox["messages"]] == ["GSM1.i8", "GSM1.i5", "GSM1.i2"]


@pytest.mark.parametrize("query", [Query(SENT, "lvv", to="79160000000"), Query(SENT, reference="a")])
def test_sqlite_sorts_nothing(lite: Gateway, query: Query) -> None:
    """So that it reads no more of a number, or a reference, that many messages have than is shown."""
    with database_of(lite).reading() as connection:
        asked = page(query).compile(connection, compile_kwargs={"literal_binds": True})
        plan = [each[3] for each in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}")]
    assert any("USING INDEX journal_by" in each for each in plan)
    assert not any("TEMP B-TREE" in each for each in plan)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)  # it says how it would search, whatever is there
def test_no_list_of_events_is_read_whole_or_sorted(journal: Journal) -> None:
    """Neither to tell a plugin of those that are new, nor to forget those that are old."""
    journal.begin(["ear"], [], 0)
    told: list[Event] = []
    notifier, stop = Notifier(journal, "ear", told.extend), threading.Event()
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "FROM journal_events" in statement:
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            plans.extend(row[3] for row in rows)

    for number in range(3):
        message = StoredMessage("failed", f"m{number}", {"To": "7916"}, "Hi", "lvv")
        journal.put([seen(message)], [], {})
    listener = (Engine, "before_cursor_execute", explain)
    event.listen(*listener)
    try:
        thread = threading.Thread(target=notifier.run, args=(stop,))
        thread.start()
        eventually(lambda: len(told) == 6)
        stop.set()
        notifier.wake()
        thread.join()
        settings = JournalSettings(keep_days=1, keep_files_days=None)
        Retention(journal, from_folder(Path("/nonexistent")), ["ear"], settings).expire(threading.Event())
    finally:
        event.remove(*listener)
    in_order = re.compile(r"SEARCH journal_events USING (COVERING )?INDEX journal_events_in_order")
    of_events = [plan for plan in plans if "journal_events" in plan]
    assert len(of_events) > 3
    assert all(in_order.match(plan) or "PRIMARY KEY (rowid=?)" in plan for plan in of_events), of_events


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_what_reports_are_about_is_looked_up_by_an_index(journal: Journal) -> None:
    """So that many messages which end at once are not compared with all that were sent before."""
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and re.search("FROM journal_(parts|reports)", statement):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            plans.extend(row[3] for row in rows if "journal_" in row[3])

    layout = from_folder(Path("/nonexistent"))
    listener = (Engine, "before_cursor_execute", explain)
    event.listen(*listener)
    try:
        for number in range(0, 600, 300):
            some = []
            for each in range(number, number + 300):
                head = {"To": str(7916000000 + each), "Modem": "GSM1", "Message_id": str(each % 256)}
                message = StoredMessage("sent", f"m{each}", head, "Hi", "lvv")
                sending = reports.sending_of(message.id, message, 1.0, "lvv", layout.moment)
                some.append(replace(seen(message), sending=sending))
            journal.put(some, [], {})
    finally:
        event.remove(*listener)
    assert len(plans) > 4
    assert all(re.search(r"SEARCH .*(reference=\?|message=\?)", plan) for plan in plans), plans


def test_the_newest_first_whenever_they_were_put_there(gateway: Gateway) -> None:
    for days in (3, 1, 2):
        put_old(gateway, "sent", f"m{days}", sent(), days)
    eventually(lambda: len(known(gateway)) == 3)
    assert list(found(gateway)) == ["m1", "m2", "m3"]


def dump(gateway: Gateway) -> list[Any]:
    return [rows(gateway, table) for table in (TABLE, FILES, PARTS, REPORTS)]
