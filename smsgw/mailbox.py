"""The messages in the spool as users may see them: read, list, search, cancel, delete.

Called by the views with an identity and plain values; answers with types and refuses with exceptions. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pluggy
from pyramid.config import Configurator

from smsgw.model import Identity, Place, Query, StatusReport, StoredMessage
from smsgw.plugins import implementations
from smsgw.refusals import Forbidden, NotFound, TooLate
from smsgw.search import RECEIVED, SENT, Memory, Search, matches
from smsgw.security import decide
from smsgw.spool.folders import Folders, Page
from smsgw.spool.layout import Layout


@dataclass(frozen=True, slots=True)
class Found:
    """One page: messages, and what status reports say; ``last`` is the place to go on from, ``None`` at the end."""

    messages: Sequence[tuple[StoredMessage, StatusReport | None]]
    last: Place | None


class Mailbox:
    """The messages of one application; shared by all threads."""

    def __init__(self, hook: pluggy.HookRelay, layout: Layout, folders: Folders) -> None:
        self._policies = implementations(hook.permits)
        self._memory = Memory(hook)
        self._search = Search(folders, self._memory)
        self._layout = layout
        self._folders = folders

    def read(self, identity: Identity, kind: str, id: str) -> StoredMessage:
        """:raises NotFound: there is none of that kind that this user may read."""
        message = self._folders.find(kind, id)
        if message is None or not self._may(identity, "read", message):
            raise NotFound
        return message

    def fate(self, message: StoredMessage) -> StatusReport | None:
        """The status report that says finally what became of a sent message; ``None``: none does."""
        return self._search.fate(message)

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
        return self._folders.list(kind, owner, limit, offset)

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
        if not (self._folders.cancel(id) if kind == "outgoing" else self._remove(message)):
            raise NotFound

    def locate(self, identity: Identity, id: str) -> StoredMessage:
        """That message on its way out, wherever it stands.

        :raises NotFound: there is none that this user may read.
        """
        message = self._folders.locate(id) or self._memory.message(id, *SENT)
        if message is None or not self._may(identity, "read", message):
            raise NotFound
        return message

    def received(self, identity: Identity, id: str) -> StoredMessage:
        """A message from outside.

        :raises NotFound: there is none that this user may read.
        """
        message = self._folders.find("incoming", id) or self._memory.message(id, RECEIVED)
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
        """Take a message back, also one that was: it will never be sent.

        :raises NotFound: there is none that the user may read.
        :raises Forbidden: the user may not cancel it.
        :raises TooLate: smsd has it.
        """
        message = self.locate(identity, id)
        if message.kind == "outgoing":
            if not self._may(identity, "cancel", message):
                raise Forbidden("You may not take this message back")
            self._folders.cancel(id)  # false too where somebody else took it back meanwhile
            message = self.locate(identity, id)
        if message.kind != "cancelled":
            raise TooLate("smsd has this message, and it cannot be taken back")
        return message

    def search(self, identity: Identity, query: Query) -> Found:
        """Messages that the user may read; of the user's own, or of everybody's for who may read all.

        A page has fewer than it could, even none, where enough were looked at; the next one goes on from there.

        :raises Forbidden: the user may not list.
        """
        if not self._may(identity, "list", None):
            raise Forbidden("You may not list messages")
        if not self._may(identity, "read-all", None):
            if query.owner not in (None, identity.userid):
                return Found([], None)
            query = replace(query, owner=identity.userid)
        candidates = self._search.candidates(query)
        found: list[tuple[StoredMessage, StatusReport | None]] = []
        for number, (place, known) in enumerate(zip(candidates.places, candidates.known, strict=False), 1):
            if known is not None and matches(query, *known) and self._may(identity, "read", known[0]):
                found.append(known)
            if len(found) == query.limit and (number < len(candidates.places) or candidates.rest):
                return Found(found, place)
        return Found(found, candidates.rest)

    def _remove(self, message: StoredMessage) -> bool:
        """Delete a message, and all that plugins remember of it; whether it was still in its folder.

        :raises Unavailable: a plugin cannot do so now, and nothing was deleted.
        """
        try:
            with self._memory.forgetting(message):  # first, so that nothing of it comes back, whoever dies meanwhile
                return self._folders.remove(message.kind, message.id)
        except PermissionError:
            raise Forbidden("The gateway's own user may not delete files there") from None

    def _may(self, identity: Identity, permission: str, context: object) -> bool:
        return bool(decide(self._policies, identity, permission, context))


def includeme(config: Configurator) -> None:
    """From here on, ``registry.mailbox`` does what the views ask of messages in the spool."""
    registry = config.registry
    registry.mailbox = Mailbox(registry.plugins.hook, registry.layout, registry.folders)
