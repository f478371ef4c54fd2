"""Whether anything was committed to a database of SQLite, seen without a statement. For ``smsgw.store``.

In WAL mode each commit of any process writes the header of the WAL-index anew (https://sqlite.org/walformat.html, 2):
the beginning of the file ``-shm``, which all connections have in their memory. It has a count of the transactions, how
far the log goes, and checksums. By that header SQLite itself tells whether the pages that it keeps are right still, so
whoever keeps rows can do so too.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

HEADER = 48  # bytes; it stands there twice, so that one who writes it can be told from one who has
INITIALIZED = 12  # which of them is 1, unless the index is to be made from the log


class WalIndex:
    """The header as a connection of this process has it; its memory is shared with all others.

    It says nothing true once the process's last connection to the file is closed: the file may then be removed, and a
    new one made, by another process. So it must live no longer than one connection that has read something.
    """

    def __init__(self, address: int) -> None:
        self._header = (ctypes.c_char * (2 * HEADER)).from_address(address)
        weakref.finalize(self, _libc().munmap, ctypes.c_void_p(address), ctypes.c_size_t(2 * HEADER))

    @classmethod
    def find(cls, database: str) -> WalIndex | None:
        """That of a file to which this process has a connection; ``None`` unless it is in WAL mode.

        It is mapped by the descriptor that SQLite has open: to open and close one of our own would take away all locks
        that the process's connections have on the file (https://sqlite.org/howtocorrupt.html, 2.2).
        """
        try:
            wanted = os.stat(os.path.realpath(database) + "-shm")
            for name in os.listdir("/proc/self/fd"):
                if _is(int(name), wanted) and wanted.st_size >= 2 * HEADER:
                    return cls._map(int(name))
        except OSError:
            pass
        return None

    @property
    def version(self) -> bytes | None:
        """What is another after each commit; ``None``: it cannot be told now.

        A commit that was over before this is asked is seen for certain.
        """
        found = self._header.raw
        is_whole = found[:HEADER] == found[HEADER:] and found[INITIALIZED] == 1
        return found if is_whole else None

    @classmethod
    def _map(cls, fd: int) -> WalIndex | None:
        """With ``mmap`` of the C library, since Python's keeps a descriptor of its own and closes that."""
        address = _libc().mmap(None, 2 * HEADER, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        return None if address in (None, ctypes.c_void_p(-1).value) else cls(address)


def _is(fd: int, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), wanted)
    except OSError:  # it was closed meanwhile
        return False


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,  # off_t
    ]
    return libc
