"""Which messages are on a page: asked so that the database reads no more of them than it shows.

One index of the table has them in order; each status has its own part of it, so that there are several to be merged.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, literal, select, tuple_, union_all

from smsgw.journal.tables import MESSAGES, key
from smsgw.model import Query

ALL = 2**62  # rows: an inner LIMIT, so that the database does not choose another index for the outer conditions


def page(query: Query) -> Select[Any]:
    """The ids of a page, from the one index of the table that has them in order."""
    table = MESSAGES.c
    times: list[ColumnElement[bool]] = [table.began >= query.since]
    if query.before is not None:
        began, id = query.before  # out of a cursor, which anybody can write
        times.append(tuple_(table.began, table.id) < tuple_(literal(max(min(began, ALL), -ALL)), literal(key(id))))
    newest = (table.began.desc(), table.id.desc())
    number = query.to if query.to is not None else query.sender
    owner = [] if query.owner is None else [table.owner == key(query.owner)]
    if query.reference is None and number is None:
        each = [
            select(table.id, table.began)
            .where(table.status == name, *owner, *times)
            .order_by(*newest)
            .limit(query.limit)
            for name in query.statuses
        ]
        found = union_all(*(one.subquery().select() for one in each)).subquery()
        return select(found.c.id).order_by(found.c.began.desc(), found.c.id.desc()).limit(query.limit)
    by = table.reference == key(query.reference) if query.reference is not None else table.number == key(number)
    some = select(MESSAGES).where(by, *times).order_by(*newest).limit(ALL).subquery().c
    wanted: list[ColumnElement[bool]] = [some.status.in_(query.statuses)]
    if query.owner is not None:
        wanted.append(some.owner == key(query.owner))
    if number is not None:
        wanted.append(some.number == key(number))
    # In the order of the inner one; said again, it would let SQLite read and sort all of that number or reference.
    return select(some.id).where(*wanted).limit(query.limit)
