"""Takes a message back before smsd sends it.

What waits in smsgw's own folders is moved away, and that is all. What is in ``outgoing`` takes ``GRACE`` seconds: to
unlink it alone would lose a race against smsd, which opens a file, may write it anew under the same name, and only then
removes it. So smsd is kept away by a lock file of its own kind, and shows by what it does meanwhile whether it had the
message.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from smsgw.spool.disk import SpoolUnavailable, unavailable
from smsgw.spool.file import is_message
from smsgw.spool.layout import Layout
from smsgw.spool.locks import Locks
from smsgw.spool.sending.queue import Queue

GRACE = 1.0  # seconds in which smsd shows whether it had a file that was taken from it

log = logging.getLogger(__name__)


class Cancel:
    """Takes messages of one spool back; shared by all threads."""

    def __init__(self, layout: Layout, locks: Locks, queue: Queue) -> None:
        self._layout = layout
        self._locks = locks
        self._queue = queue
        self._taken, self._cancelled = layout.state / "cancelling", layout.state / "cancelled"

    def cancel(self, id: str) -> bool:
        """Move a message to the cancelled ones: when this returns true, it will never be sent.

        Otherwise smsd has it, or it is gone.

        :raises SpoolUnavailable: nothing was changed.
        """
        if not is_message(id):
            return False
        try:
            self._locks.make()  # also what somebody removed of it
            with self._locks.take(f"cancel {id}"):
                if self._take_waiting(id, self._put_away):
                    return True
                if not (self._layout.folders["sent"] and self._layout.folders["failed"]):
                    raise SpoolUnavailable("it cannot be cancelled: smsd keeps no sent or no failed messages")
                return self._take(id, self._put_away)
        except OSError as error:
            raise unavailable(error) from error

    def retract(self, id: str) -> bool:
        """Remove a message that was just put into the spool, and is to be refused; false: smsd has it, and sends it.

        :raises OSError: nobody knows whether it is sent.
        """
        with self._locks.take(f"cancel {id}"):
            return self._take_waiting(id, Path.unlink) or self._take(id, Path.unlink)

    def finish(self, id: str) -> bool:
        """Decide what became of a message whose cancelling process died at least ``GRACE`` seconds ago.

        :raises OSError: nothing was decided; to be called again.
        """
        return self._finish(id, self._put_away)

    def _finish(self, id: str, put_away: Callable[[Path], None]) -> bool:
        taken = self._taken / id
        was_taken = taken.stat().st_size > 0 and not self._layout.has(id)
        # smsd's lock goes first: as long as there is something in "cancelling", the owner knows that it is ours.
        self._smsd_lock(id).unlink(missing_ok=True)
        if was_taken:
            put_away(taken)
        else:
            taken.unlink()
        return was_taken

    def _take_waiting(self, id: str, put_away: Callable[[Path], None]) -> bool:
        """Whether that message has not entered ``outgoing`` yet, and is put away now."""
        for folder in self._queue.folders():
            path = folder / id
            if path.is_file():
                with contextlib.suppress(FileNotFoundError):
                    put_away(path)
                    return True
        return False

    def _put_away(self, path: Path) -> None:
        """Move a message to the cancelled ones, so that a failing power does not bring it back."""
        os.utime(path, follow_symlinks=False)  # from now on it is kept for a while
        os.rename(path, self._cancelled / path.name)
        try:
            for folder in dict.fromkeys((self._cancelled, path.parent, self._layout.outgoing)):
                self._queue.sync(folder)
        except OSError as error:  # it is taken back, whatever becomes of the disk
            log.error("%s may go out if the power fails now: %s", path.name, error)

    def _take(self, id: str, put_away: Callable[[Path], None]) -> bool:
        """Take a message out of smsd's reach, and see what smsd makes of it."""
        if not self._lock_out(id):
            return False
        threading.Event().wait(GRACE)
        return self._finish(id, put_away)

    def _lock_out(self, id: str) -> bool:
        """Move a message out of smsd's reach, as far as it goes; whether it was there.

        The empty file that comes first tells the owner whose the lock is, should this process die.
        """
        taken, lock = self._taken / id, self._smsd_lock(id)
        with contextlib.ExitStack() as undo:
            _create(taken)
            undo.callback(taken.unlink)
            try:
                _create(lock)
            except FileExistsError:
                return False
            undo.callback(lock.unlink)
            try:
                os.rename(self._layout.outgoing / id, taken)
            except FileNotFoundError:
                return False
            undo.pop_all()
        return True

    def _smsd_lock(self, id: str) -> Path:
        return self._layout.outgoing / f"{id}.LOCK"


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660))
