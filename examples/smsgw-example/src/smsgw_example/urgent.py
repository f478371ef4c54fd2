"""``urgent``: who may send with high priority, or as a flash message that opens by itself on the phone's screen."""

from __future__ import annotations

import colander
from pyramid.security import Denied
from smsgw.hookspecs import hookimpl
from smsgw.model import Identity, Message
from smsgw.settings import Words


class Urgent:
    """A permission policy. It only restricts: another one, such as ``allow``, must let users send at all."""

    class Settings(colander.MappingSchema):
        users = colander.SchemaNode(Words(), description="users, and @groups, who may send urgently")

    def __init__(self, users: tuple[str, ...]) -> None:
        self._users = frozenset(users)

    @hookimpl
    def permits(self, identity: Identity, permission: str, context: object) -> Denied | None:
        if permission != "send" or not isinstance(context, Message):
            return None
        options = context.content.options
        if not (options.high_priority or options.flash) or self._users.intersection(identity.names):
            return None
        return Denied("not urgently")
