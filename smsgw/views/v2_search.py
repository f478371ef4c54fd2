"""Searches of the v2 API: filters in the query, and cursors that carry them from page to page.

A cursor names the position of the last message of a page, which stays valid while messages come and go. It gives no
right: policies are asked for each page. A digest in it shows whether it was changed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pyramid.request import Request

from smsgw.model import Position, Query
from smsgw.refusals import Invalid
from smsgw.settings import moment
from smsgw.spool.file import is_message
from smsgw.views.body import flaw
from smsgw.views.problem import Malformed

LIMIT, MOST = 50, 100  # messages of a page, where the client does not say, and at most
DIGEST = 9  # bytes
LATEST = 2**62  # milliseconds since 1970: what a database takes for a time

Filters = dict[str, str]
Read = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Search:
    """What a client looks for: filters by their names, where the page begins, and how long it is."""

    filters: Filters
    before: Position | None
    limit: int

    def among(self, query: Query) -> Query:
        """That query, for this page, and within the times that the client says."""
        before, since = self.before, 0
        if "until" in self.filters:
            until = (_milliseconds(self.filters["until"]), "")
            before = until if before is None else min(before, until)
        if "since" in self.filters:
            since = _milliseconds(self.filters["since"])
        return replace(query, since=since, before=before, limit=self.limit)

    def next(self, path: str, last: Position | None) -> str | None:
        """The URL of the next page."""
        return None if last is None else f"{path}?cursor={_cursor(self.filters, last, self.limit)}"


def read_search(request: Request, readers: Mapping[str, Read]) -> Search:
    """What the query asks for.

    :param readers: check a filter's value, by its name, and write it plainly.
    :raises Malformed: something in it is unknown, stands twice, or is wrong.
    """
    query = read_query(request, {*readers, "limit", "cursor"})
    limit = _limit(query.pop("limit")) if "limit" in query else None
    if "cursor" in query:
        if query.keys() != {"cursor"}:
            raise Malformed("Nothing but limit goes with a cursor, which has the filters in it")
        return _continued(query["cursor"], readers, limit)
    return Search(_checked(query, readers), None, limit or LIMIT)


def read_query(request: Request, known: Collection[str]) -> dict[str, str]:
    """What the query says, by the names of its parameters; an empty one counts as left out.

    :raises Malformed: a parameter is unknown, stands twice, or is not UTF-8.
    """
    try:
        pairs = [(name, value) for name, value in request.GET.items() if value]
    except UnicodeError:
        raise Malformed("The query string is not UTF-8") from None
    query = dict(pairs)
    for name in query.keys() - set(known):
        raise Malformed(f"There is no parameter {name[:64]!r}")
    for name in query:
        if [other for other, _ in pairs].count(name) > 1:
            raise Malformed(f"{name} stands twice")
    return query


def number_filter(normalise: Callable[[str], str]) -> Read:
    """Reads a phone number, whose plus can arrive as the space that it stands for in a query."""

    def read(value: str) -> str:
        return normalise(re.sub(r"\A ", "+", value))

    return read


def time_filter(value: str) -> str:
    moment(value.replace(" ", "+"))
    return value.replace(" ", "+")


def word_filter(value: str) -> str:
    """Any word that a header may hold."""
    if reason := flaw(value):
        raise ValueError(reason)
    if len(value) > 99:
        raise ValueError("should have at most 99 characters")
    return value


def _checked(query: Mapping[str, str], readers: Mapping[str, Read]) -> Filters:
    filters = {}
    for name, value in query.items():
        try:
            filters[name] = readers[name](value)
        except ValueError as error:
            raise Malformed(f"{name}: {error}") from None
    return filters


def _limit(written: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", written, re.ASCII) or not 1 <= int(written) <= MOST:
        raise Malformed(f"limit should be 1 to {MOST}")
    return int(written)


def _milliseconds(written: str) -> int:
    return int(moment(written).timestamp() * 1000)


def _cursor(filters: Filters, last: Position, limit: int) -> str:
    content = json.dumps([filters, *last, limit], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_digest(content) + content).rstrip(b"=").decode()


def _continued(cursor: str, readers: Mapping[str, Read], limit: int | None) -> Search:
    try:
        decoded = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        digest, content = decoded[:DIGEST], decoded[DIGEST:]
        if digest != _digest(content):
            raise ValueError
        filters, began, name, its_limit = json.loads(content)
        if not _is_cursor(filters, began, name, its_limit) or filters.keys() - readers.keys():
            raise ValueError
        return Search(_checked(filters, readers), (began, name), limit or its_limit)
    except (ValueError, TypeError, RecursionError, binascii.Error, Invalid):
        raise Malformed("That is no cursor of this search") from None


def _is_cursor(filters: Any, began: Any, name: Any, limit: Any) -> bool:
    return (
        isinstance(filters, dict)
        and all(isinstance(value, str) for value in filters.values())
        and type(began) is int
        and abs(began) < LATEST
        and isinstance(name, str)
        and is_message(name)
        and type(limit) is int
        and 1 <= limit <= MOST
    )


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()
