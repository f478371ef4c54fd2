"""Message ids: a prefix and a ULID, so that they are unique for ever and sort by time."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from random import Random

from ulid import ULID

COUNTED = 1 << 20  # how many ids one moment has: the last four of a ULID's digits count
DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

_PAIRS = [first + second for first in DIGITS for second in DIGITS]


class Ids:
    """Ids that sort in the order in which they were taken, in one process; shared by all threads.

    A ULID has 48 bits of milliseconds and 80 that are random; here each millisecond draws 60 and counts with the rest.
    They are no secrets: whoever knows one may not read its message for that.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._moment = (0, 0)  # milliseconds, and the process, which may be forked
        self._random = _seeded()
        self._stem = ""
        self._next = 0

    def take(self, count: int) -> list[str]:
        """That many ids, at most ``COUNTED``."""
        with self._lock:
            now, (then, pid) = time.time_ns() // 1_000_000, self._moment
            if now > then or self._next + count > COUNTED or pid != os.getpid():
                now = max(now, then + 1)  # also where a clock was set back
                self._moment = (now, os.getpid())
                if pid != os.getpid():
                    self._random = _seeded()
                self._stem = self._prefix + str(ULID(now.to_bytes(6, "big") + self._random.randbytes(10)))[:-4]
                self._next = 0
            first, stem = self._next, self._stem
            self._next += count
        return [f"{stem}{_PAIRS[number >> 10]}{_PAIRS[number & 1023]}" for number in range(first, first + count)]


def began(id: str, prefix: str) -> int | None:
    """When a message of ours was accepted, in milliseconds since 1970: its id says so. ``None``: it is not ours."""
    if id.startswith(prefix):
        with contextlib.suppress(ValueError):
            return int(ULID.from_str(id[len(prefix) :]).milliseconds)
    return None


def _seeded() -> Random:
    """A generator with a seed from the system: asking the system for each id would cost each send a system call."""
    return Random()  # noqa: S311 (an id is no secret)
