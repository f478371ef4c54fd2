"""How many messages may enter ``outgoing`` now.

smsd looks at every file for each one that it takes. It moves what it finds in ``outgoing`` to its own queues, however
full these are, and nobody passes anybody there. So ``outgoing`` and the emptiest queue of smsd together are to hold no
more than ``smsgw.outgoing_depth`` files. Then a queue that nobody empties holds up no other.

The folders are not counted for each message: a process takes some of the room that it saw, and uses that up first. So
several processes can together exceed the depth by what they took.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from smsgw.spool.forks import begin_anew_in_children
from smsgw.spool.layout import Layout

MOST = 32  # messages for which a process does not count again; a quarter of the room, where that is less
FRESH = 0.1  # seconds for which it does not
FULL = 0.02  # seconds for which an outgoing that was full is taken to be full


class Room:
    """The room in one ``outgoing``; shared by all threads.

    :param depth: how many files shall be with smsd at the most; 0: any number.
    :param is_anybody_waiting: whether messages wait for their turn already.
    """

    def __init__(self, layout: Layout, depth: int, is_anybody_waiting: Callable[[], bool]) -> None:
        self._layout = layout
        self._depth = depth
        self._is_anybody_waiting = is_anybody_waiting
        self._begin()
        begin_anew_in_children(self, Room._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._entering = 0  # messages that may enter, and perhaps have not yet
        self._left = 0  # of the room that was taken, until that time
        self._until = 0.0

    @contextlib.contextmanager
    def for_new(self, count: int) -> Iterator[int]:
        """How many of so many that have just come may enter within the block: none where others wait already.

        :raises OSError: the folders cannot be read.
        """
        with self._entered(lambda: self._take(count), count) as room:
            yield room

    @contextlib.contextmanager
    def for_waiting(self) -> Iterator[int]:
        """How many of those that wait may enter within the block.

        :raises OSError: the folders cannot be read.
        """
        with self._entered(self._take_all, sys.maxsize) as room:
            yield room

    @contextlib.contextmanager
    def _entered(self, take: Callable[[], int], most: int) -> Iterator[int]:
        if not self._depth:
            yield most
            return
        with self._lock:
            room = take()
            self._entering += room
        try:
            yield room
        finally:
            with self._lock:
                self._entering -= room

    def _take(self, count: int) -> int:
        if time.monotonic() >= self._until or 0 < self._left < count:
            free = 0 if self._is_anybody_waiting() else self._free()
            self._left = min(free, max(count, min(free // 4, MOST)))
            self._until = time.monotonic() + (FRESH if free else FULL)
        room = min(count, self._left)
        self._left -= room
        if room and not self._left:
            self._until = 0.0
        return room

    def _take_all(self) -> int:
        self._left, self._until = 0, time.monotonic() + FULL  # what comes meanwhile waits behind those
        return self._free()

    def _free(self) -> int:
        """How many could enter; those that are entering may have been counted twice, and none was left out."""
        queued = min(map(_count_queue, self._layout.folders["checked"]), default=0)
        return max(self._depth - _count(self._layout.outgoing) - queued - self._entering, 0)


def _count(folder: Path) -> int:
    """How many files smsd would look at."""
    with os.scandir(folder) as entries:
        return sum(
            not entry.name.startswith(".")
            and not entry.name.endswith(".LOCK")
            and not entry.is_dir(follow_symlinks=False)
            for entry in entries
        )


def _count_queue(queue: Path) -> int:
    try:
        return _count(queue)
    except OSError:  # it is smsd's own, which is no reason to let nobody in
        return 0
