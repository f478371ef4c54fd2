"""smsd: whether it runs, as whom, and what its own file says."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shlex
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from smsgw.cli.check.finding import Findings, Topic
from smsgw.cli.installation import Installation, user_name
from smsgw.model import ConfigurationError
from smsgw.settings import is_on
from smsgw.spool.layout import from_smsd_conf, read_smsd_conf

SMSD = Topic("smsd")
CONF = Path("/etc/smsd.conf")
PIDFILE = "/var/run/smsd.pid"  # smsd's default
DEFAULTS = Path("/etc/default/smstools")  # of Debian's init script, which overrides CONF

WANTED = (
    ("trust_outgoing", "smsd takes two messages a second at the most"),
    ("notifier", "smsd sees a message only at its next look, seconds later"),
)
KEPT = (
    ("sent", "nobody can know what was sent, and nothing can be cancelled"),
    ("failed", "messages that fail are deleted, and nothing can be cancelled"),
    ("report", "delivery reports lie among received messages"),
)


@dataclass(frozen=True, slots=True)
class Daemon:
    """The user and the groups that smsd has, or would have; ``pid`` where it runs."""

    uid: int
    groups: frozenset[int]
    pid: int | None = None

    @property
    def name(self) -> str:
        return user_name(self.uid)

    def __str__(self) -> str:
        names = sorted(map(group_name, self.groups))
        return f"{self.name} with the group{'s' if names[1:] else ''} {', '.join(names)}"

    def may_read(self, owner: int, group: int, mode: int, users: Collection[int] = ()) -> bool:
        """Whether it may read a file of that owner, group and mode.

        :param users: who may do with it what its group may.
        """
        if self.uid == 0:
            return True
        if self.uid == owner:
            return bool(mode & stat.S_IRUSR)
        return bool(mode & (stat.S_IRGRP if self.uid in users or group in self.groups else stat.S_IROTH))

    def may_change(self, folder: os.stat_result) -> bool:
        """Whether it may move other users' files out of that folder."""
        if self.uid in (0, folder.st_uid):
            return self.uid == 0 or bool(folder.st_mode & stat.S_IWUSR)
        if folder.st_mode & stat.S_ISVTX:
            return False
        return bool(folder.st_mode & (stat.S_IWGRP if folder.st_gid in self.groups else stat.S_IWOTH))


def check_settings(installation: Installation) -> Findings:
    """What smsd's own file says."""
    path = conf_of(installation)
    if path is None:
        yield SMSD.ok("smsgw.spool is set, and smsd's own settings are not known; smsgw.smsd_conf would tell them")
        return
    sections = read_smsd_conf(path)
    own = sections[""]
    if "simulator" in installation.smsgw.plugins:
        yield SMSD.error(
            f"the simulator takes the messages of the smsd of {path}", "Take simulator out of smsgw.plugins."
        )
    for key, harm in WANTED:
        if not is_on(own.get(key, "no")):
            yield SMSD.warning(f"{path} has no '{key} = yes', and {harm}", f"Add '{key} = yes' and restart smsd.")
    for key, harm in KEPT:
        if not own.get(key):
            yield SMSD.warning(
                f"{path} names no folder for '{key}', and {harm}",
                f"Make a folder that belongs to smsd's user, add '{key} = FOLDER', restart smsd and then the gateway.",
            )
    yield from _check_modems(path, installation.layout.modems, sections)


def _check_modems(path: Path, modems: tuple[str, ...], sections: Mapping[str, Mapping[str, str]]) -> Findings:
    if not modems:
        yield SMSD.error(f"{path} names no modem", "Add 'devices = GSM1', and a section [GSM1].")
    for modem in modems:
        section = {key.lower(): value for key, value in sections.get(modem, {}).items()}
        device = section.get("device", "")
        if modem not in sections:
            yield SMSD.error(f"{path} has no section [{modem}]", "Add one, with the modem's device.")
        elif not device:
            yield SMSD.error(f"{path} names no device of {modem}", f"Add 'device = /dev/...' to [{modem}].")
        elif device.startswith("/") and not Path(device).exists():
            yield SMSD.warning(f"there is no {device}, where the modem {modem} should be", "Is it plugged in?")
    queues = sections.get("queues") or sections.get("queue") or {}
    if not queues:
        yield SMSD.ok(f"smsd has the modems {', '.join(modems) or 'none'} and no queues")
        return
    yield SMSD.ok(f"smsd has the modems {', '.join(modems) or 'none'} and the queues {', '.join(queues)}")
    if not (sections.get("providers") or sections.get("provider")):
        yield SMSD.warning(
            f"{path} has [queues] and no [providers], so that messages that name no queue fail",
            "Add [providers], or set smsgw.default_queue.",
        )
    if modems and all(modem in sections for modem in modems):
        served = {word for modem in modems for word in _served(modem, sections[modem], queues)}
        for queue in queues:
            if queue not in served:
                yield SMSD.warning(f"no modem serves the queue {queue}", f"Add it to 'queues' of a modem in {path}.")


def _served(modem: str, section: Mapping[str, str], queues: Mapping[str, str]) -> Iterator[str]:
    """The queues that a modem serves; all of them where it does not say."""
    own = {key.lower(): value for key, value in section.items()}.get("queues")
    if own is None:
        yield from queues
    else:
        yield from (modem if word.lower() == "modemname" else word for word in re.split(r"[\s,]+", own))


def check_process(installation: Installation) -> Findings:
    """Whether smsd runs, and as whom."""
    path = conf_of(installation)
    if path is None:
        return
    daemon = find_daemon(installation)
    if daemon is None or daemon.pid is None:
        pidfile = _started_with(path)["pidfile"]
        told = f"; it would run as {daemon}" if daemon else ""
        yield SMSD.error(
            f"smsd does not run: {pidfile} names no process of it{told}",
            "Start it, and see its log: systemctl start smstools",
        )
    else:
        yield SMSD.ok(f"smsd runs as {daemon}, process {daemon.pid}")


def conf_of(installation: Installation) -> Path | None:
    """smsd's own file: the one that the ini file names, or the system's, if it has the same spool."""
    if installation.smsgw.smsd_conf:
        return Path(installation.smsgw.smsd_conf)
    try:
        return CONF if from_smsd_conf(CONF).outgoing.samefile(installation.layout.outgoing) else None
    except (ConfigurationError, OSError):
        return None


def find_daemon(installation: Installation) -> Daemon | None:
    """smsd as it runs, or would run. Its process need not have all groups of its user."""
    path = conf_of(installation)
    if path is None:
        return None
    started_with = _started_with(path)
    for pid in _candidates(Path(started_with["pidfile"])):
        with contextlib.suppress(OSError, KeyError, ValueError):
            status = dict(
                line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
            )
            if status["Name"] == "smsd":
                groups = {int(word) for word in status["Groups"].split()} | {int(status["Gid"].split()[1])}
                return Daemon(int(status["Uid"].split()[1]), frozenset(groups), pid)
    with contextlib.suppress(KeyError, ValueError):
        user = pwd.getpwnam(started_with["user"])
        if group := started_with.get("group"):
            return Daemon(user.pw_uid, frozenset({grp.getgrnam(group).gr_gid}))
        return _of_user(user)
    with contextlib.suppress(KeyError, OSError):
        return _of_user(pwd.getpwuid(installation.layout.outgoing.stat().st_uid))
    return None


def _started_with(path: Path) -> dict[str, str]:
    """smsd's ``pidfile``, and its ``user`` and ``group`` where they are set: those of its command line come first."""
    found = {"pidfile": PIDFILE}
    found |= {key: value for key, value in read_smsd_conf(path)[""].items() if key in ("pidfile", "user", "group")}
    with contextlib.suppress(OSError, ValueError):
        if path.samefile(CONF):
            for word in shlex.split(DEFAULTS.read_text(), comments=True):
                key, is_set, value = word.partition("=")
                if is_set and key in ("PIDFILE", "USER", "GROUP"):
                    found[key.lower()] = value
    return {key: value for key, value in found.items() if value}


def _of_user(user: pwd.struct_passwd) -> Daemon:
    return Daemon(user.pw_uid, frozenset(os.getgrouplist(user.pw_name, user.pw_gid)))


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _candidates(pidfile: Path) -> Iterator[int]:
    """The process id in the pid file, if it has one. smsd writes blanks around it."""
    with contextlib.suppress(OSError, ValueError):
        yield int(pidfile.read_text())
