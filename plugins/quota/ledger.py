"""What one process has taken of counters before anybody needed it, and how much of that is spent: a file in memory.

One process at a time holds its lock, which dies with it. What the file has does not: who gets the lock next finds in it
what the one before has not spent, to the last unit. Only a machine that goes down with its power may leave a file that
is older than the counters, or newer; so nothing is found in one of before the machine's start.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import mmap
import os
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .limits import Key

MOST = 24  # counters in it
KEYS = 512  # where their keys begin, behind numbers of 8 bytes: asked back, bytes of keys, and two of each counter
SIZE = 16384
LOOK = 0.002  # seconds between two tries to get the lock

BOOT = Path("/proc/sys/kernel/random/boot_id")  # another one after each start of the machine; random(4)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Open:
    fd: int
    memory: mmap.mmap
    cells: memoryview

    close: Callable[[], object]


class Ledger:
    """That file; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: _Open | None = None
        self.is_held = False
        mine = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _abandon(mine()))

    @property
    def is_asked_back(self) -> bool:
        """Whether somebody waits for the lock."""
        return self._found is not None and self._found.cells[0] != 0

    def acquire(self, wait: float = 0.0) -> bool:
        """Whether the lock could be had; where one may wait, who has it is asked to give it back."""
        try:
            found = self._opened()
        except OSError as error:
            log.warning("%s cannot be opened: %s", self._path, error.strerror)
            return False
        deadline = time.monotonic() + wait
        while not self.is_held:
            try:
                fcntl.flock(found.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.is_held = True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                found.cells[0] = 1
                time.sleep(LOOK)
        found.cells[0] = 0
        return True

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self.is_held:
            self.is_held = False
            fcntl.flock(self._opened().fd, fcntl.LOCK_UN)

    def begin(self, keys: Sequence[Key]) -> bool:
        """Name the counters, of which nothing is taken yet; whether there is room for them."""
        written = json.dumps([_boot(), *keys]).encode()
        if len(keys) > MOST or len(written) > SIZE - KEYS:
            return False
        found = self._opened()
        self._clear(found)
        found.memory[KEYS : KEYS + len(written)] = written
        found.cells[1] = len(written)
        return True

    def put(self, amounts: Sequence[int]) -> None:
        """So much is now taken of each."""
        cells = self._opened().cells
        for place, amount in enumerate(amounts):
            cells[2 + 2 * place] = amount

    def spend(self, amounts: Sequence[tuple[int, int]]) -> bool:
        """Spend so much of those at these places, if there is so much of all."""
        cells = self._opened().cells
        for place, amount in amounts:
            if cells[2 + 2 * place] - cells[3 + 2 * place] < amount:
                return False
        for place, amount in amounts:
            cells[3 + 2 * place] += amount
        return True

    def empty(self) -> list[tuple[Key, int]]:
        """What is not spent, which it has no more."""
        found = self._opened()
        cells, rests = found.cells, []
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # half written, or not by us
            boot, *keys = json.loads(found.memory[KEYS : KEYS + cells[1]])
            for place, (name, counted, until) in enumerate(keys if boot == _boot() else ()):
                rest = cells[2 + 2 * place] - cells[3 + 2 * place]
                if rest > 0:
                    rests.append(((name, counted, until), rest))
        self._clear(found)
        return rests

    def _clear(self, found: _Open) -> None:
        for place in range(MOST):
            found.cells[2 + 2 * place] = 0
        for place in range(MOST):
            found.cells[3 + 2 * place] = 0
        found.cells[1] = 0

    def _opened(self) -> _Open:
        """:raises OSError: it cannot be opened."""
        if self._found is None:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if os.fstat(fd).st_size < SIZE:
                    os.posix_fallocate(fd, 0, SIZE)  # or writing to the memory of a full disk kills the process
                    if os.geteuid() == 0:
                        owner = os.stat(self._path.parent)
                        os.fchown(fd, owner.st_uid, owner.st_gid)
                memory = mmap.mmap(fd, SIZE)
            except BaseException:
                os.close(fd)
                raise
            self._found = _Open(fd, memory, memoryview(memory).cast("q"), weakref.finalize(self, os.close, fd))
        return self._found


def _boot() -> str:
    """Which start of the machine this is; where nobody can know, they all are the same."""
    try:
        return BOOT.read_text()
    except OSError:
        return ""


def _abandon(ledger: Ledger | None) -> None:
    """A process that forked has no part in its parent's."""
    if ledger is not None and ledger._found is not None:
        ledger._found.close()
        ledger._found, ledger.is_held = None, False
