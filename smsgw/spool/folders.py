"""The spool as the gateway uses it: find, list, remove and cancel messages. Putting them in is ``writer``'s."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from smsgw.model import Place, StatusReport, StoredMessage
from smsgw.spool import file, reports
from smsgw.spool.arrivals import Arrivals
from smsgw.spool.entrance import ready_lock, sync_folder
from smsgw.spool.forks import begin_anew_in_children
from smsgw.spool.index import SETTLED, Index, Judge, began, is_message
from smsgw.spool.layout import KINDS, OWNED, Layout
from smsgw.spool.locks import Locks
from smsgw.spool.reports import Joined, Report, Reports
from smsgw.spool.writer import SpoolUnavailable, unavailable

GRACE = 1.0  # seconds in which smsd shows whether it had a file that was taken from it
WAITING = ("scheduled", "waiting")  # folders of smsgw's own before outgoing
TAKEN_BACK = ("cancelling", "cancelled")  # folders of smsgw's own
ENDED = ("sent", "failed", "cancelled", "incoming")  # where messages stay

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
        self.moment = layout.moment
        self._locks = locks
        self._prefix = prefix
        self._fsync = fsync
        self._begin()
        begin_anew_in_children(self, Folders._begin)

    def _begin(self) -> None:
        self.arrivals = Arrivals(ENDED, self.places)
        self._reports = Reports(self.moment)
        self._indexes = {kind: self._index(kind) for kind in (*KINDS, "scheduled", *TAKEN_BACK)}

    def _index(self, kind: str) -> Index:
        def forget(id: str) -> None:
            if kind == "sent":
                self._reports.forget_sent(id)
            elif kind in reports.KINDS:
                self._reports.forget(f"{kind}/{id}")

        return Index(lambda: self.places(kind), self._prefix, self._judge(kind), forget)

    def close(self) -> None:
        """Give back what watches the folders; they can still be asked."""
        for index in self._indexes.values():
            index.close()
        self.arrivals.close()

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
        """That message, where there is one of that kind now.

        :raises SpoolUnavailable: nobody can know.
        """
        try:
            if kind == "report":
                with self._held("sent", "report"):
                    pass  # first, so that it does not show whether there is such a report
            found = self.read(kind, id)
            return None if found is None else self._message(kind, id, *found)
        except OSError as error:
            raise unavailable(error) from error

    def read(self, kind: str, id: str) -> tuple[file.SpoolFile, float] | None:
        """What the file of such a message holds, and when it was written, in seconds since the epoch.

        :raises OSError: nobody can know.
        """
        if kind not in KINDS or not is_message(id):
            return None
        for folder in self.places(kind):
            try:
                content, found = file.read(folder / id)
            except FileNotFoundError:
                continue
            except PermissionError as error:
                log.error("%s: the gateway's own user cannot read it: %s", folder / id, error.strerror)
                continue
            parsed = file.parse(content)
            half = not parsed.whole and time.time() - found.st_mtime < SETTLED
            if not half and not self._is_being_copied(kind, folder, id):
                return parsed, found.st_mtime
        os.stat(self._layout.outgoing)
        return None

    def fate(self, message: StoredMessage) -> StatusReport | None:
        """The status report that says finally what became of a sent message: ``is_delivered``, or not.

        ``None``: none does yet, or nobody knows: none was asked for, smsd keeps no reports, they were deleted.
        """
        return self.fates([message]).get(message.id)

    def fates(self, messages: Iterable[StoredMessage]) -> Mapping[str, StatusReport]:
        """The same of several by their ids, as far as anything is known; the folders are looked at once."""
        written = {
            each.id: reports.first_written(each, "Sent", stat.st_mtime, self.moment)
            for each in messages
            if each.kind == "sent" and reports.parts_of(each.headers) and (stat := self._stat("sent", each.id))
        }
        if not written:
            return {}
        try:
            with self._held("sent", *reports.KINDS, since=min(written.values()) - reports.SLOWEST):
                found = {id: joined.fate() for id in written if (joined := self._reports.joined(id))}
        except OSError as error:
            log.error("nobody knows whether %s was delivered: %s", ", ".join(written), error)
            return {}
        return {id: fate for id, fate in found.items() if fate is not None}

    def is_report(self, message: StoredMessage) -> bool:
        """Whether that is a status report, which smsd leaves in ``incoming`` where it has no other folder for them."""
        return reports.parse(f"{message.kind}/{message.id}", message, 0, self.moment) is not None

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
        self, kinds: Iterable[str], owner: str | None, before: Place | None, since: int, count: int
    ) -> Sequence[tuple[str, Place]]:
        """Where messages of those kinds and that owner (``None``: of all) were found, newest first: kind and place.

        Kinds come in the order in which messages move, so that none is missed; each stands there once.

        :param kinds: of ``KINDS`` and ``TAKEN_BACK``; ``"scheduled"`` are those of ``"outgoing"`` that are for later.
        :param before: the place that they are older than; ``None``: any.
        :param since: milliseconds since 1970; none is older.
        :raises SpoolUnavailable: nobody can know.
        """
        found: dict[str, Sequence[Place]] = {}
        try:
            os.stat(self._layout.outgoing)
            for kind in kinds:
                with contextlib.suppress(FileNotFoundError):  # smsd keeps some kinds only where it is told to
                    found[kind] = self._indexes[kind].newest(owner, before, since, count)
        except OSError as error:
            raise unavailable(error) from error
        last = {name: (kind, (began, name)) for kind, places in found.items() for began, name in places}
        return sorted(last.values(), key=lambda each: each[1], reverse=True)[:count]

    def place(self, kind: str, id: str) -> Place | None:
        """Where a message of that kind stands in lists; ``None``: it is not there."""
        if (found := self._stat(kind, id)) is None:
            return None
        milliseconds = began(id, self._prefix)
        return int(found.st_mtime * 1000) if milliseconds is None else milliseconds, id

    def _stat(self, kind: str, id: str) -> os.stat_result | None:
        for folder in self.places(kind):
            with contextlib.suppress(OSError):
                return os.stat(folder / id, follow_symlinks=False)
        return None

    def joined(self, report: Report, counts: Callable[[str], bool]) -> Joined | None:
        """The message that a report is about, with what is reported of it; ``None``: it is nobody's.

        :param counts: asked of a report's place, such as ``report/GSM1.2rV5Xc``; the others are passed over.
        :raises OSError: nobody can know.
        """
        then, _ = report.came
        with self._held("sent", *reports.KINDS, since=then):
            if (id := self._reports.message_of(report)) is None:
                return None
            with self._held("sent", *reports.KINDS, since=self._reports.began(id)):
                return self._reports.joined(id, counts)

    def list(self, kind: str, owner: str | None, limit: int, offset: int) -> Page:
        """A page of the messages of that kind and owner; ``None``: of everybody's.

        :raises SpoolUnavailable: nobody can know.
        """
        try:
            with self._held(*(["sent"] if kind == "report" else [])):
                total, ids = self._indexes[kind].page(owner, limit, offset)
        except FileNotFoundError as error:
            # smsd keeps some kinds only where it is told to; without "outgoing" there is no spool at all.
            if kind != "outgoing" and self._layout.outgoing.exists():
                return Page([], 0)
            raise unavailable(error) from error
        except OSError as error:
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

    def _message(self, kind: str, id: str, found: file.SpoolFile, written: float) -> StoredMessage:
        owner = found.headers.get("From") if kind in OWNED else None
        if kind == "report" and (report := reports.parse(f"{kind}/{id}", found, written, self.moment)):
            with self._held("sent", "report"):
                owner = self._reports.owner_of(report)
        return StoredMessage(kind, id, found.headers, found.text, owner)

    def _judge(self, kind: str) -> Judge:
        def judge(id: str, found: file.SpoolFile, written: float) -> str | None:
            owner = found.headers.get("From") if kind in OWNED or kind not in KINDS else None
            if kind == "sent":
                for place in self._reports.add_sent(id, found, written, owner):
                    kind_of_report, _, name = place.partition("/")
                    self._indexes[kind_of_report].look_again(name)
            elif kind in reports.KINDS:
                report = self._reports.add(f"{kind}/{id}", found, written)
                if kind == "report" and report:
                    owner = self._reports.owner_of(report)
            return owner

        return judge

    @contextlib.contextmanager
    def _held(self, *kinds: str, since: float = -math.inf) -> Iterator[None]:
        """Within the block, the indexes of these kinds are as the folders were at its beginning.

        :param since: seconds since the epoch. They have all that decides what reports are about that came since then.
        """
        back = {"sent": since - 2 * reports.LONGEST}  # the reports that matter are about these, and may be as old
        with contextlib.ExitStack() as held:
            for kind in kinds:
                held.enter_context(self._indexes[kind].held())
                with contextlib.suppress(FileNotFoundError):  # smsd keeps some kinds only where it is told to
                    self._indexes[kind].refresh(back.get(kind, since - reports.LONGEST))
            yield


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660))
