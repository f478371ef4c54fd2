"""``htpasswd``: users and passwords of a file that Apache's program ``htpasswd`` writes; changes count at once."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

import colander
from passlib.context import CryptContext
from passlib.exc import PasswordSizeError, PasswordValueError, UnknownHashError
from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.security import Denied

from smsgw.files import ParsedFile, unreadable
from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Credentials, Identity
from smsgw.verified import Verified

# No plain text and no DES: an attacker who has read the file could log in.
HASHES = CryptContext(["bcrypt", "apr_md5_crypt", "ldap_sha1", "sha256_crypt", "sha512_crypt"])

CREDENTIAL = "htpasswd:"  # how the credential of an identity begins; the userid follows

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Hash:
    """A stored password. Its ``kind`` is a scheme and its rounds: all of one kind take the same time to check."""

    kind: tuple[str, int]
    stored: str


class Htpasswd:
    """An authentication backend. A wrong password takes one hash of each kind in the file, also for unknown users."""

    class Settings(colander.MappingSchema):
        path = colander.SchemaNode(colander.String(), description="Apache's password file")

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._verified = Verified[bool]()
        try:
            self._file = ParsedFile(self._path, self._read)
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"smsgw.htpasswd.path: there is no file {path}; 'htpasswd -B -c {path} USER' makes it"
            ) from error
        except OSError as error:
            raise ConfigurationError(f"smsgw.htpasswd.path: {unreadable(path, error)}") from error

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity | Denied | None:
        if credentials.scheme != "Basic":
            return None
        users = self._current()
        own = users.get(credentials.userid)
        if own is not None and self._is_right(credentials.secret, own.stored):
            return Identity(credentials.userid, credential=f"{CREDENTIAL}{credentials.userid}")
        for kind, other in {each.kind: each for each in users.values()}.items():
            if own is None or kind != own.kind:
                _verify(credentials.secret, other.stored)
        return None if own is None else Denied("wrong password")

    @hookimpl
    def holds(self, credential: str) -> bool | None:
        """A user holds as long as the file has them, whatever their password is now."""
        if not credential.startswith(CREDENTIAL):
            return None
        return credential.removeprefix(CREDENTIAL) in self._current()

    @hookimpl
    def fault(self) -> str | None:
        try:
            self._file.current()
        except OSError as error:
            return unreadable(self._path, error)
        return None

    def _current(self) -> dict[str, _Hash]:
        try:
            return self._file.current()
        except OSError as error:
            log.error("%s", unreadable(self._path, error))
            raise HTTPServiceUnavailable("The password file cannot be read") from error

    def _read(self, content: bytes) -> dict[str, _Hash]:
        users: dict[str, _Hash] = {}
        for line in content.decode("utf-8", "replace").splitlines():
            userid, colon, stored = line.strip().partition(":")
            if not colon or userid.startswith("#"):
                continue
            if (found := _parse(stored)) is None:
                log.warning(
                    "%s: %r has no password hash of a scheme that is accepted; 'htpasswd -B %s %s' sets a new password",
                    *(self._path, userid, shlex.quote(str(self._path)), shlex.quote(userid)),
                )
            else:
                users.setdefault(userid, found)  # Apache takes the first
        if not users:
            log.warning("%s: there is no user with a password in it", self._path)
        return users

    def _is_right(self, secret: str, stored: str) -> bool:
        """Whether that is the password. One that was right is not hashed again."""
        if self._verified.find(stored, secret):
            return True
        is_right = _verify(secret, stored)
        if is_right:
            self._verified.keep(True, stored, secret)
        return is_right


def _verify(secret: str, stored: str) -> bool:
    if not secret or not stored:
        return False
    try:
        return bool(HASHES.verify(secret, stored))
    except (UnknownHashError, PasswordSizeError, PasswordValueError, ValueError):
        return False


def _parse(stored: str) -> _Hash | None:
    scheme = HASHES.identify(stored)
    if scheme is None:
        return None
    try:
        parsed = HASHES.handler(scheme).from_string(stored)
    except ValueError:
        return None
    return _Hash((scheme, getattr(parsed, "rounds", 0)), stored)
