"""The command ``smsgw``: the core's own commands, and those that plugins bring. Public for these.

A plugin's commands are its class's attribute ``commands``, a Click group, which is found here under the plugin's name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Any

import click
from pyramid.paster import get_appsettings

from smsgw import plugins
from smsgw.model import ConfigurationError
from smsgw.settings import Settings, plugin_settings, read, read_core
from smsgw.spool import find_layout
from smsgw.spool.layout import Layout


class Wrong(click.ClickException):
    """What stops the gateway's start stops a command too: one sentence on stderr, exit status 3."""

    exit_code = 3

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.format_message().rstrip(".") + ".", file=file, err=True)


@dataclass
class Installation:
    """The gateway of an ini file, not served.

    ``raw`` are its settings as written, ``smsgw`` the core's; ``store`` is what ``smsgw.store.open_store`` keeps here.
    """

    ini: Path
    raw: Mapping[str, str]
    smsgw: Settings
    store: Any = field(default=None, repr=False)

    @cached_property
    def layout(self) -> Layout:
        return find_layout(self.smsgw)

    def settings_of(self, name: str, schema: Any) -> dict[str, Any]:
        """The settings of that plugin, by its schema.

        :raises ConfigurationError: one is wrong.
        """
        return read(schema, plugin_settings(self.raw).get(name, {}), f"smsgw.{name}.")


def installation(command: Any) -> Any:
    """Give a command an ``Installation`` as its argument ``installation``: of the ini file that is named, or
    ``$SMSGW_INI``, or ``production.ini`` in the current folder.
    """
    argument = click.argument(
        "installation",
        metavar="[INI]",
        type=click.Path(path_type=Path),
        envvar="SMSGW_INI",
        default="production.ini",
        callback=_install,
    )
    return argument(command)


def _install(context: click.Context, parameter: click.Parameter, path: Path) -> Installation:
    if not path.is_file():
        raise click.BadParameter(f"there is no file {str(path)!r}; name the gateway's ini file", context, parameter)
    try:
        raw = get_appsettings(str(path))
    except Exception as error:  # PasteDeploy's and configparser's own
        raise Wrong(f"{path}: {' '.join(str(error).split())}") from error
    with told():
        return Installation(path, raw, read_core(raw))


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Let a ``ConfigurationError`` of the block be told as one sentence."""
    try:
        yield
    except ConfigurationError as error:
        raise Wrong(str(error)) from error


class Commands(click.Group):
    """The core's commands, then those of installed plugins, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        offers = {offer.name for offer in entry_points(group=plugins.GROUP)}
        return [*super().list_commands(ctx), *sorted(name for name in offers if self._of_plugin(name))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._of_plugin(cmd_name)

    def _of_plugin(self, name: str) -> click.Command | None:
        try:
            found = getattr(plugins.find(name), "commands", None)
        except ConfigurationError:
            return None
        return found if isinstance(found, click.Command) else None


@click.command(cls=Commands)
def main() -> None:
    """The gateway in front of SMS Server Tools: look after it from the command line."""
