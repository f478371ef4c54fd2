"""``whitelist``: which numbers a user may send to. It only restricts: another policy must allow sending at all."""

from __future__ import annotations

import re
from dataclasses import dataclass

import colander
from pyramid.security import Denied

from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Identity, Message
from smsgw.numbers import NumberPlan
from smsgw.settings import Lines


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Normalised numbers, and prefixes of such."""

    exact: frozenset[str]
    prefixes: tuple[str, ...]


class Whitelist:
    """A permission policy. A user's own line and those of their groups add up; who has none may send anywhere."""

    class Settings(colander.MappingSchema):
        numbers = colander.SchemaNode(Lines(), description="lines 'user: number prefix* …' and '@group: …'")

    def __init__(self, numbers: dict[str, str]) -> None:
        self._lines = {name: _read(name, words.split()) for name, words in numbers.items()}
        self._last: tuple[Identity | None, _Numbers | None] = (None, None)

    @hookimpl
    def permits(self, identity: Identity, permission: str, context: object) -> Denied | None:
        if permission != "send" or not isinstance(context, Message):
            return None
        numbers = self._of(identity)
        if numbers is None or context.to in numbers.exact or context.to.startswith(numbers.prefixes):
            return None
        return Denied("not on the whitelist")

    def _of(self, identity: Identity) -> _Numbers | None:
        """All that a user may send to, once for each request: it may be about thousands of recipients."""
        whose, numbers = self._last  # at once: other threads put their own there
        if whose is not identity:
            names = (identity.userid, *(f"@{group}" for group in identity.groups))
            lines = [self._lines[name] for name in names if name in self._lines]
            exact = frozenset[str]().union(*(line.exact for line in lines))
            prefixes = tuple(prefix for line in lines for prefix in line.prefixes)
            numbers = _Numbers(exact, prefixes) if lines else None
            self._last = identity, numbers
        return numbers


def _read(name: str, words: list[str]) -> _Numbers:
    exact, prefixes = set(), []
    for word in words:
        prefix = re.fullmatch(r"(?:\+|00)?([1-9][0-9]{0,14})\*|\*", word)
        if prefix:
            prefixes.append(prefix[1] or "")
            continue
        try:
            exact.add(NumberPlan().normalise(word))
        except ValueError:
            raise ConfigurationError(
                f"smsgw.whitelist.numbers has {word!r} for {name!r}, which is no number and no prefix such as 7916*"
            ) from None
    return _Numbers(frozenset(exact), tuple(prefixes))
