"""The files in the folders of one kind: those that a plugin was told of, and the others."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from smsgw.spool.index import is_message


class Change(NamedTuple):
    """A file to tell of; when it was written, and when it was moved to its place (ns)."""

    place: Place
    name: str
    written: int
    moved: int


class Place:
    """The folders of one kind. A file is known by its name and by when it was written.

    :param until: what came before that time (ns) was told of, but for the ``untold``.
    """

    def __init__(self, kind: str, paths: Sequence[Path], until: int, untold: set[str]) -> None:
        self.kind, self.paths, self.until, self.untold = kind, paths, until, untold
        self.told: dict[str, int] = {}
        self._is_new = True

    def __contains__(self, name: str) -> bool:
        return name in self.told or name in self.untold

    def look(self, names: set[str] | None) -> set[str]:
        """Find out about files of these names, or about all, and return those that are not there any more.

        :raises OSError: nothing was found out.
        """
        if names is None or self._is_new:
            found = {change.name: change for change in self._all()}
            if self._is_new:
                known = found.keys() - self.untold
                self.told = {name: found[name].written for name in known if found[name].moved <= self.until}
                self._is_new = False
            looked = {*found, *self.told, *self.untold}
        else:
            looked = set(filter(is_message, (name.removesuffix(".LOCK") for name in names)))
            found = {change.name: change for change in self._files(looked)}
        for name in looked:
            if name in found and self.told.get(name) != found[name].written:
                self.untold.add(name)
            else:
                self.untold.discard(name)
        gone = looked - found.keys()
        for name in gone:
            self.told.pop(name, None)
        return gone

    def changes(self, names: Iterable[str]) -> list[Change]:
        """What is to be told of these names, in the order in which they came."""
        return sorted(self._files(names), key=attrgetter("moved"))

    def _all(self) -> Iterator[Change]:
        for folder in self.paths:
            with contextlib.suppress(FileNotFoundError):  # smsd keeps some kinds only where it is told to
                yield from self._in(folder, filter(is_message, os.listdir(folder)))

    def _files(self, names: Iterable[str]) -> Iterator[Change]:
        names = list(names)
        for folder in self.paths:
            yield from self._in(folder, names)

    def _in(self, folder: Path, names: Iterable[str]) -> Iterator[Change]:
        """The files of those names; neither links nor folders."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # it went on
                found = os.stat(f"{folder}/{name}", follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield Change(self, name, found.st_mtime_ns, found.st_ctime_ns)
