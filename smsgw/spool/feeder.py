"""Lets messages that wait in smsgw's own folder enter ``outgoing``: as it empties, and at their time.

Run by the spool's one owner, in a thread. What waits for its turn is in ``waiting``, and what is for later in
``scheduled``, from where it joins the others when its time has come. Each step is a rename, after which the message is
on, and before which it can be taken back by another. A rename that was not on disk when the power failed can be undone
by that, so a message that smsd has, or that was cancelled, is never let in again.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import threading
import time
from collections.abc import Mapping, Set
from pathlib import Path

from smsgw.spool import file
from smsgw.spool.disk import sync_folder
from smsgw.spool.entrance import Entrance
from smsgw.spool.following.watch import Watch
from smsgw.spool.index import HEAD, is_message
from smsgw.spool.layout import Layout
from smsgw.spool.turns import Turns

PERIOD = 1.0  # seconds between two looks at the clock, which can be set
RETRY = 5.0  # seconds until what failed is tried again
STALE = 1000  # times that hold no more, as of messages that were cancelled, and are kept
FAILURES = 8  # in one look, after which the spool is taken to be out of service

log = logging.getLogger(__name__)


class Feeder:
    """Feeds one ``outgoing``."""

    def __init__(self, layout: Layout, entrance: Entrance) -> None:
        self._layout = layout
        self._entrance = entrance
        self._smsd = (layout.outgoing, *layout.folders["checked"])
        self._taken_back = (layout.state / "cancelling", layout.state / "cancelled")
        self._running = threading.Lock()  # a thread can still be at it when the spool was lost and won again
        self._watch = Watch()
        self._forget()

    def _forget(self) -> None:
        self._turns = Turns()
        self._scheduled: dict[str, float] = {}  # the time of each message
        self._times: list[tuple[float, str]] = []  # these, the next one first, and some that hold no more
        self._aside: dict[tuple[Path, str], float] = {}  # what failed, and when it is tried again
        self._failures = 0
        self._told: set[str] = set()  # of what goes wrong, what was logged

    def run(self, stop: threading.Event) -> None:
        """Look and feed until ``stop`` is set."""
        with self._running, contextlib.closing(self._watch):
            self._forget()
            while not stop.is_set():
                try:
                    pause = self.look(stop)
                except OSError as error:
                    self._tell(self._layout.outgoing, error)
                    self._watch.close()  # so that all is news the next time
                    stop.wait(PERIOD)
                else:
                    self._watch.wait(pause, stop)

    def wake(self) -> None:
        """Look at once; it is time to stop, perhaps."""
        self._watch.wake()

    def look(self, stop: threading.Event) -> float:
        """Let all enter that may; in how many seconds to look again, if nothing happens before.

        :raises OSError: the folders cannot be read.
        """
        self._failures = 0
        folders: dict[Path, Set[str]] = {
            self._entrance.scheduled: self._scheduled.keys(),
            self._entrance.waiting: self._turns.names,
        }
        is_followed = bool(self._turns.names)  # what smsd does
        news = self._watch.news([*folders, *(self._smsd if is_followed else ())])
        for folder, known in folders.items():
            if folder in news:
                self._see(folder, known, news[folder], stop)
        self._try_again()
        self._let_join()
        self._feed()
        if not self._aside:
            self._told.clear()
        if self._turns.names and not is_followed:
            return 0.0
        next_time = self._times[0][0] - time.time() if self._times else PERIOD
        return min(max(next_time, 0.0), PERIOD)

    def _see(self, folder: Path, known: Set[str], names: set[str] | None, stop: threading.Event) -> None:
        """Find out about files of these names, or about all."""
        if names is None:
            names = set(os.listdir(folder)) ^ known
        for name in sorted(names):
            if stop.is_set():
                return
            self._see_one(folder, name)

    def _see_one(self, folder: Path, name: str) -> None:
        try:
            headers = self._headers(folder / name) if is_message(name) else None
        except OSError as error:
            headers = None
            self._put_aside(folder, name, error)
        if folder == self._entrance.scheduled:
            if headers is None:
                self._scheduled.pop(name, None)
            elif name not in self._scheduled:
                at = file.send_at(headers)
                self._scheduled[name] = at.timestamp() if at else 0.0
                heapq.heappush(self._times, (self._scheduled[name], name))
        elif headers is None:
            self._turns.discard(name)
        else:
            self._turns.add(name, headers.get("From"), headers.get("Priority", "").upper() == "HIGH")

    def _headers(self, path: Path) -> Mapping[str, str] | None:
        """What a message's file says; ``None``: there is none.

        :raises OSError: it cannot be read.
        """
        try:
            return file.parse(file.read(path, HEAD)[0]).headers
        except FileNotFoundError:
            return None

    def _try_again(self) -> None:
        now = time.monotonic()
        for folder, name in [aside for aside, then in self._aside.items() if then <= now]:
            del self._aside[folder, name]
            self._see_one(folder, name)

    def _put_aside(self, folder: Path, name: str, error: OSError) -> None:
        self._aside[folder, name] = time.monotonic() + RETRY
        self._tell(folder / name, error)

    def _let_join(self) -> None:
        """Let messages whose time has come join those that wait."""
        if len(self._times) > 2 * len(self._scheduled) + STALE:
            self._times = sorted((at, name) for name, at in self._scheduled.items())
        has_joined = False
        while self._times and self._times[0][0] <= time.time() and self._failures < FAILURES:
            at, name = heapq.heappop(self._times)
            if self._scheduled.get(name) == at:
                del self._scheduled[name]
                if self._move(self._entrance.scheduled, name, self._entrance.waiting):
                    self._see_one(self._entrance.waiting, name)
                    has_joined = True
        if has_joined and self._entrance.must_sync:
            sync_folder(self._entrance.waiting)

    def _feed(self) -> None:
        if not self._turns.names:
            return
        with self._entrance.feeding(len(self._turns.names)) as room:
            fed = 0
            while fed < room and self._failures < FAILURES and (name := self._turns.take()) is not None:
                fed += self._enter(name)
        if fed and self._entrance.must_sync:
            sync_folder(self._layout.outgoing)

    def _enter(self, name: str) -> bool:
        """Whether that message entered ``outgoing`` now."""
        path = self._entrance.waiting / name
        if self._layout.has(name) or any((folder / name).exists() for folder in self._taken_back):
            log.warning("%s was sent or cancelled before; its copy is removed", path)
            path.unlink(missing_ok=True)
            return False
        with contextlib.suppress(OSError):
            os.utime(path, follow_symlinks=False)  # smsd takes the oldest first, and they shall go in turn
        return self._move(self._entrance.waiting, name, self._layout.outgoing)

    def _move(self, folder: Path, name: str, target: Path) -> bool:
        """Whether it was moved; where that fails it is tried again later, and holds up nobody else."""
        try:
            os.rename(folder / name, target / name)
            return True
        except OSError as error:
            if os.path.lexists(folder / name):  # otherwise it was taken back
                self._failures += 1
                self._put_aside(folder, name, error)
            return False

    def _tell(self, path: Path, error: OSError) -> None:
        """Log what goes wrong, once for all messages."""
        if (reason := error.strerror or str(error)) not in self._told:
            log.error("messages wait for %s: %s: %s; it is tried again", self._layout.outgoing, path, reason)
        self._told.add(reason)
