"""What waits for smsd and its modems, queue by queue. Public through ``smsgw.api``."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from smsgw.spool.file import is_message
from smsgw.spool.layout import Layout
from smsgw.spool.sending.queue import PRIORITIES, TOGETHER, Queue


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in one queue: how many messages, and since when the oldest does (UTC; ``None``: none waits).

    ``queue`` is ``waiting`` for what waits in smsgw's own folder until there is room, ``outgoing`` for what smsd has
    not taken yet, and for what smsd has taken one of its queues, or ``checked`` where it has none. What waits for its
    ``send_at`` is in none of them.
    """

    queue: str
    count: int
    oldest: datetime | None


def look(layout: Layout, queue: Queue) -> Sequence[Waiting]:
    """The queues of that spool, in the order in which messages move; without those that cannot be read."""
    found = [_waiting("waiting", _own(queue))]
    for name, folder in folders(layout).items():
        with contextlib.suppress(OSError):
            found.append(_waiting(name, files(folder).values()))
    return found


def folders(layout: Layout) -> dict[str, Path]:
    """Where messages wait for smsd and for its modems, by the names of these queues."""
    found = {"outgoing": layout.outgoing}
    for folder in layout.folders["checked"]:
        names = [name for name, of_queue in layout.queue_folders.items() if of_queue == folder]
        found[", ".join(names) or "checked"] = folder
    return found


def files(folder: Path) -> dict[str, float]:
    """The messages in one of smsd's folders: when each came there (seconds since 1970), by its name.

    :raises OSError: it cannot be read.
    """
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_message(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found[entry.name] = status.st_mtime
    return found


def _own(queue: Queue) -> Iterator[float]:
    """When each message began to wait for its turn in smsgw's own folder."""
    for priority in PRIORITIES:
        for folder in itertools.chain.from_iterable(queue.turns(priority).values()):
            with contextlib.suppress(FileNotFoundError):
                # What came together waited elsewhere, perhaps for its time: nothing is put into its folder later.
                since = folder.stat().st_ctime if TOGETHER in folder.name else 0
                for id in queue.messages(folder):
                    with contextlib.suppress(FileNotFoundError):
                        yield max((folder / id).stat().st_mtime, since)


def _waiting(queue: str, times: Iterable[float]) -> Waiting:
    known = list(times)
    return Waiting(queue, len(known), datetime.fromtimestamp(min(known), UTC) if known else None)
