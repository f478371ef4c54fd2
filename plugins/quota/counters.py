"""What has been used of each limit, in the gateway's database: one row a limit and window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import BigInteger, CheckConstraint, Column, MetaData, Table, Text, text
from sqlalchemy.exc import IntegrityError

from smsgw.store import WAIT, Statement, Store

from .limits import Claim

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


class Exhausted(Exception):
    """``left`` says how much those limits have left that have too little; nothing was taken of any."""

    def __init__(self, left: Mapping[Claim, int]) -> None:
        super().__init__(left)
        self.left = left


class Counters:
    """Counters in a store, exact over all threads and processes that share it.

    All that a submission claims is taken by one statement, which the table's constraint lets take all or nothing.
    Claims come sorted by the keys of their limits, so that on PostgreSQL nobody waits for one who waits for them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._takes: dict[int, Statement] = {}
        self._read = store.prepare(text(_READ))
        self._reduce = store.prepare(text(_REDUCE))
        self._delete = store.prepare(text("DELETE FROM quota WHERE until < :until"))

    def take(self, claims: Sequence[Claim]) -> None:
        """Take what all of them need.

        :raises Exhausted: a limit has too little left, and nothing was taken.
        :raises Unavailable: the database is out of service, and nothing was taken.
        """
        values: dict[str, object] = {}
        for number, claim in enumerate(claims):
            name, counted = claim.limit.key
            values[f"name{number}"], values[f"counted{number}"] = name, counted
            values[f"until{number}"] = claim.until
            values[f"used{number}"], values[f"most{number}"] = claim.amount, claim.limit.most
        take = self._takes.get(len(claims)) or self._prepare(len(claims))
        while True:
            try:
                take(**values)
                return
            except IntegrityError:
                left = {claim: rest for claim, rest in self.left(claims).items() if rest < claim.amount}
                if left:  # still: somebody may just have given back
                    raise Exhausted(left) from None

    def left(self, claims: Sequence[Claim]) -> dict[Claim, int]:
        """How much there is left of what they claim from.

        :raises Unavailable: the database is out of service.
        """
        found: dict[Claim, int] = {}
        for claim in claims:
            used = sum(row[0] for row in self._read(**_row(claim)))
            found[claim] = max(0, claim.limit.most - used)
        return found

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Take back so much of what was taken, in the same windows.

        :raises Unavailable: the database is out of service.
        """
        with self._store.transaction():
            for claim in claims:
                self._reduce(**_row(claim), used=claim.amount)

    def forget(self, until: int) -> None:
        """Remove the counters of windows that ended before.

        :raises Unavailable: the database is out of service.
        """
        self._delete(until=until)

    def _prepare(self, count: int) -> Statement:
        rows = ", ".join(_ROW.format(number) for number in range(count))
        found = self._takes[count] = self._store.prepare(text(_TAKE.format(rows)), wait=WAIT)
        return found


def _row(claim: Claim) -> dict[str, object]:
    name, counted = claim.limit.key
    return {"name": name, "counted": counted, "until": claim.until}
