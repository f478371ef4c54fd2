"""What a client says of a new webhook, and how often it may try."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable

import colander

from smsgw.api import Items, Text
from smsgw.model import TooMany

from .events import TYPES

DESCRIPTION = 200  # characters
MINUTE = 60  # seconds
SPARE = 10  # look-ups a minute beyond those for as many webhooks as a user may have
KNOWN = tuple(TYPES.values())


def _event_fault(value: object) -> dict[str, str]:
    return {} if value in KNOWN else {"": f"should be one of {', '.join(KNOWN)}"}


def _check_line(node: colander.SchemaNode, value: str) -> None:
    if len(value) > DESCRIPTION or not value.isprintable():
        raise colander.Invalid(node, f"should have at most {DESCRIPTION} characters, and no control character")


class Schema(colander.MappingSchema):
    """The body of a registration."""

    url = colander.SchemaNode(Text())
    events = colander.SchemaNode(Items(_event_fault))
    description = colander.SchemaNode(Text(), missing="", validator=_check_line)


class LookUps:
    """Counts the host names that users have looked up in a minute, in one process; shared by threads.

    :param most: how many each user may have looked up.
    :param clock: seconds since 1970 (UTC).
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._until = 0.0

    def count(self, userid: str) -> None:
        """:raises TooMany: that is one too many of this user."""
        now = self._clock()
        with self._lock:
            if not 0 < self._until - now <= MINUTE:
                self._counts.clear()
                self._until = now + MINUTE
            if self._counts[userid] >= self._most:
                wait = math.ceil(self._until - now)
                raise TooMany(wait, f"You may try to register {self._most} webhooks a minute; try again later")
            self._counts[userid] += 1
