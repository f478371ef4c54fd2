"""Stands for the organisation's own service of accounts, to try the plugin and to test it: python accounts_server.py

It knows ann (in the group alarms) and bob, and can be out of service, or silent.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PASSWORDS = {"ann": "SecretPAss", "bob": "Alarm!ng"}
GROUPS = {"ann": ["alarms"], "bob": []}


class AccountsServer(ThreadingHTTPServer):
    """On loopback; ``asked`` counts the requests."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/login"
        self.asked = 0
        self.status: int | None = None  # what everybody is answered instead
        self.answering = threading.Event()
        self.answering.set()

    @contextlib.contextmanager
    def running(self) -> Iterator[AccountsServer]:
        thread = threading.Thread(target=self.serve_forever, args=[0.01])
        thread.start()
        try:
            yield self
        finally:
            self.answering.set()
            self.shutdown()
            thread.join()
            self.server_close()

    @contextlib.contextmanager
    def failing(self, status: int = 500) -> Iterator[None]:
        self.status = status
        try:
            yield
        finally:
            self.status = None

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        self.answering.clear()
        try:
            yield
        finally:
            self.answering.set()

    def answer(self, userid: str, password: str) -> tuple[int, object]:
        self.asked += 1
        self.answering.wait()
        userid = userid.strip().casefold()  # as many directories do
        if self.status is not None:
            return self.status, {}
        if userid not in PASSWORDS:
            return 404, {}
        if PASSWORDS[userid] != password:
            return 401, {}
        return 200, {"userid": userid, "groups": GROUPS[userid]}


class _Handler(BaseHTTPRequestHandler):
    server: AccountsServer

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = self.server.answer(question["userid"], question["password"])
        body = json.dumps(answer).encode()
        with contextlib.suppress(OSError):  # who has given up waiting
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    server = AccountsServer(int(sys.argv[1]) if sys.argv[1:] else 5080)
    print(f"ann and bob have accounts at {server.url}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
