"""What the directory has said yes to, for a while: answered again without asking it."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict

from smsgw.model import Identity

REMEMBERED = 1000  # passwords; the rest is asked for again


class Verified:
    """Identities by a keyed digest of userid and password, never by these themselves.

    :param seconds: for how long; 0: not at all.
    """

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._key = secrets.token_bytes(32)
        self._found: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, userid: str, secret: str) -> Identity | None:
        digest = self._digest(userid, secret)
        with self._lock:
            since, identity = self._found.get(digest, (None, None))
            if since is None:
                return None
            if time.monotonic() - since < self._seconds:
                self._found.move_to_end(digest)
                return identity
            del self._found[digest]
            return None

    def keep(self, userid: str, secret: str, identity: Identity, since: float) -> None:
        """:param since: when the directory was asked, of ``time.monotonic()``."""
        if not self._seconds:
            return
        with self._lock:
            self._found[self._digest(userid, secret)] = since, identity
            if len(self._found) > REMEMBERED:
                self._found.popitem(last=False)

    def _digest(self, userid: str, secret: str) -> bytes:
        return hashlib.blake2b(f"{userid}\0{secret}".encode(), key=self._key).digest()
