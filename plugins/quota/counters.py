"""How much was used of each limit: one row for each limit and window, exact over all threads and processes.

A durable commit takes about as long as a send. So with SQLite the counters are used in a file of their own, whose
commits do not wait for the disk, and the gateway's database gets a copy of them every few seconds. The end of a process
cannot break that file, but a power failure can. Its name has the id of this start of the machine. So after the next
start nobody opens it again: a new file begins with what the gateway's database has.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Connection, Row, Table
from sqlalchemy.exc import IntegrityError

from smsgw.store import Store

from .limits import Claim

TABLES = sa.MetaData()
SCRIPTS = Path(__file__).parent / "migrations"
QUOTA = Table(
    "quota",
    TABLES,
    Column("name", sa.Text, primary_key=True),  # as in the ini file: a userid, @group, or *
    Column("counted", sa.Text, primary_key=True),  # such as parts/month
    Column("until", sa.BigInteger, primary_key=True),  # when the window ends, in seconds since 1970 (UTC)
    Column("used", sa.BigInteger, nullable=False),
    Column("most", sa.BigInteger, nullable=False),  # as the limit was when it was last counted
    sa.CheckConstraint("used <= most", name="quota_is_left"),
    sqlite_with_rowid=False,
)

BOOT = Path("/proc/sys/kernel/random/boot_id")  # another one after each start of the machine; random(4)
NAME = "quota-{}.sqlite3"  # beside the gateway's database

# The table's constraint refuses what would exceed a limit, and with it the whole statement.
TAKE = """
INSERT INTO quota (name, counted, until, used, most) VALUES {}
ON CONFLICT (name, counted, until) DO UPDATE SET used = quota.used + excluded.used, most = excluded.most
"""
GIVE_BACK = sa.text("""
UPDATE quota SET used = used - :amount
WHERE name = :name AND counted = :counted AND until = :until AND used >= :amount
""")
USED = sa.text("SELECT used FROM quota WHERE name = :name AND counted = :counted AND until = :until")
ALL = sa.select(QUOTA).order_by(*QUOTA.primary_key)


class Exhausted(Exception):
    """Nothing was taken. ``left`` says how much is left of those limits that have too little."""

    def __init__(self, left: Mapping[Claim, int]) -> None:
        super().__init__(left)
        self.left = left


class Counters:
    """Each method raises ``Unavailable`` where the database is out of service, and has then changed nothing.

    Claims come sorted by the keys of their limits. So on PostgreSQL no two transactions wait for each other.

    :param store: the gateway's database.
    :ivar used: the database in which counters are used: with SQLite the file of this start of the machine.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._saved: Sequence[Row[Any]] | None = None
        self.used = store if store.folder is None else _open_file(store, store.folder)

    def take(self, claims: Sequence[Claim]) -> None:
        """Take what all of them need.

        :raises Exhausted: a limit has too little left.
        """
        rows = enumerate(_parameters(claims))
        values = {f"{name}{number}": value for number, row in rows for name, value in row.items()}
        while True:
            with contextlib.suppress(IntegrityError):
                self.used.execute(_take(len(claims)), values)
                return
            left = {claim: rest for claim, rest in self.left(claims).items() if rest < claim.amount}
            if left:  # otherwise somebody has just given back
                raise Exhausted(left)

    def left(self, claims: Sequence[Claim]) -> dict[Claim, int]:
        """How much is left of the limits that they claim from."""
        if not claims:
            return {}
        with self.used.begin(is_reading=True) as connection:
            used = [connection.scalar(USED, each) or 0 for each in _parameters(claims)]
        return {claim: max(0, claim.limit.most - each) for claim, each in zip(claims, used, strict=True)}

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Give back these amounts, in the same windows."""
        with self.used.begin() as connection:
            connection.execute(GIVE_BACK, _parameters(claims))

    def clean(self, until: int) -> None:
        """Remove the counters of windows that ended before that time (seconds, UTC)."""
        with self.used.begin() as connection:
            connection.execute(sa.delete(QUOTA).where(QUOTA.c.until < until))

    def save(self) -> None:
        """Copy the counters to the gateway's database, if they are used elsewhere and have changed."""
        if self.used is self._store:
            return
        with self.used.begin(is_reading=True) as connection:
            rows = connection.execute(ALL).all()
        if rows != self._saved:
            with self._store.begin() as connection:
                connection.execute(sa.delete(QUOTA))
                _insert(connection, QUOTA, rows)
            self._saved = rows

    def remove_old_files(self) -> None:
        """Remove the files of earlier starts of the machine."""
        if self.used.path is not None:
            for path in self.used.path.parent.glob(NAME.format("*") + "*"):
                if not path.name.startswith(self.used.path.name):
                    with contextlib.suppress(OSError):
                        path.unlink()


def _open_file(store: Store, folder: Path) -> Store:
    """The file of this start of the machine."""
    tables = sa.MetaData()
    table = QUOTA.to_metadata(tables)

    def begin_with_saved(_: Any, connection: Connection, **__: Any) -> None:
        """In the transaction in which one process makes the table.

        :raises Unavailable: the gateway's database is out of service.
        """
        with store.begin(is_reading=True) as saved:
            rows = saved.execute(ALL).all()
        _insert(connection, table, rows)

    sa.event.listen(table, "after_create", begin_with_saved)
    found = Store(f"sqlite:///{folder / NAME.format(BOOT.read_text().strip())}", is_durable=False)
    found.keep(tables)
    return found


def _insert(connection: Connection, table: Table, rows: Sequence[Row[Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), [row._asdict() for row in rows])


@functools.cache
def _take(count: int) -> sa.TextClause:
    """The statement that takes from so many counters. SQLAlchemy takes longer to read it than SQLite to run it."""
    row = "(:name{0}, :counted{0}, :until{0}, :amount{0}, :most{0})"
    return sa.text(TAKE.format(", ".join(map(row.format, range(count)))))


def _parameters(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """The parameters of these statements for each claim."""
    return [
        {
            "name": claim.limit.name,
            "counted": claim.limit.unit,
            "until": claim.until,
            "amount": claim.amount,
            "most": claim.limit.most,
        }
        for claim in claims
    ]
