"""What is to be delivered: a row for each event and webhook.

Who tries to deliver a row leases it: until then nobody else tries. So processes share the work. The lease of a process
that has died runs out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import and_, bindparam, delete, exists, func, or_, select, text, update

from smsgw.store import Store

from .table import DELIVERIES, WEBHOOKS, Webhook, webhook_of

MARGIN = 15.0  # seconds by which a lease is longer than an attempt
# Seconds for which failures are kept, and for which an event that is told again is known to have been delivered.
KEPT = 30 * 24 * 3600
LONGEST = 27 * 3600  # seconds: no attempt waits longer for its time

_ADD = text(
    "INSERT INTO webhooks_deliveries (id, webhook, type, message, body, attempts, due)"
    " VALUES (:id, :webhook, :type, :message, :body, 0, :due) ON CONFLICT (id) DO NOTHING"
)

_due = (
    select(DELIVERIES.c.number, DELIVERIES.c.webhook, DELIVERIES.c.message)
    .where(DELIVERIES.c.webhook == bindparam("of"), DELIVERIES.c.due <= bindparam("now"))
    .order_by(DELIVERIES.c.due)
    .with_for_update(skip_locked=True)  # which SQLite, with one writer at a time, does without
    .cte("due")
)
# Of one message, what comes later waits until the first attempt of what came before has ended, which until then has a
# body and no error. It is counted for one after the other, by the index of messages alone: whatever PostgreSQL expects
# to find, it must not join all that is due with all that waits.
_before = (
    select(func.count())
    .where(
        DELIVERIES.c.webhook == _due.c.webhook,
        DELIVERIES.c.message == _due.c.message,
        DELIVERIES.c.number < _due.c.number,
        DELIVERIES.c.body != "",
        DELIVERIES.c.error.is_(None),
    )
    .correlate(_due)
    .scalar_subquery()
)
_taken = select(_due.c.number).where(_before == 0).limit(bindparam("count")).cte("taken")
_TAKE = (
    update(DELIVERIES)
    .where(DELIVERIES.c.number.in_(select(_taken.c.number)))
    .values(due=bindparam("until"), attempts=DELIVERIES.c.attempts + 1)
    .returning(*(DELIVERIES.c[name] for name in ("number", "id", "body", "attempts")))
)
_WITH_DUE = select(WEBHOOKS).where(
    exists().where(DELIVERIES.c.webhook == WEBHOOKS.c.id, DELIVERIES.c.due <= bindparam("now"))
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One that is being tried, for the ``attempts``-th time."""

    number: int
    id: str
    body: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended; ``error`` is ``None`` where it was delivered, ``due`` is the next one, or ``None``."""

    delivery: Delivery
    error: str | None
    due: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as one webhook shall hear of it."""

    id: str
    webhook: str
    type: str
    message: str
    body: str


class Outbox:
    """The table of deliveries; times are in milliseconds since 1970 (UTC).

    Each method raises ``Unavailable`` where the database is out of service.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, entries: Sequence[Entry], now: int) -> None:
        """Note what webhooks shall hear of, all of it or nothing; what was noted before stays as it is.

        :raises sqlalchemy.exc.IntegrityError: a webhook is there no more.
        """
        rows = [asdict(entry) | {"due": now} for entry in entries]
        with self._store.begin() as connection:
            connection.execute(_ADD, rows)

    def settle(self, ended: Sequence[Ended], now: int) -> None:
        """Note how attempts ended."""
        if ended:
            with self._store.begin() as connection:
                for each in ended:
                    connection.execute(_settled(each, now))

    def webhooks(self, now: int) -> list[Webhook]:
        """The webhooks for which something is due."""
        return list(map(webhook_of, self._store.execute(_WITH_DUE, {"now": now})))

    def take(self, webhook: str, count: int, now: int, until: int) -> list[Delivery]:
        """Lease what is due for a webhook until that time, at most so much; in the order of events."""
        rows = self._store.execute(_TAKE, {"of": webhook, "now": now, "until": until, "count": count})
        return [Delivery(**row._asdict()) for row in sorted(rows, key=lambda row: row.number)]

    def give_back(self, deliveries: Iterable[Delivery], now: int) -> None:
        """End the leases of attempts that did not end, and do not count these attempts."""
        with self._store.begin() as connection:
            for each in deliveries:
                values = {"due": now, "attempts": each.attempts - 1}
                connection.execute(update(DELIVERIES).where(_is_still(each)).values(values))

    def give_up(self, webhook: str, error: str, now: int) -> None:
        """All that waits for a webhook has failed."""
        waiting = update(DELIVERIES).where(DELIVERIES.c.webhook == webhook, DELIVERIES.c.due.is_not(None))
        self._store.execute(waiting.values(due=None, error=error, failed=now))

    def correct(self, now: int) -> None:
        """Mend times that were noted while the clock was ahead."""
        late, seconds = DELIVERIES.c.due > now + LONGEST * 1000, now // 1000
        with self._store.begin() as connection:
            connection.execute(update(DELIVERIES).where(late).values(due=now))
            connection.execute(update(WEBHOOKS).where(WEBHOOKS.c.created > seconds).values(created=seconds))
            connection.execute(update(WEBHOOKS).where(WEBHOOKS.c.signed_in > now).values(signed_in=now))

    def remove_old(self, now: int) -> None:
        """Remove what was delivered, or failed, so long ago."""
        until = now - KEPT * 1000
        self._store.execute(
            delete(DELIVERIES).where(or_(DELIVERIES.c.delivered < until, DELIVERIES.c.failed < until)), {}
        )


def _is_still(delivery: Delivery) -> Any:
    """Whether the lease is still that attempt's: it may have run out, and somebody else may have taken the row."""
    column = DELIVERIES.c
    return and_(column.number == delivery.number, column.attempts == delivery.attempts, column.due.is_not(None))


def _settled(ended: Ended, now: int) -> Any:
    if ended.error is None:
        whatever_others_do = DELIVERIES.c.number == ended.delivery.number
        values = {"body": "", "due": None, "error": None, "delivered": now, "failed": None}
        return update(DELIVERIES).where(whatever_others_do).values(values)
    failed = now if ended.due is None else None
    values = {"due": ended.due, "error": ended.error, "failed": failed}
    return update(DELIVERIES).where(_is_still(ended.delivery)).values(values)
