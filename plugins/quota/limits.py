"""Limits as lines of the ini file have them, and the windows of the calendar in which they count."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from smsgw.model import ConfigurationError, Message

Key = tuple[str, str, int]  # of a counter: name, counted, until

PERIODS = ("second", "minute", "hour", "day", "month")

_LIMIT = re.compile(rf"([1-9][0-9]{{0,11}})(?: +(messages|parts))?/({'|'.join(PERIODS)})", re.A)


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may be sent in each period, all in all, by those whom ``name`` means in the ini file.

    ``counted`` is ``"messages"``, one for each recipient, or ``"parts"`` of these.
    """

    name: str
    most: int
    counted: str
    period: str

    @property
    def key(self) -> tuple[str, str]:
        """What its counters are called, whatever the number is."""
        return self.name, f"{self.counted}/{self.period}"

    def __str__(self) -> str:
        whose = "everybody" if self.name == "*" else self.name
        return f"{self.most} {self.counted}/{self.period} for {whose}"

    def amount(self, messages: Sequence[Message]) -> int:
        """What those messages need of it."""
        return len(messages) if self.counted == "messages" else sum(message.content.parts for message in messages)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a submission needs of a limit in one window of it, from ``begin`` to before ``until`` (seconds, UTC)."""

    limit: Limit
    begin: int
    until: int
    amount: int

    @property
    def key(self) -> Key:
        """Its counter."""
        return (*self.limit.key, self.until)


def read(lines: Mapping[str, str]) -> dict[str, tuple[Limit, ...]]:
    """The limits of each name.

    :raises ConfigurationError: a word is no limit, or a limit stands twice.
    """
    return {name: _read(name, words) for name, words in lines.items()}


def _read(name: str, words: str) -> tuple[Limit, ...]:
    found: dict[tuple[str, str], Limit] = {}
    rest = " ".join(words.split())
    while rest:
        match = _LIMIT.match(rest)
        if match is None or rest[match.end() :][:1].strip():
            raise ConfigurationError(
                f"smsgw.quota.limits has {_word(rest)!r} for {name!r}, which is no limit such as 10/minute or "
                f"600 parts/month; a period is a {', '.join(PERIODS)}"
            )
        limit = Limit(name, int(match[1]), match[2] or "messages", match[3])
        if limit.key in found:
            raise ConfigurationError(
                f"smsgw.quota.limits has two limits of {limit.counted}/{limit.period} for {name!r}; keep one"
            )
        found[limit.key] = limit
        rest = rest[match.end() :].strip()
    return tuple(found.values())


def _word(rest: str) -> str:
    """The words that make no limit: all up to the first with a slash."""
    words = rest.split()
    last = next((place for place, word in enumerate(words) if "/" in word), len(words))
    return " ".join(words[: last + 1])


def window(period: str, now: float, zone: ZoneInfo | None) -> tuple[int, int]:
    """When the period of that moment began, and when the next one begins, in seconds (UTC), by the calendar.

    :param zone: where hours, days and months begin; ``None``: in the machine's own time zone.
    """
    second = math.floor(now)
    if period == "second":
        return second, second + 1
    if period == "minute":
        return second - second % 60, second - second % 60 + 60
    local = datetime.fromtimestamp(second, zone)
    if period == "hour":  # also of a zone that is half an hour off
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
