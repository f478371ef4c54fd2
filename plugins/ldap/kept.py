"""Connections that are kept open between requests: a new one costs a handshake, and one of TLS."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from .link import Link
from .wire import Broken

KEPT = 8  # idle ones
IDLE = 60.0  # seconds; on the way to one that was not used for longer, some firewall may have forgotten it

T = TypeVar("T")


class Kept:
    """Idle connections, bound alike; the one that was used last is used next."""

    def __init__(self, open_link: Callable[[float], Link]) -> None:
        self._open = open_link
        self._idle: list[Link] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._idle)  # nothing tells a plugin that its application has ended

    def use(self, action: Callable[[Link], T], deadline: float) -> T:
        """What the action makes of a connection. A kept one may be dead, and then a new one is tried.

        :raises Broken: it failed over a new one, or in time for none.
        """
        with self._lock:
            link = self._idle.pop() if self._idle else None
        if link is not None and time.monotonic() - link.used < IDLE:
            link.begin(deadline)
            try:
                return self._run(action, link)
            except Broken:
                if time.monotonic() >= deadline:
                    raise
        elif link is not None:
            link.close()
        self._forget()
        return self._run(action, self._open(deadline))

    def _run(self, action: Callable[[Link], T], link: Link) -> T:
        try:
            found = action(link)
        except BaseException:
            link.close()
            raise
        link.used = time.monotonic()
        with self._lock:
            if len(self._idle) < KEPT:
                self._idle.append(link)
                return found
        link.close()
        return found

    def _forget(self) -> None:
        """The others are no better than one that was dead or old."""
        with self._lock:
            _close(self._idle)


def _close(links: list[Link]) -> None:
    while links:
        links.pop().close()
