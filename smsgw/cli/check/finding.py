"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from smsgw.cli.installation import Installation


class Level(IntEnum):
    """How bad it is. The numbers are the exit status, as Nagios plugins have it."""

    OK = 0
    WARNING = 1
    ERROR = 2
    STOPS = 3  # the gateway would not start, or the check failed


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one topic, and what to do about it."""

    level: Level
    topic: str
    sentence: str
    remedy: str = ""


Findings = Iterator[Finding]
Check = Callable[[Installation], Findings]


@dataclass(frozen=True, slots=True)
class Topic:
    """Makes findings about one topic."""

    name: str

    def ok(self, sentence: str) -> Finding:
        return Finding(Level.OK, self.name, sentence)

    def warning(self, sentence: str, remedy: str) -> Finding:
        return Finding(Level.WARNING, self.name, sentence, remedy)

    def error(self, sentence: str, remedy: str) -> Finding:
        return Finding(Level.ERROR, self.name, sentence, remedy)

    def stops(self, sentence: str, remedy: str = "") -> Finding:
        return Finding(Level.STOPS, self.name, sentence, remedy)
