"""Distinguished names (RFC 4514), and templates of names and filters with a place for the user."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ldap3.utils.conv import escape_bytes
from ldap3.utils.dn import escape_rdn

from smsgw.model import ConfigurationError

# An attribute's type and value, with escapes, up to what separates it from the next.
_PART = re.compile(
    r" *+([A-Za-z][A-Za-z0-9-]*+|[0-9.]++) *+= *+((?:\\[0-9A-Fa-f]{2}|\\[^0-9A-Fa-f]|[^\\,+;\"<>\0])*+)([,+;]|$)", re.S
)
_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2})|\\(.)", re.S)
_PLACE = re.compile(r"\{([^{}]*)\}")

Pair = tuple[str, str]  # an attribute's type in lower case, and a value
Dn = tuple[tuple[Pair, ...], ...]  # of relative names, from the entry up


def parse(dn: str) -> Dn:
    """The parts of a distinguished name; the values without escapes.

    :raises ValueError: that is no distinguished name.
    """
    parts: list[tuple[Pair, ...]] = []
    pairs: list[Pair] = []
    place, separator = 0, ","
    while separator:
        found = _PART.match(dn, place)
        if found is None:
            raise ValueError(f"{dn!r} is no distinguished name, such as ou=people,dc=example,dc=com")
        place, separator = found.end(), found[3]
        pairs.append((found[1].lower(), _plain(found[2])))
        if separator != "+":
            parts.append(tuple(pairs))
            pairs = []
    return tuple(parts)


def folded(dn: Dn) -> Dn:
    """As directories compare names: case and repeated spaces do not matter."""
    return tuple(tuple(sorted((kind, " ".join(value.casefold().split())) for kind, value in part)) for part in dn)


def is_within(dn: Dn, base: Dn) -> bool:
    """Whether the entry ``dn`` is ``base``, or under it; both are ``folded``."""
    return len(dn) >= len(base) and dn[len(dn) - len(base) :] == base


def fill_name(template: str, userid: str) -> str:
    """The distinguished name of a user."""
    return template.replace("{userid}", escape_rdn(userid))


def fill_filter(template: str, values: Mapping[str, str]) -> str:
    """A filter (RFC 4515) with values in their places; every octet of them is escaped."""
    return _PLACE.sub(lambda found: escape_bytes(values[found[1]].encode()), template)


def check_places(setting: str, template: str, *known: str) -> None:
    """:raises ConfigurationError: the template has an unknown place, or none."""
    places = set(_PLACE.findall(template))
    strays = places - set(known)
    if strays or not places:
        stray = f"has {{{strays.pop()}}}" if strays else "has no place for the user"
        raise ConfigurationError(f"{setting} {stray}; write {' or '.join(f'{{{name}}}' for name in known)}")


def _plain(value: str) -> str:
    end = len(value.rstrip(" "))
    if value[:end].endswith("\\"):
        end += 1  # the first of the spaces is escaped, and a part of the value
    octets = value[:end].encode()
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else found[2], octets).decode()
