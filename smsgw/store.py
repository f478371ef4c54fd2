"""The one database that plugins with a memory share: SQLite, or PostgreSQL where several machines do. Public.

A plugin asks for it in its ``includeme``, and says which tables it keeps there; they are made when they are first
needed, so that the gateway starts while the database is down. Needs the extra ``smsgw[store]``.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, MetaData, event
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from smsgw.model import ConfigurationError, Unavailable

WAIT = 5  # seconds for a connection, and for other processes' transactions to end
FILE = "store.sqlite3"  # in smsgw's own folder
TABLES = 0x736D7367  # PostgreSQL's advisory lock under which tables are made


class Store:
    """A database; shared by all threads, and by processes that fork from this one.

    :param url: SQLAlchemy's: ``sqlite:////PATH`` or ``postgresql://…``.
    :param is_durable: whether a commit to SQLite waits for the disk, so that a failing power cannot take it back.
    :raises ConfigurationError: it is no such URL, or its driver is not installed.
    """

    def __init__(self, url: str, *, is_durable: bool = False) -> None:
        self._url = _read(url)
        self._is_durable = is_durable
        self._tables: list[MetaData] = []
        self._made = 0
        self._making = threading.Lock()
        self._pid, self._engine = os.getpid(), self._create()

    def keep(self, tables: MetaData) -> None:
        """Let those tables be there in every transaction."""
        self._tables.append(tables)

    @contextlib.contextmanager
    def begin(self, *, is_reading: bool = False) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back where that raises.

        Unless it only reads, it keeps other writers out of SQLite from its beginning, so that it cannot fail for them.

        :raises Unavailable: the database is out of service.
        """
        try:
            engine = self._current()
            if is_reading:
                engine = engine.execution_options(**{BEGIN: "BEGIN"})
            with engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeout) as error:
            raise Unavailable("The gateway's database is out of service") from error

    def close(self) -> None:
        """Let go of all connections that are not in use."""
        self._engine.dispose()

    def _current(self) -> Engine:
        if self._pid != os.getpid():  # a connection is of one process
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        if self._made < len(self._tables):
            with self._making:
                self._make_tables()
        return self._engine

    def _make_tables(self) -> None:
        count = len(self._tables)
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({TABLES})")
            for tables in self._tables[:count]:
                tables.create_all(connection)
        self._made = count

    def _create(self) -> Engine:
        options: dict[str, Any] = {"hide_parameters": True, "pool_timeout": WAIT}
        try:
            if self._url.get_backend_name() == "sqlite":
                engine = sqlalchemy.create_engine(self._url, connect_args={"timeout": WAIT}, **options)
                _prepare_sqlite(engine, Path(self._url.database or ""), "FULL" if self._is_durable else "NORMAL")
                return engine
            milliseconds = WAIT * 1000
            arguments = {
                "connect_timeout": WAIT,
                "tcp_user_timeout": milliseconds,
                "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
            }
            return sqlalchemy.create_engine(self._url, connect_args=arguments, pool_pre_ping=True, **options)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"smsgw.store needs the module {error.name!r}; pip install 'smsgw[postgresql]'"
            ) from error


BEGIN = "smsgw_begin"  # an execution option: how a transaction on SQLite begins


def _read(url: str) -> URL:
    try:
        found = sqlalchemy.make_url(url)
    except ArgumentError:
        raise ConfigurationError("smsgw.store is no URL such as sqlite:////PATH or postgresql://HOST/NAME") from None
    if found.drivername == "postgresql":
        return found.set(drivername="postgresql+psycopg")
    if found.drivername != "sqlite":
        raise ConfigurationError("smsgw.store should begin with sqlite:// or postgresql://")
    if not (found.database or "").startswith("/"):
        raise ConfigurationError("smsgw.store needs an absolute path, as in sqlite:////var/lib/smsgw/store.sqlite3")
    return found


def _prepare_sqlite(engine: Engine, path: Path, synchronous: str) -> None:
    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own idea of when a transaction begins
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(BEGIN, "BEGIN IMMEDIATE"))

    def make_file(*_: Any) -> None:
        """Readable by nobody else; made by root, it is that of the folder's owner."""
        with contextlib.suppress(OSError):  # which connecting then tells
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if os.geteuid() == 0:
                    owner = os.stat(path.parent)
                    os.fchown(fd, owner.st_uid, owner.st_gid)
            finally:
                os.close(fd)

    event.listen(engine, "do_connect", make_file)
    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin)


def open_store(registry: Any, tables: MetaData) -> Store:
    """The application's store, with those tables in it.

    :param registry: the application's, or what a command of the command line is given (``smsgw.cli.Installation``).
    :raises ConfigurationError: ``smsgw.store`` is wrong.
    """
    store: Store | None = getattr(registry, "store", None)
    if store is None:
        store = registry.store = Store(registry.smsgw.store or f"sqlite:///{registry.layout.state / FILE}")
    store.keep(tables)
    return store
