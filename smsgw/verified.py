"""Remembers verified secrets, so that the slow hash, directory or signature is asked less often. Public.

``docs/recipes.md``, "A slow backend", shows it.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import threading
import time
from collections import OrderedDict
from typing import Generic, TypeVar

REMEMBERED = 1000  # secrets; those that were used longest ago are verified again

T = TypeVar("T")


class Verified(Generic[T]):
    """Results of verified secrets, by a keyed digest. The secrets themselves are not kept.

    :param seconds: for how long; 0: not at all.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._seconds = seconds
        self._key = secrets.token_bytes(32)
        self._found: OrderedDict[bytes, tuple[float, T]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, *words: str) -> T | None:
        """What was kept for exactly these words; ``None``: nothing, or it is too old."""
        digest = self._digest(words)
        with self._lock:
            since, found = self._found.get(digest, (-math.inf, None))
            if time.monotonic() - since < self._seconds:
                self._found.move_to_end(digest)
                return found
            self._found.pop(digest, None)
            return None

    def keep(self, found: T, *words: str, since: float | None = None) -> None:
        """
        :param words: the secret, and what it was verified with, such as the userid.
        :param since: when somebody was asked, of ``time.monotonic()``; ``None``: now.
        """
        if not self._seconds:
            return
        with self._lock:
            self._found[self._digest(words)] = time.monotonic() if since is None else since, found
            if len(self._found) > REMEMBERED:
                self._found.popitem(last=False)

    def _digest(self, words: tuple[str, ...]) -> bytes:
        encoded = [word.encode(errors="surrogatepass") for word in words]
        # With its length before each, no other words have the same digest.
        return hashlib.blake2b(b"".join(b"%d:%b" % (len(each), each) for each in encoded), key=self._key).digest()
