"""A listener of its own for those who watch: it answers while all threads of the server are busy.

Any WSGI server can serve the gateway, and in each a request that blocks holds a thread or a process. So ``/health``,
monitoring and metrics are served here as well, by threads of their own, where ``smsgw.health.listen`` says.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from waitress import wasyncore
from waitress.server import create_server

# Prometheus asks for the last one, which a plugin may have.
PATHS = ("/health", "/health/live", "/health/ready", "/api/v1.0/monitoring", "/metrics")
THREADS = 4
RETRY = 1.0  # seconds until an address that is taken is tried again: another process of the gateway may have it
TICK = 0.2  # seconds in which it notices that it is to stop

log = logging.getLogger(__name__)

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Listener:
    """Serves ``PATHS`` of an application; of several processes, the first that gets the address does.

    :param address: such as ``127.0.0.1:5001``.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, app: Wsgi) -> None:
        self._thread = threading.Thread(target=self._run, args=[_only(app)], name="smsgw-health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; returns when nobody listens there any more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self, app: Wsgi) -> None:
        has_failed = False
        while not self._stop.is_set():
            try:
                self._serve(app)
            except (OSError, OverflowError) as error:
                if getattr(error, "errno", None) != errno.EADDRINUSE and not has_failed:
                    log.error("smsgw.health.listen: nobody can listen on %s: %s", self._address, error)
                    has_failed = True
                self._stop.wait(RETRY)

    def _serve(self, app: Wsgi) -> None:
        """Serve until it is to stop.

        :raises OSError: the address is taken, or is none of this machine.
        """
        host, _, port = self._address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        open_files: dict[int, Any] = {}
        with socket.create_server((host, int(port)), family=family) as listening:
            server = create_server(app, map=open_files, sockets=[listening], threads=THREADS, ident=None)
            try:
                while not self._stop.is_set():
                    wasyncore.loop(timeout=TICK, map=open_files, count=1)
            finally:
                server.task_dispatcher.shutdown(timeout=1)
                server.close()
                wasyncore.close_all(open_files, ignore_all=True)


def _only(app: Wsgi) -> Wsgi:
    """The application, of which only ``PATHS`` are there, and are only read."""

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] in PATHS and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        body = json.dumps({"error": "Not found"}).encode()
        start_response("404 Not Found", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return serve
