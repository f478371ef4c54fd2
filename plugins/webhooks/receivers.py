"""How many attempts may be under way, so that receivers that are slow or dead hold up nobody else."""

from __future__ import annotations

from collections import Counter

EACH = 8  # attempts under way for one receiver; for one that failed the last time: one
QUICK, TROUBLED = 256, 128  # attempts under way for all that answer in time, and for all that do not
SLOW = 1.0  # seconds


class Receivers:
    """Counts the attempts under way, by the ids of webhooks.

    Receivers that failed or were slow the last time are troubled. They have a lane of their own: however many they are,
    the others keep theirs.
    """

    def __init__(self) -> None:
        self._failing: set[str] = set()
        self._slow: set[str] = set()
        self._under_way: Counter[str] = Counter()
        self._lanes: Counter[bool] = Counter()

    def room(self, id: str) -> int:
        """How many more attempts for that receiver may begin."""
        is_troubled = self._is_troubled(id)
        lane = (TROUBLED if is_troubled else QUICK) - self._lanes[is_troubled]
        return max(0, min(lane, (1 if id in self._failing else EACH) - self._under_way[id]))

    def begin(self, id: str) -> bool:
        """An attempt begins. The answer is its lane, for ``end``."""
        lane = self._is_troubled(id)
        self._under_way[id] += 1
        self._lanes[lane] += 1
        return lane

    def end(self, id: str, lane: bool, *, is_failure: bool, seconds: float) -> None:
        for known, is_so in ((self._failing, is_failure), (self._slow, seconds > SLOW)):
            (known.add if is_so else known.discard)(id)
        self._lanes[lane] -= 1
        self._under_way[id] -= 1
        if not self._under_way[id]:
            del self._under_way[id]

    def _is_troubled(self, id: str) -> bool:
        return id in self._failing or id in self._slow
