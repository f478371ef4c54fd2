"""Files that an operator changes while the gateway runs. Public."""

from __future__ import annotations

import os
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


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size
