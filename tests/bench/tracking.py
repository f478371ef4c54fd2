"""A plugin that hears of what happens in a gateway's spool, and says when; and smsd's part in it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import remembering
import servers

HEAD = "From: sha\nModem: GSM2\n"
PLUGIN = """
import json, os, socket, time
from smsgw.hookspecs import hookimpl
from smsgw.model import Delivered, Sent

class Ear:
    hears = (Sent, Delivered)

    def __init__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    @hookimpl
    def notify(self, events):
        now = time.monotonic()
        for event in events:
            said = json.dumps([type(event).__name__, event.message.id, now]).encode()
            self._socket.sendto(said, ("127.0.0.1", int(os.environ["BENCH_EAR"])))
"""


class Ear:
    """What the plugin is told, and when."""

    def __init__(self, spool: Path, heard: socket.socket) -> None:
        self._spool = spool
        self._heard = heard
        self._numbers = itertools.count(1)

    def hear_of_sent(self) -> float:
        """Seconds from the move of a message to the plugin."""
        return self._send(next(self._numbers))

    def hear_of_report(self) -> float:
        """Seconds from a report about a message, of which the plugin has heard, to the plugin."""
        number = next(self._numbers)
        self._send(number)
        text = "SMS STATUS REPORT\nMessage_id: 1\nStatus: 0,Ok"
        begun = self._move(f"r{number}", "report", f"From: {79160000000 + number}\nModem: GSM2\n\n{text}")
        return self._wait("Delivered", f"m{number}") - begun

    def _send(self, number: int) -> float:
        time.sleep(0.3)  # what the one before left to do is done
        head = f"To: {79160000000 + number}\n{HEAD}Message_id: 1\n"
        begun = self._move(f"m{number}", "sent", f"{head}\nHi, Jack!")
        return self._wait("Sent", f"m{number}") - begun

    def _move(self, name: str, kind: str, content: str) -> float:
        fresh = self._spool / f".{name}"
        fresh.write_text(content)
        begun = time.monotonic()
        fresh.rename(self._spool / kind / name)
        return begun

    def _wait(self, event: str, id: str) -> float:
        while True:
            kind, about, when = json.loads(self._heard.recv(65536))
            if (kind, about) == (event, id):
                return float(when)


@contextlib.contextmanager
def ear(folder: Path, count: int) -> Iterator[Ear]:
    """It listens, to what happens from now on, in a gateway with that many messages in its journal."""
    made = folder / "plugin" / "bench_ear-1.dist-info"
    made.mkdir(parents=True)
    (made.parent / "bench_ear.py").write_text(PLUGIN)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-ear\nVersion: 1\n")
    (made / "entry_points.txt").write_text("[smsgw.plugins]\near = bench_ear:Ear\n")
    with servers.production(folder):
        remembering.wait(folder)
    remembering.remember(folder, count)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(600)
        path = os.pathsep.join(filter(None, [str(made.parent), os.environ.get("PYTHONPATH")]))
        more = {"PYTHONPATH": path, "BENCH_EAR": str(heard.getsockname()[1])}
        with servers.production(folder, plugins=f"{servers.PLUGINS} ear", environment=more):
            remembering.wait(folder)
            yield Ear(folder, heard)
