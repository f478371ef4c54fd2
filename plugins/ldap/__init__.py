"""``ldap``: users and passwords of a directory. It binds as the user, and remembers for a while what was right."""

from __future__ import annotations

import logging
import time
import unicodedata
from typing import Any

from pyramid.security import Denied

from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Credentials, Identity
from smsgw.verified import Verified

from .groups import Groups
from .link import Entry, Link
from .names import parse
from .settings import Settings, make_directory, make_lookup

USERID, PASSWORD = 256, 1024  # bytes; longer ones are not asked of a directory
GRAIN = 0.01  # seconds; each no takes a multiple of it, so that its time does not tell whether the user exists

log = logging.getLogger(__name__)


class Ldap:
    """An authentication backend; its parameters are the settings of its schema."""

    Settings = Settings

    def __init__(self, **settings: Any) -> None:
        self._directory = make_directory(settings)
        self._lookup = make_lookup(settings)
        attribute = settings["userid_attribute"] or self._lookup.attribute
        if attribute is None:
            raise ConfigurationError("set smsgw.ldap.userid_attribute, the attribute that spells the userid")
        self._attribute: str = attribute
        self._groups = Groups(*(settings[name] for name in Groups.SETTINGS))
        self._wanted = [attribute, *self._groups.attributes]
        self._verified = Verified[Identity](settings["cache_seconds"])

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity | Denied | None:
        userid, secret = credentials.userid, credentials.secret
        if credentials.scheme != "Basic" or not _may_be_asked(userid, secret):
            return None
        known = self._verified.find(userid, secret)
        if known is not None:
            return known
        begun = time.monotonic()
        answer = self._directory.ask(
            lambda session: self._lookup.log_in(session, userid, secret.encode(), self._wanted, self._tell)
        )
        if isinstance(answer, Identity):
            self._verified.keep(answer, userid, secret, since=begun)
        else:
            time.sleep(GRAIN - (time.monotonic() - begun) % GRAIN)
        return answer

    @hookimpl
    def fault(self) -> str | None:
        return self._directory.fault()

    def _tell(self, link: Link, entry: Entry) -> Identity | Denied:
        """Who that entry is, whose password was right."""
        userid = self._spelling(entry)
        if userid is None:
            log.error("%r has not one %s; set smsgw.ldap.userid_attribute to what it has", entry.dn, self._attribute)
            return Denied("no userid")
        identity = self._groups.identify(link, entry, userid)
        if identity is None:
            log.warning("%r has the right password, and is not in smsgw.ldap.required_group", userid)
            return Denied("not in the required group")
        return identity

    def _spelling(self, entry: Entry) -> str | None:
        """The userid as the directory spells it; of several, the one in the entry's name."""
        values = entry.values(self._attribute)
        if len(values) == 1:
            return values[0]
        try:
            own = parse(entry.dn)[0]
        except ValueError:
            return None
        return next((value for kind, value in own if kind == self._attribute.lower() and value in values), None)


def _may_be_asked(userid: str, secret: str) -> bool:
    """Whether a directory may be asked. With an empty password, a bind is anonymous and succeeds (RFC 4513, 5.1.2).

    But for case, a userid has one spelling. Directories ignore repeated spaces and forms of letters, and the gateway
    counts wrong passwords for each spelling.
    """
    if not secret or "\0" in secret or not userid.isprintable():
        return False
    if userid != " ".join(userid.split()) or userid != unicodedata.normalize("NFKC", userid):
        return False
    try:
        return 0 < len(userid.encode()) <= USERID and len(secret.encode()) <= PASSWORD
    except UnicodeEncodeError:
        return False
