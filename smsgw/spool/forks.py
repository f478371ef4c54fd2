"""A process that forks: servers do, such as gunicorn with ``--preload``, while this one's background threads work.

The child has a copy of everything, also of locks that these threads held, and nobody will ever release there.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def begin_anew_in_children(subject: T, begin: Callable[[T], None]) -> None:
    """Let that be called with ``subject`` in each process that forks from this one, for as long as it is in use."""
    found = weakref.ref(subject)

    def tell() -> None:
        if (subject := found()) is not None:
            begin(subject)

    os.register_at_fork(after_in_child=tell)
