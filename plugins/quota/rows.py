"""The table of counters, one row for each limit and window: in the gateway's database, and in a working copy of it.

A commit waits for the disk five times, as long as some sends take. So with SQLite counters are used in a file of their
own that waits for no disk, and are saved in the gateway's database every few seconds. The file outlives its processes,
but a power failure can break it. So its name has the id of this start of the machine: after another one nobody opens it
any more, and a new file begins with what was saved.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Connection, MetaData, Table, Text, event, insert, select

from smsgw.store import Store

TABLES = MetaData()
SCRIPTS = Path(__file__).parent / "migrations"
QUOTA = Table(
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

BOOT = Path("/proc/sys/kernel/random/boot_id")  # another one after each start of the machine; random(4)
NAME = "quota-{}.sqlite3"  # beside the gateway's database


def working_copy(store: Store) -> Store | None:
    """Where counters are used; ``None``: in the gateway's database itself, which is PostgreSQL."""
    if store.folder is None:
        return None
    tables = MetaData()
    table = QUOTA.to_metadata(tables)

    def begin_with_saved(_: Any, connection: Connection, **__: Any) -> None:
        """In the transaction in which one process makes the table.

        :raises Unavailable: nobody knows what was saved.
        """
        with store.begin(is_reading=True) as saved:
            rows = saved.execute(select(QUOTA)).mappings().all()
        if rows:
            connection.execute(insert(table), [dict(row) for row in rows])

    event.listen(table, "after_create", begin_with_saved)
    copy = Store(f"sqlite:///{_path(store.folder)}", is_durable=False)
    copy.keep(tables)
    return copy


def remove_old_copies(store: Store) -> None:
    """Remove those of before the machine's start."""
    if store.folder is not None:
        current = _path(store.folder).name
        for path in store.folder.glob(NAME.format("*") + "*"):
            if not path.name.startswith(current):
                with contextlib.suppress(OSError):
                    path.unlink()


def _path(folder: Path) -> Path:
    return folder / NAME.format(BOOT.read_text().strip())
