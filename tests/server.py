"""A real server in processes of its own, for the tests of what WebTest cannot show: several processes, and their death.

    with Server(tmp_path, {"smsgw.spool": ..., "smsgw.plugins": "htpasswd allow", ...}) as server:
        reply = server.send(["79680000000"], "Hi, Jack!")
        server.kill()
        server.start()  # on the same port

`workers` takes gunicorn with so many worker processes instead of `pserve` with waitress; with `granian`, that instead.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from inotify_simple import INotify, flags

from .conftest import OUTGOING, USERS
from .programs import Program

TIMEOUT = 120.0  # seconds for what takes less than one on a quiet machine
PORTS = 1000  # for each process of the tests
_FIRST = 20000 + PORTS * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = itertools.cycle(random.sample(range(_FIRST, _FIRST + PORTS), PORTS))
MONITORING = "/api/v1.0/monitoring"

LOGGING = """
[loggers]
keys = root, queue

[handlers]
keys = console

[formatters]
keys = plain

[logger_root]
level = INFO
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
format = %(asctime)s %(levelname)s %(name)s: %(message)s
"""


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """One server on a port of its own; the context manager starts and always ends it.

    `folder` gets its ini file, whose `[app:main]` has `settings` and whose `[server:main]` has `waitress`. `enter` is a
    command that the server's command line is appended to, such as one that enters a namespace. `environment` is added
    to that of this process. `granian` are settings of granian, which serves with `workers` processes, at least one.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        workers: int = 0,
        waitress: Mapping[str, str] | None = None,
        granian: Mapping[str, str] | None = None,
        enter: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._ini = folder / f"{self.port}.ini"
        listen = {"listen": f"127.0.0.1:{self.port}"}
        self._waitress = {"use": "egg:waitress#main"} | listen | dict(waitress or {})
        self._granian = {"use": "egg:smsgw#granian", "workers": str(max(workers, 1))} | listen | dict(granian or {})
        if granian is not None:
            program, self._ready, options = "pserve", "Started worker-", ["--server-name", "granian"]
        elif workers:
            program, self._ready = "gunicorn", "Listening at: "
            options = ["--no-control-socket", "--workers", str(workers), "--bind", f"127.0.0.1:{self.port}", "--paste"]
        else:
            program, self._ready, options = "pserve", "Serving on ", []
        self._command = [*enter, _installed(program), *options, str(self._ini)]
        self._enters = bool(enter)
        self._environment = os.environ | dict(environment or {})
        self._process: subprocess.Popen[bytes] | Program | None = None
        self._lines: list[str] = []
        self._written = threading.Condition()
        self._ended = True
        self.configure(settings)

    def configure(self, settings: Mapping[str, str]) -> None:
        """Write the ini file anew; the next `start` reads it."""
        app = {"use": "egg:smsgw"} | dict(settings)
        servers = _section("server:main", self._waitress) + _section("server:granian", self._granian)
        self._ini.write_text(_section("app:main", app) + servers + LOGGING)

    @property
    def pid(self) -> int:
        """Of the main process, which with gunicorn and granian serves nothing itself."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """The main process's children."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @property
    def stderr(self) -> str:
        """What it wrote to stdout and stderr, of all its runs."""
        with self._written:
            return "".join(self._lines)

    # Life and death

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, timeout: float = TIMEOUT) -> Server:
        """Start it; returns when it has answered a request, whether or not the spool can be written to.

        :raises AssertionError: it ended, or does not answer.
        """
        if self._process is not None:
            raise RuntimeError("the server is running")
        with self._written:
            begin = len(self._lines)
            self._ended = False
        reading, writing = os.pipe()
        with open(os.devnull, "rb") as nothing, os.fdopen(writing, "wb") as output:
            options: Any = {"stdin": nothing, "stdout": output, "stderr": output, "env": self._environment}
            # In a session of its own, so that its workers die with it, whatever happens.
            if self._enters:
                self._process = subprocess.Popen(self._command, start_new_session=True, **options)
            else:
                self._process = Program(self._command, **options)
        self._reader = threading.Thread(target=self._read, args=[os.fdopen(reading, "rb")], daemon=True)
        self._reader.start()

        def is_listening() -> bool:
            return any(self._ready in line for line in self._lines[begin:])

        try:
            with self._written:
                self._written.wait_for(lambda: self._ended or is_listening(), timeout)
                assert is_listening(), f"the server ended or does not listen:\n{''.join(self._lines[begin:])}"
            self.await_answer(timeout)
        except BaseException:
            self.kill()
            raise
        return self

    def await_answer(self, timeout: float = TIMEOUT) -> None:
        """Ask until it answers: granian says that it has started a moment before it listens."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.request("GET", MONITORING, user=None, timeout=timeout)
                return
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def stop(self, timeout: float = TIMEOUT) -> int:
        """SIGTERM, and SIGKILL after `timeout` seconds; returns the main process's exit status."""
        process = self._process
        if process is None:
            raise RuntimeError("the server is not running")
        process.terminate()
        self._reader.join(timeout)  # stderr is at its end when the last process is
        self.kill()
        return process.wait()

    def kill(self) -> None:
        """SIGKILL to all its processes at once; returns when they are dead. Nothing happens if it does not run."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._reader.join()
        self._process = None

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                with self._written:
                    self._lines.append(line.decode("utf-8", "replace"))
                    self._written.notify_all()
        with self._written:
            self._ended = True
            self._written.notify_all()

    # Requests

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: str | None = "lvv",
        password: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Reply:
        """One request on a connection of its own; `body` goes as JSON, `password` is the user's where none is given.

        :raises OSError: there is no server, or it died over the request.
        :raises http.client.HTTPException: it died over the reply.
        """
        sent = dict(headers or {})
        if user is not None:
            pair = f"{user}:{USERS[user] if password is None else password}"
            sent["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        content = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            content = json.dumps(body)
        connection = self.connection(timeout)
        try:
            connection.request(method, path, content, sent)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def send(self, mobiles: Sequence[str], text: str = "Hi, Jack!", *, key: str | None = None, **options: Any) -> Reply:
        """POST a message by v1.0; `key` is its `Idempotency-Key`, `options` are those of `request`."""
        headers = {"Idempotency-Key": key} if key else {}
        return self.request("POST", OUTGOING, {"mobiles": list(mobiles), "text": text}, headers=headers, **options)

    def monitor(self) -> Reply:
        return self.request("GET", MONITORING, user=None)


def wait_until(condition: Callable[[], bool], *folders: Path, timeout: float = TIMEOUT) -> None:
    """Return when `condition` holds, looking whenever something changes in those folders.

    :raises AssertionError: it does not after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    with INotify() as watch:
        for folder in folders:
            watch.add_watch(folder, flags.CREATE | flags.DELETE | flags.MOVED_TO | flags.MOVED_FROM | flags.CLOSE_WRITE)
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"not after {timeout} s: {[sorted(os.listdir(folder)) for folder in folders]}"
            watch.read(timeout=int(left * 1000) + 1)


def free_port() -> int:
    """A port that nobody listens on, and that the kernel gives to no client's end of a connection meanwhile.

    No other process of these tests gets it, and this one not soon again.
    """
    for port in itertools.islice(_PORTS, PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def _installed(program: str) -> str:
    """The path of a program that is installed beside this Python."""
    found = shutil.which(program, path=str(Path(sys.executable).parent))
    assert found, f"{program} is not installed beside {sys.executable}"
    return found


def _section(name: str, values: Mapping[str, str]) -> str:
    """A section of an ini file: `%` is doubled, further lines are indented."""
    lines = [f"{key} = {value}".replace("%", "%%").replace("\n", "\n    ") for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, "", ""])
