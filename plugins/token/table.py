"""The table of tokens, in the gateway's database. Times are in seconds since 1970 (UTC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import BigInteger, Column, ColumnElement, MetaData, String, Table, Text, insert, or_, select, update

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
    Column("used", BigInteger),  # the last time, to the minute
    Column("revoked", BigInteger),
)


@dataclass(frozen=True, slots=True)
class Record:
    """A row without its digest: the token itself is kept nowhere."""

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


def find(store: Store, where: ColumnElement[bool]) -> Record | None:
    rows = store.execute(select(*_COLUMNS).where(where))
    return Record(**rows[0]._asdict()) if rows else None


def find_all(store: Store) -> Sequence[Record]:
    """All tokens, the oldest first."""
    return [Record(**row._asdict()) for row in store.execute(select(*_COLUMNS).order_by(TOKENS.c.created, TOKENS.c.id))]


def add(store: Store, record: Record, digest: str) -> None:
    values = {name: getattr(record, name) for name in Record.__dataclass_fields__}
    store.execute(insert(TOKENS).values(digest=digest, **values))


def note_use(store: Store, id: str, now: int) -> None:
    is_older = or_(TOKENS.c.used.is_(None), TOKENS.c.used < now)
    store.execute(update(TOKENS).where(TOKENS.c.id == id, is_older).values(used=now))


def revoke(store: Store, id: str, now: int) -> Record | None:
    """Revoke the token of that id, unless it is revoked already; the token as it was, or ``None``: there is none."""
    record = find(store, TOKENS.c.id == id)
    store.execute(update(TOKENS).where(TOKENS.c.id == id, TOKENS.c.revoked.is_(None)).values(revoked=now))
    return record
