"""What was given up, kept for who asks; it, and what waits after a failed attempt, is tried again for who says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, func, or_, select, update

from smsgw.store import Store

from .table import DELIVERIES

SOME = 10000  # deliveries that are replayed in one transaction: others write to the database, too

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
        asked = select(func.count(_column.due), func.count(_column.failed))
        of_it = and_(_column.webhook == webhook, or_(_column.due.is_not(None), _column.failed.is_not(None)))
        with self._store.begin(is_reading=True) as connection:
            found = connection.execute(asked.where(of_it)).one()
            return found[0], found[1]

    def last_error(self, webhook: str) -> str | None:
        """Why the latest event that waits was not taken; ``None``: no attempt for those that wait has ended."""
        asked = select(_column.error).where(
            _column.webhook == webhook, _column.due.is_not(None), _column.error.is_not(None)
        )
        with self._store.begin(is_reading=True) as connection:
            return connection.execute(asked.order_by(_column.number.desc()).limit(1)).scalar_one_or_none()

    def page(self, webhook: str, before: int | None, limit: int) -> Sequence[Any]:
        """What was given up, the last events first: rows of the table.

        :param before: the number that a page begins after.
        """
        asked = select(DELIVERIES).where(_column.webhook == webhook, _column.failed.is_not(None))
        if before is not None:
            asked = asked.where(_column.number < before)
        with self._store.begin(is_reading=True) as connection:
            return connection.execute(asked.order_by(_column.number.desc()).limit(limit)).all()

    def replay(self, webhook: str, delivery: str | None, now: int) -> int:
        """Try again at once, from the beginning, what failed: one, or all. How many these are.

        That is what was given up, and what waits for another attempt for longer than a lease. Where the database fails
        meanwhile, some may have been replayed; the others still can be.
        """
        is_waiting = and_(_column.error.is_not(None), _column.due > now + self._lease)
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
