"""``history``: told by files, asked through HTTP; what it knows is what the spool says, also when that is gone."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st

from smsgw.model import (
    Accepted,
    Cancelled,
    Delivered,
    Event,
    Failed,
    Query,
    Received,
    Sent,
    StatusReport,
    StoredMessage,
    Unavailable,
    Undelivered,
)
from smsgw.store import Store
from smsgw.testing import Gateway, MakeGateway
from smsgw_plugins.history import History
from smsgw_plugins.history.index import Index
from smsgw_plugins.history.pages import page
from smsgw_plugins.history.table import MESSAGES as TABLE
from smsgw_plugins.history.table import RANKS, SCRIPTS, TABLES, row
from tests.conftest import eventually
from tests.postgresql import Postgresql

MESSAGES, INBOX = "/api/v2/messages", "/api/v2/inbox"
SMSGW = Path(sys.executable).with_name("smsgw")
SENT = ("scheduled", "queued", "sending", "sent", "delivered", "undelivered", "failed", "cancelled")
PLUGINS = {"smsgw.plugins": "htpasswd allow history"}
REPORT = (
    "From: 79160000000\nModem: GSM1\nUDH: false\nAlphabet: ISO\n\nSMS STATUS REPORT\nMessage_id: {}\nStatus: {},Ok\n"
)


def sent(
    to: str = "79160000000",
    user: str = "lvv",
    reference: str = "",
    number: int | None = None,
    text: str = "Hi, Jack!",
) -> str:
    lines = [f"To: {to}", f"From: {user}", "Alphabet: UTF-8", "Modem: GSM1", "Sent: 26-11-22 09:16:03"]
    lines += [f"X-Reference: {reference}"] if reference else []
    lines += [f"Message_id: {number}"] if number is not None else []
    return "\n".join([*lines, "", text])


def received(number: str = "79161234567") -> str:
    return f"From: {number}\nReceived: 26-11-22 09:16:03\nModem: GSM1\nUDH: false\nAlphabet: UTF-8\n\nHello"


@pytest.fixture
def gateway(make_gateway: MakeGateway, store_url: str) -> Gateway:
    return at_work(make_gateway(PLUGINS | {"smsgw.store": store_url}))


@pytest.fixture
def lite(make_gateway: MakeGateway) -> Gateway:
    return at_work(make_gateway(PLUGINS))


def index_of(gateway: Gateway) -> Index:
    plugin: History = gateway.plugin("history")
    return plugin.index


def known(gateway: Gateway) -> dict[str, str]:
    """All that the index has, by its statuses."""
    with contextlib.suppress(Unavailable), gateway.plugin("history").store.begin(is_reading=True) as connection:
        return {row.id: row.status for row in connection.execute(sqlalchemy.select(TABLE.c.id, TABLE.c.status))}
    return {}


def is_at_work(gateway: Gateway) -> bool:
    """Whether searches use the index."""
    with contextlib.suppress(Unavailable):
        return index_of(gateway).find(Query(SENT)) is not None
    return False


def at_work(gateway: Gateway) -> Gateway:
    eventually(lambda: is_at_work(gateway))
    return gateway


def found(gateway: Gateway, query: str = "", user: str = "lvv") -> dict[str, str]:
    """All pages."""
    messages: list[Any] = []
    url: str | None = f"{MESSAGES}?{query}"
    while url:
        page = gateway.get(url, user=user).json
        messages += page["messages"]
        url = page["next"]
    return {each["id"]: each["status"] for each in messages}


def test_messages_outlive_their_files(gateway: Gateway) -> None:
    paths = [gateway.put("sent", "m1", sent(number=7, reference="a")), gateway.put("failed", "m2", sent())]
    paths += [gateway.put("incoming", "GSM1.a", received())]
    eventually(lambda: known(gateway) == {"m1": "sent", "m2": "failed", "GSM1.a": "received"})
    paths.append(gateway.put("report", "GSM1.r", REPORT.format(7, 0)))
    eventually(lambda: known(gateway)["m1"] == "delivered")
    before = gateway.get(MESSAGES).json, gateway.get(f"{MESSAGES}/m1").json, gateway.get(INBOX, user="root").json
    assert before[1]["status"] == "delivered"
    for path in paths:
        path.unlink()
    assert before == (
        gateway.get(MESSAGES).json,
        gateway.get(f"{MESSAGES}/m1").json,
        gateway.get(INBOX, user="root").json,
    )
    assert found(gateway, "reference=a") == found(gateway, "status=delivered") == {"m1": "delivered"}
    assert gateway.get(f"{INBOX}/GSM1.a", user="root").json["text"] == "Hello"
    gateway.get("/api/v1.0/sms/sent/m1", status=404)


def test_a_status_report_s_file_may_go(gateway: Gateway) -> None:
    gateway.put("sent", "m1", sent(number=7))
    report = gateway.put("report", "GSM1.r", REPORT.format(7, 70))
    eventually(lambda: known(gateway) == {"m1": "undelivered"})
    report.unlink()
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "undelivered"
    gateway.put("report", "GSM1.s", REPORT.format(7, 0))  # of two final ones the first counts
    gateway.put("sent", "m2", sent())
    eventually(lambda: "m2" in known(gateway))
    assert gateway.get(f"{MESSAGES}/m1").json["status"] == "undelivered"


def test_a_status_report_that_the_index_has_forgotten(gateway: Gateway) -> None:
    """As one that is older than it remembers anything: the files have it still."""
    gateway.put("sent", "m1", sent(number=7))
    gateway.put("report", "GSM1.r1", REPORT.format(7, 0))
    eventually(lambda: known(gateway) == {"m1": "delivered"})
    assert found(gateway) == {"m1": "delivered"}  # from then on it has not just come
    index_of(gateway).expire(2**50)
    assert known(gateway) == {}
    assert gateway.get(f"{MESSAGES}/m1", user="lvv").json["status"] == "delivered"


def test_a_spool_that_was_there_before(make_gateway: MakeGateway, store_url: str) -> None:
    before = make_gateway()
    before.put("sent", "m1", sent(number=7))
    before.put("report", "GSM1.r", REPORT.format(7, 0))
    before.put("incoming", "GSM1.a", received())
    before.put("incoming", "GSM1.b", REPORT.format(9, 0))
    before.send()
    before.registry.owner.stop()
    gateway = at_work(make_gateway(PLUGINS | {"smsgw.store": store_url}))
    (id,) = gateway.files()
    assert known(gateway) == {"m1": "delivered", "GSM1.a": "received"}
    assert found(gateway) == {id: "queued", "m1": "delivered"}


def test_users_delete_received_messages_for_ever(gateway: Gateway) -> None:
    gateway.put("incoming", "GSM1.a", received())
    eventually(lambda: known(gateway) == {"GSM1.a": "received"})
    came = datetime.now(UTC)
    gateway.delete(f"{INBOX}/GSM1.a", user="root")
    message = StoredMessage("incoming", "GSM1.a", {"From": "79161234567"}, "Hello", None)
    gateway.plugin("history").notify([Received(message, came)])  # read before, and told after
    assert gateway.get(INBOX, user="root").json["messages"] == []
    gateway.get(f"{INBOX}/GSM1.a", user="root", status=404)


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
    assert [each["id"] for each in gateway.get(INBOX, user="root").json["messages"]] == ["GSM1.a"]
    gateway.delete("/api/v1.0/sms/sent/m1", user="root")
    gateway.delete(f"{INBOX}/GSM1.a", user="root")
    assert set(known(gateway).values()) == {"deleted"}
    assert found(gateway, "reference=a", user="root") == {}
    assert gateway.get(INBOX, user="root").json["messages"] == []


def test_what_is_told_of_a_message_that_could_not_be_deleted(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it was forgotten: of one that the index knew, and of one that it did not."""
    gateway.put("sent", "m1", sent(number=7))
    eventually(lambda: known(gateway) == {"m1": "sent"})
    gateway.registry.owner.stop()  # here the plugin is told at one moment
    gateway.put("sent", "m2", sent(number=8))
    for number in (7, 8):
        gateway.put("report", f"GSM1.r{number}", REPORT.format(number, 0))

    def refuse(path: Path) -> None:
        message = gateway.registry.folders.find("sent", path.name)
        history = gateway.plugin("history")
        history.notify(list(history.census.events_of(message)))
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    with monkeypatch.context() as patched:
        patched.setattr("smsgw.spool.folders.os.unlink", refuse)
        for id in ("m1", "m2"):
            gateway.delete(f"/api/v1.0/sms/sent/{id}", user="root", status=403)
    assert known(gateway) == {"m1": "delivered", "m2": "delivered"}


def test_what_is_deleted_is_forgotten_first(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it does not come back where the process is killed in the middle."""
    gateway.put("incoming", "GSM1.a", received())
    eventually(lambda: known(gateway) == {"GSM1.a": "received"})
    seen: list[dict[str, str]] = []
    unlink = os.unlink

    def look(path: Path) -> None:
        seen.append(known(gateway))
        unlink(path)

    monkeypatch.setattr("smsgw.spool.folders.os.unlink", look)
    gateway.delete(f"{INBOX}/GSM1.a", user="root")
    assert seen == [{"GSM1.a": "deleted"}]


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
    eventually(lambda: known(gateway) == {"GSM1.a": "received"})
    gateway.delete(f"{INBOX}/GSM1.a", user="root")
    gateway.put("incoming", "GSM1.a", received("79162222222"))
    eventually(lambda: known(gateway) == {"GSM1.a": "received"})
    (message,) = gateway.get(INBOX, user="root").json["messages"]
    assert message["from"] == "+79162222222"


# What is told


IDS = ("m1", "m2", "m3")
KINDS = {Accepted: "outgoing", Sent: "sent", Failed: "failed", Cancelled: "cancelled", Received: "incoming"}
STATUSES = {Accepted: "queued", Sent: "sent", Failed: "failed", Cancelled: "cancelled", Received: "received"}
STATUSES |= {Delivered: "delivered", Undelivered: "undelivered"}


def event(kind: type[Event], id: str) -> Event:
    at = datetime(2026, 11, 22, 9, 16, 3, tzinfo=UTC)
    message = StoredMessage(
        KINDS.get(kind, "sent"),
        id,
        {"To": "79160000000", "From": "lvv"},
        kind.__name__,
        None if kind is Received else "lvv",
    )
    if kind in (Delivered, Undelivered):
        return kind(message, at, StatusReport("report/r", 0 if kind is Delivered else 70, "Ok", "", at))  # type: ignore[call-arg]
    return kind(message, at)


@pytest.fixture
def index(store_url: str) -> Iterator[Index]:
    store = Store(store_url)
    store.keep(TABLES, SCRIPTS)
    index = Index(store, "spool")
    index.begin("first", anew=True)
    assert index.end("first")
    index.beat(datetime.now(UTC))
    yield index
    store.close()


@settings(max_examples=60)
@given(
    batches=st.lists(st.lists(st.tuples(st.sampled_from(list(STATUSES)), st.sampled_from(IDS)), max_size=6), max_size=6)
)
def test_events_in_any_order_and_number(index: Index, batches: list[list[tuple[type[Event], str]]]) -> None:
    """A status never goes back, and of two final ones the first counts."""
    index.begin("next", anew=True)
    model: dict[tuple[str, bool], str] = {}
    for batch in batches:
        index.put([row(event(kind, id), 1000) for kind, id in batch])
        for kind, id in batch:
            key = id, kind is Received
            if RANKS[STATUSES[kind]] > RANKS.get(model.get(key, ""), -1):
                model[key] = STATUSES[kind]
    assert index.end("next")
    for statuses, is_received in ((SENT, False), (("received",), True)):
        rows = index.find(Query(statuses, limit=10))
        assert rows is not None
        wanted = {id: status for (id, received), status in model.items() if received is is_received}
        assert [each.message.id for each in rows] == sorted(wanted, reverse=True)
        for each in rows:
            kind = type(next(event(kind, "m1") for kind, name in STATUSES.items() if name == wanted[each.message.id]))
            assert each.message == event(kind, each.message.id).message
            assert each.report == getattr(event(kind, "m1"), "report", None)


HOSTILE = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@settings(max_examples=60)
@given(owner=HOSTILE, to=HOSTILE, reference=HOSTILE, text=HOSTILE, id=st.text("abc.-_é\u0001", min_size=1, max_size=60))
def test_whatever_a_file_holds(index: Index, owner: str, to: str, reference: str, text: str, id: str) -> None:
    index.begin("next", anew=True)
    message = StoredMessage("sent", id, {"To": to, "From": owner, "X-Reference": reference, "\0": "\0"}, text, owner)
    index.put([row(Sent(message, datetime.now(UTC)), 1)])
    assert index.end("next")
    for query in (Query(SENT), Query(SENT, owner=owner), Query(SENT, reference=reference), Query(SENT, ids=(id,))):
        rows = index.find(query)
        assert rows is not None
        assert [each.message for each in rows] == [message]


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
def test_whatever_is_asked(index: Index, query: Query) -> None:
    """Who asks for nonsense finds nothing, and breaks nothing."""
    assert index.find(query) == []


# What is asked


NUMBERS, USERS = ("79160000000", "79680000000", "112"), ("lvv", "ops")


@pytest.fixture
def twins(make_gateway: MakeGateway, store_url: str) -> tuple[Gateway, Gateway]:
    """Two gateways on one spool, with the plugin and without."""
    with_it = at_work(make_gateway(PLUGINS | {"smsgw.store": store_url}))
    without = make_gateway()
    places = [("sent", None), ("sent", 0), ("sent", 70), ("failed", None), ("checked", None), ("outgoing", None)]
    for number in range(48):
        kind, status = places[number % 6]
        text = sent(NUMBERS[number % 3], USERS[number % 2], "ab"[number % 2] if number % 5 else "", number)
        path = with_it.put(kind, f"m{number}", text)
        os.utime(path, (path.stat().st_mtime, 1_700_000_000 + number // 3))
        if status is not None:
            report = REPORT.format(number, status).replace("79160000000", NUMBERS[number % 3])
            path = with_it.put("report", f"GSM1.{number}", report)
            os.utime(path, (path.stat().st_mtime, 1_700_000_000 + number // 3))
    for number in range(9):
        path = with_it.put("incoming", f"GSM1.i{number}", received(NUMBERS[number % 3]))
        os.utime(path, (path.stat().st_mtime, 1_700_000_000 + number))
    eventually(lambda: len(known(with_it)) == 41 and "delivered" in known(with_it).values())
    eventually(lambda: list(known(with_it).values()).count("undelivered") == 8)
    return with_it, without


QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.lists(st.sampled_from(SENT), min_size=1, unique=True).map(",".join),
        "to": st.sampled_from(NUMBERS),
        "from": st.sampled_from([*USERS, "nobody"]),
        "reference": st.sampled_from("abc"),
        "since": st.integers(-1, 17).map(lambda second: "2023-11-14T22:13:20Z" if second < 0 else _moment(second)),
        "until": st.integers(0, 17).map(lambda second: _moment(second)),
        "limit": st.integers(1, 20).map(str),
    },
)


def _moment(second: int) -> str:
    return datetime.fromtimestamp(1_700_000_000 + second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_searches_find_the_same_as_without_it(twins: tuple[Gateway, Gateway]) -> None:
    @settings(max_examples=120)
    @given(query=QUERIES, user=st.sampled_from(["lvv", "ops", "root"]))
    def check(query: dict[str, str], user: str) -> None:
        words = "&".join(f"{name}={value}" for name, value in query.items())
        with_it, without = (list(found(gateway, words, user).items()) for gateway in twins)
        assert with_it == without

    check()
    inbox = [gateway.get(f"{INBOX}?limit=4&from=112", user="root").json for gateway in twins]
    assert inbox[0] == inbox[1]
    assert len(inbox[0]["messages"]) == 3


def test_a_page_goes_on_without_it_and_with_it(twins: tuple[Gateway, Gateway]) -> None:
    ids: list[str] = []
    url: str | None = f"{MESSAGES}?limit=3"
    for number in range(30):
        if url:
            page = twins[number % 2].get(url, user="root").json
            ids += [each["id"] for each in page["messages"]]
            url = page["next"]
    assert url is None
    assert len(ids) == len(set(ids)) == 48


@pytest.mark.parametrize("query", [Query(SENT, "lvv", to="79160000000"), Query(SENT, reference="a")])
def test_sqlite_sorts_nothing(lite: Gateway, query: Query) -> None:
    """So that it reads no more of a number, or a reference, that many messages have than is shown."""
    with lite.plugin("history").store.begin(is_reading=True) as connection:
        asked = page(query).compile(connection, compile_kwargs={"literal_binds": True})
        plan = [each[3] for each in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}")]
    assert any("USING INDEX history_by" in each for each in plan)
    assert not any("TEMP B-TREE" in each for each in plan)


# Made again


def dump(gateway: Gateway) -> list[Any]:
    with gateway.plugin("history").store.begin(is_reading=True) as connection:
        return [tuple(each) for each in connection.execute(sqlalchemy.select(TABLE).order_by(TABLE.c.id))]


def command(gateway: Gateway, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    ini = folder / "gateway.ini"
    lines = "".join(f"{key} = {value}\n".replace("%", "%%") for key, value in gateway.settings.items())
    ini.write_text(f"[app:main]\nuse = egg:smsgw\n{lines}")
    return subprocess.run([SMSGW, "history", *words, ini], capture_output=True, text=True, check=False)


def test_rebuilt_it_is_as_it_was_told(twins: tuple[Gateway, Gateway], tmp_path: Path) -> None:
    gateway, _ = twins
    told = dump(gateway)
    gone = gateway.spool / "sent" / "m0"
    gone.unlink()
    ran = command(gateway, "rebuild", folder=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert "The index is made" in ran.stderr
    assert dump(gateway) == told  # what it alone knows stays
    assert command(gateway, "rebuild", "--anew", folder=tmp_path).returncode == 0
    assert dump(gateway) == [each for each in told if each[0] != "m0"]
    assert is_at_work(gateway)


def test_postgresql_knows_what_is_in_it(make_gateway: MakeGateway, postgresql: Postgresql) -> None:
    """Or else it guesses how to search, until it looks by itself."""
    before = make_gateway()
    before.put("sent", "m1", sent())
    before.registry.owner.stop()
    gateway = at_work(make_gateway(PLUGINS | {"smsgw.store": postgresql.create()}))
    with gateway.plugin("history").store.begin(is_reading=True) as connection:
        known_of = "SELECT count(*) FROM pg_stats WHERE tablename = 'history_messages'"
        assert connection.exec_driver_sql(known_of).scalar_one() > 0


def test_how_it_stands(gateway: Gateway, tmp_path: Path) -> None:
    gateway.put("sent", "m1", sent())
    eventually(lambda: known(gateway))
    ran = command(gateway, "status", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "sent" in ran.stdout
    assert "It was up to date at" in ran.stdout


def test_the_command_wants_the_plugin(make_gateway: MakeGateway, tmp_path: Path) -> None:
    ran = command(make_gateway(), "rebuild", folder=tmp_path)
    assert (ran.returncode, ran.stderr) == (3, "smsgw.plugins does not name 'history'; put it there.\n")
