"""``metrics``: who may see it, what is counted, and that it is right over threads, processes and restarts."""

from __future__ import annotations

import contextlib
import re
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from smsgw.hookspecs import hookimpl
from smsgw.model import Delivered, Identity, Measure, StatusReport, Submission, Unavailable
from smsgw.store import Store
from smsgw.testing import message, stored
from smsgw_plugins.metrics.counters import KEPT, TABLES, TOLD, Counters, key
from smsgw_plugins.metrics.events import accepted, counted, reason, refused
from tests.cli.conftest import executable
from tests.conftest import Gateway, eventually
from tests.server import Server, free_port

Make = Callable[..., Gateway]
DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "metrics.md").read_text()
NEAR = {"REMOTE_ADDR": "127.0.0.1"}
STATUS = (
    "GSM1:\t26-11-29 10:08:42,\tBlocked,\t0,\t2,\t0,\tssi: -73 dBm (Excellent), ber: < 0.2 %\n"
    "GSM2:\t26-11-29 10:08:42,\tIdle,\t\t5,\t0,\t1,\tssi: -51 dBm (Excellent), ber: ??\n"
)


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of a scrape, by their names and labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(found) == len(samples), "no sample stands there twice"
    return found


def scrape(gateway: Gateway, **environ: str) -> Callable[..., float | None]:
    """What a scrape from this machine says of a metric with these labels."""
    text = gateway.get("/metrics", user=None, extra_environ=NEAR | environ).text
    found = read(text)
    return lambda name, **labels: found.get((f"smsgw_{name}", tuple(sorted(labels.items()))))


@pytest.fixture
def make(make_gateway: Make) -> Make:
    def make(plugins: str = "", changes: dict[str, str | None] | None = None, **classes: type) -> Gateway:
        return make_gateway({"smsgw.plugins": f"htpasswd allow metrics {plugins}"} | (changes or {}), **classes)

    return make


def test_who_may_see_it(make: Make) -> None:
    gateway = make()
    far = {"REMOTE_ADDR": "203.0.113.7"}
    reply = gateway.get("/metrics", user=None, extra_environ=NEAR)
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    gateway.get("/metrics", user=None, extra_environ={"REMOTE_ADDR": "::1"})
    gateway.get("/metrics", user=None, extra_environ={"REMOTE_ADDR": "::ffff:127.0.0.1"})
    gateway.get("/metrics", user=None, extra_environ=far, status=401)
    gateway.get("/metrics", user="lvv", extra_environ=far, status=403)
    gateway.get("/metrics", user="root", extra_environ=far)
    for address in ("", "somewhere", "127.0.0.1.example"):
        gateway.get("/metrics", user=None, extra_environ={"REMOTE_ADDR": address}, status=401)
    # A proxy on this machine that is not trusted: anybody may be behind it.
    gateway.get("/metrics", user=None, extra_environ=NEAR, headers={"X-Forwarded-For": "127.0.0.1"}, status=401)


def test_addresses_behind_a_trusted_proxy(make: Make) -> None:
    gateway = make(changes={"smsgw.trusted_proxies": "127.0.0.1", "smsgw.metrics.allow": "192.0.2.0/24 unix"})
    for address, status in (("192.0.2.9", 200), ("203.0.113.7", 401)):
        headers = {"X-Forwarded-For": address}
        gateway.get("/metrics", user=None, extra_environ=NEAR, headers=headers, status=status)
    gateway.get("/metrics", user=None, extra_environ=NEAR, status=401)
    gateway.get("/metrics", user=None, extra_environ={"REMOTE_ADDR": ""})


class Broken:
    """A policy that fails."""

    @hookimpl
    def permits(self, identity: Identity, permission: str) -> None:
        raise RuntimeError("it fails")


def test_it_fails_closed(make: Make) -> None:
    gateway = make("broken", broken=Broken)
    gateway.get("/metrics", user="root", extra_environ={"REMOTE_ADDR": "203.0.113.7"}, status=403)


def test_what_becomes_of_messages(make: Make) -> None:
    gateway = make("simulator", {"smsgw.simulator.fail": "7999*", "smsgw.metrics.by_user": "true"})
    assert scrape(gateway)("messages_sent_total") == 0
    gateway.send(mobiles=["79680000000", "79680000001"], text="x" * 200)
    gateway.send(mobiles=["79990000000"])
    gateway.put("incoming", "GSM1.a", "From: 79680000000\nReceived: 26-11-29 10:00:00\nModem: GSM1\n\nHello")

    def whole() -> Any:
        told = scrape(gateway)
        ended = [told(f"messages_{name}_total") for name in ("sent", "failed", "received")]
        return told if ended == [2, 1, 1] else None

    found = eventually(whole)
    assert found("failures_total", reason="CMS ERROR 38") == 1
    assert found("messages_accepted_total") == 3
    assert found("messages_failed_total") == 1
    assert found("parts_sent_total") == 4
    assert found("user_messages_total", user="lvv", event="accepted") == 3
    assert found("user_messages_total", user="lvv", event="failed") == 1
    assert found("user_parts_accepted_total", user="lvv") == 5
    assert found("journal_up") == found("counters_up") == 1
    assert eventually(lambda: scrape(gateway)("journal_lag_seconds") == 0)


def test_users_are_counted_where_asked_for_alone() -> None:
    event = Delivered(stored(), datetime.now(UTC), StatusReport("report/1", 0, "Ok", "", datetime.now(UTC)))
    assert counted(event, by_user=False) == {key("messages_delivered"): 1}
    assert key("user_messages", user="lvv", event="delivered") in counted(event, by_user=True)
    assert accepted((message(),), by_user=False) == {key("messages_accepted"): 1}
    assert accepted((message(),), by_user=True)[key("user_parts_accepted", user="lvv")] == 1
    assert accepted((), by_user=True) == {}


def test_reasons_are_few() -> None:
    written = {
        None: "unknown",
        "": "unknown",
        "+CMS ERROR: 38 (Network out of order)": "CMS ERROR 38",
        "+CME ERROR: 10": "CME ERROR 10",
        "Wrong provider queue": "wrong queue",
        "+CMS ERROR: 123456": "other",
        "Message 4711 is bad": "other",
    }
    assert {each: reason(each) for each in written} == written


def test_requests(make: Make) -> None:
    gateway = make()
    gateway.send()
    gateway.send(mobiles=["x"], status=400)
    gateway.call("POST_JSON", "/api/v2/messages", {"to": ["79680000000"], "text": ""}, status="*")
    gateway.call("POST_JSON", "/api/v2/messages", {"to": ["79680000000"], "text": "x"}, user=None, status=401)
    gateway.get("/api/v2/me")
    found = scrape(gateway)
    assert found("sends_refused_total", api="v1", reason="invalid") == 1
    assert found("sends_refused_total", api="v2", reason="invalid") == 1
    assert found("sends_refused_total", api="v2", reason="unauthenticated") == 1
    assert found("sends_refused_total", api="v2", reason="unavailable") == 0
    assert found("request_duration_seconds_count", api="v1", status="2xx") == 1
    assert found("request_duration_seconds_bucket", api="v2", status="4xx", le="+Inf") == 2
    assert found("request_duration_seconds_sum", api="v2", status="2xx") > 0


def test_the_listener_of_its_own(make: Make) -> None:
    """It answers while all threads of the server are busy."""
    port = free_port()
    make(changes={"smsgw.health.listen": f"127.0.0.1:{port}"})

    def ask() -> str:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
            return str(reply.read().decode())
        return ""

    assert ("smsgw_counters_up", ()) in read(eventually(ask))


def test_recipients_who_are_refused(make: Make) -> None:
    """In requests that are accepted for others; those of which nothing is sent are counted as requests."""
    gateway = make()
    gateway.send(mobiles=["79680000000", "x", "79680000000"])
    body = {"to": ["79680000000", "y"], "text": "Hi"}
    gateway.call("POST_JSON", "/api/v2/messages", body, status=202)
    gateway.call("POST_JSON", "/api/v2/messages", body | {"to": ["z"]}, status=422)
    found = scrape(gateway)
    assert found("recipients_refused_total", reason="invalid_number") == 2
    assert found("recipients_refused_total", reason="forbidden") == 0
    assert found("recipients_refused_total", reason="unavailable") == 0
    assert found("sends_refused_total", api="v2", reason="invalid") == 1


def test_what_nobody_took_of_a_request() -> None:
    request = Submission(Identity("lvv"), (message("1"), message("2")), ("forbidden",))
    assert refused(request, request.messages[:1]) == {
        key("recipients_refused", reason="forbidden"): 1,
        key("recipients_refused", reason="unavailable"): 1,
    }
    assert refused(request, ()) == {}


def test_modems_and_queues(make: Make, tmp_path: Path) -> None:
    (tmp_path / "stats").mkdir()
    (tmp_path / "stats" / "status").write_text(STATUS)
    (tmp_path / "stats" / "GSM2.counter").write_text("GSM2: 1234\n")
    gateway = make(changes={"smsgw.health.stats": str(tmp_path / "stats")})
    gateway.send()
    found = scrape(gateway)
    assert (found("modem_up", modem="GSM1"), found("modem_up", modem="GSM2")) == (0, 1)
    assert found("modem_state", modem="GSM1", state="blocked") == 1
    assert found("modem_state", modem="GSM1", state="idle") == 0
    assert found("modem_signal_dbm", modem="GSM2") == -51
    assert found("modem_sent_total", modem="GSM2") == 1234
    assert found("modem_sent_total", modem="GSM1") is None
    assert found("modem_failed_total", modem="GSM1") == 2
    assert found("modem_received_total", modem="GSM2") == 1
    assert found("queue_messages", queue="outgoing") == 1
    assert found("queue_messages", queue="checked") == 0
    assert 0 <= found("queue_oldest_seconds", queue="outgoing") < 3600


class Tank:
    """A plugin with numbers."""

    wrong: Any = None

    @hookimpl
    def measures(self) -> Sequence[Measure]:
        if self.wrong is not None:
            raise self.wrong
        return [Measure("tank_litres", "What is in it", 7, {"side": side}) for side in ("left", "right")]


class Odd:
    """A plugin whose numbers are none."""

    @hookimpl
    def measures(self) -> Any:
        return [7]


def test_numbers_of_other_plugins(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    gateway = make("tank odd", tank=Tank, odd=Odd)
    assert scrape(gateway)("tank_litres", side="right") == 7
    assert "the plugin 'odd' should answer a list of Measure, and answered a value of type 'list'" in caplog.text
    for wrong in (Unavailable("later"), RuntimeError("never")):
        gateway.plugin("tank").wrong = wrong
        assert scrape(gateway)("tank_litres", side="left") is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "no name"}, "'no name' is no name of a measure"),
        ({"name": "Tank"}, "'Tank' is no name of a measure"),
        ({"labels": {"a-b": "1"}}, "'a-b' is no name of a label"),
        ({"labels": {"side": 1}}, "the label 'side' should be a word"),
        ({"value": "7"}, "'tank_litres' should be a number"),
        ({"labels": {"other": "1"}}, "has 'tank_litres' with other labels than before"),
    ],
)
def test_numbers_that_prometheus_would_not_take(
    make: Make, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], sentence: str
) -> None:
    """One plugin's mistake costs no other number."""

    class Leaky:
        @hookimpl
        def measures(self) -> Any:
            return [
                Measure(**{"name": "tank_litres", "about": "Its own", "value": 7, "labels": {"side": "l"}} | changes)
            ]

    gateway = make("tank leaky", tank=Tank, leaky=Leaky)
    found = scrape(gateway)
    assert found("tank_litres", side="right") == 7
    assert found("journal_up") == 1
    assert sentence in caplog.text


def test_the_example_of_the_document(make: Make) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.S)
    found: dict[str, Any] = {}
    exec(compile(source, "docs/metrics.md", "exec"), found)
    assert scrape(make("credit", credit=found["Credit"]))("credit_euros", modem="GSM1") == 120.5


def test_the_settings_of_the_document(make: Make) -> None:
    settings = dict(re.findall(r"^(smsgw\.\S+) = (.*)$", DOCUMENT, re.M))
    assert settings.keys() == {"smsgw.plugins", "smsgw.metrics.allow"}
    gateway = make(changes=settings)
    gateway.get("/metrics", user=None, extra_environ={"REMOTE_ADDR": "192.0.2.7"})


def test_a_journal_that_falls_behind(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = make()
    eventually(lambda: scrape(gateway)("journal_lag_seconds") == 0)

    def broken(*_: object) -> Any:
        raise Unavailable("The gateway's journal is out of service")

    with monkeypatch.context() as patch:
        patch.setattr(type(gateway.application.journal), "put", broken)
        gateway.put("sent", "other.1", "To: 79680000000\nSent: 26-11-29 10:00:00\n\nHi")
        first = eventually(lambda: scrape(gateway)("journal_lag_seconds"))
        assert scrape(gateway)("journal_lag_seconds") > first
    eventually(lambda: scrape(gateway)("journal_lag_seconds") == 0)
    eventually(lambda: scrape(gateway)("messages_sent_total") == 1)


def test_webhooks(make: Make) -> None:
    gateway = make("webhooks", {"smsgw.webhooks.allow_private": "true"})
    assert scrape(gateway)("webhooks_waiting") == scrape(gateway)("webhooks_failed") == 0
    body = {"url": f"http://127.0.0.1:{free_port()}/", "events": ["message.received"]}
    gateway.call("POST_JSON", "/api/v2/webhooks", body, user="root", status=201)
    gateway.put("incoming", "GSM1.a", "From: 79680000000\nReceived: 26-11-29 10:00:00\nModem: GSM1\n\nHello")
    assert eventually(lambda: scrape(gateway)("webhooks_waiting") == 1)
    store = gateway.application.stores.shared
    assert store is not None
    store.execute(sa.text("UPDATE webhooks_deliveries SET due = NULL, failed = 1"))
    found = scrape(gateway)
    assert (found("webhooks_waiting"), found("webhooks_failed")) == (0, 1)


def test_a_database_that_is_out_of_service(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not in it is told all the same, and what was counted is not lost."""
    gateway = make()
    gateway.send()
    scrape(gateway)

    def broken(*_: object, **__: object) -> Any:
        raise Unavailable("The gateway's database is out of service")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "begin", broken)
        patch.setattr(Store, "execute", broken)
        found = scrape(gateway)
        assert (found("counters_up"), found("messages_sent_total")) == (0, None)
        assert found("queue_messages", queue="outgoing") == 1
        gateway.send()
        scrape(gateway)
    assert scrape(gateway)("request_duration_seconds_count", api="v1", status="2xx") == 2


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    found = Store(store_url)
    found.keep(TABLES)
    yield found
    found.close()


def told(*names: str) -> list[tuple[str, dict[Any, float]]]:
    return [(name, {key("messages_sent"): 1}) for name in names]


def test_an_event_that_is_told_again_is_counted_once(store: Store) -> None:
    counters, other = Counters(store, "a:/spool"), Counters(store, "b:/spool")
    counters.count_events(told("sent:1", "sent:2"))
    counters.count_events(told("sent:1", "sent:2", "sent:3"))
    Counters(store, "a:/spool").count_events(told("sent:3"))
    other.count_events(told("sent:1"))
    assert counters.read() == {key("messages_sent"): 3}
    assert other.read() == {key("messages_sent"): 1}
    for batch in range(8):
        counters.count_events(told(*(f"sent:{batch}:{number}" for number in range(250))))
    counters.count_events(told(*(f"sent:7:{number}" for number in range(250))))
    assert counters.read() == {key("messages_sent"): 2003}
    assert len(store.execute(sa.select(TOLD.c.key).where(TOLD.c.spool == "a:/spool"))) <= KEPT + 1


def test_several_processes(tmp_path: Path, base_settings: dict[str, str]) -> None:
    settings = base_settings | {"smsgw.plugins": "htpasswd allow metrics simulator"}
    with Server(tmp_path, settings, workers=2) as server:
        for _ in range(12):
            assert server.send(["79680000000"]).status == 201

        def found() -> dict[Any, float]:
            return read(server.request("GET", "/metrics", user=None).body.decode())

        sent, count = (
            key("smsgw_messages_sent_total"),
            key("smsgw_request_duration_seconds_count", api="v1", status="2xx"),
        )
        assert eventually(lambda: found()[sent] == 12 and found().get(count, 0) >= 12)
        ini = tmp_path / f"{server.port}.ini"
        assert executable("send", ini, "--user", "lvv", "--to", "112", "Hi").status == 0
        assert eventually(lambda: found()[sent] == 13 == found()[key("smsgw_messages_accepted_total")])
        server.stop()
        server.start()
        assert found()[sent] == 13 == found()[key("smsgw_messages_accepted_total")]
        assert found()[count] >= 12, "what processes counted until they ended is not lost"
