"""Spools and indexes with many messages, for the rows of the plugin ``history``."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import servers
from ulid import ULID

from smsgw.model import Event, Failed, Sent, StoredMessage
from smsgw.store import FILE, Store
from smsgw_plugins.history.index import Index
from smsgw_plugins.history.table import SCRIPTS, TABLES, row

PLUGINS = f"{servers.PLUGINS} history"
PERIOD = 90 * 86400  # seconds before now in which messages began
USERS = 10
BATCH = 10_000
LONG = 300  # seconds for a server to look at all files
DRAW = random.Random(1)  # the same messages in each run


@dataclass(frozen=True, slots=True)
class Asked:
    """A server with that many messages in its index, and one connection to it."""

    server: servers.Server
    client: servers.Client
    ids: list[str]

    def page(self) -> float:
        """Seconds for a full page of a user's messages of one status, before some moment."""
        until = datetime.fromtimestamp(time.time() - DRAW.uniform(0, PERIOD / 2), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        url = f"/api/v2/messages?status=sent&since=2020-01-01T00:00:00Z&until={until}&limit=100"
        took, reply = self.client.request("GET", url)
        if reply.count(b'"id"') != 100:
            raise RuntimeError(f"no full page: {reply[:300]!r}")
        return took

    def wait(self) -> None:
        """Until the index has heard of all files, each of which is looked at once."""
        until = time.monotonic() + LONG
        while "up to date" not in history(self.server.spool / servers.INI, "status"):
            if time.monotonic() > until:
                raise RuntimeError("the index is not up to date")
            time.sleep(1)

    def status(self) -> float:
        """Seconds for one message, of several."""
        urls = [f"/api/v2/messages/{DRAW.choice(self.ids)}" for _ in range(20)]
        return statistics.median(self.client.request("GET", url)[0] for url in urls)


def ids(count: int) -> Iterator[str]:
    now = time.time()
    for _ in range(count):
        yield f"smsgw.http.{ULID.from_timestamp(now - DRAW.uniform(0, PERIOD))}"


@contextlib.contextmanager
def indexed(folder: Path, count: int) -> Iterator[Asked]:
    """Messages of which there are no files any more."""
    with servers.smsgw(folder, plugins=PLUGINS) as server:
        index = _index(folder)
        for begin in range(0, count, BATCH):
            index.put([_row(id) for id in ids(min(BATCH, count - begin))])
        with server.client() as client:
            yield Asked(server, client, [])


@contextlib.contextmanager
def filed(folder: Path, count: int) -> Iterator[Asked]:
    """Messages with their files, for each of which a status report was asked."""
    ini, found = servers.prepared(folder, plugins=PLUGINS), list(ids(count))
    head = b"To: %d\nFrom: sha\nModem: GSM1\nMessage_id: %d\nSent: 26-01-01 00:00:00\n\nHi, Jack!"
    for number, id in enumerate(found):
        (folder / "sent" / id).write_bytes(head % (79160000000 + number, number % 256))
    rebuild(ini)
    with servers.smsgw(folder, plugins=PLUGINS) as server, server.client() as client:
        yield Asked(server, client, found)


def rebuild(ini: Path, *options: str) -> float:
    """Seconds, from the beginning of the command to its end."""
    begun = time.perf_counter()
    if "The index is made" not in (said := history(ini, "rebuild", *options)):
        raise RuntimeError(said)
    return time.perf_counter() - begun


def history(ini: Path, *words: str) -> str:
    """What that command says."""
    command = [str(Path(sys.executable).with_name("smsgw")), "history", *words, str(ini)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr


def read(spool: Path) -> float:
    """Seconds to read all sent messages, and do nothing with them."""
    begun = time.perf_counter()
    for path in (spool / "sent").iterdir():
        path.read_bytes()
    return time.perf_counter() - begun


def _index(folder: Path) -> Index:
    """That of a server, which makes it when it starts."""
    state = folder / "outgoing" / ".smsgw"
    store = Store(f"sqlite:///{state / 'history' / FILE}")
    store.keep(TABLES, SCRIPTS)
    index = Index(store, f"{socket.gethostname()}:{folder / 'outgoing'}")
    for _ in itertools.takewhile(lambda _: not (state / "history").exists() or not index.is_complete(), range(100)):
        time.sleep(0.1)
    return index


def _row(id: str) -> dict[str, object]:
    user = DRAW.randrange(USERS)
    headers = {"To": str(79160000000 + DRAW.randrange(10**6)), "From": f"user{user}" if user else "sha"}
    headers |= {"Alphabet": "UTF-8", "Modem": "GSM1", "Sent": "26-01-01 00:00:00"}
    kind, event = ("failed", Failed) if DRAW.random() < 0.1 else ("sent", Sent)
    made: Event = event(StoredMessage(kind, id, headers, "Hi, Jack!", headers["From"]), datetime.now(UTC))
    return row(made, int(ULID.from_str(id.removeprefix("smsgw.http.")).milliseconds))
