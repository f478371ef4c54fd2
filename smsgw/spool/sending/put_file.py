"""One file written, and moved to where it shall be: what every message costs.

Each call that Python makes to the file system hands the interpreter's lock to another thread and waits to get it back.
So it is also there in C, which hands it over once; where there is no compiler, smsgw is installed without that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

# folder, name, content, mode, must_chmod, must_sync, target
PutFile = Callable[[int, str, bytes, int, bool, bool, str], None]


def in_python(
    folder: int, name: str, content: bytes, mode: int, must_chmod: bool, must_sync: bool, target: str
) -> None:
    """Write a file that is not there yet; where that fails, an unfinished one can stay behind under ``name``.

    :param folder: a descriptor of the folder that it is made in.
    :param mode: of the file, less the umask, or as the folder's default access list has it.
    :param must_chmod: give it that mode in any case.
    :param must_sync: let it be on disk.
    :param target: the path that it is moved to when it is complete; empty: it stays.
    :raises OSError: it is not at ``target``.
    """
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=folder)
    try:
        written = os.write(fd, content)
        while written < len(content):  # a nearly full disk takes a part before it says so
            written += os.write(fd, content[written:])
        if must_chmod:
            os.fchmod(fd, mode)
        if must_sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    if target:
        os.rename(name, target, src_dir_fd=folder)


fastest: PutFile = in_python
with contextlib.suppress(ImportError):
    from smsgw.spool.sending import _put_file

    fastest = _put_file.put_file
