"""Deliveries that failed: what the owner of a webhook is shown of them, and how they are tried again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, func, or_, select, update

from smsgw.store import Store

from .table import DELIVERIES, WEBHOOKS

SOME = 10000  # deliveries that are replayed in one transaction: others write to the database meanwhile

_column = DELIVERIES.c


class Failures:
    """The deliveries that failed. Each method raises ``Unavailable`` where the database is out of service.

    :param lease: milliseconds; what is due later than that is not being tried now.
    """

    def __init__(self, store: Store, lease: int) -> None:
        self._store = store
        self._lease = lease

    def counts(self, webhook: str) -> tuple[int, int]:
        """How many deliveries wait, and how many were given up."""
        asked = select(func.count(_column.due).label("waiting"), func.count(_column.failed).label("failed"))
        of_it = and_(_column.webhook == webhook, or_(_column.due.is_not(None), _column.failed.is_not(None)))
        (found,) = self._store.execute(asked.where(of_it))
        return found.waiting, found.failed

    def totals(self) -> tuple[int, int]:
        """How many deliveries wait, and how many were given up, of all webhooks."""
        waiting, failed = (  # each is found by an index that begins with the webhook, past what is delivered
            select(func.count())
            .select_from(DELIVERIES)
            .where(_column.webhook == WEBHOOKS.c.id, column.is_not(None))
            .scalar_subquery()
            for column in (_column.due, _column.failed)
        )
        sums = select(func.sum(waiting).label("waiting"), func.sum(failed).label("failed")).select_from(WEBHOOKS)
        (found,) = self._store.execute(sums)
        return int(found.waiting or 0), int(found.failed or 0)

    def last_error(self, webhook: str) -> str | None:
        """The error of the latest event that waits and was tried; ``None``: none of those that wait was tried."""
        asked = select(_column.error).where(
            _column.webhook == webhook, _column.due.is_not(None), _column.error.is_not(None)
        )
        rows = self._store.execute(asked.order_by(_column.number.desc()).limit(1))
        return rows[0].error if rows else None

    def page(self, webhook: str, before: int | None, limit: int) -> Sequence[Any]:
        """What was given up, the last events first: rows of the table.

        :param before: the number of the last row of the page before; ``None``: the first page.
        """
        asked = select(DELIVERIES).where(_column.webhook == webhook, _column.failed.is_not(None))
        if before is not None:
            asked = asked.where(_column.number < before)
        return self._store.execute(asked.order_by(_column.number.desc()).limit(limit))

    def replay(self, webhook: str, delivery: str | None, now: int) -> int:
        """Let all that failed, or one delivery, be tried again at once, with all attempts; the answer is how many.

        These are what was given up, and what waits for its next attempt. One that is due within a lease could be an
        attempt under way, and is left alone, unless only its first attempt has ended. Where the database fails
        meanwhile, some may have been replayed; the others can be replayed later.
        """
        waits = or_(_column.attempts == 1, _column.due > now + self._lease)
        is_waiting = and_(_column.error.is_not(None), _column.due.is_not(None), waits)
        has_failed = and_(_column.webhook == webhook, or_(_column.failed.is_not(None), is_waiting))
        if delivery is not None:
            has_failed = and_(has_failed, _column.id == delivery)
        values = {"attempts": 0, "due": now, "error": None, "failed": None}
        some = select(_column.number).where(has_failed).limit(SOME)
        replayed, more = 0, SOME
        while more == SOME:
            with self._store.begin() as connection:
                more = connection.execute(update(DELIVERIES).where(_column.number.in_(some)).values(values)).rowcount
            replayed += more
        return replayed
