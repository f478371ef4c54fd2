"""A receiver of webhooks in a process of its own, to be killed: what it answers 204 to stands in its file by then.

with Recorder(tmp_path, "orders") as recorder:
    recorder.trust(register(recorder.url)["secret"])
    recorder.kill()
    recorder.start()  # on the same port
    recorder.heard()

As a program (``python -m tests.recorder PORT SECRET HEARD``) it is the receiver itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Heard:
    """An event: its ``webhook-id``, its type, and the id of its message."""

    id: str
    type: str
    message: str


class Recorder:
    """One receiver; the context manager starts and always ends it. What it heard stays."""

    def __init__(self, folder: Path, name: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/{name}"
        self._secret, self._heard = folder / f"{name}.secret", folder / f"{name}.heard"
        self._command = [sys.executable, "-m", "tests.recorder", str(port), str(self._secret), str(self._heard)]
        self._process: subprocess.Popen[bytes] | None = None
        self._heard.touch()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def trust(self, secret: str) -> None:
        """Take what is signed with that secret, and nothing else."""
        self._secret.write_text(secret)

    def start(self) -> None:
        """Start it; returns when it listens."""
        assert self._process is None
        self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), f"it ended: {self._command}"

    def kill(self) -> None:
        """SIGKILL; returns when it is dead. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def heard(self) -> list[Heard]:
        """All events that it took, those that came twice twice.

        :raises AssertionError: somebody sent what was not signed with the secret.
        """
        lines = self._heard.read_text().splitlines()
        assert "forged" not in lines
        return [Heard(*json.loads(line)) for line in lines]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _serve(port: int, secret: Path, heard: Path) -> None:
    log = os.open(heard, os.O_WRONLY | os.O_APPEND)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # its sender was killed
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                event = Webhook(secret.read_text()).verify(body, headers)
            except WebhookVerificationError:
                line, status = "forged", 400
            else:
                line, status = json.dumps([headers["webhook-id"], event["type"], event["data"]["id"]]), 204
            os.write(log, f"{line}\n".encode())
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with _Server(("127.0.0.1", port), Handler) as server:
        print("listens", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
