"""Access lists (acl(5)): one more user may do with a file what its group may."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

_DEFAULT, _ACCESS = "system.posix_acl_default", "system.posix_acl_access"
_OWNER, _USER, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
_ALL = 7  # read, write, and x, without which nobody but root could write into the folders
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")  # the kernel's struct posix_acl_xattr_entry: tag, permissions, id


def set_default(folder: Path, user: int | None) -> None:
    """What is made in that folder gets the very mode that it is made with, whatever the umask says.

    :param user: who may do with it what its group may; ``None``: nobody else.
    :raises OSError: the file system has no access lists.
    """
    entries = [(_OWNER, _NO_ID), (_GROUP, _NO_ID), (_OTHERS, _NO_ID)]
    if user is not None:
        entries[1:2] = [(_USER, user), (_GROUP, _NO_ID), (_MASK, _NO_ID)]
    packed = b"".join(_ENTRY.pack(tag, _ALL, identity) for tag, identity in entries)
    os.setxattr(folder, _DEFAULT, _VERSION + packed)


def users_of(path: Path) -> frozenset[int]:
    """The users who may do with that file what its group may; without those whose own entry does not let them read."""
    try:
        packed = os.getxattr(path, _ACCESS, follow_symlinks=False)[len(_VERSION) :]
    except OSError:
        return frozenset()
    return frozenset(user for tag, mode, user in _ENTRY.iter_unpack(packed) if tag == _USER and mode & 0o4)


def are_known(folder: Path) -> bool:
    """Whether the file system of that folder has access lists."""
    try:
        os.getxattr(folder, _DEFAULT)
    except OSError as error:
        return error.errno == errno.ENODATA
    return True
