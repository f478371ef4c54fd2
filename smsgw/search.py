"""Messages that are looked for: in what plugins remember, where they do, else in the folders. Called by the mailbox.

The spool stays the truth: a message is shown as its file says, while there is one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pluggy

from smsgw.model import Place, Query, Remembered, StatusReport, StoredMessage, Unavailable
from smsgw.numbers import e164, from_spool
from smsgw.plugins import ask, implementations
from smsgw.resources import status
from smsgw.spool.file import REFERENCE
from smsgw.spool.folders import Folders
from smsgw.spool.index import is_message
from smsgw.spool.reports import parts_of

SEARCHED = 1000  # messages that are looked at for one page
SELDOM = 60.0  # seconds between two complaints of the same
FOREVER = 2**63

# Where messages of a status are, in the order in which they move.
FOLDERS: dict[str, tuple[str, ...]] = {
    "scheduled": ("scheduled",),
    "queued": ("outgoing", "cancelling"),
    "sending": ("checked",),
    "sent": ("sent",),
    "delivered": ("sent",),
    "undelivered": ("sent",),
    "failed": ("failed",),
    "cancelled": ("cancelled",),
    "received": ("incoming",),
}
*SENT, RECEIVED = FOLDERS
KINDS = tuple(dict.fromkeys(itertools.chain(*FOLDERS.values())))
UNDER_WAY = ("scheduled", "outgoing", "cancelling", "checked")  # they are to be elsewhere

Known = tuple[StoredMessage, StatusReport | None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Places of messages that may be on a page, newest first, and the messages there, each read when it is asked for.

    ``None`` is one that is gone. ``rest`` is the place after which there may be more; ``None``: there are none.
    """

    places: Sequence[Place]
    known: Iterator[Known | None]
    rest: Place | None


class Memory:
    """What the plugins of one application remember of messages; shared by all threads."""

    def __init__(self, hook: pluggy.HookRelay) -> None:
        self._hook = hook
        self._keepers = implementations(hook.forget_message)
        self._complained = -SELDOM

    @property
    def is_empty(self) -> bool:
        """Whether no plugin remembers any."""
        return not self._hook.find_messages.get_hookimpls()

    def find(self, query: Query) -> Sequence[Remembered] | None:
        """What is remembered; ``None``: nobody does, or not now."""
        try:
            found: Sequence[Remembered] | None = self._hook.find_messages(query=query)
        except Unavailable as error:
            if time.monotonic() > self._complained + SELDOM:
                self._complained = time.monotonic()
                log.warning("%s (%s); messages are looked for in the folders", error.detail, error.__cause__)
            return None
        return found

    def message(self, id: str, *statuses: str) -> StoredMessage | None:
        found = self.find(Query(statuses, ids=(id,))) if is_message(id) else None
        return next((each.message for each in found or ()), None)

    @contextlib.contextmanager
    def forgetting(self, message: StoredMessage) -> Iterator[None]:
        """Within the block, and from then on, nobody remembers that message; all do again where the block raises.

        :raises Unavailable: a plugin cannot do so now.
        """
        with contextlib.ExitStack() as undo:
            for keeper in self._keepers:
                if (restore := ask(keeper, {"message": message})) is not None:
                    undo.callback(restore)
            yield
            undo.pop_all()


class Search:
    """Looks for messages of one spool; shared by all threads."""

    def __init__(self, folders: Folders, memory: Memory) -> None:
        self._folders = folders
        self._memory = memory

    def fate(self, message: StoredMessage) -> StatusReport | None:
        """The status report that says finally what became of a message; ``None``: none does."""
        if message.kind != "sent" or not parts_of(message.headers):
            return None
        remembered = self._memory.find(Query(tuple(SENT), ids=(message.id,)))
        # It may be forgotten, and its files still be there; what has just come is not remembered yet.
        if remembered is None or not (remembered or message.id in self._folders.arrivals.names()):
            return self._folders.fate(message)
        return next((each.report for each in remembered), None)

    def candidates(self, query: Query) -> Candidates:
        """What is to be looked at for a page.

        :raises SpoolUnavailable: nobody can know.
        """
        if self._memory.is_empty:
            return self._in_folders(query)
        # What is under way, or was a moment ago, may not be remembered yet, or as it was; for it alone the folders are
        # asked, and first, so that none is missed that moves on meanwhile.
        under_way, untold = self._places(query, UNDER_WAY), self._untold(query)
        remembered = self._memory.find(query)
        if remembered is None:
            return self._in_folders(query)
        known = {each.message.id: each for each in remembered}
        last = remembered[-1].place if len(remembered) >= query.limit else None
        rest = max(filter(None, (_rest(under_way), last)), default=None)
        elsewhere = {place[1] for _, place in (*under_way, *untold)}
        kinds = {each.place: each.message.kind for each in remembered if each.message.id not in elsewhere}
        kinds |= {place: kind for kind, place in (*under_way, *untold)}
        wanted = [place for place in sorted(kinds, reverse=True) if rest is None or place >= rest]
        return Candidates(wanted, (self._recall(kinds[place], place, known.get(place[1])) for place in wanted), rest)

    def _in_folders(self, query: Query) -> Candidates:
        places = self._places(query)
        return Candidates([place for _, place in places], self._read(places, max(query.limit, 50)), _rest(places))

    def _untold(self, query: Query) -> Sequence[tuple[str, Place]]:
        """Where messages are that came to their end a moment ago, and that no plugin has heard of yet."""
        kinds = {kind for name in query.statuses for kind in FOLDERS[name]}
        came = {name: kind for name, kind in self._folders.arrivals.names().items() if kind in kinds}
        if not came:
            return []
        statuses = (RECEIVED,) if "incoming" in kinds else tuple(SENT)
        told = self._memory.find(Query(statuses, ids=tuple(came), limit=len(came))) or ()
        told_of = {each.message.id for each in told if each.message.kind == came[each.message.id]}
        self._folders.arrivals.forget(told_of)
        found = [(kind, self._folders.place(kind, name)) for name, kind in came.items() if name not in told_of]
        until = query.before or (FOREVER, "")
        return [(kind, place) for kind, place in found if place and (query.since, "") <= place < until]

    def _places(self, query: Query, among: Sequence[str] | None = None) -> Sequence[tuple[str, Place]]:
        """Where messages of those statuses were found, newest first."""
        kinds = {kind for name in query.statuses for kind in FOLDERS[name]}.intersection(
            KINDS if among is None else among
        )
        wanted = [kind for kind in KINDS if kind in kinds]
        return self._folders.newest(wanted, query.owner, query.before, query.since, SEARCHED)

    def _read(self, places: Sequence[tuple[str, Place]], size: int) -> Iterator[Known | None]:
        """So many at once, since looking at the folders for status reports takes its time."""
        for begin in range(0, len(places), size):
            messages = [self._at(kind, place[1]) for kind, place in places[begin : begin + size]]
            fates = self._folders.fates(filter(None, messages))
            for message in messages:
                yield (message, fates.get(message.id)) if message else None

    def _recall(self, kind: str, place: Place, known: Remembered | None) -> Known | None:
        """A message as it stands, or, where its file is gone, as it is remembered."""
        is_settled = known is not None and known.message.kind == kind and kind not in UNDER_WAY
        message = self._folders.find(kind, place[1]) if is_settled else self._at(kind, place[1])
        message = message or (known.message if known else None)
        fate = known.report if known and message and message.kind == "sent" else None
        return (message, fate) if message else None

    def _at(self, kind: str, id: str) -> StoredMessage | None:
        """The message that was found there, also where it moved on since; a status report is none."""
        message = self._folders.find(kind, id)
        if kind == "incoming":
            return None if message is None or self._folders.is_report(message) else message
        return self._folders.locate(id) if message is None else message


def matches(query: Query, message: StoredMessage, fate: StatusReport | None) -> bool:
    """Whether a message as it stands is what was looked for."""
    headers = message.headers
    return (
        (RECEIVED if message.kind == "incoming" else status(message, fate)) in query.statuses
        and query.owner in (None, message.owner)
        and query.to in (None, from_spool(headers.get("To", "")))
        and query.sender in (None, e164(headers.get("From", "")))
        and query.reference in (None, headers.get(REFERENCE))
    )


def _rest(places: Sequence[tuple[str, Place]]) -> Place | None:
    return places[-1][1] if len(places) == SEARCHED else None
