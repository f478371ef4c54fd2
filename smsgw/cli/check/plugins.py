"""Plugins and settings: whether the gateway would start with them, and what is unwise about them."""

from __future__ import annotations

import contextlib
import logging
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import pluggy

from smsgw.cli.check.finding import Findings, Topic
from smsgw.cli.installation import Installation, Wrong, one_line
from smsgw.gateway import transformed
from smsgw.model import Identity
from smsgw.plugins import Misbehaved, hooks_of, implementations
from smsgw.refusals import Invalid
from smsgw.settings import is_on
from smsgw.text import foreign

PLUGINS, SETTINGS = Topic("plugins"), Topic("settings")
PRIVATE = ("htpasswd.path", "password_file", "secret_file")  # how settings end that name files of secrets
WORD = "abc"  # a text that every transform lets pass

# Pairs of shipped plugins that should stand the other way round, and why.
WRONG_ORDER = (
    ("signature", "transliterate", "so that what signature adds is transliterated too"),
    ("limit", "transliterate", "so that texts are cut that transliterate would make short enough"),
    *(
        (other, "template", f"so that {other} changes how a client names a template, and not the text")
        for other in ("transliterate", "signature", "limit")
    ),
    *(
        (other, "token", f"so that {other} refuses a token that a client shows as its password")
        for other in ("htpasswd", "ldap")
    ),
    ("ldap", "htpasswd", "so that an account in htpasswd does not get in while the directory is out of service"),
)


class _Heard(logging.Handler):
    """What plugins warn of when they are made."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "smsgw.plugins":  # whose warnings are findings of our own
            self.sentences.append(record.getMessage().splitlines()[0])


def check_start(installation: Installation) -> Findings:
    """Whether the gateway would start: every plugin is made with its settings, and all routes and views are."""
    heard, log = _Heard(), logging.getLogger()
    log.addHandler(heard)
    try:
        found = installation.application
    except Wrong as error:
        yield PLUGINS.stops(error.message)
        return
    finally:
        log.removeHandler(heard)
    yield PLUGINS.ok(f"the gateway starts with {', '.join(installation.smsgw.plugins) or 'no plugins'}")
    for sentence in heard.sentences:
        yield PLUGINS.warning(f"a plugin warns: {sentence}", "See to it, or to the plugin's settings.")
    hook = found.plugins.hook
    if not implementations(hook.authenticate):
        yield PLUGINS.error("no plugin knows users, so nobody gets in", "Name one in smsgw.plugins, such as htpasswd.")
    if not implementations(hook.permits):
        yield PLUGINS.error("no plugin permits anything", "Name one in smsgw.plugins, such as allow.")
    for name in installation.smsgw.plugins:
        plugin_class = type(found.plugins.get_plugin(name))
        if not hooks_of(plugin_class) and not hasattr(plugin_class, "includeme"):
            yield PLUGINS.warning(
                f"{name} has no hook, and does nothing", "Mark its methods @hookimpl, or take it out."
            )
    yield from _check_text(implementations(hook.transform))


def _check_text(transforms: Sequence[pluggy.HookImpl]) -> Findings:
    text = WORD
    for implementation in transforms:
        try:
            text = transformed(implementation, text, Identity("smsgw-check"))
        except Invalid:
            return
        except Exception as error:
            name, why = implementation.plugin_name, error.sentence if isinstance(error, Misbehaved) else one_line(error)
            yield PLUGINS.error(f"{name} fails to transform {WORD!r}: {why}", "Nothing can be sent; correct it.")
            return
    if characters := foreign(text):
        yield PLUGINS.warning(
            f"every text goes out as UCS2, in twice the parts and more, for the {characters!r} that plugins add",
            "Use characters of the GSM alphabet there; 'smsgw preview' tells which are.",
        )


def check_order(installation: Installation) -> Findings:
    names = installation.smsgw.plugins
    for first, second, why in WRONG_ORDER:
        if first in names and second in names and names.index(first) < names.index(second):
            yield PLUGINS.warning(f"{second} stands after {first}, {why}", f"Write {second} before {first}.")
    if "simulator" in names:
        yield PLUGINS.warning(
            "the simulator plays smsd, and no message reaches a phone",
            "Take simulator out of smsgw.plugins where messages are meant.",
        )


def check_settings(installation: Installation) -> Findings:
    """What is unwise about settings that are possible."""
    settings, raw = installation.smsgw, installation.raw
    for name in ("guesses_per_user", "guesses_per_address"):
        if getattr(settings, name) == 0:
            yield SETTINGS.warning(
                f"smsgw.{name} is 0, and passwords can be guessed as fast as they are sent", "Set a limit."
            )
    if not settings.fsync:
        yield SETTINGS.warning("smsgw.fsync is off, and a power failure loses acknowledged messages", "Set it to true.")
    if settings.get_send:
        yield SETTINGS.ok("messages can be sent by GET, and their texts stand in the logs of proxies")
    for network in settings.trusted_proxies:
        if getattr(network, "prefixlen", 1) == 0:
            yield SETTINGS.error(
                f"smsgw.trusted_proxies has {network}, and any client can claim any address", "Name the proxy's own."
            )
    for key, value in raw.items():
        if ".insecure_" in key and is_on(value):
            yield SETTINGS.warning(f"{key} is on, and what it says is given up", "Take it out.")
    if "pyramid_debugtoolbar" in raw.get("pyramid.includes", ""):
        yield SETTINGS.error(
            "pyramid.includes has pyramid_debugtoolbar, which runs code for whoever asks", "Take it out."
        )
    yield from _check_files(installation)


def _check_files(installation: Installation) -> Findings:
    """Who can read and change the ini file, and the files of secrets that it names."""
    raw, ini = installation.raw, installation.ini
    mode = ini.stat().st_mode
    if mode & stat.S_IWOTH:
        yield SETTINGS.error(f"everybody can change {ini}", f"chmod o-w {ini}")
    if mode & stat.S_IROTH and any(_is_secret(key, value) for key, value in raw.items()):
        yield SETTINGS.warning(f"everybody can read {ini}, and a password stands in it", f"chmod o-r {ini}")
    for path in [Path(value) for key, value in raw.items() if key.endswith(PRIVATE)]:
        with contextlib.suppress(OSError, ValueError):  # which the plugin tells
            mode = path.stat().st_mode
            if mode & stat.S_IWOTH:
                yield SETTINGS.error(f"everybody can change {path}", f"chmod o-w {path}")
            if mode & stat.S_IROTH:
                yield SETTINGS.warning(f"everybody can read {path}", f"chmod o-r {path}")


def _is_secret(key: str, value: str) -> bool:
    return bool(re.search(r"://[^/\s:@]*:[^/\s@]+@", value) or re.search(r"(secret|password|token)$", key))
