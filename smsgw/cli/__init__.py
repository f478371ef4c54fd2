"""The command ``smsgw``: the core's own commands, and those that plugins bring. Public for these.

A plugin's commands are its class's attribute ``commands``, a Click group, which is found here under the plugin's name.
One module a command; ``docs/command-line.md`` is for operators.
"""

from __future__ import annotations

from typing import Any

import click

from smsgw.cli import check, journal, login, output, plugins, preview, send, usage
from smsgw.cli.arguments import installation
from smsgw.cli.changes import tell
from smsgw.cli.installation import Installation, Wrong, as_owner, make_state, told, using
from smsgw.cli.output import Failed, table, visible
from smsgw.model import ConfigurationError, Unavailable
from smsgw.plugins import find, offers

__all__ = [
    "Failed",
    "Installation",
    "Wrong",
    "as_owner",
    "installation",
    "main",
    "make_state",
    "table",
    "tell",
    "told",
    "using",
    "visible",
]


class Commands(click.Group):
    """The core's commands, then those of installed plugins, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *sorted(name for name in offers().names if self._of_plugin(name))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._of_plugin(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            if args[0] in offers().names:
                find(args[0])  # which says why the plugin cannot be loaded
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            raise Wrong(str(error)) from error
        except Unavailable as error:
            raise Failed(error.detail) from error

    def _of_plugin(self, name: str) -> click.Command | None:
        try:
            found = getattr(find(name), "commands", None)
        except ConfigurationError:
            return None
        return found if isinstance(found, click.Command) else None


@click.command(cls=Commands)
@click.version_option(package_name="smsgw", message="smsgw %(version)s")
def main() -> None:
    """The gateway in front of SMS Server Tools: look after it from the command line."""
    output.prepare()


for command in (
    check.check,
    journal.journal,
    login.login,
    plugins.show_plugins,
    preview.preview,
    send.send,
    usage.usage,
):
    main.add_command(command)
