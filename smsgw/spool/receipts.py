"""What ``Idempotency-Key`` remembers: one receipt for a user and key, for a day, through crashes and restarts.

The receipt enters the spool with its messages, in one rename (``writer``), so there is never one without the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict

from ulid import ULID

from smsgw.model import Receipt
from smsgw.spool.layout import Layout
from smsgw.spool.locks import Locks
from smsgw.spool.writer import release, unavailable

KEPT = 25 * 3600  # seconds; a day is promised


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

    def __init__(self, layout: Layout, locks: Locks, *, fsync: bool) -> None:
        self._layout = layout
        self._locks = locks
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
        """The receipt; its messages are in ``outgoing`` by then, also where an earlier process died over them.

        :raises SpoolUnavailable: nobody can know.
        """
        try:
            release(self._layout, key, self._fsync)
            return Receipt(**json.loads((self._layout.state / "receipts" / key).read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unavailable(error) from error

    def keep(self, receipt: Receipt) -> None:
        """Keep a receipt that came with no messages into the spool.

        :raises SpoolUnavailable: it is not kept.
        """
        folder = self._layout.state / "receipts"
        fresh = folder / f".{ULID()}"
        try:
            with open(fresh, "x", encoding="ascii") as stream:
                json.dump(asdict(receipt), stream)
                if self._fsync:
                    stream.flush()
                    os.fsync(stream.fileno())
            os.rename(fresh, folder / receipt.key)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise unavailable(error) from error

    def expire(self) -> None:
        """Forget those that were promised for long enough."""
        with os.scandir(self._layout.state / "receipts") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - KEPT:
                        os.unlink(entry.path)
