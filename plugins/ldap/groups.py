"""The groups of a user in the directory, and their names at the gateway."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from smsgw.model import ConfigurationError, Identity
from smsgw.settings import is_header_value

from .link import Entry, Link
from .names import Dn, check_places, fill_filter, folded, is_within, parse

FILTER = "(|(member={dn})(uniqueMember={dn})(memberUid={userid}))"

log = logging.getLogger(__name__)


class Groups:
    """The parameters are the settings that ``SETTINGS`` names, in that order.

    The first value of a group's name is what it is called: ``cn=alarms,ou=groups,dc=example,dc=com`` is ``alarms``.

    :raises ConfigurationError: they do not go together.
    """

    SETTINGS = ("group_base", "group_filter", "group_attribute", "required_group", "groups")

    def __init__(
        self,
        base: str | None,
        wanted: str | None,
        attribute: str | None,
        required: str | None,
        called: Mapping[str, str] | None,
    ) -> None:
        if wanted is not None and (base is None or attribute is not None):
            raise ConfigurationError("smsgw.ldap.group_filter is for a search under group_base; drop group_attribute")
        if (required or called) and base is None and attribute is None:
            raise ConfigurationError("set smsgw.ldap.group_base or group_attribute, without which no group is known")
        check_places("smsgw.ldap.group_filter", wanted or FILTER, "dn", "userid")
        self.attributes = [attribute] if attribute else []
        self._base, self._wanted, self._attribute = base, wanted or FILTER, attribute
        self._below = _parts("smsgw.ldap.group_base", base) if base else ()
        self._required = _key("smsgw.ldap.required_group", required) if required else None
        called = called or {}
        self._called = {_key("smsgw.ldap.groups", name): set(re.split(r"[\s,]+", called[name])) for name in called}

    def identify(self, link: Link, entry: Entry, userid: str) -> Identity | None:
        """That user with their groups; ``None``: they are not in the required group."""
        found = [group for name in self._names(link, entry, userid) if (group := _parse(name)) is not None]
        if self._attribute:
            found = [group for group in found if is_within(folded(group), self._below)]
        known = {key for group in found for key in (folded(group), _name(group).casefold())}
        if self._required is not None and self._required not in known:
            return None
        if self._called:
            return Identity(userid, frozenset().union(*(self._called[key] for key in known & self._called.keys())))
        return Identity(userid, frozenset(_name(group) for group in found if is_header_value(_name(group))))

    def _names(self, link: Link, entry: Entry, userid: str) -> list[str]:
        if self._attribute:
            return entry.values(self._attribute)
        if self._base is None:
            return []
        wanted = fill_filter(self._wanted, {"dn": entry.dn, "userid": userid})
        return [group.dn for group in link.search(self._base, wanted)]


def _key(setting: str, name: str) -> Dn | str:
    """A group by its distinguished name, or by what it is called."""
    return _parts(setting, name) if "=" in name else name.casefold()


def _parts(setting: str, name: str) -> Dn:
    try:
        return folded(parse(name))
    except ValueError as error:
        raise ConfigurationError(f"{setting}: {error}") from error


def _name(group: Dn) -> str:
    return group[0][0][1]


def _parse(name: str) -> Dn | None:
    try:
        return parse(name)
    except ValueError:
        log.warning("the directory has a group %.200r, which is no distinguished name", name)
        return None
