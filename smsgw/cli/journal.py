"""The commands ``smsgw journal …``: show the state of the journal, and make it again from the files."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from smsgw.cli.arguments import installation
from smsgw.cli.installation import Installation, make_state, using
from smsgw.cli.output import Failed, table

if TYPE_CHECKING:
    from smsgw.application import Application

LOCKED = 60.0  # seconds to wait for the gateway's transactions


@click.group()
def journal() -> None:
    """The journal of messages: how it stands, and make it again from the spool."""


@journal.command()
@installation
def status(installation: Installation) -> None:
    """How many messages the journal has, and whether it has all files of the spool."""
    with using_journal(installation) as found:
        path = found.journal.database.store.path
        if path is not None and not path.exists():
            raise Failed(f"there is no journal yet; the gateway makes {path} when it starts")
        standing = found.journal.standing()
    table(("status", "messages"), [(name, str(count)) for name, count in sorted(standing.counts.items())])
    if standing.oldest is not None:
        moment = datetime.fromtimestamp(standing.oldest / 1000, UTC)
        click.echo(f"The oldest is of {moment:%Y-%m-%d %H:%M:%S} UTC.")
    click.echo(f"{standing.files} files are known.")
    if not standing.is_whole:
        click.echo("It does not have all files yet: the gateway reads them when it runs.")


@journal.command()
@installation
@click.option("--anew", is_flag=True, help="Forget messages and status reports whose files are gone.")
def rebuild(installation: Installation, anew: bool) -> None:
    """Read all files in the spool into the journal once more, while the gateway runs or not."""
    count = 0

    def tell(read: int) -> None:
        nonlocal count
        count += read
        if sys.stderr.isatty():
            click.echo(f"\r{count} read", err=True, nl=False)

    with using_journal(installation) as found:
        from smsgw.journal.retention import (
            ALL,
            forget_messages,
            forget_reports,
        )  # SQLAlchemy takes a quarter of a second

        stop = threading.Event()
        found.journal.database.store.wait_longer(LOCKED)
        with found.locks.try_take("owner") or contextlib.nullcontext() as lock:
            found.follower.read_again(tell)
            if lock is not None:  # nobody follows the folders now: what came since is for plugins, as at any start
                found.follower.look(stop)
            if anew:
                forget_messages(found.journal, ALL, stop)
                forget_reports(found.journal, ALL, stop)
        found.journal.database.analyze()
        files = found.journal.standing().files
    if sys.stderr.isatty():
        click.echo("\r", err=True, nl=False)
    click.echo(f"The journal is made again; it has {files} files.", err=True)


@contextlib.contextmanager
def using_journal(installation: Installation) -> Iterator[Application]:
    """The application of an ini file, with its journal open."""
    found = installation.application
    make_state(installation.layout)
    try:
        with using(found.journal.database.store, installation.layout.state):
            yield found
    except OSError as error:
        raise Failed(f"the spool cannot be read: {error}") from error
