"""The servers under load, each in processes of its own on 127.0.0.1 with a spool of its own, and their clients.

Where no smsd empties the spool, ``smsgw.outgoing_depth`` is 0: a message goes where a bare loop would put it.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import functools
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE = Path(__file__).parent
OUTGOING = "/api/v1.0/sms/outgoing"
V2_OUTGOING = "/api/v2/messages"
KINDS = ("outgoing", "checked", "sent", "failed", "incoming", "report")
PASSWORD = "SecretPAss"

INI = "bench.ini"  # in a server's folder
SHIPPED = configparser.RawConfigParser()
SHIPPED.read_string((HERE.parent.parent / "production.ini").read_text("utf-8"))
PRODUCTION, DEPTH = SHIPPED.getint("server:main", "threads"), 500  # of waitress; and smsgw.outgoing_depth's default
THREADS = 1  # of waitress, and of each gunicorn process: more make a busy process slower
CONNECTIONS = 16
MANY = 128  # so many that it is seldom one of several processes that takes all of them when they come
START = 30.0  # seconds until a server listens
STOP = 15.0  # seconds until it has ended
REQUEST = 120.0  # seconds for one request


def basic(user: str) -> str:
    """The ``Authorization`` header of one of the users."""
    return "Basic " + base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()


SHA, BCRYPT = basic("sha"), basic("bcrypt")  # by the schemes of their hashes
PLUGINS = "htpasswd allow whitelist transliterate signature"
SEND = json.dumps({"mobiles": ["79160000000"], "text": "Hi, Jack!"})
V2_SEND = json.dumps({"to": ["79160000000"], "text": "Hi, Jack!"})

SMSGW = """
[app:main]
use = egg:smsgw
smsgw.spool = {spool}
smsgw.plugins = {plugins}
smsgw.fsync = {fsync}
smsgw.outgoing_depth = {depth}
smsgw.htpasswd.path = {passwords}
smsgw.whitelist.numbers =
    sha: 7915* 7916* 79680000000
    bcrypt: 7915* 7916* 79680000000
smsgw.signature.text = Yours, smsgw
"""

BARE = """
[app:main]
paste.app_factory = bare:main
"""

WAITRESS = """
[server:main]
use = egg:waitress#main
listen = 127.0.0.1:{port}
threads = {threads}

[loggers]
keys = root, queue
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[logger_queue]
level = ERROR
handlers =
qualname = waitress.queue
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s %(name)s: %(message)s
"""


@dataclass(frozen=True, slots=True)
class Client:
    """One connection, kept alive."""

    connection: http.client.HTTPConnection

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[float, bytes]:
        """Seconds from the first byte of the request to the last of the reply, and the reply."""
        headers = {"Authorization": SHA, "Content-Type": "application/json"}
        begin = time.perf_counter()
        self.connection.request(method, path, body, headers)
        reply = self.connection.getresponse()
        content = reply.read()
        took = time.perf_counter() - begin
        if reply.status not in (200, 201):
            raise RuntimeError(f"{method} {path}: {reply.status} {content[:300]!r}")
        return took, content


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens; ``pid`` is the process that was started, ``spool`` its own.

    ``connections`` are those of its clients, kept alive.
    """

    port: int
    pid: int
    spool: Path
    connections: int = CONNECTIONS

    def load(self, seconds: int, authorization: str = SHA, path: str = OUTGOING, body: str = SEND) -> tuple[int, float]:
        """Send single messages for that long: how many were taken, and in how many seconds."""
        requests, microseconds, _ = self._load(seconds, authorization, path, body)
        return requests, microseconds / 1e6

    def late(self, seconds: int) -> float:
        """Seconds that the slowest hundredth of single sends takes at least."""
        return self._load(seconds, SHA, OUTGOING, SEND)[2] / 1e6

    def _load(self, seconds: int, authorization: str, path: str, body: str) -> tuple[int, int, int]:
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", "-s", str(HERE / "load.lua")]
        run = subprocess.run(
            [*command, f"http://127.0.0.1:{self.port}{path}"],
            env=os.environ | {"BODY": body, "AUTHORIZATION": authorization},
            capture_output=True,
            text=True,
            timeout=seconds + REQUEST,
            check=True,
        )
        requests, microseconds, failures, late = map(int, run.stdout.splitlines()[-1].split())
        if failures or not requests:
            raise RuntimeError(f"{failures} failures beside {requests} replies:\n{run.stdout}")
        return requests, microseconds, late

    def rate(self, seconds: int, authorization: str = SHA) -> float:
        """Single sends a second."""
        requests, took = self.load(seconds, authorization)
        return requests / took

    def v2_rate(self, seconds: int) -> float:
        """Single sends a second by the v2 API."""
        requests, took = self.load(seconds, path=V2_OUTGOING, body=V2_SEND)
        return requests / took

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST)) as connection:
            yield Client(connection)

    def memory(self) -> int:
        """Resident bytes of the process that was started."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def token(server: Server) -> str:
    """The ``Authorization`` header of an API token of the user ``sha``, made for that server."""
    command = [Path(sys.executable).with_name("smsgw"), "token", "create", server.spool / INI, "--user", "sha"]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    made = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=START, check=True)
    return f"Bearer {made.stdout.strip()}"


def provider(folder: Path) -> tuple[str, str]:
    """Settings of an identity provider with a file of keys, and the ``Authorization`` header of its user ``sha``."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = folder / "provider.pem"
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    claims = {"iss": "https://login.example.com/", "aud": "smsgw", "sub": "sha", "exp": int(time.time()) + 86400}
    lines = {"issuer": claims["iss"], "audience": claims["aud"], "key_file": path}
    settings = "".join(f"smsgw.jwt.{name} = {value}\n" for name, value in lines.items())
    return settings, f"Bearer {jwt.encode(claims, key, 'RS256')}"


@contextlib.contextmanager
def bare(folder: Path, threads: int = THREADS) -> Iterator[Server]:
    """``bare.py`` under ``pserve``."""
    with _pserve(folder, BARE, threads) as server:
        yield server


@contextlib.contextmanager
def smsgw(
    folder: Path,
    *,
    fsync: bool = False,
    plugins: str = PLUGINS,
    depth: int = 0,
    settings: str = "",
    threads: int = THREADS,
) -> Iterator[Server]:
    """smsgw with authentication, policies and transforms under ``pserve``; ``settings`` are further lines."""
    with _pserve(folder, _smsgw(folder, fsync, plugins, depth) + settings, threads) as server:
        yield server


@contextlib.contextmanager
def production(
    folder: Path,
    *,
    fsync: bool = True,
    plugins: str = PLUGINS,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Iterator[Server]:
    """The same as ``production.ini`` has it: four threads, each send synced, a shallow ``outgoing``.

    :param python: of the virtual environment that has the smsgw to be measured.
    """
    with _pserve(folder, _smsgw(folder, fsync, plugins, DEPTH), PRODUCTION, environment, python) as server:
        yield server


@contextlib.contextmanager
def granian(folder: Path, *, fsync: bool = True) -> Iterator[Server]:
    """The same under granian, with the section of ``production.ini``."""
    port = _free_port()
    ini = folder / INI
    section = {**SHIPPED["server:granian"], "listen": f"127.0.0.1:{port}"}
    lines = "".join(f"{name} = {value}\n" for name, value in section.items())
    app = _smsgw(folder, fsync, PLUGINS, DEPTH) + WAITRESS.format(port=port, threads=PRODUCTION)
    ini.write_text(f"{app}\n[server:granian]\n{lines}")
    command = ["-m", "pyramid.scripts.pserve", str(ini), "--server-name", "granian"]
    with _running(folder, command, port) as pid:
        yield Server(port, pid, folder)


def prepared(folder: Path, plugins: str) -> Path:
    """The ini file of a server that is not started yet, and its spool."""
    ini = folder / INI
    ini.write_text(_smsgw(folder, plugins=plugins))
    return ini


@contextlib.contextmanager
def ldap(folder: Path) -> Iterator[Server]:
    """smsgw with the same users in a directory, which a slapd of its own serves."""
    sys.path.append(str(HERE.parent))
    from slapd import Slapd, person

    with Slapd(folder, person("sha", PASSWORD)) as directory:
        settings = "".join(f"{key} = {value}\n" for key, value in directory.by_search.items())
        plugins = f"{PLUGINS.replace('htpasswd', 'ldap')} htpasswd"  # which is not asked
        with smsgw(folder, plugins=plugins, settings=settings) as server:
            yield server


@contextlib.contextmanager
def gunicorn(folder: Path, processes: int) -> Iterator[Server]:
    """The same under gunicorn."""
    ini = folder / INI
    ini.write_text(_smsgw(folder))
    port = _free_port()
    # Its default worker closes every connection after one reply.
    worker = ["--worker-class", "gthread", "--threads", str(THREADS), "--workers", str(processes)]
    command = ["-m", "gunicorn", "--paste", str(ini), "--bind", f"127.0.0.1:{port}", "--log-level", "warning", *worker]
    with _running(folder, command, port) as pid:
        yield Server(port, pid, folder, MANY)


@contextlib.contextmanager
def _pserve(
    folder: Path,
    app: str,
    threads: int = THREADS,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Iterator[Server]:
    port = _free_port()
    ini = folder / INI
    ini.write_text(app + WAITRESS.format(port=port, threads=threads))
    with _running(folder, ["-m", "pyramid.scripts.pserve", str(ini)], port, environment, python) as pid:
        yield Server(port, pid, folder)


def _smsgw(folder: Path, fsync: bool = False, plugins: str = PLUGINS, depth: int = 0) -> str:
    for kind in KINDS:
        (folder / kind).mkdir(exist_ok=True)
    passwords = folder / "htpasswd"
    passwords.write_text(_passwords())
    return SMSGW.format(spool=folder, fsync=str(fsync).lower(), passwords=passwords, plugins=plugins, depth=depth)


@functools.cache
def _passwords() -> str:
    sha = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    cost_12 = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12)).decode()
    return f"sha:{{SHA}}{sha}\nbcrypt:{cost_12}\n"


@contextlib.contextmanager
def _running(
    folder: Path,
    command: list[str],
    port: int,
    more: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Iterator[int]:
    log = folder / "server.log"
    # What PYTHONPATH names goes first, so that another tree can be measured.
    environment = {**os.environ, **(more or {}), "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), environment.get("PYTHONPATH")]))
    with open(log, "wb") as stream:
        process = subprocess.Popen([python, *command], cwd=folder, env=environment, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + START
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not serve:\n{log.read_text()}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
