"""What is old goes: rows of the index, and, where the operator says so, the files of messages that the index has."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator
from os.path import basename

from smsgw.spool.census import Census

from .index import Index

DAY = 86400
STEP, PAUSE = 200, 0.1  # files that are looked at before the next pause, and its seconds
KINDS = ("sent", "failed", "incoming", "report")

log = logging.getLogger(__name__)


def expire_rows(index: Index, days: int, stop: threading.Event) -> None:
    """Forget messages that began earlier.

    :raises Unavailable: the database is out of service.
    """
    while index.expire(int((time.time() - days * DAY) * 1000)):
        if stop.wait(PAUSE):
            return


def expire_files(index: Index, census: Census, days: int, stop: threading.Event) -> None:
    """Delete files that were last written earlier: of messages that the index has with their end, and status reports.

    None goes that a plugin is still to be told of, or that is needed to tell it.

    :raises Unavailable: the database is out of service.
    :raises OSError: a folder cannot be read.
    """
    before, is_told, gone = time.time() - days * DAY, census.told(), 0
    for kind in KINDS:
        for paths in _steps(census.files(kind)):
            old = [path for path in paths if _written(path) < before and is_told(basename(path))]
            gone += sum(map(_delete, _spare(index, census, kind, old)))
            if stop.wait(PAUSE):
                return
    if gone:
        log.info("%d files that were older than %d days are deleted", gone, days)


def _spare(index: Index, census: Census, kind: str, old: list[str]) -> list[str]:
    """Those of these files without which nothing is forgotten."""
    if kind == "report" or not old:
        return old
    known = index.has([basename(path) for path in old], is_received=kind == "incoming")
    return [path for path in old if basename(path) in known or (kind == "incoming" and census.is_report(path))]


def _steps(files: Iterator[str]) -> Iterator[list[str]]:
    while some := list(itertools.islice(files, STEP)):
        yield some


def _written(path: str) -> float:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except OSError:
        return time.time()  # it is gone


def _delete(path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(path)
            return True
        except OSError as error:
            log.warning("%s is old, and cannot be deleted: %s", path, error.strerror)
    return False
