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
        stamp = _stamp(os.stat(self._path))
        if stamp != self._stamp or time.time() - stamp[0] / 1e9 < RACY:
            self._stamp, self._meaning = self._read()
        return self._meaning

    def _read(self) -> tuple[tuple[int, ...], T]:
        with open(self._path, "rb") as stream:
            stamp = _stamp(os.fstat(stream.fileno()))
            return stamp, self._parse(stream.read(self._most))


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size
