"""Guessing passwords, slowed down: wrong ones are counted for a minute, over all processes on one spool.

Used by the security policy. A count is a small file of times in smsgw's own folder; where that cannot be written to,
this process counts for itself, so that a full disk opens nothing.
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

from smsgw.spool.receipts import digest

WINDOW = 60.0  # seconds
REMEMBERED = 10000  # counters that one process keeps for itself

_TIME = struct.Struct("d")  # CLOCK_MONOTONIC, which all processes of a machine share


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to show who somebody is: ``wait`` says in how many seconds a password may be tried, 0 for now."""

    wait: int
    _guesses: Guesses
    _user: str
    _address: str
    _is_counted: bool

    def wrong(self) -> None:
        """A wrong password was tried."""
        for name in filter(None, (self._user, self._address)):
            self._guesses.count(name)

    def right(self) -> None:
        """The right password was shown: that user has not guessed from there."""
        if self._is_counted:
            self._guesses.forget(self._user)


class Guesses:
    """Wrong passwords, for a user from an address and for an address.

    :param folder: where they are counted.
    :param per_user: how many a minute are let through for one user from one address; 0: any number.
    :param per_address: how many for one address.
    """

    def __init__(self, folder: Path, per_user: int, per_address: int) -> None:
        self._folder = f"{folder}/"
        self._per_user = per_user
        self._per_address = per_address
        self._own: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def attempt(self, userid: str, address: str) -> Attempt:
        """An attempt of that user from there; of nobody in particular, where ``userid`` is empty."""
        network = _network(address)
        user = digest("user", userid, network) if self._per_user and userid else ""
        place = digest("address", network) if self._per_address else ""
        of_user = self._times(user, self._per_user) if user else []
        of_place = self._times(place, self._per_address) if place else []
        wait = max(_wait(of_user, self._per_user), _wait(of_place, self._per_address))
        return Attempt(wait, self, user, place, bool(of_user))

    def count(self, name: str) -> None:
        """One more on that counter."""
        now = _TIME.pack(time.monotonic())
        try:
            fd = os.open(self._folder + name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(fd, now) != len(now):
                    self._remember(name)
            finally:
                os.close(fd)
        except OSError:
            self._remember(name)

    def forget(self, name: str) -> None:
        """That counter begins anew."""
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


def _wait(times: list[float], limit: int) -> int:
    """Seconds until fewer than ``limit`` of those times are within the last minute, 0 for now."""
    now = time.monotonic()
    recent = sorted(then for then in times if now - WINDOW < then <= now)
    if not recent or len(recent) < limit:
        return 0
    return math.ceil(recent[-limit] + WINDOW - now)


@functools.lru_cache(maxsize=1024)
def _network(address: str) -> str:
    """What counts as one address: of IPv6 the /64, since whoever has one address there has them all."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
