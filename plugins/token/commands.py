"""The commands ``smsgw token …``: make, list and revoke tokens."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from smsgw.cli import Installation, installation, make_state, tell, told, using, visible
from smsgw.cli import table as print_table
from smsgw.settings import is_header_value, is_userid
from smsgw.store import Store, open_store

from . import table, text
from .table import SCRIPTS, TABLES, Record

SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
LAST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


def _lifetime(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """In seconds; ``None``: for ever."""
    if value == "never":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8})([hdwy])", value, re.A)
    seconds = int(found[1]) * SECONDS[found[2]] if found else 0
    if not found or time.time() + seconds > LAST:
        raise click.BadParameter(f"{value!r} should be such as 90d, 12h, 2w or 1y, or never")
    return seconds


def _userid(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not is_userid(value):
        raise click.BadParameter(
            "should be at most 99 bytes, printable, without white space around it, not '*', and not begin with '@'"
        )
    return value


def _groups(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """The names of groups; ``@alarms``, as in an ini file, is the group ``alarms``."""
    words = (word for value in values for word in re.split(r"[\s,]+", value) if word)
    names = dict.fromkeys(word.removeprefix("@") for word in words)
    for name in names:
        if not is_userid(name):
            raise click.BadParameter(f"{name!r} cannot be a group")
    return tuple(names)


def _comment(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not is_header_value(value):
        raise click.BadParameter("should be at most 99 bytes, printable, without white space around it")
    return value


@click.group()
def commands() -> None:
    """API tokens: make, list and revoke them."""


@commands.command()
@installation
@click.option("--user", required=True, callback=_userid, help="The user whose token it is.")
@click.option("--groups", multiple=True, callback=_groups, help="The groups that it is in, between commas or spaces.")
@click.option(
    "--expires", default="365d", show_default=True, callback=_lifetime, help="Its lifetime: 90d, 12h, 2w, 1y; or never."
)
@click.option("--comment", default="", callback=_comment, help="What it is for.")
def create(installation: Installation, user: str, groups: tuple[str, ...], expires: int | None, comment: str) -> None:
    """Make a token, and print it: this once, and on stdout."""
    token, now = text.make(), int(time.time())
    record = Record(text.id_of(token), user, " ".join(groups), comment, now, now + expires if expires else None)
    with _store(installation) as store:
        table.add(store, record, text.digest(token))
    tell(installation, "smsgw token create", "change", user, record.id)
    until = f"until {_moment(record.expires)} UTC" if record.expires else "until it is revoked"
    click.echo(f"Token {record.id} of {user}, {until}. It is shown this once:", err=True)
    click.echo(token)
    if "token" not in installation.smsgw.plugins:
        click.echo("smsgw.plugins does not name 'token': until it does, nobody gets in with it.", err=True)


@commands.command(name="list")
@installation
def list_(installation: Installation) -> None:
    """Show all tokens, also those that expired or were revoked."""
    with _store(installation) as store:
        records = table.find_all(store)
    heads = ("id", "owner", "groups", "created (UTC)", "expires", "last use", "state", "comment")
    print_table(heads, [_row(record) for record in records])


def _row(record: Record) -> tuple[str, ...]:
    return (
        *(record.id, record.owner, record.groups, _moment(record.created)),
        *(_moment(record.expires, "never"), _moment(record.used, "never")),
        *(record.state(time.time()), record.comment),
    )


@commands.command()
@click.argument("id")
@installation
def revoke(id: str, installation: Installation) -> None:
    """Revoke the token of that ID, at once and for ever."""
    with _store(installation) as store:
        record = table.revoke(store, text.id_of(id), int(time.time()))
    if record is None:
        raise click.ClickException("there is no token of that id; 'smsgw token list' shows all")
    if record.revoked is None:
        tell(installation, "smsgw token revoke", "delete", record.owner, record.id)
    done = "is revoked" if record.revoked is None else f"was revoked at {_moment(record.revoked)} UTC already"
    click.echo(visible(f"Token {record.id} of {record.owner} {done}."), err=True)


@contextlib.contextmanager
def _store(installation: Installation) -> Iterator[Store]:
    """The gateway's database, open."""
    with told():
        folder = installation.layout.state
        if installation.smsgw.store is None:
            make_state(installation.layout)
        store = open_store(installation, TABLES, SCRIPTS)
    with using(store, store.folder or folder):
        yield store


def _moment(seconds: int | None, otherwise: str = "") -> str:
    return otherwise if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
