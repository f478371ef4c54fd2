"""The table of counters, in the gateway's database: one row a limit and window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import BigInteger, CheckConstraint, Column, MetaData, Table, Text, text

from smsgw.store import WAIT, Statement, Store

from .limits import Claim, Key

TABLES = MetaData()
SCRIPTS = Path(__file__).parent / "migrations"
Table(
    "quota",
    TABLES,
    Column("name", Text, primary_key=True),  # as in the ini file: a userid, @group, or *
    Column("counted", Text, primary_key=True),  # such as parts/month
    Column("until", BigInteger, primary_key=True),  # when the window ends, in seconds (UTC)
    Column("used", BigInteger, nullable=False),
    Column("most", BigInteger, nullable=False),  # as the limit was when it was last counted
    CheckConstraint("used <= most", name="quota_is_left"),
    sqlite_with_rowid=False,
)

_ROW = "(:name{0}, :counted{0}, :until{0}, :used{0}, :most{0})"
_TAKE = """
INSERT INTO quota (name, counted, until, used, most) VALUES {}
ON CONFLICT (name, counted, until) DO UPDATE SET used = quota.used + excluded.used, most = excluded.most
"""
_READ = "SELECT used FROM quota WHERE name = :name AND counted = :counted AND until = :until"
_REDUCE = """
UPDATE quota SET used = used - :used
WHERE name = :name AND counted = :counted AND until = :until AND used >= :used
"""


class Rows:
    """The table in a store. Each method raises ``Unavailable`` where the database is out of service."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._takes: dict[int, Statement] = {}
        self._read = store.prepare(text(_READ))
        self._reduce = store.prepare(text(_REDUCE))
        self._delete = store.prepare(text("DELETE FROM quota WHERE until < :until"))

    def take(self, claims: Sequence[Claim]) -> None:
        """Take what all of them need, by one statement, which the table's constraint lets take all or nothing.

        :raises sqlalchemy.exc.IntegrityError: a limit has too little left, and nothing was taken.
        """
        values: dict[str, object] = {}
        for number, claim in enumerate(claims):
            name, counted = claim.limit.key
            values[f"name{number}"], values[f"counted{number}"] = name, counted
            values[f"until{number}"] = claim.until
            values[f"used{number}"], values[f"most{number}"] = claim.amount, claim.limit.most
        take = self._takes.get(len(claims)) or self._prepare(len(claims))
        take(**values)

    def left(self, claims: Sequence[Claim]) -> dict[Claim, int]:
        """How much there is left of what they claim from."""
        found: dict[Claim, int] = {}
        for claim in claims:
            name, counted, until = claim.key
            used = sum(row[0] for row in self._read(name=name, counted=counted, until=until))
            found[claim] = max(0, claim.limit.most - used)
        return found

    def reduce(self, amounts: Sequence[tuple[Key, int]]) -> None:
        """Take back so much of those counters."""
        with self._store.transaction():
            for (name, counted, until), amount in amounts:
                self._reduce(name=name, counted=counted, until=until, used=amount)

    def forget(self, until: int) -> None:
        """Remove the counters of windows that ended before."""
        self._delete(until=until)

    def _prepare(self, count: int) -> Statement:
        rows = ", ".join(_ROW.format(number) for number in range(count))
        found = self._takes[count] = self._store.prepare(text(_TAKE.format(rows)), wait=WAIT)
        return found
