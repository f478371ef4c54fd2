"""The commands ``smsgw history …``: how the index stands, and to make it again from the spool."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from smsgw.cli import Failed, Installation, Wrong, installation, make_state, table, using

from . import home
from .rebuild import rebuild

if TYPE_CHECKING:
    from . import History


@click.group()
def commands() -> None:
    """The index of messages: how it stands, and make it again from the spool."""


@commands.command(name="rebuild")
@installation
@click.option("--anew", is_flag=True, help="Forget all first, also messages whose files are gone.")
def rebuild_(installation: Installation, anew: bool) -> None:
    """Make the index again from the files in the spool, while the gateway runs or not."""
    count = 0

    def tell(read: int) -> None:
        nonlocal count
        count = read
        if sys.stderr.isatty():
            click.echo(f"\r{read} read", err=True, nl=False)

    with _history(installation) as history:
        home.make(history.store)
        arguments = history.index, history.census, history.beginnings
        is_done = rebuild(*arguments, threading.Event(), anew=anew, tell=tell)
    if sys.stderr.isatty():
        click.echo("\r", err=True, nl=False)
    if not is_done:
        raise Failed("another rebuild began meanwhile, and goes on")
    click.echo(f"The index is made; {count} times something was read of a message.", err=True)


@commands.command()
@installation
def status(installation: Installation) -> None:
    """How many messages the index has, and whether searches use it."""
    with _history(installation) as history:
        found = history.index.standing()
    rows = [(name, str(count)) for name, count in sorted(found.counts.items())]
    table(("status", "messages"), rows)
    if found.oldest is not None:
        click.echo(f"The oldest is of {_moment(found.oldest)} UTC.")
    if not (found.is_complete and found.beat):
        click.echo("It is not complete: searches look into the folders until it is.")
    else:
        click.echo(f"It was up to date at {_moment(found.beat)} UTC; searches use it for half a minute from then on.")


@contextlib.contextmanager
def _history(installation: Installation) -> Iterator[History]:
    """The plugin of that gateway, which is not served."""
    plugin: History | None = installation.registry.plugins.get_plugin("history")
    if plugin is None:
        raise Wrong("smsgw.plugins does not name 'history'; put it there")
    folder = plugin.store.folder
    if folder is not None and folder.parent == installation.layout.state:
        make_state(installation.layout)
    try:
        with using(plugin.store, folder.parent if folder else installation.layout.state):
            yield plugin
    except OSError as error:
        raise Failed(f"the spool cannot be read: {error}") from error


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
