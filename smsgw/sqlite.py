"""SQLite, set up so that what is committed is on disk, and a full disk does not end the process. For the store.

The journal mode is ``PERSIST``: a rollback journal that stays beside the file between transactions. Processes share no
memory. In WAL mode they do: SQLite maps the file ``-shm``, which may have holes, and when a full disk has no block for
one, the kernel ends the process by SIGBUS.

``synchronous`` is ``FULL``: so a commit is on disk when it returns, and nothing breaks the file when the power fails
(https://sqlite.org/pragma.html#pragma_synchronous). ``EXTRA`` adds a sync of the folder after a journal was deleted; in
mode ``PERSIST`` none is deleted, and SQLite syncs the zeros that it writes over the journal's beginning.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Engine, event
from sqlalchemy.exc import DisconnectionError

LOCKED = 5.0  # seconds to wait for other processes' transactions
LEFTOVER = 1024 * 1024  # bytes of the journal that stay between transactions


def make_engine(url: URL, *, is_durable: bool) -> Engine:
    """An engine that opens whatever file has that name now. Transactions are begun by ``BEGIN`` statements.

    :param is_durable: whether a commit waits for the disk. Without it a power failure can break the file; the end of a
        process cannot.
    """
    path = Path(url.database or "")
    settings = {
        "journal_mode": "PERSIST",
        "journal_size_limit": LEFTOVER,
        "synchronous": "FULL" if is_durable else "OFF",
        "foreign_keys": "ON",
    }
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": LOCKED}, hide_parameters=True)

    def before(_: Any, record: Any, *__: Any) -> None:
        _make_file(path)
        record.info["file"] = _file(path)

    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions by itself
        for name, value in settings.items():
            connection.execute(f"PRAGMA {name} = {value}")

    def check(_: Any, record: Any, __: Any) -> None:
        if record.info["file"] != _file(path):  # SQLite would go on with the old one
            raise DisconnectionError(f"there is another file at {path}")

    event.listen(engine, "do_connect", before)
    event.listen(engine, "connect", set_up)
    event.listen(engine, "checkout", check)
    return engine


def is_locked(error: BaseException | None) -> bool:
    """Whether another process has locked the file for too long."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_corrupt(error: BaseException | None) -> bool:
    """Whether the file cannot be read as a database any more."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code; 0: it is no error of SQLite."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _make_file(path: Path) -> None:
    """Make the file, if there is none: readable by nobody else, and, made by root, the folder's owner's."""
    with contextlib.suppress(OSError):  # SQLite will say what is wrong
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.geteuid() == 0:
                owner = os.stat(path.parent)
                os.fchown(fd, owner.st_uid, owner.st_gid)
        finally:
            os.close(fd)


def _file(path: Path) -> tuple[int, int] | None:
    """Which file that is; ``None``: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
