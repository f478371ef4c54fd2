"""``webhooks``: tells receivers over HTTP what became of messages, again and again until they have taken it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import colander
from pyramid.config import Configurator

from smsgw.api import application
from smsgw.hookspecs import hookimpl
from smsgw.model import Alarm, Event, Identity, Measure
from smsgw.settings import Boolean, Number
from smsgw.store import open_store
from smsgw.tls import make_context

from . import views
from .addresses import Resolve, resolve
from .commands import commands
from .dispatcher import Dispatcher
from .events import TYPES, entries
from .failures import Failures
from .outbox import MARGIN, Outbox
from .post import Post
from .registration import SPARE, LookUps
from .rights import Rights, SignIns
from .table import SCRIPTS, TABLES
from .table import Webhooks as Table


class Webhooks:
    """Writes each event for each webhook that shall hear of it into the outbox, in one transaction, and delivers it.

    :param clock: seconds since 1970 (UTC).
    :param resolve: finds the addresses of a host.
    """

    hears = tuple(TYPES)
    commands = commands

    class Settings(colander.MappingSchema):
        allow_private = colander.SchemaNode(
            Boolean(),
            missing=False,
            description="whether receivers may be on this machine or in its networks, and do without TLS",
        )
        ca_file = colander.SchemaNode(
            colander.String(),
            missing=None,
            description="certificates of authorities to be trusted in place of the system's",
        )
        timeout = colander.SchemaNode(
            Number(), missing=15.0, validator=colander.Range(1, 60), description="seconds for one attempt"
        )
        per_user = colander.SchemaNode(
            colander.Integer(),
            missing=20,
            validator=colander.Range(1, 1000),
            description="webhooks that one user may have",
        )
        groups_days = colander.SchemaNode(
            colander.Integer(),
            missing=30,
            validator=colander.Range(1, 3650),
            description="days after a sign-in for which groups, and rights to others' messages, are believed",
        )

    def __init__(
        self,
        allow_private: bool = False,
        ca_file: str | None = None,
        timeout: float = 15.0,
        per_user: int = 20,
        groups_days: int = 30,
        *,
        clock: Callable[[], float] = time.time,
        resolve: Resolve = resolve,
    ) -> None:
        self._post = Post(allow_private, make_context("smsgw.webhooks.ca_file", ca_file), timeout, resolve)
        self._lease = int((timeout + MARGIN) * 1000)
        self._per_user = per_user
        self._groups_days = groups_days
        self._clock = clock
        self._webhooks: Table
        self._outbox: Outbox
        self._dispatcher: Dispatcher
        self._failures: Failures

    def includeme(self, config: Configurator) -> None:
        found = application(config)
        store = open_store(config.registry, TABLES, SCRIPTS)
        self._webhooks, self._outbox = Table(store), Outbox(store)
        self._sign_ins = SignIns(store, self._clock)
        self._rights = Rights(found.permits, found.holds, self._groups_days)
        self._dispatcher = Dispatcher(self._outbox, self._rights, self._post, self._lease, self._clock)
        self._resources = found.resources
        self._failures = failures = Failures(store, self._lease)
        look_ups = LookUps(self._per_user + SPARE, self._clock)
        config.registry.webhooks = views.Endpoints(
            self._webhooks, failures, self._rights, self._post, look_ups, self._per_user, self._clock
        )
        views.includeme(config)

    @hookimpl
    def signed_in(self, identity: Identity) -> None:
        self._sign_ins.note(identity)

    @hookimpl
    def notify(self, events: Sequence[Event | Alarm]) -> None:
        """:raises Unavailable: the database is out of service; nothing was noted."""
        now = int(self._clock() * 1000)
        if noted := list(entries(events, self._webhooks.all(), self._rights, self._resources, now)):
            self._outbox.add(noted, now)
            self._dispatcher.wake()

    @hookimpl
    def background(self, stop: threading.Event) -> None:
        self._dispatcher.run(stop)

    @hookimpl
    def measures(self) -> Sequence[Measure]:
        """:raises Unavailable: the database is out of service."""
        waiting, failed = self._failures.totals()
        return [
            Measure("webhooks_waiting", "Deliveries that wait for their next attempt.", waiting),
            Measure("webhooks_failed", "Deliveries that were given up, and can be replayed.", failed),
        ]
