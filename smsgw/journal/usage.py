"""Reads the messages of a time out of the journal, a thousand at a time, so that writers do not wait."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import literal, select, tuple_

from smsgw.journal.journal import Journal
from smsgw.journal.tables import MESSAGES, read_message
from smsgw.model import StoredMessage

MANY = 1000  # rows of one transaction


def ended(journal: Journal, status: str, since: int, until: int) -> Iterator[StoredMessage]:
    """The messages with that status that began in that time (milliseconds since 1970; ``until`` is not in it).

    :raises Unavailable: the database is out of service.
    """
    column = MESSAGES.c
    last = (since, "")
    while True:
        with journal.database.reading() as connection:
            wanted = [column.spool == journal.reader(connection), column.status == status, column.began < until]
            after = tuple_(column.began, column.id) > tuple_(literal(last[0]), literal(last[1]))
            asked = select(MESSAGES).where(*wanted, after).order_by(column.began, column.id).limit(MANY)
            rows = [dict(row) for row in connection.execute(asked).mappings()]
        yield from map(read_message, rows)
        if len(rows) < MANY:
            return
        last = rows[-1]["began"], rows[-1]["id"]
