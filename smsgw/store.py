"""The gateway's one database: SQLite, or PostgreSQL where several machines share it. Public.

A plugin opens it in its ``includeme`` (``open_store``) and says which tables it keeps there. The tables are made, or
brought to the latest version (``smsgw.migrations``), when they are first used: the gateway starts while the database is
down.

``smsgw.sqlite`` and ``smsgw.postgresql`` set SQLAlchemy up.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy
from pyramid.registry import Registry
from sqlalchemy import URL, Connection, Engine, Executable, MetaData, Row, event
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from smsgw import migrations, sqlite
from smsgw.model import ConfigurationError, Unavailable
from smsgw.settings import pip_install

FILE = "store.sqlite3"  # in smsgw's own folder
WAIT = 8.0  # seconds for other threads of this process that use SQLite: longer than one of them waits for its locks
LONG = 1.0  # seconds: a database that fails after a longer time hangs
AVOIDED = 5.0  # seconds in which it is not tried again then
TABLES = 0x736D7367  # PostgreSQL's advisory lock under which tables are made


class Store:
    """A database, shared by all threads of this process and by processes that fork from it.

    :param url: SQLAlchemy's: ``sqlite:////PATH`` or ``postgresql://…``.
    :param is_durable: whether a commit to SQLite waits for the disk. Without it a power failure can break the file.
    :raises ConfigurationError: it is no such URL, or its driver is not installed.
    """

    def __init__(self, url: str | URL, *, is_durable: bool = True) -> None:
        self._url = _read(url) if isinstance(url, str) else url
        self._tables: list[tuple[MetaData, Path | None]] = []
        self._is_durable = is_durable
        self._engine = _make_engine(self._url, is_durable=is_durable)
        self._breaker = _Breaker()
        # Waiting for SQLite's locks is polling, so threads of one process wait for this lock instead. No thread may
        # have a lock of SQLite while the process forks.
        self._turn = threading.Lock() if self.path else None
        self._is_forking = False
        _watch_forks(self)

    def keep(self, tables: MetaData, scripts: Path | None = None) -> None:
        """Have these tables in every transaction.

        :param scripts: the folder of the migrations that make them; ``None``: they never change.
        """
        self._tables.append((tables, scripts))

    @property
    def name(self) -> str:
        """SQLite's file, or PostgreSQL's ``host/database``: for people, and without a password."""
        host = self._url.host or self._url.query.get("host") or ""
        return str(self.path or f"{host}/{self._url.database or ''}")

    @property
    def path(self) -> Path | None:
        """SQLite's file; ``None`` with PostgreSQL."""
        return Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None

    @property
    def folder(self) -> Path | None:
        """The folder of SQLite's file; ``None`` with PostgreSQL."""
        return self.path.parent if self.path else None

    @contextlib.contextmanager
    def begin(self, *, is_reading: bool = False) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back where the block raises.

        A writing transaction on SQLite keeps out other writers from its beginning. A reading one sees nothing of what
        others commit meanwhile. Keep both short, and begin no second one within the block: with SQLite the other
        threads of the process wait, and no other process can commit while one reads.

        :raises IntegrityError: a statement breaks a constraint.
        :raises Unavailable: the database is out of service.
        """
        with self._connect() as connection, _transaction(connection, is_reading=is_reading):
            yield connection

    def execute(self, statement: Executable, parameters: dict[str, Any] | None = None) -> Sequence[Row[Any]]:
        """The rows of one statement by itself, which is a transaction of its own: in fewer steps than ``begin``.

        :raises IntegrityError: it breaks a constraint.
        :raises Unavailable: the database is out of service.
        """
        with self._connect() as connection:
            if self.path is None:
                connection.execution_options(isolation_level="AUTOCOMMIT")
            with connection.begin():
                result = connection.execute(statement, parameters)
                return result.all() if result.returns_rows else []

    @contextlib.contextmanager
    def _connect(self) -> Iterator[Connection]:
        """A connection to a database that has all tables.

        :raises Unavailable: the database is out of service.
        """
        begun = self._breaker.enter()
        in_vain: BaseException | None = None
        try:
            with self._alone(), self._engine.connect() as connection, _closed_when_it_fails(connection):
                self._make_tables(connection)
                yield connection
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeout, PendingRollbackError) as error:
            cause: BaseException = getattr(error, "orig", None) or error  # without the statement
            in_vain = None if _is_answer(cause) else cause
            raise unavailable() from cause
        finally:
            self._breaker.leave(begun, in_vain)

    def wait_longer(self, seconds: float) -> None:
        """Wait for other processes' transactions with SQLite for so long: for a command that has the time."""
        if self.path is not None:
            wait = f"PRAGMA busy_timeout = {int(seconds * 1000)}"
            event.listen(self._engine, "connect", lambda made, _: made.execute(wait), insert=True)

    def close(self) -> None:
        """Close all connections. No thread may be using one."""
        self._engine.dispose()

    def before_fork(self) -> None:
        """Close SQLite's connections: a child may inherit none (https://sqlite.org/howtocorrupt.html, 2.6)."""
        if self._turn is not None and self._turn.acquire(timeout=4 * WAIT):
            self._is_forking = True
            self._engine.dispose()

    def after_fork_in_parent(self) -> None:
        if self._turn is not None and self._is_forking:
            self._is_forking = False  # first: another thread that forks may have the turn as soon as it is released
            self._turn.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: another thread of the parent may have been setting up the engine."""
        self._engine = _make_engine(self._url, is_durable=self._is_durable)
        self._turn = threading.Lock() if self._turn is not None else None
        self._breaker = _Breaker()
        self._is_forking = False

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other thread of this process uses SQLite."""
        turn = self._turn
        if turn is None:
            yield
            return
        if not turn.acquire(timeout=WAIT):
            raise PoolTimeout(f"other threads have used the database for {WAIT:g} seconds")
        try:
            yield
        finally:
            turn.release()

    def _make_tables(self, connection: Connection) -> None:
        """Make what is missing of the tables, once for each connection: any may be the first to a new database.

        :raises Unavailable: they are of a version that is not known here.
        """
        kept = list(self._tables)
        if connection.info.get("tables") == len(kept):
            return
        with _transaction(connection, is_reading=True):
            is_current = _are_current(connection, kept)
        if not is_current:
            migrations.load()
            try:
                with _transaction(connection):
                    _upgrade(connection, kept)
            except ConfigurationError as error:
                raise unavailable() from error
        connection.info["tables"] = len(kept)


class _Breaker:
    """Fails at once while the database hangs.

    Otherwise each request would hold its thread for seconds, and a few requests would hold all threads.
    """

    def __init__(self) -> None:
        self._until = 0.0  # until when the database is not tried; 0: it does not hang
        self._cause: BaseException | None = None

    def enter(self) -> float:
        """:raises Unavailable: the database hangs."""
        now = time.monotonic()
        if self._until:
            if now < self._until:
                raise unavailable() from self._cause
            self._until = now + AVOIDED  # this one tries; the others go on failing
        return now

    def leave(self, begun: float, in_vain: BaseException | None) -> None:
        """:param in_vain: what went wrong, unless that was an answer of the database."""
        now = time.monotonic()
        is_hanging = in_vain is not None and now - begun > LONG
        self._until, self._cause = (now + AVOIDED, in_vain) if is_hanging else (0.0, None)


def unavailable() -> Unavailable:
    return Unavailable("The gateway's database is out of service")


def is_broken(error: Unavailable) -> bool:
    """Whether it is for SQLite's file, which cannot be read as a database any more."""
    return sqlite.is_corrupt(error.__cause__)


class Stores:
    """The databases of one application: the shared one, and with SQLite those that a plugin has to itself.

    ``shared`` is ``None`` until it is opened.

    :param url: ``smsgw.store``; ``None``: a file of SQLite in ``state``, smsgw's own folder.
    :raises ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str | None, state: Path) -> None:
        self._url = _read(url or f"sqlite:///{state / FILE}")
        self.shared: Store | None = None
        self.own: list[Store] = []

    def open(self, tables: MetaData, scripts: Path | None = None) -> Store:
        """The shared one. The arguments are those of ``Store.keep``."""
        if self.shared is None:
            self.shared = Store(self._url)
        self.shared.keep(tables, scripts)
        return self.shared

    def open_own(self, name: str, tables: MetaData, scripts: Path | None = None) -> Store:
        """As the function ``open_own_store`` does."""
        if self._url.get_backend_name() != "sqlite":
            return self.open(tables, scripts)
        store = Store(f"sqlite:///{Path(self._url.database or '').parent / name / FILE}")
        store.keep(tables, scripts)
        self.own.append(store)
        return store

    @property
    def all(self) -> list[Store]:
        return [*filter(None, [self.shared]), *self.own]


class HasStores(Protocol):
    """An application, or an ``Installation`` of the command line."""

    @property
    def stores(self) -> Stores: ...


def open_store(registry: Registry | HasStores, tables: MetaData, scripts: Path | None = None) -> Store:
    """The application's store, with these tables in it.

    :param registry: ``config.registry``, or an ``Installation`` of the command line.
    :param scripts: as ``Store.keep`` takes them.
    """
    return _stores(registry).open(tables, scripts)


def open_own_store(registry: Registry | HasStores, name: str, tables: MetaData, scripts: Path | None = None) -> Store:
    """A plugin's own database: with SQLite, a file in a folder of that name beside the shared one.

    For what is written much, or can be made again, so that nothing that happens to it touches the others. The plugin
    makes the folder. With PostgreSQL it is the application's store.
    """
    return _stores(registry).open_own(name, tables, scripts)


def close_with(registry: Registry | HasStores, store: Store) -> None:
    """Have a store that a plugin made itself closed when the application ends."""
    _stores(registry).own.append(store)


def _stores(registry: Registry | HasStores) -> Stores:
    found: HasStores = registry.application if isinstance(registry, Registry) else registry
    return found.stores


def _read(url: str) -> URL:
    try:
        found = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError("smsgw.store is no URL such as sqlite:////PATH or postgresql://HOST/NAME") from None
    if found.drivername == "postgresql":
        return found.set(drivername="postgresql+psycopg")
    if found.drivername != "sqlite":
        raise ConfigurationError("smsgw.store should begin with sqlite:// or postgresql://")
    if found.host or not (found.database or "").startswith("/"):
        raise ConfigurationError("smsgw.store needs an absolute path, as in sqlite:////var/lib/smsgw/store.sqlite3")
    if found.query:
        raise ConfigurationError("smsgw.store has a '?' in it, and a URL of SQLite is sqlite:// and a path alone")
    return found


def _make_engine(url: URL, *, is_durable: bool) -> Engine:
    if url.get_backend_name() == "sqlite":
        return sqlite.make_engine(url, is_durable=is_durable)
    try:
        from smsgw import postgresql
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"smsgw.store needs the module {error.name!r}; {pip_install('postgresql')}") from error
    return postgresql.make_engine(url)


@contextlib.contextmanager
def _transaction(connection: Connection, *, is_reading: bool = False) -> Iterator[None]:
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        connection.execution_options(isolation_level="REPEATABLE READ" if is_reading else "READ COMMITTED")
    with connection.begin():
        if is_sqlite:
            connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")
        yield


@contextlib.contextmanager
def _closed_when_it_fails(connection: Connection) -> Iterator[None]:
    """Use no connection again that failed: its tables may be gone, or its file was read-only when it was opened."""
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, PendingRollbackError) as error:
        if not sqlite.is_locked(getattr(error, "orig", None)):
            connection.invalidate(error)
        raise


def _are_current(connection: Connection, kept: Sequence[tuple[MetaData, Path | None]]) -> bool:
    """Whether all these tables are there, and of the latest version."""
    names = set(sqlalchemy.inspect(connection).get_table_names())
    return names.issuperset(name for tables, _ in kept for name in tables.tables) and all(
        migrations.is_current(connection, scripts, names) for _, scripts in kept if scripts
    )


def _upgrade(connection: Connection, kept: Sequence[tuple[MetaData, Path | None]]) -> None:
    """:raises ConfigurationError: they are of a version that is not known here."""
    if connection.dialect.name != "sqlite":  # SQLite has the writer's lock already
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({TABLES})")
    if _are_current(connection, kept):  # another process was faster
        return
    for tables, scripts in kept:
        if scripts:
            migrations.upgrade(connection, scripts)
        tables.create_all(connection)  # also where somebody dropped one


def _is_answer(error: BaseException) -> bool:
    """Whether a database refused, instead of being silent: SQLite because of a lock, PostgreSQL by any error."""
    return sqlite.is_locked(error) or getattr(error, "sqlstate", None) is not None


def _watch_forks(store: Store) -> None:
    """Tell a store of each fork of this process, for as long as it is in use."""

    def told(work: Callable[[], None]) -> Callable[[], None]:
        found = weakref.WeakMethod(work)
        return lambda: None if (method := found()) is None else method()

    os.register_at_fork(
        before=told(store.before_fork),
        after_in_parent=told(store.after_fork_in_parent),
        after_in_child=told(store.after_fork_in_child),
    )
