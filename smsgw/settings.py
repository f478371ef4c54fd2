"""The core's own settings, and the Colander types that plugins' settings are made of too. Public.

Every setting is declared, typed, and refused where it is unknown, before the gateway serves its first request.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import math
import re
import sys
import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import colander

from smsgw.model import ConfigurationError
from smsgw.numbers import NumberPlan
from smsgw.text import MAX_PARTS

PREFIX = "smsgw."
JOURNAL, HEALTH = "journal", "health"  # their settings are the core's; all others with a second dot are plugins'

UNIX = "unix"  # a unix socket, among addresses
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
Address = ipaddress.IPv4Network | ipaddress.IPv6Network | str


class Value(colander.SchemaType):
    """The base of types that read one value. ``read`` returns what it means; its ``ValueError`` says what is wrong."""

    def read(self, value: Any) -> Any:
        raise NotImplementedError

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        try:
            return self.read(cstruct)
        except ValueError as error:
            raise colander.Invalid(node, str(error)) from None


class Boolean(Value):
    """``true``, ``yes``, ``on`` or ``1``, and their opposites; anything else is refused."""

    def read(self, value: Any) -> bool:
        if is_on(value):
            return True
        if str(value).lower() in ("false", "no", "off", "0"):
            return False
        raise ValueError(f"is {value!r}, and should be true or false")


def is_on(value: object) -> bool:
    """Whether that is one of the words for true."""
    return str(value).lower() in ("true", "yes", "on", "1")


class Number(Value):
    """A finite number."""

    def read(self, value: Any) -> float:
        with contextlib.suppress(ValueError):
            if math.isfinite(found := float(value)):
                return found
        raise ValueError(f"{value!r} is not a number")


class Words(Value):
    """Words between white space or commas, as a tuple."""

    def read(self, value: Any) -> tuple[Any, ...]:
        words = tuple(filter(None, re.split(r"[\s,]+", value)))
        if any(word.startswith(("#", ";")) for word in words):
            raise ValueError("has a comment in it, and comments stand on lines of their own")
        return words


class Lines(Value):
    """Indented lines ``name: words`` as a dictionary; ``@name`` is a group. Each name stands once, and has words.

    :param form: how a line should be; an error says so.
    """

    def __init__(self, form: str = "'user: …' or '@group: …'") -> None:
        self._form = form

    def read(self, value: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in filter(None, map(str.strip, value.splitlines())):
            name, colon, rest = (part.strip() for part in line.partition(":"))
            if not colon or not name or not rest:
                raise ValueError(f"has a line {line!r}, and each should be {self._form}")
            if name in found:
                raise ValueError(f"has two lines for {name!r}; write them as one")
            found[name] = rest
        if not found:
            raise ValueError("is empty; write indented lines, or leave the setting out")
        return found


class Networks(Words):
    """IP addresses and networks as a tuple; ``unix`` stands for a unix socket."""

    def read(self, value: Any) -> tuple[Address, ...]:
        return tuple(word if word == UNIX else ipaddress.ip_network(word) for word in super().read(value))


class TimeZone(Value):
    """A time zone of the IANA's tables, such as ``Europe/Berlin``, as a ``ZoneInfo``."""

    def read(self, value: Any) -> zoneinfo.ZoneInfo:
        try:
            return zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            known = zoneinfo.available_timezones()
            hint = nearest(value, known) if known else "; this system has no tables: pip install tzdata"
            raise ValueError(f"there is no time zone {value!r}{hint}") from None


class Mode(Value):
    """A file mode in octal, such as ``0660``."""

    def read(self, value: Any) -> int:
        if not re.fullmatch(r"0?[0-7]{3}", value) or not int(value, 8) & 0o400:
            raise ValueError(f"is {value!r}, and should be octal, such as 0660, and readable by the owner")
        return int(value, 8)


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


def _setting(typ: Any, missing: Any, description: str, validator: Any = None, **options: Any) -> Any:
    node = colander.SchemaNode(typ, missing=missing, description=description, validator=validator)
    return field(metadata={"node": node}, **options)


def _text(description: str, validator: Any = None, **options: Any) -> Any:
    """A setting that may be left out."""
    return _setting(colander.String(), None, description, validator, **options)


def _number(missing: int | None, least: int, most: int | None, description: str) -> Any:
    return _setting(colander.Integer(), missing, description, colander.Range(least, most))


def schema_of(settings: type) -> colander.MappingSchema:
    """The schema of ``Settings`` or a part of it. Fields that are parts themselves are left to schemas of their own."""
    schema = colander.MappingSchema()
    for each in fields(settings):
        if node := each.metadata.get("node"):
            schema[each.name] = node.clone()
    return schema


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """The settings ``smsgw.journal.*``."""

    keep_days: int = _number(365, 1, 100_000, "days for which the journal keeps a message whose file is gone")
    keep_files_days: int | None = _number(
        None, 1, 100_000, "days after which files in sent, failed, incoming and report are deleted; else never"
    )


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """The settings ``smsgw.health.*``."""

    listen: str | None = _setting(
        colander.String(),
        None,
        "host and port of a listener for /health alone, which answers while all threads of the server are busy",
        colander.Regex(r"([^\s:]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}\Z", "should be one such as 127.0.0.1:5001"),
    )
    stats: str | None = _text("the folder of smsd's statistics; else the one that smsd's own file names")
    smsd_is_here: bool = _setting(
        Boolean(), True, "whether smsd's processes can be seen from here, and not in a container"
    )
    stuck_seconds: int = _number(90, 10, 86_400, "seconds without progress after which a queue is stuck")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The core's settings: those under ``smsgw.`` that belong to no plugin."""

    spool: str | None = _text("the folder of smsd's folders")
    smsd_conf: str | None = _text("or smsd's own file, from which folders, queues and modems are taken")
    state: str | None = _text("smsgw's own folder, on the file system of outgoing; else .smsgw in there")
    store: str | None = _text(
        "SQLAlchemy URL of the database of plugins with a memory; else a file in smsgw's own folder",
        repr=False,  # it may have a password in it
    )
    plugins: tuple[str, ...] = _setting(Words(), (), "plugins, in the order in which they are asked")
    prefix: str = _setting(
        colander.String(),
        "smsgw.http.",
        "how message ids, which are names of files, begin",
        colander.Regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z", "may have letters, digits, '.', '_' and '-'"),
    )
    fsync: bool = _setting(Boolean(), True, "whether a reply waits until the message is on disk")
    outgoing_depth: int = _number(
        500, 0, None, "how many files may wait with smsd, before others wait in smsgw's own folder; 0: any number"
    )
    file_mode: int = _setting(Mode(), 0o660, "of spool files, which smsd must be able to read")
    file_group: str | None = _text("group of spool files; else that of outgoing")
    max_body: int = _number(4 * 1024 * 1024, 1, None, "bytes of a request's body")
    max_recipients: int = _number(10000, 1, 1000000, "recipients of one request")
    max_parts: int = _number(10, 1, MAX_PARTS, "parts of one text")
    default_queue: str | None = _text("smsd's queue for messages whose sender names none", _header_value)
    get_send: bool = _setting(Boolean(), False, "whether messages can be sent by GET, which logs of proxies then keep")
    region: str | None = _text(
        "country, such as RU, in which numbers may be written without its code; else international only", _region
    )
    guesses_per_user: int = _number(10, 0, 10000, "wrong passwords a minute for a user from one address; 0: no limit")
    guesses_per_address: int = _number(100, 0, 10000, "wrong passwords a minute from an address; 0: no limit")
    trusted_proxies: tuple[Address, ...] = _setting(
        Networks(), (), "addresses and networks whose X-Forwarded-For is believed, or unix"
    )
    journal: JournalSettings
    health: HealthSettings


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
    values = read(schema_of(Settings), own, PREFIX)
    if (values["spool"] is None) == (values["smsd_conf"] is None):
        raise ConfigurationError("set either smsgw.spool, the folder of smsd's folders, or smsgw.smsd_conf, its file")
    sections = _sections(raw)
    if "history" in sections or "history" in values["plugins"]:
        raise ConfigurationError(
            "history is a part of the gateway now: take it out of smsgw.plugins, and call smsgw.history.keep_days "
            "smsgw.journal.keep_days"
        )
    for name in (JOURNAL, HEALTH):
        if name in values["plugins"]:
            raise ConfigurationError(f"{name} is a part of the gateway, and no plugin; take it out of smsgw.plugins")
    journal = read(schema_of(JournalSettings), sections.get(JOURNAL, {}), f"{PREFIX}{JOURNAL}.")
    health = read(schema_of(HealthSettings), sections.get(HEALTH, {}), f"{PREFIX}{HEALTH}.")
    return Settings(**values, journal=JournalSettings(**journal), health=HealthSettings(**health))


def plugin_settings(raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What an application's settings say for each plugin, by the names in its schema."""
    return {name: found for name, found in _sections(raw).items() if name not in (JOURNAL, HEALTH)}


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


def pip_install(*extras: str) -> str:
    """The command that installs what smsgw lacks, for the Python that runs now."""
    return f"{sys.executable} -m pip install 'smsgw[{','.join(extras)}]'"
