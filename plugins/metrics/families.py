"""All metrics, as ``prometheus_client`` writes them. Names as https://prometheus.io/docs/practices/naming/ has them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

from prometheus_client.metrics_core import CounterMetricFamily as Count
from prometheus_client.metrics_core import GaugeMetricFamily as Gauge
from prometheus_client.metrics_core import HistogramMetricFamily as Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from smsgw.api import Modem, Smsd, Waiting
from smsgw.model import Measure

from .counters import Key, key
from .events import CODES
from .requests import BUCKETS, REASONS, SENDS, bound

MESSAGES = {
    "accepted": "Messages that the gateway accepted",
    "sent": "Messages that the network took",
    "failed": "Messages that smsd gave up",
    "delivered": "Messages that the phone has, as status reports say",
    "undelivered": "Messages that the phone will not get, as status reports say",
    "cancelled": "Messages that were taken back",
    "received": "Messages that came in",
}
STATES = ("idle", "sending", "receiving", "blocked", "unknown")


class Found(Collector):
    """What one scrape is told."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def of_counters(counters: Mapping[Key, float], *, by_user: bool) -> Iterator[Metric]:
    """What was counted. What never happened is 0, so that the first time is seen as a rise."""
    for name, about in MESSAGES.items():
        yield Count(f"smsgw_messages_{name}", about, counters.get(key(f"messages_{name}"), 0))
    yield Count("smsgw_parts_sent", "Parts of the messages that the network took", counters.get(key("parts_sent"), 0))
    yield _labelled(counters, "failures", "Messages that smsd gave up, by reason", ["reason"])
    zero = {key("sends_refused", api=api, reason=why): 0 for api in SENDS.values() for why in REASONS.values()}
    about = "Requests to send of which nothing was sent"
    yield _labelled({**zero, **counters}, "sends_refused", about, ["api", "reason"])
    none = {key("recipients_refused", reason=code): 0 for code in CODES}
    about = "Recipients that were refused in requests of which something was sent"
    yield _labelled({**none, **counters}, "recipients_refused", about, ["reason"])
    yield _latency(counters)
    if by_user:
        yield _labelled(counters, "user_messages", "Messages of each user, by event", ["user", "event"])
        yield _labelled(counters, "user_parts_accepted", "Parts of the messages of each user", ["user"])


def _labelled(counters: Mapping[Key, float], name: str, about: str, labels: Sequence[str]) -> Metric:
    family = Count(f"smsgw_{name}", about, labels=labels)
    for (of, found), value in counters.items():
        if of == name:
            family.add_metric([dict(found)[label] for label in labels], value)
    return family


def _latency(counters: Mapping[Key, float]) -> Metric:
    family = Histogram(
        "smsgw_request_duration_seconds", "Seconds until a request was answered", labels=["api", "status"]
    )
    for (name, found), total in counters.items():
        if name == "request_seconds_sum":
            labels, count, buckets = dict(found), 0.0, []
            for index in range(len(BUCKETS) + 1):
                count += counters.get(key("request_seconds_bucket", **labels, le=bound(index)), 0)
                buckets.append((bound(index), count))
            family.add_metric([labels["api"], labels["status"]], buckets, total)
    return family


def of_queues(waiting: Sequence[Waiting]) -> Iterator[Metric]:
    count = Gauge("smsgw_queue_messages", "Messages that wait in a queue", labels=["queue"])
    age = Gauge("smsgw_queue_oldest_seconds", "Age of the oldest message that waits in a queue", labels=["queue"])
    now = time.time()
    for each in waiting:
        count.add_metric([each.queue], each.count)
        age.add_metric([each.queue], max(0.0, now - each.oldest.timestamp()) if each.oldest else 0.0)
    yield from (count, age)


def of_smsd(smsd: Smsd) -> Iterator[Metric]:
    if smsd.is_running is not None:
        yield Gauge("smsgw_smsd_up", "Whether smsd runs", float(smsd.is_running))
    up = Gauge("smsgw_modem_up", "Whether no fault of a modem is known", labels=["modem"])
    state = Gauge("smsgw_modem_state", "1 for the state that a modem is in", labels=["modem", "state"])
    signal = Gauge("smsgw_modem_signal_dbm", "Signal of a modem", labels=["modem"])
    for modem in smsd.modems:
        up.add_metric([modem.name], float(modem.fault is None))
        for each in STATES if modem.state else ():
            state.add_metric([modem.name, each], float(each == modem.state))
        if modem.signal is not None:
            signal.add_metric([modem.name], modem.signal)
    yield from (up, state, signal)
    yield from _counters_of_smsd(smsd.modems)


def _counters_of_smsd(modems: Sequence[Modem]) -> Iterator[Metric]:
    sent = Count("smsgw_modem_sent", "Messages that a modem sent since smsd's statistics began", labels=["modem"])
    failed = Count("smsgw_modem_failed", "Messages that a modem failed to send; smsd begins anew", labels=["modem"])
    received = Count("smsgw_modem_received", "Messages that a modem received; smsd begins anew", labels=["modem"])
    for modem in modems:
        values = (sent, modem.sent_ever), (failed, modem.failed), (received, modem.received)
        for family, value in values:
            if value is not None:
                family.add_metric([modem.name], value)
    yield from (sent, failed, received)


def of_gateway(lag: float | None, *, has_counters: bool) -> Iterator[Metric]:
    """:param lag: seconds; ``None``: the journal is out of service."""
    build = Gauge("smsgw_build_info", "The version of the gateway", labels=["version"])
    build.add_metric([version("smsgw")], 1)
    yield build
    yield Gauge("smsgw_journal_up", "Whether the journal can be read", float(lag is not None))
    if lag is not None:
        yield Gauge("smsgw_journal_lag_seconds", "For how long the journal has lacked what is in smsd's folders", lag)
    yield Gauge("smsgw_counters_up", "Whether what was counted can be read", float(has_counters))


def of_plugins(measures: Sequence[Measure]) -> Iterator[Metric]:
    families: dict[str, Gauge] = {}
    for each in measures:
        labels = sorted(each.labels)
        family = families.setdefault(each.name, Gauge(f"smsgw_{each.name}", each.about, labels=labels))
        family.add_metric([each.labels[label] for label in labels], each.value)
    yield from families.values()
