"""The spool as the gateway uses it: find, list, remove and cancel messages. Putting them in is ``writer``'s."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from smsgw.model import Position, StoredMessage
from smsgw.spool import file
from smsgw.spool.disk import sync_folder
from smsgw.spool.entrance import ready_lock
from smsgw.spool.following import reports
from smsgw.spool.forks import begin_anew_in_children
from smsgw.spool.index import SETTLED, Index, is_message
from smsgw.spool.layout import KINDS, OWNED, Layout
from smsgw.spool.locks import Locks
from smsgw.spool.writer import SpoolUnavailable, unavailable

GRACE = 1.0  # seconds in which smsd shows whether it had a file that was taken from it
WAITING = ("scheduled", "waiting")  # folders of smsgw's own before outgoing
TAKEN_BACK = ("cancelling", "cancelled")  # folders of smsgw's own
UNDER_WAY = ("scheduled", "outgoing", "cancelling", "checked")  # whose messages are to be elsewhere

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: ids, newest first, and how many there are in all."""

    ids: list[str]
    total: int


class Folders:
    """The folders of one spool; shared by all threads.

    :param prefix: how our own message ids begin.
    :param fsync: whether what was taken back waits for the disk.
    """

    def __init__(self, layout: Layout, locks: Locks, prefix: str, *, fsync: bool = True) -> None:
        self._layout = layout
        self._locks = locks
        self._prefix = prefix
        self._fsync = fsync
        self._begin()
        begin_anew_in_children(self, Folders._begin)

    def _begin(self) -> None:
        self._indexes = {kind: Index(partial(self.places, kind), self._prefix) for kind in UNDER_WAY}

    def close(self) -> None:
        """Give back what watches the folders; they can still be asked."""
        for index in self._indexes.values():
            index.close()

    def places(self, kind: str) -> tuple[Path, ...]:
        """Where messages of that kind are, in the order in which they move."""
        if kind not in KINDS:
            return (self._layout.state / kind,)
        before = (*self._ready(), *self._waiting()) if kind == "outgoing" else ()
        return (*before, *self._layout.folders[kind])

    def _ready(self) -> list[Path]:
        """The folders of submissions on their way into ``outgoing``."""
        ready = self._layout.state / "ready"
        try:
            return [ready / name for name in os.listdir(ready)]
        except FileNotFoundError:
            return []

    def _waiting(self) -> list[Path]:
        """The folders of messages that wait for their time, or their turn, to enter ``outgoing``."""
        return [self._layout.state / name for name in WAITING]

    def find(self, kind: str, id: str) -> StoredMessage | None:
        """That message, where there is one of that kind now. Whose a status report is, its file does not say.

        :raises SpoolUnavailable: nobody can know.
        """
        if kind not in KINDS or not is_message(id):
            return None
        try:
            for folder in self.places(kind):
                try:
                    content, status = file.read(folder / id)
                except FileNotFoundError:
                    continue
                except PermissionError as error:
                    log.error("%s: the gateway's own user cannot read it: %s", folder / id, error.strerror)
                    continue
                parsed = file.parse(content)
                if self.is_whole(kind, folder / id, parsed, status):
                    owner = parsed.headers.get("From") if kind in OWNED else None
                    return StoredMessage(kind, id, parsed.headers, parsed.text, owner)
            os.stat(self._layout.outgoing)
        except OSError as error:
            raise unavailable(error) from error
        return None

    def is_whole(self, kind: str, path: Path, found: file.SpoolFile, status: os.stat_result) -> bool:
        """Whether a file that was read is complete: smsd may be writing it, or copying it from folder to folder."""
        if not found.whole and (kind in TAKEN_BACK or time.time() - status.st_mtime < SETTLED):
            return False
        return not self._is_being_copied(kind, path.parent, path.name)

    def is_report(self, message: StoredMessage) -> bool:
        """Whether that is a status report, which smsd leaves in ``incoming`` where it has no other folder for them."""
        return reports.parse(f"{message.kind}/{message.id}", message, 0, self._layout.moment) is not None

    def locate(self, id: str) -> StoredMessage | None:
        """That message on its way out, wherever it stands: its kind is one of ``OWNED``, or ``cancelled``.

        :raises SpoolUnavailable: nobody can know.
        """
        if not is_message(id):
            return None
        for _ in range(2):  # one that is being taken back can return to where was looked before
            for kind in OWNED:
                if (message := self.find(kind, id)) is not None:
                    return message
            for folder, kind in zip(TAKEN_BACK, ("outgoing", "cancelled"), strict=True):
                try:
                    parsed = file.parse(file.read(self._layout.state / folder / id)[0])
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise unavailable(error) from error
                if parsed.complete:
                    return StoredMessage(kind, id, parsed.headers, parsed.text, parsed.headers.get("From"))
        return None

    def newest(
        self, kinds: Iterable[str], owner: str | None, before: Position | None, since: int, count: int
    ) -> Sequence[tuple[str, Position]]:
        """Where messages of those kinds and that owner (``None``: of all) were found, newest first: kind and place.

        Kinds come in the order in which messages move, so that none is missed; each stands there once.

        :param kinds: of ``UNDER_WAY``; ``"scheduled"`` are those of ``"outgoing"`` that are for later.
        :param before: the place that they are older than; ``None``: any.
        :param since: milliseconds since 1970; none is older.
        :raises SpoolUnavailable: nobody can know.
        """
        found: dict[str, Sequence[Position]] = {}
        try:
            os.stat(self._layout.outgoing)
            for kind in kinds:
                with contextlib.suppress(FileNotFoundError):  # smsd keeps some kinds only where it is told to
                    found[kind] = self._indexes[kind].newest(owner, before, since, count)
        except OSError as error:
            raise unavailable(error) from error
        last = {name: (kind, (began, name)) for kind, places in found.items() for began, name in places}
        return sorted(last.values(), key=lambda each: each[1], reverse=True)[:count]

    def list(self, kind: str, owner: str | None, limit: int, offset: int) -> Page:
        """A page of the messages that are under way, of that owner; ``None``: of everybody's.

        :param kind: ``outgoing`` or ``checked``.
        :raises SpoolUnavailable: nobody can know.
        """
        try:
            total, ids = self._indexes[kind].page(owner, limit, offset)
        except OSError as error:
            if kind != "outgoing" and isinstance(error, FileNotFoundError) and self._layout.outgoing.exists():
                return Page([], 0)  # smsd makes it with the first message
            raise unavailable(error) from error
        return Page(ids, total)

    def remove(self, kind: str, id: str) -> bool:
        """Delete that file; whether it was still there.

        :raises PermissionError: the gateway's own user may not.
        :raises SpoolUnavailable: it cannot be deleted.
        """
        for folder in self._layout.folders[kind]:
            try:
                os.unlink(folder / id)
                return True
            except FileNotFoundError:
                continue
            except PermissionError:
                raise
            except OSError as error:
                raise unavailable(error) from error
        return False

    def cancel(self, id: str) -> bool:
        """Take a message back: when this returns true, it will never be sent; otherwise smsd has it, or it is gone.

        Takes ``GRACE`` seconds, where it is in ``outgoing`` already. Unlinking alone loses a race that smsd runs: it
        reads a file, may write it anew under the same name, and only then removes it.

        :raises SpoolUnavailable: nothing was changed.
        """
        if not is_message(id):
            return False
        try:
            self._locks.make()  # also what somebody removed of it
            with self._locks.take(f"cancel {id}"):
                if self._take_waiting(id):
                    return True
                if not (self._layout.folders["sent"] and self._layout.folders["failed"]):
                    raise SpoolUnavailable("it cannot be cancelled: smsd keeps no sent or no failed messages")
                if not self._take(id):
                    return False
                threading.Event().wait(GRACE)
                return self.finish_cancel(id)
        except OSError as error:
            raise unavailable(error) from error

    def finish_cancel(self, id: str) -> bool:
        """Decide what became of a message that was taken from ``outgoing`` at least ``GRACE`` seconds ago.

        :raises OSError: nothing was decided; to be called again.
        """
        taken = self._cancelling(id)
        was_taken = taken.stat().st_size > 0 and not self._layout.has(id)
        # smsd's lock goes first: as long as there is something in "cancelling", the owner knows that it is ours.
        self._smsd_lock(id).unlink(missing_ok=True)
        if was_taken:
            os.utime(taken)
            self._put_away(taken)
        else:
            taken.unlink()
        return was_taken

    def _take_waiting(self, id: str) -> bool:
        """Move a message to the cancelled ones that has not entered ``outgoing`` yet; whether it was there."""
        for folder in self._ready():
            with self._locks.take(ready_lock(folder.name)):
                if self._take_from(folder, id):
                    return True
        return any(self._take_from(folder, id) for folder in self._waiting())

    def _take_from(self, folder: Path, id: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            os.utime(folder / id, follow_symlinks=False)  # from now on it is kept for a while
            self._put_away(folder / id)
            return True
        return False

    def _put_away(self, taken: Path) -> None:
        """Move a message to the cancelled ones, so that a failing power does not bring it back."""
        cancelled = self._layout.state / "cancelled"
        os.rename(taken, cancelled / taken.name)
        if self._fsync:
            try:
                for folder in dict.fromkeys((cancelled, taken.parent, self._layout.outgoing)):
                    sync_folder(folder)
            except OSError as error:  # it is taken back, whatever becomes of the disk
                log.error("%s may go out if the power fails now: %s", taken.name, error)

    def _take(self, id: str) -> bool:
        """Move a message out of smsd's reach, as far as it goes; whether it was there.

        The empty file that comes first tells the owner whose the lock is, should this process die.
        """
        taken, lock = self._cancelling(id), self._smsd_lock(id)
        with contextlib.ExitStack() as undo:
            _create(taken)
            undo.callback(taken.unlink)
            try:
                _create(lock)
            except FileExistsError:
                return False
            undo.callback(lock.unlink)
            try:
                os.rename(self._layout.outgoing / id, taken)
            except FileNotFoundError:
                return False
            undo.pop_all()
        return True

    def _cancelling(self, id: str) -> Path:
        return self._layout.state / "cancelling" / id

    def _smsd_lock(self, id: str) -> Path:
        return self._layout.outgoing / f"{id}.LOCK"

    def _is_being_copied(self, kind: str, folder: Path, id: str) -> bool:
        """Whether smsd is at it: it copies a file under a lock, and removes the original when it is done."""
        if kind not in OWNED[1:] or not (folder / f"{id}.LOCK").exists():
            return False
        earlier = OWNED[: OWNED.index(kind)]
        return any((before / id).exists() for name in earlier for before in self._layout.folders[name])


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660))
