"""Whose the messages in a folder are, and in what order: each file is read once, when it is asked for, and again only
where it changed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sortedcontainers import SortedList
from ulid import ULID

from smsgw.model import Position
from smsgw.spool import file
from smsgw.spool.following.watch import TICK, Watch

HEAD = 4096  # bytes in which a file's headers are looked for
SETTLED = 2.0  # seconds after which a file that nobody wrote to is taken for complete


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a file, and its place in lists."""

    owner: str | None
    item: Position


_Stamp = tuple[int, int]  # when a file was written (ns), and its size


def began(name: str, prefix: str) -> int | None:
    """When a message of ours was accepted, in milliseconds since 1970: its name says so. ``None``: it is not ours."""
    if name.startswith(prefix):
        with contextlib.suppress(ValueError):
            return int(ULID.from_str(name[len(prefix) :]).milliseconds)
    return None


def is_message(name: str) -> bool:
    """Whether that can be a message's file, and asked for: no lock of smsd's nor its store of parts, no path, UTF-8."""
    if name.startswith(".") or name.endswith((".LOCK", "-concatenated")) or "/" in name or "\0" in name or not name:
        return False
    try:
        return len(name.encode()) + len(".LOCK") <= 255  # a name that smsd can lock
    except UnicodeEncodeError:
        return False


class Index:
    """The messages of one kind that are under way; shared by all threads.

    :param folders: where they are; the last of these must be there, the others may come and go.
    """

    def __init__(self, folders: Callable[[], Sequence[Path]], prefix: str) -> None:
        self._folders = folders
        self._prefix = prefix
        self._lock = threading.RLock()
        self._watch = Watch()
        self._inodes: dict[Path, dict[str, int]] = {}
        self._entries: dict[str, _Known] = {}
        self._unsettled: dict[str, _Stamp | None] = {}  # how what may still change stood; None: to be read anyway
        self._all = SortedList()
        self._owned: dict[str | None, SortedList] = {}

    def page(self, owner: str | None, limit: int, offset: int) -> tuple[int, list[str]]:
        """How many there are of that owner (``None``: of all), and the ids of one page, newest first.

        :raises OSError: a folder cannot be read.
        """
        with self._lock:
            self._refresh()
            found = self._all if owner is None else self._owned.get(owner, SortedList())
            end = max(len(found) - offset, 0)
            return len(found), [name for _, name in reversed(found[max(end - limit, 0) : end])]

    def newest(self, owner: str | None, before: Position | None, since: int, count: int) -> list[Position]:
        """That many places of that owner's messages (``None``: of all), newest first.

        :param before: the place that they are older than; ``None``: any.
        :param since: milliseconds since 1970; none is older.
        :raises OSError: a folder cannot be read.
        """
        with self._lock:
            self._refresh()
            found = self._all if owner is None else self._owned.get(owner, SortedList())
            end = len(found) if before is None else found.bisect_left(before)
            return list(reversed(found[max(end - count, found.bisect_left((since, ""))) : end]))

    def _refresh(self) -> None:
        unsettled, self._unsettled = self._unsettled, {}
        for path, stamp in unsettled.items():
            if stamp is None or stamp != _stamp(path):
                self._drop(path)
                self._add(path)
            elif time.time() - stamp[0] / 1e9 < SETTLED:
                self._unsettled[path] = stamp
        folders = self._folders()
        if folders:
            os.stat(folders[-1])
        for folder in self._inodes.keys() - set(folders):
            for name in self._inodes.pop(folder):
                self._drop(f"{folder}/{name}")
        try:
            for folder, names in self._watch.news(folders).items():
                self._look_into(folder, names)
        except OSError:
            self._watch.close()  # so that all is news the next time
            raise

    def _look_into(self, folder: Path, names: set[str] | None) -> None:
        """Read what came or was changed, as far as it is wanted, and forget what went: of these names, or of all."""
        known, found = self._inodes.setdefault(folder, {}), _inodes(folder, names)
        if names is None:
            names = {name for name in known.keys() | found.keys() if known.get(name) != found.get(name)}
        for name in names:
            path = f"{folder}/{name}"
            self._drop(path)
            known.pop(name, None)
            if name in found:
                known[name] = found[name]
                if is_message(name):
                    self._add(path)

    def close(self) -> None:
        """Give back what watches the folders; the next question begins anew."""
        with self._lock:
            self._watch.close()

    def _drop(self, path: str) -> None:
        self._unsettled.pop(path, None)
        if (entry := self._entries.pop(path, None)) is not None:
            self._all.remove(entry.item)
            self._owned[entry.owner].remove(entry.item)

    def _add(self, path: str) -> None:
        try:
            content, found = file.read(path, HEAD)
            parsed = file.parse(content)
            if not parsed.complete and found.st_size > HEAD:
                parsed = file.parse(file.read(path)[0])
        except FileNotFoundError:
            return
        except OSError:
            self._unsettled[path] = None  # it may become readable, which does not show in the folder
            return
        age = time.time() - found.st_mtime
        if age < SETTLED or not parsed.complete:
            is_steady = parsed.complete and age > TICK / 1e9
            self._unsettled[path] = (found.st_mtime_ns, found.st_size) if is_steady else None
        if age < SETTLED and not parsed.complete:
            return
        name = _name(path)
        owner = parsed.headers.get("From")
        item = (self._milliseconds(name, found.st_mtime), name)
        self._entries[path] = _Known(owner, item)
        self._all.add(item)
        self._owned.setdefault(owner, SortedList()).add(item)

    def _milliseconds(self, name: str, written: float) -> int:
        """When that message began; of others' than ours the file's time is all there is."""
        found = began(name, self._prefix)
        return int(written * 1000) if found is None else found


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _stamp(path: str) -> _Stamp | None:
    """How that file stands; ``None``: it is not there, or nobody can know."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _inodes(folder: Path, names: set[str] | None) -> dict[str, int]:
    """Which of these names, or of all, are in a folder: another file under the same name has another number."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        if names is None:
            with os.scandir(folder) as entries:
                return {entry.name: entry.inode() for entry in entries}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = os.lstat(folder / name).st_ino
    return found
