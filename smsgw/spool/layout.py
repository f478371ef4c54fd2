"""Where smsd's folders are, and what its queues and modems are called: from one folder, or from smsd's own file.

Public. smsd's manual, "Configuration" (configure.html) and "Provider sorting".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from smsgw.model import ConfigurationError

KINDS = ("outgoing", "checked", "sent", "failed", "incoming", "report")
OWNED = KINDS[:4]  # of messages on their way out, whose From is a userid

DATETIME_FORMAT = "%y-%m-%d %H:%M:%S"  # smsd's own, where its file has none

# What strftime(3) has, and Python's way back has not.
_SHORTHANDS = {"%D": "%m/%d/%y", "%e": "%d", "%F": "%Y-%m-%d", "%R": "%H:%M", "%T": "%H:%M:%S"}
_HARMFUL = {"keep_filename": "calls messages by names of its own", "outgoing_utf8": "garbles texts in UTF-8"}
_DEFAULTS = {name: f"/var/spool/sms/{name}" for name in ("outgoing", "checked", "incoming")}


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one spool.

    ``folders`` has, for each of ``KINDS``, the folders that hold messages of that kind: none where smsd keeps none,
    several where there are provider queues. ``state`` is smsgw's own. ``queues`` are the names that a ``Queue``
    header may have, ``None`` where nobody knows; ``modems`` the names of smsd's devices, as far as known.
    ``datetime_format`` is how smsd writes times (strftime(3)). ``queue_folders`` are the folders of ``checked`` by the
    names of their queues; several queues may share one.
    """

    folders: Mapping[str, tuple[Path, ...]]
    state: Path
    queues: tuple[str, ...] | None = None
    modems: tuple[str, ...] = ()
    datetime_format: str = DATETIME_FORMAT
    queue_folders: Mapping[str, Path] = field(default_factory=dict)

    @property
    def outgoing(self) -> Path:
        return self.folders["outgoing"][0]

    def has(self, id: str) -> bool:
        """Whether that message is in any of the folders that messages pass on their way out."""
        return any((folder / id).is_file() for kind in OWNED for folder in self.folders[kind])

    def moment(self, written: str | None) -> datetime | None:
        """The time (UTC) of a header such as ``Sent``, which smsd writes in the machine's own time zone.

        ``None``: there is none that can be read, or it has no year.
        """
        spelt = re.sub("%[DeFRT]", lambda match: _SHORTHANDS[match[0]], self.datetime_format)
        if not re.search("%[cGxYy]", spelt):
            return None
        try:
            return datetime.strptime(written or "", spelt).astimezone(UTC)
        except (ValueError, OverflowError, re.error):
            return None


def from_folder(spool: Path, state: Path | None = None) -> Layout:
    """The layout of a folder that holds all of ``KINDS``."""
    folders = {kind: (spool / kind,) for kind in KINDS}
    return Layout(folders, state or spool / "outgoing" / ".smsgw")


def from_smsd_conf(path: Path, state: Path | None = None) -> Layout:
    """The layout that smsd itself reads from its file.

    :raises ConfigurationError: the file cannot be read, or makes smsd do what loses or garbles messages.
    """
    sections = read_smsd_conf(path)
    main = _DEFAULTS | sections[""]
    for key, harm in _HARMFUL.items():
        if main.get(key, "yes")[:1].lower() in ("n", "f", "0") or main.get(key, "yes").lower() == "off":
            raise ConfigurationError(f"{path} has '{key} = {main[key]}', with which smsd {harm}; set it to yes")
    queues = sections.get("queues") or sections.get("queue") or {}
    folders: dict[str, tuple[Path, ...]] = {kind: (Path(main[kind]),) if main.get(kind) else () for kind in KINDS}
    if queues:
        folders["checked"] = tuple(dict.fromkeys(map(Path, queues.values())))
    outgoing = Path(main["outgoing"])
    return Layout(
        folders,
        state or outgoing / ".smsgw",
        tuple(queues),
        devices(main.get("devices", "")),
        main.get("datetime_format") or DATETIME_FORMAT,
        {name: Path(folder) for name, folder in queues.items()},
    )


def read_smsd_conf(path: Path) -> dict[str, dict[str, str]]:
    """smsd's own settings by section, as written; those of the daemon itself are under ``""``, in lower case.

    :raises ConfigurationError: the file cannot be read.
    """
    try:
        sections = _sections(path.read_text("utf-8", "replace"))
    except OSError as error:
        raise ConfigurationError(f"smsgw.smsd_conf: {path} cannot be read: {error.strerror}") from error
    sections[""] = {key: _first_choice(value) for key, value in sections[""].items()}
    return sections


def _sections(text: str) -> dict[str, dict[str, str]]:
    """``[section]`` and ``key = value`` lines as smsd takes them; what comes before the first section is under ``""``.

    Of two sections of one name the first counts, of two settings the last, of two queues the first. Settings are
    spelt in any case. A ``#`` begins a comment at the beginning of a line only.
    """
    sections: dict[str, dict[str, str]] = {"": {}}
    current = sections[""]
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and "]" in line:
            name = line[1 : line.index("]")]
            current = {}
            sections.setdefault(name, current)
        elif line and not line.startswith("#"):
            key, equals, value = (part.strip() for part in line.partition("="))
            if equals and current is sections[""]:
                current[{"spool": "outgoing"}.get(key.lower(), key.lower())] = value
            elif equals:
                current.setdefault(key, value)
    return sections


def _first_choice(value: str) -> str:
    """``? a | b`` offers a choice to who installs smsd by hand, and means ``a`` to the daemon."""
    return value[1:].partition("|")[0].strip() if value.startswith("?") else value


def devices(value: str) -> tuple[str, ...]:
    """Modem names; ``GSM* 101-103`` stands for ``GSM101``, ``GSM102``, ``GSM103``; an empty item ends the list."""
    names: list[str] = []
    for item in map(str.strip, value.split(",")):
        if not item:
            break
        if several := re.fullmatch(r"(.*)\*\s*(\d{1,6})\s*-\s*(\d{1,6})", item):
            prefix, first, last = several.groups()
            names += [f"{prefix}{number}" for number in range(int(first), min(int(last), int(first) + 999) + 1)]
        else:
            names.append(item)
    return tuple(names)
