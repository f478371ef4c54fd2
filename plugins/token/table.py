"""Where tokens are kept: one table in the database that plugins share. Times are in seconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, MetaData, String, Table, Text, bindparam, insert, or_, select, update

from smsgw.store import Store

TABLES = MetaData()
SCRIPTS = Path(__file__).parent / "migrations"

TOKENS = Table(
    "tokens",
    TABLES,
    Column("id", String(8), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("groups", Text, nullable=False),  # between spaces
    Column("comment", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),  # NULL: never
    Column("used", BigInteger),  # within the last minute
    Column("revoked", BigInteger),
)


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a token; the token itself nobody knows but its owner."""

    id: str
    owner: str
    groups: str
    comment: str
    created: int
    expires: int | None
    used: int | None = None
    revoked: int | None = None

    def state(self, now: float) -> str:
        if self.revoked is not None:
            return "revoked"
        return "active" if self.expires is None or now < self.expires else "expired"


_COLUMNS = [TOKENS.c[name] for name in Record.__dataclass_fields__]


_FIND = select(*_COLUMNS).where(TOKENS.c.digest == bindparam("digest"))
_NOTE = (
    update(TOKENS)
    .where(TOKENS.c.id == bindparam("token"), or_(TOKENS.c.used.is_(None), TOKENS.c.used < bindparam("now")))
    .values(used=bindparam("now"))
)


def find_by_id(store: Store, id: str) -> Record | None:
    with store.begin(is_reading=True) as connection:
        row = connection.execute(select(*_COLUMNS).where(TOKENS.c.id == id)).one_or_none()
        return None if row is None else _record(row)


def find(store: Store, digest: str) -> Record | None:
    """The token of that digest, if there is one."""
    rows = store.execute(_FIND, {"digest": digest})
    return _record(rows[0]) if rows else None


def note(store: Store, id: str, now: int) -> None:
    """Note that a token was used."""
    store.execute(_NOTE, {"token": id, "now": now})


def add(store: Store, record: Record, digest: str) -> None:
    values = {name: getattr(record, name) for name in Record.__dataclass_fields__}
    with store.begin() as connection:
        connection.execute(insert(TOKENS).values(digest=digest, **values))


def all_of(store: Store) -> Sequence[Record]:
    """The eldest first."""
    with store.begin(is_reading=True) as connection:
        return [_record(row) for row in connection.execute(select(*_COLUMNS).order_by(TOKENS.c.created, TOKENS.c.id))]


def revoke(store: Store, id: str, now: int) -> Record | None:
    """The token as it was, if there is one of that id; from now on it is worth nothing."""
    with store.begin() as connection:
        row = connection.execute(select(*_COLUMNS).where(TOKENS.c.id == id)).one_or_none()
        if row is not None and row.revoked is None:
            connection.execute(update(TOKENS).where(TOKENS.c.id == id).values(revoked=now))
        return None if row is None else _record(row)


def _record(row: Sequence[Any]) -> Record:
    return Record(*row)
