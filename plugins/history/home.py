"""Where the index lies with SQLite: a folder of its own, which is put aside as a whole when a file in it is broken.

Whoever finds it broken leaves a mark in it; the process that owns the spool puts it aside, and makes a new one. With
PostgreSQL there is nothing of that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from smsgw.model import Unavailable
from smsgw.store import Store, is_broken

from .table import Broken

MARK = "broken"
SOON = 10.0  # seconds in which others may still be at the one that was put aside, and take it for the new one

log = logging.getLogger(__name__)


def make(store: Store) -> None:
    """Let the folder be there."""
    if store.folder is not None:
        with contextlib.suppress(OSError):  # which writing then tells
            os.mkdir(store.folder, 0o700)


@contextlib.contextmanager
def watched(store: Store) -> Iterator[None]:
    """Leave a mark where the block finds the file broken.

    :raises Unavailable: it does, or the database is out of service.
    """
    try:
        yield
    except Broken as error:
        _mark(store)
        raise Unavailable("The index of messages is broken") from error
    except Unavailable as error:
        if is_broken(error):
            _mark(store)
        raise


def heal(store: Store) -> None:
    """Put a broken index aside, so that a new one begins."""
    folder = store.folder
    if folder is None or not (folder / MARK).exists():
        return
    aside = folder.with_name(f"{folder.name}.{MARK}")
    if aside.exists() and abs(time.time() - aside.stat().st_mtime) < SOON:
        (folder / MARK).unlink()
        return
    shutil.rmtree(aside, ignore_errors=True)
    os.utime(folder)
    os.rename(folder, aside)
    log.error("the index of messages was broken; it lies in %s now, and a new one is made from the spool", aside)


def _mark(store: Store) -> None:
    if store.folder is not None:
        with contextlib.suppress(OSError):  # there is the next one who finds it broken
            Path(store.folder / MARK).touch()
