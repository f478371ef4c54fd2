"""Slows down the guessing of passwords: wrong ones are counted for a minute, over all processes on one spool.

A counter is a small file of times in smsgw's own folder. Where it cannot be written, this process keeps the count in
memory, so that a full disk does not switch the limit off.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import math
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from smsgw.spool.sending.idempotency import digest

WINDOW = 60.0  # seconds
QUIET = 0.02  # seconds for which an empty folder is not read again; guesses in other processes show so much later
REMEMBERED = 10000  # counters that one process keeps in memory

_TIME = struct.Struct("d")  # CLOCK_MONOTONIC, which all processes of a machine share


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sign-in. ``wait``: in how many seconds a password may be tried; 0: now."""

    wait: int
    _guesses: Guesses
    _userid: str
    _address: str
    _has_guessed: bool

    def wrong(self) -> None:
        """A wrong password was tried."""
        self._guesses.count(self._userid, self._address)

    def right(self) -> None:
        """The right password was shown: that user has not guessed from there."""
        if self._has_guessed:
            self._guesses.forget(self._userid, self._address)


class Guesses:
    """Counts wrong passwords: for a user from an address, and for an address.

    :param folder: of the counters.
    :param per_user: how many a minute one user may have from one address; 0: any number.
    :param per_address: how many a minute one address may have; 0: any number.
    """

    def __init__(self, folder: Path, per_user: int, per_address: int) -> None:
        self._folder = f"{folder}/"
        self._per_user = per_user
        self._per_address = per_address
        self._own: dict[str, list[float]] = {}
        self._quiet_until = 0.0
        self._lock = threading.Lock()

    def attempt(self, userid: str, address: str) -> Attempt:
        """A sign-in of that user from that address. ``userid`` is empty where the client shows none."""
        if self._is_quiet():
            return Attempt(0, self, userid, address, False)
        times = [(self._times(name, limit), limit) for name, limit in self._counters(userid, address)]
        wait = max((_wait(found, limit) for found, limit in times), default=0)
        return Attempt(wait, self, userid, address, any(found for found, _ in times))

    def count(self, userid: str, address: str) -> None:
        """One more wrong password."""
        self._quiet_until = 0.0
        now = _TIME.pack(time.monotonic())
        for name, _ in self._counters(userid, address):
            try:
                fd = os.open(self._folder + name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                try:
                    if os.write(fd, now) != len(now):
                        self._remember(name)
                finally:
                    os.close(fd)
            except OSError:
                self._remember(name)

    def forget(self, userid: str, address: str) -> None:
        """That user has not guessed from there; the address's own count stays."""
        if self._per_user:
            name = _counter("user", userid, address)
            self._own.pop(name, None)
            with contextlib.suppress(OSError):
                os.unlink(self._folder + name)

    def expire(self) -> None:
        """Forget the counters that no longer count."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - 2 * WINDOW:
                        os.unlink(entry.path)

    def _is_quiet(self) -> bool:
        """Whether there is no counter. The answer is kept for a moment: reading the folder would slow each request."""
        if time.monotonic() < self._quiet_until:
            return True
        if self._own:
            return False
        try:
            with os.scandir(self._folder) as counters:
                if next(counters, None) is not None:
                    return False
        except OSError:
            return False
        self._quiet_until = time.monotonic() + QUIET
        return True

    def _counters(self, userid: str, address: str) -> list[tuple[str, int]]:
        """The counters of an attempt, and how much each may count in a minute."""
        found = []
        if self._per_user and userid:
            found.append((_counter("user", userid, address), self._per_user))
        if self._per_address:
            found.append((_counter("address", "", address), self._per_address))
        return found

    def _times(self, name: str, limit: int) -> list[float]:
        times = list(self._own.get(name, ()))
        try:
            fd = os.open(self._folder + name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return times
        try:
            size = os.fstat(fd).st_size // _TIME.size * _TIME.size
            content = os.pread(fd, limit * _TIME.size, max(0, size - limit * _TIME.size))
        except OSError:
            return times
        finally:
            os.close(fd)
        whole = len(content) // _TIME.size * _TIME.size
        return times + [then for (then,) in _TIME.iter_unpack(content[:whole])]

    def _remember(self, name: str) -> None:
        with self._lock:
            if name not in self._own and len(self._own) >= REMEMBERED:
                del self._own[next(iter(self._own))]
            now = time.monotonic()
            self._own[name] = [then for then in self._own.get(name, ()) if now - then < WINDOW] + [now]


def _counter(kind: str, userid: str, address: str) -> str:
    """However a userid is spelt: to a directory, ``LVV`` is ``lvv``."""
    return digest(kind, userid.casefold(), _network(address))


def _wait(times: list[float], limit: int) -> int:
    """Seconds until fewer than ``limit`` of those times are within the last minute, 0 for now."""
    now = time.monotonic()
    recent = sorted(then for then in times if now - WINDOW < then <= now)
    if not recent or len(recent) < limit:
        return 0
    return math.ceil(recent[-limit] + WINDOW - now)


@functools.lru_cache(maxsize=1024)
def _network(address: str) -> str:
    """What counts as one address: with IPv6 the /64, since a client there can take any of its addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
