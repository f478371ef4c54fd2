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
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from smsgw.logs import indented
from smsgw.model import Accepted, Cancelled, Delivered, Event, Failed, Received, Sent, StoredMessage, Undelivered
from smsgw.spool import file, reports
from smsgw.spool.folders import WAITING, Folders
from smsgw.spool.layout import Layout
from smsgw.spool.places import Change, Place
from smsgw.spool.reports import Report
from smsgw.spool.watch import Watch

PERIOD, LONGEST = 0.25, 10.0  # seconds between two looks where nothing happens: ten times what the last one took
REST = 1.0  # seconds for which requests have the process to themselves, at the most: ten times, likewise
RETRY = 5.0  # seconds until a plugin that failed is told again
ASSURED = 5.0  # seconds between two words on how far it was told of everything
SLACK = 2_000_000_000  # nanoseconds by which a file's time may lie before the moment that it can be seen
MOST = 250  # files told of at once; each makes one event or two

# In the order in which a message passes them, so that one look cannot miss a message that moves on meanwhile.
KINDS = ("outgoing", "checked", "cancelled", "sent", "failed", "incoming", "report")
BEGINNING = ("outgoing", "checked")  # where nothing but the beginning is told of
ENDS: dict[str, type[Event]] = {"cancelled": Cancelled, "sent": Sent, "failed": Failed}
EVENTS: tuple[type[Event], ...] = (Accepted, *ENDS.values(), Delivered, Undelivered, Received)

log = logging.getLogger(__name__)


class Tracker:
    """Follows the folders for one plugin.

    :param name: the plugin's; what it was told is remembered under it.
    :param tell: its ``notify``.
    :param hears: the events that it is told of. Where ``Accepted`` is none of them, nobody looks at what is on its way
        out, of which there is most.
    :param assure: its ``told_until``.
    """

    def __init__(
        self,
        layout: Layout,
        folders: Folders,
        name: str,
        tell: Callable[[Sequence[Event]], None],
        hears: Collection[type[Event]] = EVENTS,
        assure: Callable[[datetime | None], None] = lambda moment: None,
    ) -> None:
        self._folders = folders
        self._hears = frozenset(hears)
        self._paths = {kind: layout.folders.get(kind, ()) for kind in KINDS}
        # In the order in which a message passes them; what is being taken back is still under way.
        waiting = (layout.state / name for name in WAITING)
        self._paths["outgoing"] = (*waiting, *self._paths["outgoing"], layout.state / "cancelling")
        self._paths["cancelled"] = (layout.state / "cancelled",)
        for kind in BEGINNING if Accepted not in self._hears else ():
            del self._paths[kind]
        self._notes = layout.state / f"told.{name}"
        self.name = name
        self._tell = tell
        self._assure = assure
        self._running = threading.Lock()  # a plugin can still be at it when the spool was lost and won again
        self._watch = Watch()
        self._places: dict[str, Place] = {}
        self._gone: set[str] = set()  # what was in some folder no more at the last look
        self._under_way: set[str] = set()  # messages of which the beginning was told, and not yet the end
        self._refused: dict[str, int] = {}  # messages that the plugin did not take, and how often
        self._later: dict[tuple[str, str], float] = {}  # what could not be told of yet, and when to try it again
        self._broken: set[str] = set()  # what fails, and was logged
        self._is_news = False  # whether there is more to note than the notes have
        self._saved = self._assured = 0.0

    def run(self, stop: threading.Event) -> None:
        """Look and tell until ``stop`` is set."""
        with self._running, contextlib.closing(self._watch):
            self._load()
            while not (self.tell_until(None) or stop.wait(RETRY)):
                pass
            while not stop.is_set():
                begun, moment = time.thread_time(), datetime.now(UTC)
                waiting = self._look()
                is_taken = all(stop.is_set() or self._tell_and_note(batch) for batch in self._batches(waiting))
                self._note()
                is_whole = is_taken and not stop.is_set() and self._broken.isdisjoint(self._places)
                if is_whole and time.monotonic() > self._assured + ASSURED:
                    self.tell_until(moment)
                pause = 10 * (time.thread_time() - begun)
                if is_taken:
                    stop.wait(min(pause, REST))
                    self._watch.wait(min(max(PERIOD, pause), LONGEST), stop)
                else:
                    stop.wait(RETRY)
            self._save()

    def has_told(self, name: str) -> bool:
        """Whether the plugin was told of all files of that name; not, where nobody has looked at them yet."""
        places = self._places.values()
        return any(name in place.told for place in places) and not any(name in place.untold for place in places)

    def _look(self) -> list[Change]:
        """All that can be told of now, in the order of the folders."""
        now = time.time_ns()
        self._gone, gone = set(), self._gone
        news = self._watch.news(folder for place in self._places.values() for folder in place.paths)
        for place in self._places.values():
            with self._trying(place.kind):
                for folder in place.paths:
                    if folder in news:
                        self._look_into(place, folder, news[folder])
                        self._is_news = True
                # A clock that was set back is to be noted as well: notes from the future would hide what comes.
                self._is_news |= now - SLACK < place.until
                place.until = now - SLACK
        for name in gone:
            if not any(name in place for place in self._places.values()):
                self._under_way.discard(name)
                self._refused.pop(name, None)
        return [change for place in self._places.values() for change in place.changes(self._due(place))]

    def _look_into(self, place: Place, folder: Path, names: set[str] | None) -> None:
        try:
            gone = place.look(names)
        except OSError:
            self._watch.forget(folder)
            raise
        self._gone |= gone
        for name in gone:
            self._broken.discard(f"{place.kind}/{name}")
        for name in place.untold if names is None else names:
            self._later.pop((place.kind, name.removesuffix(".LOCK")), None)

    def _due(self, place: Place) -> list[str]:
        now = time.monotonic()
        self._later = {key: then for key, then in self._later.items() if then > now}
        return [name for name in place.untold if (place.kind, name) not in self._later]

    def _batches(self, waiting: list[Change]) -> Iterator[list[Change]]:
        """In order for each message; what was refused comes last, and each time in smaller batches."""
        refusals = {change.name: self._refused.get(change.name, 0) for change in waiting}
        waiting.sort(key=lambda change: refusals[change.name])
        for times, group in itertools.groupby(waiting, lambda change: refusals[change.name]):
            while batch := list(itertools.islice(group, max(MOST >> times, 1))):
                yield batch

    def _tell_and_note(self, batch: Sequence[Change]) -> bool:
        """Tell of those, and note it: a process that is killed over many of them is to get on all the same."""
        is_taken = self._tell_of(batch)
        self._note()
        return is_taken

    def tell_until(self, moment: datetime | None) -> bool:
        """Say that all of before then was told, ``None``: that nobody knows; false where the plugin did not take it."""
        what = "until when all was told"
        self._assured = 0.0 if moment is None else time.monotonic()
        with self._trying(what):
            self._assure(moment)
        return what not in self._broken

    def _tell_of(self, batch: Sequence[Change]) -> bool:
        """Tell of those that can be told of now; false where the plugin did not take it."""
        under_way, told, events = set(self._under_way), list[Change](), list[Event]()
        for change in batch:
            found = self._events(change, under_way, {f"{change.place.kind}/{change.name}" for change in told})
            if found is None:
                age = max(time.time() - change.moved / 1e9, 0)
                self._later[change.place.kind, change.name] = time.monotonic() + min(max(PERIOD, age / 4), LONGEST)
            else:
                told.append(change)
                events += found
        try:
            if events := [event for event in events if type(event) in self._hears]:
                self._tell(events)
        except Exception as error:
            log.error("the plugin %r failed to take events; it is told again%s", self.name, indented(error))
            self._refused |= {change.name: self._refused.get(change.name, 0) + 1 for change in told}
            return False
        self._under_way = under_way
        for place, name, written, _ in told:
            place.told[name] = written
            place.untold.discard(name)
            self._refused.pop(name, None)
            self._is_news = True
        return True

    def _events(self, change: Change, under_way: set[str], telling: set[str]) -> list[Event] | None:
        """What to tell of a file; ``None``: it cannot be told of yet.

        :param under_way: messages of which the beginning was told; kept up to date.
        :param telling: the files that are told of before this one, at the same time.
        """
        kind, name = change.place.kind, change.name
        message = self._read(kind, name)
        if message is None:
            return None
        # A spool that was put back from a backup, or a new mode of a file, makes no news of what is old.
        at = datetime.fromtimestamp(min(change.written, change.moved) / 1e9, UTC)
        if report := reports.parse(f"{kind}/{name}", message, change.written / 1e9, self._folders.moment):
            with self._trying(f"{kind}/{name}"):
                return self._fate(report, telling)
            return None
        if kind in ("incoming", "report"):
            return [Received(message, at)] if kind == "incoming" else []
        events: list[Event] = [] if name in under_way else [Accepted(message, at)]
        under_way.add(name)
        if end := ENDS.get(kind):
            under_way.discard(name)
            events.append(end(message, at))
        return events

    def _fate(self, report: Report, telling: set[str]) -> list[Event] | None:
        """What a report changes, given those that were told of before; nothing, where another one was the last word."""
        if not report.status.is_final:
            return []
        joined = self._folders.joined(report, lambda place: self._was_told(place, telling))
        if joined is None or any(known.reference == report.reference for known in joined.reports):
            # Nobody's, or one too many; or its message is still on the way to "sent".
            return [] if time.time() - report.status.at.timestamp() > reports.LATE else None
        if not self._was_told(f"sent/{joined.id}", telling) or self._is_ahead(report, telling):
            return None
        if joined.fate() or not joined.fate([*joined.reports, report]):
            return []
        message = self._read("sent", joined.id)
        if message is None:
            return None
        event = Delivered if report.status.is_delivered else Undelivered
        return [event(message, report.status.at, report.status)]

    def _is_ahead(self, report: Report, telling: set[str]) -> bool:
        """Whether another one came before it and is still to be told of, as where the plugin refused that one."""
        joined = self._folders.joined(report, bool)
        others = [known for known in joined.reports if known.status.place != report.status.place] if joined else []
        return any(known.came < report.came and not self._was_told(known.status.place, telling) for known in others)

    def _was_told(self, where: str, telling: set[str]) -> bool:
        kind, _, name = where.partition("/")
        place = self._places[kind]
        return where in telling or (name in place.told and name not in place.untold)

    def _read(self, kind: str, name: str) -> StoredMessage | None:
        """That message, where it can be told of now: smsd may be at it."""
        with self._trying(f"{kind}/{name}"), contextlib.suppress(FileNotFoundError):
            if kind == "cancelled":
                parsed = file.parse(file.read(self._paths[kind][0] / name)[0])
                return StoredMessage(kind, name, parsed.headers, parsed.text, parsed.headers.get("From"))
            if kind != "report":
                return self._folders.find(kind, name)
            if found := self._folders.read(kind, name):  # it is told of with its message, whose owner is the owner
                return StoredMessage(kind, name, found[0].headers, found[0].text, None)
        return None

    def _load(self) -> None:
        """A plugin that is new hears of what comes from now on; notes from the future are from now."""
        now = time.time_ns() - SLACK
        try:
            notes = json.loads(self._notes.read_text())
            known = {kind: (min(int(until), now), set(names)) for kind, (until, names) in notes.items()}
        except (FileNotFoundError, IsADirectoryError, ValueError, TypeError, AttributeError):
            known = {}
        self._under_way, self._refused, self._later = set(), {}, {}
        self._places = {kind: Place(kind, paths, *known.get(kind, (now, set()))) for kind, paths in self._paths.items()}
        self._save()

    def _note(self) -> None:
        """Save the notes now and then."""
        if self._is_news and time.monotonic() > self._saved + PERIOD:
            self._save()

    def _save(self) -> None:
        """For the next start alone: what is newer than the notes is told again then."""
        self._is_news, self._saved = False, time.monotonic()
        with self._trying("notes"):
            fresh = Path(f"{self._notes}.new")
            notes = {place.kind: (place.until, list(place.untold)) for place in self._places.values()}
            with open(fresh, "w", opener=_private) as notes_file:
                notes_file.write(json.dumps(notes))
            fresh.rename(self._notes)

    @contextlib.contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        """What fails is logged once, and tried again at the next look; it holds up nothing else."""
        try:
            yield
            self._broken.discard(what)
        except Exception as error:
            if what not in self._broken:
                log.error("telling the plugin %r: %s: %s; it is tried again", self.name, what, error)
            self._broken.add(what)


def _private(path: str, flags: int) -> int:
    """Opens a file that nobody else can read, where it is made."""
    return os.open(path, flags, 0o600)
