"""``quota``: how much users, groups and everybody may send in a second, a minute, an hour, a day, a month."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from operator import attrgetter
from zoneinfo import ZoneInfo

import colander
from pyramid.config import Configurator

from smsgw.hookspecs import hookimpl
from smsgw.model import Allowance, Identity, Message, Submission, Unavailable
from smsgw.settings import Lines, TimeZone
from smsgw.store import close_with, open_store

from .counters import SCRIPTS, TABLES, Counters, Exhausted
from .limits import Claim, read, window
from .refusal import refusal

DAY = 24 * 3600  # seconds for which old counters are kept: a clock that is set back by less opens no limit again
SAVED = 5  # seconds between two copies of the counters to the gateway's database

Delivered = Sequence[Message]

log = logging.getLogger(__name__)


class Quota:
    """Wraps ``deliver``: a submission is counted whole before it goes out, and what did not go out is given back.

    :param timezone: where days and months begin; ``None``: in the machine's own time zone.
    :param clock: seconds since 1970 (UTC).
    """

    class Settings(colander.MappingSchema):
        limits = colander.SchemaNode(
            Lines(), description="lines 'user: 10/minute 1000/day', '@group: 600 parts/month', '*: 5/second'"
        )
        timezone = colander.SchemaNode(
            TimeZone(), missing=None, description="where days and months begin, such as Europe/Berlin (the machine's)"
        )

    def __init__(
        self, limits: dict[str, str], timezone: ZoneInfo | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._limits = read(limits)
        self._zone = timezone
        self._clock = clock
        self._counters: Counters

    def includeme(self, config: Configurator) -> None:
        store = open_store(config.registry, TABLES, SCRIPTS)
        self._counters = Counters(store)
        if self._counters.used is not store:
            close_with(config.registry, self._counters.used)

    @hookimpl(wrapper=True)
    def deliver(self, submission: Submission) -> Generator[None, Delivered, Delivered]:
        claims = self._claims(submission)
        if not claims:
            return (yield)
        self._take(claims)
        delivered: Delivered = ()
        try:
            delivered = yield
        finally:
            sent = {message.id for message in delivered}
            self._give_back(claims, [message for message in submission.messages if message.id not in sent])
        return delivered

    @hookimpl
    def limits(self, identity: Identity) -> list[Allowance]:
        """:raises Unavailable: the database is out of service."""
        left = self._counters.left(self._claims(Submission(identity, ())))
        return [
            Allowance(
                str(claim.limit), claim.limit.counted, claim.limit.most, rest, datetime.fromtimestamp(claim.until, UTC)
            )
            for claim, rest in left.items()
        ]

    @hookimpl
    def background(self, stop: threading.Event) -> None:
        self._counters.remove_old_files()
        is_broken = False
        while True:
            try:
                self._counters.clean(math.floor(self._clock()) - DAY)
                self._counters.save()
                is_broken = False
            except Unavailable as error:
                if not is_broken:
                    log.warning("counters cannot be saved now: %s", error.__cause__)
                is_broken = True
            if stop.wait(SAVED):
                return

    def _claims(self, submission: Submission) -> list[Claim]:
        """How much the submission needs of each limit that applies, sorted as ``Counters`` takes them."""
        limits = [limit for name in submission.identity.names for limit in self._limits.get(name, ())]
        limits.sort(key=attrgetter("name", "counted", "period"))
        now = self._clock()
        return [
            Claim(limit, *window(limit.period, now, self._zone), limit.amount(submission.messages)) for limit in limits
        ]

    def _take(self, claims: Sequence[Claim]) -> None:
        """:raises TooMany: a limit would be exceeded, and nothing was taken."""
        try:
            if never := [claim for claim in claims if claim.amount > claim.limit.most]:
                raise Exhausted(self._counters.left(never))
            self._counters.take(claims)
        except Exhausted as exhausted:
            raise refusal(claims, exhausted.left, self._clock(), self._zone) from None

    def _give_back(self, claims: Sequence[Claim], messages: Sequence[Message]) -> None:
        if not messages:
            return
        try:
            self._counters.give_back([replace(claim, amount=claim.limit.amount(messages)) for claim in claims])
        except Unavailable as error:  # they count until their windows end; no limit is exceeded
            log.error("%d messages that were not sent are counted: %s", len(messages), error.__cause__)
