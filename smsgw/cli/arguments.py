"""Arguments and options that several commands have: an ini file, a user, groups, a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from smsgw.cli.installation import INI, INI_PATH, Installation, install
from smsgw.settings import is_userid

MAX_STDIN = 1024 * 1024  # bytes: no text is longer


def installation(command: Any) -> Any:
    """Give a command the argument ``installation``, an ``Installation``.

    Its ini file is the one that is named, or ``$SMSGW_INI``, or ``production.ini`` in the current folder.
    """
    return _installed("[INI]", envvar="SMSGW_INI", default=INI)(command)


def named_installation(command: Any) -> Any:
    """The same, where the ini file must be named: another argument could be taken for it."""
    return _installed("INI", required=True)(command)


def ini_option(help: str) -> Any:
    """The same, as an option."""
    return click.option("--ini", "installation", metavar="INI", type=INI_PATH, callback=_install, help=help)


def user_option(**attributes: Any) -> Any:
    return click.option("--user", metavar="USER", callback=_userid, **attributes)


def _groups(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> frozenset[str]:
    """Groups: ``alarms,ops`` or ``--groups alarms --groups ops``; ``@alarms``, as in the ini file, is also taken."""
    words = [word.strip().removeprefix("@") for written in value for word in written.split(",")]
    if not all(words):
        raise click.BadParameter("name groups, with commas between them", context, parameter)
    return frozenset(words)


group_option = click.option(
    "--groups", multiple=True, metavar="GROUP,...", callback=_groups, help="Groups that the user is in."
)


def text_of(argument: str | None) -> str:
    """The text that a command is given, or that is on stdin, without the line break at its end.

    :raises click.UsageError: there is none.
    """
    text = from_stdin("the text on stdin") if argument is None else argument
    if not text:
        raise click.UsageError("there is no text")
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        raise click.UsageError("the text is not UTF-8") from None
    return text


def from_stdin(what: str) -> str:
    """All of stdin, without the line break at its end; ``what`` is how an error calls it.

    :raises click.UsageError: it is too long, or not UTF-8.
    """
    content = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(content) > MAX_STDIN:
        raise click.UsageError(f"{what} has over {MAX_STDIN} bytes")
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError(f"{what} is not UTF-8") from None


def _installed(metavar: str, **attributes: Any) -> Any:
    return click.argument("installation", metavar=metavar, type=INI_PATH, callback=_install, **attributes)


def _install(context: click.Context, parameter: click.Parameter, path: Path | None) -> Installation | None:
    return None if path is None else install(path)


def _userid(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not is_userid(value):
        raise click.BadParameter(
            "a userid has 1 to 99 bytes, no control character, and no @ at its beginning", context, parameter
        )
    return value
