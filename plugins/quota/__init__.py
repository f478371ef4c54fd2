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
from smsgw.store import Store, open_store

from . import refusal
from .counters import Counters, Exhausted
from .limits import Claim, Limit, read, window
from .rows import SCRIPTS, TABLES, remove_old_copies

DAY = 24 * 3600  # seconds for which old counters are kept: a clock that is set back by less opens no limit again
SAVED = 5  # seconds after which what was counted outlives a start of the machine

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
        self._windows: dict[str, tuple[int, int]] = {}
        self._store: Store
        self._counters: Counters

    def includeme(self, config: Configurator) -> None:
        self._store = open_store(config.registry, TABLES, SCRIPTS)
        self._counters = Counters(self._store)

    @hookimpl(wrapper=True)
    def deliver(self, submission: Submission) -> Generator[None, Delivered, Delivered]:
        claims = self._claims(submission)
        if not claims:
            return (yield)
        self._take(claims)
        try:
            delivered = yield
        except BaseException:
            self._give_back(claims, submission.messages)
            raise
        if len(delivered) < len(submission.messages):
            sent = {message.id for message in delivered}
            self._give_back(claims, [message for message in submission.messages if message.id not in sent])
        return delivered

    @hookimpl
    def limits(self, identity: Identity) -> list[Allowance]:
        """
        :raises Unavailable: the database is out of service.
        """
        left = self._counters.left(self._claims(Submission(identity, ())))
        return [
            Allowance(
                str(claim.limit), claim.limit.counted, claim.limit.most, rest, datetime.fromtimestamp(claim.until, UTC)
            )
            for claim, rest in left.items()
        ]

    @hookimpl
    def background(self, stop: threading.Event) -> None:
        remove_old_copies(self._store)
        is_broken = False
        while True:
            try:
                self._counters.forget(math.floor(self._clock()) - DAY)
                self._counters.save()
                is_broken = False
            except Unavailable as error:
                if not is_broken:
                    log.warning("counters cannot be saved now: %s", error.__cause__)
                is_broken = True
            if stop.wait(SAVED):
                return

    def _claims(self, submission: Submission) -> list[Claim]:
        """What the submission needs of each limit that applies, sorted."""
        limits = [limit for name in submission.identity.names for limit in self._limits.get(name, ())]
        if not limits:
            return []
        now = self._clock()
        limits.sort(key=attrgetter("name", "counted", "period"))
        return [Claim(limit, *self._window(limit, now), limit.amount(submission.messages)) for limit in limits]

    def _window(self, limit: Limit, now: float) -> tuple[int, int]:
        begin, until = self._windows.get(limit.period, (0, 0))
        if not begin <= now < until:
            begin, until = self._windows[limit.period] = window(limit.period, now, self._zone)
        return begin, until

    def _take(self, claims: Sequence[Claim]) -> None:
        """:raises TooMany: a limit would be exceeded, and nothing was taken."""
        if never := [claim for claim in claims if claim.amount > claim.limit.most]:
            raise refusal.too_large(claims, self._counters.left(never), self._clock())
        try:
            self._counters.take(claims)
        except Exhausted as exhausted:
            raise refusal.exhausted(claims, exhausted.left, self._clock(), self._zone) from None

    def _give_back(self, claims: Sequence[Claim], messages: Sequence[Message]) -> None:
        if not messages:
            return
        try:
            self._counters.give_back([replace(claim, amount=claim.limit.amount(messages)) for claim in claims])
        except Unavailable as error:  # they count until their windows end, which is on the safe side
            log.error("%d messages that were not sent are counted: %s", len(messages), error.__cause__)
