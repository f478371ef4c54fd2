"""The spool as the gateway reads it: where a message is, which are under way, and how received ones are removed."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from smsgw.ids import began
from smsgw.model import Position, StoredMessage
from smsgw.spool import file
from smsgw.spool.disk import unavailable
from smsgw.spool.file import is_message
from smsgw.spool.following import reports
from smsgw.spool.layout import KINDS, OWNED, Layout
from smsgw.spool.sending.queue import Queue

SETTLED = 2.0  # seconds after which a file that nobody wrote to is taken for complete
FRESH = 0.1  # seconds in which a file can be written anew and show the same time
TAKEN_BACK = ("cancelling", "cancelled")  # folders of smsgw's own

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: ids, newest first, and how many there are in all."""

    ids: list[str]
    total: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file that was read for its owner: how it stood then (inode, time of its content), its owner and its place."""

    stamp: tuple[int, int]
    owner: str | None
    place: Position


class Folders:
    """The folders of one spool; shared by all threads.

    :param prefix: how our own message ids begin.
    """

    def __init__(self, layout: Layout, queue: Queue, prefix: str) -> None:
        self._layout = layout
        self._queue = queue
        self._prefix = prefix
        self._seen: dict[Path, dict[str, _Seen]] = {}  # whose a file is, only its content says

    def find(self, kind: str, id: str) -> StoredMessage | None:
        """That message, where there is one of that kind now. Whose a status report is, its file does not say.

        :raises SpoolUnavailable: nobody can know.
        """
        if kind not in KINDS or not is_message(id):
            return None
        try:
            for path in self._paths(kind, id):
                try:
                    content, status = file.read(path)
                except FileNotFoundError:
                    continue
                except PermissionError as error:
                    log.error("%s: the gateway's own user cannot read it: %s", path, error.strerror)
                    continue
                parsed = file.parse(content)
                if self.is_whole(kind, path, parsed, status):
                    owner = parsed.headers.get("From") if kind in OWNED else None
                    return StoredMessage(kind, id, parsed.headers, parsed.text, owner)
            os.stat(self._layout.outgoing)
        except OSError as error:
            raise unavailable(error) from error
        return None

    def _paths(self, kind: str, id: str) -> Iterator[Path]:
        """Where a message of that kind may be, in the order in which it moves."""
        if kind == "outgoing":
            for folder in self._queue.folders():
                yield folder / id
        for folder in self._layout.folders[kind]:
            yield folder / id

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
            for kind in (*OWNED[2:], *OWNED):  # where most are, and stay, is looked first
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

        :param kinds: ``scheduled``, ``outgoing``, ``cancelling`` and ``checked``, in the order in which messages move:
            so none is missed. Each message stands there once, where it was found last.
        :param before: the place that they are older than; ``None``: any.
        :param since: milliseconds since 1970; none is older.
        :raises SpoolUnavailable: nobody can know.
        """
        found: dict[str, tuple[str, Position]] = {}
        for kind in kinds:
            for place in self._under_way(kind, owner):
                if place[0] >= since and (before is None or place < before):
                    found[place[1]] = (kind, place)
        return sorted(found.values(), key=lambda each: each[1], reverse=True)[:count]

    def list(self, kind: str, owner: str | None, limit: int, offset: int) -> Page:
        """A page of the messages that are under way, of that owner; ``None``: of everybody's.

        :param kind: ``outgoing`` or ``checked``.
        :raises SpoolUnavailable: nobody can know.
        """
        ids = [
            id for _, id in sorted({place[1]: place for place in self._under_way(kind, owner)}.values(), reverse=True)
        ]
        return Page(ids[offset : offset + limit], len(ids))

    def _under_way(self, kind: str, owner: str | None) -> Iterator[Position]:
        """The places of all messages of that kind and owner; one that moves meanwhile can come twice.

        :raises SpoolUnavailable: nobody can know.
        """
        try:
            os.stat(self._layout.outgoing)
            if kind in ("outgoing", "scheduled"):
                for folder in self._queue.folders(owner, only_later=kind == "scheduled"):
                    for id in self._queue.messages(folder):
                        with contextlib.suppress(FileNotFoundError):
                            yield self._place(folder, id)
            for folder in self._layout.folders.get(kind, (self._layout.state / kind,) if kind in TAKEN_BACK else ()):
                for seen in self._read_owners(folder):
                    if owner in (None, seen.owner):
                        yield seen.place
        except OSError as error:
            raise unavailable(error) from error

    def _place(self, folder: Path, id: str) -> Position:
        """Where that message stands in lists; of others' than ours the file's time is all there is."""
        found = began(id, self._prefix)
        return (int((folder / id).stat().st_mtime * 1000) if found is None else found), id

    def _read_owners(self, folder: Path) -> Iterable[_Seen]:
        """Whose each message in a folder is. A file is read again only where it changed."""
        seen, known = dict[str, _Seen](), self._seen.get(folder, {})
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # smsd keeps some only if told
            for entry in entries:
                if is_message(entry.name) and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError, PermissionError):
                        status = entry.stat(follow_symlinks=False)
                        each = known.get(entry.name)
                        if each is None or each.stamp != (status.st_ino, status.st_mtime_ns):
                            each = self._read_owner(folder, entry.name)
                        if each is not None:
                            seen[entry.name] = each
        now = time.time_ns()
        self._seen[folder] = {name: each for name, each in seen.items() if now - each.stamp[1] > FRESH * 1e9}
        return seen.values()

    def _read_owner(self, folder: Path, id: str) -> _Seen | None:
        """``None``: it is not complete yet."""
        content, status = file.read(folder / id, file.HEAD)
        parsed = file.parse(content)
        if not parsed.complete and status.st_size > file.HEAD:
            parsed = file.parse(file.read(folder / id)[0])
        if not parsed.complete and time.time() - status.st_mtime < SETTLED:
            return None
        stamp = status.st_ino, status.st_mtime_ns
        return _Seen(stamp, parsed.headers.get("From"), self._place(folder, id))

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

    def _is_being_copied(self, kind: str, folder: Path, id: str) -> bool:
        """Whether smsd is at it: it copies a file under a lock, and removes the original when it is done."""
        if kind not in OWNED[1:] or not (folder / f"{id}.LOCK").exists():
            return False
        earlier = OWNED[: OWNED.index(kind)]
        return any((before / id).exists() for name in earlier for before in self._layout.folders[name])
