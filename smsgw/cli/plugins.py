"""``smsgw plugins``: which plugins are installed, their distributions, and their settings."""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint
from typing import Any

import click
import colander
from click.shell_completion import CompletionItem

from smsgw import settings
from smsgw.cli.output import Failed, say, table
from smsgw.model import ConfigurationError
from smsgw.plugins import find, hooks_of, offers
from smsgw.settings import HEALTH, JOURNAL, PREFIX, HealthSettings, JournalSettings, Settings, nearest, schema_of

CORE = "core"

# What a value is in the ini file; of other types, such as a plugin's own, the name of their class says it.
TYPES = {
    settings.Boolean: "true or false",
    settings.Number: "number",
    settings.Words: "words",
    settings.Lines: "lines",
    settings.Networks: "addresses",
    settings.Mode: "file mode",
    colander.String: "text",
    colander.Integer: "whole number",
    colander.Float: "number",
}


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in [*_names(), CORE] if name.startswith(incomplete)]


@click.command("plugins")
@click.argument("name", required=False, shell_complete=_complete)
def show_plugins(name: str | None) -> None:
    """Tell which plugins are installed, or all about NAME.

    NAME is a plugin, or "core" for the settings that are no plugin's. The exit status is 1 where a plugin that is named
    cannot be loaded, or there is none of that name.
    """
    if name is None:
        table(("plugin", "distribution", "hooks", "what it does"), map(_row, _names()))
    elif name == CORE:
        say("core: the settings that are no plugin's.", "")
        own = ((schema_of(JournalSettings), JOURNAL), (schema_of(HealthSettings), HEALTH))
        _show_settings((schema_of(Settings), PREFIX), *((schema, f"{PREFIX}{name}.") for schema, name in own))
    else:
        _show(name)


def _row(name: str) -> tuple[str, str, str, str]:
    try:
        plugin_class = find(name)
    except ConfigurationError as error:
        return name, _distribution(name), "-", f"cannot be loaded: {error}"
    return name, _distribution(name), " ".join(_does(plugin_class)) or "-", _summary(name, plugin_class)


def _show(name: str) -> None:
    if name not in _names():
        raise Failed(f"no installed distribution has a plugin {name!r}{nearest(name, [*_names(), CORE])}")
    try:
        plugin_class = find(name)
    except ConfigurationError as error:
        raise Failed(f"{error} (distribution {_distribution(name)})") from error
    say(f"{name}: {_summary(name, plugin_class)}", "")
    say(f"distribution  {_distribution(name)}", f"class         {plugin_class.__module__}:{plugin_class.__qualname__}")
    say(f"hooks         {' '.join(_does(plugin_class)) or 'none'}", "")
    schema = getattr(plugin_class, "Settings", None)
    if schema is None:
        say("It has no settings.")
    else:
        _show_settings((schema(), f"{PREFIX}{name}."))


def _show_settings(*schemas: tuple[colander.MappingSchema, str]) -> None:
    """One table of settings: of each schema, with the beginning of their names in the ini file."""
    rows = [
        (prefix + node.name, _type(node), _default(node), node.description or "")
        for schema, prefix in schemas
        for node in schema.children
    ]
    table(("setting", "is", "default", "meaning"), rows)


def _type(node: colander.SchemaNode) -> str:
    words = next((words for kind, words in TYPES.items() if type(node.typ) is kind), type(node.typ).__name__.lower())
    validators = getattr(node.validator, "validators", [node.validator])
    for limits in validators:
        if isinstance(limits, colander.Range):
            words += "" if limits.min is None else f", from {limits.min}"
            words += (
                "" if limits.max is None else f" to {limits.max}" if limits.min is not None else f", to {limits.max}"
            )
        elif isinstance(limits, colander.OneOf):
            words = " or ".join(map(str, limits.choices))
    return words


def _default(node: colander.SchemaNode) -> str:
    value: Any = node.missing
    if value is colander.required:
        return "(needed)"
    if value is None or value is colander.drop or value == () or value == {}:
        return "(none)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(node.typ, settings.Mode):
        return f"{value:04o}"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _does(plugin_class: type) -> list[str]:
    """Its hooks, and what else it brings."""
    found = list(hooks_of(plugin_class))
    if hasattr(plugin_class, "includeme"):
        found.append("includeme")
    if hasattr(plugin_class, "commands"):
        found.append("commands")
    return found


def _summary(name: str, plugin_class: type) -> str:
    """The first line of its module's docstring, or of its own, without the plugin's name."""
    module = inspect.getmodule(plugin_class)
    lines = (inspect.getdoc(module) or inspect.getdoc(plugin_class) or "").splitlines()
    return lines[0].removeprefix(f"``{name}``: ").replace("``", "") if lines else ""


def _names() -> list[str]:
    return sorted(offers().names)


def _distribution(name: str) -> str:
    return ", ".join(sorted({_of(offer) for offer in offers() if offer.name == name}))


def _of(offer: EntryPoint) -> str:
    return f"{offer.dist.name} {offer.dist.version}" if offer.dist else "unknown"
