"""Messages into the spool: whole, all of a submission or none, once, also when the process dies in between.

Files are made in a folder of the process's own, ``writers/<token>`` under smsgw's own folder. A single message is
committed by a rename into ``outgoing``, or into the folder where it waits (``queue``). Several, or one with a receipt,
are gathered in one folder. They are committed when that folder is renamed to ``ready/<name>``. From then on they are
only ever completed, by this process or by the owner.

With ``smsgw.fsync`` a message is accepted when no power failure can lose it:

- First the content of each file is synced, and of several the folders that they are gathered in.
- Then comes the rename, and the folder that it leads to is synced. Now all of a submission is on disk, or nothing.
- Several stay in ``ready`` until they are on disk where they go.
- smsgw's own folders are synced when they are made (``locks``). A process's own folder need not be on disk: all in it
  is removed after a crash.

Where the sync after the rename fails, the disk is broken, and what was renamed may be lost with the power. So the
message is taken back and the send refused (503). A submission in ``ready`` is taken back by a rename. A single message
in ``outgoing`` can be with smsd by then: if it is, it is sent, and that is what the client is told. If nothing can be
taken back, as on a file system that became read-only, nobody knows whether it will be sent: the send is refused, which
may send it twice, and not accepted, which may lose it. The log names the message.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import json
import logging
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from ulid import ULID

from smsgw.model import ConfigurationError, Message, Receipt
from smsgw.spool import acl, file
from smsgw.spool.disk import open_folder, sync_file_system, unavailable
from smsgw.spool.layout import Layout
from smsgw.spool.locks import Locks
from smsgw.spool.sending import put_file
from smsgw.spool.sending.cancel import Cancel
from smsgw.spool.sending.put_file import PutFile
from smsgw.spool.sending.queue import RECEIPT, Queue, ready_lock

PROBE = ".smsgw-probe"  # a name that smsd would pass over
FEW = 4  # up to so many files are synced one by one, more by syncing their file system

log = logging.getLogger(__name__)


class _Home:
    """The process's own folder, opened; it is closed with the last thread that uses it.

    :raises OSError: the spool does not let us in.
    """

    def __init__(self, layout: Layout, locks: Locks, mode: int, group: int | None) -> None:
        self.pid = os.getpid()
        self._files = contextlib.ExitStack()
        try:
            locks.make()  # also what somebody removed of it
            token = str(ULID())
            # Taken before the folder is there: the owner removes folders that nobody holds the lock of.
            lock = locks.take(f"writer {token}")
            self._files.callback(lock.release)
            self.path = layout.state / "writers" / token
            os.mkdir(self.path, 0o700)
            _share(self.path, layout.outgoing, group)
            self.folder = open_folder(self.path, self._files)
            self.must_chmod = mode != self._mode_of_new_files(mode)
        except BaseException:
            self._files.close()
            raise

    def __del__(self) -> None:
        self._files.close()

    def _mode_of_new_files(self, mode: int) -> int:
        fd = os.open(".mode", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode, dir_fd=self.folder)
        try:
            return stat.S_IMODE(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
            os.unlink(".mode", dir_fd=self.folder)


class Writer:
    """Puts messages into one spool; shared by all threads.

    :param fsync: whether ``put`` waits until what it wrote is on disk.
    :param mode: of the files, whatever the umask says.
    :param group: name of the files' group; ``None``: the one of ``outgoing``.
    :param put_file: how one is written.
    :raises ConfigurationError: there is no such group.
    """

    def __init__(
        self,
        layout: Layout,
        locks: Locks,
        queue: Queue,
        cancel: Cancel,
        *,
        fsync: bool,
        mode: int,
        group: str | None,
        put_file: PutFile = put_file.fastest,
    ) -> None:
        self._layout = layout
        self._locks = locks
        self.queue = queue
        self._cancel = cancel
        self._put_file = put_file
        self._fsync = fsync
        self._mode = mode
        self._outgoing = f"{layout.outgoing}/"
        self._home: _Home | None = None
        self._entering = threading.Lock()
        try:
            self._group = grp.getgrnam(group).gr_gid if group else None
        except KeyError:
            raise ConfigurationError(f"smsgw.file_group: there is no group {group!r}") from None

    def put(self, messages: Sequence[Message], receipt: Receipt | None = None) -> None:
        """Put all of them into ``outgoing``, or where they wait for it, and keep the receipt.

        :raises SpoolUnavailable: none was put, and nothing is left behind, unless the log says that something may be.
        """
        if len(messages) == 1 and receipt is None:
            self._at_home(lambda home: self._put_one(home, messages[0]))
        else:
            self._at_home(lambda home: self._put_all(home, messages, receipt))

    def probe(self) -> None:
        """Do with an empty name what ``put`` does with a message, where smsd does not look.

        :raises SpoolUnavailable: the spool would not take a message now.
        """
        self._at_home(self._probe)

    def _at_home(self, work: Callable[[_Home], None]) -> None:
        """Do that in the process's own folder; once more in a new one, where the spool was taken away or made anew.

        :raises SpoolUnavailable: it cannot be done.
        """
        try:
            home = self._enter(None)
            try:
                work(home)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EXDEV):
                    raise
                work(self._enter(home))
        except OSError as error:
            raise unavailable(error) from error

    def _enter(self, gone: _Home | None) -> _Home:
        """The process's own folder; another one than ``gone``, and than the one of a process that forked this one."""
        home = self._home
        if home is None or home is gone or home.pid != os.getpid():
            with self._entering:
                home = self._home
                if home is None or home is gone or home.pid != os.getpid():
                    home = self._home = _Home(self._layout, self._locks, self._mode, self._group)
        return home

    def _probe(self, home: _Home) -> None:
        name = f".{ULID()}"
        with _undone(name, home.folder):
            # One name for all: what a process that dies here leaves is gone with the next probe.
            self._put_file(home.folder, name, bytes(512), self._mode, home.must_chmod, False, self._outgoing + PROBE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._outgoing + PROBE)

    def _put_one(self, home: _Home, message: Message) -> None:
        content = file.render(message.to, file.head(message.content), message.reference)
        with _undone(message.id, home.folder), self._way(message) as folder:
            # To a path: the folder that stands there now, and not one that was moved away.
            target = f"{folder}/{message.id}"
            self._put_file(home.folder, message.id, content, self._mode, home.must_chmod, self._fsync, target)
        try:
            self.queue.sync(folder)
        except OSError as error:
            if not self._is_with_smsd(message.id):
                raise unavailable(error) from error
            log.error("%s goes out, and may be lost if the power fails now: %s", message.id, error)

    @contextlib.contextmanager
    def _way(self, message: Message) -> Iterator[Path]:
        """The folder that a single message is to be moved to within the block."""
        options = message.content.options
        name = self.queue.name(message.content.sender, options)
        if file.is_later(options.send_at):
            yield self.queue.make(name)
        else:
            with self.queue.room.for_new(1) as room:
                yield self._layout.outgoing if room else self.queue.make(name)

    def _is_with_smsd(self, id: str) -> bool:
        """Whether smsd has that message already; otherwise it is taken back, as far as that is possible."""
        try:
            return not self._cancel.retract(id)
        except OSError as error:
            log.error("%s was refused, and may be sent all the same; it cannot be taken back: %s", id, error)
            return False

    def _put_all(self, home: _Home, messages: Sequence[Message], receipt: Receipt | None) -> None:
        name = receipt.key if receipt else str(ULID())
        stage = home.path / name
        os.mkdir(stage, 0o700)
        try:
            self._fill(home, stage, messages, receipt)
            with self._locks.take(ready_lock(name)):
                self._commit(stage, self.queue.ready / name, len(messages))
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _commit(self, stage: Path, ready: Path, count: int) -> None:
        os.rename(stage, ready)
        try:
            self.queue.sync(ready.parent)
        except OSError as error:
            if not self._is_undone(stage, ready, count):
                log.error("%s was refused, and may be sent all the same; it cannot be taken back: %s", ready, error)
            raise unavailable(error) from error
        try:
            self.queue.complete(ready.name)
        except OSError as error:
            if self._is_undone(stage, ready, count):
                raise
            log.error("the rest of a submission waits in %s until it can be moved on: %s", ready, error)

    def _is_undone(self, stage: Path, ready: Path, count: int) -> bool:
        """Whether a submission is taken back; one of which something has entered cannot be, and enters."""
        with contextlib.suppress(OSError):
            if sum(len(os.listdir(folder)) for folder in ready.iterdir() if folder.is_dir()) == count:
                os.rename(ready, stage)
                self.queue.sync(ready.parent)
        return stage.exists()

    def _fill(self, home: _Home, stage: Path, messages: Sequence[Message], receipt: Receipt | None) -> None:
        one_by_one = self._fsync and len(messages) <= FEW
        folders: dict[str, int] = {}
        content, rest, folder = None, b"", -1
        submission = str(ULID())
        with contextlib.ExitStack() as opened:
            for message in messages:
                if message.content is not content:
                    content, rest = message.content, file.head(message.content)
                    name = self.queue.name(content.sender, content.options, submission)
                    if name not in folders:
                        os.mkdir(stage / name, 0o700)
                        folders[name] = open_folder(stage / name, opened)
                    folder = folders[name]
                rendered = file.render(message.to, rest, message.reference)
                self._put_file(folder, message.id, rendered, self._mode, home.must_chmod, one_by_one, "")
            top = open_folder(stage, opened)
            if receipt:
                kept = json.dumps(asdict(receipt)).encode()
                self._put_file(top, RECEIPT, kept, self._mode, home.must_chmod, one_by_one, "")
            if one_by_one:
                for opened_folder in (*folders.values(), top):
                    os.fsync(opened_folder)
            elif self._fsync:
                sync_file_system(top)


@contextlib.contextmanager
def _undone(name: str, folder: int) -> Iterator[None]:
    """Remove that file again where the block fails."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise


def _share(folder: Path, outgoing: Path, group: int | None) -> None:
    """Let what is made in that folder be such as smsd can read.

    It gets the group, which set-group-ID folders pass on. The owner of ``outgoing``, who is smsd's user, may do with it
    what the group may: Debian's smsd runs without the group of its own folders. Where the file system has no access
    lists, the group alone must do, and each file needs a call of its own for its mode.
    """
    owner = os.stat(outgoing)
    try:
        os.chown(folder, -1, owner.st_gid if group is None else group)
    except PermissionError:
        if group is not None:
            raise
        log.warning("messages do not get the group of %s: let smsgw's user be in it", outgoing)
    os.chmod(folder, 0o2700)
    with contextlib.suppress(OSError):
        acl.set_default(folder, owner.st_uid if owner.st_uid not in (0, os.geteuid()) else None)
