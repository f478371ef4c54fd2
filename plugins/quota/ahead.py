"""Taking ahead: a process that is busy takes more of its limits than it needs, and asks the database no more until
that is spent. On SQLite alone, for `.counters`.

All that is taken ahead counts as used in the database, so that never more is let through. One process at a time has
something ahead, and gives back what is left of it as soon as anybody asks, anybody else commits, or it has nothing to
do; so nobody is refused for it. Nothing is taken ahead of a limit that has little left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from smsgw.model import Unavailable
from smsgw.store import WAIT, Store

from .ledger import Ledger
from .limits import Claim, Key
from .rows import Rows

END = "-ahead"  # of the name of the ledger, beside the database
SHARE = 100  # of what is left of a limit, one in so many at most is taken ahead
LEAST, MOST = 16, 500  # units that are worth it, and are enough
QUIET = 8  # sends of the same limits, one after the other, while nobody else commits, before something is taken ahead
IDLE = 0.1  # seconds without a send after which it is given back
TICK = 0.02  # seconds between two looks whether it should be
PATIENCE = 1.0  # seconds to wait for another process to give back; one that is stopped does not

log = logging.getLogger(__name__)


class Ahead:
    """What this process has ahead; a context that one thread enters at a time, to use the counters at all.

    :param path: of the store.
    :param rows: the counters in it.
    """

    def __init__(self, store: Store, path: Path, rows: Rows) -> None:
        self._store = store
        self._rows = rows
        self._ledger = Ledger(path.with_name(path.name + END))
        self._lock = threading.RLock()
        self._places: dict[Key, int] = {}  # in the ledger, of what is ahead
        self._version: bytes | None = None  # of the store, after what this process committed last
        self._is_quiet = False
        self._quiet = 0
        self._last: list[tuple[str, str]] = []
        self._spent = 0.0
        self._watch: threading.Thread | None = None
        mine = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _abandon(mine()))

    def __enter__(self) -> Ahead:
        if not self._lock.acquire(timeout=WAIT):
            raise Unavailable("The gateway's database is out of service")
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def spend(self, claims: Sequence[Claim]) -> bool:
        """Whether all of them could be taken of what is ahead; if not, nothing is ahead any more.

        :raises Unavailable: the database is out of service.
        """
        self._is_quiet = self._is_as_left(claims)
        if not self._places:
            return False
        wanted = [(self._places.get(claim.key, -1), claim.amount) for claim in claims]
        if self._is_quiet and all(place >= 0 for place, _ in wanted) and self._ledger.spend(wanted):
            self._spent = time.monotonic()
            return True
        self.settle()
        return False

    def took(self, claims: Sequence[Claim]) -> None:
        """They were taken in the database; where the same goes on for a while, more of them is taken ahead."""
        limits = [claim.limit.key for claim in claims]
        self._quiet = self._quiet + 1 if self._is_quiet and limits == self._last else 0
        self._last = limits
        if self._quiet >= QUIET:
            with contextlib.suppress(Unavailable):  # which the next one is told
                self._reserve(claims)
        if not self._places:
            self._version = self._store.version

    def settle(self) -> None:
        """Give back what is left of what this process has ahead."""
        if self._places:
            self._places = {}
            self._return()
            self._ledger.release()

    @contextlib.contextmanager
    def nobody(self) -> Iterator[None]:
        """While nobody has anything ahead, so that the database alone tells what is left."""
        self.settle()
        self._quiet = 0
        try:
            if self._ledger.acquire(PATIENCE):
                self._return()
            yield
        finally:
            self._ledger.release()

    def _is_as_left(self, claims: Sequence[Claim]) -> bool:
        """Whether nobody has committed anything since this process did, nor asks for what it has."""
        version = self._store.version
        if version is None and self._places:
            self._rows.left(claims[:1])  # by which the store looks whether its file is the same still
            version = self._store.version
        return version is not None and version == self._version and not self._ledger.is_asked_back

    def _reserve(self, claims: Sequence[Claim]) -> None:
        """Take ahead of all of them, if there is much left of each."""
        if not self._ledger.acquire(0):
            return
        try:
            self._return()
            left = self._rows.left(claims)
            amounts = [min(MOST, rest // SHARE) for rest in left.values()]
            keys = [claim.key for claim in claims]
            if min(amounts) < LEAST or not self._ledger.begin(keys):
                return
            with contextlib.suppress(IntegrityError):
                self._rows.take([replace(claim, amount=amount) for claim, amount in zip(claims, amounts, strict=True)])
                self._ledger.put(amounts)
                self._places, self._spent = {key: place for place, key in enumerate(keys)}, time.monotonic()
        finally:
            if not self._places:
                self._ledger.release()
        self._version = self._store.version
        if any(
            left[claim] - rest != amount
            for (claim, rest), amount in zip(self._rows.left(claims).items(), amounts, strict=True)
        ):
            self.settle()  # somebody committed before the version was known
        if self._watch is None:
            self._watch = threading.Thread(target=self._look, daemon=True)
            self._watch.start()

    def _return(self) -> None:
        """Give back what is in the ledger, of this process or one that was killed."""
        rests = self._ledger.empty()
        if rests:
            try:
                self._rows.reduce(rests)
            except Unavailable as error:  # they count until their windows end, which is on the safe side
                log.error("what was taken ahead is counted: %s", error.__cause__)

    def _look(self) -> None:
        while True:
            time.sleep(TICK)
            with self._lock:
                if self._ledger.is_asked_back or time.monotonic() > self._spent + IDLE:
                    self.settle()
                if not self._places:
                    self._watch = None
                    return


def _abandon(ahead: Ahead | None) -> None:
    """A process that forked has no part in its parent's."""
    if ahead is not None:
        ahead._lock, ahead._places, ahead._version, ahead._watch = threading.RLock(), {}, None, None
