"""Messages as users may see them: read, list, search, cancel, delete. Knows no HTTP.

Messages under way are in the spool's folders, and those that have ended are in the journal. A search looks at the
folders first, so that it misses none that ends meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pluggy

from smsgw.journal.journal import Journal
from smsgw.model import Identity, Position, Query, Remembered, StatusReport, StoredMessage, Unavailable
from smsgw.numbers import from_spool
from smsgw.plugins import implementations
from smsgw.refusals import Forbidden, NotFound, TooLate
from smsgw.resources import status
from smsgw.security import decide
from smsgw.spool.file import REFERENCE, is_message
from smsgw.spool.folders import Folders, Page
from smsgw.spool.layout import Layout
from smsgw.spool.sending.cancel import Cancel
from smsgw.status import BY_NAME

SEARCHED = 1000  # messages under way that are looked at for one page
UNDER_WAY = ("outgoing", "checked")  # kinds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """One page: messages with their final status reports. ``last`` is where the next page begins; ``None``: the end."""

    messages: Sequence[tuple[StoredMessage, StatusReport | None]]
    last: Position | None


class Mailbox:
    """The messages of one application; shared by all threads."""

    def __init__(
        self, hook: pluggy.HookRelay, layout: Layout, folders: Folders, cancel: Cancel, journal: Journal
    ) -> None:
        self._policies = implementations(hook.permits)
        self._layout = layout
        self._folders = folders
        self._cancel = cancel
        self._journal = journal

    def read(self, identity: Identity, kind: str, id: str) -> StoredMessage:
        """:raises NotFound: there is none of that kind that this user may read."""
        message = self._folders.find(kind, id)
        if message is not None and kind == "report":  # it belongs to the owner of its message
            self._journal.catch_up()
            message = replace(message, owner=self._journal.owner(kind, id))
        if message is None or not self._may(identity, "read", message):
            raise NotFound
        return message

    def fate(self, message: StoredMessage) -> StatusReport | None:
        """The final status report of a message; ``None``: there is none, or the journal is out of service."""
        if message.kind != "sent":
            return None
        try:
            self._journal.catch_up()
            known = self._journal.message(message.id, is_received=False)
        except Unavailable as error:  # the message can be read without it
            log.warning("whether %s was delivered is not known now: %s", message.id, error.__cause__)
            return None
        return known.report if known else None

    def list(self, identity: Identity, kind: str, limit: int, offset: int) -> Page:
        """A page of the user's messages, or of everybody's for who may read all.

        :raises NotFound: there is no such kind.
        :raises Forbidden: the user may not list.
        """
        if kind not in self._layout.folders:
            raise NotFound
        if not self._may(identity, "list", None):
            raise Forbidden("You may not list messages")
        owner = None if self._may(identity, "read-all", None) else identity.userid
        if kind in UNDER_WAY:
            return self._folders.list(kind, owner, limit, offset)
        self._journal.catch_up()
        total, ids = self._journal.page(kind, owner, limit, offset)
        return Page(ids, total)

    def delete(self, identity: Identity, kind: str, id: str) -> None:
        """Delete a message, or cancel it where it still waits in ``outgoing``.

        :raises NotFound: there is none that the user may read, or smsd has taken it meanwhile.
        :raises Forbidden: the user may read it, but not do that.
        """
        message = self.read(identity, kind, id)
        if kind == "checked":
            raise Forbidden("smsd has this message, and it cannot be taken back")
        if not self._may(identity, "cancel" if kind == "outgoing" else "delete", message):
            raise Forbidden("You may not delete this message")
        if not (self._cancel.cancel(id) if kind == "outgoing" else self._remove(message)):
            raise NotFound

    def locate(self, identity: Identity, id: str) -> StoredMessage:
        """A message on its way out, in whatever folder it is.

        :raises NotFound: there is none that this user may read.
        """
        message = self._folders.locate(id) or self._remembered(id, is_received=False)
        if message is None or not self._may(identity, "read", message):
            raise NotFound
        return message

    def received(self, identity: Identity, id: str) -> StoredMessage:
        """A message from outside.

        :raises NotFound: there is none that this user may read.
        """
        message = self._folders.find("incoming", id) or self._remembered(id, is_received=True)
        if message is None or self._folders.is_report(message) or not self._may(identity, "read", message):
            raise NotFound
        return message

    def delete_received(self, identity: Identity, id: str) -> StoredMessage:
        """Delete a message from outside, and return it.

        :raises NotFound: there is none that the user may read.
        :raises Forbidden: the user may read it, but not do that.
        """
        message = self.received(identity, id)
        if not self._may(identity, "delete", message):
            raise Forbidden("You may not delete this message")
        self._remove(message)
        return message

    def cancel(self, identity: Identity, id: str) -> StoredMessage:
        """Cancel a message: it will never be sent. One that is cancelled already is returned too.

        :raises NotFound: there is none that the user may read.
        :raises Forbidden: the user may not cancel it.
        :raises TooLate: smsd has it.
        """
        message = self.locate(identity, id)
        if message.kind == "outgoing":
            if not self._may(identity, "cancel", message):
                raise Forbidden("You may not take this message back")
            self._cancel.cancel(id)  # also False where another request cancelled it meanwhile
            message = self.locate(identity, id)
        if message.kind != "cancelled":
            raise TooLate("smsd has this message, and it cannot be taken back")
        return message

    def search(self, identity: Identity, query: Query) -> Found:
        """The user's own messages, or everybody's for who may read all.

        A page can be short, or empty, when enough messages were looked at; the next page goes on from there.

        :raises Forbidden: the user may not list.
        """
        if not self._may(identity, "list", None):
            raise Forbidden("You may not list messages")
        if not self._may(identity, "read-all", None):
            if query.owner not in (None, identity.userid):
                return Found([], None)
            query = replace(query, owner=identity.userid)
        under_way = self._under_way(query)  # before the journal, so that no message is missed that ends meanwhile
        self._journal.catch_up()
        ended = {each.position: each for each in self._journal.find(replace(query, limit=query.limit + 1))}
        ids = {id for _, id in ended}
        moving = {position: kind for kind, position in under_way if position[1] not in ids}
        # Where one of the two has more, what is older than its oldest is for the next page.
        oldest = [under_way[-1][1]] if len(under_way) == SEARCHED else []
        oldest += [min(ended)] if len(ended) > query.limit else []
        rest = max(oldest, default=None)
        wanted = sorted({**ended, **moving}, reverse=True)
        wanted = [position for position in wanted if rest is None or position >= rest]
        found: list[tuple[StoredMessage, StatusReport | None]] = []
        for number, position in enumerate(wanted, 1):
            known = self._read(moving.get(position), position[1], ended.get(position), query)
            if known is not None and self._may(identity, "read", known[0]):
                found.append(known)
            if len(found) == query.limit and (number < len(wanted) or rest):
                return Found(found, position)
        return Found(found, rest)

    def _under_way(self, query: Query) -> Sequence[tuple[str, Position]]:
        """Where messages may be that are under way and have one of those statuses, newest first."""
        statuses = [BY_NAME[name] for name in query.statuses]
        folders = [folder for each in statuses if not each.is_ended for folder in each.folders]
        if not folders:
            return []
        return self._folders.newest(folders, query.owner, query.before, query.since, SEARCHED)

    def _read(
        self, folder: str | None, id: str, ended: Remembered | None, query: Query
    ) -> tuple[StoredMessage, StatusReport | None] | None:
        """That message, where it is what was looked for.

        :param folder: where it is under way; it may have moved on since.
        """
        if folder is None:
            return (ended.message, ended.report) if ended else None
        kind = folder if folder in UNDER_WAY else "outgoing"
        message = self._folders.find(kind, id) or self._folders.locate(id)
        return (message, None) if message is not None and _matches(query, message) else None

    def _remembered(self, id: str, *, is_received: bool) -> StoredMessage | None:
        """A message whose file is gone."""
        if not is_message(id):
            return None
        known = self._journal.message(id, is_received=is_received)
        return known.message if known else None

    def _remove(self, message: StoredMessage) -> bool:
        """Delete a message, and all that is remembered of it; whether it was still in its folder.

        :raises Unavailable: the journal is out of service, and nothing was deleted.
        """
        try:
            with self._journal.forgetting(message):
                return self._folders.remove(message.kind, message.id)
        except PermissionError:
            raise Forbidden("The gateway's own user may not delete files there") from None

    def _may(self, identity: Identity, permission: str, context: object) -> bool:
        return bool(decide(self._policies, identity, permission, context))


def _matches(query: Query, message: StoredMessage) -> bool:
    """Whether a message that is under way, or was a moment ago, is what was looked for."""
    headers = message.headers
    return (
        status(message, None) in query.statuses
        and query.owner in (None, message.owner)
        and query.to in (None, from_spool(headers.get("To", "")))
        and query.reference in (None, headers.get(REFERENCE))
    )
