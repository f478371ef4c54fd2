"""``allow``: every user may send, and read, list and cancel their own; administrators may do everything."""

from __future__ import annotations

import colander
from pyramid.security import Allowed

from smsgw.hookspecs import hookimpl
from smsgw.model import Identity, StoredMessage
from smsgw.settings import Words

EVERYBODY = frozenset({"send", "submit", "list"})
OWNERS = frozenset({"read", "cancel"})
ADMINISTRATORS = frozenset({"read", "read-all", "delete", "cancel", "health", "metrics"})


class Allow:
    """A permission policy; it never denies, so that others can."""

    class Settings(colander.MappingSchema):
        admins = colander.SchemaNode(Words(), missing=(), description="users, and @groups, who may do everything")

    def __init__(self, admins: tuple[str, ...]) -> None:
        self._admins = frozenset(admins)

    @hookimpl
    def permits(self, identity: Identity, permission: str, context: object) -> Allowed | None:
        if permission in EVERYBODY:
            return Allowed("every user may")
        if permission in OWNERS and isinstance(context, StoredMessage) and context.owner == identity.userid:
            return Allowed("it is the user's own")
        if permission in ADMINISTRATORS and self._is_admin(identity):
            return Allowed("an administrator may")
        return None

    def _is_admin(self, identity: Identity) -> bool:
        return identity.userid in self._admins or any(f"@{group}" in self._admins for group in identity.groups)
