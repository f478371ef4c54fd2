"""``/health``: what it says of each part, who may ask, and that it answers while nothing else does."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waitress import wasyncore
from waitress.server import create_server

from smsgw.hookspecs import hookimpl
from smsgw.journal.tables import Broken
from smsgw.model import Identity
from tests.conftest import USERS, Gateway, basic, eventually
from tests.server import Server, free_port

BLOCKED = "GSM1:\t26-11-29 10:08:42,\tBlocked,\t0,\t2,\t0,\tssi: -73 dBm (Excellent), ber: < 0.2 %\n"
IDLE = "GSM2:\t26-11-29 10:08:42,\tIdle,\t\t5,\t0,\t1,\tssi: -51 dBm (Excellent), ber: ??\n"


@pytest.fixture
def status(tmp_path: Path) -> Path:
    """smsd's own statistics."""
    (tmp_path / "stats").mkdir()
    path = tmp_path / "stats" / "status"
    path.write_text(BLOCKED.replace("Blocked", "Idle") + IDLE)
    return path


@pytest.fixture
def watched(make_gateway: Callable[..., Gateway], status: Path) -> Gateway:
    return make_gateway({"smsgw.health.stats": str(status.parent)})


def told(gateway: Gateway, user: str | None = "root") -> Any:
    return gateway.get("/health", user=user).json


def problems(gateway: Gateway) -> dict[str, tuple[str, str]]:
    return {each["part"]: (each["level"], each["what"]) for each in told(gateway)["problems"]}


def test_all_is_well(watched: Gateway) -> None:
    assert watched.get("/health/live", user=None).json == {"status": "ok"}
    assert watched.get("/health/ready", user=None).json == {"ready": True, "wrong": []}
    found = told(watched)
    assert (found["status"], found["ready"], found["problems"]) == ("ok", True, [])
    assert found["modems"][1] == {
        "name": "GSM2",
        "is_up": True,
        "state": "idle",
        "since": found["modems"][1]["since"],
        "signal": -51,
        "sent": 5,
        "failed": 0,
        "received": 1,
        "sent_ever": None,
    }
    assert found["queues"] == [
        {"queue": name, "count": 0, "oldest": None} for name in ("waiting", "outgoing", "checked")
    ]
    watched.send()
    assert told(watched)["queues"][1]["count"] == 1
    assert told(watched)["queues"][1]["oldest"].endswith("Z")


def test_who_may_ask(watched: Gateway) -> None:
    watched.get("/health", user=None, status=401)
    watched.get("/health", user="lvv", status=403)
    watched.get("/health", user="root")


def test_one_of_two_modems_is_gone(watched: Gateway, status: Path) -> None:
    status.write_text(BLOCKED + IDLE)
    assert watched.get("/health/ready", user=None).json == {"ready": True, "wrong": ["modem"]}
    found = told(watched)
    assert (found["status"], found["ready"]) == ("warning", True)
    (problem,) = found["problems"]
    assert (problem["level"], problem["part"]) == ("warning", "modem GSM1")
    assert problem["since"].startswith("2026-11-2")
    assert "Restart smsd" in problem["remedy"]
    assert [each["is_up"] for each in found["modems"]] == [False, True]


def test_no_modem_is_left(watched: Gateway, status: Path) -> None:
    status.write_text(BLOCKED)
    assert watched.get("/health/ready", user=None, status=503).json == {"ready": False, "wrong": ["modem"]}
    assert told(watched)["status"] == "error"
    assert watched.get("/health/live", user=None).json == {"status": "ok"}


def test_smsd_does_not_run(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    conf = tmp_path / "smsd.conf"
    folders = "".join(f"{kind} = {tmp_path / 'spool' / kind}\n" for kind in ("outgoing", "checked", "sent", "failed"))
    conf.write_text(f"devices = GSM1\npidfile = {tmp_path / 'smsd.pid'}\nincoming = {tmp_path / 'spool'}\n{folders}")
    gateway = make_gateway({"smsgw.spool": None, "smsgw.smsd_conf": str(conf)})
    assert gateway.get("/health/ready", user=None, status=503).json == {"ready": False, "wrong": ["smsd"]}
    (problem,) = told(gateway)["problems"]
    assert problem["what"].startswith("smsd does not run")
    assert problem["remedy"] == "Start it, and see its log: systemctl start smstools"


def test_the_spool_is_gone(watched: Gateway) -> None:
    (watched.spool / "outgoing").rename(watched.spool / "away")
    found = watched.get("/health/ready", user=None, status=503).json
    assert (found["ready"], found["wrong"][0]) == (False, "spool")  # the journal is in it
    assert problems(watched)["spool"][0] == "error"
    assert told(watched)["status"] == "error"


def test_the_journal_is_out_of_service(watched: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages go out all the same."""

    def seen() -> dict[str, int]:
        with watched.application.journal.database.reading():
            raise Broken("it is no database")

    monkeypatch.setattr(type(watched.application.journal), "seen", lambda self: seen())
    assert watched.get("/health/ready", user=None).json == {"ready": True, "wrong": ["journal"]}
    assert problems(watched) == {"journal": ("warning", "The gateway's journal is broken")}


class Backend:
    """Knows nobody; what is wrong with it can be set."""

    wrong: Any = "its directory is out of service"

    @hookimpl
    def authenticate(self, credentials: object) -> Identity | None:
        return None

    @hookimpl
    def fault(self) -> str | None:
        if isinstance(self.wrong, Exception):
            raise self.wrong
        found: str | None = self.wrong
        return found


@pytest.mark.parametrize("wrong", ["its directory is out of service", RuntimeError("secret")])
def test_a_backend_is_out_of_service(
    make_gateway: Callable[..., Gateway], wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backend, "wrong", wrong)
    gateway = make_gateway({"smsgw.plugins": "htpasswd backend allow"}, backend=Backend)
    what = wrong if isinstance(wrong, str) else "it failed to tell how it is"
    assert problems(gateway) == {"plugin backend": ("warning", what)}
    assert gateway.get("/health/ready", user=None).json == {"ready": True, "wrong": ["plugin"]}


def test_all_backends_are_out_of_service(make_gateway: Callable[..., Gateway], password_file: Path) -> None:
    gateway = make_gateway()
    password_file.unlink()
    found = gateway.get("/health/ready", user=None, status=503).json
    assert found == {"ready": False, "wrong": ["plugin", "authentication"]}


def test_monitoring_is_as_it_was(watched: Gateway, status: Path) -> None:
    status.write_text(BLOCKED)
    assert watched.get("/api/v1.0/monitoring", user=None).json == {"monitoring": "ok"}


@pytest.mark.parametrize("name", ["health", "journal"])
def test_it_is_no_plugin(refusal: Callable[..., str], name: str) -> None:
    assert f"{name} is a part of the gateway, and no plugin" in refusal({"smsgw.plugins": f"htpasswd allow {name}"})


@pytest.mark.parametrize("address", ["5001", "host", "127.0.0.1:", "a b:1", "[::1:5"])
def test_addresses_that_are_none(refusal: Callable[..., str], address: str) -> None:
    assert "smsgw.health.listen: should be one such as 127.0.0.1:5001" in refusal({"smsgw.health.listen": address})


def ask(port: int, path: str, method: str = "GET", user: str | None = None, timeout: float = 30) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, headers={"Authorization": basic(user, USERS[user])} if user else {})
        reply = connection.getresponse()
        body = reply.read()
        return reply.status, json.loads(body) if body else None
    finally:
        connection.close()


class Stuck:
    """Transforms nothing before it is let go."""

    go = threading.Event()
    entered = threading.Semaphore(0)

    @hookimpl
    def transform(self, text: str) -> str:
        self.entered.release()
        self.go.wait(60)
        return text


@pytest.fixture
def let_go() -> Iterator[None]:
    Stuck.go.clear()
    yield
    Stuck.go.set()


@contextlib.contextmanager
def served(app: Any, port: int, threads: int) -> Iterator[None]:
    """By waitress, in this process."""
    stop, open_files = threading.Event(), {}

    def serve() -> None:
        server = create_server(app, map=open_files, listen=f"127.0.0.1:{port}", threads=threads)
        is_up.set()
        while not stop.is_set():
            wasyncore.loop(timeout=0.1, map=open_files, count=1)
        server.task_dispatcher.shutdown(timeout=5)
        server.close()
        wasyncore.close_all(open_files, ignore_all=True)

    is_up = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert is_up.wait(60)
        yield
    finally:
        stop.set()
        thread.join()


def test_it_answers_while_all_threads_are_busy(make_gateway: Callable[..., Gateway], let_go: None) -> None:
    port, own = free_port(), free_port()
    changes = {"smsgw.plugins": "htpasswd stuck allow", "smsgw.health.listen": f"127.0.0.1:{own}"}
    gateway = make_gateway(changes, stuck=Stuck)
    body = json.dumps({"mobiles": ["79680000000"], "text": "Hi"})
    headers = {"Authorization": basic("lvv", USERS["lvv"]), "Content-Type": "application/json"}
    senders = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(2)]
    with served(gateway.app.app, port, threads=2):
        for sender in senders:
            sender.request("POST", "/api/v1.0/sms/outgoing", body, headers)
        for _ in senders:
            assert Stuck.entered.acquire(timeout=60)
        with pytest.raises(TimeoutError):
            ask(port, "/health/live", timeout=0.5)
        eventually(lambda: _answers(own))
        assert ask(own, "/health/live") == (200, {"status": "ok"})
        assert ask(own, "/health/ready") == (200, {"ready": True, "wrong": []})
        assert ask(own, "/api/v1.0/monitoring") == (200, {"monitoring": "ok"})
        assert ask(own, "/health")[0] == 401
        assert ask(own, "/health", user="root")[1]["status"] == "ok"
        for path, method in (("/api/v1.0/sms/sent/", "GET"), ("/health/live", "POST"), ("/", "GET")):
            assert ask(own, path, method, user="root")[0] == 404
        Stuck.go.set()
        assert [sender.getresponse().status for sender in senders] == [201, 201]
        for sender in senders:
            sender.close()


def test_another_process_takes_the_address_over(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    own = free_port()
    first = make_gateway({"smsgw.health.listen": f"127.0.0.1:{own}"})
    eventually(lambda: _answers(own))
    second = make_gateway({"smsgw.health.listen": f"127.0.0.1:{own}"})
    first.application.close()
    eventually(lambda: _answers(own))
    second.application.close()
    assert not _answers(own)


def _answers(port: int) -> bool:
    try:
        return ask(port, "/health/live")[0] == 200
    except OSError:
        return False


def test_an_address_of_another_machine(make_gateway: Callable[..., Gateway], caplog: pytest.LogCaptureFixture) -> None:
    gateway = make_gateway({"smsgw.health.listen": "192.0.2.1:5001"})
    eventually(lambda: "nobody can listen on 192.0.2.1:5001" in caplog.text)
    gateway.send()


def test_several_processes(base_settings: dict[str, str], tmp_path: Path) -> None:
    """With gunicorn: one of them has the address; when it dies, another one gets it."""
    own = free_port()
    with Server(tmp_path, base_settings | {"smsgw.health.listen": f"127.0.0.1:{own}"}, workers=2) as server:
        for _ in range(3):
            eventually(lambda: _answers(own))
            os.kill(_listening(server.workers, own), signal.SIGKILL)


def _listening(processes: list[int], port: int) -> int:
    """Which of these processes listens on that port of 127.0.0.1."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = (line[9] for line in lines if line[1] == f"0100007F:{port:04X}" and line[3] == "0A")
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) == f"socket:[{inode}]":
                    return process
    raise AssertionError("none of them does")


def test_the_example_of_the_document(watched: Gateway, status: Path) -> None:
    """It has all members, and no others."""
    text = (Path(__file__).parent.parent / "docs" / "operation.md").read_text()
    (block,) = re.findall(r"```json\n(\{\"status.*?)\n```", text, re.S)
    example = json.loads(block)
    status.write_text(BLOCKED + IDLE)
    found = told(watched)
    assert list(found) == list(example)
    for name in ("problems", "modems", "queues"):
        assert list(found[name][0]) == list(example[name][0])
    assert [each["queue"] for each in found["queues"]] == [each["queue"] for each in example["queues"]]
