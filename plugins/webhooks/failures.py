"""What was given up, kept for who asks, and tried again for who says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, func, or_, select, update

from smsgw.store import Store

from .table import DELIVERIES


class Failures:
    """The deliveries that were given up. Each method raises ``Unavailable`` where the database is out of service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def counts(self, webhook: str) -> tuple[int, int]:
        """How many wait, and how many were given up."""
        column = DELIVERIES.c
        asked = select(func.count(column.due), func.count(column.failed))
        with self._store.begin(is_reading=True) as connection:
            found = connection.execute(
                asked.where(column.webhook == webhook, or_(column.due.is_not(None), column.failed.is_not(None)))
            ).one()
            return found[0], found[1]

    def page(self, webhook: str, before: int | None, limit: int) -> Sequence[Any]:
        """What was given up, the last events first: rows of the table.

        :param before: the number that a page begins after.
        """
        asked = select(DELIVERIES).where(DELIVERIES.c.webhook == webhook, DELIVERIES.c.failed.is_not(None))
        if before is not None:
            asked = asked.where(DELIVERIES.c.number < before)
        with self._store.begin(is_reading=True) as connection:
            return connection.execute(asked.order_by(DELIVERIES.c.number.desc()).limit(limit)).all()

    def replay(self, webhook: str, delivery: str | None, now: int) -> int:
        """Try again, from the beginning, what was given up: one, or all. How many these are."""
        given_up = and_(DELIVERIES.c.webhook == webhook, DELIVERIES.c.failed.is_not(None))
        if delivery is not None:
            given_up = and_(given_up, DELIVERIES.c.id == delivery)
        values = {"attempts": 0, "due": now, "error": None, "failed": None}
        with self._store.begin() as connection:
            return connection.execute(update(DELIVERIES).where(given_up).values(values)).rowcount
