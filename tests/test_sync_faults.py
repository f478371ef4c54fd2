"""A disk that fails when a message is synced: nothing is accepted that may be lost, nor refused and sent all the same.

Real servers, to which the C library says that a call failed (`filesystem.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from .conftest import at_length
from .filesystem import Watch
from .server import TIMEOUT, Reply, Server, wait_until
from .test_faults import KEY, MANY, ONE, Spool, is_refused, names, spool

__all__ = ["spool"]  # a fixture

Start = Callable[..., Server]
Send = Callable[[Server], Reply]


@pytest.fixture
def watch(tmp_path: Path, spool: Spool) -> Watch:
    return Watch(tmp_path, spool.folder)


@pytest.fixture
def start(tmp_path: Path, base_settings: dict[str, str], watch: Watch) -> Iterator[Start]:
    """Start a server on a spool that is used already, with `fsync` and with these settings."""
    environment = {name: value for name, value in watch.environment.items() if name != "NOTES"}
    servers: list[Server] = []

    def start(**settings: str) -> Server:
        changes = {"smsgw.fsync": "true"} | {f"smsgw.{name}": value for name, value in settings.items()}
        servers.append(Server(tmp_path, base_settings | changes, environment=environment))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()


def later(server: Server) -> Reply:
    send_at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    return server.request("POST", "/api/v2/messages", {"to": ["+79680000000"], "text": "Hi", "send_at": send_at})


@dataclass(frozen=True)
class Way:
    """A way in: how it is sent, how many there are, and which folder is synced after the rename that commits it."""

    name: str
    send: Send
    count: int
    folder: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def synced(self) -> str:
        return "outgoing" if self.folder == "outgoing" else f"outgoing/.smsgw/{self.folder}"


WAYS = [
    Way("single", lambda server: server.send(ONE), 1, "outgoing"),
    Way("single that waits", lambda server: server.send(ONE), 1, "waiting/normal/lvv", {"outgoing_depth": "1"}),
    Way("single for later", later, 1, "scheduled"),
    Way("single with a key", lambda server: server.send(ONE, key=KEY), 1, "ready"),
    Way("several", lambda server: server.send(MANY[:3]), 3, "ready"),
    Way("many", lambda server: server.send(MANY), 50, "ready"),
    Way("many with a key", lambda server: server.send(MANY, key=KEY), 50, "ready"),
]
way = pytest.mark.parametrize("way", WAYS[:: at_length(1, 2)], ids=lambda way: way.name)


def there(spool: Spool) -> list[str]:
    """All of smsgw's messages, wherever they are, and what is left of them."""
    return sorted(path.name for path in spool.folder.rglob("smsgw.*") if path.is_file())


def fill(spool: Spool, way: Way) -> None:
    if way.folder.startswith("waiting"):
        (spool.outgoing / "cron.1").write_text("To: 911\n\nHi")


@way
@pytest.mark.parametrize("fault", ["its folder", "everything"])
def test_what_cannot_be_synced_is_refused_and_not_sent(
    start: Start, spool: Spool, watch: Watch, way: Way, fault: str
) -> None:
    fill(spool, way)
    server = start(**way.settings)
    watch.fail(f"sync {spool.folder / way.synced}" if fault == "its folder" else "sync *")
    assert is_unavailable(way.send(server))
    assert there(spool) == names(spool.ready) == names(spool.receipts) == []
    watch.fail()
    assert way.send(server).status in (201, 202)
    assert len(there(spool)) == len(set(there(spool))) == way.count


def is_unavailable(reply: Reply) -> bool:
    """As `is_refused`, by any version of the API."""
    assert reply.status == 503, (reply.status, reply.body)
    return "detail" in reply.json or is_refused(reply)


@way
def test_on_a_file_system_that_becomes_read_only_nothing_is_accepted(
    start: Start, spool: Spool, watch: Watch, way: Way
) -> None:
    """It may be sent all the same, since it cannot be taken back; the log says so."""
    fill(spool, way)
    server = start(**way.settings)
    watch.fail(f"read-only {spool.folder / way.synced}")
    assert is_unavailable(way.send(server))
    server.kill()  # and its log is read to the end
    is_there = way.folder != "scheduled"  # in which no folder can be made for it
    assert ("was refused, and may be sent all the same" in server.stderr) == is_there


@way
def test_without_fsync_nothing_is_synced(start: Start, spool: Spool, watch: Watch, way: Way) -> None:
    fill(spool, way)
    server = start(**way.settings, fsync="false")
    watch.fail("sync *")
    assert way.send(server).status in (201, 202)
    assert len(there(spool)) == way.count


@pytest.mark.parametrize("original", ["is removed", "is still there"])
def test_what_smsd_has_already_is_accepted(start: Start, spool: Spool, watch: Watch, original: str) -> None:
    server = start()
    assert server.monitor().status == 200
    watch.fail(f"hold {spool.outgoing}")
    with ThreadPoolExecutor(1) as threads:
        reply = threads.submit(server.send, ONE)
        wait_until(lambda: bool(names(spool.outgoing, "smsgw.*")), spool.outgoing)
        [id] = names(spool.outgoing, "smsgw.*")
        (spool.folder / "checked" / id).write_bytes((spool.outgoing / id).read_bytes())
        if original == "is removed":
            (spool.outgoing / id).unlink()
        watch.fail(f"sync {spool.outgoing}")
        assert reply.result(TIMEOUT).status == 201
    assert there(spool) == [id]
    assert names(spool.folder / "checked") == [id]


@pytest.mark.parametrize("key", [None, KEY])
def test_what_is_committed_is_accepted_also_where_it_cannot_be_synced_on_its_way(
    start: Start, spool: Spool, watch: Watch, key: str | None
) -> None:
    """It is on disk in `ready`, and stays there until it is on disk where it goes."""
    server = start()
    watch.fail(f"sync {spool.outgoing}")
    assert server.send(MANY, key=key).status == 201
    assert len(names(spool.ready)) == 1
    watch.fail()
    wait_until(lambda: not names(spool.ready), spool.ready)
    assert len(there(spool)) == len(MANY)
    assert len(names(spool.receipts)) == bool(key)


def test_a_refusal_under_a_key_is_remembered_on_disk_or_not_at_all(start: Start, spool: Spool, watch: Watch) -> None:
    server = start()
    watch.fail(f"sync {spool.receipts}")
    assert server.send(["nobody"], key=KEY).status == 400
    assert names(spool.receipts) == []
    watch.fail()
    assert server.send(ONE, key=KEY).status == 201
