"""How much was used of each limit, exact over all threads and processes that share the database."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause, delete, insert, select, text
from sqlalchemy.exc import IntegrityError

from smsgw.store import Store

from .limits import Claim
from .rows import QUOTA, working_copy

# The table's constraint refuses what would exceed a limit, and with it the whole statement.
TAKE = """
INSERT INTO quota (name, counted, until, used, most) VALUES {}
ON CONFLICT (name, counted, until) DO UPDATE SET used = quota.used + excluded.used, most = excluded.most
"""
ROW = "(:name{0}, :counted{0}, :until{0}, :amount{0}, :most{0})"  # of each limit
GIVE_BACK = text("""
UPDATE quota SET used = used - :amount
WHERE name = :name AND counted = :counted AND until = :until AND used >= :amount
""")
USED = text("SELECT used FROM quota WHERE name = :name AND counted = :counted AND until = :until")
ALL = select(QUOTA).order_by(*QUOTA.primary_key)


class Exhausted(Exception):
    """``left`` says how much those limits have left that have too little; nothing was taken of any."""

    def __init__(self, left: Mapping[Claim, int]) -> None:
        super().__init__(left)
        self.left = left


class Counters:
    """Each method raises ``Unavailable`` where the database is out of service, and has then changed nothing.

    Claims come sorted by the keys of their limits: on PostgreSQL nobody waits for one who waits for them.

    :param store: the gateway's database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._working = working_copy(store) or store

    def take(self, claims: Sequence[Claim]) -> None:
        """Take what all of them need.

        :raises Exhausted: a limit has too little left, and nothing was taken.
        """
        while True:
            with contextlib.suppress(IntegrityError):
                self._working.execute(*_taking(claims))
                return
            left = {claim: rest for claim, rest in self.left(claims).items() if rest < claim.amount}
            if left:  # otherwise somebody has just given back
                raise Exhausted(left)

    def left(self, claims: Sequence[Claim]) -> dict[Claim, int]:
        """How much there is left of what they claim from."""
        if not claims:
            return {}
        with self._working.begin(is_reading=True) as connection:
            used = [connection.scalar(USED, each) or 0 for each in _parameters(claims)]
        return {claim: max(0, claim.limit.most - each) for claim, each in zip(claims, used, strict=True)}

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Take back so much of what was taken, in the same windows."""
        with self._working.begin() as connection:
            connection.execute(GIVE_BACK, _parameters(claims))

    def forget(self, until: int) -> None:
        """Remove the counters of windows that ended before."""
        with self._working.begin() as connection:
            connection.execute(delete(QUOTA).where(QUOTA.c.until < until))

    def save(self) -> None:
        """Let the gateway's database have what the working copy has, if there is one."""
        if self._working is self._store:
            return
        with self._working.begin(is_reading=True) as connection:
            rows = connection.execute(ALL).mappings().all()
        with self._store.begin(is_reading=True) as connection:
            is_saved = connection.execute(ALL).mappings().all() == rows
        if not is_saved:
            with self._store.begin() as connection:
                connection.execute(delete(QUOTA))
                if rows:
                    connection.execute(insert(QUOTA), [dict(row) for row in rows])


def _taking(claims: Sequence[Claim]) -> tuple[TextClause, dict[str, Any]]:
    """The statement that takes what all of them need, or nothing, and its parameters."""
    rows = ", ".join(ROW.format(number) for number in range(len(claims)))
    values = {f"{name}{n}": value for n, row in enumerate(_parameters(claims)) for name, value in row.items()}
    return text(TAKE.format(rows)), values


def _parameters(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Those of the statements above, of each limit."""
    names = ("name", "counted", "until", "amount", "most")
    return [dict(zip(names, (*claim.key, claim.amount, claim.limit.most), strict=True)) for claim in claims]
