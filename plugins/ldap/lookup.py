"""How a user's entry is found, and how the password is tried on it: by a template of names, or by a search.

Both ways have an ``attribute``: the one that the userid stands in, as far as the template or the filter tells; and
``log_in``, which says what ``tell`` says of the user's entry, where the password is right. ``Denied``: it is wrong, and
the directory has that user. ``None``: the directory knows no such user, or does not say.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from ldap3.core.exceptions import LDAPExceptionError
from ldap3.operation.search import parse_filter
from pyramid.security import Denied

from smsgw.model import ConfigurationError, Identity

from .directory import Session
from .link import Entry, Link
from .names import check_places, fill_filter, fill_name, parse

Answer: TypeAlias = Identity | Denied | None
Tell: TypeAlias = Callable[[Link, Entry], Answer]  # who an entry is; the connection can read groups

log = logging.getLogger(__name__)


class ByTemplate:
    """:param reads_as_user: whether entries and groups are read as the user, instead of by the service account."""

    def __init__(self, template: str, reads_as_user: bool) -> None:
        check_places("smsgw.ldap.user_dn", template, "userid")
        try:
            parse(fill_name(template, "lvv"))
        except ValueError as error:
            raise ConfigurationError(f"smsgw.ldap.user_dn: {error}; or set smsgw.ldap.search_base") from error
        found = re.search(r"(?<![A-Za-z0-9.-])([A-Za-z0-9.-]+) *= *\{userid\} *([,+]|$)", template)
        self.attribute = found[1] if found else None
        self._template = template
        self._reads_as_user = reads_as_user

    def log_in(self, session: Session, userid: str, secret: bytes, attributes: Sequence[str], tell: Tell) -> Answer:
        dn = fill_name(self._template, userid)

        def read(link: Link) -> Answer:
            entry = link.read(dn, attributes)
            if entry is None:
                log.error("%r may not be read; let users read their own entry, or set smsgw.ldap.service_dn", dn)
                return Denied("the user's entry may not be read")
            return tell(link, entry)

        if self._reads_as_user:
            return session.as_user(lambda link: read(link) if link.bind(dn, secret) else None)
        return session.as_service(read) if session.as_user(lambda link: link.bind(dn, secret)) else None


class BySearch:
    """:param decoy: the entry on which passwords of unknown users are tried, so that a no takes as long."""

    def __init__(self, base: str, wanted: str, decoy: str | None) -> None:
        check_places("smsgw.ldap.search_filter", wanted, "userid")
        try:
            parse(base)
            parse(decoy or base)
            parse_filter(fill_filter(wanted, {"userid": "lvv"}), None, False, False, None, False)
        except (ValueError, LDAPExceptionError) as error:
            raise ConfigurationError(f"smsgw.ldap.search_base, search_filter or decoy_dn: {error}") from error
        found = re.search(r"\( *([A-Za-z0-9.-]+) *= *\{userid\} *\)", wanted)
        self.attribute = found[1] if found else None
        self._base, self._wanted = base, wanted
        self._decoy = decoy or f"cn=nobody,{base}"

    def log_in(self, session: Session, userid: str, secret: bytes, attributes: Sequence[str], tell: Tell) -> Answer:
        wanted = fill_filter(self._wanted, {"userid": userid})
        found = session.as_service(lambda link: link.search(self._base, wanted, attributes, at_most=2))
        if len(found) == 1:
            (entry,) = found
            if session.as_user(lambda link: link.bind(entry.dn, secret)):
                return session.as_service(lambda link: tell(link, entry))
            return Denied("wrong password")
        session.as_user(lambda link: link.bind(self._decoy, secret))
        if found:
            log.error("%r is more than one entry; make smsgw.ldap.search_filter narrower", userid)
            return Denied("several entries")
        return None


Lookup: TypeAlias = ByTemplate | BySearch
