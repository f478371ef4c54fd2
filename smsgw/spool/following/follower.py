"""Reads what comes and goes in smsd's folders, once, and tells the journal; in the process that owns the spool.

What is in a folder and not in the journal is new: no clock decides that. The kernel tells which names changed; at the
start, and where it cannot tell, the folders are compared with the journal whole. A file that smsd is still writing, or
that cannot be read, is looked at again, and holds up no other.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from smsgw.ids import began
from smsgw.journal.journal import Journal
from smsgw.journal.writing import Found
from smsgw.model import StoredMessage, Unavailable
from smsgw.spool import file
from smsgw.spool.file import is_message
from smsgw.spool.folders import Folders
from smsgw.spool.following import reports
from smsgw.spool.following.watch import Watch
from smsgw.spool.layout import OWNED, Layout

PERIOD, LONGEST = 0.25, 10.0  # seconds between two looks where the kernel cannot tell of changes, and where it can
REST = 1.0  # seconds for which requests have the process to themselves after a look, at most: ten times what it took
RETRY = 5.0  # seconds until a journal that is out of service is tried again
SOON = 0.1  # seconds until a file that cannot be read yet is looked at again; the longer, the older it is
PATIENCE = 1.0  # of these seconds, for which it counts as one that is still to come
MOST = 250  # files in one transaction
LATEST = 2**63 - 1
TICK = 20_000_000  # nanoseconds in which a folder can change twice and show the same time

# In the order in which a message passes them, so that one look cannot miss a message that moves on meanwhile.
UNDER_WAY = ("outgoing", "checked")
ENDED = ("cancelled", "sent", "failed", "incoming", "report")

Name = tuple[str, str]  # the kind of a file, and its name

log = logging.getLogger(__name__)


class Follower:
    """Follows one spool.

    :param prefix: how our own message ids begin.
    :param plugins: those that are told of events, to be known to the journal before the first.
    :param wants_accepted: whether one of them hears of messages that are under way.
    :param tell: called when there are new events.
    """

    def __init__(
        self,
        layout: Layout,
        folders: Folders,
        journal: Journal,
        prefix: str,
        plugins: Sequence[str] = (),
        *,
        wants_accepted: bool = False,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self._layout = layout
        self._folders = folders
        self._journal = journal
        self._prefix = prefix
        self._plugins = plugins
        self._tell = tell
        self._kinds = (*(UNDER_WAY if wants_accepted else ()), *ENDED)
        self._paths = {kind: paths_of(kind, layout) for kind in self._kinds}
        self._running = threading.Lock()  # a thread can still be at it when the spool was lost and won again
        self._watch = Watch()
        self._is_begun = False
        self._broken: set[str] = set()  # what fails, and was logged
        self._forget()

    def _forget(self) -> None:
        """Begin anew: the next look compares all folders with the journal."""
        self._watch.close()
        self._is_known = False  # whether the journal knows of the spool and the plugins
        self._due: dict[Name, float] = {}  # names that are to be looked at, and when
        self._whole: dict[str, None] = {}  # kinds of which all folders are to be looked at
        self._standing: dict[str, int] = {}  # of each folder, the time (ns) up to which it was seen
        self._noted: dict[str, int] = {}  # and what the journal has of that; none, where it never saw the folder
        self._is_settled = True  # whether no folder has just changed

    def begin(self) -> None:
        """Let what happens from now on be news. Called before the first request, where nobody owns the spool."""
        with self._trying("the journal"):
            self._see()
            self._noted = self._journal.begin(self._plugins)
            self._is_begun = True

    def wake(self) -> None:
        """Look at once; it is time to stop, perhaps."""
        self._watch.wake()

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop`` is set, and ``wake`` called."""
        with self._running:
            if not self._is_begun:
                self._forget()
            self._is_begun = False
            while not stop.is_set():
                begun, pause = time.thread_time(), RETRY
                with self._trying("the journal"):
                    pause = self.look(stop)
                stop.wait(min(10 * (time.thread_time() - begun), REST))
                self._watch.wait(pause, stop)
            self._forget()

    def look(self, stop: threading.Event) -> float:
        """Tell the journal all that is new; in how many seconds to look again, if nothing happens before.

        :raises Unavailable: the journal is out of service; all is looked at again the next time.
        """
        try:
            is_new = self._journal.database.heal()
            if is_new or (self._noted and not self._journal.has_seen(self._noted)):
                self._forget()  # another one begins
            if not self._is_known:
                self._noted = self._journal.begin(self._plugins)
                self._is_known = True
            self._see()
            for kind in self._kinds:
                if kind in self._whole and not stop.is_set():
                    with self._trying(kind):
                        self._look_through(kind, stop)
                        self._whole.pop(kind, None)
            self._take_due(stop, self._kinds)
        except Unavailable:
            self._forget()
            raise
        return self._pause()

    def read_again(self, tell: Callable[[int], object]) -> None:
        """Read all files once more that the journal has, so that it knows of them what they say; none of it is news.

        Any process may do that, while another one follows: what came since, or is another file now, is left to it.

        :param tell: told how many were read, now and then.
        :raises Unavailable: the journal is out of service.
        """
        self._journal.begin(self._plugins)
        for kind in ENDED:
            after = ""
            while names := self._journal.names(kind, after, MOST):
                after = names[-1]
                known = self._journal.known([kind], names)
                found = list[Found]()
                for name in names:
                    with self._trying(f"{kind}/{name}"):
                        read = self._read(kind, name, is_news=False)
                        if read is not None and known.get((kind, name)) == read.written:
                            found.append(read)
                self._journal.put(self._in_order(found), [], {}, self._is_there)
                tell(len(names))

    def _see(self) -> None:
        """Find out from the kernel what changed."""
        now, self._is_settled = time.time_ns(), True
        for kind in self._kinds:
            for folder in self._places(kind):
                modified = _modified(folder)
                # A folder that changed a moment ago can change again and show the same time: it is asked again.
                is_settled = abs(now - modified) > TICK
                self._standing[str(folder)] = modified if is_settled else modified - 1
                self._is_settled &= is_settled
        places = {folder: kind for kind in self._kinds for folder in self._places(kind)}
        for folder, names in self._watch.news(places).items():
            if names is None:
                self._whole[places[folder]] = None
            else:
                for name in names:
                    self._due[places[folder], name.removesuffix(".LOCK")] = 0.0

    def _look_through(self, kind: str, stop: threading.Event) -> None:
        """Compare all files of a kind with the journal, and take in those that it does not have.

        What is there when the journal sees a folder for the first time is no news.

        :raises OSError: a folder cannot be read.
        """
        is_news = all(str(folder) in self._noted for folder in self._places(kind))
        for names in _steps(self._by_time(kind, self._names_of(kind))):
            if stop.is_set():
                return
            self._see()  # what the kernel told of since is news in any case
            # A message that moves on meanwhile comes before its report.
            self._take_due(stop, self._kinds[: self._kinds.index(kind) + 1])
            known = self._journal.known([kind], names)
            found = {name: self._stat(kind, name) for name in names}
            fresh = [name for name, status in found.items() if status and known.get((kind, name)) != _written(status)]
            self._take([(kind, name) for name in fresh], is_news=is_news)
        after = ""
        while names := self._journal.names(kind, after, MOST):
            after = names[-1]
            if gone := [(kind, name) for name in names if self._stat(kind, name) is None]:
                self._journal.put([], gone, {})

    def _by_time(self, kind: str, names: Iterable[str]) -> Iterable[str]:
        """Names of status reports in the order in which these were written: of two about a message the first counts.

        Other names come in any order, so that a folder of any size needs no memory.
        """
        if kind not in reports.KINDS:
            return names
        found = ((_written(status), name) for name in names if (status := self._stat(kind, name)))
        return [name for _, name in sorted(found)]

    def _names_of(self, kind: str) -> Iterator[str]:
        for folder in self._places(kind):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # smsd keeps some only if told
                for entry in entries:
                    if is_message(entry.name) and entry.is_file(follow_symlinks=False):
                        yield entry.name

    def _take_due(self, stop: threading.Event, kinds: Sequence[str]) -> None:
        """Take in the files of those kinds whose time has come, and let the journal know up to when all was seen."""
        now = time.monotonic()
        due = [each for each, at in self._due.items() if at <= now and each[0] in kinds]
        for names in _steps(sorted(due, key=self._order)):
            if stop.is_set():
                return
            for name in names:
                del self._due[name]
            self._take([name for name in names if is_message(name[1])], is_news=True)
        # What cannot be read for long holds up no search.
        late = {kind for (kind, _), at in self._due.items() if at < now + PATIENCE}.union(self._whole)
        waiting = {str(folder) for kind in late for folder in self._places(kind)}
        seen = {folder: time for folder, time in self._standing.items() if folder not in waiting}
        if fresh := {folder: time for folder, time in seen.items() if self._noted.get(folder) != time}:
            self._journal.put([], [], fresh)
            self._noted |= fresh

    def _take(self, names: Sequence[Name], *, is_news: bool) -> None:
        """Tell the journal of these files, as they are now."""
        if not names:
            return
        kinds = {kind for kind, _ in names}
        known = self._journal.known(kinds, [name for _, name in names])
        found, gone = list[Found](), list[Name]()
        for each in names:
            status = self._stat(*each)
            if status is None:
                self._broken.discard("/".join(each))
                gone += [each] if each in known else []
            elif known.get(each) != _written(status):
                was_told = is_news or each in self._due
                with self._trying("/".join(each)):
                    read = self._read(*each, is_news=was_told)
                    if read is not None:
                        found.append(read)
                        continue
                age = max(time.time() - status.st_ctime, 0.0)
                self._due[each] = time.monotonic() + min(max(SOON, age / 4), LONGEST)
        if (found or gone) and self._journal.put(self._in_order(found), gone, {}, self._is_there):
            self._tell()

    def _order(self, each: Name) -> tuple[int, int]:
        """Kinds as a message passes them; of status reports the one that was written first."""
        kind, _ = each
        status = self._stat(*each) if kind in reports.KINDS else None
        return self._kinds.index(kind), _written(status) if status else 0

    def _is_there(self, found: Found) -> bool:
        """Whether nobody deleted that file since it was read."""
        status = self._stat(found.kind, found.name)
        return status is not None and _written(status) == found.written

    def _in_order(self, found: Sequence[Found]) -> list[Found]:
        return sorted(found, key=lambda each: (self._kinds.index(each.kind), each.at))

    def _read(self, kind: str, name: str, *, is_news: bool) -> Found | None:
        """That file; ``None``: it is gone, or not all of it is there yet.

        :raises OSError: it cannot be read.
        """
        path = next((each / name for each in self._places(kind) if (each / name).exists()), None)
        if path is None:
            return None
        content, status = file.read(path)
        parsed = file.parse(content)
        if not self._folders.is_whole(kind, path, parsed, status):
            return None
        written = status.st_mtime_ns / 1e9
        owner = parsed.headers.get("From") if kind in (*OWNED, "cancelled") else None
        message = StoredMessage(kind, name, parsed.headers, parsed.text, owner)
        report = reports.parse(f"{kind}/{name}", message, written, self._layout.moment)
        sending = reports.sending_of(name, message, written, owner, self._layout.moment) if kind == "sent" else None
        ours = began(name, self._prefix) if kind not in reports.KINDS else None
        return Found(
            kind,
            name,
            _written(status),
            _written(status) // 1_000_000 if ours is None else ours,
            # A spool that was put back from a backup, or a new mode of a file, makes no news of what is old.
            datetime.fromtimestamp(min(max(min(status.st_mtime, status.st_ctime), 0.0), LATEST / 1e9), UTC),
            message,
            report,
            sending,
            ours is not None,
            is_news,
        )

    def _places(self, kind: str) -> Sequence[Path]:
        return self._paths[kind]

    def _stat(self, kind: str, name: str) -> os.stat_result | None:
        """A plain file of that name; ``None``: there is none."""
        for folder in self._places(kind):
            with contextlib.suppress(OSError, ValueError):
                found = os.stat(f"{folder}/{name}", follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    return found
        return None

    def _pause(self) -> float:
        now = time.monotonic()
        longest = RETRY if self._whole else LONGEST if self._watch.is_told else PERIOD
        soonest = min(self._due.values(), default=now + longest) - now
        return min(max(soonest, TICK / 1e9), longest if self._is_settled else TICK / 1e9)

    @contextlib.contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        """What fails is logged once, and tried again at the next look; it holds up nothing else."""
        try:
            yield
            self._broken.discard(what)
        except (Unavailable, OSError) as error:
            if what != "the journal" and isinstance(error, Unavailable):
                raise
            if what not in self._broken:
                log.error("following %s: %s (%s); it is tried again", what, error, error.__cause__)
            self._broken.add(what)


def paths_of(kind: str, layout: Layout) -> tuple[Path, ...]:
    """Where files of that kind are, in the order in which they move."""
    if kind == "cancelled":
        return (layout.state / "cancelled",)
    found = layout.folders[kind]
    if kind == "outgoing":
        return (layout.state / "scheduled", layout.state / "waiting", *found, layout.state / "cancelling")
    if kind == "report":  # smsd can be told to keep them among received messages
        received = [os.path.realpath(folder) for folder in layout.folders["incoming"]]
        return tuple(folder for folder in found if os.path.realpath(folder) not in received)
    return found


def followed(layout: Layout) -> list[Path]:
    """The folders in which messages come to their end."""
    return [folder for kind in ENDED for folder in paths_of(kind, layout)]


def _modified(folder: Path) -> int:
    """When something came into a folder, or left it (ns); 0: it is not there."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _written(status: os.stat_result) -> int:
    """When a file was written (ns), as far as a database takes it for a number."""
    return max(min(status.st_mtime_ns, LATEST), -LATEST)


def _steps(names: Iterable[str] | Iterable[Name]) -> Iterator[list]:  # type: ignore[type-arg]
    found = iter(names)
    while some := list(itertools.islice(found, MOST)):
        yield some
