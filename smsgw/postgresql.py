"""PostgreSQL, set up so that nobody waits for an answer for ever. For the store, where the driver is installed.

Timeouts for connections, locks and statements are the server's or the driver's own. They do not help against a server
that is stopped, or whose disk hangs: its kernel goes on taking connections and statements, and nobody answers. So a
connection is closed when one answer takes too long.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import URL, Engine, event

from smsgw.model import ConfigurationError

WAIT = 5  # seconds for a connection, a lock, a statement
SILENCE = 6.0  # seconds for one answer: the server gives up before
ARGUMENTS = {
    "connect_timeout": WAIT,
    "tcp_user_timeout": WAIT * 1000,
    "options": f"-c statement_timeout={WAIT * 1000} -c lock_timeout={WAIT * 1000}",
}


class Bounded(psycopg.Connection[Any]):
    """A connection that is closed when one answer takes longer than ``SILENCE``."""

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """:raises psycopg.OperationalError: there was no answer in time."""
        return super().wait(self._bounded(gen), *arguments, **options)

    def _bounded(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The driver's protocol: it yields what to wait for, and is sent, every 0.1 seconds, whether that is there."""
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


def make_engine(url: URL) -> Engine:
    """:raises ConfigurationError: libpq does not know something that stands behind the ``?`` of the URL."""
    try:
        psycopg.conninfo.make_conninfo(**dict[str, Any](url.query))
    except psycopg.Error as error:
        raise ConfigurationError(f"smsgw.store: {str(error).splitlines()[0]}") from None
    engine = sqlalchemy.create_engine(
        url, connect_args=ARGUMENTS, pool_pre_ping=True, pool_timeout=WAIT, hide_parameters=True
    )
    event.listen(engine, "do_connect", lambda _, __, words, named: Bounded.connect(*words, **named))
    return engine
