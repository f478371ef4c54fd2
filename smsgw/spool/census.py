"""Everything in the spool, read once: for plugins that come late, or have lost what they knew. Public.

``config.registry.census`` is that of the gateway's spool.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from smsgw.model import (
    Accepted,
    Cancelled,
    Delivered,
    Event,
    Failed,
    Received,
    Sent,
    StatusReport,
    StoredMessage,
    Undelivered,
)
from smsgw.spool import file, reports
from smsgw.spool.folders import Folders
from smsgw.spool.index import SETTLED, is_message
from smsgw.spool.reports import Report, Reports
from smsgw.spool.tracker import Tracker

# In the order in which a message passes them, so that none is missed that moves on meanwhile.
EVENTS: dict[str, type[Event]] = {
    "outgoing": Accepted,
    "cancelling": Accepted,
    "checked": Accepted,
    "cancelled": Cancelled,
    "sent": Sent,
    "failed": Failed,
    "incoming": Received,
}
COPIED = ("checked", "sent", "failed")  # where smsd copies files to, under locks


class Census:
    """Reads a spool; each call begins anew."""

    def __init__(self, folders: Folders, trackers: Sequence[Tracker]) -> None:
        self._folders = folders
        self._trackers = trackers

    def events(self) -> Iterator[Event]:
        """What became of each message, as far as its files say: how it stands, then what status reports say finally.

        :raises OSError: a folder cannot be read. A file that cannot be is left out.
        """
        known = Reports(self._folders.moment)
        for kind in (*EVENTS, "report"):
            for path in self.files(kind):
                if (found := _read(kind, path)) is None:
                    continue
                message, written, moved = found
                place = f"{kind}/{message.id}"
                if kind in reports.KINDS and known.add(place, message, written):
                    continue
                if kind == "sent":
                    known.add_sent(message.id, message, written, message.owner)
                if kind in EVENTS:
                    yield EVENTS[kind](message, datetime.fromtimestamp(moved, UTC))
        for id, fate in known.fates():
            if (sent := self._folders.find("sent", id)) is not None:
                yield _told_of(sent, fate)

    def events_of(self, message: StoredMessage) -> Iterator[Event]:
        """The same of one message that is in its folder."""
        yield EVENTS[message.kind](message, datetime.now(UTC))
        if (fate := self._folders.fate(message)) is not None:
            yield _told_of(message, fate)

    def is_report(self, path: str) -> bool:
        """Whether that file of ``incoming`` is a status report."""
        return self._report("incoming", path) is not None

    def files(self, kind: str) -> Iterator[str]:
        """The paths of plain files with names of messages, in no order; links are none.

        Where smsd keeps reports in ``incoming``, they are there, and no others.
        """
        folders = self._folders.places(kind)
        if kind == "report":
            incoming = [os.path.realpath(folder) for folder in self._folders.places("incoming")]
            folders = tuple(folder for folder in folders if os.path.realpath(folder) not in incoming)
        for folder in folders:
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # smsd keeps some only if told
                for entry in entries:
                    if is_message(entry.name) and entry.is_file(follow_symlinks=False):
                        yield entry.path

    def told(self) -> Callable[[str], bool]:
        """Asked by a file's name: whether all plugins were told of it by now, and of what is reported of its message.

        :raises OSError: nobody can know.
        """
        needed = set[str]()
        for kind in reports.KINDS:
            for path in self.files(kind):
                report = None if self._has_told(os.path.basename(path)) else self._report(kind, path)
                if report and (joined := self._folders.joined(report, bool)):
                    needed.add(joined.id)
                    needed.update(os.path.basename(each.status.place) for each in joined.reports)
        return lambda name: name not in needed and self._has_told(name)

    def _report(self, kind: str, path: str) -> Report | None:
        """The status report that a file is; ``None``: it is none, or not there."""
        found = _read(kind, path)
        return found and reports.parse(f"{kind}/{found[0].id}", found[0], found[1], self._folders.moment)

    def _has_told(self, name: str) -> bool:
        return all(tracker.has_told(name) for tracker in self._trackers)


def _told_of(sent: StoredMessage, fate: StatusReport) -> Event:
    return (Delivered if fate.is_delivered else Undelivered)(sent, fate.at, fate)


def _read(kind: str, path: str) -> tuple[StoredMessage, float, float] | None:
    """A message, when it was written, and when it came there; ``None``: it is not there, or not all of it yet."""
    try:
        content, found = file.read(path)
    except OSError:
        return None
    parsed = file.parse(content)
    if not parsed.whole and (kind == "cancelling" or time.time() - found.st_mtime < SETTLED):
        return None
    if kind in COPIED and os.path.exists(f"{path}.LOCK"):
        return None
    owner = None if kind in reports.KINDS else parsed.headers.get("From")
    kind = "outgoing" if kind == "cancelling" else kind
    return (
        StoredMessage(kind, path.rpartition("/")[2], parsed.headers, parsed.text, owner),
        found.st_mtime_ns / 1e9,
        found.st_ctime_ns / 1e9,
    )
