"""Connections to PostgreSQL that wait for no answer for ever. Used by the store, where the driver is installed.

``statement_timeout`` is the server's own, and TCP's timeouts end when the server's kernel has the question: a server
that has stopped, or whose disk has, would hold up all threads that ask it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg

SILENCE = 6.0  # seconds for one answer; the server itself gives up before


class Bounded(psycopg.Connection[Any]):
    """A connection that is closed when one answer takes longer than ``SILENCE``."""

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """:raises psycopg.OperationalError: there was no answer in time."""
        return super().wait(self._bounded(gen), *arguments, **options)

    def _bounded(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The driver's protocol: what to wait for goes out, whether it is there comes in, every 0.1 seconds."""
        deadline = time.monotonic() + SILENCE
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {SILENCE:g} seconds")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value
