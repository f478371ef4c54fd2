"""Receivers of webhooks on loopback: real HTTP servers that check signatures with the public library, and bad ones.

with Receiver() as receiver:
    receiver.secret = register(receiver.url)["secret"]
    (delivery,) = receiver.wait(1)
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from standardwebhooks import Webhook


@dataclass(frozen=True)
class Delivery:
    """One attempt as it came in; ``at`` is when (``time.monotonic``), ``path`` has the query."""

    id: str
    headers: dict[str, str]
    body: bytes
    path: str
    at: float

    @property
    def content(self) -> Any:
        return json.loads(self.body)

    @property
    def type(self) -> str:
        return str(self.content["type"])

    @property
    def message(self) -> str:
        return str(self.content["data"]["id"])


class Receiver:
    """A server on a port of its own. ``answer`` says with which status each attempt is answered; all are kept.

    With ``secret`` set, an attempt whose signature is wrong fails the test that waits.
    """

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.answer: Callable[[Delivery], int] = lambda delivery: 200
        self.secret: str | None = None
        self._changed = threading.Condition()
        self._deliveries: list[Delivery] = []
        self._server = _Server(("127.0.0.1", port), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/sms"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def deliveries(self) -> list[Delivery]:
        with self._changed:
            return list(self._deliveries)

    def wait(self, count: int, seconds: float = 60) -> list[Delivery]:
        """All attempts, as soon as there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._deliveries) >= count, seconds), self._deliveries
            found = list(self._deliveries)
        for delivery in found:
            if self.secret is not None:
                assert Webhook(self.secret).verify(delivery.body, delivery.headers)
        return found

    def take(self, delivery: Delivery) -> int:
        with self._changed:
            self._deliveries.append(delivery)
            self._changed.notify_all()
        return self.answer(delivery)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of clients that go away."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = receiver.take(Delivery(headers["webhook-id"], headers, body, self.path, time.monotonic()))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{receiver.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler


@contextmanager
def speaking(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a server that is none: it says what it likes on each connection, in a thread of its own."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.settimeout(0.05)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                threading.Thread(target=converse, args=[connection], daemon=True).start()

        def converse(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            stop.set()
            thread.join()
