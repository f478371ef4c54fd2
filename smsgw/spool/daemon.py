"""smsd's own file and processes: which file it has, whether it runs, as whom, and which modem handlers live."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from smsgw.model import ConfigurationError
from smsgw.spool.layout import from_smsd_conf, read_smsd_conf

CONF = Path("/etc/smsd.conf")
PIDFILE = "/var/run/smsd.pid"  # smsd's default
DEFAULTS = Path("/etc/default/smstools")  # of Debian's init script, which overrides CONF


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


def find_conf(named: str | None, outgoing: Path) -> Path | None:
    """smsd's own file: the one that ``smsgw.smsd_conf`` names, or the system's, if it has the same ``outgoing``."""
    if named:
        return Path(named)
    try:
        return CONF if from_smsd_conf(CONF).outgoing.samefile(outgoing) else None
    except (ConfigurationError, OSError):
        return None


def started_with(conf: Path) -> dict[str, str]:
    """smsd's ``pidfile``, and its ``user`` and ``group`` where they are set: those of its command line come first.

    :raises ConfigurationError: its file cannot be read.
    """
    found = {"pidfile": PIDFILE}
    found |= {key: value for key, value in read_smsd_conf(conf)[""].items() if key in ("pidfile", "user", "group")}
    with contextlib.suppress(OSError, ValueError):
        if conf.samefile(CONF):
            for word in shlex.split(DEFAULTS.read_text(), comments=True):
                key, is_set, value = word.partition("=")
                if is_set and key in ("PIDFILE", "USER", "GROUP"):
                    found[key.lower()] = value
    return {key: value for key, value in found.items() if value}


def find_daemon(conf: Path, outgoing: Path) -> Daemon | None:
    """smsd as it runs, or would run. Its process need not have all groups of its user.

    :raises ConfigurationError: smsd's file cannot be read.
    """
    wanted = started_with(conf)
    if (pid := running(wanted["pidfile"])) is not None:
        with contextlib.suppress(OSError, KeyError, ValueError):
            status = _status(pid)
            groups = {int(word) for word in status["Groups"].split()} | {int(status["Gid"].split()[1])}
            return Daemon(int(status["Uid"].split()[1]), frozenset(groups), pid)
    with contextlib.suppress(KeyError, ValueError):
        user = pwd.getpwnam(wanted["user"])
        if group := wanted.get("group"):
            return Daemon(user.pw_uid, frozenset({grp.getgrnam(group).gr_gid}), pid)
        return _of_user(user, pid)
    with contextlib.suppress(KeyError, OSError):
        return _of_user(pwd.getpwuid(outgoing.stat().st_uid), pid)
    return None


def running(pidfile: str) -> int | None:
    """The process of smsd, which wrote that file; ``None``: it does not run."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(Path(pidfile).read_text())  # smsd writes blanks around it
        try:
            status = _status(pid)
        except OSError:
            return pid if _is_hidden(pid) else None
        if status.get("Name") == "smsd" and not status.get("State", "").startswith("Z"):
            return pid
    return None


def handlers(pid: int) -> list[int] | None:
    """The processes of smsd's modems, and before them that of its ``notifier``, where it has one; the oldest first.

    :param pid: smsd's main process.
    :returns: ``None``: this system does not tell.
    """
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return None
    found = []
    for child in children:
        with contextlib.suppress(OSError):
            status = _status(child)
            if status.get("Name") == "smsd" and not status.get("State", "").startswith("Z"):
                found.append(child)
    return sorted(found)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _status(pid: int) -> dict[str, str]:
    """What proc(5) says of a process.

    :raises OSError: there is none.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process that proc(5) does not show us (``hidepid``, systemd's ``ProtectProc``)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _of_user(user: pwd.struct_passwd, pid: int | None) -> Daemon:
    return Daemon(user.pw_uid, frozenset(os.getgrouplist(user.pw_name, user.pw_gid)), pid)
