"""The commands ``smsgw journal …``: how the journal stands, and to read all files into it once more."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from smsgw.cli.arguments import installation
from smsgw.cli.installation import Installation, make_state, using
from smsgw.cli.output import Failed, table

LOCKED = 60.0  # seconds to wait for the gateway's transactions


@click.group()
def journal() -> None:
    """The journal of messages: how it stands, and make it again from the spool."""


@journal.command()
@installation
def status(installation: Installation) -> None:
    """How many messages the journal has, and whether it has all files of the spool."""
    with _using_journal(installation) as registry:
        path = registry.journal.database.store.path
        if path is not None and not path.exists():
            raise Failed(f"there is no journal yet; the gateway makes {path} when it starts")
        found = registry.journal.standing()
    table(("status", "messages"), [(name, str(count)) for name, count in sorted(found.counts.items())])
    if found.oldest is not None:
        moment = datetime.fromtimestamp(found.oldest / 1000, UTC)
        click.echo(f"The oldest is of {moment:%Y-%m-%d %H:%M:%S} UTC.")
    click.echo(f"{found.files} files are known.")
    if not found.is_whole:
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

    with _using_journal(installation) as registry:
        from smsgw.journal.retention import (
            ALL,
            forget_messages,
            forget_reports,
        )  # SQLAlchemy takes a quarter of a second

        stop = threading.Event()
        registry.journal.database.store.wait_longer(LOCKED)
        with registry.locks.try_take("owner") or contextlib.nullcontext() as lock:
            registry.follower.read_again(tell)
            if lock is not None:  # nobody follows the folders now: what came since is for plugins, as at any start
                registry.follower.look(stop)
            if anew:
                forget_messages(registry.journal, ALL, stop)
                forget_reports(registry.journal, ALL, stop)
        registry.journal.database.analyze()
        files = registry.journal.standing().files
    if sys.stderr.isatty():
        click.echo("\r", err=True, nl=False)
    click.echo(f"The journal is made again; it has {files} files.", err=True)


@contextlib.contextmanager
def _using_journal(installation: Installation) -> Iterator[Any]:
    """The registry of that gateway, which is not served."""
    registry = installation.registry
    make_state(installation.layout)
    try:
        with using(registry.journal.database.store, installation.layout.state):
            yield registry
    except OSError as error:
        raise Failed(f"the spool cannot be read: {error}") from error
