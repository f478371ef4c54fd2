"""Spools and journals with many messages, for the rows of searches, statuses, lists, memory and idle processes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import servers
from sqlalchemy import insert, select
from ulid import ULID

from smsgw.journal.database import NAME
from smsgw.journal.tables import MESSAGES, SCRIPTS, SPOOLS, TABLES
from smsgw.spool.layout import from_folder
from smsgw.store import FILE, Store

PERIOD = 90 * 86400  # seconds before now in which messages began
USERS = 10
BATCH = 10_000
LONG = 1200  # seconds for a server to look at all files
SETTLED = 15.0  # seconds after which a server that has all files is at rest
DRAW = random.Random(1)  # the same messages in each run
HEAD = b"To: %d\nFrom: sha\nModem: GSM1\nMessage_id: %d\nSent: 26-01-01 00:00:00\n\nHi, Jack!"


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

    def status(self) -> float:
        """Seconds for one message, of several."""
        urls = [f"/api/v2/messages/{DRAW.choice(self.ids)}" for _ in range(20)]
        return statistics.median(self.client.request("GET", url)[0] for url in urls)


def ids(count: int) -> Iterator[str]:
    now = time.time()
    for _ in range(count):
        yield f"smsgw.http.{ULID.from_timestamp(now - DRAW.uniform(0, PERIOD))}"


def wait(spool: Path) -> None:
    """Until the journal has all files of the spool, each of which is looked at once."""
    until = time.monotonic() + LONG
    while "does not have all files" in (said := journal(spool / servers.INI, "status")) or "no journal" in said:
        if time.monotonic() > until:
            raise RuntimeError("the journal does not have all files")
        time.sleep(1)


@contextlib.contextmanager
def indexed(folder: Path, count: int) -> Iterator[Asked]:
    """Messages of which there are no files any more."""
    with servers.production(folder):
        wait(folder)
    remember(folder, count)
    with servers.production(folder) as server, server.client() as client:
        store = store_of(folder)
        with store.begin(is_reading=True) as connection:
            found = select(MESSAGES.c.id).where(MESSAGES.c.owner == "sha").limit(10_000)
            asked = DRAW.sample(list(connection.execute(found).scalars()), 500)
        store.close()
        yield Asked(server, client, asked)


def remember(folder: Path, count: int) -> None:
    """Put that many messages into the journal of a spool, whose server does not run."""
    store = store_of(folder)
    with store.begin() as connection:
        connection.exec_driver_sql("PRAGMA cache_size = -200000")
        spool = connection.scalar(select(SPOOLS.c.spool))
        for begin in range(0, count, BATCH):
            some = ids(min(BATCH, count - begin))
            connection.execute(insert(MESSAGES), [_row(id) | {"spool": spool} for id in some])
    store.close()


def store_of(folder: Path) -> Store:
    store = Store(f"sqlite:///{from_folder(folder).state / NAME / FILE}")
    store.keep(TABLES, SCRIPTS)
    return store


def write_files(folder: Path, count: int) -> list[str]:
    """Sent messages, for each of which a status report was asked."""
    found = list(ids(count))
    for number, id in enumerate(found):
        (folder / id).write_bytes(HEAD % (79160000000 + number, number % 256))
    return found


def prepared(folder: Path, count: int) -> Path:
    """The ini file of a spool with that many sent messages, and no journal."""
    ini = servers.prepared(folder, plugins=servers.PLUGINS)
    write_files(folder / "sent", count)
    return ini


def followed(folder: Path, count: int) -> int:
    """Resident bytes of a server that saw that many messages come into ``sent``, one after the other."""
    with servers.production(folder) as server:
        wait(folder)
        made = folder / "made"
        made.mkdir()
        for name in write_files(made, count):
            os.rename(made / name, folder / "sent" / name)
        wait_for(folder, count)
        return server.memory()


def wait_for(folder: Path, count: int) -> None:
    until = time.monotonic() + LONG
    while f"{count} files are known" not in journal(folder / servers.INI, "status"):
        if time.monotonic() > until:
            raise RuntimeError("the journal does not have all files")
        time.sleep(2)


def first(folder: Path) -> tuple[float, float]:
    """Seconds of the first list of v1, and of the first search, each of a process that has just started."""
    took = []
    for url in ("/api/v1.0/sms/sent/", "/api/v2/messages?status=sent"):
        with servers.production(folder) as server, server.client() as client:
            seconds, reply = client.request("GET", url)
            if reply.count(b"smsgw.http.") < 20:
                raise RuntimeError(f"no full list: {reply[:300]!r}")
            took.append(seconds)
    return took[0], took[1]


def idle(folder: Path, seconds: float) -> tuple[float, float, int]:
    """Processor seconds, wake-ups a second and resident bytes of a server to which nobody talks."""
    with servers.production(folder) as server:
        wait(folder)
        time.sleep(SETTLED)
        begun = _spent(server.pid)
        time.sleep(seconds)
        ended = _spent(server.pid)
        return ended[0] - begun[0], (ended[1] - begun[1]) / seconds, server.memory()


def _spent(pid: int) -> tuple[float, int]:
    """Processor seconds of a process so far, and how often its threads went to sleep."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    switches = 0
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        switches += int(path.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), switches


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


def _row(id: str) -> dict[str, object]:
    """A message that came to its end, as the journal has it."""
    user, number = DRAW.randrange(USERS), str(79160000000 + DRAW.randrange(10**6))
    headers = {"To": number, "From": f"user{user}" if user else "sha"}
    headers |= {"Alphabet": "UTF-8", "Modem": "GSM1", "Sent": "26-01-01 00:00:00"}
    return {
        "id": id,
        "is_received": False,
        "began": int(ULID.from_str(id.removeprefix("smsgw.http.")).milliseconds),
        "status": "failed" if DRAW.random() < 0.1 else "sent",
        "ends": 1,
        "owner": headers["From"],
        "number": f"+{number}",
        "reference": None,
        "content": json.dumps([headers, "Hi, Jack!"]),
        "report": None,
    }
