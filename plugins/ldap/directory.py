"""The directory's servers, in order of preference. A server that is down is left alone for a while."""

from __future__ import annotations

import logging
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from smsgw.files import unreadable
from smsgw.model import ConfigurationError, Unavailable

from .connections import Connections
from .link import Link
from .wire import Address, Broken

REMEMBERED = 60.0  # seconds for which a failure says that a server is down
AVOIDED = 10.0  # seconds for which a server is left alone after a failure that took long
LONG = 0.3  # seconds; a server that fails sooner, such as one that does not run, is asked by every request

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Account:
    """The service account. Its password is read again for each new connection."""

    dn: str
    password_file: Path

    def password(self) -> bytes:
        """:raises ConfigurationError: the file cannot be read, can be read by everybody, or has no password in it."""
        setting = "smsgw.ldap.service_password_file"
        name = f"{setting}: {self.password_file}"
        try:
            if self.password_file.stat().st_mode & stat.S_IROTH:
                raise ConfigurationError(f"{name} can be read by everybody; chmod o-r it, and change the password")
            secret = self.password_file.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise ConfigurationError(f"{setting}: {unreadable(self.password_file, error)}") from error
        if not secret:
            raise ConfigurationError(f"{name} is empty; write the service account's password into it")
        return secret


@dataclass(frozen=True, slots=True)
class Session:
    """What one request asks one server, in bounded time."""

    _server: Server
    _deadline: float

    def as_service(self, action: Callable[[Link], T]) -> T:
        """On a connection that is bound as the service account; without one, as nobody."""
        return self._server.service.use(action, self._deadline)

    def as_user(self, action: Callable[[Link], T]) -> T:
        """On a connection that the action first binds as a user."""
        return self._server.users.use(action, self._deadline)


class Server:
    """:param timeout: seconds for all that one request asks it."""

    def __init__(self, address: Address, account: Account | None, timeout: float) -> None:
        self._address, self._account, self._timeout = address, account, timeout
        self.service = Connections(self._open_service)
        self.users = Connections(lambda deadline: Link(address, deadline))
        self._avoided_until = 0.0
        self._is_down = False
        self._failed = 0.0  # when it last was, on the monotonic clock
        self._lock = threading.Lock()

    def is_due(self) -> bool:
        """Whether to ask it. After it was left alone, one request finds out for all others."""
        with self._lock:
            now = time.monotonic()
            if now < self._avoided_until:
                return False
            if self._avoided_until:
                self._avoided_until = now + self._timeout
            return True

    @property
    def has_failed(self) -> bool:
        """Whether the last request failed. Nobody knows it any more when that was a minute ago."""
        return self._is_down and time.monotonic() - self._failed < REMEMBERED

    def ask(self, conversation: Callable[[Session], T]) -> T:
        """:raises Broken: it is down."""
        begun = time.monotonic()
        try:
            found = conversation(Session(self, begun + self._timeout))
        except Broken as error:
            now = time.monotonic()
            if not self._is_down:
                log.warning("%s is out of service: %s", self._address.url, error)
            self._is_down, self._failed = True, now
            self._avoided_until = now + AVOIDED if error.is_lasting or now - begun > LONG else 0.0
            raise
        if self._is_down:
            log.warning("%s is in service again", self._address.url)
            self._is_down, self._avoided_until = False, 0.0
        return found

    def _open_service(self, deadline: float) -> Link:
        link = Link(self._address, deadline)
        if self._account is not None:
            try:
                if not link.bind(self._account.dn, self._account.password()):
                    raise Broken("it refuses the service account, or its password", is_lasting=True)
            except BaseException:
                link.close()
                raise
        return link


class Directory:
    """:param servers: in order of preference."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers

    def fault(self) -> str | None:
        """What is wrong with it: all servers failed."""
        return "The directory is out of service" if all(server.has_failed for server in self._servers) else None

    def ask(self, conversation: Callable[[Session], T]) -> T:
        """The answer of the first server that is not down.

        :raises Unavailable: all are, or the service account's password cannot be had.
        """
        last: Exception | None = None
        for server in self._servers:
            try:
                if server.is_due():
                    return server.ask(conversation)
            except Broken as error:
                last = error
            except ConfigurationError as error:
                raise Unavailable("The directory cannot be asked", int(AVOIDED)) from error
        raise Unavailable("The directory is out of service", int(AVOIDED)) from last
