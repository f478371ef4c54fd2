"""What became of messages, found in the folders and told to one plugin, in the process that owns the spool.

Each plugin has a tracker and a thread of its own, so one that is slow or fails holds up nobody else. What it has been
told is remembered as a time for each folder, and only after it took it: so everything is told at least once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from smsgw.model import Accepted, Cancelled, Event, Failed, Received, Sent, StoredMessage
from smsgw.spool import file
from smsgw.spool.folders import Folders
from smsgw.spool.index import is_message
from smsgw.spool.layout import Layout

PERIOD = 0.5  # seconds between two looks
RETRY = 5.0  # seconds until a plugin that failed is told again
SLACK = 2_000_000_000  # nanoseconds by which a file's time may lie before the moment that it can be seen
MOST = 500  # events told at once

# In the order in which a message passes them, so that one look cannot miss a message that moves on meanwhile.
EVENTS: dict[str, type[Event]] = {
    "outgoing": Accepted,
    "checked": Accepted,
    "cancelled": Cancelled,
    "sent": Sent,
    "failed": Failed,
    "incoming": Received,
}

Change = tuple[str, str, int, StoredMessage]  # kind, name, time (ns), message

log = logging.getLogger(__name__)


class Tracker:
    """Follows the folders for one plugin.

    :param name: the plugin's; what it was told is remembered under it.
    :param tell: its ``notify``.
    """

    def __init__(self, layout: Layout, folders: Folders, name: str, tell: Callable[[Sequence[Event]], None]) -> None:
        self._folders = folders
        self._paths = {kind: layout.folders.get(kind, ()) for kind in EVENTS}
        self._paths["cancelled"] = (layout.state / "cancelled",)
        self._notes = layout.state / f"told.{name}"
        self._name = name
        self._tell = tell

    def run(self, stop: threading.Event) -> None:
        """Look and tell until ``stop`` is set."""
        marks = self._load()
        told: dict[str, dict[str, int]] = {kind: {} for kind in EVENTS}
        under_way: set[str] = set()
        while not stop.wait(PERIOD):
            begun = time.time_ns()
            found = list(self._look(marks, told))
            try:
                under_way = self._tell_all(found, under_way)
            except Exception:
                log.exception("the plugin %r failed to take events; it is told again", self._name)
                stop.wait(RETRY)
                continue
            for kind, name, changed, _ in found:
                told[kind][name] = changed
            if found:
                marks = dict.fromkeys(EVENTS, begun - SLACK)
                self._save(marks)
            for kind, names in told.items():
                told[kind] = {name: changed for name, changed in names.items() if changed > marks[kind]}

    def _look(self, marks: dict[str, int], told: dict[str, dict[str, int]]) -> Iterator[Change]:
        """What came into the folders since those marks and was not yet told, oldest first within each."""
        for kind, paths in self._paths.items():
            fresh = []
            for path in paths:
                with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
                    for entry in entries:
                        if not is_message(entry.name) or entry.name in told[kind]:
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            changed = entry.stat(follow_symlinks=False).st_ctime_ns
                            if changed > marks[kind]:
                                fresh.append((changed, entry.name))
            for changed, name in sorted(fresh):
                message = self._read(kind, name)
                if message is not None:
                    yield kind, name, changed, message

    def _tell_all(self, found: list[Change], under_way: set[str]) -> set[str]:
        """Tell of those changes; returns the messages that are under way then.

        :param under_way: those that were, whose beginning has been told.
        """
        under_way = set(under_way)
        events: list[Event] = []
        for kind, name, changed, message in found:
            at = datetime.fromtimestamp(changed / 1e9, UTC)
            if EVENTS[kind] is not Received and name not in under_way:
                under_way.add(name)
                events.append(Accepted(message, at))
            if EVENTS[kind] is not Accepted:
                under_way.discard(name)
                events.append(EVENTS[kind](message, at))
        for start in range(0, len(events), MOST):
            self._tell(events[start : start + MOST])
        return under_way

    def _read(self, kind: str, name: str) -> StoredMessage | None:
        if kind != "cancelled":
            return self._folders.find(kind, name)
        with contextlib.suppress(FileNotFoundError):
            parsed = file.parse(file.read(self._paths[kind][0] / name)[0])
            return StoredMessage(kind, name, parsed.headers, parsed.text, parsed.headers.get("From"))
        return None

    def _load(self) -> dict[str, int]:
        """A plugin that is new hears of what comes from now on. A clock that was set back tells too much, not less."""
        now = time.time_ns() - SLACK
        try:
            known = json.loads(self._notes.read_text())
            return {kind: min(int(known.get(kind, now)), now) for kind in EVENTS}
        except (FileNotFoundError, ValueError, AttributeError):
            marks = dict.fromkeys(EVENTS, now)
            self._save(marks)
            return marks

    def _save(self, marks: dict[str, int]) -> None:
        fresh = Path(f"{self._notes}.new")
        fresh.write_text(json.dumps(marks))
        fresh.rename(self._notes)
