"""Idle connections, kept for the next request: a new one costs a handshake, and one of TLS."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from .link import Link
from .wire import Broken

KEPT = 8  # idle connections
IDLE = 60.0  # seconds; a firewall may have forgotten a connection that was idle for longer

T = TypeVar("T")


class Connections:
    """Connections that are bound alike. The one that was used last is used first."""

    def __init__(self, open_link: Callable[[float], Link]) -> None:
        self._open = open_link
        self._idle: list[Link] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._idle)  # nothing tells a plugin that its application has ended

    def use(self, action: Callable[[Link], T], deadline: float) -> T:
        """The action's result on a connection. Where an idle one turns out to be dead, it is done again on a new one.

        :raises Broken: it failed on a new one, or there is no time left for one.
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
        with self._lock:  # the others are no better than this one was
            _close(self._idle)
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


def _close(links: list[Link]) -> None:
    for link in links:
        link.close()
    links.clear()
