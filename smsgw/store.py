"""The one database that plugins with a memory share: SQLite, or PostgreSQL where several machines do. Public.

A plugin asks for it in its ``includeme``, and says which tables it keeps there; they are made, or brought from an older
version to the latest (``smsgw.migrations``), when they are first needed, so that the gateway starts while the database
is down. Needs the extra ``smsgw[store]``.

Two ways to use it: ``begin`` for anything that SQLAlchemy can do; and, for what each request asks, statements that are
prepared once, each executed by itself or several in one ``transaction``, in a quarter of the time; or not at all, where
it is a ``lookup`` and nothing was committed since.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, MetaData, event
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql.expression import ClauseElement

from smsgw import migrations
from smsgw.model import ConfigurationError, Unavailable
from smsgw.walindex import WalIndex

WAIT = 5.0  # seconds for a connection, and for other processes' transactions to end
HASTE = 0.25  # seconds for the same, for one statement by itself
LOOK = 0.2  # seconds between two looks whether the file is the same still
LONG = 1.0  # seconds: a database that fails sooner, as one that is not running does, is asked by every request
AVOIDED = 5.0  # seconds for which one is left alone that took longer to fail
REMEMBERED = 10000  # answers of one lookup
FILE = "store.sqlite3"  # in smsgw's own folder
T = TypeVar("T")
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
        self._closings = 0  # of connections, one or all
        self._tables: list[tuple[MetaData, Path | None]] = []
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._session = _Session(self._create())
        self._inherited: list[_Session] = []
        _watch_forks(self)
        self._dialect = self._session.engine.dialect
        self._errors: tuple[type[Exception], ...] = (DBAPIError, PoolTimeout, self._dialect.loaded_dbapi.Error)
        self._violations: type[Exception] = self._dialect.loaded_dbapi.IntegrityError

    def keep(self, tables: MetaData, scripts: Path | None = None) -> None:
        """Let those tables be there in every transaction.

        :param scripts: the folder of the migrations that make them; ``None``: they stay as they are for ever.
        """
        self._tables.append((tables, scripts))

    @property
    def name(self) -> str:
        """SQLite's file, or PostgreSQL's ``host/database``: for people, and without a password."""
        host = self._url.host or self._url.query.get("host") or ""
        return str(self.path or f"{host}/{self._url.database or ''}")

    @property
    def path(self) -> Path | None:
        """SQLite's file, by the one name that SQLite calls it; ``None`` with PostgreSQL."""
        return Path(self._url.database or "").resolve() if self._is_sqlite else None

    @property
    def folder(self) -> Path | None:
        """Where SQLite's files are; ``None`` with PostgreSQL."""
        return Path(self._url.database or "").parent if self._is_sqlite else None

    @contextlib.contextmanager
    def begin(self, *, is_reading: bool = False) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back where that raises.

        Unless it only reads, it keeps other writers out of SQLite from its beginning, so that it cannot fail for them.
        One that only reads sees nothing of what others commit meanwhile.

        :raises Unavailable: the database is out of service.
        """
        renewals = self._session.renewals
        try:
            with self._session.gate:
                engine = self._current().engine
                if is_reading:
                    alike = {BEGIN: "BEGIN"} if self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
                    engine = engine.execution_options(**alike)
                with engine.begin() as connection:
                    yield connection
        except IntegrityError:
            raise
        except self._errors as error:
            cause = _cause(error)
            self._renew(cause, renewals)
            raise _unavailable() from cause

    def prepare(self, statement: ClauseElement, *, wait: float = HASTE) -> Statement:
        """That statement, to be executed often.

        :param wait: seconds for other processes' transactions on SQLite to end, where it is executed by itself.
        """
        return Statement(self, statement.compile(dialect=self._dialect), wait)

    def lookup(self, statement: ClauseElement) -> Lookup:
        """That statement, which only reads, to be executed where its rows may have changed since it last was."""
        return Lookup(self, self.prepare(statement))

    @property
    def version(self) -> bytes | None:
        """What is another after each commit of anybody; ``None``: only the database can tell.

        Never of PostgreSQL, nor before this thread has used SQLite, within its transactions, or when it is time to
        look whether the file is the same still.
        """
        with self._session.gate:
            session = self._session
            kept = session.connections.get(threading.get_ident())
            if kept is None or kept.index is None or kept.is_in_transaction:
                return None
            if kept.file != session.file or session.tables < len(self._tables):
                return None
            # SQLite's own begins anew with its log, which goes when the last connection is closed.
            version = kept.index.version if time.monotonic() <= session.looked + LOOK else None
            return None if version is None else b"%d %s" % (self._closings, version)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Let the prepared statements that this thread executes in the block be one transaction.

        Committed at the end of the block, rolled back where that raises. On SQLite there is no other writer meanwhile.

        :raises Unavailable: the database is out of service.
        """
        renewals = self._session.renewals
        try:
            with self._session.gate:
                kept = self._persistently(self._begin, WAIT)
                kept.is_in_transaction = True
                try:
                    yield
                    kept.connection.commit()
                except BaseException:
                    with contextlib.suppress(*self._errors):  # where it is closed, or broken
                        kept.connection.rollback()
                    raise
                finally:
                    kept.is_in_transaction = False
        except IntegrityError:
            raise
        except Unavailable as error:
            self._renew(error.__cause__, renewals)
            raise
        except self._errors as error:
            cause = _cause(error)
            self._renew(cause, renewals)
            raise _unavailable() from cause

    def execute(self, text: str, values: Any, wait: float) -> list[tuple[Any, ...]]:
        """The rows of one statement in the driver's own spelling, on this thread's own connection."""
        kept, renewals = self._session.connections.get(threading.get_ident()), self._session.renewals
        begun = kept if kept is not None and kept.is_in_transaction else None
        try:
            if begun is not None:
                return _rows(begun.connection, text, values)
            with self._session.gate:
                return self._persistently(lambda kept: _rows(kept.connection, text, values), wait)
        except self._violations as error:
            raise IntegrityError(text, None, error) from error
        except self._errors as error:
            cause = _cause(error)
            if begun is not None:
                self._drop()
            else:
                self._renew(cause, renewals)
            raise _unavailable() from cause

    def close(self) -> None:
        """Let go of all connections; no thread may be using one."""
        self._closings += 1
        self._session.close()

    def before_fork(self) -> None:
        """Let nothing be open that the child would inherit, which SQLite cannot bear (howtocorrupt.html, 2.6)."""
        self._session.gate.shut()
        self.close()

    def after_fork(self, *, is_child: bool) -> None:
        """Go on; the child begins anew, whatever the parent's other threads held."""
        if is_child:
            self._inherited.append(self._session)
            self._session = _Session(self._create())
        else:
            self._session.gate.open()

    def _begin(self, kept: _Kept) -> _Kept:
        kept.connection.execute("BEGIN IMMEDIATE" if self._is_sqlite else "BEGIN ISOLATION LEVEL READ COMMITTED")
        return kept

    def _persistently(self, work: Callable[[_Kept], T], wait: float) -> T:
        """Do that on this thread's own connection, or on a new one where that turns out to be broken."""
        begun, deadline = time.monotonic(), None
        while True:
            kept = self._connection()
            try:
                done = work(kept)
            except self._violations:
                raise
            except self._errors as error:
                deadline = deadline or time.monotonic() + wait - HASTE
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY and time.monotonic() < deadline:
                    continue
                if kept.is_new or time.monotonic() - begun > WAIT:
                    raise
                self._drop()
            else:
                if kept.is_new:
                    kept.index = WalIndex.find(self._url.database or "") if self._is_sqlite else None
                    kept.is_new = False
                return done

    def _connection(self) -> _Kept:
        """This thread's own connection, which commits each statement unless a transaction was begun."""
        session = self._current()
        kept = session.connections.get(threading.get_ident())
        if kept is None or kept.file != session.file:
            if kept is not None:  # of a file that another has taken the place of
                with contextlib.suppress(*self._errors):
                    kept.connection.close()
            pooled = session.engine.raw_connection()
            connection: Any = pooled.driver_connection
            pooled.detach()
            if self._is_sqlite:
                connection.execute(f"PRAGMA busy_timeout = {HASTE * 1000:.0f}")
            else:
                connection.autocommit = True
            kept = session.connections[threading.get_ident()] = _Kept(connection, session.file)
        return kept

    def _drop(self) -> None:
        """Close this thread's own connection, and look at the tables again: who knows what has happened to them."""
        self._session.tables = 0
        kept = self._session.connections.get(threading.get_ident())
        if kept is not None:
            self._closings += 1
            kept.index = None
            with contextlib.suppress(*self._errors):
                kept.connection.close()
            if not kept.is_in_transaction:  # of which nothing more shall be executed
                self._session.connections.pop(threading.get_ident(), None)

    def _renew(self, cause: BaseException | None, renewals: int) -> None:
        """Use nothing on, after a failure, that was open before; no lock of another process is such a failure.

        A file that SQLite could only read when it opened it stays like that in this process as long as one of its
        connections is open. So all are closed before the next is opened.

        :param renewals: how often that had been done when what failed began: once more by now is enough.
        """
        session = self._session
        session.tables = 0
        if not self._is_sqlite:
            self._drop()
            session.engine.dispose()
        elif getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            self._drop()
        else:
            with session.closing:
                if session.renewals == renewals:
                    self._closings += 1
                    session.renew()

    def _current(self) -> _Session:
        """What is open of the database, and has all tables."""
        session, now = self._session, time.monotonic()
        if now > session.looked + LOOK:
            if session.file == self._file():
                session.looked = now
            else:
                session.tables = 0
        if session.tables < len(self._tables):
            self._open(session)
        return session

    def _open(self, session: _Session) -> None:
        """Find out whether the database is there, and make the tables.

        While it keeps those waiting who ask, one at a time finds out for all others, who are refused at once.
        """
        asked = time.monotonic()
        if asked < session.avoided_until or not session.opening.acquire(blocking=session.failure is None):
            raise _unavailable() from session.failure
        begun = time.monotonic()
        try:
            if asked < session.avoided_until:  # since it failed while this thread waited
                raise _unavailable() from session.failure
            self._make_tables(session)
            session.failure = None
        except ConfigurationError as error:
            raise _unavailable() from error
        except self._errors as error:
            now = time.monotonic()
            session.failure = _cause(error) if now - begun > LONG else None
            session.avoided_until = now + AVOIDED if session.failure else 0.0
            raise
        finally:
            session.opening.release()

    def _file(self) -> tuple[int, int] | None:
        """Which file it is, on SQLite: another one may have been put in its place."""
        try:
            found = os.stat(self._url.database or "") if self._is_sqlite else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found else None

    def _make_tables(self, session: _Session) -> None:
        """:raises Unavailable: they are newer than what is installed here."""
        kept = list(self._tables)
        if session.file != self._file():
            session.engine.dispose()
        with session.engine.execution_options(**{BEGIN: "BEGIN"}).begin() as connection:
            is_current = _are_current(connection, kept)
        if not is_current:
            migrations.load()
            with session.engine.begin() as connection:
                if not self._is_sqlite:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({TABLES})")
                if not _are_current(connection, kept):  # still: somebody else may have been faster
                    for tables, scripts in kept:
                        if scripts:
                            migrations.upgrade(connection, scripts)
                        tables.create_all(connection)  # also where somebody dropped one
        session.tables, session.file, session.looked = len(kept), self._file(), time.monotonic()

    def _create(self) -> Engine:
        options: dict[str, Any] = {"hide_parameters": True, "pool_timeout": WAIT}
        if self._is_sqlite:
            engine = sqlalchemy.create_engine(
                self._url, connect_args={"timeout": WAIT, "check_same_thread": False}, **options
            )
            _prepare_sqlite(engine, Path(self._url.database or ""), "FULL" if self._is_durable else "NORMAL")
            return engine
        milliseconds = int(WAIT * 1000)
        arguments = {
            "connect_timeout": int(WAIT),
            "tcp_user_timeout": milliseconds,
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
        }
        try:
            engine = sqlalchemy.create_engine(self._url, connect_args=arguments, pool_pre_ping=True, **options)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"smsgw.store needs the module {error.name!r}; pip install 'smsgw[postgresql]'"
            ) from error
        _check_postgresql(engine, self._url)
        from smsgw.postgresql import Bounded

        event.listen(engine, "do_connect", lambda _, __, words, named: Bounded.connect(*words, **named))
        return engine


class Statement:
    """One statement, executed by the driver on a connection that each thread keeps: in a quarter of the time.

    Its parameters are all named; values come as the driver gives them. By itself it is a transaction of its own. Where
    the connection turns out to be broken, it is executed again on a new one, so it must bear that.
    """

    def __init__(self, store: Store, compiled: Any, wait: float) -> None:
        self._store = store
        self._wait = wait
        self._text = str(compiled)
        self._order: list[str] | None = compiled.positiontup

    def __call__(self, **parameters: object) -> list[tuple[Any, ...]]:
        """Its rows.

        :raises sqlalchemy.exc.IntegrityError: a constraint forbids what it does.
        :raises Unavailable: the database is out of service.
        """
        values = parameters if self._order is None else [parameters[name] for name in self._order]
        return self._store.execute(self._text, values, self._wait)


class Lookup:
    """A statement whose rows are remembered until something is committed: then they are asked for again."""

    def __init__(self, store: Store, statement: Statement) -> None:
        self._store = store
        self._statement = statement
        self._found: tuple[bytes | None, dict[Any, list[tuple[Any, ...]]]] = (None, {})

    def __call__(self, **parameters: Hashable) -> list[tuple[Any, ...]]:
        """Its rows, as the database has them now.

        :raises Unavailable: the database is out of service.
        """
        version = self._store.version  # of before it is asked, so that a commit meanwhile counts as one after it
        if version is None:
            return self._statement(**parameters)
        known, found = self._found
        if known != version or len(found) >= REMEMBERED:
            found = {}
            self._found = version, found
        key = frozenset(parameters.items())
        rows = found.get(key)
        if rows is None:
            rows = self._statement(**parameters)
            if rows:
                found[key] = rows
        return rows


@dataclass(slots=True)
class _Kept:
    """A connection that one thread keeps, to that file, and whose index tells of commits."""

    connection: Any
    file: tuple[int, int] | None
    index: WalIndex | None = None
    is_new: bool = True
    is_in_transaction: bool = False


@dataclass(slots=True)
class _Session:
    """What one process has open of the database: for how many of the plugins the tables are there, in which file.

    Connections are by thread; one whose thread has ended is the next thread's of that number.
    """

    engine: Engine
    gate: _Gate = field(default_factory=lambda: _Gate())
    closing: threading.Lock = field(default_factory=threading.Lock)
    renewals: int = 0  # how often all connections were closed after a failure
    opening: threading.Lock = field(default_factory=threading.Lock)
    connections: dict[int, _Kept] = field(default_factory=dict)
    tables: int = 0
    file: tuple[int, int] | None = None
    looked: float = 0.0
    failure: BaseException | None = None  # of one who had to wait for it long
    avoided_until: float = 0.0

    def close(self) -> None:
        """Close all connections but those that SQLAlchemy has handed out."""
        while self.connections:
            with contextlib.suppress(KeyError):  # its own thread was faster
                self.connections.popitem()[1].connection.close()
        self.engine.dispose()

    def renew(self) -> None:
        """The same when nobody uses any; where somebody does for too long, nothing is done."""
        try:
            if self.gate.shut():
                self.close()
                self.renewals += 1
        finally:
            self.gate.open()


class _Gate:
    """A context that threads enter to use the database; shut while all connections are closed, or the process forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = 0  # by how many

    def __enter__(self) -> None:
        with self._changed:
            while self._shut:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._shut:
                self._changed.notify_all()

    def shut(self) -> bool:
        """Let nobody in until as many have called ``open``; whether nobody is inside, after waiting not for ever."""
        with self._changed:
            self._shut += 1
            return self._changed.wait_for(lambda: not self._inside, WAIT)

    def open(self) -> None:
        with self._changed:
            self._shut -= 1
            self._changed.notify_all()


def _watch_forks(store: Store) -> None:
    """Tell a store of each fork of this process, for as long as it is in use."""
    found = weakref.ref(store)

    def tell(work: Callable[[Store], None]) -> Callable[[], None]:
        def hook() -> None:
            if (store := found()) is not None:
                work(store)

        return hook

    os.register_at_fork(
        before=tell(lambda store: store.before_fork()),
        after_in_parent=tell(lambda store: store.after_fork(is_child=False)),
        after_in_child=tell(lambda store: store.after_fork(is_child=True)),
    )


def _rows(connection: Any, text: str, values: Any) -> list[tuple[Any, ...]]:
    found = connection.execute(text, values)
    return found.fetchall() if found.description else []


def _are_current(connection: Connection, kept: Sequence[tuple[MetaData, Path | None]]) -> bool:
    """Whether all these tables are there, and of the latest version."""
    names = set(sqlalchemy.inspect(connection).get_table_names())
    return names.issuperset(name for tables, _ in kept for name in tables.tables) and all(
        migrations.is_current(connection, scripts, names) for _, scripts in kept if scripts
    )


def _unavailable() -> Unavailable:
    return Unavailable("The gateway's database is out of service")


def _cause(error: Exception) -> BaseException:
    """The driver's own error, without the statement, and without what the frames of both hold.

    These hold each other, too, and SQLite closes no connection that has a cursor left: it would stay as it is, and so
    would what all connections to the file share, until somebody collects the garbage.
    """
    cause = getattr(error, "orig", None) or error
    for each in (error, cause):
        traceback.clear_frames(each.__traceback__)
    return cause


BEGIN = "smsgw_begin"  # an execution option: how a transaction on SQLite begins


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


def _check_postgresql(engine: Engine, url: URL) -> None:
    """:raises ConfigurationError: libpq does not know something that stands behind the ``?`` of the URL."""
    dbapi: Any = engine.dialect.loaded_dbapi
    try:
        dbapi.conninfo.make_conninfo(**url.query)
    except dbapi.Error as error:
        raise ConfigurationError(f"smsgw.store: {str(error).splitlines()[0]}") from None


def _prepare_sqlite(engine: Engine, path: Path, synchronous: str) -> None:
    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own idea of when a transaction begins
        deadline = time.monotonic() + WAIT
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:  # of a new file, several may do that: SQLite lets none wait
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
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


def open_store(registry: Any, tables: MetaData, scripts: Path | None = None, *, is_durable: bool = False) -> Store:
    """The application's store, with those tables in it.

    :param registry: the application's, or what a command of the command line is given (``smsgw.cli.Installation``).
    :param scripts: as ``Store.keep`` takes them.
    :param is_durable: as ``Store`` takes it, where it is opened now.
    :raises ConfigurationError: ``smsgw.store`` is wrong.
    """
    store: Store | None = getattr(registry, "store", None)
    if store is None:
        url = registry.smsgw.store or f"sqlite:///{registry.layout.state / FILE}"
        store = registry.store = Store(url, is_durable=is_durable)
    store.keep(tables, scripts)
    return store


def open_own_store(registry: Any, name: str, tables: MetaData, scripts: Path | None = None) -> Store:
    """A plugin's own database, where that is SQLite: a file in a folder of that name, beside the shared one.

    For what is written much, or can be made again, so that nothing that happens to it touches the others. The plugin
    makes the folder. With PostgreSQL it is the application's store.

    :raises ConfigurationError: ``smsgw.store`` is wrong.
    """
    url = _read(registry.smsgw.store or f"sqlite:///{registry.layout.state / FILE}")
    if url.get_backend_name() != "sqlite":
        return open_store(registry, tables, scripts)
    store = Store(f"sqlite:///{Path(url.database or '').parent / name / FILE}")
    store.keep(tables, scripts)
    registry.own_stores = [*getattr(registry, "own_stores", ()), store]
    return store


def is_broken(error: Unavailable) -> bool:
    """Whether it is for SQLite's file, which cannot be read as a database any more."""
    code = getattr(error.__cause__, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
