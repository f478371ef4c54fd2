"""A plugin that hears of what happens in a spool, in the bench's own process, and smsd's part in it."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from smsgw.journal.database import NAME, Database
from smsgw.journal.journal import Journal
from smsgw.journal.notifier import Notifier
from smsgw.journal.tables import SCRIPTS, TABLES
from smsgw.model import Delivered, Event, Sent
from smsgw.spool.folders import Folders
from smsgw.spool.following.follower import Follower
from smsgw.spool.following.reader import Reader, followed
from smsgw.spool.layout import from_folder
from smsgw.spool.locks import Locks
from smsgw.store import FILE, Store

HEAD = "From: sha\nModem: GSM2\n"


class Ear:
    """What a plugin is told, and when."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._heard: queue.Queue[tuple[type[Event], str, float]] = queue.Queue()
        self._numbers = itertools.count(1)

    def notify(self, events: Sequence[Event]) -> None:
        now = time.perf_counter()
        for event in events:
            self._heard.put((type(event), event.message.id, now))

    def hear_of_sent(self) -> float:
        """Seconds from the move of a message to the plugin."""
        return self._send(next(self._numbers))

    def hear_of_report(self) -> float:
        """Seconds from a report about a message, of which the plugin has heard, to the plugin."""
        number = next(self._numbers)
        self._send(number)
        text = "SMS STATUS REPORT\nMessage_id: 1\nStatus: 0,Ok"
        begun = self._move(f"r{number}", "report", f"From: {79160000000 + number}\nModem: GSM2\n\n{text}")
        return self._wait(Delivered, f"m{number}") - begun

    def _send(self, number: int) -> float:
        head = f"To: {79160000000 + number}\n{HEAD}Message_id: 1\n"
        begun = self._move(f"m{number}", "sent", f"{head}\nHi, Jack!")
        return self._wait(Sent, f"m{number}") - begun

    def _move(self, name: str, kind: str, content: str) -> float:
        fresh = self._spool / f".{name}"
        fresh.write_text(content)
        begun = time.perf_counter()
        fresh.rename(self._spool / kind / name)
        return begun

    def _wait(self, event: type[Event], id: str) -> float:
        while True:
            kind, about, when = self._heard.get(timeout=600)
            if (kind, about) == (event, id):
                return when


@contextlib.contextmanager
def ear(spool: Path) -> Iterator[Ear]:
    """It listens, to what happens from now on."""
    layout = from_folder(spool)
    locks = Locks(layout.state)
    locks.make()
    folders, found, stop = Folders(layout, locks, "smsgw.http."), Ear(spool), threading.Event()
    store = Store(f"sqlite:///{layout.state / NAME / FILE}")
    store.keep(TABLES, SCRIPTS)
    journal = Journal(Database(store), "spool", followed(layout))
    notifier = Notifier(journal, "ear", found.notify, (Sent, Delivered))
    follower = Follower(Reader(layout, folders, "smsgw.http."), journal, ["ear"], tell=notifier.wake)
    follower.begin()
    threads = [threading.Thread(target=each.run, args=(stop,)) for each in (follower, notifier)]
    for thread in threads:
        thread.start()
    try:
        while not journal.is_whole():
            time.sleep(0.1)
        yield found
    finally:
        stop.set()
        follower.wake(), notifier.wake()
        for thread in threads:
            thread.join()
        folders.close()
        store.close()
