"""``history``: an index of what became of messages, which makes searches fast, and outlives the files.

The spool stays the truth: the index is told by ``notify``, and made again from the files where it is new or broken.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import colander
from pyramid.config import Configurator

from smsgw.hookspecs import hookimpl
from smsgw.model import (
    Cancelled,
    Delivered,
    Event,
    Failed,
    Query,
    Received,
    Remembered,
    Sent,
    StoredMessage,
    Unavailable,
    Undelivered,
)
from smsgw.store import open_own_store

from . import home
from .began import Beginnings
from .commands import commands
from .index import Index
from .rebuild import rebuild
from .retention import expire_files, expire_rows
from .table import SCRIPTS, TABLES, row

PERIOD = 1.0  # seconds between two looks whether there is something to do
SELDOM = 3600.0  # seconds between two looks for what is old

DAYS = colander.Range(1, 100_000)

log = logging.getLogger(__name__)


class History:
    """Follows what becomes of messages, in the process that owns the spool, and answers searches in all of them.

    :param keep_days: for how long the index remembers a message.
    :param keep_files_days: for how long its file is kept; ``None``: for ever.
    """

    class Settings(colander.MappingSchema):
        keep_days = colander.SchemaNode(
            colander.Integer(), missing=365, validator=DAYS, description="days for which the index remembers a message"
        )
        keep_files_days = colander.SchemaNode(
            colander.Integer(),
            missing=None,
            validator=DAYS,
            description="days after which files in sent, failed, incoming and report are deleted",
        )

    commands = commands
    hears = (Cancelled, Delivered, Failed, Received, Sent, Undelivered)

    def __init__(self, keep_days: int, keep_files_days: int | None) -> None:
        self._keep_days = keep_days
        self._keep_files_days = keep_files_days
        self._is_whole = False  # whether the index has heard of what happened while no process owned the spool

    def includeme(self, config: Configurator) -> None:
        registry = config.registry
        self.store = open_own_store(registry, "history", TABLES, SCRIPTS)
        self.index = Index(self.store, f"{socket.gethostname()}:{registry.layout.outgoing}")
        self.census = registry.census
        self.beginnings = Beginnings(registry.layout, registry.resources)

    @hookimpl
    def notify(self, events: Sequence[Event]) -> None:
        """
        :raises Unavailable: the database is out of service; they are told again.
        """
        self.index.put([row(event, self.beginnings.of(event)) for event in events])

    @hookimpl
    def told_until(self, moment: datetime | None) -> None:
        """
        :raises Unavailable: the database is out of service.
        """
        self.index.beat(moment)
        self._is_whole = moment is not None

    @hookimpl
    def find_messages(self, query: Query) -> Sequence[Remembered] | None:
        return self.index.find(query)

    @hookimpl
    def forget_message(self, message: StoredMessage) -> Callable[[], None]:
        restore = self.index.forget(message)

        def remember() -> None:
            restore()
            self.notify(list(self.census.events_of(message)))  # what was told meanwhile was lost on the tombstone

        return remember

    @hookimpl
    def background(self, stop: threading.Event) -> None:
        next_rows, next_files, is_broken = 0.0, 0.0, False
        while not stop.is_set():
            try:
                home.heal(self.store)
                home.make(self.store)
                if not self.index.is_complete():
                    rebuild(self.index, self.census, self.beginnings, stop, rest=1.0)
                if time.monotonic() >= next_rows:
                    expire_rows(self.index, self._keep_days, stop)
                    next_rows = time.monotonic() + SELDOM
                if self._keep_files_days is not None and self._is_whole and time.monotonic() >= next_files:
                    expire_files(self.index, self.census, self._keep_files_days, stop)
                    next_files = time.monotonic() + SELDOM
                is_broken = False
            except (Unavailable, OSError) as error:
                if not is_broken:
                    log.error("the index of messages: %s (%s); it is tried again", error, error.__cause__)
                is_broken = True
            stop.wait(PERIOD)
