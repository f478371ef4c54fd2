"""Faults made on purpose, as a table: each is named by ``smsgw check``, by ``/health`` or by an alarm, and the remedy
that is printed mends it. Where a remedy has a command, that very command is run.

``BESIDE`` names the remedies that other tests try: their faults need other users, or other servers.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import venv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from smsgw.cli.check import finding
from smsgw.hookspecs import hookimpl
from smsgw.journal.alarms import standing
from smsgw.spool.daemon import handlers
from smsgw.testing import Users, offered
from smsgw.watchdog import Watchdog
from tests.cli.conftest import Ini, ini, smsgw
from tests.conftest import Gateway, eventually, make_spool
from tests.postgresql import Postgresql
from tests.server import LOGGING, Server, free_port
from tests.smsd.server import Smsd
from tests.tmpfs import Tmpfs

__all__ = ["ini"]

OLD = 3600.0  # seconds

# Tests that try a remedy, and a piece of it.
BESIDE = (
    ("cli/test_check.py: test_as_another_user", "Run it as the gateway's user."),
    ("cli/test_check.py: test_as_another_user", "-- smsgw check ...'; the gateway always runs as the same user."),
    ("cli/test_check.py: test_a_port_that_only_root_may_have", "Take a port from 1024 on, behind a web server."),
    (
        "cli/test_check.py: test_a_server_that_never_answers",
        "If it is the gateway, all its threads are busy: see its log, and which plugin waits for what.",
    ),
    ("cli/test_check.py: test_a_gateway_that_runs", "See its log for the reason."),
    ("cli/test_check.py: test_a_journal_of_another_user", "As root: chmod u+rw"),
    ("cli/test_check.py: test_a_store_of_several_machines", "Name the one that can be written to."),
    (
        "smsd/test_debian.py: test_the_remedy_after_an_upgrade_of_smsd",
        "Stop the gateway, and start it again when this is done. As root: chown -R",
    ),
    (
        "smsd/test_debian.py: test_the_remedies_for_what_the_gateway_s_user_may_not",
        "Stop the gateway, and start it as its own user when this is done. As root: chown -R",
    ),
    ("smsd/test_debian.py: test_the_remedies_for_what_the_gateway_s_user_may_not", "; then restart the gateway."),
)

TO_ALL = {"check", "health", "alarm"}
LEVELS = ("warning", "error", "stops", "kind", "found")  # what makes a finding with a remedy
GRANIAN = "[server:granian]\nuse = egg:smsgw#granian\n"
NOT_RUNNING = "smsd does not run"


class Place:
    """Where a fault is made: an ini file, the gateway of it, and its smsd; all of it ends with the test.

    ``changes`` are settings of ``[app:main]``, ``waitress`` those of ``[server:main]``; ``None`` takes one away. More
    sections are in ``more``. ``program`` is what runs the command ``smsgw``, where that is not this process.
    ``server`` and ``lock`` are of the faults of databases.
    """

    server: Postgresql
    lock: sqlite3.Connection

    def __init__(
        self, folder: Path, ini: Ini, make_gateway: Callable[..., Gateway], opened: contextlib.ExitStack
    ) -> None:
        self.folder, self.opened = folder, opened
        self.changes: dict[str, str | None] = {}
        self.waitress: dict[str, str | None] = {}
        self.program: Sequence[str] = ()
        self.env: dict[str, str] = {}
        self.more = ""
        self.daemon: Smsd | None = None
        self._ini, self._make_gateway = ini, make_gateway

    @property
    def spool(self) -> Path:
        return self.daemon.spool if self.daemon else Path(self.changes.get("smsgw.spool") or self.folder / "spool")

    @property
    def state(self) -> Path:
        return self.spool / "outgoing" / ".smsgw"

    @property
    def passwords(self) -> Path:
        return self.folder / "htpasswd"

    def ini(self) -> Path:
        is_new = not (self.folder / "gateway.ini").exists()
        path = self._ini(self.changes, self.waitress)
        path.write_text(path.read_text() + self.more)
        if is_new:
            path.chmod(0o600)
        return path

    def set(self, name: str, value: str | None) -> None:
        self.changes[name] = value

    # smsd

    def configure(self, **options: Any) -> Smsd:
        """An smsd that does not run, and whose modems are symbolic links."""
        (self.folder / "smsd" / "stats").mkdir(parents=True)
        stats = f"stats = {self.folder / 'smsd' / 'stats'}\n"
        self.daemon = Smsd(self.folder / "smsd", extra=stats + options.pop("extra", ""), **options)
        self.state.mkdir(mode=0o700)
        for modem in self.daemon.modems:
            self.opened.callback(modem.unplug)
            self.device(modem.name).symlink_to(modem.device)
            self.edit(f"device = {modem.device}\n", f"device = {self.device(modem.name)}\n")
        self.set("smsgw.spool", None)
        self.set("smsgw.smsd_conf", str(self.daemon.conf))
        return self.daemon

    def start(self, **options: Any) -> Smsd:
        """The same, and it runs; the gateway's start is the first that sees all of its processes."""
        daemon = self.configure(**options)
        self.opened.enter_context(daemon)
        assert self.is_well()
        return daemon

    def start_again(self) -> None:
        assert self.daemon
        self.daemon.kill()
        self.daemon.start()

    def device(self, name: str) -> Path:
        return self.folder / "smsd" / name

    def edit(self, old: str, new: str) -> None:
        """Change smsd's own file."""
        assert self.daemon
        text = self.daemon.conf.read_text()
        assert old in text
        self.daemon.conf.write_text(text.replace(old, new, 1))

    # Who tells of faults

    @cached_property
    def gateway(self) -> Gateway:
        return self._make_gateway(self.changes)

    @cached_property
    def watchdog(self) -> Watchdog:
        """As the gateway's own, and sooner."""
        parts = self.gateway.application
        return Watchdog(parts.modems, parts.layout, parts.journal, 1.0, lambda: None)

    def told(self, by: str) -> list[str]:
        """The sentences with which ``check``, ``/health`` or the alarms name what is wrong, each with its remedy."""
        if by == "check":
            return [f"{found['topic']}: {found['sentence']} {found['remedy']}" for found in self._check()]
        if by == "health":
            found = self.gateway.get("/health", user="root").json
            return [f"{each['part']}: {each['what']}. {each['remedy']}" for each in found["problems"]]
        self.watchdog.look()
        known = standing(self.gateway.application.journal).values()
        return [f"{trouble.part}: {trouble.what}. {trouble.remedy}" for trouble in known]

    def _check(self) -> list[dict[str, str]]:
        if self.program:
            command = [*self.program, "check", str(self.ini()), "--json"]
            out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
        else:
            out = smsgw("check", self.ini(), "--json").out
        return [found for found in json.loads(out)["findings"] if found["level"] != "ok"]

    def is_well(self) -> bool:
        """Whether nobody has anything to tell; ``check`` may tell of an smsd that is not meant to run."""
        is_meant = self.daemon is None or self.daemon.is_running
        told = [line for line in self.told("check") if is_meant or NOT_RUNNING not in line]
        if "gateway" in vars(self):
            told += self.told("health") + (self.told("alarm") if "watchdog" in vars(self) else [])
        return not told

    def sends(self) -> None:
        """A message goes to the phone, where there is one."""
        if self.daemon and self.daemon.is_running:
            before = len(self.daemon.modem.messages())
            self.gateway.send(mobiles=["79680000099"])
            self.daemon.modem.wait(before + 1)


Make = Callable[[Place], Any]
Mend = Callable[[Place, re.Match[str]], Any]


def run(place: Place, found: re.Match[str]) -> None:
    """Run the command that was told. A program that asks for a password gets one."""
    subprocess.run(
        [*place.program[:-1], "sh", "-c", found["command"]],
        input="SecretPAss\nSecretPAss\n",
        text=True,
        check=True,
        timeout=120,
        env=os.environ | place.env,
        start_new_session=True,  # without a terminal, so that htpasswd reads the password here
    )


@dataclass(frozen=True)
class Fault:
    """How it is made, the words that name it, and its remedy: patterns; ``mend`` does what the remedy says."""

    make: Make
    said: str
    remedy: str
    mend: Mend = run
    by: frozenset[str] | set[str] = frozenset({"check"})


def setting(name: str, value: str | None) -> Make:
    return lambda place: place.set(name, value)


def settings(**values: str) -> Make:
    return lambda place: place.changes.update({f"smsgw.{name}": value for name, value in values.items()})


def waitress(**values: str | None) -> Make:
    return lambda place: place.waitress.update(values)


def instead(make: Make) -> Mend:
    """What a person does who reads the remedy."""
    return lambda place, _: make(place)


def all_of(*made: Make) -> Make:
    def make(place: Place) -> None:
        for each in made:
            each(place)

    return make


def set_it(place: Place, found: re.Match[str]) -> None:
    place.set(found["name"], found["value"])


def set_in_waitress(place: Place, found: re.Match[str]) -> None:
    place.waitress[found["name"]] = found["value"]


def plugins(names: str, **more: str) -> Make:
    return all_of(setting("smsgw.plugins", names), settings(**more))


def write_before(place: Place, found: re.Match[str]) -> None:
    names = [name for name in (place.changes["smsgw.plugins"] or "").split() if name != found["first"]]
    names.insert(names.index(found["then"]), found["first"])
    place.set("smsgw.plugins", " ".join(names))


def offering(**classes: type) -> Make:
    return lambda place: place.opened.enter_context(offered(**classes))


def configured(old: str, new: str, **options: Any) -> Make:
    """An smsd that does not run, with a change in its file, where ``{spool}`` is its spool."""

    def make(place: Place) -> None:
        spool = place.configure(**options).spool
        place.edit(old.format(spool=spool), new.format(spool=spool))

    return make


def edited(old: str, new: str) -> Mend:
    return lambda place, _: place.edit(old.format(spool=place.spool), new.format(spool=place.spool))


def add_line(place: Place, found: re.Match[str]) -> None:
    """As the remedy says, at the beginning of smsd's file; for a folder that is to be made, make it."""
    place.edit("", found["line"].replace("FOLDER", str(place.spool / found["line"].split()[0])) + "\n")


def message(folder: str, name: str = "waits", age: float = OLD) -> Make:
    """A message that another program left there."""

    def make(place: Place) -> None:
        path = place.spool / folder / name
        path.write_text("To: 79680000000\n\nHi")
        at = time.time() - age
        os.utime(path, (at, at))

    return make


def removed(folder: str) -> Make:
    return lambda place: (place.spool / folder).rmdir()


class Idle:
    """A plugin that does nothing."""


class Useful:
    @hookimpl
    def transform(self, text: str) -> str:
        return text


class Failing:
    @hookimpl
    def transform(self, text: str) -> str:
        return text[99]


# smsd and its modems


def kill_the_modem_s_process(place: Place) -> None:
    daemon = place.start()
    place.told("alarm")
    processes = handlers(daemon.pid)
    assert processes
    os.kill(processes[-1], signal.SIGKILL)


def unplug(place: Place) -> None:
    place.start()
    place.device("GSM1").unlink()


def plug_in(place: Place) -> None:
    assert place.daemon
    place.device("GSM1").symlink_to(place.daemon.modem.device)
    place.start_again()


def refuse(place: Place) -> None:
    daemon = place.start()
    place.edit("blockafter = 1000000", "blockafter = 1")
    place.start_again()
    daemon.modem.refuse("7")
    place.gateway.send()


def let_it_in(place: Place) -> None:
    assert place.daemon
    place.daemon.modem.accept()
    place.start_again()


def hang(place: Place) -> None:
    """The modem has a message, and never answers."""
    daemon = place.start()
    place.told("alarm")
    daemon.modem.delay = 600
    place.gateway.send()
    daemon.modem.wait_busy()


def switch_off_and_on(place: Place) -> None:
    assert place.daemon
    place.daemon.kill()
    place.daemon.modem.delay = 0
    place.daemon.start()


def leave_a_lock(place: Place) -> None:
    daemon = place.start()
    (daemon.spool / "outgoing" / "waits.LOCK").touch()
    message("outgoing")(place)
    lock = daemon.spool / "outgoing" / "waits.LOCK"
    os.utime(lock, (time.time() - OLD,) * 2)
    place.told("alarm")
    place.gateway.send()
    daemon.modem.wait(1)


def end_smsd(place: Place) -> None:
    daemon = place.start()
    daemon.kill()


# The machine


def of_nobody(path: Callable[[Place], Path]) -> Make:
    return lambda place: shutil.chown(path(place), "nobody")


def full(place: Place) -> None:
    """A file system that a message of last year has filled."""
    small = place.opened.enter_context(Tmpfs(place.folder / "small", "260m"))
    make_spool(small.outside / "spool")
    path = small.outside / "spool" / "sent" / "large"
    room = os.statvfs(small.outside)
    with open(path, "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, room.f_bavail * room.f_frsize)
    os.utime(path, (time.time() - 365 * 24 * OLD,) * 2)
    place.set("smsgw.spool", str(small.path / "spool"))
    place.program = [*small.enter, str(Path(sys.executable).with_name("smsgw"))]


def read_only(place: Place) -> None:
    small = place.opened.enter_context(Tmpfs(place.folder / "small", "1g", 100_000))
    make_spool(small.outside / "spool")
    small.run("mount", "-o", "remount,ro", small.path)
    place.set("smsgw.spool", str(small.path / "spool"))
    place.program = [*small.enter, str(Path(sys.executable).with_name("smsgw"))]


def without_extras(place: Place) -> None:
    """A Python that has all but the modules of two extras; pip finds them in a folder, and needs no index."""
    own = place.folder / "python"
    venv.create(own, symlinks=True)
    (site,) = own.glob("lib/python*/site-packages")
    for path in Path(metadata.distribution("pip").locate_file("")).iterdir():
        if not path.name.lower().startswith(("ldap3", "jwt", "pyjwt")):
            (site / path.name).symlink_to(path)
    wheels = place.folder / "wheels"
    wheels.mkdir()
    for name in ("ldap3", "PyJWT"):
        found = metadata.distribution(name)
        with zipfile.ZipFile(wheels / f"{name.lower()}-{found.version}-py3-none-any.whl", "w") as wheel:
            for file in found.files or ():
                if file.parts[0] != ".." and "__pycache__" not in file.parts:
                    wheel.write(file.locate(), str(file))
    place.env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    (own / "bin" / "smsgw").write_text(f"#!{own}/bin/python\nfrom smsgw.cli import main\nmain()\n")
    (own / "bin" / "smsgw").chmod(0o755)
    place.program = [str(own / "bin" / "smsgw")]
    provider = {
        "jwt.issuer": "https://id.example.com",
        "jwt.audience": "smsgw",
        "jwt.jwks_url": "https://127.0.0.1/keys",
    }
    directory = {"ldap.url": "ldaps://localhost", "ldap.user_dn": "uid={userid},dc=example,dc=org"}
    plugins("ldap htpasswd jwt allow", **provider, **directory)(place)
    place.set("smsgw.plugins", "jwt ldap allow")
    place.set("smsgw.htpasswd.path", None)


def garbled(name: str) -> Make:
    """A database that is none any more; the gateway does not run."""

    def make(place: Place) -> None:
        path = place.state / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.state.chmod(0o700)
        path.write_bytes(b"this is no database" * 500)

    return make


def start_the_gateway(place: Place, _: re.Match[str]) -> None:
    eventually(lambda: (place.state / "journal.broken").exists() if place.gateway else None)
    eventually(lambda: place.is_well())


def leave_a_request(place: Place) -> None:
    """A complete request of a process that has ended."""
    (place.state / "ready" / "request").mkdir(mode=0o700, parents=True)
    place.state.chmod(0o700)


def stop_postgresql(place: Place) -> None:
    place.server = place.opened.enter_context(Postgresql())
    place.set("smsgw.store", place.server.create())
    assert place.is_well()
    assert place.gateway
    place.server.stop()


def elsewhere(place: Place) -> None:
    place.waitress["listen"] = f"127.0.0.1:{free_port()}"


def listen_there(place: Place) -> None:
    """A server that hangs up."""
    server = place.opened.enter_context(socket.create_server(("127.0.0.1", 0)))

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    place.opened.callback(thread.join)
    place.opened.callback(server.shutdown, socket.SHUT_RDWR)
    place.waitress["listen"] = f"127.0.0.1:{server.getsockname()[1]}"


def share_the_port(place: Place) -> None:
    """A gateway with another spool has it."""
    other = place.folder / "other"
    server = Server(place.folder, {"smsgw.spool": str(make_spool(other)), "smsgw.plugins": ""})
    place.opened.enter_context(server)
    place.waitress["listen"] = f"127.0.0.1:{server.port}"


def lock_the_database(place: Place) -> None:
    garbled("journal/store.sqlite3")(place)
    path = place.state / "journal" / "store.sqlite3"
    path.write_bytes(b"")
    place.lock = sqlite3.connect(path, isolation_level=None)
    place.lock.execute("BEGIN EXCLUSIVE")


FAULTS = {
    # Plugins and settings
    "a setting with a wrong name": Fault(
        setting("smsgw.alow.admins", "root"),
        "there are settings smsgw.alow",
        "did you mean '(allow)'",
        instead(setting("smsgw.alow.admins", None)),
    ),
    "a setting of the core with a wrong name": Fault(
        setting("smsgw.max_part", "9"),
        "there is no setting 'smsgw.max_part'",
        "did you mean '(smsgw.max_parts)'",
        lambda place, found: place.changes.update({"smsgw.max_part": None, found[1]: "9"}),
    ),
    "a plugin with a wrong name": Fault(
        setting("smsgw.plugins", "htpaswd allow"),
        "names 'htpaswd', and no installed distribution has such a plugin",
        "did you mean '(htpasswd)'",
        instead(setting("smsgw.plugins", "htpasswd allow")),
    ),
    "extras that are not installed": Fault(
        without_extras,
        "the plugin 'jwt' needs the module 'jwt'; the plugin 'ldap' needs the module 'ldap3'",
        r"; (?P<command>\S+ -m pip install 'smsgw\[jwt,ldap\]')\.",
    ),
    "a queue that smsd does not have": Fault(
        all_of(configured("", ""), setting("smsgw.default_queue", "O2")),
        "smsgw.default_queue is 'O2', and smsd's queues are:",
        ": (none|.+)",
        instead(setting("smsgw.default_queue", None)),
    ),
    "a password in clear": Fault(
        lambda place: place.passwords.write_text("lvv:plain text\n"),
        "'lvv' has no password hash of a scheme that is accepted",
        "'(?P<command>htpasswd -B .*)' sets a new password. See to it, or to the plugin's settings.",
    ),
    "no password file": Fault(
        lambda place: place.passwords.unlink(),
        "there is no file",
        "'(?P<command>htpasswd -B -c .*) USER' makes it",
        lambda place, found: (
            subprocess.run(
                [*shlex.split(found["command"]), "lvv"], input=b"x\nx\n", start_new_session=True, check=True
            ),
            place.passwords.chmod(0o600),
        ),
    ),
    "no plugin that knows users": Fault(
        all_of(setting("smsgw.plugins", "allow"), setting("smsgw.htpasswd.path", None)),
        "no plugin knows users",
        "Name one in smsgw.plugins, such as (htpasswd).",
        lambda place, found: place.changes.update(
            {"smsgw.plugins": f"{found[1]} allow", "smsgw.htpasswd.path": str(place.passwords)}
        ),
    ),
    "no plugin that permits": Fault(
        all_of(setting("smsgw.plugins", "htpasswd"), setting("smsgw.allow.admins", None)),
        "no plugin permits anything",
        "Name one in smsgw.plugins, such as (allow).",
        lambda place, found: place.set("smsgw.plugins", f"htpasswd {found[1]}"),
    ),
    "a plugin without hooks": Fault(
        all_of(offering(idle=Idle), setting("smsgw.plugins", "htpasswd allow idle")),
        "idle has no hook, and does nothing",
        "Mark its methods @hookimpl, or take it out.",
        instead(setting("smsgw.plugins", "htpasswd allow")),
    ),
    "a transform that fails": Fault(
        all_of(offering(failing=Failing), setting("smsgw.plugins", "htpasswd allow failing")),
        "failing fails to transform 'abc'",
        "Nothing can be sent; correct it.",
        instead(all_of(offering(useful=Useful), setting("smsgw.plugins", "htpasswd allow useful"))),
    ),
    "plugins in a wrong order": Fault(
        plugins("htpasswd allow limit transliterate", **{"limit.parts": "2"}),
        "transliterate stands after limit",
        r"Write (?P<first>\S+) before (?P<then>\S+)\.",
        write_before,
    ),
    "a signature outside of the GSM alphabet": Fault(
        plugins("htpasswd allow signature", **{"signature.text": "\N{EM DASH} ACME"}),
        "every text goes out as UCS2",
        "Use characters of the GSM alphabet there; 'smsgw preview' tells which are.",
        instead(settings(**{"signature.text": "- ACME"})),
    ),
    "the simulator in production": Fault(
        setting("smsgw.plugins", "htpasswd allow simulator"),
        "the simulator plays smsd",
        "Take simulator out of smsgw.plugins where messages are meant.",
        instead(setting("smsgw.plugins", "htpasswd allow")),
    ),
    "passwords can be guessed": Fault(
        settings(guesses_per_user="0"),
        "passwords can be guessed as fast as they are sent",
        "Set a limit.",
        instead(settings(guesses_per_user="10")),
    ),
    "no fsync": Fault(
        settings(fsync="false"),
        "(?P<setting>smsgw.fsync) is off",
        "Set it to (true).",
        instead(settings(fsync="true")),
    ),
    "any proxy is trusted": Fault(
        all_of(settings(trusted_proxies="0.0.0.0/0"), waitress(clear_untrusted_proxy_headers="false")),
        "any client can claim any address",
        "Name the proxy's own.",
        instead(settings(trusted_proxies="127.0.0.1")),
    ),
    "an insecure setting": Fault(
        setting("smsgw.ldap.insecure_accept_any_certificate", "yes"),
        "insecure_accept_any_certificate is on",
        "Take it out.",
        instead(setting("smsgw.ldap.insecure_accept_any_certificate", None)),
    ),
    "a debugger": Fault(
        setting("pyramid.includes", "pyramid_debugtoolbar"),
        "runs code for whoever asks",
        "Take it out.",
        instead(setting("pyramid.includes", None)),
    ),
    # Files of secrets
    "everybody can change the ini file": Fault(
        lambda place: place.ini().chmod(0o602), "everybody can change .*gateway.ini", "(?P<command>chmod o-w .+)"
    ),
    "everybody can read a password in the ini file": Fault(
        all_of(
            setting("pyramid.secret", "S3cret"),
            lambda place: place.ini().chmod(0o604),
        ),
        "everybody can read .*gateway.ini, and a password stands in it",
        "(?P<command>chmod o-r .+)",
    ),
    "everybody can change the passwords": Fault(
        lambda place: place.passwords.chmod(0o602), "everybody can change .*htpasswd", "(?P<command>chmod o-w .+)"
    ),
    "everybody can read the passwords": Fault(
        lambda place: place.passwords.chmod(0o604), "everybody can read .*htpasswd", "(?P<command>chmod o-r .+)"
    ),
    # The server
    "another server than waitress is misspelt": Fault(
        waitress(use="egg:no_such_server"),
        "no_such_server",
        "Write '(?P<name>use) = (?P<value>egg:waitress#main)'.",
        set_in_waitress,
    ),
    "a setting that waitress does not know": Fault(
        waitress(thread="4"),
        "Unknown adjustment 'thread'",
        "See waitress's own documentation for its settings.",
        instead(waitress(thread=None)),
    ),
    "a handler without a section": Fault(
        lambda place: setattr(place, "more", LOGGING.replace("keys = console", "keys = console, file")),
        r"there is no section \[handler_file\]",
        "Add it.",
        instead(lambda place: setattr(place, "more", f"{place.more}[handler_file]\nclass = StreamHandler\n")),
    ),
    "no root logger": Fault(
        lambda place: setattr(place, "more", "[loggers]\nkeys = root\n"),
        r"\[loggers\] needs \[logger_root\] and \[handlers\]",
        "Copy those sections from production.ini.",
        instead(lambda place: setattr(place, "more", LOGGING)),
    ),
    "many threads": Fault(
        waitress(threads="40"),
        "(?P<name>threads) = 40",
        "Set (4), and run gunicorn for more.",
        instead(waitress(threads="4")),
    ),
    "a setting that granian does not know": Fault(
        lambda place: setattr(place, "more", GRANIAN + "worker = 2\n"),
        r"\[server:granian\]: there is no setting 'worker'",
        "See production.ini for its settings.",
        instead(lambda place: setattr(place, "more", GRANIAN + "workers = 2\n")),
    ),
    "a server that is not installed": Fault(
        lambda place: setattr(place, "more", "[server:granian]\nuse = egg:nonsense\n"),
        r"\[server:granian\]: .*nonsense",
        "Write '(use = egg:smsgw#granian)'.",
        instead(lambda place: setattr(place, "more", GRANIAN)),
    ),
    "many threads of granian": Fault(
        lambda place: setattr(place, "more", GRANIAN + "threads = 64\n"),
        r"\[server:granian\]: threads = 64",
        "Set 8, and more workers.",
        instead(lambda place: setattr(place, "more", GRANIAN + "threads = 8\n")),
    ),
    "waitress takes less than the gateway": Fault(
        waitress(max_request_body_size="1000"),
        "waitress refuses bodies of over 1000 bytes",
        "Set max_request_body_size to more than smsgw.max_body.",
        instead(waitress(max_request_body_size="8388608")),
    ),
    "waitress takes all that comes": Fault(
        waitress(max_request_body_size=None),
        "waitress takes in bodies of up to",
        "Set max_request_body_size to about twice smsgw.max_body.",
        instead(waitress(max_request_body_size="8388608")),
    ),
    "two read X-Forwarded-For": Fault(
        all_of(
            settings(trusted_proxies="127.0.0.1"),
            waitress(trusted_proxy="127.0.0.1", trusted_proxy_headers="x-forwarded-for"),
        ),
        "both trusted_proxy of waitress and smsgw.trusted_proxies",
        "Leave trusted_proxy out.",
        instead(
            waitress(trusted_proxy=None, trusted_proxy_headers=None, clear_untrusted_proxy_headers="false"),
        ),
    ),
    "waitress hides X-Forwarded-For": Fault(
        settings(trusted_proxies="127.0.0.1"),
        "waitress hides X-Forwarded-For",
        "Set (?P<name>clear_untrusted_proxy_headers) = (?P<value>false).",
        set_in_waitress,
    ),
    "an address of another machine": Fault(
        waitress(listen="192.0.2.1:5000"),
        "nobody can listen on 192.0.2.1:5000",
        "Name an address of this machine.",
        instead(elsewhere),
    ),
    "passwords cross the network": Fault(
        lambda place: waitress(listen=f"0.0.0.0:{free_port()}")(place),
        "passwords cross the network as they are",
        "Listen on 127.0.0.1, behind a web server with TLS.",
        instead(elsewhere),
    ),
    "something else has the port": Fault(
        listen_there,
        "something else than a gateway listens on",
        "End it, or take another port.",
        instead(elsewhere),
    ),
    "another gateway has the port": Fault(
        share_the_port,
        "the gateway on .* is another one",
        "Take another port, and start the gateway of this ini file.",
        instead(all_of(elsewhere, lambda place: place.gateway)),
    ),
    # The spool
    "a folder is not there": Fault(
        removed("sent"),
        "there is no folder .*/spool/sent for sent",
        "As root: (?P<command>mkdir .+ && chown .+ && chmod .+)",
    ),
    "outgoing is not there": Fault(
        lambda place: (place.gateway, (place.spool / "outgoing").rename(place.folder / "away")),
        "there is no folder .*/spool/outgoing for outgoing|spool: the spool is out of service",
        "As root: (?P<command>mkdir .+ && chown .+ && chmod .+)|Run 'smsgw check', which looks at the spool's folders.",
        lambda place, _: run(place, look_for("outgoing is not there", place, "check")),
        by={"check", "health"},
    ),
    "no folder at all": Fault(
        lambda place: shutil.rmtree(place.spool),
        "there is no folder .*/outgoing for outgoing",
        "Make it for smsd's user, or correct the setting that names it.",
        instead(lambda place: make_spool(place.spool)),
    ),
    "a file in place of a folder": Fault(
        lambda place: (removed("failed")(place), (place.spool / "failed").touch()),
        "spool/failed cannot be read: Not a directory",
        "Put a folder there. As root: (?P<command>mkdir .+ && chown .+ && chmod .+)",
        lambda place, found: ((place.spool / "failed").unlink(), run(place, found)),
    ),
    "a folder where monitoring writes": Fault(
        lambda place: (place.spool / "outgoing" / ".smsgw-probe").mkdir(),
        "monitoring fails over it",
        "Remove it: (?P<command>rmdir .+)",
    ),
    "a folder where check writes": Fault(
        lambda place: (place.spool / "outgoing" / ".smsgw-check").mkdir(),
        "cannot make a file in .*: Is a directory",
        "See the kernel's log for the reason, and remove (.+) where it is something else than a file.",
        lambda place, found: Path(found[1]).rmdir(),
    ),
    "the disk is full": Fault(
        full,
        "cannot make a file in .*: No space left on device",
        "Make room. These are messages of over 30 days: (?P<command>find .+ -delete)",
    ),
    "the disk is read-only": Fault(
        read_only,
        "cannot make a file in .*: Read-only file system",
        "See the kernel's log for the reason. Then, as root: (?P<command>mount -o remount,rw .+)",
    ),
    "smsgw's own folder is on another disk": Fault(
        lambda place: place.set("smsgw.state", place.opened.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))),
        "smsgw.state, .*, is not on the file system of .*outgoing",
        "; put it there",
        instead(lambda place: place.set("smsgw.state", str(place.folder / "state"))),
    ),
    "smsgw's own folder is in none": Fault(
        lambda place: place.set("smsgw.state", str(place.folder / "lib" / "smsgw")),
        "/lib: No such file or directory",
        "Make that folder, or leave smsgw.state out.",
        instead(lambda place: (place.folder / "lib").mkdir()),
    ),
    "others can enter smsgw's own folder": Fault(
        lambda place: (place.state.mkdir(), place.state.chmod(0o755)),
        "others than the gateway can enter",
        "(?P<command>chmod 700 .+)",
    ),
    "too many messages wait": Fault(
        lambda place: [message("outgoing", f"m{number}", 0)(place) for number in range(31)],
        "31 messages wait in",
        "Send less at once, or have more modems.",
        instead(lambda place: [path.unlink() for path in (place.spool / "outgoing").iterdir()]),
    ),
    "nobody takes a message": Fault(
        message("checked"),
        "a message has waited in .*/checked for 60 minutes: waits",
        "See smsd's log for the reason, and GET /health for its modems.",
        instead(lambda place: (place.spool / "checked" / "waits").unlink()),
    ),
    "nobody looks after complete requests": Fault(
        leave_a_request,
        "1 complete requests wait in",
        "Start the gateway, or see its log for the reason.",
        instead(lambda place: place.gateway),
    ),
    # smsd's file
    "smsd would take two messages a second": Fault(
        configured("trust_outgoing = yes\n", ""),
        "has no 'trust_outgoing = yes'",
        "Add '(?P<line>.+ = yes)' and restart smsd.",
        add_line,
    ),
    "smsd keeps nothing": Fault(
        configured("sent = {spool}/sent\n", ""),
        "names no folder for 'sent'",
        "Make a folder that belongs to smsd's user, add '(?P<line>.+ = FOLDER)', restart smsd and then the gateway.",
        add_line,
    ),
    "smsd has no modem": Fault(
        configured("devices = GSM1\n", ""),
        "names no modem",
        r"Add '(?P<line>devices = GSM1)', and a section \[GSM1\].",
        add_line,
    ),
    "a modem has no section": Fault(
        configured("devices = GSM1\n", "devices = GSM1, GSM2\n"),
        r"has no section \[GSM2\]",
        "Add one, with the modem's device.",
        edited("[GSM1]\n", "[GSM2]\ndevice = /dev/null\n[GSM1]\n"),
    ),
    "a modem has no device": Fault(
        configured("[GSM1]\ndevice", "[GSM1]\n#device"),
        "names no device of GSM1",
        r"Add 'device = /dev/...' to \[GSM1\].",
        edited("[GSM1]\n#device", "[GSM1]\ndevice"),
    ),
    "a modem's device is not there": Fault(
        lambda place: (place.configure(), place.device("GSM1").unlink()),
        "there is no .*GSM1, where the modem GSM1 should be",
        r"Is it plugged in\?",
        instead(lambda place: place.device("GSM1").symlink_to("/dev/null")),
    ),
    "queues without providers": Fault(
        configured("[GSM1]\n", "[queues]\nA = {spool}/checked\n[GSM1]\n"),
        r"has \[queues\] and no \[providers\]",
        r"Add \[providers\], or set smsgw.default_queue.",
        edited("[queues]", "[providers]\nA = 7\n[queues]"),
    ),
    "a queue without a modem": Fault(
        configured("[GSM1]\n", "[queues]\nA = {spool}/checked\n[providers]\nA = 7\n[GSM1]\nqueues = B\n"),
        "no modem serves the queue A",
        "Add it to 'queues' of a modem in .+",
        edited("queues = B\n", "queues = A\n"),
    ),
    "the simulator beside smsd": Fault(
        all_of(configured("", ""), setting("smsgw.plugins", "htpasswd allow simulator")),
        "the simulator takes the messages of the smsd of",
        "Take simulator out of smsgw.plugins.",
        instead(setting("smsgw.plugins", "htpasswd allow")),
    ),
    "smsd cannot take files away": Fault(
        lambda place: (place.configure(extra="user = nobody\n"), settings(file_mode="0664")(place)),
        "who cannot take files out of",
        "It would send them again and again. As root: (?P<command>chown .+)",
    ),
    "smsd cannot read the gateway's files": Fault(
        lambda place: (
            place.configure(extra="user = nobody\n"),
            shutil.chown(place.spool / "outgoing", "nobody"),
            settings(file_mode="0600")(place),
        ),
        "who cannot read files of the mode 0600",
        "As root: set (?P<name>smsgw.file_mode) = (?P<value>0660), and restart the gateway.",
        set_it,
    ),
    "smsd cannot read another program's file": Fault(
        lambda place: (
            place.configure(extra="user = nobody\n"),
            (place.spool / "outgoing").chmod(0o777),
            settings(file_mode="0664")(place),
            message("outgoing", "a; b", 0)(place),
            (place.spool / "outgoing" / "a; b").chmod(0o600),
        ),
        "cannot read .*/a; b: it is not sent",
        "Take it away, or let smsd read it. As root: (?P<command>chown .+ && chmod .+)",
    ),
    # A real smsd
    "smsd does not run": Fault(
        end_smsd,
        "smsd does not run: .* names no process of it",
        "Start it, and see its log: systemctl start smstools",
        instead(Place.start_again),
        TO_ALL - {"alarm"},
    ),
    "the process of a modem has ended": Fault(
        kill_the_modem_s_process,
        "process for it has ended, and does not come back|The process of a modem has ended",
        "Restart smsd, and see its log: systemctl restart smstools",
        instead(Place.start_again),
        TO_ALL,
    ),
    "a modem is unplugged": Fault(
        unplug, "its device .* is not there", "Plug it in. Restart smsd, .*", instead(plug_in), TO_ALL
    ),
    "the network refuses all": Fault(
        refuse,
        "smsd has blocked it, since it failed again and again",
        "See Fail_reason in the folder failed: no credit, no network, a wrong PIN. Restart smsd, .*",
        instead(let_it_in),
        TO_ALL,
    ),
    "a modem hangs while it sends": Fault(
        hang,
        "1 message waits, and none has left for",
        "Run 'smsgw check'. Where it finds no reason, switch the modem off and on, and restart smsd",
        instead(switch_off_and_on),
        {"health", "alarm"},
    ),
    "a lock was left in outgoing": Fault(
        leave_a_lock,
        "a message has waited in .*LOCK keeps smsd from taking it|1 message waits, and none has left for",
        "If no program is at it: (?P<command>rm .+)",
        by=TO_ALL,
    ),
    # Databases
    "the journal is garbled": Fault(
        garbled("journal/store.sqlite3"),
        "the database .*/journal/store.sqlite3 is out of service: file is not a database",
        "Start the gateway: it puts that file aside, and makes the journal anew from the spool's files.",
        start_the_gateway,
    ),
    "the database is garbled": Fault(
        all_of(garbled("store.sqlite3"), setting("smsgw.plugins", "token htpasswd allow")),
        "the database of smsgw.store is out of service: file is not a database",
        "Stop the gateway, put a backup in its place, and start the gateway.",
        instead(lambda place: (place.state / "store.sqlite3").write_bytes(b"")),
    ),
    "another program keeps the database": Fault(
        lock_the_database,
        "is out of service: database is locked",
        "See which program has it open: (?P<command>fuser .+)",
        instead(lambda place: place.lock.close()),
    ),
    "no folder for the database": Fault(
        lambda place: place.set("smsgw.store", f"sqlite:///{place.folder}/lib/smsgw/store.sqlite3"),
        "/lib/smsgw is not there, or cannot be written to",
        "As root: (?P<command>install -d -o .+ -m 700 .+)",
    ),
    "PostgreSQL is down": Fault(
        stop_postgresql,
        "the database of smsgw.store is out of service|journal: ",
        "See whether it runs, and whether the gateway's user may use it.|Messages go out all the same. .*",
        instead(lambda place: place.server.start()),
        {"check", "health"},
    ),
    # While it runs
    "the password file is gone": Fault(
        all_of(
            offering(users=Users),
            setting("smsgw.plugins", "users htpasswd allow"),
            lambda place: (place.gateway, place.passwords.rename(place.folder / "away")),
        ),
        "plugin htpasswd: .*/htpasswd cannot be read: No such file or directory",
        "Mend that. Where the reason is not clear, run 'smsgw check', and see the log.",
        instead(lambda place: (place.folder / "away").rename(place.passwords)),
        {"health"},
    ),
}


@pytest.fixture
def place(tmp_path: Path, ini: Ini, make_gateway: Callable[..., Gateway]) -> Iterator[Place]:
    with contextlib.ExitStack() as opened:
        yield Place(tmp_path, ini, make_gateway, opened)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault counts at once. ``test_watchdog`` sees that it counts within two minutes without this."""
    monkeypatch.setattr("smsgw.watchdog.SETTLED", 0.0)
    monkeypatch.setattr("smsgw.watchdog.LOCKED", 60.0)
    monkeypatch.setattr("smsgw.cli.check.spool.STUCK", -60.0)
    monkeypatch.setattr("smsgw.cli.check.spool.MANY_WAITING", 30)
    monkeypatch.setattr("smsgw.sqlite.LOCKED", 0.1)


def look_for(name: str, place: Place, by: str) -> re.Match[str] | None:
    """What names that fault, with its remedy."""
    fault = FAULTS[name]
    for line in place.told(by):
        if re.search(fault.said, line) and (found := re.search(fault.remedy, line)):
            return found
    return None


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_named_and_its_remedy_mends_it(name: str, place: Place) -> None:
    fault = FAULTS[name]
    fault.make(place)
    found = None
    for by in sorted(fault.by):
        found = eventually(lambda by=by: look_for(name, place, by))  # type: ignore[misc]
    assert found
    fault.mend(place, found)
    eventually(place.is_well)
    place.sends()


def test_each_remedy_of_check_is_tried() -> None:
    """By a fault of the table, or by another test."""
    tried = [re.sub(r"\(\?P<\w+>|[()\\]", "", fault.remedy) for fault in FAULTS.values()]
    tried += [piece for _, piece in BESIDE]
    assert not [each for each in remedies() if not any(each in other for other in tried)]


def remedies() -> Iterator[str]:
    """The longest piece of each sentence that ``smsgw check`` may advise."""
    for path in Path(finding.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(args=[_, advice]) if ast.unparse(node.func).rpartition(".")[2] in LEVELS:
                    yield from _pieces(advice)
                case ast.Assign(targets=[ast.Name(id="remedy")], value=advice):
                    yield from _pieces(advice)
                case ast.Return(value=ast.JoinedStr() as advice) if path.name == "spool.py":
                    yield from _pieces(advice)


def _pieces(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield max((str(part.value) for part in node.values if isinstance(part, ast.Constant)), key=len).strip()
