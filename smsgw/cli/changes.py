"""What commands change, told to the plugins that want to know. Public through ``smsgw.cli``."""

from __future__ import annotations

import os

import click

from smsgw.cli.installation import Installation, as_owner, one_line, sentence
from smsgw.cli.output import visible
from smsgw.model import Change, Origin
from smsgw.origin import make_id
from smsgw.plugins import find, hooks_of, load_alone
from smsgw.spool.daemon import user_name


def tell(installation: Installation, command: str, action: str, owner: str, *ids: str) -> None:
    """Tell the plugins with the hook ``changed`` what a command has just changed; ``Change`` explains the arguments.

    No other plugin is made: a token can be revoked while the gateway would not start. A plugin that fails is named on
    stderr.
    """
    origin = Origin(make_id(), command, account=user_name(os.getuid()))
    for name in installation.smsgw.plugins:
        try:
            if "changed" in hooks_of(find(name)):
                hook = load_alone(name, installation.raw).hook
                with as_owner(installation.layout.state):  # so that the gateway's user can write to its files later
                    hook.changed(change=Change(action, owner, ids, origin))
        except Exception as error:  # a plugin's own; the change is made
            click.echo(visible(f"The plugin {name!r} has not noted this: {sentence(one_line(error))}"), err=True)
