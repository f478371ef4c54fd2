"""The spool as the gateway uses it: find, list, remove and cancel messages. Putting them in is ``writer``'s."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from smsgw.model import StoredMessage
from smsgw.numbers import from_spool
from smsgw.spool import file
from smsgw.spool.index import SETTLED, Entry, Index, Judge, is_message
from smsgw.spool.layout import KINDS, Layout
from smsgw.spool.locks import Locks
from smsgw.spool.writer import SpoolUnavailable, ready_lock, unavailable

GRACE = 1.0  # seconds in which smsd shows whether it had a file that was taken from it
OWNED = ("outgoing", "checked", "sent", "failed")  # kinds whose From is a userid
LATE_REPORT = 60.0  # seconds in which the message of a report may still be on its way to "sent"
EARLY_REPORT = 5.0  # seconds by which a report can be written before its message reaches "sent"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: ids, newest first, and how many there are in all."""

    ids: list[str]
    total: int


class Folders:
    """The folders of one spool; shared by all threads.

    :param prefix: how our own message ids begin.
    """

    def __init__(self, layout: Layout, locks: Locks, prefix: str) -> None:
        self._layout = layout
        self._locks = locks
        self._references = _References()
        self._indexes = {kind: self._index(kind, prefix) for kind in KINDS}

    def _index(self, kind: str, prefix: str) -> Index:
        judge = self._report_entry if kind == "report" else self._entry(kind)
        forget = self._references.discard if kind == "sent" else _nothing
        return Index(lambda: self._places(kind), prefix, judge, forget)

    def _places(self, kind: str) -> tuple[Path, ...]:
        """Where messages of that kind are, in the order in which they move."""
        return (*(self._ready() if kind == "outgoing" else ()), *self._layout.folders[kind])

    def _ready(self) -> list[Path]:
        """The folders of submissions on their way into ``outgoing``."""
        ready = self._layout.state / "ready"
        try:
            return [ready / name for name in os.listdir(ready)]
        except FileNotFoundError:
            return []

    def find(self, kind: str, id: str) -> StoredMessage | None:
        """That message, where there is one of that kind now.

        :raises SpoolUnavailable: nobody can know.
        """
        if kind not in KINDS or not is_message(id):
            return None
        try:
            if kind == "report":
                self._refresh_references()  # first, so that it does not show whether there is such a report
            for folder in self._places(kind):
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
                    return self._message(kind, id, parsed, found.st_mtime)
            os.stat(self._layout.outgoing)
        except OSError as error:
            raise unavailable(error) from error
        return None

    def list(self, kind: str, owner: str | None, limit: int, offset: int) -> Page:
        """A page of the messages of that kind and owner; ``None``: of everybody's.

        :raises SpoolUnavailable: nobody can know.
        """
        try:
            if kind == "report":
                self._refresh_references()
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

        Takes ``GRACE`` seconds. Unlinking alone loses a race that smsd runs: it reads a file, may write it anew under
        the same name, and only then removes it.

        :raises SpoolUnavailable: nothing was changed.
        """
        if not is_message(id):
            return False
        if not (self._layout.folders["sent"] and self._layout.folders["failed"]):
            raise SpoolUnavailable("nothing can be cancelled: smsd keeps no sent or no failed messages")
        try:
            with self._locks.take(f"cancel {id}"):
                if self._take_waiting(id):
                    return True
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
        was_taken = taken.stat().st_size > 0 and not self._is_with_smsd(id)
        # smsd's lock goes first: as long as there is something in "cancelling", the owner knows that it is ours.
        self._smsd_lock(id).unlink(missing_ok=True)
        if was_taken:
            os.utime(taken)
            taken.rename(self._layout.state / "cancelled" / id)
        else:
            taken.unlink()
        return was_taken

    def _take_waiting(self, id: str) -> bool:
        """Move a message to the cancelled ones that has not entered ``outgoing`` yet; whether it was there."""
        for folder in self._ready():
            with self._locks.take(ready_lock(folder.name)), contextlib.suppress(FileNotFoundError):
                os.rename(folder / id, self._layout.state / "cancelled" / id)
                return True
        return False

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

    def _is_with_smsd(self, id: str) -> bool:
        """Whether that message is in any of smsd's folders."""
        return any((folder / id).exists() for kind in OWNED for folder in self._layout.folders[kind])

    def _is_being_copied(self, kind: str, folder: Path, id: str) -> bool:
        """Whether smsd is at it: it copies a file under a lock, and removes the original when it is done."""
        if kind not in OWNED[1:] or not (folder / f"{id}.LOCK").exists():
            return False
        earlier = OWNED[: OWNED.index(kind)]
        return any((before / id).exists() for name in earlier for before in self._layout.folders[name])

    def _message(self, kind: str, id: str, found: file.SpoolFile, written: float) -> StoredMessage:
        if kind == "report":
            owner = self._report_entry(id, found, written).owner
        else:
            owner = found.headers.get("From") if kind in OWNED else None
        return StoredMessage(kind, id, found.headers, found.text, owner)

    def _entry(self, kind: str) -> Judge:
        def judge(id: str, found: file.SpoolFile, written: float) -> Entry:
            owner = found.headers.get("From") if kind in OWNED else None
            if kind == "sent":
                self._references.add(id, found, written, owner)
            return Entry(owner)

        return judge

    def _report_entry(self, id: str, found: file.SpoolFile, written: float) -> Entry:
        owner = self._references.owner_of(found, written)
        return Entry(owner, settled=owner is not None or time.time() - written > LATE_REPORT)

    def _refresh_references(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._indexes["sent"].refresh()


def _nothing(id: str) -> None:
    """Nobody else remembers anything of that message."""


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660))


class _References:
    """Which message a status report is about: the latest sent before, by that modem, to that number, with that id."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, str, str], dict[str, tuple[float, str | None]]] = {}
        self._of: dict[str, list[tuple[str, str, str]]] = {}

    def add(self, id: str, sent: file.SpoolFile, written: float, owner: str | None) -> None:
        modem, to = sent.headers.get("Modem", ""), from_spool(sent.headers.get("To", ""))
        for part in sent.headers.get("Message_id", "").split():
            if part.isdigit():
                self._sent.setdefault((modem, to, part), {})[id] = (written, owner)
                self._of.setdefault(id, []).append((modem, to, part))

    def discard(self, id: str) -> None:
        for reference in self._of.pop(id, ()):
            known = self._sent.get(reference, {})
            known.pop(id, None)
            if not known:
                self._sent.pop(reference, None)

    def owner_of(self, report: file.SpoolFile, written: float) -> str | None:
        lines = dict(line.split(": ", 1) for line in report.text.splitlines() if ": " in line)
        modem, to = report.headers.get("Modem", ""), from_spool(report.headers.get("From", ""))
        known = self._sent.get((modem, to, lines.get("Message_id", "").strip()), {}).values()
        # The modem can hand out the report before smsd has moved the file.
        before = [(then, owner) for then, owner in known if then <= written + EARLY_REPORT]
        return max(before, key=lambda sent: sent[0])[1] if before else None
