"""How often users have names looked up: nobody makes the gateway ask name servers without end."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable

from smsgw.model import TooMany

MINUTE = 60  # seconds
SPARE = 10  # look-ups a minute beyond those for as many webhooks as a user may have


class LookUps:
    """Counts them for a minute, in one process; shared by threads.

    :param most: how many each user may have in a minute.
    :param clock: seconds since 1970 (UTC).
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._until = 0.0

    def count(self, userid: str) -> None:
        """One more, of that user.

        :raises TooMany: it would be one too many.
        """
        now = self._clock()
        with self._lock:
            if not 0 < self._until - now <= MINUTE:
                self._counts.clear()
                self._until = now + MINUTE
            if self._counts[userid] >= self._most:
                wait = math.ceil(self._until - now)
                raise TooMany(wait, f"You may try to register {self._most} webhooks a minute; try again later")
            self._counts[userid] += 1
