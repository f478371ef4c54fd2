"""Small file systems, to be filled, made read-only or taken away; seen only in a mount namespace of their own.

with Tmpfs(tmp_path / "spool", "1m") as small, Server(tmp_path, settings, enter=small.enter) as server:
    small.run("mount", "-o", "remount,ro", small.path)
    (small.outside / "outgoing").iterdir()
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

import pytest

# The mount is there when the line is, and the namespace is there as long as somebody is in it.
HOLD = '"$@" && echo mounted && exec cat'


class Small:
    """A file system at `path`; the context manager mounts it, by that command, and ends it."""

    def __init__(self, path: Path, *mount: str | Path) -> None:
        self.path = path
        self._mount = mount
        path.mkdir()

    def __enter__(self) -> Self:
        need("unshare", "nsenter", "mount", "chattr")
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", HOLD, "sh", *self._mount]
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if not self._holder.stdout.readline():
            reason = self._holder.stderr.read().strip()
            self.__exit__()
            pytest.skip(f"{type(self).__name__} in a mount namespace of its own ({reason})")
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()  # closes what cat reads, and waits for its end

    @property
    def enter(self) -> list[str]:
        """What a command line is appended to that shall see the file system."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]

    @property
    def outside(self) -> Path:
        """The same folder, from outside of the namespace."""
        return Path(f"/proc/{self._holder.pid}/root") / self.path.relative_to("/")

    def run(self, *command: str | Path) -> None:
        """Run a command that sees the file system."""
        subprocess.run([*self.enter, *command], check=True)

    def fill(self, leave: int = 0) -> Path:
        """Fill it with one file, but for so many blocks; returns the file."""
        path = self.outside / "filler"
        block = os.statvfs(self.outside).f_frsize
        with open(path, "wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(block))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            os.fsync(stream.fileno())
            stream.truncate(stream.tell() - leave * block)
        return path

    def files(self) -> dict[str, int]:
        """Everything in it, with its size; a folder's is 0."""
        found = {}
        for folder, folders, names in os.walk(self.outside):
            for name in (*folders, *names):
                path = Path(folder, name)
                found[str(path.relative_to(self.outside))] = 0 if path.is_dir() else path.stat().st_size
        return found


class Tmpfs(Small):
    """A tmpfs of that size, such as `1m`, and with at most so many files (0: any number)."""

    def __init__(self, path: Path, size: str = "1m", files: int = 0) -> None:
        super().__init__(path, "mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={files}", "tmpfs", path)


class Ext4(Small):
    """An ext4 of that size in a file, with blocks of 1 KiB: folders take a block more for some twenty names."""

    def __init__(self, path: Path, size: str = "4m") -> None:
        need("mkfs.ext4")
        image = path.with_name(f"{path.name}.ext4")
        subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-m", "0", "-N", "2000", image, size], check=True)
        super().__init__(path, "mount", "-o", "loop", image, path)


def need(*programs: str) -> None:
    """Skip the test where one of them is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(program)
