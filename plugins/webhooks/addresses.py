"""URLs of receivers, and which addresses they may lead to: public ones, and none of the gateway's own network."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

LONGEST = 2000  # characters of a URL

Resolve = Callable[[str, int], list[str]]  # the addresses of a host; raises OSError where there are none

_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>https?)://(?:(?P<host>[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9])?)|\[(?P<v6>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][a-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    re.ASCII | re.IGNORECASE,
)

# What IANA's registries do not call globally reachable, and ``ipaddress`` of some Python versions does.
_RESERVED = [
    ipaddress.ip_network(written)
    for written in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
_UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is assigned to networks
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a URL; ``path`` has the query, too. A URL can have a secret in it, so the repr has no path."""

    is_tls: bool
    host: str
    port: int
    path: str

    def __repr__(self) -> str:
        return f"Target({self.host!r}, {self.port})"

    @property
    def authority(self) -> str:
        """The value of the header ``Host`` (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.is_tls else "http"] else f"{host}:{self.port}"


def read_url(url: str, *, is_http_allowed: bool) -> Target:
    """:raises ValueError: that URL is not allowed; the message goes on after the field's name."""
    found = _URL.fullmatch(url)
    if len(url) > LONGEST:
        raise ValueError(f"should have at most {LONGEST} characters")
    if not found or not 0 < (port := int(found["port"] or _PORTS[found["scheme"].lower()])) < 65536:
        raise ValueError(
            "should be a URL such as https://example.com/sms, in ASCII, without a user, a password and a fragment"
        )
    is_tls = found["scheme"].lower() == "https"
    if not (is_tls or is_http_allowed):
        raise ValueError("should begin with https://")
    path = found["target"] or "/"
    return Target(is_tls, (found["host"] or found["v6"]).lower(), port, path if path.startswith("/") else f"/{path}")


def is_public(written: str) -> bool:
    """Whether that is a public address: neither of this machine, nor of a private network, nor reserved."""
    address = ipaddress.ip_address(written)
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is None and (address not in _UNICAST or address.scope_id is not None):
            return False
        address = embedded or address
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not special and not any(address in network for network in _RESERVED)


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, the preferred one first. The system decides how long that takes.

    :raises OSError: it has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a part of the name is empty, or too long
        raise OSError("no such host") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def look_up(resolve: Resolve, target: Target) -> Future[list[str]]:
    """The addresses of a target. A thread of its own asks for them: a silent name server holds up nobody else."""
    future: Future[list[str]] = Future()
    future.set_running_or_notify_cancel()  # nobody can cancel it: the thread goes on

    def work() -> None:
        try:
            future.set_result(resolve(target.host, target.port))
        except OSError as error:
            future.set_exception(error)

    threading.Thread(target=work, name="smsgw-webhooks-resolve", daemon=True).start()
    return future
