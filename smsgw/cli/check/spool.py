"""smsd's folders: whether the gateway can use them, whether smsd can read its files, and how much room is left."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import shlex
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from smsgw.cli.check.database import folders
from smsgw.cli.check.finding import Finding, Findings, Topic
from smsgw.cli.check.smsd import daemon_of
from smsgw.cli.installation import Installation, owner_of
from smsgw.spool import acl
from smsgw.spool.daemon import Daemon, group_name, user_name
from smsgw.spool.layout import KINDS, Layout
from smsgw.spool.sending.queue import Queue
from smsgw.spool.sending.writer import PROBE
from smsgw.spool.waiting import files as queued
from smsgw.spool.waiting import folders as queue_folders

SPOOL = Topic("spool")
NAME = ".smsgw-check"  # smsd skips files whose name begins with a dot

FEW_BYTES, NO_BYTES = 200 * 2**20, 20 * 2**20
FEW_INODES, NO_INODES = 10_000, 500
OLD = 30  # days
MANY_WAITING = 3000  # files in outgoing: smsd gets slow with more
LONG = 600.0  # seconds that a message waits for smsd
STUCK = 60.0  # seconds that the gateway leaves a complete request


def check_folders(installation: Installation) -> Findings:
    layout, daemon = installation.layout, daemon_of(installation)
    if daemon and _is_taken(layout, daemon):
        yield from _check_taken(layout, daemon)
    else:
        yield from _check_user(layout)
    for kind in KINDS:
        for folder in layout.folders[kind]:
            if "simulator" in installation.smsgw.plugins and not folder.exists():
                yield SPOOL.ok(f"there is no folder {folder} yet; the simulator makes it when the gateway starts")
            else:
                yield from _check_folder(kind, folder, layout.outgoing)
    if not layout.outgoing.is_dir():
        return
    yield from _check_outgoing(layout)
    yield from _check_state(layout)
    if daemon:
        yield from _check_readable(installation, daemon)


def _is_taken(layout: Layout, daemon: Daemon) -> bool:
    """Whether Debian's package smstools has made smsgw's own folder like smsd's, as its upgrades do."""
    with contextlib.suppress(OSError):
        found = layout.state.stat()
        return found.st_uid == daemon.uid and bool(found.st_mode & stat.S_ISVTX)
    return False


def _check_taken(layout: Layout, daemon: Daemon) -> Findings:
    user, state = user_name(os.geteuid()), shlex.quote(str(layout.state))
    with contextlib.suppress(OSError):
        user = user_name((layout.state / "locks").stat().st_uid)  # a file, which the package leaves as it is
    yield SPOOL.error(
        f"{layout.state} belongs to {daemon.name}: an upgrade of smsd's package takes all folders in its spool",
        "Stop the gateway, and start it again when this is done. As root:"
        f" chown -R {user} {state} && find {state} -type d -exec chmod 700 {{}} +",
    )


def _check_user(layout: Layout) -> Findings:
    owner, user = owner_of(layout), os.geteuid()
    if owner is None:
        yield SPOOL.ok(f"{layout.state} is not there yet; the gateway makes it when it starts")
        if user == 0 and layout.outgoing.is_dir() and layout.outgoing.stat().st_uid != 0:
            yield SPOOL.warning(
                "this is root, who can do what the gateway's user perhaps cannot", "Run it as the gateway's user."
            )
    elif owner == 0 and user != 0:
        yield SPOOL.error(
            f"{layout.state} belongs to root, as whom somebody has started the gateway, and this is {user_name(user)}",
            "Stop the gateway, and start it as its own user when this is done."
            f" As root: chown -R {user_name(user)} {shlex.quote(str(layout.state))}",
        )
    elif owner != user:
        found = SPOOL.warning if user == 0 else SPOOL.error
        yield found(
            f"this is {user_name(user)}, and the gateway runs as {user_name(owner)}, to whom {layout.state} belongs",
            f"Run it as 'runuser -u {user_name(owner)} -- smsgw check ...'; the gateway always runs as the same user.",
        )


def _check_folder(kind: str, folder: Path, outgoing: Path) -> Findings:
    try:
        mode = folder.stat().st_mode
        with os.scandir(folder) as entries:
            next(entries, None)
    except FileNotFoundError:
        yield SPOOL.error(f"there is no folder {folder} for {kind}", _made_like(folder, outgoing))
        return
    except PermissionError as error:
        yield SPOOL.error(f"{folder} cannot be read: {error.strerror}", _let_in(folder, "rx"))
        return
    except OSError as error:
        yield SPOOL.error(
            f"{folder} cannot be read: {error.strerror}", f"Put a folder there. {_made_like(folder, outgoing)}"
        )
        return
    if kind in ("outgoing", "checked"):
        return
    if not os.access(folder, os.W_OK, effective_ids=True):
        yield SPOOL.ok(f"administrators cannot delete messages in {folder}, which {_me()} may not write to")
    elif mode & stat.S_ISVTX and folder.stat().st_uid != os.geteuid() and os.geteuid() != 0:
        yield SPOOL.ok(f"administrators cannot delete messages in {folder}, which is sticky (chmod -t {folder})")


def _check_outgoing(layout: Layout) -> Findings:
    outgoing = layout.outgoing
    if (outgoing / PROBE).is_dir():
        yield SPOOL.error(
            f"{outgoing / PROBE} is a folder, and monitoring fails over it",
            f"Remove it: rmdir {shlex.quote(str(outgoing / PROBE))}",
        )
    path = outgoing / NAME
    try:
        path.unlink(missing_ok=True)  # left by a check that was killed, or a link of somebody else
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(512))
        finally:
            os.close(fd)
            os.unlink(path)
    except OSError as error:
        yield SPOOL.error(f"{_me()} cannot make a file in {outgoing}: {error.strerror}", _remedy(error, path, layout))
    else:
        yield SPOOL.ok(f"{_me()} can make files in {outgoing}")


def _remedy(error: OSError, path: Path, layout: Layout) -> str:
    """What to do where that file cannot be made."""
    if error.errno == errno.EACCES:
        return _let_in(path.parent, "rwx")
    if error.errno == errno.EROFS:
        place = next(folder for folder in path.parents if folder.is_mount())
        return f"See the kernel's log for the reason. Then, as root: mount -o remount,rw {shlex.quote(str(place))}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _make_room(layout)
    return f"See the kernel's log for the reason, and remove {path} where it is something else than a file."


def _made_like(folder: Path, outgoing: Path) -> str:
    """How to make a folder of smsd, for the same user as ``outgoing``, or as the folder that it is in."""
    like = next((each for each in (outgoing, folder.parent) if each.is_dir() and each != folder), None)
    if like is None:
        return "Make it for smsd's user, or correct the setting that names it."
    same, new = f"--reference={shlex.quote(str(like))}", shlex.quote(str(folder))
    return f"As root: mkdir {new} && chown {same} {new} && chmod {same} {new}"


def _let_in(folder: Path, permissions: str) -> str:
    """How to let this user use a folder of smsd, by the folder's group."""
    found = folder.stat()
    remedies = [f"chmod g+{permissions} {shlex.quote(str(folder))}"]
    if found.st_gid not in (*os.getgroups(), os.getegid()):
        remedies.insert(0, f"adduser {_me()} {group_name(found.st_gid)}")
    return f"As root: {' && '.join(remedies)}; then restart the gateway."


def _make_room(layout: Layout) -> str:
    """How to make room in the spool: the journal goes on telling what became of messages whose files are deleted."""
    folders = [shlex.quote(str(path)) for kind in ("sent", "failed") for path in layout.folders[kind]]
    if not folders:
        return "Make room there."
    return f"Make room. These are messages of over {OLD} days: find {' '.join(folders)} -type f -mtime +{OLD} -delete"


def _check_state(layout: Layout) -> Findings:
    state = layout.state
    place = state if state.exists() else state.parent
    try:
        place.stat()
    except OSError as error:
        yield SPOOL.error(f"{place}: {error.strerror}", "Make that folder, or leave smsgw.state out.")
        return
    if place not in (state, layout.outgoing) and not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        yield SPOOL.error(
            f"{_me()} cannot make {state}", f"As root: install -d -o {_me()} -m 700 {shlex.quote(str(state))}"
        )
    if state.is_dir() and state.stat().st_mode & 0o077:
        yield SPOOL.warning(f"others than the gateway can enter {state}", f"chmod 700 {shlex.quote(str(state))}")


def _check_readable(installation: Installation, daemon: Daemon) -> Findings:
    """Whether smsd can read and move the gateway's files, and all that is in ``outgoing``."""
    layout = installation.layout
    runs = f"smsd {'runs' if daemon.pid else 'would run'} as {daemon}, who"
    with contextlib.suppress(KeyError):  # there is no such group, which stops the start
        yield _check_written(installation, daemon, runs)
    if not daemon.may_change(layout.outgoing.stat()):
        yield SPOOL.error(
            f"{runs} cannot take files out of {layout.outgoing}",
            f"It would send them again and again. As root: chown {daemon.name} {shlex.quote(str(layout.outgoing))}",
        )
    for path, status in _waiting(layout):
        if not daemon.may_read(status.st_uid, status.st_gid, status.st_mode, acl.users_of(path)):
            name = shlex.quote(str(path))  # anybody who can write there can choose the name
            yield SPOOL.error(
                f"{runs} cannot read {path}: it is not sent, and may hold up what comes after it",
                f"Take it away, or let smsd read it. As root: chown {daemon.name} {name} && chmod u+rw {name}",
            )
            return


def _check_written(installation: Installation, daemon: Daemon, runs: str) -> Finding:
    """:raises KeyError: there is no group of the name ``smsgw.file_group``."""
    settings, layout = installation.smsgw, installation.layout
    outgoing = layout.outgoing.stat()
    owner = owner_of(layout)
    owner = os.geteuid() if owner is None else owner
    group = grp.getgrnam(settings.file_group).gr_gid if settings.file_group else outgoing.st_gid
    users = {outgoing.st_uid} if acl.are_known(layout.outgoing) else ()
    mode = settings.file_mode
    if daemon.may_read(owner, group, mode, users):
        return SPOOL.ok(f"{runs} can read files of the mode {mode:04o}, the user {user_name(owner)}")
    remedies = []
    if not mode & stat.S_IRGRP:
        remedies.append("set smsgw.file_mode = 0660")
    if not daemon.may_read(owner, group, 0o660, users):
        name = group_name(outgoing.st_gid if outgoing.st_gid in daemon.groups else min(daemon.groups))
        remedies += [f"adduser {user_name(owner)} {name}", f"set smsgw.file_group = {name}"]
    return SPOOL.error(
        f"{runs} cannot read files of the mode {mode:04o}, the user {user_name(owner)} and the group"
        f" {group_name(group)}",
        f"As root: {', '.join(remedies)}, and restart the gateway.",
    )


def check_room(installation: Installation) -> Findings:
    layout, seen = installation.layout, set()
    of_smsd = (path for paths in layout.folders.values() for path in paths)
    places = [(folder, _make_room(layout)) for folder in (layout.outgoing, layout.state, *of_smsd)]
    places += [(folder, "Make room there, or put smsgw.store elsewhere.") for folder in folders(installation)]
    for folder, remedy in places:
        try:
            device = folder.stat().st_dev
            room = os.statvfs(folder)
        except OSError:
            continue  # check_folders says so
        if device in seen:
            continue
        seen.add(device)
        free = room.f_bavail * room.f_frsize
        for left, few, none, what in (
            (free, FEW_BYTES, NO_BYTES, f"{free // 2**20} MiB"),
            (room.f_favail if room.f_files else FEW_INODES, FEW_INODES, NO_INODES, f"{room.f_favail} inodes"),
        ):
            if left < few:
                found = SPOOL.error if left < none else SPOOL.warning
                yield found(f"the file system of {folder} has {what} left", remedy)
            else:
                yield SPOOL.ok(f"the file system of {folder} has {what} left")


def check_waiting(installation: Installation) -> Findings:
    layout = installation.layout
    if not layout.outgoing.is_dir():
        return
    waiting = list(_waiting(layout))
    if len(waiting) > MANY_WAITING:
        yield SPOOL.warning(
            f"{len(waiting)} messages wait in {layout.outgoing}, and smsd gets slow with so many",
            "Send less at once, or have more modems.",
        )
    yield from _check_queues(layout)
    yield SPOOL.ok(f"{len(waiting)} messages wait in {layout.outgoing}")
    queue = Queue(layout, depth=0, fsync=False)
    for own, until in ((queue.waiting, "smsd has room"), (queue.scheduled, "their time")):
        with contextlib.suppress(OSError):
            count = sum(len(list(queue.messages(folder))) for folder in queue.folders() if own in folder.parents)
            yield SPOOL.ok(f"{count} messages wait in {own} until {until}")
    with contextlib.suppress(OSError):
        left = [
            entry.name for entry in os.scandir(layout.state / "ready") if time.time() - entry.stat().st_ctime > STUCK
        ]
        if left:
            yield SPOOL.error(
                f"{len(left)} complete requests wait in {layout.state / 'ready'}, and no gateway looks after them",
                "Start the gateway, or see its log for the reason.",
            )


def _check_queues(layout: Layout) -> Findings:
    """What nobody takes out of the folders in which messages wait for smsd and its modems."""
    for folder in queue_folders(layout).values():
        try:
            found = queued(folder)
        except OSError:
            continue  # check_folders says so
        oldest = min(found, key=found.__getitem__, default=None)
        if oldest is None or time.time() - found[oldest] <= LONG:
            continue
        minutes = (time.time() - found[oldest]) / 60
        lock = folder / f"{oldest}.LOCK"
        if lock.exists():
            yield SPOOL.warning(
                f"a message has waited in {folder} for {minutes:.0f} minutes: {lock} keeps smsd from taking it",
                f"If no program is at it: rm {shlex.quote(str(lock))}",
            )
        else:
            yield SPOOL.warning(
                f"a message has waited in {folder} for {minutes:.0f} minutes: {oldest}",
                "See smsd's log for the reason, and GET /health for its modems.",
            )


def _waiting(layout: Layout) -> Iterator[tuple[Path, os.stat_result]]:
    """The messages that smsd would take."""
    with os.scandir(layout.outgoing) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith(".LOCK"):
                continue
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield Path(entry.path), found


def _me() -> str:
    return user_name(os.geteuid())
