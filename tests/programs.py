"""The installed programs ``pserve``, ``smsgw`` and ``gunicorn``, in processes of their own, without their imports.

To import smsgw and its libraries takes most of the time that such a process lives: ``smsgw check`` took 1.8 s in a
process of its own, and 0.4 s as a fork (medians of 9 in turn). So one process imports them once, and each program is a
fork of it, with its own session, environment, folder, and standard streams. What a program reads and writes, and its
exit status, are the same. A program that enters a namespace first is started the other way.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import smsgw
import smsgw_plugins

FOUND_AT_RUN_TIME = [
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.sync",
    "gunicorn.workers.gthread",
    "plaster_pastedeploy",
    "pyramid.scripts.pserve",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "waitress",
]
SERVER = "from tests.programs import serve; serve()"
PRELOAD = "LD_PRELOAD"  # libraries that stand before others, since the process began; see ld.so(8)
FILES = 3  # stdin, stdout, stderr


class Program:
    """A program that runs. ``command`` is the path of a Python script, and its arguments."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        stdin: IO[bytes] | int,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        environment = dict(os.environ if env is None else env)
        order = {"command": [str(word) for word in command], "cwd": str(cwd or os.getcwd()), "env": environment}
        files = [stream if isinstance(stream, int) else stream.fileno() for stream in (stdin, stdout, stderr)]
        self._said, theirs = socket.socketpair()
        with _server_lock, theirs:
            socket.send_fds(_server(environment.get(PRELOAD, "")), [b"."], [theirs.fileno(), *files])
        self._said.sendall(json.dumps(order).encode() + b"\n")
        self._answers = self._said.makefile("rb")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def wait(self) -> int:
        """Its exit status, or the negative number of the signal that ended it."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(int(self._answers.readline()))
            self._answers.close()
            self._said.close()
        return self.returncode

    def terminate(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGTERM)


def run(
    command: Sequence[str | Path],
    *,
    input: bytes = b"",
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, and take what it writes."""
    with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
        stdin.write(input)
        stdin.seek(0)
        status = Program(command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env).wait()
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(command, status, stdout.read().decode(), stderr.read().decode())


_server_lock = threading.Lock()


@functools.cache
def _server(preload: str) -> socket.socket:
    """The connection to the process that forks, and that began with that LD_PRELOAD; it ends when this one does."""
    ours, theirs = socket.socketpair()
    command, environment = [sys.executable, "-c", SERVER], os.environ | ({PRELOAD: preload} if preload else {})
    with theirs:
        process = subprocess.Popen(command, stdin=theirs, cwd=Path(__file__).parent.parent, env=environment)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve() -> None:
    """Import what programs need; then fork for each that comes through the socket that is stdin."""
    _import_all()
    orders, running = socket.socket(fileno=0), set[int]()
    while True:
        byte, files, _, _ = socket.recv_fds(orders, 1, 1 + FILES)
        if not byte:
            return
        pid = os.fork()
        if pid == 0:
            orders.detach()
            _look_after(socket.socket(fileno=files[0]), files[1:])
        running = {each for each in (*running, pid) if os.waitpid(each, os.WNOHANG) == (0, 0)}
        for file in files:
            os.close(file)


def _import_all() -> None:
    """All modules of smsgw but its tests', and those that are found at run time alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in FOUND_AT_RUN_TIME:
            importlib.import_module(name)
        for package in (smsgw, smsgw_plugins):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not {"testing", "migrations"} & set(module.name.split(".")):
                    importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def _look_after(caller: socket.socket, files: Sequence[int]) -> None:
    """Fork once more; the fork is the program. Tell its process id, wait for its end, and tell its status."""
    order = json.loads(caller.makefile("rb").readline())
    pid = os.fork()
    if pid == 0:
        caller.close()
        _become(files, **order)
    for file in files:
        os.close(file)
    caller.sendall(b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    caller.sendall(b"%d\n" % status)
    os._exit(0)


def _become(files: Sequence[int], command: list[str], cwd: str, env: dict[str, str]) -> None:
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(FILES, max(files) + 1)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", 1)  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = command  # the list itself, which pserve keeps
    runpy.run_path(command[0], run_name="__main__")
    sys.exit()
