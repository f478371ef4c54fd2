"""``htpasswd``: users and passwords in a file that Apache's ``htpasswd`` keeps; a change in it takes effect at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import colander
from passlib.context import CryptContext
from passlib.exc import PasswordSizeError, PasswordValueError, UnknownHashError
from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.security import Denied

from smsgw.files import ParsedFile
from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Credentials, Identity
from smsgw.verified import Verified

# No plain text and no DES, which an attacker who has read the file need not break.
HASHES = CryptContext(["bcrypt", "apr_md5_crypt", "ldap_sha1", "sha256_crypt", "sha512_crypt"])

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Hash:
    """A stored password; all of one ``kind``, which is a scheme and its rounds, cost the same time to check."""

    kind: tuple[str, int]
    stored: str


@dataclass(frozen=True, slots=True)
class _File:
    """What is in the file; ``kinds`` has a hash of each kind."""

    users: dict[str, _Hash]
    kinds: dict[tuple[str, int], _Hash]


class Htpasswd:
    """An authentication backend. Every wrong answer costs one hash of each kind in the file, whoever asks."""

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
            raise ConfigurationError(f"smsgw.htpasswd.path: {path} cannot be read: {error.strerror}") from error

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity | Denied | None:
        if credentials.scheme != "Basic":
            return None
        file = self._current()
        own = file.users.get(credentials.userid)
        if own is not None and self._is_right(credentials.secret, own.stored):
            return Identity(credentials.userid)
        for kind, other in file.kinds.items():
            if own is None or kind != own.kind:
                _verify(credentials.secret, other.stored)
        return None if own is None else Denied("wrong password")

    def _current(self) -> _File:
        try:
            return self._file.current()
        except OSError as error:
            log.error("%s cannot be read: %s", self._path, error.strerror)
            raise HTTPServiceUnavailable("The password file cannot be read") from error

    def _read(self, content: bytes) -> _File:
        users: dict[str, _Hash] = {}
        for line in content.decode("utf-8", "replace").splitlines():
            userid, colon, stored = line.strip().partition(":")
            if not colon or userid.startswith("#"):
                continue
            if (found := _parse(stored)) is None:
                log.warning("%s: %r has no password hash of a scheme that is accepted", self._path, userid)
            else:
                users.setdefault(userid, found)  # Apache takes the first
        if not users:
            log.warning("%s: there is no user with a password in it", self._path)
        return _File(users, {found.kind: found for found in users.values()})

    def _is_right(self, secret: str, stored: str) -> bool:
        """Whether that is the password; one that was right is not hashed again."""
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
