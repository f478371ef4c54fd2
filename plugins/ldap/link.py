"""One connection to a directory server, over ldap3: bind, read, search."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ldap3

from .wire import Address, Broken, broken, connect

START_TLS = "1.3.6.1.4.1.1466.20037"  # RFC 4511, 4.14.1
ANY_ENTRY = "(objectClass=*)"

# RFC 4511, appendix A: REFUSED is what a server says of a name or a password, and not of itself. A referral is such an
# answer: who is on another server is not known.
SUCCESS, SIZE_LIMIT_EXCEEDED, NO_SUCH_OBJECT, INSUFFICIENT_RIGHTS = 0, 4, 32, 50
REFERRAL, CONSTRAINT_VIOLATION, INVALID_NAME, INAPPROPRIATE, INVALID_CREDENTIALS, UNWILLING = 10, 19, 34, 48, 49, 53
REFUSED = {
    *(REFERRAL, CONSTRAINT_VIOLATION, NO_SUCH_OBJECT, INVALID_NAME),
    *(INAPPROPRIATE, INVALID_CREDENTIALS, INSUFFICIENT_RIGHTS, UNWILLING),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: its attributes by their names in lower case, with those of their values that are UTF-8."""

    dn: str
    attributes: dict[str, list[str]] = field(repr=False)

    def values(self, attribute: str) -> list[str]:
        return self.attributes.get(attribute.lower(), [])


class Link:
    """A connection for one thread at a time, bound as whoever was last bound on it.

    :param deadline: of ``time.monotonic()``, by which it must be open.
    :raises Broken: it cannot be opened, or not be secured as it should.
    """

    def __init__(self, address: Address, deadline: float) -> None:
        self._connection, self._wire = connect(address, deadline)
        self.used = time.monotonic()
        try:
            if address.has_starttls:
                self._connection.extended(START_TLS)
                self._expect(SUCCESS)
            if address.context is not None:
                self._wire.secure(address.context, address.host)
        except Exception as error:
            self.close()
            raise broken(error) from None

    def begin(self, deadline: float) -> None:
        """From now on, what is not done by that time is ``Broken``."""
        self._wire.begin(deadline)

    def bind(self, dn: str, secret: bytes) -> bool:
        """Whether that is the password of that entry (RFC 4513, 5.1.3); neither may be empty."""
        connection = self._connection
        if connection.socket is not self._wire:  # ldap3 would open a new one, and encrypt nothing
            raise Broken("it has closed the connection")
        connection.user, connection.password, connection.authentication = dn, secret, ldap3.SIMPLE
        try:
            connection.bind(read_server_info=False)
            code = self._expect(SUCCESS, *REFUSED)
            if code not in (SUCCESS, INVALID_CREDENTIALS):
                log.warning("%r was refused: %s", dn, connection.result["description"])
            return code == SUCCESS
        except Exception as error:
            raise broken(error) from None
        finally:
            connection.password = connection.request = None  # ldap3 keeps both

    def read(self, dn: str, attributes: Sequence[str]) -> Entry | None:
        """The entry of that name; ``None``: there is none, or whoever is bound may not read it."""
        expected = (SUCCESS, NO_SUCH_OBJECT, INSUFFICIENT_RIGHTS)
        return next(iter(self._search(dn, ANY_ENTRY, ldap3.BASE, attributes, 0, expected)), None)

    def search(self, base: str, wanted: str, attributes: Sequence[str] = (), at_most: int = 0) -> list[Entry]:
        """The entries under ``base`` that the filter ``wanted`` finds, at most so many; 0: any number."""
        expected = (SUCCESS, SIZE_LIMIT_EXCEEDED) if at_most else (SUCCESS,)
        return self._search(base, wanted, ldap3.SUBTREE, attributes, at_most, expected)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._wire.close()

    def _search(
        self, base: str, wanted: str, scope: str, attributes: Sequence[str], at_most: int, expected: Sequence[int]
    ) -> list[Entry]:
        try:
            self._connection.search(
                *(base, wanted, scope, ldap3.DEREF_NEVER), attributes=list(attributes), size_limit=at_most
            )
            code = self._expect(*expected)
            found = [_entry(each) for each in self._connection.response if each["type"] == "searchResEntry"]
            if code == SIZE_LIMIT_EXCEEDED and len(found) < at_most:
                raise Broken("it does not tell all entries")
            return found
        except Exception as error:
            raise broken(error) from None

    def _expect(self, *expected: int) -> int:
        code: int = self._connection.result["result"]
        if code not in expected:
            raise Broken(f"it answers {self._connection.result['description']!r}")
        return code


def _entry(found: dict[str, Any]) -> Entry:
    if not found["raw_dn"]:
        raise Broken("it has an entry without a name")
    attributes: dict[str, list[str]] = {}
    for name, values in found["raw_attributes"].items():
        if ";range=" in name.lower():  # Active Directory's way to leave values out
            raise Broken(f"it has more values of {name!r} than it tells at once")
        attributes[name.lower()] = [text for value in values or () if (text := _decode(value)) is not None]
    return Entry(found["raw_dn"].decode("utf-8"), attributes)


def _decode(value: bytes) -> str | None:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None
