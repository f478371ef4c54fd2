"""A small file system of its own, to be filled, made read-only or taken away; seen only in its own mount namespace.

with Tmpfs(tmp_path / "spool", "1m") as tmpfs, Server(tmp_path, settings, enter=tmpfs.enter) as server:
    tmpfs.run("mount", "-o", "remount,ro", tmpfs.path)
    (tmpfs.outside / "outgoing").iterdir()
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

import pytest

# The mount is there when the line is, and the namespace is there as long as somebody is in it.
HOLD = 'mount -t tmpfs -o "$1" tmpfs "$2" && echo mounted && exec cat'


class Tmpfs:
    """A tmpfs at `path`, of `size` and with at most `inodes` files; the context manager mounts it and ends it."""

    def __init__(self, path: Path, size: str, inodes: int = 0) -> None:
        self.path = path
        self._options = f"size={size},nr_inodes={inodes}"
        path.mkdir()

    def __enter__(self) -> Self:
        for program in ("unshare", "nsenter", "mount", "chattr"):
            if shutil.which(program) is None:
                pytest.skip(program)
        command = ["unshare", "--mount", "--propagation", "private"]
        command += ["sh", "-c", HOLD, "sh", self._options, str(self.path)]
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if not self._holder.stdout.readline():
            reason = self._holder.stderr.read().strip()
            self.__exit__()
            pytest.skip(f"a tmpfs in a mount namespace of its own ({reason})")
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()  # closes what cat reads, and waits for its end

    @property
    def enter(self) -> list[str]:
        """What a command line is appended to that shall see the tmpfs."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]

    @property
    def outside(self) -> Path:
        """The same folder, from outside of the namespace."""
        return Path(f"/proc/{self._holder.pid}/root") / self.path.relative_to("/")

    def run(self, *command: str | Path) -> None:
        """Run a command that sees the tmpfs."""
        subprocess.run([*self.enter, *command], check=True)

    def fill(self, leave: int = 0) -> Path:
        """Fill it with one file, but for so many bytes; returns the file."""
        path = self.outside / "filler"
        free = os.statvfs(self.outside)
        with open(path, "wb", buffering=0) as stream:
            for _ in range(free.f_bavail - leave // free.f_frsize):
                stream.write(bytes(free.f_frsize))
        return path

    def files(self) -> dict[str, int]:
        """Everything in it, with its size; a folder's is 0."""
        found = {}
        for folder, folders, names in os.walk(self.outside):
            for name in (*folders, *names):
                path = Path(folder, name)
                found[str(path.relative_to(self.outside))] = 0 if path.is_dir() else path.stat().st_size
        return found
