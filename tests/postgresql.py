"""A real PostgreSQL for the tests, in a folder of its own and on a unix socket in it: nobody else can reach it.

with Postgresql() as server:
    settings = {"smsgw.store": server.create()}
    server.stop()
    server.start()
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest

TIMEOUT = 180.0  # seconds for what takes two on a quiet machine
# No file of it waits for the disk: it lives as long as the tests.
SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=50", "shared_buffers=16MB")


class Postgresql:
    """One server; the context manager makes and always ends it. Skips the test where PostgreSQL is not installed."""

    def __enter__(self) -> Self:
        self._programs = _find()
        # Not in pytest's folder, which others may not enter, and whose path is longer than a socket's may be.
        self._folder = Path(tempfile.mkdtemp(prefix="smsgw-pg-"))
        self._names = itertools.count(1)
        self._user: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if os.geteuid() == 0:  # which PostgreSQL refuses to run as
                account = _account()
                self._user = {"user": account.pw_uid, "group": account.pw_gid}
                os.chown(self._folder, account.pw_uid, account.pw_gid)
            options = ["--auth=trust", "--username=smsgw", "--encoding=UTF8", "--locale=C", "--no-sync"]
            self._run("initdb", *options, "--pgdata", self._folder / "cluster")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def create(self) -> str:
        """A new, empty database: what ``smsgw.store`` takes, and psql as well."""
        name = f"smsgw{next(self._names)}"
        self._run("createdb", "--host", self._folder, "--username=smsgw", name)
        return f"postgresql://smsgw@/{name}?host={self._folder}"

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        assert self._process is None
        command = [self._programs / "postgres", "-D", self._folder / "cluster", "-k", self._folder, "-h", ""]
        for setting in SETTINGS:
            command += ["-c", setting]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, **self._user)
        deadline = time.monotonic() + TIMEOUT
        while self._ask("pg_isready", "--quiet", "--host", self._folder).returncode:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, with all connections. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # "immediate shutdown", which takes its children along
            self._process.wait(TIMEOUT)
            self._process = None

    def kill(self) -> None:
        """SIGKILL to all its processes; returns when they are dead. Nothing happens if it does not run."""
        if self._process is not None:
            processes = self._processes()
            for pid in processes:
                os.kill(pid, signal.SIGKILL)
            self._process.wait(TIMEOUT)
            self._process = None
            while any(map(_is_alive, processes)):  # what they share would keep the next server from starting
                time.sleep(0.01)

    def pause(self) -> None:
        """Let none of its processes answer any more; the kernel goes on taking connections for them."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def sql(self, database: str, statement: str) -> str:
        """What psql prints for a statement in that database."""
        return self._run("psql", "--no-psqlrc", "-qAt", "--dbname", database, "--command", statement)

    def _signal(self, number: signal.Signals) -> None:
        for each in self._processes():
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(each, number)

    def _processes(self) -> list[int]:
        """The main process, and its children."""
        assert self._process is not None
        pid = self._process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _run(self, program: str, *arguments: str | Path) -> str:
        done = self._ask(program, *arguments)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        return done.stdout.decode().strip()

    def _ask(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        command = [self._programs / program, *arguments]
        return subprocess.run(command, cwd=self._folder, capture_output=True, timeout=TIMEOUT, **self._user)


def _is_alive(pid: int) -> bool:
    """Whether that process still has memory; nobody may have asked for its exit status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _find() -> Path:
    """The folder of PostgreSQL's programs; Debian keeps them out of ``PATH``, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    path = str(found[-1]) if found else shutil.which("initdb")
    if path is None:
        pytest.skip("PostgreSQL")
    return Path(path).resolve().parent


def _account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("a user 'postgres' or 'nobody', for PostgreSQL does not run as root")
