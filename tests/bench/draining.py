"""smsgw in front of a real smsd: how fast it gets through what is posted at once.

The modems are emulated in the bench's own process, where eight of them take a twentieth of a core.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import servers

sys.path.append(str(servers.HERE.parent))
from smsd.server import Smsd

MODEMS = 8
DEPTH = 500  # smsgw.outgoing_depth, as it is by default
TAKES = 0.25  # seconds that a modem is at a message; real ones take longer


@dataclass(frozen=True, slots=True)
class Line:
    """A gateway, smsd behind it, and the modems."""

    smsd: Smsd
    server: servers.Server

    def rate(self, count: int, seconds: float) -> float:
        """Messages a second that reach the modems from the reply to one request on, for that long or until all did.

        :param count: recipients of the request.
        """
        body = json.dumps({"mobiles": [f"7916{n:07}" for n in range(count)], "text": "Hi, Jack!"}).encode()
        with self.server.client() as client:
            took, _ = client.request("POST", servers.OUTGOING, body)
        begun, before = time.perf_counter(), self._arrived()
        while (passed := time.perf_counter() - begun) < seconds and self._arrived() < count:
            time.sleep(0.01)
        arrived = self._arrived()
        sys.stderr.write(
            f"  {count} posted in {took:.2f} s: {before} before the reply, {arrived} {passed:.1f} s later\n"
        )
        return (arrived - before) / passed

    def _arrived(self) -> int:
        return sum(modem.taken for modem in self.smsd.modems)


@contextlib.contextmanager
def line(folder: Path, most: int) -> Iterator[Line]:
    """All of it, with spool and configuration in that folder; ``most`` is how many recipients a request may have."""
    with Smsd(folder, modems=MODEMS) as smsd:
        for modem in smsd.modems:
            modem.delay = TAKES
        settings = f"smsgw.max_recipients = {most}\n"
        with servers.smsgw(smsd.spool, depth=DEPTH, settings=settings, fsync=True) as server:
            yield Line(smsd, server)
