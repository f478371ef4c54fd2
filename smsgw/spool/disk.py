"""What was written is synced to disk: fsync(2) of a file is about its content, of a folder about the names in it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from smsgw.model import Unavailable


class SpoolUnavailable(Unavailable):
    """The spool cannot take, or give, what was asked: missing, full, read-only, or broken. Nothing is left behind."""


def unavailable(error: OSError) -> SpoolUnavailable:
    return SpoolUnavailable(f"the spool is out of service: {error.strerror or error}")


def open_folder(folder: Path, opened: contextlib.ExitStack) -> int:
    """A descriptor of that folder, which is closed with the others."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, fd)
    return fd


def sync_folder(folder: Path) -> None:
    """Write the names in that folder to disk: of files and folders that were made there, moved there, or removed.

    :raises OSError: they may not be on disk, now or later.
    """
    with contextlib.ExitStack() as opened:
        os.fsync(open_folder(folder, opened))


def sync_file_system(fd: int) -> None:
    """Write the whole file system of that file to disk (syncfs(2), which Python has no name for)."""
    if ctypes.CDLL(None, use_errno=True).syncfs(fd):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
