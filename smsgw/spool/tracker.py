"""What became of messages, found in the folders and told to one plugin, in the process that owns the spool.

Each plugin has a tracker and a thread of its own, so one that is slow or fails holds up nobody else. A file is told of
once for each time that it was written: its name and ``mtime`` say so, and neither ``chmod`` nor a clock set back
matters. After a restart, when names are forgotten, ``ctime`` counts: what is older than the notes was told, but for the
names in them. So all is told at least once; again only what came right before the notes, or was touched since them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from smsgw.logs import indented
from smsgw.model import Accepted, Cancelled, Event, Failed, Received, Sent, StoredMessage
from smsgw.spool import file
from smsgw.spool.folders import Folders
from smsgw.spool.index import is_message
from smsgw.spool.layout import Layout

PERIOD, LONGEST = 0.5, 10.0  # seconds between two looks: ten times what the last one took, within these
RETRY = 5.0  # seconds until a plugin that failed is told again
SLACK = 2_000_000_000  # nanoseconds by which a file's time may lie before the moment that it can be seen
TICK = 100_000_000  # nanoseconds within which a folder can change and still show the same time
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
        self._paths["outgoing"] += (layout.state / "cancelling",)  # what is being taken back is still under way
        self._paths["cancelled"] = (layout.state / "cancelled",)
        self._notes = layout.state / f"told.{name}"
        self._name = name
        self._tell = tell
        self._running = threading.Lock()  # a plugin can still be at it when the spool was lost and won again
        self._places: list[_Place] = []
        self._under_way: set[str] = set()  # messages of which the beginning was told, and not yet the end
        self._refused: dict[str, int] = {}  # messages that the plugin did not take, and how often
        self._broken: set[str] = set()  # what fails, and was logged

    def run(self, stop: threading.Event) -> None:
        """Look and tell until ``stop`` is set."""
        with self._running:
            self._load()
            pause = PERIOD
            while not stop.wait(pause):
                begun = time.thread_time()
                taken = all(stop.is_set() or self._tell_of(batch) for batch in self._batches(self._look()))
                pause = min(max(PERIOD, 10 * (time.thread_time() - begun)), LONGEST) if taken else RETRY
            self._save()

    def _look(self) -> list[_Change]:
        """All that waits, in the order of the folders."""
        changed, waiting = False, list[_Change]()
        for place in self._places:
            with self._trying(place.kind):
                changed |= place.look()
                waiting += place.changes()
        if changed:
            self._under_way = set(filter(self._is_there, self._under_way))
            self._refused = {name: count for name, count in self._refused.items() if self._is_there(name)}
            self._broken = {what for what in self._broken if "/" not in what or self._is_there(what.partition("/")[2])}
            self._save()
        return waiting

    def _is_there(self, name: str) -> bool:
        return any(name in place.told or name in place.untold for place in self._places)

    def _batches(self, waiting: list[_Change]) -> Iterator[list[_Change]]:
        """In order for each message; what was refused comes last, and each time in smaller batches."""
        refusals = {change.name: self._refused.get(change.name, 0) for change in waiting}
        waiting.sort(key=lambda change: refusals[change.name])
        for times, group in itertools.groupby(waiting, lambda change: refusals[change.name]):
            while batch := list(itertools.islice(group, max(MOST >> times, 1))):
                yield batch

    def _tell_of(self, batch: Sequence[_Change]) -> bool:
        """Tell of those that can be read now; false where the plugin did not take it."""
        under_way, told, events = set(self._under_way), list[_Change](), list[Event]()
        for change in batch:
            message = self._read(change.place.kind, change.name)
            if message is None:
                continue
            told.append(change)
            event, at = EVENTS[change.place.kind], datetime.fromtimestamp(change.moved / 1e9, UTC)
            if event is not Received and change.name not in under_way:
                under_way.add(change.name)
                events.append(Accepted(message, at))
            if event is not Accepted:
                under_way.discard(change.name)
                events.append(event(message, at))
        try:
            if events:
                self._tell(events)
        except Exception as error:
            log.error("the plugin %r failed to take events; it is told again%s", self._name, indented(error))
            self._refused |= {change.name: self._refused.get(change.name, 0) + 1 for change in told}
            return False
        self._under_way = under_way
        for place, name, written, _ in told:
            place.told[name] = written
            place.untold.discard(name)
            self._refused.pop(name, None)
        if told:
            self._save()
        return True

    def _read(self, kind: str, name: str) -> StoredMessage | None:
        """That message, where it can be told of now: smsd may be at it."""
        with self._trying(f"{kind}/{name}"), contextlib.suppress(FileNotFoundError):
            if kind != "cancelled":
                return self._folders.find(kind, name)
            parsed = file.parse(file.read(self._paths[kind][0] / name)[0])
            return StoredMessage(kind, name, parsed.headers, parsed.text, parsed.headers.get("From"))
        return None

    def _load(self) -> None:
        """A plugin that is new hears of what comes from now on; notes from the future are from now."""
        now = time.time_ns() - SLACK
        try:
            notes = json.loads(self._notes.read_text())
            known = {kind: (min(int(until), now), set(names)) for kind, (until, names) in notes.items()}
        except (FileNotFoundError, IsADirectoryError, ValueError, TypeError, AttributeError):
            known = {}
        self._under_way, self._refused = set(), {}
        self._places = [_Place(kind, paths, *known.get(kind, (now, set()))) for kind, paths in self._paths.items()]
        self._save()

    def _save(self) -> None:
        """For the next start alone: where it fails, nothing is told again before that."""
        with self._trying("notes"):
            fresh = Path(f"{self._notes}.new")
            fresh.write_text(json.dumps({place.kind: (place.until, list(place.untold)) for place in self._places}))
            fresh.rename(self._notes)

    @contextlib.contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        """What fails is logged once, and tried again at the next look; it holds up nothing else."""
        try:
            yield
            self._broken.discard(what)
        except Exception as error:
            if what not in self._broken:
                log.error("telling the plugin %r: %s: %s; it is tried again", self._name, what, error)
            self._broken.add(what)


class _Change(NamedTuple):
    """A file to tell of; when it was written, and when it was moved to its place (ns)."""

    place: _Place
    name: str
    written: int
    moved: int


class _Place:
    """The folders of one kind: the files in them that were told of, by when they were written, and the others.

    :param until: what came before that time (ns) was told of, but for the ``untold``.
    """

    def __init__(self, kind: str, paths: Sequence[Path], until: int, untold: set[str]) -> None:
        self.kind, self.until, self.untold = kind, until, untold
        self.told: dict[str, int] = {}
        self._paths = paths
        self._seen: tuple[int, ...] | None = None

    def look(self) -> bool:
        """Find what is new; false, and cheap, where there is nothing to note: nothing came or went since the last look.

        A clock that was set back is to be noted as well: notes from the future would hide what comes.
        """
        now = time.time_ns()
        seen = tuple(map(_modified, self._paths))
        if changed := seen != self._seen:
            found = {change.name: change for change in self._files()}
            if self._seen is None:
                known = found.keys() - self.untold
                self.told = {name: found[name].written for name in known if found[name].moved <= self.until}
            self.told = {name: written for name, written in self.told.items() if name in found}
            self.untold = {name for name, change in found.items() if self.told.get(name) != change.written}
            self._seen = seen if all(abs(now - then) > TICK for then in seen) else ()
        self.until, before = now - SLACK, self.until
        return changed or self.until < before

    def changes(self) -> list[_Change]:
        """What is still to be told of, in the order in which it came."""
        return sorted(self._files(self.untold), key=attrgetter("moved"))

    def _files(self, names: Iterable[str] | None = None) -> Iterator[_Change]:
        """The files of those names, or of all messages; neither links nor folders."""
        for folder in filter(_modified, self._paths):
            for name in filter(is_message, os.listdir(folder)) if names is None else names:
                with contextlib.suppress(FileNotFoundError):  # it went on
                    found = os.stat(f"{folder}/{name}", follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        yield _Change(self, name, found.st_mtime_ns, found.st_ctime_ns)


def _modified(folder: Path) -> int:
    """Zero where there is none: smsd keeps some kinds only where it is told to."""
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0
