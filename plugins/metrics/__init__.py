"""``metrics``: ``GET /metrics`` in Prometheus' text format, for addresses that may and users who may (``metrics``).

What is counted stands in the gateway's database, so that it is right with any number of processes. All else is looked
at when it is asked for.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence

import colander
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from smsgw.api import application, client_address, journal_lag, measures, smsd, waiting
from smsgw.hookspecs import hookimpl
from smsgw.model import Alarm, Event, Message, Submission, Unavailable
from smsgw.settings import UNIX, Address, Boolean, Networks
from smsgw.store import open_store

from .counters import TABLES, Counters, Key
from .events import HEARS, accepted, counted, refused
from .families import Found, of_counters, of_gateway, of_plugins, of_queues, of_smsd

PATH, PERMISSION = "/metrics", "metrics"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))


class Metrics:
    """Counts what becomes of messages and requests, and tells it."""

    hears = HEARS

    class Settings(colander.MappingSchema):
        allow = colander.SchemaNode(
            Networks(), missing=LOOPBACK, description="addresses and networks that need no credentials"
        )
        by_user = colander.SchemaNode(Boolean(), missing=False, description="whether users are counted, each by name")

    def __init__(self, allow: tuple[Address, ...], by_user: bool) -> None:
        self._allow = allow
        self._by_user = by_user
        self._counters: Counters

    def includeme(self, config: Configurator) -> None:
        spool = f"{socket.gethostname()}:{application(config).layout.outgoing}"
        self._counters = Counters(open_store(config.registry, TABLES), spool)
        config.registry.metrics = self._counters
        config.add_tween("smsgw_plugins.metrics.requests.tween_factory")
        config.add_route("metrics", PATH, request_method=("GET", "HEAD"))
        config.add_view(self._tell, route_name="metrics", permission=NO_PERMISSION_REQUIRED)

    @hookimpl(wrapper=True)
    def deliver(self, submission: Submission) -> Generator[None, Sequence[Message], Sequence[Message]]:
        taken = yield
        self._counters.count({**accepted(taken, by_user=self._by_user), **refused(submission, taken)})
        return taken

    @hookimpl
    def notify(self, events: Sequence[Event | Alarm]) -> None:
        """
        :raises Unavailable: the database is out of service; nothing was counted.
        """
        found = [(each.key, counted(each, by_user=self._by_user)) for each in events if isinstance(each, Event)]
        self._counters.count_events(found)

    def _tell(self, request: Request) -> Response:
        if not (self._is_near(request) or self._is_permitted(request)):
            raise HTTPForbidden("You may not see the metrics")
        body = generate_latest(Found(self._families(request.registry)))
        return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _is_near(self, request: Request) -> bool:
        """Whether it comes from an address that may. What an untrusted proxy sends on does not."""
        if not application(request).settings.trusted_proxies and "X-Forwarded-For" in request.headers:
            return False
        address = client_address(request)
        if not address:
            return UNIX in self._allow
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in network for network in self._allow if not isinstance(network, str))

    def _is_permitted(self, request: Request) -> bool:
        identity = request.identity
        return identity is not None and application(request).permits(identity, PERMISSION)

    def _families(self, registry: Registry) -> Iterator[Metric]:
        counters = self._read()
        yield from of_gateway(_lag(registry), has_counters=counters is not None)
        if counters is not None:
            yield from of_counters(counters, by_user=self._by_user)
        yield from of_queues(waiting(registry))
        yield from of_smsd(smsd(registry))
        yield from of_plugins(measures(registry))

    def _read(self) -> Mapping[Key, float] | None:
        try:
            return self._counters.read()
        except Unavailable:
            return None


def _lag(registry: Registry) -> float | None:
    try:
        return journal_lag(registry)
    except Unavailable:
        return None
