"""Where the files of each kind are, and what one of them says; for who follows the folders."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from smsgw.ids import began
from smsgw.journal.writing import Found
from smsgw.model import StoredMessage
from smsgw.spool import file
from smsgw.spool.file import is_message
from smsgw.spool.folders import Folders
from smsgw.spool.following import reports
from smsgw.spool.layout import OWNED, Layout
from smsgw.spool.sending.queue import PRIORITIES, Queue

# In the order in which a message passes them, so that one look cannot miss a message that moves on meanwhile.
UNDER_WAY = ("outgoing", "checked")
ENDED = ("cancelled", "sent", "failed", "incoming", "report")
LATEST = 2**63 - 1


class Reader:
    """Reads the files of one spool.

    :param prefix: how our own message ids begin.
    """

    def __init__(self, layout: Layout, queue: Queue, folders: Folders, prefix: str) -> None:
        self._queue = queue
        self._folders = folders
        self._prefix = prefix
        self._moment = lru_cache(maxsize=256)(layout.moment)  # many messages end in the same second
        self._paths = {kind: paths_of(kind, layout) for kind in (*UNDER_WAY, *ENDED)}

    def places(self, kind: str) -> Sequence[Path]:
        return self._paths[kind]

    def names(self, kind: str) -> Iterator[str]:
        """The names of all files of that kind, as the folders have them; a missing folder has none.

        :raises OSError: a folder cannot be read.
        """
        for folder in (*(self.queued() if kind == "outgoing" else ()), *self.places(kind)):
            yield from self.names_in(folder)

    def names_in(self, folder: Path) -> Iterator[str]:
        """:raises OSError: the folder cannot be read."""
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # smsd keeps some only if told
            for entry in entries:
                if is_message(entry.name) and entry.is_file(follow_symlinks=False):
                    yield entry.name

    def queued(self) -> Iterator[Path]:
        """The folders of what waits for its time or its turn, which come and go."""
        return self._queue.folders()

    def find(self, kind: str, name: str) -> tuple[Path, os.stat_result] | None:
        """The folder of a plain file of that name, and how the file stands; ``None``: there is none."""
        for folder in itertools.chain(self.queued() if kind == "outgoing" else (), self.places(kind)):
            with contextlib.suppress(OSError, ValueError):
                found = os.stat(f"{folder}/{name}", follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    return folder, found
        return None

    def written(self, kind: str, name: str) -> int | None:
        """When that file was written (ns); ``None``: there is none."""
        found = self.find(kind, name)
        return None if found is None else written(found[1])

    def read(self, kind: str, path: Path, *, is_news: bool) -> Found | None:
        """That file; ``None``: it is gone, or not all of it is there yet.

        :raises OSError: it cannot be read.
        """
        try:
            content, status = file.read(path)
        except FileNotFoundError:
            return None
        parsed = file.parse(content)
        if not self._folders.is_whole(kind, path, parsed, status):
            return None
        name, seconds = path.name, status.st_mtime_ns / 1e9
        owner = parsed.headers.get("From") if kind in (*OWNED, "cancelled") else None
        message = StoredMessage(kind, name, parsed.headers, parsed.text, owner)
        report = reports.parse(f"{kind}/{name}", message, seconds, self._moment)
        sending = reports.sending_of(name, message, seconds, owner, self._moment) if kind == "sent" else None
        ours = began(name, self._prefix) if kind not in reports.KINDS else None
        # A spool that was put back from a backup, or a new mode of a file, makes no news of what is old.
        at = datetime.fromtimestamp(min(max(min(status.st_mtime, status.st_ctime), 0.0), LATEST / 1e9), UTC)
        when = written(status)
        return Found(kind, name, when, when // 10**6 if ours is None else ours, at, message, report, sending, is_news)


def paths_of(kind: str, layout: Layout) -> tuple[Path, ...]:
    """Where files of that kind are, in the order in which they move."""
    if kind == "cancelled":
        return (layout.state / "cancelled",)
    found = layout.folders[kind]
    if kind == "outgoing":
        turns = [layout.state / "waiting" / priority for priority in PRIORITIES]
        return (layout.state / "scheduled", *turns, *found, layout.state / "cancelling")
    if kind == "report":  # smsd can be told to keep them among received messages
        received = [os.path.realpath(folder) for folder in layout.folders["incoming"]]
        return tuple(folder for folder in found if os.path.realpath(folder) not in received)
    return found


def followed(layout: Layout) -> list[Path]:
    """The folders in which messages come to their end."""
    return [folder for kind in ENDED for folder in paths_of(kind, layout)]


def written(status: os.stat_result) -> int:
    """When a file was written (ns), as far as a database takes it for a number."""
    return max(min(status.st_mtime_ns, LATEST), -LATEST)


def modified(folder: Path) -> int:
    """When something came into a folder, or left it (ns); 0: it is not there."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0
