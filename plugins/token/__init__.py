"""``token``: API tokens, made and revoked on the command line, and shown as Bearer or as the password of Basic."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pyramid.config import Configurator
from pyramid.security import Denied

from smsgw.files import stamp
from smsgw.hookspecs import hookimpl
from smsgw.model import Credentials, Identity, Unavailable
from smsgw.store import open_store
from smsgw.verified import Verified

from . import table
from .commands import commands
from .table import SCRIPTS, TABLES, TOKENS, Record
from .text import PREFIX, digest, is_token

USED = 60  # seconds between two notes of a token's use
CREDENTIAL = "token:"  # how the credential of an identity begins; the token's id follows

log = logging.getLogger(__name__)


class Token:
    """An authentication backend. A revoked token is refused from the next request on.

    :param clock: seconds since 1970 (UTC).
    """

    schemes = ("Bearer", "Basic")
    commands = commands

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._found = Verified[tuple[tuple[int, ...], Record]]()
        self._noted = Verified[bool](USED)  # ids of tokens whose use was noted, or could not be

    def includeme(self, config: Configurator) -> None:
        self._store = open_store(config.registry, TABLES, SCRIPTS)

    @hookimpl
    def authenticate(self, credentials: Credentials) -> Identity | Denied | None:
        secret = credentials.secret
        if credentials.scheme not in self.schemes or not secret.startswith(PREFIX):
            return None
        if not is_token(secret):
            return Denied("the token is misspelt")
        record, now = self._find(secret), self._clock()
        if record is None:
            return Denied("there is no such token")
        if (state := record.state(now)) != "active":
            return Denied(f"the token is {state}")
        if credentials.scheme == "Basic" and credentials.userid != record.owner:
            return Denied("the token is another user's")
        if record.used is None or now - record.used >= USED:
            self._note_use(record.id, now)
        return Identity(record.owner, frozenset(record.groups.split()), f"{CREDENTIAL}{record.id}")

    @hookimpl
    def holds(self, credential: str) -> bool | None:
        if not credential.startswith(CREDENTIAL):
            return None
        record = table.find(self._store, TOKENS.c.id == credential.removeprefix(CREDENTIAL))
        return record is not None and record.state(self._clock()) == "active"

    def _find(self, secret: str) -> Record | None:
        """The token as the database has it. SQLite is not asked again while its file is unchanged."""
        try:
            current = stamp(self._store.path) if self._store.path else None
        except OSError:
            current = None
        known = self._found.find(secret) if current else None
        if known is not None and known[0] == current:
            return known[1]
        record = table.find(self._store, TOKENS.c.digest == digest(secret))
        if current is not None and record is not None:
            self._found.keep((current, record), secret)
        return record

    def _note_use(self, id: str, now: float) -> None:
        """Note that it was used, once a minute. A note that fails refuses nobody."""
        if self._noted.find(id):
            return
        self._noted.keep(True, id)
        try:
            table.note_use(self._store, id, int(now))
        except Unavailable as error:
            log.warning("the use of the token %s could not be noted (%s)", id, error.__cause__)
