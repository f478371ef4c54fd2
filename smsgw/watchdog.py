"""The owner looks at modems and queues every few seconds. What has gone wrong is noted, logged, and told to plugins."""

from __future__ import annotations

import contextlib
import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from smsgw.journal.alarms import Trouble, change, standing
from smsgw.journal.journal import Journal
from smsgw.model import Alarm, ModemUp, Unavailable
from smsgw.spool.layout import Layout
from smsgw.spool.modems import Modem, Modems
from smsgw.spool.waiting import files, folders
from smsgw.status import ALARM_NAMES

PERIOD = 5.0  # seconds between two looks
SETTLED = 30.0  # seconds for which a modem must be down, or up, before that counts: smsd may just be starting
EACH = 0.5  # seconds in which smsd takes one message out of outgoing, without trust_outgoing
LOCKED = 300.0  # seconds for which a modem may be at one message
REMEDY = "Run 'smsgw check'. Where it finds no reason, switch the modem off and on, and restart smsd"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Queue:
    """A queue: the names in it at the last look, and when one left, or it was first seen (on the monotonic clock)."""

    names: frozenset[str]
    moved: float
    has_moved: bool = False


class Watchdog:
    """Looks at one spool, while its process owns it.

    :param stuck: seconds in which nothing leaves a queue before it is stuck.
    :param tell: called when there are events to tell of.
    """

    def __init__(
        self, modems: Modems, layout: Layout, journal: Journal, stuck: float, tell: Callable[[], None]
    ) -> None:
        self._modems = modems
        self._layout = layout
        self._journal = journal
        self._stuck = stuck
        self._tell = tell
        self._queues: dict[str, _Queue] = {}
        self._states: dict[str, tuple[bool, float]] = {}  # of modems: whether one is down, and since when

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop`` is set."""
        self._queues.clear()
        self._states.clear()
        is_broken = False
        while not stop.wait(PERIOD):
            try:
                self.look()
                is_broken = False
            except Unavailable as error:
                if not is_broken:
                    log.error("nobody can be told of modems and queues now: %s (%s)", error, error.__cause__)
                is_broken = True

    def look(self) -> None:
        """:raises Unavailable: the journal is out of service; what has changed is noted at a later look."""
        modems = self._modems.look().modems
        found = dict(self._of_modems(modems)) | dict(self._of_queues())
        known = standing(self._journal)
        wrong = [trouble for part, trouble in found.items() if trouble is not None and part not in known]
        right = [part for part in known if part in found and found[part] is None]
        names = {f"modem/{modem.name}" for modem in modems}
        gone = [part for part in known if names and part.startswith("modem/") and part not in names]
        if wrong or right or gone:
            for alarm in change(self._journal, wrong, right, gone):
                _log(alarm)
            self._tell()

    def _of_modems(self, modems: Sequence[Modem]) -> Iterator[tuple[str, Trouble | None]]:
        """What is wrong with each modem (``None``: nothing), of those that have been so for a while."""
        now = time.monotonic()
        for modem in modems:
            part, is_down = f"modem/{modem.name}", modem.fault is not None
            before, since = self._states.get(part, (None, now))
            if before is not is_down:
                since = now
            self._states[part] = is_down, since
            if now - since >= SETTLED:
                began = datetime.now(UTC) - timedelta(seconds=now - since)
                yield part, Trouble(part, modem.fault, modem.remedy or "", began) if modem.fault else None

    def _of_queues(self) -> Iterator[tuple[str, Trouble | None]]:
        """What is wrong with each queue, of those of which that is known."""
        for name, folder in folders(self._layout).items():
            with contextlib.suppress(OSError):  # requests and monitoring say so
                times = files(folder)
                queue = self._moved(name, frozenset(times))
                seconds = time.monotonic() - queue.moved
                part, single = f"queue/{name}", f"message/{name}"
                if times and seconds > self._stuck and _age(min(times.values())) > self._stuck:
                    since = datetime.now(UTC) - timedelta(seconds=seconds)
                    waits = "1 message waits" if len(times) == 1 else f"{len(times)} messages wait"
                    what = f"{waits}, and none has left for {seconds:.0f} seconds"
                    held = self._held(folder, times)
                    yield part, Trouble(part, what, _remove(held[1]) if held else REMEDY, since)
                elif not times or queue.has_moved:
                    yield part, None
                    yield single, self._of_one(name, folder, times)

    def _moved(self, name: str, names: frozenset[str]) -> _Queue:
        """The queue of that name, which has these messages now."""
        before = self._queues.get(name)
        now = time.monotonic()
        if before is None:
            queue = _Queue(names, now)
        elif before.names - names or not names:
            queue = _Queue(names, now, has_moved=True)
        else:
            queue = _Queue(names, before.moved if before.names else now, before.has_moved)
        self._queues[name] = queue
        return queue

    def _of_one(self, name: str, folder: Path, times: Mapping[str, float]) -> Trouble | None:
        """What is wrong with a message that stays, while others leave the queue."""
        part = f"message/{name}"
        if held := self._held(folder, times):
            id, lock = held
            since = datetime.fromtimestamp(times[id], UTC)
            return Trouble(part, f"{id} waits, and {lock} keeps smsd from taking it", _remove(lock), since)
        for id, began in times.items():
            since = datetime.fromtimestamp(began, UTC)
            if folder == self._layout.outgoing and _age(began) > self._stuck + len(times) * EACH:
                return Trouble(part, f"{id} waits, and smsd does not take it", REMEDY, since)
        return None

    def _held(self, folder: Path, times: Mapping[str, float]) -> tuple[str, Path] | None:
        """The first message that a lock holds back, which nobody can be at any more, and that lock."""
        for id, began in times.items():
            lock = folder / f"{id}.LOCK"
            if _age(began) > LOCKED and _age(_written(lock)) > LOCKED:
                return id, lock
        return None


def _remove(lock: Path) -> str:
    return f"If no program is at it: rm {shlex.quote(str(lock))}"


def _log(alarm: Alarm) -> None:
    event = ALARM_NAMES[type(alarm)]
    if isinstance(alarm, ModemUp):
        log.warning("%s: %s: %s", event, alarm.name, alarm.what)
    else:
        log.error("%s: %s: %s. %s", event, alarm.name, alarm.what, alarm.remedy)


def _age(at: float) -> float:
    return time.time() - at


def _written(path: Path) -> float:
    """When that file was written (seconds since 1970); now: it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
