"""``hours``: when users' messages may go out. It only restricts: another policy must allow sending at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from zoneinfo import ZoneInfo

import colander
from pyramid.security import Denied

from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Content, Identity, Message
from smsgw.settings import Boolean, Lines, TimeZone

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY = 24 * 60  # minutes
WEEK = 7 * DAY

_DAYS = re.compile("({0})(?:-({0}))?".format("|".join(DAYS)))
_TIMES = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])-(?:([01]?[0-9]|2[0-3]):([0-5][0-9])|24:00)")


@dataclass(frozen=True, slots=True)
class _Span:
    """Minutes of the week: ``length`` of them from the minute ``begin`` on; Monday's midnight is 0."""

    begin: int
    length: int

    def __contains__(self, minute: int) -> bool:
        return (minute - self.begin) % WEEK < self.length


class Hours:
    """A policy. The nearest lines count: a user's own, else those of their groups together, else ``*``.

    The local time decides: the hour that comes twice when summer time ends is the same hour both times. What is sent at
    once is judged by the time of the request, the same for all recipients; what is sent later, by ``send_at``.

    :param clock: the time, with its zone.
    """

    class Settings(colander.MappingSchema):
        times = colander.SchemaNode(
            Lines(), description="lines 'user: Mon-Fri 08:00-12:00 13:00-17:00 Sat 22:00-06:00', '@group: …', '*: …'"
        )
        timezone = colander.SchemaNode(
            TimeZone(), missing=None, description="whose clock is read, such as Europe/Berlin (the machine's)"
        )
        urgent_always = colander.SchemaNode(
            Boolean(),
            missing=False,  # any client can call its message urgent
            description="whether messages of high priority may be sent at any time",
        )

    def __init__(
        self,
        times: dict[str, str],
        timezone: ZoneInfo | None,
        urgent_always: bool,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._lines = {}
        for name, words in times.items():
            try:
                self._lines[name] = _spans(words.split())
            except ValueError as error:
                raise ConfigurationError(f"smsgw.hours.times has a wrong word for {name!r}: {error}") from None
        self._zone = timezone
        self._urgent_always = urgent_always
        self._clock = clock
        self._last: tuple[Identity | None, Content | None, Denied | None] = (None, None, None)

    @hookimpl
    def permits(self, identity: Identity, permission: str, context: object) -> Denied | None:
        if permission != "send" or not isinstance(context, Message):
            return None
        whose, content, answer = self._last  # at once: other threads put their own there
        if content is not context.content or whose is not identity:  # the messages of one request share both
            answer = self._judge(identity, context.content)
            self._last = identity, context.content, answer
        return answer

    def _judge(self, identity: Identity, content: Content) -> Denied | None:
        if self._urgent_always and content.options.high_priority:
            return None
        lines = identity.nearest(self._lines)
        at = (content.options.send_at or self._clock()).astimezone(self._zone)
        minute = at.weekday() * DAY + at.hour * 60 + at.minute
        if not lines or any(minute in span for spans in lines for span in spans):
            return None
        return Denied(f"{DAYS[at.weekday()]} {at:%Y-%m-%d %H:%M %Z} is outside of the hours")


def _spans(words: list[str]) -> list[_Span]:
    """The spans of a line: days, times of these days, other days, their times …

    :raises ValueError: a word is wrong, or in a wrong place.
    """
    if not _DAYS.fullmatch(words[0]):
        _times(words[0])
        raise ValueError(f"{words[0]!r} has no day before it")
    if _DAYS.fullmatch(words[-1]):
        raise ValueError(f"{words[-1]!r} has no time after it")
    days: list[int] = []
    spans = []
    for are_days, group in groupby(words, lambda word: _DAYS.fullmatch(word) is not None):
        if are_days:
            days = [day for word in group for day in _days(word)]
        else:
            times = [_times(word) for word in group]
            spans += [_Span(day * DAY + begin, length) for day in days for begin, length in times]
    return spans


def _days(word: str) -> list[int]:
    """``Mon`` is ``[0]``, ``Sat-Mon`` is ``[5, 6, 0]``."""
    first, _, last = word.partition("-")
    begin = DAYS.index(first)
    return [(begin + more) % 7 for more in range((DAYS.index(last or first) - begin) % 7 + 1)]


def _times(word: str) -> tuple[int, int]:
    """The minute of the day at which a time begins, and how many minutes it has: ``22:00-06:00`` ends the next day.

    :raises ValueError: the word is no time.
    """
    if not (match := _TIMES.fullmatch(word)):
        raise ValueError(f"{word!r} is neither days such as Mon-Fri nor a time such as 08:00-18:00")
    begin = int(match[1]) * 60 + int(match[2])
    end = DAY if match[3] is None else int(match[3]) * 60 + int(match[4])
    if begin == end:
        raise ValueError(f"{word!r} ends when it begins; a whole day is 00:00-24:00")
    return begin, (end - begin) % DAY or DAY
