"""The commands ``smsgw webhooks …``: list everybody's webhooks, remove one, and a receiver for trying things out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click

from smsgw.cli import Failed, Installation, installation, table, tell, told, using, visible
from smsgw.store import open_store

from .failures import Failures
from .signature import PREFIX, check_secret, is_right
from .table import SCRIPTS, TABLES, Webhooks

MOST = 1024 * 1024  # bytes of a body that the receiver reads


@click.group()
def commands() -> None:
    """Webhooks: list and remove them, and receive what they tell."""


@commands.command(name="list")
@installation
def list_(installation: Installation) -> None:
    """Show everybody's webhooks, how much waits for each, and how much was given up."""
    with _tables(installation) as (webhooks, failures):
        rows = [
            (
                *(each.id, each.maker.userid, each.maker.credential or "", _moment(each.signed_in)),
                *(each.url, " ".join(each.events), *map(str, failures.counts(each.id))),
            )
            for each in webhooks.all()
        ]
    table(("id", "owner", "made with", "signed in (UTC)", "URL", "events", "waiting", "failed"), rows)


@commands.command()
@click.argument("id")
@installation
def remove(id: str, installation: Installation) -> None:
    """Remove the webhook of that ID, and all that waits for it."""
    with _tables(installation) as (webhooks, _):
        owners = [each.maker.userid for each in webhooks.all() if each.id == id]
        if not webhooks.remove(id):
            raise click.ClickException("there is no webhook of that id; 'smsgw webhooks list' shows all")
    tell(installation, "smsgw webhooks remove", "delete", "".join(owners), id)
    click.echo(visible(f"The webhook {id} is removed."), err=True)


def _secret(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            check_secret(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return value


@commands.command()
@click.option("--secret", callback=_secret, help=f"The webhook's secret, {PREFIX}…, by which signatures are checked.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=5080, show_default=True, type=click.IntRange(0, 65535), help="The port.")
def listen(secret: str | None, host: str, port: int) -> None:
    """Receive events and show them, for trying things out; Ctrl-C ends it."""
    try:
        server = ThreadingHTTPServer((host, port), _receiver(secret))
    except OSError as error:
        raise Failed(f"cannot listen on {host}:{port}: {error.strerror}") from error
    with server:
        unchecked = "" if secret else "; without --secret no signature is checked"
        click.echo(f"Listening on http://{host}:{server.server_address[1]}/{unchecked}", err=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _receiver(secret: str | None) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        """Shows what comes in, and answers 204 if it is signed right."""

        timeout = 10

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            body = self.rfile.read(int(length)) if length.isdecimal() and int(length) <= MOST else b""
            is_good = secret is None or is_right(secret, dict(self.headers), body)
            judgement = "was not checked" if secret is None else "is right" if is_good else "is wrong"
            title = visible(f"{self.headers.get('webhook-id', '')}: the signature {judgement}")
            # Before the answer, and in one piece: others come at the same time.
            click.echo(f"{title}\n{_shown(body)}")
            self.send_response(204 if is_good else 401)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Log nothing: ``do_POST`` shows what comes in."""

    return Receiver


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M") if milliseconds else "never"


def _shown(body: bytes) -> str:
    """JSON for people, without control characters."""
    try:
        return json.dumps(json.loads(body), indent=2)
    except (ValueError, RecursionError):
        return visible(repr(body))


@contextlib.contextmanager
def _tables(installation: Installation) -> Iterator[tuple[Webhooks, Failures]]:
    """The gateway's tables of webhooks, open."""
    with told():
        store = open_store(installation, TABLES, SCRIPTS)
    with using(store, store.folder or installation.layout.state):
        yield Webhooks(store), Failures(store, 0)
