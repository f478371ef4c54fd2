"""What ``Idempotency-Key`` remembers: one receipt for a user and key, for a day, through crashes and restarts.

The receipt enters the spool with its messages, in one rename (``writer``), so there is never one without the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ulid import ULID

from smsgw.model import Receipt
from smsgw.spool.disk import SpoolUnavailable, unavailable
from smsgw.spool.layout import Layout
from smsgw.spool.locks import Locks
from smsgw.spool.sending.queue import RECEIPT, Queue, ready_lock

KEPT = 25 * 3600  # seconds; a day is promised

log = logging.getLogger(__name__)


class InUse(Exception):
    """A request with this key is still under way."""


def digest(*parts: str | bytes) -> str:
    """A name for those parts, in order: 64 hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        content = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        found.update(len(content).to_bytes(8, "big") + content)
    return found.hexdigest()


class Receipts:
    """The receipts of one spool.

    :param fsync: whether a receipt that is kept here waits for the disk.
    """

    def __init__(self, layout: Layout, locks: Locks, queue: Queue, *, fsync: bool) -> None:
        self._layout = layout
        self._locks = locks
        self._queue = queue
        self._fsync = fsync

    @contextlib.contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Be the only one, of all processes, that works on that key.

        :raises InUse: somebody else does.
        :raises SpoolUnavailable: nobody can know.
        """
        try:
            lock = self._locks.try_take(f"receipt {key}")
        except OSError as error:
            raise unavailable(error) from error
        if lock is None:
            raise InUse
        with lock:
            yield

    def find(self, key: str) -> Receipt | None:
        """The receipt. Its messages are on their way by then, or as soon as the spool takes them.

        :raises SpoolUnavailable: nobody can know.
        """
        try:
            self._complete(key)
            for path in (self._kept(key), self._ready(key) / RECEIPT, self._kept(key)):  # it moves while we look
                with contextlib.suppress(FileNotFoundError):
                    return Receipt(**json.loads(path.read_bytes()))
            return None
        except OSError as error:
            raise unavailable(error) from error
        except (ValueError, TypeError) as error:
            raise SpoolUnavailable("what is remembered of this Idempotency-Key cannot be read") from error

    def exists(self, key: str) -> bool:
        """Whether there is a receipt, or will be."""
        return self._kept(key).exists() or self._ready(key).exists()

    def keep(self, receipt: Receipt) -> None:
        """Keep a receipt that came with no messages into the spool.

        :raises SpoolUnavailable: it is not kept.
        """
        fresh, kept = self._kept(f".{ULID()}"), self._kept(receipt.key)
        try:
            with open(fresh, "x", encoding="ascii") as stream:
                json.dump(asdict(receipt), stream)
                if self._fsync:
                    stream.flush()
                    os.fsync(stream.fileno())
            os.rename(fresh, kept)
            self._queue.sync(kept.parent)
        except OSError as error:
            for path in (fresh, kept):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            raise unavailable(error) from error

    def _complete(self, key: str) -> None:
        """Finish what a process that died had committed, as the owner would in a moment."""
        if not self._ready(key).exists():
            return
        with self._locks.take(ready_lock(key)):
            try:
                self._queue.resume(key)
            except OSError as error:
                log.error("the rest of a submission waits in %s: %s", self._ready(key), error)

    def _kept(self, key: str) -> Path:
        return self._layout.state / "receipts" / key

    def _ready(self, key: str) -> Path:
        return self._queue.ready / key

    def expire(self) -> None:
        """Forget those that were promised for long enough."""
        with os.scandir(self._layout.state / "receipts") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - KEPT:
                        os.unlink(entry.path)
