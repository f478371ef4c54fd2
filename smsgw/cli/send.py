"""``smsgw send``: sends messages in this process, as the gateway would for a user."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import datetime

import click
from pyramid.httpexceptions import HTTPException

from smsgw.batch import Batch, Draft, Outcome, by_number, reasons, sent
from smsgw.cli.arguments import group_option, named_installation, text_of, user_option
from smsgw.cli.installation import Installation, one_line, owner_of
from smsgw.cli.output import Failed, say, table
from smsgw.model import Identity, Options, Origin, OverLimit, TooMany, Unavailable
from smsgw.origin import make_id, within
from smsgw.refusals import NoneAccepted, Refused
from smsgw.settings import moment
from smsgw.spool.daemon import user_name


def _moment(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else moment(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@named_installation
@click.argument("text", required=False)
@user_option(required=True, help="Who sends it: policies, transforms and quotas are that user's.")
@group_option
@click.option(
    "--to", "numbers", multiple=True, required=True, metavar="NUMBER", help="A recipient; several may be given."
)
@click.option("--queue", metavar="QUEUE", help="One of smsd's queues.")
@click.option("--flash", is_flag=True, help="Show it at once on the phone, and keep it nowhere.")
@click.option("--high", "high_priority", is_flag=True, help="Before all messages of normal priority.")
@click.option("--validity", type=int, metavar="MINUTES", help="For how long the network tries.")
@click.option("--report/--no-report", default=None, help="Ask for a delivery report, or for none.")
@click.option(
    "--at",
    "send_at",
    callback=_moment,
    metavar="TIME",
    help="Send it then, such as 2026-12-01T08:00:00Z or 2026-12-01T08:00:00+01:00, and not at once.",
)
@click.option("--dry-run", is_flag=True, help="Do all but send.")
def send(
    installation: Installation,
    text: str | None,
    user: str,
    groups: frozenset[str],
    numbers: tuple[str, ...],
    queue: str | None,
    flash: bool,
    high_priority: bool,
    validity: int | None,
    report: bool | None,
    send_at: datetime | None,
    dry_run: bool,
) -> None:
    """Send TEXT as the gateway of INI would for a user.

    Without TEXT it is read from stdin. No password is asked for: whoever can read the ini file and write to the spool
    needs none. It is run as the gateway's own user. The exit status is 0 when all were accepted,
    otherwise 1.
    """
    options = Options(queue, flash, high_priority, validity, report, send_at)
    text = text_of(text)
    drafts = [Draft(number, text) for number in numbers]
    identity = Identity(user, groups)
    gateway = installation.application.gateway
    asked = Origin(make_id(), "smsgw send", account=user_name(os.getuid()))
    with within(asked), as_errors(drafts):
        if not dry_run:
            _be_the_gateway(installation)
        outcome = (gateway.prepare if dry_run else gateway.submit)(identity, Batch(drafts, options))
    _tell(drafts, outcome, dry_run)
    if reasons(drafts, outcome.rejected):
        raise click.exceptions.Exit(1)


def _be_the_gateway(installation: Installation) -> None:
    """:raises Failed: this is another user than the gateway's, who could not use the files."""
    layout = installation.layout
    owner = owner_of(layout)
    if owner is None:
        raise Failed(f"{layout.state} is not there; start the gateway once, which makes it, and try again")
    if owner != os.geteuid():
        raise Failed(
            f"the gateway runs as {user_name(owner)}, and this is {user_name(os.geteuid())}; run it as"
            f" 'runuser -u {user_name(owner)} -- smsgw send ...'"
        )


def _tell(drafts: Sequence[Draft], outcome: Outcome, dry_run: bool) -> None:
    rows = [("-" if dry_run else message.id, number, "") for number, message in sent(drafts, outcome).items()]
    rows += [("-", number, reason) for number, reason in reasons(drafts, outcome.rejected).items()]
    table(("id", "to", "refused"), rows)
    content = outcome.messages[0].content
    say("", f"parts     {content.parts} ({content.alphabet})", f"text      {content.text}")
    if dry_run:
        say("", "Nothing was sent.")


@contextlib.contextmanager
def as_errors(drafts: Sequence[Draft] = ()) -> Iterator[None]:
    """A block in which a refusal of the request becomes a ``Failed``.

    :param drafts: the request.
    :raises Failed: it was refused.
    """
    try:
        yield
    except click.ClickException:
        raise
    except Refused as error:
        refusal = by_number(drafts, error) if isinstance(error, NoneAccepted) else error
        further = [f"{name}: {reason}" for name, reason in refusal.errors.items() if reason not in refusal.detail]
        raise Failed("\n".join([refusal.detail, *further])) from error
    except OverLimit as error:
        raise Failed(error.detail) from error
    except TooMany as error:
        raise Failed(f"{error.detail} (again in {error.retry_after} seconds)") from error
    except Unavailable as error:
        raise Failed(error.detail) from error
    except HTTPException as error:
        raise Failed(f"{error.title}: {error.detail or error.explanation}") from error
    except Exception as error:
        raise Failed(f"a plugin failed: {one_line(error)}") from error
