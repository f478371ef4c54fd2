"""The limits that lines of the ini file set, and the windows of the calendar in which they count."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from smsgw.model import ConfigurationError, Message

PERIODS = ("second", "minute", "hour", "day", "month")

_LIMIT = re.compile(rf"([1-9][0-9]{{0,11}})(?: (messages|parts))?/({'|'.join(PERIODS)})", re.A)
_PIECE = re.compile(r"[^/ ][^/]*(?:/\S*)?")  # of a line: a limit, if it is right


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may be sent in each period, in all, by those whom ``name`` means in the ini file.

    ``counted`` is ``"messages"``, one for each recipient, or ``"parts"`` of these.
    """

    name: str
    most: int
    counted: str
    period: str

    @property
    def unit(self) -> str:
        """What its counters count, such as ``parts/month``."""
        return f"{self.counted}/{self.period}"

    def __str__(self) -> str:
        return f"{self.most} {self.unit} for {'everybody' if self.name == '*' else self.name}"

    def amount(self, messages: Sequence[Message]) -> int:
        """How much of it these messages need."""
        return len(messages) if self.counted == "messages" else sum(message.content.parts for message in messages)


@dataclass(frozen=True, slots=True)
class Claim:
    """How much of a limit a submission needs, in the window from ``begin`` to before ``until`` (seconds, UTC)."""

    limit: Limit
    begin: int
    until: int
    amount: int


def read(lines: Mapping[str, str]) -> dict[str, list[Limit]]:
    """The limits of each name.

    :raises ConfigurationError: a word is no limit, or a name has a limit twice.
    """
    return {name: _read(name, words) for name, words in lines.items()}


def _read(name: str, words: str) -> list[Limit]:
    found: dict[str, Limit] = {}
    for piece in _PIECE.findall(" ".join(words.split())):
        match = _LIMIT.fullmatch(piece)
        if match is None:
            raise ConfigurationError(
                f"smsgw.quota.limits has {piece!r} for {name!r}, which is no limit such as 10/minute or "
                f"600 parts/month; a period is a {', '.join(PERIODS)}"
            )
        limit = Limit(name, int(match[1]), match[2] or "messages", match[3])
        if limit.unit in found:
            raise ConfigurationError(f"smsgw.quota.limits has two limits of {limit.unit} for {name!r}; keep one")
        found[limit.unit] = limit
    return list(found.values())


def window(period: str, now: float, zone: ZoneInfo | None) -> tuple[int, int]:
    """When the period of that moment began, and when the next one begins, by the calendar: in seconds (UTC).

    :param zone: where hours, days and months begin; ``None``: in the machine's own time zone.
    """
    second = math.floor(now)
    if period == "second":
        return second, second + 1
    if period == "minute":
        return second - second % 60, second - second % 60 + 60
    local = datetime.fromtimestamp(second, zone)
    if period == "hour":  # also in a zone whose offset is no whole hour
        begin = second - local.minute * 60 - local.second
        return begin, begin + 3600
    midnight = datetime(local.year, local.month, local.day, tzinfo=zone)
    if period == "day":
        return _seconds(midnight), _seconds(midnight + timedelta(days=1))
    first = midnight.replace(day=1)
    return _seconds(first), _seconds((first + timedelta(days=31)).replace(day=1))


def _seconds(local: datetime) -> int:
    """A midnight that does not exist, or comes twice, is the first moment of its day."""
    return math.floor(local.timestamp())
