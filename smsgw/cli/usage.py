"""``smsgw usage``: how much each user sent in a month."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from datetime import datetime

import click

from smsgw.cli.arguments import installation
from smsgw.cli.installation import Installation
from smsgw.cli.journal import using_journal
from smsgw.cli.output import table

SENT = ("sent", "delivered", "undelivered")  # what the network took, and charges for
HEADS = ("user", "messages", "parts", "failed")


def _month(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[datetime, datetime]:
    """The beginnings of that month and of the next, in the machine's own time zone."""
    try:
        first = datetime.strptime(value, "%Y-%m") if value else datetime.now().replace(day=1)
        following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    except ValueError:
        raise click.BadParameter("should be a month such as 2026-11", context, parameter) from None
    begin, end = (each.replace(hour=0, minute=0, second=0, microsecond=0) for each in (first, following))
    return begin.astimezone(), end.astimezone()


@click.command()
@installation
@click.option("--month", callback=_month, metavar="YYYY-MM", help="Which month. The default is the current one.")
@click.option("--csv", "is_csv", is_flag=True, help="Write CSV, without a line for all users.")
def usage(installation: Installation, month: tuple[datetime, datetime], is_csv: bool) -> None:
    """Tell how many messages and parts each user sent in a month, and how many messages failed.

    A message counts in the month in which it was accepted, once the network took it.
    """
    counts = _count(installation, *(int(each.timestamp() * 1000) for each in month))
    users = sorted({user for user, _ in counts})
    rows = [(user, *(str(counts[user, head]) for head in HEADS[1:])) for user in users]
    if is_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([HEADS, *rows])
        return
    total = [str(sum(counts[user, head] for user in users)) for head in HEADS[1:]]
    table(HEADS, [*rows, ("all", *total)])


def _count(installation: Installation, since: int, until: int) -> Counter[tuple[str, str]]:
    """How much there is of each user and each of the heads."""
    counts: Counter[tuple[str, str]] = Counter()
    with using_journal(installation) as found:
        path = found.journal.database.store.path
        if path is not None and not path.exists():
            return counts  # the gateway has not run yet
        from smsgw.journal.usage import ended  # SQLAlchemy takes a quarter of a second
        from smsgw.resources import parts

        for message in ended(found.journal, "failed", since, until):
            counts[message.owner or "", "failed"] += 1
        for status in SENT:
            for message in ended(found.journal, status, since, until):
                counts[message.owner or "", "messages"] += 1
                counts[message.owner or "", "parts"] += parts(message) or 1
    return counts
