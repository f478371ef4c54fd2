"""The index made again from the spool. What it alone knows, of messages whose files are gone, stays."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from smsgw.model import Accepted, Event
from smsgw.spool.census import Census

from .began import Beginnings
from .index import Index
from .table import row

BATCH = 2000  # messages in a transaction


def rebuild(
    index: Index,
    census: Census,
    beginnings: Beginnings,
    stop: threading.Event,
    *,
    anew: bool = False,
    rest: float = 0.0,
    tell: Callable[[int], object] = lambda _: None,
) -> bool:
    """Whether it is complete then; not, where ``stop`` was set, or another one began meanwhile.

    :param anew: forget all first.
    :param rest: for how long to leave the process to others after each batch, as a multiple of what it took.
    :param tell: told how many messages were read, now and then.

    :raises Unavailable: the database is out of service.
    """
    name, count = uuid.uuid4().hex, 0
    index.begin(name, anew=anew)
    for batch in _batches(census.events()):
        begun = time.monotonic()
        # What is on its way out is found in its folders, and nobody tells of it.
        index.put([row(event, beginnings.of(event)) for event in batch if not isinstance(event, Accepted)])
        count += len(batch)
        tell(count)
        if stop.wait(rest * (time.monotonic() - begun)) or stop.is_set():
            return False
    return index.end(name)


def _batches(events: Iterator[Event]) -> Iterator[list[Event]]:
    while batch := list(itertools.islice(events, BATCH)):
        yield batch
