"""Where the journal lies with SQLite: a folder of its own, which is put aside as a whole when a file in it is broken.

Whoever finds it broken leaves a mark in it. The process that owns the spool puts it aside, and a new one is made from
the spool. With PostgreSQL there is nothing of that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from smsgw.journal.tables import SCRIPTS, TABLES, Broken
from smsgw.model import Unavailable
from smsgw.store import Store, Stores, is_broken

NAME = "journal"  # of the folder
MARK = "broken"
SOON = 10.0  # seconds in which others may still be at the one that was put aside, and take it for the new one

log = logging.getLogger(__name__)


class Database:
    """The journal's database; shared by all threads."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: committed at the end of the block, undone where that raises.

        :raises Unavailable: the database is out of service, and nothing was done.
        """
        self._make_folder()
        with self._watched():
            try:
                with self.store.begin() as connection:
                    yield connection
            except IntegrityError as error:  # which nothing that is written here can be
                raise Broken("a constraint does not hold") from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads, and sees one state.

        :raises Unavailable: the database is out of service.
        """
        with self._watched(), self.store.begin(is_reading=True) as connection:
            yield connection

    def analyze(self) -> None:
        """Let PostgreSQL know what is in the tables now, so that it asks the right indexes; SQLite needs none of that.

        :raises Unavailable: the database is out of service.
        """
        if self.store.path is None:
            for table in TABLES.tables:
                with self.writing() as connection:
                    connection.exec_driver_sql(f"ANALYZE {table}")

    def heal(self) -> bool:
        """Put a broken file aside, so that a new one begins; whether there was one."""
        folder = self.store.folder
        if folder is None or not (folder / MARK).exists():
            return False
        aside = folder.with_name(f"{folder.name}.{MARK}")
        if aside.exists() and abs(time.time() - aside.stat().st_mtime) < SOON:
            (folder / MARK).unlink()
            return False
        shutil.rmtree(aside, ignore_errors=True)
        os.utime(folder)
        os.rename(folder, aside)
        log.error("the journal was broken; it lies in %s now, and a new one is made from the spool", aside)
        return True

    def _make_folder(self) -> None:
        if self.store.folder is not None:
            with contextlib.suppress(OSError):  # which writing then tells
                os.mkdir(self.store.folder, 0o700)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Leave a mark where the block finds the file broken.

        :raises Unavailable: it does, or the database is out of service.
        """
        try:
            yield
        except Broken as error:
            self._mark()
            raise Unavailable("The gateway's journal is broken") from error
        except Unavailable as error:
            if is_broken(error):
                self._mark()
            raise Unavailable("The gateway's journal is out of service") from (error.__cause__ or error)

    def _mark(self) -> None:
        if self.store.folder is not None:
            with contextlib.suppress(OSError):  # there is the next one who finds it broken
                Path(self.store.folder / MARK).touch()


def open_database(stores: Stores) -> Database:
    """The journal's database, among those of an application."""
    return Database(stores.open_own(NAME, TABLES, SCRIPTS))
