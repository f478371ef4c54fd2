"""The socket of a connection to a directory server: to one of its addresses, with TLS, bounded in time and size."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

import ldap3

ANSWER = 1 << 20  # bytes of an answer, at most


class Broken(Exception):
    """The server does not answer in time, or not as a directory should. The message is for the log.

    :param is_lasting: to try again at once is of no use.
    """

    def __init__(self, reason: str, *, is_lasting: bool = False) -> None:
        super().__init__(reason)
        self.is_lasting = is_lasting


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. ``context`` checks its certificate; ``None``: nothing is encrypted."""

    url: str
    host: str
    port: int
    context: ssl.SSLContext | None
    has_starttls: bool


class Wire:
    """A socket for ldap3 that fails after a deadline, and after more bytes than an answer may have."""

    def __init__(self, opened: socket.socket, deadline: float) -> None:
        self._socket = opened
        self.begin(deadline)

    def begin(self, deadline: float) -> None:
        self._deadline, self._left = deadline, ANSWER

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        self._limit()
        self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def recv(self, size: int) -> bytes:
        self._limit()
        received = self._socket.recv(size)
        self._left -= len(received)
        if self._left < 0:
            raise OSError(f"the answer has more than {ANSWER} bytes")
        return received

    def sendall(self, content: bytes) -> None:
        self._limit()
        self._socket.sendall(content)

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()

    def _limit(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)


def connect(address: Address, deadline: float) -> tuple[Any, Wire]:
    """A connection to the first of a host's addresses that can be reached. Each has its share of the time."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise broken(error) from None
    last: Exception = Broken("it has no address")
    for place, (_, _, _, _, sockaddr) in enumerate(found):
        share = (deadline - time.monotonic()) / (len(found) - place)
        server = ldap3.Server(
            sockaddr[0], sockaddr[1], get_info=ldap3.NONE, connect_timeout=max(share, 0.001), allowed_referral_hosts=[]
        )
        connection = ldap3.Connection(
            server,
            auto_referrals=False,
            auto_range=False,
            check_names=False,
            return_empty_attributes=False,
            auto_escape=False,
        )
        try:
            connection.open(read_server_info=False)
        except Exception as error:
            last = error
            if connection.socket is not None:
                connection.socket.close()  # which ldap3 leaves open
            continue
        wire = connection.socket = Wire(connection.socket, deadline)
        return connection, wire
    raise broken(last) from None


def broken(error: Exception) -> Broken:
    """ldap3 raises any exception when a server sends what it should not: all of them are the server's fault."""
    return error if isinstance(error, Broken) else Broken(f"{type(error).__name__}: {str(error)[:200]!r}")
