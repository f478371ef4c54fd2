"""Where audit records go: lines, to a file or to syslog."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from smsgw.model import ConfigurationError

HEAD = "<86>smsgw-audit: "  # authpriv.info
PATIENCE = 1.0  # seconds for a syslog that takes nothing now


class File:
    """A file that is opened by its name for each write, so that it can be moved away. Processes do not mix lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_torn = False  # the last write left a part of a line

    def write(self, lines: Sequence[str]) -> None:
        """:raises OSError: not all of it was written."""
        content = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        content = b"\n" + content if self._is_torn else content
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            written = os.write(fd, content)
            self._is_torn = written < len(content)
        finally:
            os.close(fd)
        if self._is_torn:
            raise OSError(f"{self._path} is full")


class Syslog:
    """Datagrams as syslog(3) writes them (RFC 3164, 4.1), one for each record, from a socket for each request."""

    def __init__(self, address: str) -> None:
        self._family, self._address = _parse(address)

    def write(self, lines: Sequence[str]) -> None:
        """:raises OSError: not all of it was handed over."""
        with socket.socket(self._family, socket.SOCK_DGRAM) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(self._address)
            for line in lines:
                connection.send(f"{HEAD}{line}".encode(errors="replace"))


def _parse(address: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    if address.startswith("/"):
        return socket.AF_UNIX, address
    host, _, port = address.rpartition(":")
    try:
        found = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        return socket.AF_INET6 if found.version == 6 else socket.AF_INET, (str(found), int(port))
    except ValueError:
        raise ConfigurationError(
            f"smsgw.audit.syslog is {address!r}, and should be a socket such as /dev/log, or such as 192.0.2.1:514"
        ) from None
