"""Reads what comes and goes in smsd's folders, once, and tells the journal; in the process that owns the spool.

What is in a folder and not in the journal is new. The kernel tells which names changed; at the start, and where it
cannot tell, the folders are compared with the journal whole. A file that smsd is still writing, or that cannot be read,
is looked at again, and holds up no other.

What was in a folder before the gateway ran for the first time is no news. The journal keeps when that was, until it has
all of the folder: so a first look can be interrupted, and nothing that comes meanwhile is missed.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from smsgw.journal.journal import Journal
from smsgw.journal.writing import Found
from smsgw.model import Unavailable
from smsgw.spool.file import is_message
from smsgw.spool.following import reports
from smsgw.spool.following.reader import ENDED, UNDER_WAY, Reader, modified, written
from smsgw.spool.following.watch import Watch

PERIOD, LONGEST = 0.25, 10.0  # seconds between two looks where the kernel cannot tell of changes, and where it can
REST = 0.1  # seconds for which requests have the process to themselves after a look, at most: twice what it took
RETRY = 5.0  # seconds until a journal that is out of service is tried again
SOON = 0.1  # seconds until a file that cannot be read yet is looked at again; the longer, the older it is
PATIENCE = 1.0  # of these seconds, for which it counts as one that is still to come
MOST = 500  # files in one transaction
TICK = 20_000_000  # nanoseconds in which a folder can change twice and show the same time

Name = tuple[str, str]  # the kind of a file, and its name

log = logging.getLogger(__name__)


class Follower:
    """Follows one spool.

    :param plugins: those that are told of events, to be known to the journal before the first.
    :param wants_accepted: whether one of them hears of messages that are under way.
    :param tell: called when there are new events.
    """

    def __init__(
        self,
        reader: Reader,
        journal: Journal,
        plugins: Sequence[str] = (),
        *,
        wants_accepted: bool = False,
        tell: Callable[[], object] = lambda: None,
    ) -> None:
        self._reader = reader
        self._journal = journal
        self._plugins = plugins
        self._tell = tell
        self._kinds = (*(UNDER_WAY if wants_accepted else ()), *ENDED)
        self._places = {folder: kind for kind in self._kinds for folder in reader.places(kind)}
        self._running = threading.Lock()  # a thread can still be at it when the spool was lost and won again
        self._watch = Watch()
        self._since = time.time_ns()  # what comes from now on is news
        self._is_begun = False
        self._broken: set[str] = set()  # what fails, and was logged
        self._forget()

    def _forget(self) -> None:
        """Begin anew: the next look compares all folders with the journal."""
        self._watch.close()
        self._is_known = False  # whether the journal knows of the spool and the plugins
        self._due: dict[Name, float] = {}  # names that are to be looked at, and when
        self._whole: dict[str, None] = {}  # kinds of which all folders are to be looked at
        self._standing: dict[Path, int] = {}  # of each folder, the time (ns) up to which it was seen
        self._begun: dict[Path, int] = {}  # since when what comes there is news (ns)
        self._seen: dict[Path, int] = {}  # what the journal has of ``_standing``; none, where it never had all
        self._is_settled = True  # whether no folder has just changed

    def begin(self) -> None:
        """Let what happens from now on be news. Called before the first request, where nobody owns the spool."""
        with self._trying("the journal"):
            self._see()
            self._begin()
            self._is_begun = True

    def _begin(self) -> None:
        known = self._journal.begin(self._plugins, self._places, self._since)
        self._begun = {Path(folder): each.begun for folder, each in known.items()}
        self._seen = {Path(folder): each.seen for folder, each in known.items() if each.seen is not None}
        self._is_known = True

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
                stop.wait(min(2 * (time.thread_time() - begun), REST))
                self._watch.wait(pause, stop)
            self._forget()

    def look(self, stop: threading.Event) -> float:
        """Tell the journal all that is new; in how many seconds to look again, if nothing happens before.

        :raises Unavailable: the journal is out of service; all is looked at again the next time.
        """
        try:
            if self._journal.database.heal() or not self._journal.seen().keys() >= set(map(str, self._seen)):
                self._forget()  # another one begins
                self._since = time.time_ns()
            if not self._is_known:
                self._begin()
            self._see()
            for kind in self._kinds:
                if kind in self._whole:
                    with self._trying(kind):
                        self._look_through(kind, stop)
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
        self._begin()
        for kind in ENDED:
            for names in self._names_in_journal(kind):
                known = self._journal.known([kind], names)
                found = list[Found]()
                for name in names:
                    if (there := self._reader.find(kind, name)) is not None:
                        with self._trying(f"{kind}/{name}"):
                            read = self._reader.read(kind, there[0] / name, is_news=False)
                            found += [read] if read is not None and known.get((kind, name)) == read.written else []
                self._put(found, [])
                tell(len(names))

    def _see(self) -> None:
        """Find out from the kernel what changed."""
        now, self._is_settled = time.time_ns(), True
        for folder in self._places:
            changed = modified(folder)
            # A folder that changed a moment ago can change again and show the same time: it is asked again.
            is_settled = abs(now - changed) > TICK
            self._standing[folder] = changed if is_settled else changed - 1
            self._is_settled &= is_settled
        queued = self._reader.queued() if "outgoing" in self._kinds else []
        for folder, names in self._watch.news([*self._places, *queued]).items():
            if folder not in self._places:
                found = self._reader.names_in(folder) if names is None else names
                self._due |= {("outgoing", name): 0.0 for name in found}
            elif names is None:
                self._whole[self._places[folder]] = None
            else:
                for name in names:
                    self._due[self._places[folder], name.removesuffix(".LOCK")] = 0.0

    def _look_through(self, kind: str, stop: threading.Event) -> None:
        """Compare all files of a kind with the journal, and take in those that it does not have.

        :raises OSError: a folder cannot be read.
        """
        # A message that moves on meanwhile comes before its report, and no report before one that was there before.
        before = self._kinds[: self._kinds.index(kind) + (kind not in reports.KINDS)]
        for some in _steps(self._by_time(kind, self._reader.names(kind))):
            self._see()
            self._take_due(stop, before)
            if stop.is_set():
                return
            self._take([(kind, name) for name in some])
        for names in self._names_in_journal(kind):
            if gone := [(kind, name) for name in names if self._reader.find(kind, name) is None]:
                self._put([], gone)
        self._whole.pop(kind, None)

    def _by_time(self, kind: str, names: Iterable[str]) -> Iterable[str]:
        """Names of status reports in the order in which these were written: of two about a message the first counts.

        Other names come in any order, so that a folder of any size needs no memory.
        """
        if kind not in reports.KINDS:
            return names
        return [name for _, name in sorted((self._reader.written(kind, name) or 0, name) for name in names)]

    def _names_in_journal(self, kind: str) -> Iterator[Sequence[str]]:
        after = ""
        while names := self._journal.names(kind, after, MOST):
            yield names
            after = names[-1]

    def _take_due(self, stop: threading.Event, kinds: Sequence[str]) -> None:
        """Take in the files of those kinds whose time has come, and let the journal know up to when all was seen."""
        now = time.monotonic()
        due = [each for each, at in self._due.items() if at <= now and each[0] in kinds]
        for names in _steps(sorted(due, key=self._order)):
            if stop.is_set():
                return
            for name in names:
                del self._due[name]
            self._take([name for name in names if is_message(name[1])], is_told=True)
        # What cannot be read for long holds up no search.
        late = {kind for (kind, _), at in self._due.items() if at < now + PATIENCE}.union(self._whole)
        seen = {folder: time for folder, time in self._standing.items() if self._places[folder] not in late}
        if fresh := {folder: time for folder, time in seen.items() if self._seen.get(folder) != time}:
            self._journal.put([], [], {str(folder): time for folder, time in fresh.items()})
            self._seen |= fresh

    def _take(self, names: Sequence[Name], *, is_told: bool = False) -> None:
        """Tell the journal of these files, as they are now.

        :param is_told: whether the kernel told of them, so that they are news in any case.
        """
        known = self._journal.known({kind for kind, _ in names}, [name for _, name in names]) if names else {}
        found, gone = list[Found](), list[Name]()
        for each in names:
            there = self._reader.find(*each)
            if there is None:
                self._broken.discard("/".join(each))
                gone += [each] if each in known else []
                continue
            folder, status = there
            if known.get(each) == written(status):
                continue
            place = folder if folder in self._places else folder.parent
            is_news = is_told or place in self._seen or status.st_ctime_ns > self._begun.get(place, 0)
            with self._trying("/".join(each)):
                read = self._reader.read(each[0], folder / each[1], is_news=is_news)
                if read is not None:
                    found.append(read)
                    continue
            age = max(time.time() - status.st_ctime, 0.0)
            self._due[each] = time.monotonic() + min(max(SOON, age / 4), LONGEST)
        self._put(found, gone)

    def _put(self, found: Sequence[Found], gone: Sequence[Name]) -> None:
        in_order = sorted(found, key=lambda each: (self._kinds.index(each.kind), each.at))
        if (found or gone) and self._journal.put(in_order, gone, {}, self._is_there):
            self._tell()

    def _order(self, each: Name) -> tuple[int, int]:
        """Kinds as a message passes them; of status reports the one that was written first."""
        return self._kinds.index(each[0]), (self._reader.written(*each) or 0) if each[0] in reports.KINDS else 0

    def _is_there(self, found: Found) -> bool:
        """Whether nobody deleted that file since it was read."""
        return self._reader.written(found.kind, found.name) == found.written

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


def _steps(names: Iterable[str] | Iterable[Name]) -> Iterator[list]:  # type: ignore[type-arg]
    found = iter(names)
    while some := list(itertools.islice(found, MOST)):
        yield some
