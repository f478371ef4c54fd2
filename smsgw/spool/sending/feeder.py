"""Lets messages that wait in smsgw's own folders enter ``outgoing``: as it empties, and at their time.

Run by the spool's one owner, in a thread. High priority enters first; of each priority users take turns, and each
user's messages enter in the order of their ids. Each step is a rename: before it the message can be taken back by
another. A rename that was not on disk when the power failed can be undone by that, so a message that smsd has, or that
was cancelled, is never let in again.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from smsgw.spool.file import is_message
from smsgw.spool.following.watch import Watch
from smsgw.spool.layout import Layout
from smsgw.spool.sending.queue import PRIORITIES, Queue

PERIOD = 1.0  # seconds between two looks at the clock, which can be set
RETRY = 5.0  # seconds until what failed is tried again
FAILURES = 8  # in one look, after which the spool is taken to be out of service

log = logging.getLogger(__name__)


class Feeder:
    """Feeds one ``outgoing``."""

    def __init__(self, layout: Layout, queue: Queue) -> None:
        self._layout = layout
        self._queue = queue
        self._smsd = (layout.outgoing, *layout.folders["checked"])
        self._taken_back = (layout.state / "cancelling", layout.state / "cancelled")
        self._running = threading.Lock()  # a thread can still be at it when the spool was lost and won again
        self._watch = Watch()
        self._forget()

    def _forget(self) -> None:
        self._lists: dict[tuple[str, str], deque[tuple[str, Path]]] = {}  # by priority and user: ids and folders
        self._last: dict[str, str] = {}  # by priority: the user who had the last turn
        self._aside: dict[Path, float] = {}  # what failed, and when it is tried again
        self._failures = 0
        self._is_full = False  # whether the last look used up all the room
        self._told: set[str] = set()  # of what goes wrong, what was logged

    def run(self, stop: threading.Event) -> None:
        """Look and feed until ``stop`` is set."""
        with self._running, contextlib.closing(self._watch):
            self._forget()
            while not stop.is_set():
                try:
                    pause = self.look()
                except OSError as error:
                    self._tell(self._layout.outgoing, error)
                    self._watch.close()  # so that all is news the next time
                    stop.wait(PERIOD)
                else:
                    self._watch.wait(pause, stop)

    def wake(self) -> None:
        """Look at once; it is time to stop, perhaps."""
        self._watch.wake()

    def look(self) -> float:
        """Let all enter that may; in how many seconds to look again, if nothing happens before.

        :raises OSError: the folders cannot be read.
        """
        self._failures = 0
        places = [self._queue.scheduled, self._queue.waiting, *(self._queue.waiting / name for name in PRIORITIES)]
        waiting = [each for priority in PRIORITIES for each in self._queue.turns(priority).values()]
        was_full, self._is_full = self._is_full, False
        is_followed = bool(waiting)  # what smsd does
        # Until smsd takes something nothing can enter: nobody need be woken by each message that comes to wait.
        comes = () if was_full else itertools.chain(places, *waiting)
        self._watch.news(itertools.chain(comes, self._smsd if is_followed else ()))
        self._retry()
        self._adopt()
        next_time = self._let_join()
        if self._queue.is_anybody_waiting():
            with self._queue.room.for_waiting() as room:
                self._is_full = self._feed(room) == room
            if not is_followed:
                return 0.0
        if was_full and not self._is_full:
            return 0.0
        if not self._aside:
            self._told.clear()
        return min(max(next_time - time.time(), 0.0), PERIOD)

    def _adopt(self) -> None:
        """Let messages that lie beside the folders wait with the others."""
        for folder in (self._queue.scheduled, self._queue.waiting):
            with os.scandir(folder) as entries:
                found = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
            for name in filter(is_message, found):
                self._try(self._queue.adopt, folder / name)

    def _let_join(self) -> float:
        """Let messages whose time has come join those that wait; when the next ones come (seconds since 1970)."""
        for when, folder in self._queue.due():
            if when > time.time():
                return when
            self._try(self._queue.join, folder)
        return time.time() + PERIOD

    def _feed(self, room: int) -> int:
        """Let as many enter as there is room; how many did."""
        fed = 0
        for priority in PRIORITIES:
            users = self._queue.turns(priority)
            names = sorted(users)
            first = bisect.bisect_right(names, self._last.get(priority, ""))
            turns = deque([*names[first:], *names[:first]])
            while turns and fed < room and self._failures < FAILURES:
                user = turns.popleft()
                if (path := self._next(priority, user, users[user])) is not None:
                    self._last[priority] = user
                    fed += self._enter(path)
                    turns.append(user)
        if fed:
            self._queue.sync(self._layout.outgoing)
        return fed

    def _next(self, priority: str, user: str, folders: Sequence[Path]) -> Path | None:
        """The message of that user that has to enter next; ``None``: none waits."""
        names = self._lists.get((priority, user))
        if not names:
            found = ((name, folder) for folder in folders for name in self._queue.messages(folder))
            names = deque(sorted((name, folder) for name, folder in found if folder / name not in self._aside))
            self._lists[priority, user] = names
        if names:
            name, folder = names.popleft()
            return folder / name
        del self._lists[priority, user]
        for folder in folders:
            self._queue.remove(folder)
        return None

    def _enter(self, path: Path) -> bool:
        """Whether that message entered ``outgoing`` now."""
        if self._layout.has(path.name) or any((folder / path.name).exists() for folder in self._taken_back):
            log.warning("%s was sent or cancelled before; its copy is removed", path)
            path.unlink(missing_ok=True)
            return False
        return self._try(self._queue.enter, path)

    def _try(self, move: Callable[[Path], None], path: Path) -> bool:
        """Whether it was moved; where that fails it is tried again later, and holds up nobody else."""
        if path in self._aside or self._failures >= FAILURES:
            return False
        try:
            move(path)
            return True
        except OSError as error:
            if os.path.lexists(path):  # otherwise it was taken back
                self._failures += 1
                self._aside[path] = time.monotonic() + RETRY
                self._tell(path, error)
            return False

    def _retry(self) -> None:
        now = time.monotonic()
        if due := [path for path, then in self._aside.items() if then <= now]:
            for path in due:
                del self._aside[path]
            self._lists.clear()  # in which they are not

    def _tell(self, path: Path, error: OSError) -> None:
        """Log what goes wrong, once for all messages."""
        if (reason := error.strerror or str(error)) not in self._told:
            log.error("messages wait for %s: %s: %s; it is tried again", self._layout.outgoing, path, reason)
        self._told.add(reason)
