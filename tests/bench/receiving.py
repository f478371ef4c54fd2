"""A gateway with webhooks, a receiver in the bench's own process, and receivers beside it that never answer."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import servers

sys.path.append(str(servers.HERE.parent))
from receiver import Receiver, speaking

PLUGIN = f"{servers.PLUGINS} webhooks"
SETTINGS = "smsgw.webhooks.allow_private = true\nsmsgw.webhooks.per_user = 100\n"
DEAD, BACKLOG = 20, 100  # receivers that never answer, and the messages that each was not told of by then
SETTLING = 2.5  # seconds after which nothing that was there before is told of


@dataclass(frozen=True, slots=True)
class Line:
    """A spool, and who hears of what happens in it."""

    spool: Path
    receiver: Receiver
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def hear_of_sent(self) -> float:
        """Seconds from the move of a message to the arrival of the webhook."""
        name, begun = self.send()
        while True:
            for delivery in self.receiver.deliveries[::-1]:
                if delivery.message == name:
                    return delivery.at - begun
            self.receiver.wait(len(self.receiver.deliveries) + 1)

    def send(self) -> tuple[str, float]:
        name = f"m{next(self.numbers)}"
        fresh = self.spool / f".{name}"
        fresh.write_text("To: 79160000000\nFrom: sha\nModem: GSM1\n\nHi, Jack!")
        begun = time.monotonic()
        fresh.rename(self.spool / "sent" / name)
        return name, begun


@contextlib.contextmanager
def line(folder: Path, *, dead: int = 0) -> Iterator[Line]:
    """It is there, and hears of what happens from now on.

    :param dead: receivers that never answer.
    """
    with (
        servers.smsgw(folder, plugins=PLUGIN, settings=SETTINGS) as server,
        Receiver() as receiver,
        speaking(_silence) as nowhere,
    ):
        time.sleep(SETTLING)
        found = Line(server.spool, receiver)
        for url in [nowhere] * dead:
            register(server, url)
        for _ in range(BACKLOG if dead else 0):
            found.send()
        register(server, receiver.url)
        time.sleep(SETTLING)
        yield found


def register(server: servers.Server, url: str) -> None:
    body = json.dumps({"url": url, "events": ["message.sent"]})
    headers = {"Authorization": servers.SHA, "Content-Type": "application/json"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=servers.REQUEST)) as client:
        client.request("POST", "/api/v2/webhooks", body, headers)
        reply = client.getresponse()
        if reply.status != 201:
            raise RuntimeError(f"{reply.status} {reply.read()!r}")


def _silence(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass
