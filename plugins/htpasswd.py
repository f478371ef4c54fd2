"""``htpasswd``: users and passwords in a file that Apache's ``htpasswd`` keeps; a change in it takes effect at once."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import colander
from passlib.context import CryptContext
from passlib.exc import PasswordSizeError, PasswordValueError, UnknownHashError
from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.security import Denied

from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Credentials, Identity

# No plain text and no DES, which an attacker who has read the file need not break.
HASHES = CryptContext(["bcrypt", "apr_md5_crypt", "ldap_sha1", "sha256_crypt", "sha512_crypt"])
REMEMBERED = 1000  # verified passwords; the rest is hashed again
RACY = 0.1  # seconds: a file written twice within a clock tick may look as if it was written once

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Hash:
    """A stored password; all of one ``kind``, which is a scheme and its rounds, cost the same time to check."""

    kind: tuple[str, int]
    stored: str


@dataclass(frozen=True, slots=True)
class _File:
    """The file as it was read: ``stamp`` tells whether it is the same still, ``kinds`` has a hash of each kind."""

    stamp: tuple[int, ...]
    users: dict[str, _Hash]
    kinds: dict[tuple[str, int], _Hash]


class Htpasswd:
    """An authentication backend. Every wrong answer costs one hash of each kind in the file, whoever asks."""

    class Settings(colander.MappingSchema):
        path = colander.SchemaNode(colander.String(), description="Apache's password file")

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        try:
            self._file = self._read()
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
            stamp = _stamp(os.stat(self._path))
            if stamp != self._file.stamp or time.time() - stamp[0] / 1e9 < RACY:
                self._file = self._read()
        except OSError as error:
            log.error("%s cannot be read: %s", self._path, error.strerror)
            raise HTTPServiceUnavailable("The password file cannot be read") from error
        return self._file

    def _read(self) -> _File:
        with open(self._path, "rb") as stream:
            stamp = _stamp(os.fstat(stream.fileno()))
            lines = stream.read().decode("utf-8", "replace").splitlines()
        users: dict[str, _Hash] = {}
        for line in lines:
            userid, colon, stored = line.strip().partition(":")
            if not colon or userid.startswith("#"):
                continue
            if (found := _parse(stored)) is None:
                log.warning("%s: %r has no password hash of a scheme that is accepted", self._path, userid)
            else:
                users.setdefault(userid, found)  # Apache takes the first
        if not users:
            log.warning("%s: there is no user with a password in it", self._path)
        return _File(stamp, users, {found.kind: found for found in users.values()})

    def _is_right(self, secret: str, stored: str) -> bool:
        """Whether that is the password; once verified, it is known again by a keyed digest."""
        shown = f"{stored}\0{secret}".encode(errors="surrogatepass")
        digest = hashlib.blake2b(shown, key=self._key).digest()
        with self._lock:
            if digest in self._verified:
                self._verified.move_to_end(digest)
                return True
        if not _verify(secret, stored):
            return False
        with self._lock:
            self._verified[digest] = None
            if len(self._verified) > REMEMBERED:
                self._verified.popitem(last=False)
        return True


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


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
