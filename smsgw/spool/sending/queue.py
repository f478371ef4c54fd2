"""What waits to enter ``outgoing``. The names of folders say in what order it enters, so that no file has to be read.

- ``waiting/<high|normal>/<user>/`` holds messages that wait for their turn.
- ``scheduled/<milliseconds>.<high|normal>.<user>/`` holds messages that wait for their time (milliseconds since 1970).
- ``ready/<name>/`` holds a submission that was just committed. It is moved on at once.

A message is a file in such a folder, and the file's name is the message's id. Messages that came together have a folder
of their own: its name is the user's, then ``+`` and something unique.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ulid import ULID

from smsgw.model import Options
from smsgw.spool import file
from smsgw.spool.disk import open_folder, sync_folder
from smsgw.spool.file import is_message
from smsgw.spool.layout import Layout
from smsgw.spool.sending.room import Room

RECEIPT = ".receipt"  # a name that smsd would pass over
TOGETHER = "+"  # in the name of a folder of messages that came together
PRIORITIES = ("high", "normal")  # what has the first one enters first

IDLE = 60.0  # seconds after which an empty folder of single messages is removed
_LONGEST = 200  # bytes of a user's name in the name of a folder


class Queue:
    """What waits in one spool; shared by all threads.

    :param depth: how many files shall be with smsd at the most; 0: any number.
    :param fsync: whether what is moved waits for the disk.
    """

    def __init__(self, layout: Layout, *, depth: int, fsync: bool) -> None:
        self._layout = layout
        self._fsync = fsync
        self.room = Room(layout, depth, self.is_anybody_waiting)
        self.waiting, self.scheduled = layout.state / "waiting", layout.state / "scheduled"
        self.ready, self._receipts = layout.state / "ready", layout.state / "receipts"
        self._turns = [self.waiting / priority for priority in PRIORITIES]

    def name(self, user: str | None, options: Options, submission: str = "") -> str:
        """The name of the folder in which messages of that user wait, when they wait for their time.

        :param submission: of several that came together, something unique.
        """
        at = options.send_at
        when = math.ceil(at.timestamp() * 1000) if at is not None and file.is_later(at) else 0
        rest = f"{_escaped(user)}{TOGETHER}{submission}" if submission else _escaped(user)
        return f"{when:013}.{PRIORITIES[not options.high_priority]}.{rest}"

    def folder(self, name: str) -> Path:
        """Where the folder of that name is: with what waits for its time, or for its turn where that has come."""
        when, priority, rest = _parse(name)
        return self.scheduled / name if when > time.time() else self.waiting / priority / rest

    def make(self, name: str) -> Path:
        """The folder of that name, made where it is not there yet.

        :raises OSError: it cannot be made.
        """
        folder = self.folder(name)
        if not os.path.isdir(folder):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            try:
                self.sync(folder.parent)
            except OSError:
                os.rmdir(folder)
                raise
        return folder

    def sync(self, folder: Path) -> None:
        """:raises OSError: what was moved there may not be on disk."""
        if self._fsync:
            sync_folder(folder)

    def resume(self, name: str) -> None:
        """Complete a submission whose process died, or failed, before ``complete`` came to its end.

        What that had moved already is synced first: nothing tells which messages these were.

        :raises OSError: not all could be moved; to be called again.
        """
        if (self.ready / name).exists():
            for folder in (self._receipts, self.scheduled, *self._turns, self._layout.outgoing):
                self.sync(folder)
            self.complete(name)

    def complete(self, name: str) -> None:
        """Move a committed submission on, as far as there is room, and then its receipt to the receipts.

        Its ``ready_lock`` is held. Its folder is removed when all that was in it is on disk where it went.

        :raises OSError: not all could be moved; ``resume`` is to be called.
        """
        ready = self.ready / name
        try:
            names = set(os.listdir(ready))
        except FileNotFoundError:
            return
        for path in (ready / name for name in sorted(names - {RECEIPT})):
            if path.is_dir():
                self._move_on(path)
            else:
                self.adopt(path)
        if RECEIPT in names:
            os.rename(ready / RECEIPT, self._receipts / name)
            self.sync(self._receipts)
        os.rmdir(ready)

    def _move_on(self, folder: Path) -> None:
        target, messages = self.folder(folder.name), sorted(os.listdir(folder))
        if target.parent != self.scheduled:
            with self.room.for_new(len(messages)) as room:
                self._enter(folder, messages[:room])
                messages = messages[room:]
        if messages:
            os.rename(folder, target)
            self.sync(target.parent)
        else:
            os.rmdir(folder)

    def _enter(self, folder: Path, messages: Sequence[str]) -> None:
        if messages:
            with contextlib.ExitStack() as opened:
                source, target = open_folder(folder, opened), open_folder(self._layout.outgoing, opened)
                for message in messages:
                    with contextlib.suppress(FileNotFoundError):  # it was taken back
                        os.rename(message, message, src_dir_fd=source, dst_dir_fd=target)
                if self._fsync:
                    os.fsync(target)

    def adopt(self, path: Path) -> None:
        """Put a message where it has to wait that lies beside the folders, as earlier versions left it.

        :raises OSError: it cannot be read or moved.
        """
        headers = file.parse(file.read(path, file.HEAD)[0]).headers
        options = Options(high_priority=headers.get("Priority", "").upper() == "HIGH", send_at=file.send_at(headers))
        folder = self.make(self.name(headers.get("From"), options))
        os.rename(path, folder / path.name)
        self.sync(folder)

    def join(self, folder: Path) -> None:
        """Let messages whose time has come wait for their turn.

        :raises OSError: they cannot be moved.
        """
        _, priority, rest = _parse(folder.name)
        target = self.waiting / priority / (rest if TOGETHER in rest else f"{rest}{TOGETHER}{ULID()}")
        os.rename(folder, target)
        self.sync(target.parent)

    def enter(self, path: Path) -> None:
        """Let a message into ``outgoing`` whose turn it is.

        :raises OSError: it cannot be moved.
        """
        with contextlib.suppress(OSError):
            os.utime(path, follow_symlinks=False)  # smsd takes the oldest first, and they shall go in turn
        os.rename(path, self._layout.outgoing / path.name)

    def turns(self, priority: str) -> dict[str, list[Path]]:
        """The folders of what waits for its turn, by user."""
        found: dict[str, list[Path]] = {}
        for folder in _folders(self.waiting / priority):
            found.setdefault(_user(folder.name), []).append(folder)
        return found

    def messages(self, folder: Path) -> Iterator[str]:
        """The ids of what waits in that folder, in any order."""
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if is_message(entry.name) and entry.is_file(follow_symlinks=False):
                    yield entry.name

    def remove(self, folder: Path) -> None:
        """Remove a folder in which nothing waits any more. One of single messages may be about to be used again."""
        with contextlib.suppress(OSError):
            if TOGETHER in folder.name or time.time() - folder.stat().st_mtime > IDLE:
                self.sync(self._layout.outgoing)
                os.rmdir(folder)

    def due(self) -> Iterator[tuple[float, Path]]:
        """The folders of what waits for its time, the next one first: when (seconds since 1970), and the folder."""
        for folder in _folders(self.scheduled):
            with contextlib.suppress(ValueError):  # it is none of ours
                yield _parse(folder.name)[0], folder

    def is_anybody_waiting(self) -> bool:
        """Whether messages wait for their turn.

        :raises OSError: nobody can know.
        """
        os.stat(self.waiting)
        return any(itertools.chain(*map(self.messages, itertools.chain(*map(_folders, self._turns)))))

    def folders(self, user: str | None = None, *, only_later: bool = False) -> Iterator[Path]:
        """The folders in which messages wait, in the order in which messages move.

        :param user: only those of that user; ``None``: of all.
        :param only_later: only of what waits for its time.
        """
        wanted = None if user is None else _escaped(user)
        if not only_later:
            for ready in _folders(self.ready):
                if wanted is None:  # as earlier versions left it
                    yield ready
                for folder in _folders(ready):
                    with contextlib.suppress(ValueError):
                        if wanted in (None, _user(_parse(folder.name)[2])):
                            yield folder
        for _, folder in self.due():
            if wanted in (None, _user(_parse(folder.name)[2])):
                yield folder
        for folder in () if only_later else itertools.chain(*map(_folders, self._turns)):
            if wanted in (None, _user(folder.name)):
                yield folder


def ready_lock(name: str) -> str:
    """The lock that whoever moves a committed submission on holds."""
    return f"ready {name}"


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where it is not there."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _parse(name: str) -> tuple[float, str, str]:
    """Of a folder's name: when it is due (seconds since 1970), the priority, and the rest.

    :raises ValueError: it is no such name.
    """
    when, priority, rest = name.split(".", 2)
    if not (when.isascii() and when.isdigit() and priority in PRIORITIES and rest):
        raise ValueError(name)
    return int(when) / 1000, priority, rest


def _user(name: str) -> str:
    """The user part of a folder's name."""
    return name.partition(TOGETHER)[0]


def _escaped(user: str | None) -> str:
    """A user's name as one that a folder can have."""
    if not user:
        return "%e"
    name = user.replace("%", "%%").replace("/", "%s").replace(TOGETHER, "%p")
    if name.startswith("."):
        name = f"%d{name[1:]}"
    encoded = name.encode(errors="surrogatepass")
    if len(encoded) > _LONGEST or not name.isprintable():
        return f"%h{hashlib.sha256(encoded).hexdigest()}"
    return name
