"""Locks by name that all processes on one spool share, and that die with their process.

A lock is one byte of the file ``locks`` in smsgw's own folder, at an offset made from its name: an open file
description lock (``F_OFD_SETLK`` in fcntl(2)), which threads do not share either. Nothing has to be cleaned up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
import time
import weakref
from pathlib import Path
from types import TracebackType

from smsgw.spool.disk import sync_folder
from smsgw.spool.forks import begin_anew_in_children

# In smsgw's own folder: what each process is writing, what is committed, messages for later and for their turn, replies
# under an Idempotency-Key, messages that are being taken back and that were, and wrong passwords.
FOLDERS = (
    *("writers", "ready", "scheduled", "waiting", "waiting/high", "waiting/normal"),
    *("receipts", "cancelling", "cancelled", "guesses"),
)

PATIENCE = 3.0  # seconds for which a lock that another holds is waited for; a cancel holds one for a second
SHORTEST, LONGEST = 0.0005, 0.02  # seconds between two looks at it


class Lock:
    """A lock that is held, until ``release``, the end of a ``with`` block, or of the process."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd: int | None = fd

    def is_shared(self) -> bool:
        """Whether others still see this lock; they do not where the folder was taken away or made anew."""
        try:
            return self._fd is not None and os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except OSError:
            return False

    def release(self) -> None:
        """Let go, also of what a process that is just being forked has of it."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _request(fcntl.F_UNLCK, 0, 0))
            self.abandon()

    def abandon(self) -> None:
        """Have no part in it any more; others who have it keep it."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


class Locks:
    """The locks of one spool. Whoever writes to smsgw's own folder takes one first, which makes the folder.

    :param folder: smsgw's own folder, in one that exists by the time that a lock is taken.
    :param fsync: whether folders that are made wait for the disk.
    """

    def __init__(self, folder: Path, *, fsync: bool = True) -> None:
        self._folder = folder
        self._fsync = fsync
        self._path = folder / "locks"
        self._made = False
        self._held: weakref.WeakSet[Lock] = weakref.WeakSet()
        begin_anew_in_children(self, Locks._abandon)

    def make(self) -> None:
        """Make smsgw's own folder, where it is not there yet.

        :raises OSError: there is no spool, or it cannot be written to.
        """
        for folder in (self._folder, *(self._folder / name for name in FOLDERS)):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
                self._made = False
        if self._fsync and not self._made:  # also what another process has just made, and perhaps not synced yet
            for folder in (self._folder / "waiting", self._folder):
                sync_folder(folder)
            with contextlib.suppress(PermissionError):  # the operator made it, in a folder that smsgw cannot read
                sync_folder(self._folder.parent)
        self._made = True

    def take(self, name: str) -> Lock:
        """The lock of that name, when it is free.

        Whoever holds a lock does so for a moment, unless their process is stopped, or their disk hangs; nobody waits
        for that.

        :raises TimeoutError: it was not free within ``PATIENCE`` seconds.
        :raises OSError: the folder cannot be written to.
        """
        deadline, pause = time.monotonic() + PATIENCE, SHORTEST
        while (lock := self.try_take(name)) is None:
            if time.monotonic() >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process of smsgw holds a lock and does not go on")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST)
        return lock

    def try_take(self, name: str) -> Lock | None:
        """The lock of that name; ``None`` where somebody else holds it.

        :raises OSError: the folder cannot be written to.
        """
        offset = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 2
        fd = self._open()
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _request(fcntl.F_WRLCK, offset, 1))
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        lock = Lock(self._path, fd)
        self._held.add(lock)
        return lock

    def _open(self) -> int:
        if self._made:
            try:
                return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                pass  # the spool was taken away, and perhaps made anew
        self.make()
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _abandon(self) -> None:
        """A process that forked has no part in its parent's locks, which die with that."""
        for lock in self._held:
            lock.abandon()
        self._held = weakref.WeakSet()


def _request(kind: int, start: int, length: int) -> bytes:
    """The kernel's struct flock: l_type, l_whence, l_start, l_len (0: to the end), l_pid (0 for this kind of lock)."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
