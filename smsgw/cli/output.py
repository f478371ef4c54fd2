"""What commands print: without control characters; tables for a terminal and for a pipe."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterable, Sequence

import click

WIDE = 10_000  # columns, where there is no terminal


class _Plain(logging.Formatter):
    """A line of the log, as a command prints it."""

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        return "\n".join(f"{level}: {visible(line)}" for line in super().format(record).splitlines())


def prepare() -> None:
    """Let no character make printing fail, and show each line of the log on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort:
        logging.lastResort.setFormatter(_Plain())


def visible(text: str) -> str:
    r"""That text with escapes such as ``\x1b`` for control characters, marks of direction and the like."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def say(*lines: str) -> None:
    for line in lines:
        click.echo(visible(line))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under heads. Without a terminal each is one line, whatever its length; the first column is never broken."""
    from rich.console import Console  # it takes a tenth of a second
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, markup=False, no_color=True, width=WIDE)
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, head in enumerate(heads):
        found.add_column(head, no_wrap=place == 0, overflow="fold")
    for row in rows:
        found.add_row(*(Text(visible(cell)) for cell in row))
    with console.capture() as captured:
        console.print(found)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


class Failed(click.ClickException):
    """The command did not do what it should: lines on stderr, exit status 1."""

    def format_message(self) -> str:
        return "\n".join(map(visible, self.message.splitlines()))
