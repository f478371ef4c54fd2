"""Backups as operation.md and journal.md tell how to make them: each command is run, and a gateway lives on with it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.conftest import eventually, make_spool, sha
from tests.postgresql import Postgresql
from tests.server import Server
from tests.test_documentation import OPERATION, ROOT, blocks

BIN = Path(sys.executable).parent
JOURNAL = (ROOT / "docs" / "journal.md").read_text()
MESSAGES = "/api/v2/messages"
FOLDERS = ("outgoing", "checked", "sent", "failed", "incoming", "report")
WEBHOOK = {"url": "http://127.0.0.1:1/", "events": ["message.failed"]}


class Machine:
    """A machine with the gateway of production.ini: its root is a folder, and systemctl stops and starts one server."""

    def __init__(self, root: Path, settings: dict[str, str]) -> None:
        self.root = root
        self.spool = make_spool(root / "var" / "spool" / "sms")
        self.state = self.spool / "outgoing" / ".smsgw"
        etc = root / "etc" / "smsgw"
        etc.mkdir(parents=True)
        (root / "root").mkdir()
        (etc / "htpasswd").write_text(f"lvv:{sha('SecretPAss')}\n")
        folders = "".join(f"{kind} = {self.spool / kind}\n" for kind in FOLDERS)
        (root / "etc" / "smsd.conf").write_text(f"devices = GSM1\n{folders}")
        own = {"smsgw.smsd_conf": str(root / "etc" / "smsd.conf"), "smsgw.htpasswd.path": str(etc / "htpasswd")}
        self.server = Server(etc, own | {"smsgw.fsync": "false"} | settings)
        (self.ini,) = etc.glob("*.ini")

    def run(self, commands: str) -> None:
        """Commands of a document, one after the other, by an operator who stays in a folder that was entered."""
        folder = self.root
        for line in commands.splitlines():
            program, *words = line.split()
            if program == "systemctl":
                assert "smsgw" in words[1:]
                {"stop": self.server.stop, "start": self.server.start}[words[0]]()
            elif program != "apt":
                folder = Path(self._shell(f"{line}\npwd", folder).splitlines()[-1])

    def smsgw(self, *words: str) -> str:
        ran = programs.run([BIN / "smsgw", *" ".join(words).split(), self.ini], cwd=self.root)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def ask(self, path: str, **request: Any) -> Any:
        reply = self.server.request("POST" if "body" in request else "GET", path, **request)
        assert reply.status < 300, reply.body
        return reply.json

    def send(self, **body: Any) -> str:
        body = {"to": ["79680000000"], "text": "Hi, Jack!"} | body
        id: str = self.ask(MESSAGES, body=body)["messages"][0]["id"]
        return id

    def be_smsd(self, id: str) -> Path:
        """Send that message."""
        path = self.spool / "outgoing" / id
        path.write_text(path.read_text().replace("\n\n", "\nModem: GSM1\nSent: 26-11-23 07:11:05\n\n", 1))
        return path.rename(self.spool / "sent" / id)

    def remember(self, count: int) -> None:
        """Return when the journal has so many messages that were sent, as the command says."""
        eventually(lambda: list(self.found().values()).count("sent") == count)
        assert ["sent", str(count)] in [line.split() for line in self.smsgw("journal status").splitlines()]

    def found(self) -> dict[str, str]:
        return {message["id"]: message["status"] for message in self.ask(MESSAGES)["messages"]}

    def _shell(self, line: str, folder: Path) -> str:
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        for theirs, ours in (
            ("/etc/smsgw/production.ini", str(self.ini)),
            ("-C /", f"-C {self.root}/"),
            (" /var/", f" {self.root}/var/"),
            ("/root/", f"{self.root}/root/"),
            ("-o smsgw -g smsgw", f"-o {user} -g {group}"),
        ):
            line = line.replace(theirs, ours)
        environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
        ran = subprocess.run(
            ["bash", "-ec", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture
def make_machine(tmp_path: Path) -> Iterator[Any]:
    machines = []

    def make(**settings: str) -> Machine:
        machine = Machine(tmp_path / "machine", {f"smsgw.{name}": value for name, value in settings.items()})
        machines.append(machine)
        machine.server.start()
        return machine

    yield make
    for machine in machines:
        machine.server.kill()


def commands(text: str, words: str) -> tuple[str, str]:
    """The block that makes a backup, which has those words in it, and the one that puts it back."""
    found = blocks(text, "sh")
    (place,) = (place for place, block in enumerate(found) if words in block)
    return found[place], found[place + 1]


def fill(machine: Machine) -> tuple[str, dict[str, str]]:
    """Let a gateway remember something of each kind: a token, and messages by their statuses."""
    token = machine.smsgw("token create --user lvv").strip()
    machine.ask("/api/v2/webhooks", body=WEBHOOK)
    messages = {
        machine.send(send_at=(datetime.now(UTC) + timedelta(days=9)).isoformat()): "scheduled",
        machine.send(): "queued",
        (gone := machine.send()): "sent",
        (sent := machine.send()): "sent",
    }
    machine.be_smsd(sent)
    path = machine.be_smsd(gone)
    machine.remember(2)
    path.unlink()
    return token, messages


def knows(machine: Machine, token: str, messages: dict[str, str], left: int) -> None:
    """Whether it is as it was when it had been filled."""
    eventually(lambda: messages.items() <= machine.found().items())
    assert [each["url"] for each in machine.ask("/api/v2/webhooks")["webhooks"]] == [WEBHOOK["url"]]
    me = machine.ask("/api/v2/me", user=None, headers={"Authorization": f"Bearer {token}"})
    assert (me["userid"], me["limits"][0]["left"]) == ("lvv", left)
    machine.send()
    assert machine.ask("/api/v2/me")["limits"][0]["left"] == left - 1
    assert machine.smsgw("token list").count("lvv") == 1


def hot_journal(path: Path) -> None:
    """Leave beside a database what a process leaves that is killed while it commits."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("PRAGMA cache_spill = 1")
        store.execute("PRAGMA cache_size = 1")
        store.execute("BEGIN IMMEDIATE")
        store.execute("CREATE TABLE more (text)")
        store.execute(
            "INSERT INTO more SELECT hex(randomblob(1000)) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8))"
        )
        journal = path.with_name(f"{path.name}-journal")
        content = journal.read_bytes()
        store.execute("ROLLBACK")
    assert any(content[:8])
    journal.write_bytes(content)


PLUGINS = {
    "plugins": "token htpasswd allow quota webhooks",
    "quota.limits": "lvv: 1000/month",
    "webhooks.allow_private": "true",
}


@pytest.mark.parametrize("is_lost", [False, True], ids=["a crash", "another machine"])
def test_the_backup_of_operation_md(make_machine: Any, is_lost: bool) -> None:
    """Put back where there is nothing, and over what a crash leaves of databases that were whole in the backup."""
    machine = make_machine(**PLUGINS)
    make, put_back = commands(OPERATION, "tar -c")
    token, messages = fill(machine)
    stop, *others = make.splitlines()
    machine.run(stop)
    machine.run("\n".join(others))
    (archive,) = (machine.root / "root").iterdir()
    assert archive.stat().st_mode & 0o077 == 0
    machine.smsgw("token create --user lvv")
    machine.be_smsd(machine.send())
    machine.remember(3)
    machine.server.kill()
    if not is_lost:  # which does not fit the database of the backup
        for path in machine.state.glob("**/store.sqlite3"):
            hot_journal(path)
    shutil.rmtree(machine.root / "etc")
    if is_lost:
        shutil.rmtree(machine.root / "var")
    machine.run("\n".join(put_back.splitlines()[1:]))
    knows(machine, token, messages, 1000 - 4)
    for file in ("store.sqlite3", "journal/store.sqlite3"):
        with contextlib.closing(sqlite3.connect(f"file:{machine.state / file}?mode=ro", uri=True)) as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_backup_of_a_postgresql(make_machine: Any, postgresql: Postgresql) -> None:
    url = postgresql.create()
    machine = make_machine(store=url, **PLUGINS)
    make, put_back = (text.replace("postgresql://smsgw@/smsgw", url) for text in commands(OPERATION, "pg_dump"))
    assert put_back != make
    token, messages = fill(machine)
    machine.run(make)
    machine.smsgw("token create --user lvv")
    machine.be_smsd(later := machine.send())
    machine.remember(3)
    machine.run(put_back)
    machine.remember(3)
    messages[later] = "sent"
    knows(machine, token, messages, 1000 - 4)


def test_the_backup_of_journal_md(make_machine: Any) -> None:
    """Made while the gateway runs, put back while it does not; what became of messages since is found in the spool."""
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3")
    machine = make_machine(plugins="htpasswd allow")
    make, put_back = commands(JOURNAL, ".backup")
    first, second = machine.send(), machine.send()
    path = machine.be_smsd(first)
    machine.remember(1)
    path.unlink()
    machine.run(make)
    machine.be_smsd(second)
    machine.remember(2)
    (machine.state / "journal").rename(machine.root / "lost")
    machine.run(put_back)
    assert (machine.state / "journal").stat().st_mode & 0o777 == 0o700
    eventually(lambda: machine.found() == {first: "sent", second: "sent"})
    assert "sent    2" in machine.smsgw("journal status")
