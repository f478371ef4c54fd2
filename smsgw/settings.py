"""The core's own settings, and the Colander types that plugins' settings are made of too. Public.

Every setting is declared, typed, and refused where it is unknown, before the gateway serves its first request.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import colander

from smsgw.model import ConfigurationError
from smsgw.numbers import NumberPlan
from smsgw.text import MAX_PARTS

PREFIX = "smsgw."
JOURNAL = "journal"  # its settings are the core's; all others with a dot in their names are plugins'

UNIX = "unix"  # stands for a unix socket among addresses
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
Address = ipaddress.IPv4Network | ipaddress.IPv6Network | str


class Boolean(colander.Boolean):
    """``true``, ``yes``, ``on`` or ``1``, and their opposites; anything else is refused."""

    def __init__(self) -> None:
        super().__init__(false_choices=("false", "no", "off", "0"), true_choices=("true", "yes", "on", "1"))

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        word = str(cstruct).lower()
        if word not in self.true_choices + self.false_choices:
            raise colander.Invalid(node, f"is {cstruct!r}, and should be true or false")
        return word in self.true_choices


class Number(colander.Float):
    """A number; Colander's own ``Float`` takes ``nan`` for one, which no range refuses."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        found = super().deserialize(node, cstruct)
        if found is not colander.null and not math.isfinite(found):
            raise colander.Invalid(node, f"{cstruct!r} is not a number")
        return found


class Words(colander.String):
    """Words between white space or commas, as a tuple."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        words = tuple(filter(None, re.split(r"[\s,]+", cstruct)))
        if any(word.startswith(("#", ";")) for word in words):
            raise colander.Invalid(node, "has a comment in it, and comments stand on lines of their own")
        return words


class Lines(colander.String):
    """Indented lines ``name: words`` as a dictionary; ``@name`` is a group. Each name stands once, and has words.

    :param form: how a line should be, for who wrote one that is not.
    """

    def __init__(self, form: str = "'user: …' or '@group: …'") -> None:
        super().__init__()
        self._form = form

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        found: dict[str, str] = {}
        for line in filter(None, map(str.strip, cstruct.splitlines())):
            name, colon, rest = (part.strip() for part in line.partition(":"))
            if not colon or not name or not rest:
                raise colander.Invalid(node, f"has a line {line!r}, and each should be {self._form}")
            if name in found:
                raise colander.Invalid(node, f"has two lines for {name!r}; write them as one")
            found[name] = rest
        if not found:
            raise colander.Invalid(node, "is empty; write indented lines, or leave the setting out")
        return found


class Networks(Words):
    """IP addresses and networks as a tuple; ``unix`` is a socket of that kind."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        words = super().deserialize(node, cstruct)
        if words is colander.null:
            return words
        try:
            return tuple(word if word == UNIX else ipaddress.ip_network(word) for word in words)
        except ValueError as error:
            raise colander.Invalid(node, str(error)) from error


class TimeZone(colander.String):
    """A time zone of the IANA's tables, such as ``Europe/Berlin``, as a ``ZoneInfo``."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        try:
            return zoneinfo.ZoneInfo(cstruct)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            known = zoneinfo.available_timezones()
            hint = nearest(cstruct, known) if known else "; this system has no tables: pip install tzdata"
            raise colander.Invalid(node, f"there is no time zone {cstruct!r}{hint}") from None


class Mode(colander.String):
    """A file mode in octal, such as ``0660``."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        if not re.fullmatch(r"0?[0-7]{3}", cstruct) or not int(cstruct, 8) & 0o400:
            raise colander.Invalid(
                node, f"is {cstruct!r}, and should be octal, such as 0660, and readable by the owner"
            )
        return int(cstruct, 8)


def _region(node: colander.SchemaNode, value: str) -> None:
    try:
        NumberPlan(value)
    except ValueError as error:
        raise colander.Invalid(node, f"{error}; it should be one such as RU") from error


def _header_value(node: colander.SchemaNode, value: str) -> None:
    if not is_header_value(value):
        raise colander.Invalid(node, "should be at most 99 characters, none of them a control character")


def moment(written: str) -> datetime:
    """A time with its offset from UTC.

    :raises ValueError: it is no time of RFC 3339; the message says so.
    """
    try:
        if _MOMENT.fullmatch(written):
            return datetime.fromisoformat(written)
    except ValueError:
        pass
    raise ValueError("should be a time such as 2026-12-01T08:00:00Z")


def is_header_value(value: str) -> bool:
    """Whether smsd gives that back from a header as it stands: 1 to 99 bytes, printable, no white space around it."""
    return value.isprintable() and value == value.strip() and 0 < len(value.encode(errors="surrogatepass")) <= 99


def is_userid(value: object) -> bool:
    """Whether it can stand in a spool file's ``From``, and is no group, or everybody, in the ini file."""
    return isinstance(value, str) and is_header_value(value) and not value.startswith("@") and value != "*"


class CoreSchema(colander.MappingSchema):
    """Everything under ``smsgw.`` that is no plugin's."""

    spool = colander.SchemaNode(colander.String(), missing=None, description="the folder of smsd's folders")
    smsd_conf = colander.SchemaNode(
        colander.String(),
        missing=None,
        description="or smsd's own file, from which folders, queues and modems are taken",
    )
    state = colander.SchemaNode(
        colander.String(),
        missing=None,
        description="smsgw's own folder, on the file system of outgoing; else .smsgw in there",
    )
    store = colander.SchemaNode(
        colander.String(),
        missing=None,
        description="SQLAlchemy URL of the database of plugins with a memory; else a file in smsgw's own folder",
    )
    plugins = colander.SchemaNode(Words(), missing=(), description="plugins, in the order in which they are asked")
    prefix = colander.SchemaNode(
        colander.String(),
        missing="smsgw.http.",
        validator=colander.Regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z", "may have letters, digits, '.', '_' and '-'"),
        description="how message ids, which are names of files, begin",
    )
    fsync = colander.SchemaNode(
        Boolean(), missing=True, description="whether a reply waits until the message is on disk"
    )
    outgoing_depth = colander.SchemaNode(
        colander.Integer(),
        missing=500,
        validator=colander.Range(min=0),
        description="how many files may wait with smsd, before others wait in smsgw's own folder; 0: any number",
    )
    file_mode = colander.SchemaNode(
        Mode(), missing=0o660, description="of spool files, which smsd must be able to read"
    )
    file_group = colander.SchemaNode(
        colander.String(), missing=None, description="group of spool files; else that of outgoing"
    )
    max_body = colander.SchemaNode(
        colander.Integer(),
        missing=4 * 1024 * 1024,
        validator=colander.Range(min=1),
        description="bytes of a request's body",
    )
    max_recipients = colander.SchemaNode(
        colander.Integer(), missing=10000, validator=colander.Range(1, 1000000), description="recipients of one request"
    )
    max_parts = colander.SchemaNode(
        colander.Integer(), missing=10, validator=colander.Range(1, MAX_PARTS), description="parts of one text"
    )
    default_queue = colander.SchemaNode(
        colander.String(),
        missing=None,
        validator=_header_value,
        description="smsd's queue for messages whose sender names none",
    )
    get_send = colander.SchemaNode(
        Boolean(), missing=False, description="whether messages can be sent by GET, which logs of proxies then keep"
    )
    region = colander.SchemaNode(
        colander.String(),
        missing=None,
        validator=_region,
        description="country, such as RU, in which numbers may be written without its code; else international only",
    )
    guesses_per_user = colander.SchemaNode(
        colander.Integer(),
        missing=10,
        validator=colander.Range(0, 10000),
        description="wrong passwords a minute for a user from one address; 0: no limit",
    )
    guesses_per_address = colander.SchemaNode(
        colander.Integer(),
        missing=100,
        validator=colander.Range(0, 10000),
        description="wrong passwords a minute from an address; 0: no limit",
    )
    trusted_proxies = colander.SchemaNode(
        Networks(), missing=(), description="addresses and networks whose X-Forwarded-For is believed, or unix"
    )


DAYS = colander.Range(1, 100_000)


class JournalSchema(colander.MappingSchema):
    """What ``smsgw.journal.*`` says."""

    keep_days = colander.SchemaNode(
        colander.Integer(),
        missing=365,
        validator=DAYS,
        description="days for which the journal keeps a message whose file is gone",
    )
    keep_files_days = colander.SchemaNode(
        colander.Integer(),
        missing=None,
        validator=DAYS,
        description="days after which files in sent, failed, incoming and report are deleted; else never",
    )


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """The journal's settings, as ``JournalSchema`` read them."""

    keep_days: int
    keep_files_days: int | None


@dataclass(frozen=True, slots=True)
class Settings:
    """The core's settings, as ``CoreSchema`` read them."""

    spool: str | None
    smsd_conf: str | None
    state: str | None
    store: str | None = field(repr=False)  # it may have a password in it
    plugins: tuple[str, ...]
    prefix: str
    fsync: bool
    outgoing_depth: int
    file_mode: int
    file_group: str | None
    max_body: int
    max_recipients: int
    max_parts: int
    default_queue: str | None
    get_send: bool
    region: str | None
    guesses_per_user: int
    guesses_per_address: int
    trusted_proxies: tuple[Address, ...]
    journal: JournalSettings


def refuse_defaults(defaults: Mapping[str, str]) -> None:
    """:raises ConfigurationError: one of ours stands in ``[DEFAULT]``, from which servers hand on less than all."""
    for key in defaults:
        if key.startswith(PREFIX):
            raise ConfigurationError(f"{key} stands in [DEFAULT]; move it to the application's own section")


def read_core(raw: Mapping[str, Any]) -> Settings:
    """The core's settings out of an application's.

    :raises ConfigurationError: one is wrong, or unknown.
    """
    for key, value in raw.items():
        if indented := re.search(r"^[ \t]*(smsgw\.[\w.]+)[ \t]*=", str(value), re.M):
            raise ConfigurationError(
                f"the line of {indented[1]} is indented, and so became a part of {key}; unindent it"
            )
        if "\0" in str(value):
            raise ConfigurationError(f"{key} has a NUL character in it; take it out")
    strays = [key for key in raw if not key.startswith((PREFIX, "pyramid."))]
    if strays:
        raise ConfigurationError(
            f"{strays[0]!r} is no setting: those of smsgw begin with {PREFIX!r}, and the lines of a list are indented"
        )
    own = {key.removeprefix(PREFIX): value for key, value in raw.items() if key.startswith(PREFIX)}
    own = {name: value for name, value in own.items() if "." not in name}  # the others are the journal's and plugins'
    values = read(CoreSchema(), own, PREFIX)
    if (values["spool"] is None) == (values["smsd_conf"] is None):
        raise ConfigurationError("set either smsgw.spool, the folder of smsd's folders, or smsgw.smsd_conf, its file")
    sections = _sections(raw)
    if "history" in sections or "history" in values["plugins"]:
        raise ConfigurationError(
            "history is a part of the gateway now: take it out of smsgw.plugins, and call smsgw.history.keep_days "
            "smsgw.journal.keep_days"
        )
    if JOURNAL in values["plugins"]:
        raise ConfigurationError("journal is a part of the gateway, and no plugin; take it out of smsgw.plugins")
    journal = read(JournalSchema(), sections.get(JOURNAL, {}), f"{PREFIX}{JOURNAL}.")
    return Settings(**values, journal=JournalSettings(**journal))


def plugin_settings(raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What an application's settings say for each plugin, by the names in its schema."""
    return {name: found for name, found in _sections(raw).items() if name != JOURNAL}


def _sections(raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings ``smsgw.<section>.<name>``, by their sections and names."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in raw.items():
        owner, dot, name = key.removeprefix(PREFIX).partition(".")
        if key.startswith(PREFIX) and dot:
            found.setdefault(owner, {})[name] = value
    return found


def read(schema: colander.MappingSchema, raw: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Raw settings by their schema; ``prefix`` is how the ini file spells their beginning.

    :raises ConfigurationError: one is missing, wrong or unknown; the nearest known one is named.
    """
    known = [node.name for node in schema.children]
    for name in raw:
        if name not in known:
            raise ConfigurationError(f"there is no setting {prefix + name!r}{nearest(name, known, prefix)}")
    empty = [name for name in raw if isinstance(raw[name], str) and not raw[name].strip()]
    if empty and not isinstance(schema[empty[0]].typ, Words):
        raise ConfigurationError(f"{prefix + empty[0]} is empty; give it a value, or leave it out")
    try:
        values: dict[str, Any] = schema.deserialize(dict(raw))
    except colander.Invalid as error:
        name, reason = next(iter(error.asdict().items()))
        if reason == "Required":
            raise ConfigurationError(f"{prefix}{name} is missing; set it") from None
        raise ConfigurationError(f"{prefix}{name}: {reason}") from None
    return values


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """``"; did you mean …?"`` where something known is spelt alike, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix + close[0]!r}?" if close else ""
