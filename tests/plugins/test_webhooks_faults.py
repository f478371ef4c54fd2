"""``webhooks`` where things fail: receivers down, slow, dead or hostile, rebinding names, databases, kill -9."""

from __future__ import annotations

import contextlib
import itertools
import random
import select
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from sqlalchemy import update

from smsgw.model import Identity, Sent
from smsgw.store import Store
from smsgw.testing import MakeGateway, stored
from smsgw_plugins.webhooks import Webhooks
from smsgw_plugins.webhooks.dispatcher import JITTER, SCHEDULE
from smsgw_plugins.webhooks.failures import Failures
from smsgw_plugins.webhooks.outbox import Outbox
from smsgw_plugins.webhooks.table import SCRIPTS, TABLES, Webhook
from smsgw_plugins.webhooks.table import WEBHOOKS as REGISTERED
from smsgw_plugins.webhooks.table import Webhooks as Table
from tests.conftest import Gateway, at_length, eventually, make_spool
from tests.plugins.test_webhooks import SETTINGS, WEBHOOKS, happen, listening, register
from tests.postgresql import Postgresql
from tests.receiver import Receiver, speaking
from tests.server import Server, free_port

YEAR = 365 * 24 * 3600  # seconds

_names = itertools.count(1)


class Clock:
    """Seconds since 1970, as a test says."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_clocked(make_gateway: MakeGateway, clock: Clock, store_url: str) -> Callable[..., Gateway]:
    """A gateway whose webhooks have that clock, and other names than the system has."""

    def make(resolve: Callable[[str, int], list[str]] | None = None, **settings: str | None) -> Gateway:
        class Clocked(Webhooks):
            def __init__(self, **settings: Any) -> None:
                super().__init__(**settings, clock=clock, **({"resolve": resolve} if resolve else {}))

        changes: dict[str, str | None] = {"smsgw.plugins": "htpasswd allow clocked", "smsgw.store": store_url}
        changes |= {f"smsgw.clocked.{name}": value for name, value in ({"allow_private": "true"} | settings).items()}
        return listening(make_gateway(changes, clocked=Clocked))

    return make


def tell(gateway: Gateway, count: int = 1, owner: str = "lvv") -> list[str]:
    """So many messages of a user were sent, as the plugin is told at once."""
    ids = [f"n{next(_names)}" for _ in range(count)]
    now = datetime.now(UTC)
    plugin = gateway.plugin("webhooks") or gateway.plugin("clocked")
    plugin.notify([Sent(replace(stored("sent", owner), id=id), now) for id in ids])
    return ids


def failures(gateway: Gateway, id: str) -> Any:
    return gateway.get(f"{WEBHOOKS}/{id}/failures").json["failures"]


def counts(gateway: Gateway, id: str) -> tuple[int, int]:
    found = gateway.get(f"{WEBHOOKS}/{id}").json
    return found["waiting"], found["failed"]


# The schedule


def test_the_schedule_failures_and_replay(make_clocked: Callable[..., Gateway], clock: Clock) -> None:
    gateway, begun = make_clocked(), clock.now
    with Receiver() as receiver:
        receiver.answer = lambda delivery: 500 + len(receiver.deliveries)
        webhook = register(gateway, receiver.url, "message.sent")
        path = f"{WEBHOOKS}/{webhook['id']}"
        (id,) = tell(gateway)
        attempts = receiver.wait(1)
        for number, delay in enumerate(SCHEDULE, 1):
            error = f"it answered {500 + number}"
            eventually(lambda error=error: gateway.get(path).json["last_error"] == error)
            clock.now += delay - 1
            let_it_look(gateway)
            assert len(receiver.deliveries) == number
            clock.now += 1 + delay * JITTER
            attempts = receiver.wait(number + 1)
        eventually(lambda: counts(gateway, webhook["id"]) == (0, 1))
        assert len({each.id for each in attempts}) == len({each.body for each in attempts}) == 1
        times = [int(each.headers["webhook-timestamp"]) for each in attempts]
        assert times == sorted(set(times))
        assert times[0] == int(begun)
        (failure,) = failures(gateway, webhook["id"])
        assert failure["id"] == attempts[0].id
        assert (failure["message"], failure["type"], failure["attempts"]) == (id, "message.sent", len(SCHEDULE) + 1)
        assert failure["error"] == f"it answered {500 + len(attempts)}"
        receiver.answer = lambda delivery: 200
        gateway.call("POST", f"{path}/failures/msg_{'0' * 32}/replay", status=404)
        assert gateway.call("POST", f"{path}/failures/{failure['id']}/replay", status=202).json == {"replayed": 1}
        assert receiver.wait(len(SCHEDULE) + 2)[-1].body == attempts[0].body
        eventually(lambda: counts(gateway, webhook["id"]) == (0, 0))
        assert gateway.call("POST", f"{path}/failures/replay", status=202).json == {"replayed": 0}


def later(seconds: float) -> int:
    """Success, after that time: how long the receiver takes is the load, and nothing is waited for."""
    time.sleep(seconds)
    return 200


def let_it_look(gateway: Gateway) -> None:
    """The outbox is looked into for what is due: somebody else hears of something that is told now."""
    with Receiver() as probe:
        made = register(gateway, probe.url, "message.sent", user="ops")
        tell(gateway, owner="ops")
        probe.wait(1)
        gateway.delete(f"{WEBHOOKS}/{made['id']}", user="ops")


def test_what_waits_for_another_attempt_is_hastened(make_clocked: Callable[..., Gateway], clock: Clock) -> None:
    """As for who had given the receiver a wrong secret; what is given up is tried again with it."""
    gateway = make_clocked()
    with Receiver() as receiver:
        receiver.answer = lambda delivery: 401
        path = f"{WEBHOOKS}/{register(gateway, receiver.url, 'message.sent')['id']}"
        (given_up,) = tell(gateway)
        while not (failed := gateway.get(f"{path}/failures").json["failures"]):
            clock.now += 25 * 3600
            let_it_look(gateway)
        heard = len(receiver.deliveries)
        (waiting,) = tell(gateway)
        heard = len(receiver.wait(heard + 1))
        eventually(lambda: gateway.get(path).json["last_error"])
        one = f"{path}/failures/{receiver.deliveries[-1].id}/replay"
        assert gateway.call("POST", one, status=202).json == {"replayed": 1}  # right after it failed
        heard = len(receiver.wait(heard + 1))
        eventually(lambda: gateway.get(path).json["last_error"])
        clock.now += SCHEDULE[0] * (1 + JITTER)
        heard = len(receiver.wait(heard + 1))
        eventually(lambda: gateway.get(path).json["last_error"])
        receiver.answer = lambda delivery: 204
        let_it_look(gateway)
        assert len(receiver.deliveries) == heard
        eventually(lambda: gateway.call("POST", f"{path}/failures/replay", status=202).json["replayed"] == 2)
        told = receiver.wait(heard + 2)[heard:]
        assert {each.message for each in told} == {given_up, waiting}
        assert failed[0]["id"] in {each.id for each in told}
        eventually(lambda: gateway.get(path).json["waiting"] == 0)


def test_what_is_being_tried_is_not_tried_twice(make_clocked: Callable[..., Gateway], clock: Clock) -> None:
    gateway, held = make_clocked(), threading.Event()
    with Receiver() as receiver:
        receiver.answer = lambda delivery: 500 if len(receiver.deliveries) == 1 or not held.wait(20) else 204
        path = f"{WEBHOOKS}/{register(gateway, receiver.url, 'message.sent')['id']}"
        tell(gateway)
        eventually(lambda: gateway.get(path).json["last_error"])
        clock.now += SCHEDULE[0] * (1 + JITTER)
        receiver.wait(2)
        assert gateway.call("POST", f"{path}/failures/replay", status=202).json == {"replayed": 0}
        held.set()
        eventually(lambda: gateway.get(path).json["waiting"] == 0)
        let_it_look(gateway)
        assert len(receiver.deliveries) == 2


def test_failures_page_by_page(make_clocked: Callable[..., Gateway], clock: Clock) -> None:
    gateway = make_clocked()
    port = free_port()
    webhook = register(gateway, f"http://127.0.0.1:{port}/", "message.sent")
    ids = tell(gateway, 5)
    while counts(gateway, webhook["id"]) != (0, 5):
        clock.now += 25 * 3600
        let_it_look(gateway)
    path = f"{WEBHOOKS}/{webhook['id']}/failures"
    seen, following = [], f"{path}?limit=2"
    while following:
        page = gateway.get(following).json
        assert len(page["failures"]) <= 2
        seen += [each["message"] for each in page["failures"]]
        following = page["next"]
    assert seen == ids[::-1]
    for query in ("limit=0", "limit=101", "limit=%ff", "limit=1&limit=2", "cursor=x", "cursor=0", "from=lvv"):
        gateway.get(f"{path}?{query}", status=400)
    assert "cannot be reached: Connection refused" in page["failures"][0]["error"]
    with Receiver(port) as receiver:
        assert gateway.call("POST", f"{path}/replay", status=202).json == {"replayed": 5}
        assert {each.message for each in receiver.wait(5)} == set(ids)


def test_what_is_old_is_forgotten(make_clocked: Callable[..., Gateway], clock: Clock) -> None:
    """After 30 days; an event that is told again then is delivered again."""
    gateway, begun = make_clocked(), clock.now
    event = Sent(stored("sent"), datetime.now(UTC))
    with Receiver() as receiver:
        good = register(gateway, receiver.url, "message.sent")["id"]
        bad = register(gateway, f"http://127.0.0.1:{free_port()}/", "message.sent")["id"]
        gateway.plugin("clocked").notify([event])
        eventually(lambda: counts(gateway, good) == (0, 0))
        while counts(gateway, bad) != (0, 1):
            clock.now += 25 * 3600
            let_it_look(gateway)
        for days, left, heard in ((29, 1, 1), (61, 0, 2)):
            gateway.application.owner.stop()
            clock.now = begun + days * 24 * 3600
            gateway = make_clocked()
            eventually(lambda gateway=gateway, left=left: len(failures(gateway, bad)) == left)
            gateway.plugin("clocked").notify([event])
            let_it_look(gateway)
            assert len(receiver.wait(heard)) == heard
            eventually(lambda gateway=gateway: counts(gateway, good) == (0, 0))


# Receivers


def test_a_receiver_that_comes_up_hears_of_everything(make_clocked: Callable[..., Gateway], clock: Clock) -> None:
    gateway, port = make_clocked(), free_port()
    webhook = register(gateway, f"http://127.0.0.1:{port}/", "message.sent")
    ids = tell(gateway, 20)
    eventually(lambda: gateway.get(f"{WEBHOOKS}/{webhook['id']}").json["last_error"])
    with Receiver(port) as receiver:
        receiver.secret = webhook["secret"]
        clock.now += 10
        told = receiver.wait(20)
        eventually(lambda: counts(gateway, webhook["id"]) == (0, 0))
    assert sorted(each.message for each in told) == sorted(ids)


def test_anything_else_than_success_is_tried_again(make_gateway: MakeGateway) -> None:
    """A status of each kind, by a receiver of its own; nobody follows a redirect."""
    gateway = listening(make_gateway(SETTINGS | {"smsgw.webhooks.timeout": "3"}))
    statuses = (199, 300, 301, 302, 307, 308, 400, 401, 404, 410, 429, 500, 503)
    with contextlib.ExitStack() as stack:
        receivers = [stack.enter_context(Receiver()) for _ in statuses]
        webhooks = [register(gateway, receiver.url) for receiver in receivers]
        for receiver, status in zip(receivers, statuses, strict=True):
            receiver.answer = lambda delivery, receiver=receiver, status=status: (  # type: ignore[misc]
                204 if len(receiver.deliveries) > 1 else status
            )
        tell(gateway)
        for receiver, webhook in zip(receivers, webhooks, strict=True):
            first, second = receiver.wait(2)
            assert (first.id, first.path, first.body) == (second.id, second.path, second.body)
            assert second.at - first.at >= 5
            eventually(lambda webhook=webhook: counts(gateway, webhook["id"]) == (0, 0))


def _head(connection: socket.socket) -> None:
    connection.recv(65536)


def endless_headers(connection: socket.socket) -> None:
    _head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: " + b"a" * 1000 + b"\r\n")


def endless_line(connection: socket.socket) -> None:
    _head(connection)
    while True:
        connection.sendall(b"H" * 4096)


def endless_informations(connection: socket.socket) -> None:
    _head(connection)
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def trickle(connection: socket.socket) -> None:
    _head(connection)
    for byte in itertools.cycle(b"HTTP/1.1 200 OK and so on "):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)  # without a pause it would be too long before its time is up


def silence(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def reset(connection: socket.socket) -> None:
    _head(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def nonsense(connection: socket.socket) -> None:
    _head(connection)
    connection.sendall(b"\0\xff" * 100)


def nothing(connection: socket.socket) -> None:
    _head(connection)


def not_read(connection: socket.socket) -> None:
    ended = select.poll()
    ended.register(connection, select.POLLRDHUP)
    ended.poll()


HOSTILE = [endless_headers, endless_line, endless_informations, trickle, silence, reset, nonsense, nothing, not_read]


@pytest.mark.parametrize("talk", HOSTILE)
def test_hostile_answers_are_failures_in_time(make_gateway: MakeGateway, talk: Callable[..., None]) -> None:
    gateway = listening(make_gateway(SETTINGS | {"smsgw.webhooks.timeout": "1"}))
    with speaking(talk) as url:
        webhook = register(gateway, url)
        tell(gateway)
        error = eventually(lambda: gateway.get(f"{WEBHOOKS}/{webhook['id']}").json["last_error"])
    assert error in (
        "no answer within 1 seconds",
        "its answer is not HTTP, or too long, or ended too early",
        "it cannot be reached: Connection reset by peer",
        "it cannot be reached: the connection ended",
    )


def endless_body(connection: socket.socket) -> None:
    _head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
    while True:
        connection.sendall(b"a" * 65536)


def slow_body(connection: socket.socket) -> None:
    _head(connection)
    connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n")
    silence(connection)


@pytest.mark.parametrize("talk", [endless_body, slow_body])
def test_a_status_counts_whatever_follows(make_gateway: MakeGateway, talk: Callable[..., None]) -> None:
    gateway = listening(make_gateway(SETTINGS | {"smsgw.webhooks.timeout": "3"}))
    with speaking(talk) as url:
        webhook = register(gateway, url)
        tell(gateway)
        eventually(lambda: counts(gateway, webhook["id"]) == (0, 0))


def test_dead_receivers_hold_up_nobody_else(make_gateway: MakeGateway, store_url: str) -> None:
    """Twenty that never answer, with a hundred events each, and one that does."""
    gateway = listening(make_gateway(SETTINGS | {"smsgw.store": store_url}))
    with speaking(silence) as dead, Receiver() as receiver:
        for _ in range(20):
            register(gateway, dead, "message.sent", user="root")
        tell(gateway, 100, owner="root")
        webhook = register(gateway, receiver.url, "message.sent")
        for number in range(1, 21):
            tell(gateway)
            receiver.wait(number)
        eventually(lambda: counts(gateway, webhook["id"]) == (0, 0))
        waiting = [each["id"] for each in gateway.get(WEBHOOKS, user="root").json["webhooks"]]
        assert len(waiting) == 20
        found = gateway.get(f"{WEBHOOKS}/{waiting[0]}", user="root").json
        assert found["waiting"] >= 100


@pytest.fixture
def large(postgresql: Postgresql) -> Iterator[tuple[Store, Callable[[str], str]]]:
    """A store on PostgreSQL with a webhook ``wh_1``, for which nobody works, and what psql says of a statement."""
    url = postgresql.create()
    with contextlib.closing(Store(url)) as store:
        store.keep(TABLES, SCRIPTS)
        about = ("http://127.0.0.1:1/", ("message.sent",), "", "whsec_")
        Table(store).add(Webhook("wh_1", Identity("lvv"), *about, created=1, signed_in=1), 1)
        yield store, lambda statement: postgresql.sql(url, statement)


def rows(numbers: str, **columns: str) -> str:
    """The statement that notes deliveries of these numbers for ``wh_1``, as SQL has them."""
    known = {"id": "'msg_' || n", "webhook": "'wh_1'", "type": "'message.sent'", "message": "'m' || n", "body": "'{}'"}
    known |= {"attempts": "0"} | columns
    series = f"SELECT {', '.join(known.values())} FROM generate_series({numbers}) n"
    return f"INSERT INTO webhooks_deliveries ({', '.join(known)}) {series}"


def test_much_that_waits_can_be_taken_whatever_postgresql_expects(large: tuple[Store, Callable[[str], str]]) -> None:
    """Its statistics are of a time at which all was delivered, as they are when a receiver has just died."""
    store, sql = large
    sql("ALTER TABLE webhooks_deliveries SET (autovacuum_enabled = false)")
    sql(rows("1, 10000", delivered="1"))
    sql("ANALYZE webhooks_deliveries")
    sql(rows("10001, 60000", due="1"))
    outbox = Outbox(store)
    taken = [outbox.take("wh_1", 8, 2, 1000) for _ in range(10)]
    assert len({delivery.id for deliveries in taken for delivery in deliveries}) == 80


def test_much_that_was_given_up_is_replayed_in_transactions_that_end(large: tuple[Store, Callable[[str], str]]) -> None:
    """PostgreSQL ends a statement after five seconds, and others write to SQLite meanwhile."""
    store, sql = large
    sql(rows("1, 25000", error="'it answered 500'", failed="1"))
    failures = Failures(store, 1000)
    assert failures.replay("wh_1", None, 2) == 25000
    assert failures.counts("wh_1") == (25000, 0)
    assert sql("SELECT count(DISTINCT xmin::text) FROM webhooks_deliveries") == "3"
    assert failures.replay("wh_1", None, 2) == 0


def test_who_has_much_to_hear_leaves_room_for_others(
    make_clocked: Callable[..., Gateway], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is back again waits no longer for those that are not, which are tried in turn with it."""
    monkeypatch.setattr("smsgw_plugins.webhooks.receivers.TROUBLED", 1)
    gateway, go_on = make_clocked(), threading.Event()
    with Receiver() as dead, Receiver() as receiver:
        dead.answer = receiver.answer = lambda _: 500
        for each, user in ((dead, "lvv"), (receiver, "ops")):
            webhook = register(gateway, each.url, "message.sent", user=user)
            tell(gateway, owner=user)
            path = f"{WEBHOOKS}/{webhook['id']}"
            eventually(lambda path=path, user=user: gateway.get(path, user=user).json["last_error"])
        dead.answer, receiver.answer = (lambda _: 500 if go_on.wait(20) else 200), (lambda _: 200)
        tell(gateway, 300)
        dead.wait(2)
        clock.now += 6
        go_on.set()
        receiver.wait(2)
        assert len(dead.deliveries) < 150


def test_a_clock_that_was_ahead_puts_nothing_off(
    make_clocked: Callable[..., Gateway], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsgw_plugins.webhooks.dispatcher.CLEAN", 0.1)
    gateway, now, later = make_clocked(), clock.now, clock.now + YEAR
    with Receiver() as receiver, Receiver() as other:
        receiver.answer = lambda delivery: 500 if clock.now == later else 200
        webhook = register(gateway, receiver.url, "message.sent")
        clock.now = later
        with monkeypatch.context() as ahead:
            ahead.setattr("time.time", lambda: later)
            register(gateway, other.url, "message.sent")
        (id,) = tell(gateway)
        eventually(lambda: gateway.get(f"{WEBHOOKS}/{webhook['id']}").json["last_error"])
        clock.now = now
        assert {each.message for each in receiver.wait(2)} == {id}
        eventually(lambda: (tell(gateway), other.deliveries)[1])


def test_what_happens_to_one_message_is_told_in_order(make_gateway: MakeGateway, store_url: str) -> None:
    gateway = listening(make_gateway(SETTINGS | {"smsgw.store": store_url}))
    with Receiver() as receiver:
        receiver.answer = lambda delivery: later(random.uniform(0, 0.05))
        register(gateway, receiver.url)
        ids = [happen(gateway, "sent", f"Modem: GSM{number}\nMessage_id: 7\n") for number in range(20)]
        for number in range(20):
            report = "SMS STATUS REPORT\nMessage_id: 7\nStatus: 0,Ok\n"
            gateway.put("report", f"r{number}", f"From: 79680000000\nModem: GSM{number}\n\n{report}")
        told = receiver.wait(40)
    for id in ids:
        assert [each.type for each in told if each.message == id] == ["message.sent", "message.delivered"]


# Names and certificates


def test_a_name_that_leads_elsewhere_at_the_connection(make_clocked: Callable[..., Gateway]) -> None:
    """A public address at the registration, then one within: there is no connection."""
    answers = iter([["8.8.8.8"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"]])
    with Receiver() as receiver:
        gateway = make_clocked(lambda host, port: next(answers, ["127.0.0.1"]), allow_private="false")
        webhook = register(gateway, f"https://receiver.example:{receiver.port}/", "message.sent")
        tell(gateway)
        path = f"{WEBHOOKS}/{webhook['id']}"
        error = eventually(lambda: gateway.get(path).json["last_error"])
        assert error == "its URL leads to an address that is not public"
        assert receiver.deliveries == []


def test_the_connection_goes_to_the_address_that_was_judged(make_clocked: Callable[..., Gateway]) -> None:
    """The name is resolved once for an attempt; the header still has it."""
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    gateway = make_clocked(resolve)
    with Receiver() as receiver:
        register(gateway, f"http://receiver.example:{receiver.port}/a?b=c", "message.sent")
        tell(gateway)
        (told,) = receiver.wait(1)
    assert asked == ["receiver.example"] * 2
    assert told.headers["host"] == f"receiver.example:{receiver.port}"
    assert told.path == "/a?b=c"


def test_the_next_address_is_tried(make_clocked: Callable[..., Gateway]) -> None:
    gateway = make_clocked(lambda host, port: ["127.0.0.2", "127.0.0.1"])
    with Receiver() as receiver:
        register(gateway, f"http://receiver.example:{receiver.port}/", "message.sent")
        tell(gateway)
        receiver.wait(1)


def test_a_name_server_that_is_silent_holds_up_nobody_else(make_clocked: Callable[..., Gateway]) -> None:
    asked, released = threading.Event(), threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        if host == "silent.example" and asked.is_set():
            released.wait(20)
        return ["127.0.0.1"]

    gateway = make_clocked(resolve)
    with Receiver() as receiver:
        register(gateway, "http://silent.example/", "message.sent")
        asked.set()
        tell(gateway, 50)
        register(gateway, receiver.url, "message.sent")
        tell(gateway, 10)
        receiver.wait(10)
        released.set()


def test_who_has_all_webhooks_has_no_name_looked_up(make_clocked: Callable[..., Gateway]) -> None:
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    gateway = make_clocked(resolve, per_user="2")
    for host in ("one", "two"):
        register(gateway, f"http://{host}.example/")
    assert "2 webhooks" in register(gateway, "http://three.example/", status=403)["detail"]
    register(gateway, "three.example", status=400)
    assert asked == ["one.example", "two.example"]


def test_names_are_looked_up_so_often_and_no_more(make_clocked: Callable[..., Gateway], clock: Clock) -> None:
    """A user that tries without end is let try again in a minute; the others, at once."""
    asked = Counter[str]()

    def resolve(host: str, port: int) -> list[str]:
        asked[host] += 1
        raise OSError

    gateway = make_clocked(resolve, per_user="1")
    body = {"url": "http://mine.example/", "events": ["message.sent"]}
    for minute in (1, 2):
        for _ in range(11):
            gateway.call("POST_JSON", WEBHOOKS, body, status=400)
        reply = gateway.call("POST_JSON", WEBHOOKS, body, status=429)
        assert reply.headers["Retry-After"] == "60"
        assert asked["mine.example"] == minute * 11
        register(gateway, "http://others.example/", user="ops", status=400)
        clock.now += 60
    assert asked["others.example"] == 2


def test_proxies_of_the_environment_count_for_nothing(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        gateway = listening(make_gateway(SETTINGS))
        register(gateway, receiver.url)
        tell(gateway)
        receiver.wait(1)
        assert proxy.deliveries == []


def test_certificates(make_clocked: Callable[..., Gateway], tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def tls(issuer: trustme.CA, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert(name).configure_cert(context)
        return context

    gateway = make_clocked(lambda host, port: ["127.0.0.1"], ca_file=str(tmp_path / "ca.pem"))

    def url(receiver: Receiver) -> str:
        return f"https://receiver.example:{receiver.port}/"

    with (
        Receiver(tls=tls(authority, "receiver.example")) as good,
        Receiver(tls=tls(authority, "127.0.0.1")) as other,
        Receiver(tls=tls(stranger, "receiver.example")) as bad,
        Receiver() as plain,
    ):
        good.secret = register(gateway, url(good), "message.sent")["secret"]
        wrong = [register(gateway, url(receiver), "message.sent")["id"] for receiver in (other, bad, plain)]
        tell(gateway)
        good.wait(1)
        errors = [eventually(lambda id=id: gateway.get(f"{WEBHOOKS}/{id}").json["last_error"]) for id in wrong]
        assert "its certificate is not good: Hostname mismatch" in errors[0]
        assert "its certificate is not good: unable to get local issuer" in errors[1]
        assert errors[2].startswith("TLS failed: ")
        assert other.deliveries == bad.deliveries == plain.deliveries == []


def test_no_secret_and_no_url_is_logged_or_in_a_repr(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = listening(make_gateway(SETTINGS | {"smsgw.webhooks.timeout": "1"}))
    port = free_port()
    url = f"http://127.0.0.1:{port}/?token=geheim"
    with caplog.at_level("DEBUG"):
        webhook = register(gateway, url)
        tell(gateway)
        eventually(lambda: gateway.get(f"{WEBHOOKS}/{webhook['id']}").json["last_error"])
    shown = caplog.text + repr(gateway.registry.webhooks.webhooks.all())
    assert webhook["id"] in shown
    assert webhook["secret"].removeprefix("whsec_") not in shown
    assert "geheim" not in shown


# Processes and databases


def register_at_once(pool: ThreadPoolExecutor, gateway: Gateway, count: int) -> Iterator[int]:
    """The status of each registration by one user."""
    body = {"url": "http://127.0.0.1:1/", "events": ["message.sent"]}

    def register_one(_: int) -> int:
        return int(gateway.call("POST_JSON", WEBHOOKS, body, status="*").status_int)

    return pool.map(register_one, range(count))


def test_who_registers_much_at_once_has_no_more(make_clocked: Callable[..., Gateway]) -> None:
    """All names are resolved before one webhook is added."""
    together = threading.Barrier(8)

    def resolve(host: str, port: int) -> list[str]:
        together.wait(20)
        return ["127.0.0.1"]

    gateway = make_clocked(resolve, per_user="3")
    with ThreadPoolExecutor(8) as pool:
        assert Counter(register_at_once(pool, gateway, 8)) == {201: 3, 403: 5}
    assert len(gateway.get(WEBHOOKS).json["webhooks"]) == 3


def test_registrations_that_postgresql_lets_count_at_once(make_gateway: MakeGateway, postgresql: Postgresql) -> None:
    """A lock on the table lets all of them count, and none be added, until all wait."""
    url = postgresql.create()
    settings = SETTINGS | {"smsgw.store": url, "smsgw.webhooks.per_user": "1"}
    gateway = listening(make_gateway(settings))
    assert gateway.get(WEBHOOKS).json["webhooks"] == []
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with ThreadPoolExecutor(8) as pool, psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE webhooks IN SHARE MODE")
        statuses = register_at_once(pool, gateway, 8)
        eventually(lambda: postgresql.sql(url, waiting) == "8")
        connection.commit()
        assert Counter(statuses) == {201: 1, 403: 7}
    assert len(gateway.get(WEBHOOKS).json["webhooks"]) == 1


def test_an_event_that_is_told_again_is_delivered_once(make_gateway: MakeGateway, store_url: str) -> None:
    gateway = listening(make_gateway(SETTINGS | {"smsgw.store": store_url}))
    plugin = gateway.plugin("webhooks")
    with Receiver() as receiver:
        webhook = register(gateway, receiver.url)
        event = Sent(stored("sent"), datetime.now(UTC))
        plugin.notify([event, event])
        receiver.wait(1)
        eventually(lambda: counts(gateway, webhook["id"]) == (0, 0))
        plugin.notify([event])
        (last,) = tell(gateway)
        assert [each.message for each in receiver.wait(2)] == [event.message.id, last]


def test_several_processes_share_the_work(make_gateway: MakeGateway, postgresql: Postgresql, tmp_path: Path) -> None:
    """Two machines, each with a spool of its own, on one database: each event is tried by one of them."""
    store = postgresql.create()
    spools = [str(make_spool(tmp_path / name)) for name in ("one", "two")]
    settings = SETTINGS | {"smsgw.store": store}
    first, second = (listening(make_gateway(settings | {"smsgw.spool": spool})) for spool in spools)
    with Receiver() as receiver:
        receiver.secret = register(first, receiver.url)["secret"]
        ids = [id for _ in range(20) for gateway in (first, second) for id in tell(gateway, 5)]
        receiver.wait(200)
        webhook = first.get(WEBHOOKS).json["webhooks"][0]["id"]
        eventually(lambda: counts(second, webhook) == (0, 0))
        assert sorted(each.message for each in receiver.deliveries) == sorted(ids)


def test_what_the_gateway_cannot_try_has_failed_too(
    make_clocked: Callable[..., Gateway], caplog: pytest.LogCaptureFixture
) -> None:
    """As with a secret that somebody has spoilt in the database; the log has nothing of it."""
    gateway = make_clocked()
    with Receiver() as receiver:
        spoilt = register(gateway, receiver.url, "message.sent")["id"]
        with gateway.application.stores.shared.begin() as connection:
            connection.execute(update(REGISTERED).values(secret="whsec_geheimnis"))
        register(gateway, receiver.url, "message.sent")
        tell(gateway)
        receiver.wait(1)
        error = eventually(lambda: gateway.get(f"{WEBHOOKS}/{spoilt}").json["last_error"])
    assert error == "the gateway failed; its log says why"
    assert "(Error)" in caplog.text
    assert "geheim" not in caplog.text


def test_what_a_dead_machine_had_begun_is_tried_by_another(
    make_gateway: MakeGateway, postgresql: Postgresql, tmp_path: Path
) -> None:
    settings = SETTINGS | {"smsgw.store": postgresql.create(), "smsgw.webhooks.timeout": "1"}
    given = {name: value for name, value in settings.items() if value}
    spool = make_spool(tmp_path / "one")
    with Receiver() as receiver:
        held = threading.Event()
        receiver.answer = lambda delivery: 200 if held.wait(20) else 500
        second = listening(make_gateway(settings | {"smsgw.spool": str(make_spool(tmp_path / "two"))}))
        password_file = second.settings["smsgw.htpasswd.path"]
        alone = given | {"smsgw.spool": str(spool), "smsgw.htpasswd.path": password_file, "smsgw.fsync": "false"}
        with Server(tmp_path, alone) as server:
            register(second, receiver.url)
            second.application.owner.stop()
            fresh = spool / "m1"
            fresh.write_text("To: 79680000000\nFrom: lvv\n\nHi")
            fresh.rename(spool / "sent" / "m1")
            (first,) = receiver.wait(1)
            server.kill()
        held.set()
        listening(make_gateway(settings | {"smsgw.spool": str(make_spool(tmp_path / "three"))}))
        again = receiver.wait(2, seconds=40)[1]
        assert (again.id, again.body) == (first.id, first.body)


def test_gunicorn_stops_without_a_word(base_settings: dict[str, str], tmp_path: Path) -> None:
    """What it is at is given back, and tried at the next start, not when its lease has run out."""
    spool = Path(base_settings["smsgw.spool"])
    held = threading.Event()
    settings = base_settings | {name: value for name, value in SETTINGS.items() if value}
    with Receiver() as receiver, Server(tmp_path, settings, workers=2) as server:
        receiver.answer = lambda delivery: 204 if held.wait(20) else 500
        body = {"url": receiver.url, "events": ["message.sent"]}
        path = f"{WEBHOOKS}/{server.request('POST', WEBHOOKS, body).json['id']}"
        (spool / "m1").write_text("To: 79680000000\nFrom: lvv\n\nHi")
        (spool / "m1").rename(spool / "sent" / "m1")
        (first,) = receiver.wait(1)
        assert server.stop() == 0
        assert "ERROR" not in server.stderr
        assert "Traceback" not in server.stderr
        held.set()
        server.start()
        assert [each.id for each in receiver.wait(2)] == [first.id, first.id]
        eventually(lambda: server.request("GET", path).json["waiting"] == 0)


def test_everybody_hears_of_everything_in_spite_of_kills(base_settings: dict[str, str], tmp_path: Path) -> None:
    """kill -9 of the receiver, of the gateway and of the database, while messages are sent."""
    random.seed(7)
    spool, port = Path(base_settings["smsgw.spool"]), free_port()
    ids: list[str] = []
    receivers: list[Receiver] = []

    def send(count: int) -> None:
        for _ in range(count):
            ids.append(f"k{len(ids)}")
            fresh = spool / ids[-1]
            fresh.write_text("To: 79680000000\nFrom: lvv\n\nHi")
            fresh.rename(spool / "sent" / ids[-1])
            time.sleep(random.uniform(0, 0.03))  # or all would be noted before anything is killed

    @contextlib.contextmanager
    def receiving() -> Iterator[Receiver]:
        with Receiver(port) as receiver:
            receiver.secret = secret
            receiver.answer = lambda delivery: later(random.uniform(0, 0.1))
            receivers.append(receiver)
            yield receiver

    with Postgresql() as database:
        settings = {name: value for name, value in SETTINGS.items() if value}
        settings = base_settings | settings | {"smsgw.store": database.create(), "smsgw.webhooks.timeout": "1"}
        with Server(tmp_path, settings) as server:
            body = {"url": f"http://127.0.0.1:{port}/", "events": ["message.sent"]}
            made = server.request("POST", WEBHOOKS, body).json
            secret = made["secret"]
            for _ in range(at_length(2, 1)):
                with receiving():
                    send(10)
                send(3)
            with receiving() as receiver:
                for _ in range(at_length(2, 1)):
                    send(10)
                    server.kill()
                    send(3)
                    server.start()
                    send(10)
                    database.stop()
                    send(3)
                    database.start()

                def is_done() -> bool:
                    reply = server.request("GET", f"{WEBHOOKS}/{made['id']}")
                    return reply.status == 200 and not reply.json["waiting"]

                (spool / "sent" / "last").write_text("To: 79680000000\nFrom: lvv\n\nHi")
                eventually(lambda: "last" in {each.message for each in receiver.deliveries}, seconds=90)
                eventually(is_done, seconds=90)
    # All are asked at the end: one that closes still answers what it has begun to read.
    assert {each.message for receiver in receivers for each in receiver.wait(0)} == {*ids, "last"}
