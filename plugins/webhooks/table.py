"""The tables of webhooks and of their deliveries, in the gateway's database; and the webhooks."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Connection, Index, String, Text, select

from smsgw.model import Identity
from smsgw.store import Store

TABLES = sa.MetaData()
SCRIPTS = Path(__file__).parent / "migrations"

WEBHOOKS = sa.Table(
    "webhooks",
    TABLES,
    Column("id", String(32), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("groups", Text, nullable=False),  # a JSON list
    Column("url", Text, nullable=False),
    Column("events", Text, nullable=False),  # between spaces
    Column("description", Text, nullable=False),
    Column("secret", Text, nullable=False),  # in clear: each delivery is signed with it
    Column("created", BigInteger, nullable=False),  # seconds since 1970 (UTC)
    Column("credential", Text),  # what it was made with, where that can end: then the webhook ends too
    Column("signed_in", BigInteger, nullable=False, server_default="0"),  # in milliseconds: with these groups
    Index("webhooks_owner", "owner"),
)

_NUMBER = BigInteger().with_variant(sa.Integer, "sqlite")  # which counts up in that type alone

# Times are in milliseconds since 1970 (UTC).
DELIVERIES = sa.Table(
    "webhooks_deliveries",
    TABLES,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),  # in the order of events
    Column("id", String(40), nullable=False, unique=True),  # webhook-id
    Column("webhook", String(32), sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("type", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("body", Text, nullable=False),  # empty once it is delivered
    Column("attempts", sa.Integer, nullable=False),
    Column("due", BigInteger),  # when the next attempt is, or the one under way counts as lost; NULL: none any more
    Column("error", Text),  # of the last attempt; NULL: none has ended yet, or it is delivered
    Column("delivered", BigInteger),
    Column("failed", BigInteger),  # when it was given up
    Index("webhooks_deliveries_due", "webhook", "due"),
    Index("webhooks_deliveries_message", "webhook", "message"),
    Index("webhooks_deliveries_failed", "webhook", "failed"),
    Index("webhooks_deliveries_delivered", "delivered"),
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Neither the secret nor the URL, which can have a secret in it, is in a repr.

    ``maker`` is the owner as they last signed in with what the webhook was made with. ``signed_in`` says when that was,
    to the hour (milliseconds since 1970, UTC). ``created`` is in seconds.
    """

    id: str
    maker: Identity
    url: str = field(repr=False)
    events: tuple[str, ...]
    description: str
    secret: str = field(repr=False)
    created: int
    signed_in: int

    @property
    def columns(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("id", "url", "description", "secret", "created", "signed_in")},
            "owner": self.maker.userid,
            "groups": written(self.maker),
            "events": " ".join(self.events),
            "credential": self.maker.credential,
        }


def written(identity: Identity) -> str:
    return json.dumps(sorted(identity.groups))


def make_id() -> str:
    return f"wh_{secrets.token_hex(10)}"


def webhook_of(row: Any) -> Webhook:
    maker = Identity(row.owner, frozenset(json.loads(row.groups)), row.credential)
    about = (row.id, maker, row.url, tuple(row.events.split()), row.description, row.secret)
    return Webhook(*about, row.created, row.signed_in)


class Webhooks:
    """The table of webhooks. Each method raises ``Unavailable`` where the database is out of service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, webhook: Webhook, most: int) -> bool:
        """:param most: how many its owner may have; false: it would be one too many."""
        owner = webhook.maker.userid
        with self._store.begin() as connection:
            if connection.dialect.name == "postgresql":  # where counting keeps nobody else from adding one
                lock = int.from_bytes(hashlib.sha256(f"smsgw.webhooks {owner}".encode()).digest()[:8], signed=True)
                connection.execute(select(sa.func.pg_advisory_xact_lock(lock)))
            if _count(connection, owner) >= most:
                return False
            connection.execute(sa.insert(WEBHOOKS).values(**webhook.columns))
            return True

    def count(self, owner: str) -> int:
        """How many a user has."""
        with self._store.begin(is_reading=True) as connection:
            return _count(connection, owner)

    def all(self, owner: str | None = None) -> Sequence[Webhook]:
        """A user's webhooks, or everybody's, the oldest first."""
        found = select(WEBHOOKS).order_by(WEBHOOKS.c.created, WEBHOOKS.c.id)
        if owner is not None:
            found = found.where(WEBHOOKS.c.owner == owner)
        return [webhook_of(row) for row in self._store.execute(found, {})]

    def find(self, id: str, owner: str) -> Webhook | None:
        """The webhook of that id, if it is that user's."""
        rows = self._store.execute(select(WEBHOOKS).where(WEBHOOKS.c.id == id, WEBHOOKS.c.owner == owner))
        return next(map(webhook_of, rows), None)

    def remove(self, id: str) -> bool:
        """Remove it and its deliveries; false: there is none of that id."""
        return bool(self._store.execute(sa.delete(WEBHOOKS).where(WEBHOOKS.c.id == id).returning(WEBHOOKS.c.id)))


def _count(connection: Connection, owner: str) -> int:
    owned = select(sa.func.count()).select_from(WEBHOOKS).where(WEBHOOKS.c.owner == owner)
    return int(connection.execute(owned).scalar_one())
