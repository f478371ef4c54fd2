"""The way into ``outgoing``, which is kept shallow: who enters now, and who waits in smsgw's own folder.

smsd looks at every file for each one that it takes, and moves what it finds in ``outgoing`` to its own queues, however
full they are, where nobody passes anybody. So no more than ``smsgw.outgoing_depth`` are to be in ``outgoing`` and the
emptiest queue together: one that nobody empties then holds up no other. What comes when they are full, or when others
wait already, is moved to ``waiting`` instead, and a message for later to ``scheduled``; from there ``feeder`` lets them
enter. Each is a plain rename, so that a message is in one of these folders, once, whenever a process dies.

How many files there are is not asked for each message: a process takes some of the room that it saw, and uses that up
first. Together, several processes can so exceed the depth by what they took, which is little where little is left.
Those who look for room for several take turns. Where somebody does not end its turn, several wait in ``waiting``.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from smsgw.spool import file
from smsgw.spool.disk import open_folder, sync_folder
from smsgw.spool.forks import begin_anew_in_children
from smsgw.spool.index import HEAD, is_message
from smsgw.spool.layout import Layout
from smsgw.spool.locks import Locks

# A name that smsd would pass over.
RECEIPT = ".receipt"

MOST = 32  # messages for which a process does not look again; a quarter of the room, where that is less
FRESH = 0.1  # seconds for which it does not
FULL = 0.02  # seconds for which an outgoing that was full is taken to be full


class Entrance:
    """The way into one ``outgoing``; shared by all threads.

    :param depth: how many files shall be with smsd at the most; 0: any number.
    :param fsync: whether what is moved waits for the disk.
    """

    def __init__(self, layout: Layout, locks: Locks, *, depth: int, fsync: bool) -> None:
        self._layout = layout
        self._locks = locks
        self._depth = depth
        self.must_sync = fsync
        self.waiting = layout.state / "waiting"
        self.scheduled = layout.state / "scheduled"
        self._receipts = layout.state / "receipts"
        self._begin()
        begin_anew_in_children(self, Entrance._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._entering = 0  # messages that may enter, and perhaps have not yet
        self._left = 0  # of the room that was taken, until that time
        self._until = 0.0

    @contextlib.contextmanager
    def place(self, send_at: datetime | None) -> Iterator[Path]:
        """The folder that a message for that time is to be moved to within the block.

        :raises OSError: nobody can know.
        """
        if is_later(send_at):
            yield self.scheduled
        else:
            with self._room(1) as room:
                yield self._layout.outgoing if room else self.waiting

    def release(self, name: str) -> None:
        """Complete a submission whose process died, or failed, before ``admit`` came to its end.

        What that had moved already is synced first: nothing tells which messages these were.

        :raises OSError: not all could be moved; to be called again.
        """
        if not (self._layout.state / "ready" / name).exists():
            return
        if self.must_sync:
            for folder in (self.scheduled, self.waiting, self._layout.outgoing, self._receipts):
                sync_folder(folder)
        self.admit(name)

    def admit(self, name: str) -> None:
        """Let a committed submission go its way, and its receipt to the receipts; its ``ready_lock`` is held.

        All of one submission are for the same time. Its folder is removed when all are on disk where they went to.

        :raises OSError: not all could be moved; ``release`` is to be called.
        """
        ready = self._layout.state / "ready" / name
        with contextlib.ExitStack() as opened:
            try:
                folder = open_folder(ready, opened)
            except FileNotFoundError:
                return
            names = set(os.listdir(folder))
            messages = sorted(names - {RECEIPT})
            if messages and is_later(_send_at(ready / messages[0])):
                self._move(folder, messages, self.scheduled)
            else:
                with self._room(len(messages)) as room:
                    self._move(folder, messages[:room], self._layout.outgoing)
                self._move(folder, messages[room:], self.waiting)
            if RECEIPT in names:
                os.rename(RECEIPT, self._receipts / name, src_dir_fd=folder)
                if self.must_sync:
                    sync_folder(self._receipts)
            os.rmdir(ready)

    @contextlib.contextmanager
    def feeding(self, count: int) -> Iterator[int]:
        """How many of so many that wait may enter within the block.

        :raises OSError: nobody can know.
        """
        if not self._depth:
            yield count
            return
        with contextlib.ExitStack() as held:
            self._takes_turn(held)  # where it does not, the depth may be exceeded by what the other one lets in
            with self._lock:
                self._left, self._until = 0, 0.0
                room = min(count, self._free())
                self._entering += room
            with self._counted(room):
                yield room

    @contextlib.contextmanager
    def _room(self, count: int) -> Iterator[int]:
        """How many of so many that have just come may enter within the block: none where others wait already."""
        if not self._depth:
            yield count
            return
        with contextlib.ExitStack() as held:
            if count > 1 and not self._takes_turn(held):
                yield 0
                return
            with self._lock:
                if time.monotonic() >= self._until or 0 < self._left < count:
                    self._look(count)
                room = min(count, self._left)
                self._left -= room
                self._entering += room
                if room and not self._left:
                    self._until = 0.0
            with self._counted(room):
                yield room

    def _takes_turn(self, held: contextlib.ExitStack) -> bool:
        """Take turns with other processes that look for room for several, until ``held`` is closed.

        ``False``: one of them has had its turn for too long, such as one that was stopped.
        """
        try:
            held.enter_context(self._locks.take("entrance"))
        except TimeoutError:
            return False
        return True

    def _look(self, count: int) -> None:
        free = 0 if self._is_anybody_waiting() else self._free()
        self._left = min(free, max(count, min(free // 4, MOST)))
        self._until = time.monotonic() + (FRESH if free else FULL)

    @contextlib.contextmanager
    def _counted(self, room: int) -> Iterator[None]:
        try:
            yield
        finally:
            with self._lock:
                self._entering -= room

    def _free(self) -> int:
        """How many could enter; those that are entering may have been counted twice, and none was left out."""
        queued = min(map(_count_queue, self._layout.folders["checked"]), default=0)
        return max(self._depth - _count(self._layout.outgoing) - queued - self._entering, 0)

    def _is_anybody_waiting(self) -> bool:
        with os.scandir(self.waiting) as entries:
            return any(is_message(entry.name) and entry.is_file(follow_symlinks=False) for entry in entries)

    def _move(self, folder: int, messages: Sequence[str], target: Path) -> None:
        if messages:
            with contextlib.ExitStack() as opened:
                fd = open_folder(target, opened)
                for message in messages:
                    os.rename(message, message, src_dir_fd=folder, dst_dir_fd=fd)
                if self.must_sync:
                    os.fsync(fd)


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


def ready_lock(name: str) -> str:
    """The lock that whoever moves a committed submission on holds."""
    return f"ready {name}"


def is_later(send_at: datetime | None) -> bool:
    return send_at is not None and send_at > datetime.now(UTC)


def _send_at(path: Path) -> datetime | None:
    try:
        return file.send_at(file.parse(file.read(path, HEAD)[0]).headers)
    except FileNotFoundError:  # no file at all: whoever it is moved to says so
        return None
