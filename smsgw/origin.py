"""Where what this thread does was asked for: by a request, or on the command line. Its home is one context variable."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from contextvars import ContextVar, Token

from smsgw.model import Origin

_CURRENT: ContextVar[Origin | None] = ContextVar("smsgw.origin", default=None)


def origin() -> Origin | None:
    """Of what this thread does now; ``None``: nobody asked for it, such as background work."""
    return _CURRENT.get()


def begin(found: Origin) -> Token[Origin | None]:
    """From now on this thread does what was asked for there, until ``end``."""
    return _CURRENT.set(found)


def end(token: Token[Origin | None]) -> None:
    _CURRENT.reset(token)


@contextlib.contextmanager
def within(found: Origin) -> Iterator[None]:
    token = begin(found)
    try:
        yield
    finally:
        end(token)


def make_id() -> str:
    """A new request id. It is no secret."""
    return f"{random.getrandbits(64):016x}"
