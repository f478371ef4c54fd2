"""Takes a message back that was just put into the spool, where the disk failed and its sender is to be told 503."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from smsgw.spool.layout import Layout
from smsgw.spool.locks import Locks

GRACE = 1.0  # seconds in which smsd shows whether it had a file that was taken from it


def retract(layout: Layout, locks: Locks, id: str) -> bool:
    """Whether that message is taken back, and will not be sent. Otherwise smsd has it already, and sends it.

    Takes ``GRACE`` seconds where it is in ``outgoing``. Unlinking alone loses a race against smsd, which opens a file,
    may write it anew under the same name, and only then removes it. So smsd is kept away by a lock file of its own
    kind, and shows by what it does meanwhile whether it had the message.

    :raises OSError: nobody knows whether it is sent.
    """
    for folder in ("scheduled", "waiting"):  # the way that it goes
        with contextlib.suppress(FileNotFoundError):
            os.unlink(layout.state / folder / id)
            return True
    taken, lock = layout.state / "cancelling" / id, layout.outgoing / f"{id}.LOCK"
    with locks.take(f"cancel {id}"), contextlib.ExitStack() as undo:
        _create(taken)  # tells the owner that the lock file is ours, should this process die
        undo.callback(taken.unlink)
        try:
            _create(lock)
        except FileExistsError:
            return False
        undo.callback(lock.unlink)
        try:
            os.rename(layout.outgoing / id, taken)
        except FileNotFoundError:
            return False
        threading.Event().wait(GRACE)
        return not layout.has(id)


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660))
