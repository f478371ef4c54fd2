"""Files that an operator changes while the gateway runs. Public."""

from __future__ import annotations

import grp
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

RACY = 0.1  # seconds: a file written twice within a clock tick may look as if it was written once

T = TypeVar("T")


class ParsedFile(Generic[T]):
    """A file, read again when it has changed.

    :param parse: makes of its content what the file means; it may raise ``ValueError``.
    :param most: bytes that are read of it at most.
    :raises OSError: it cannot be read.
    :raises ValueError: ``parse`` does.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T], most: int = -1) -> None:
        self._path, self._parse, self._most = path, parse, most
        self._stamp, self._meaning = self._read()

    def current(self) -> T:
        """What the file means now: the same object, as long as the file is the same.

        :raises OSError: it cannot be read.
        :raises ValueError: ``parse`` does.
        """
        found = stamp(self._path)
        if found is None or found != self._stamp:
            self._stamp, self._meaning = self._read()
        return self._meaning

    def _read(self) -> tuple[tuple[int, ...], T]:
        with open(self._path, "rb") as stream:
            found = _stamp(os.fstat(stream.fileno()))
            return found, self._parse(stream.read(self._most))


def stamp(path: Path) -> tuple[int, ...] | None:
    """Numbers that are others after each change of the file; ``None``: the next change might leave them as they are.

    :raises OSError: there is no such file.
    """
    found = _stamp(os.stat(path))
    return None if time.time() - found[0] / 1e9 < RACY else found


def unreadable(path: Path | str, error: OSError) -> str:
    """A sentence without its full stop: that file cannot be read, why, and how to let this process read it."""
    said = f"{path} cannot be read: {error.strerror}"
    if not isinstance(error, PermissionError):
        return said
    name = shlex.quote(str(path))
    try:
        group = grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        group = str(os.getegid())
    return f"{said}; as root: chgrp {group} {name} && chmod g+r {name}"


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size
