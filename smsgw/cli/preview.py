"""``smsgw preview``: a text as it would go out."""

from __future__ import annotations

import unicodedata

import click

from smsgw.cli.arguments import group_option, ini_option, text_of, user_option
from smsgw.cli.installation import Installation
from smsgw.cli.output import say, table
from smsgw.cli.send import as_errors
from smsgw.model import Identity
from smsgw.text import ROOM, Encoding, foreign, measure


@click.command()
@click.argument("text", required=False)
@ini_option("Show the text as the transforms of this gateway make it.")
@user_option(required=False, help="Whose text it is; needs --ini.")
@group_option
def preview(text: str | None, installation: Installation | None, user: str | None, groups: frozenset[str]) -> None:
    """Show in which alphabet, and in how many parts, TEXT goes out.

    Without TEXT it is read from stdin.
    """
    if (installation is None) != (user is None) or (groups and user is None):
        raise click.UsageError("--ini and --user go together: the text of which user, as which gateway makes it?")
    text = text_of(text)
    if installation is not None and user is not None:
        with as_errors():
            text = installation.application.gateway.transform(text, Identity(user, groups))
        say(f"text      {text}")
    encoding = measure(text)
    say(*_measures(encoding))
    if characters := foreign(text):
        say("", "These characters force UCS2:")
        table(("code", "name", "character"), [_row(character) for character in characters])
    elif encoding.alphabet == "UCS2":
        say("", "It goes as UCS2 since smsd would cut one of ^{}\\[~]|€ in two between two parts, or not read it all.")


def _measures(encoding: Encoding) -> tuple[str, ...]:
    unit = "septets" if encoding.alphabet == "GSM" else "UTF-16 units"
    single, each = ROOM[encoding.alphabet]
    room = single if encoding.parts == 1 else each
    return (
        f"alphabet  {encoding.alphabet}",
        f"parts     {encoding.parts}, of {room} {unit}",
        f"used      {encoding.units} {unit}",
        f"left      {encoding.left} {unit}, in the last part",
    )


def _row(character: str) -> tuple[str, str, str]:
    name = unicodedata.name(character, "a control character" if ord(character) < 160 else "a character without a name")
    return f"U+{ord(character):04X}", name, character
