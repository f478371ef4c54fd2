"""How many attempts may be under way, so that receivers which are slow or dead hold up nobody else."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

EACH = 8  # attempts under way for one receiver; one that failed gets one at a time
QUICK, TROUBLED = 256, 128  # for all that answer in time, and for all that do not
SLOW = 1.0  # seconds


@dataclass(slots=True)
class _Receiver:
    """What is known of a receiver by its last attempt, and how many are under way in which lane."""

    is_failing: bool = False
    is_slow: bool = False

    @property
    def is_troubled(self) -> bool:
        return self.is_failing or self.is_slow


class Receivers:
    """Counts the attempts under way; shared by threads.

    Receivers that failed, or were slow, the last time share a lane of their own: however many they are, the others have
    theirs to themselves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Receiver] = {}
        self._under_way: Counter[str] = Counter()
        self._lanes: Counter[bool] = Counter()

    def room(self, id: str) -> int:
        """How many more attempts for that receiver may begin."""
        with self._lock:
            receiver = self._known.get(id) or _Receiver()
            lane = (TROUBLED if receiver.is_troubled else QUICK) - self._lanes[receiver.is_troubled]
            return max(0, min(lane, (1 if receiver.is_failing else EACH) - self._under_way[id]))

    def begin(self, id: str) -> bool:
        """An attempt begins; the lane that it is in, for ``end``."""
        with self._lock:
            lane = self._known.setdefault(id, _Receiver()).is_troubled
            self._under_way[id] += 1
            self._lanes[lane] += 1
            return lane

    def end(self, id: str, lane: bool, *, is_failure: bool, seconds: float) -> None:
        with self._lock:
            self._known[id] = _Receiver(is_failure, seconds > SLOW)
            self._under_way[id] -= 1
            self._lanes[lane] -= 1
            if not self._under_way[id]:
                del self._under_way[id]
                if not self._known[id].is_troubled:
                    del self._known[id]  # as good as unknown
