"""Files as smsd leaves them, and what the journal of a gateway has of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy

from smsgw.hookspecs import hookimpl
from smsgw.journal.database import Database
from smsgw.journal.tables import MESSAGES as TABLE
from smsgw.model import Event, Unavailable
from smsgw.testing import Gateway
from tests import programs
from tests.conftest import eventually

MESSAGES, INBOX = "/api/v2/messages", "/api/v2/inbox"
SENT = ("sent", "delivered", "undelivered", "failed", "cancelled")
SMSGW = Path(sys.executable).with_name("smsgw")
DAY = 86400
REPORT = (
    "From: 79160000000\nModem: GSM1\nUDH: false\nAlphabet: ISO\n\nSMS STATUS REPORT\nMessage_id: {}\nStatus: {},Ok\n"
)


def sent(
    to: str = "79160000000",
    user: str = "lvv",
    reference: str = "",
    number: int | None = None,
    text: str = "Hi, Jack!",
) -> str:
    lines = [f"To: {to}", f"From: {user}", "Alphabet: UTF-8", "Modem: GSM1", "Sent: 26-11-22 09:16:03"]
    lines += [f"X-Reference: {reference}"] if reference else []
    lines += [f"Message_id: {number}"] if number is not None else []
    return "\n".join([*lines, "", text])


def received(number: str = "79161234567") -> str:
    return f"From: {number}\nReceived: 26-11-22 09:16:03\nModem: GSM1\nUDH: false\nAlphabet: UTF-8\n\nHello"


def put_old(gateway: Gateway, kind: str, name: str, content: str, days: float) -> Path:
    """A file that was last written so many days ago; it comes whole, by a rename."""
    hidden = gateway.put(kind, f".{name}", content)
    os.utime(hidden, (time.time() - days * DAY,) * 2)
    return hidden.rename(hidden.with_name(name))


def database_of(gateway: Gateway) -> Database:
    found: Database = gateway.application.journal.database
    return found


def at_work(gateway: Gateway) -> Gateway:
    """That gateway, whose journal has all folders."""
    eventually(lambda: is_whole(gateway), 30)
    return gateway


def is_whole(gateway: Gateway) -> bool:
    with contextlib.suppress(Unavailable):
        return bool(gateway.application.journal.is_whole())
    return False


def known(gateway: Gateway) -> dict[str, str]:
    """All messages that the journal has, by their statuses."""
    with contextlib.suppress(Unavailable), database_of(gateway).reading() as connection:
        return {row.id: row.status for row in connection.execute(sqlalchemy.select(TABLE.c.id, TABLE.c.status))}
    return {}


def rows(gateway: Gateway, table: sqlalchemy.Table) -> list[Any]:
    with database_of(gateway).reading() as connection:
        return list(connection.execute(table.select().order_by(*table.primary_key)).all())


def found(gateway: Gateway, query: str = "", user: str = "lvv") -> dict[str, str]:
    """All pages of a search."""
    messages: list[Any] = []
    url: str | None = f"{MESSAGES}?{query}"
    while url:
        page = gateway.get(url, user=user).json
        messages += page["messages"]
        url = page["next"]
    return {each["id"]: each["status"] for each in messages}


def ini_of(gateway: Gateway, folder: Path) -> Path:
    ini = folder / "gateway.ini"
    lines = "".join(f"{key} = {value}\n".replace("%", "%%") for key, value in gateway.settings.items())
    ini.write_text(f"[app:main]\nuse = egg:smsgw\n{lines}")
    return ini


def command(gateway: Gateway, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """``smsgw journal …`` of that gateway."""
    return programs.run([SMSGW, "journal", *words, ini_of(gateway, folder)])


class Ear:
    """A plugin that hears all events, unless it is shut."""

    def __init__(self) -> None:
        self.is_open = True
        self.heard: list[tuple[str, str]] = []

    @hookimpl
    def notify(self, events: Sequence[Event]) -> None:
        if not self.is_open:
            raise Unavailable("The ear is shut")
        self.heard += [(type(event).__name__, event.message.id) for event in events]
