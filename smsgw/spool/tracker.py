"""What became of messages, found in the folders and told to one plugin, in the process that owns the spool.

Each plugin has a tracker and a thread of its own, so one that is slow or fails holds up nobody else. A file is told of
when its name is new in a folder, or when it was written anew; its times say neither, as ``chmod`` and clocks change
them. They count after a restart alone: what is older than the notes is told, but for the names in them. So everything
is told at least once, and again only what came right before the last notes, or was changed while nobody looked.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from smsgw.model import Accepted, Cancelled, Event, Failed, Received, Sent, StoredMessage
from smsgw.spool import file
from smsgw.spool.folders import Folders
from smsgw.spool.index import is_message
from smsgw.spool.layout import Layout

PERIOD = 0.5  # seconds between two looks, at least; ten times as long as the last one took
LONGEST = 10.0  # and at most
RETRY = 5.0  # seconds until a plugin that failed is told again
SLACK = 2_000_000_000  # nanoseconds by which a file's time may lie before the moment that it can be seen
TICK = 100_000_000  # nanoseconds in which a folder can change twice, and show one time
SAVED = 60_000_000_000  # nanoseconds after which the notes are written even where nothing came
MOST = 250  # files told of at once; each makes one event or two

# In the order in which a message passes them, so that one look cannot miss a message that moves on meanwhile.
EVENTS: dict[str, type[Event]] = {
    "outgoing": Accepted,
    "checked": Accepted,
    "cancelled": Cancelled,
    "sent": Sent,
    "failed": Failed,
    "incoming": Received,
}

log = logging.getLogger(__name__)


class Tracker:
    """Follows the folders for one plugin.

    :param name: the plugin's; what it was told is remembered under it.
    :param tell: its ``notify``.
    """

    def __init__(self, layout: Layout, folders: Folders, name: str, tell: Callable[[Sequence[Event]], None]) -> None:
        self._folders = folders
        self._paths = {kind: layout.folders.get(kind, ()) for kind in EVENTS}
        # What is being taken back was accepted, whatever comes of it.
        self._paths["outgoing"] += (layout.state / "cancelling",)
        self._paths["cancelled"] = (layout.state / "cancelled",)
        self._notes = layout.state / f"told.{name}"
        self._name = name
        self._tell = tell

    def run(self, stop: threading.Event) -> None:
        """Look and tell until ``stop`` is set."""
        memory = _Memory(self._paths, self._notes)
        pause = PERIOD
        while not stop.wait(pause):
            begun = time.thread_time()
            memory.look()
            taken = all(stop.is_set() or self._tell_batch(batch, memory) for batch in memory.batches())
            pause = min(max(PERIOD, 10 * (time.thread_time() - begun)), LONGEST) if taken else RETRY
        memory.save()

    def _tell_batch(self, batch: Sequence[_Change], memory: _Memory) -> bool:
        """Tell of those that can be read now, and remember it; false where the plugin did not take it."""
        under_way = set(memory.under_way)
        read: list[_Change] = []
        events: list[Event] = []
        for change in batch:
            message = self._read(change, memory)
            if message is None:
                continue
            read.append(change)
            event, at = EVENTS[change.place.kind], datetime.fromtimestamp(change.changed / 1e9, UTC)
            if event is not Received and change.name not in under_way:
                under_way.add(change.name)
                events.append(Accepted(message, at))
            if event is not Accepted:
                under_way.discard(change.name)
                events.append(event(message, at))
        try:
            if events:
                self._tell(events)
        except Exception:
            log.exception("the plugin %r failed to take events; it is told again", self._name)
            memory.refused(read)
            return False
        memory.taken(read, under_way)
        return True

    def _read(self, change: _Change, memory: _Memory) -> StoredMessage | None:
        """The message, where it can be told of now: smsd may be at it."""
        kind, name = change.place.kind, change.name
        try:
            if kind != "cancelled":
                return self._folders.find(kind, name)
            parsed = file.parse(file.read(self._paths[kind][0] / name)[0])
            return StoredMessage(kind, name, parsed.headers, parsed.text, parsed.headers.get("From"))
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever it is: one file must not hold up the others
            if name not in memory.failures:
                log.error("%s/%s cannot be told of until it can be read: %s", kind, name, error)
            memory.failures.setdefault(name, 1)
            return None


@dataclass(frozen=True, slots=True)
class _Change:
    """A file to tell of; ``written`` and ``changed`` are its own times (ns), the latter also that of its last move."""

    place: _Place
    name: str
    written: int
    changed: int


class _Place:
    """The folders of one kind: the files in them that were told of, by when they were written, and those that wait.

    :param until: everything from before that time (ns) was told of, but for the ``untold``.
    """

    def __init__(self, kind: str, paths: tuple[Path, ...], until: int, untold: Sequence[str]) -> None:
        self.kind = kind
        self.until = until
        self.told: dict[str, int] = {}
        self.untold = dict.fromkeys(untold, "")
        self._paths = paths
        self._seen: tuple[int, ...] | None = None

    def look(self, now: int) -> bool:
        """Find what came or was written anew; false, and cheap, where nothing came or went since the last look."""
        seen = tuple(map(_modified, self._paths))
        changes = seen != self._seen
        if changes:
            found = {entry.name: (entry.path, times) for path in self._paths for entry, times in _files(path)}
            if self._seen is None:
                known = found.keys() - self.untold.keys()
                self.told = {name: found[name][1][0] for name in known if found[name][1][1] <= self.until}
            self.told = {name: written for name, written in self.told.items() if name in found}
            self.untold = {name: path for name, (path, times) in found.items() if self.told.get(name) != times[0]}
            self._seen = seen if all(abs(now - then) > TICK for then in seen) else ()
        self.until = now - SLACK
        return changes

    def waiting(self) -> list[_Change]:
        """What is still to be told of, oldest first."""
        changes = []
        for name, path in list(self.untold.items()):
            try:
                found = os.stat(path, follow_symlinks=False)
                changes.append(_Change(self, name, found.st_mtime_ns, found.st_ctime_ns))
            except OSError:
                continue  # it went on
        return sorted(changes, key=lambda change: change.changed)


class _Memory:
    """What one plugin was told, and what it would not take. The notes are for the next owner of the spool alone."""

    def __init__(self, paths: Mapping[str, tuple[Path, ...]], notes: Path) -> None:
        self.under_way: set[str] = set()  # messages whose beginning was told, and not yet their end
        self.failures: dict[str, int] = {}  # how often a message was refused or could not be read
        self._notes = notes
