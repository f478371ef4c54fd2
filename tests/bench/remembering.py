"""Spools and journals with many messages, for the rows of searches, statuses, and of a journal that is made."""

from __future__ import annotations

import contextlib
import random
import shutil
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

from smsgw.journal.database import NAME, Database
from smsgw.journal.journal import Journal
from smsgw.journal.tables import SCRIPTS, TABLES
from smsgw.journal.writing import Found
from smsgw.model import StoredMessage
from smsgw.spool.following.reader import followed
from smsgw.spool.layout import from_folder
from smsgw.store import FILE, Store

PERIOD = 90 * 86400  # seconds before now in which messages began
USERS = 10
BATCH = 10_000
LONG = 300  # seconds for a server to look at all files
DRAW = random.Random(1)  # the same messages in each run


@dataclass(frozen=True, slots=True)
class Asked:
    """A server with that many messages in its journal, and one connection to it."""

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
        """Until the journal has all files, each of which is looked at once."""
        until = time.monotonic() + LONG
        while "does not have all files" in journal(self.server.spool / servers.INI, "status"):
            if time.monotonic() > until:
                raise RuntimeError("the journal does not have all files")
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
    with servers.smsgw(folder) as server:
        made = _journal(folder)
        for begin in range(0, count, BATCH):
            some = [_seen(id) for id in ids(min(BATCH, count - begin))]
            made.put(some, [], {})
            made.put([], [(each.kind, each.name) for each in some], {})
        with server.client() as client:
            yield Asked(server, client, [])


@contextlib.contextmanager
def filed(folder: Path, count: int) -> Iterator[Asked]:
    """Messages with their files, for each of which a status report was asked."""
    ini, found = servers.prepared(folder, plugins=servers.PLUGINS), list(ids(count))
    head = b"To: %d\nFrom: sha\nModem: GSM1\nMessage_id: %d\nSent: 26-01-01 00:00:00\n\nHi, Jack!"
    for number, id in enumerate(found):
        (folder / "sent" / id).write_bytes(head % (79160000000 + number, number % 256))
    rebuild(ini)
    with servers.smsgw(folder) as server, server.client() as client:
        yield Asked(server, client, found)


def rebuild(ini: Path) -> float:
    """Seconds until the command has made the journal from nothing."""
    shutil.rmtree(ini.parent / "outgoing" / ".smsgw" / NAME, ignore_errors=True)
    begun = time.perf_counter()
    if "The journal is made" not in (said := journal(ini, "rebuild")):
        raise RuntimeError(said)
    return time.perf_counter() - begun


def journal(ini: Path, *words: str) -> str:
    """What that command says."""
    command = [str(Path(sys.executable).with_name("smsgw")), "journal", *words, str(ini)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr


def read(spool: Path) -> float:
    """Seconds to read all sent messages, and do nothing with them."""
    begun = time.perf_counter()
    for path in (spool / "sent").iterdir():
        path.read_bytes()
    return time.perf_counter() - begun


def _journal(folder: Path) -> Journal:
    """That of a server, when it has seen its folders."""
    layout = from_folder(folder)
    store = Store(f"sqlite:///{layout.state / NAME / FILE}")
    store.keep(TABLES, SCRIPTS)
    made = Journal(Database(store), f"{socket.gethostname()}:{layout.outgoing}", followed(layout))
    until = time.monotonic() + LONG
    while not (layout.state / NAME / FILE).exists() or not made.is_whole():
        if time.monotonic() > until:
            raise RuntimeError("the server makes no journal")
        time.sleep(0.1)
    return made


def _seen(id: str) -> Found:
    """A message that came to its end, as the follower reads it."""
    user = DRAW.randrange(USERS)
    headers = {"To": str(79160000000 + DRAW.randrange(10**6)), "From": f"user{user}" if user else "sha"}
    headers |= {"Alphabet": "UTF-8", "Modem": "GSM1", "Sent": "26-01-01 00:00:00"}
    kind = "failed" if DRAW.random() < 0.1 else "sent"
    began = int(ULID.from_str(id.removeprefix("smsgw.http.")).milliseconds)
    message = StoredMessage(kind, id, headers, "Hi, Jack!", headers["From"])
    return Found(kind, id, 1, began, datetime.now(UTC), message, None, None, False)
