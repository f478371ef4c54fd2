"""``blacklist``: which numbers a user may not send to, whatever other policies say."""

from __future__ import annotations

import colander
from pyramid.config import Configurator
from pyramid.security import Denied

from smsgw.api import application
from smsgw.hookspecs import hookimpl
from smsgw.model import Identity, Message
from smsgw.numbers import NumberLines
from smsgw.settings import Lines


class Blacklist:
    """A policy. A user's own line, those of their groups and ``*`` each deny their numbers."""

    class Settings(colander.MappingSchema):
        numbers = colander.SchemaNode(
            Lines(),
            description="lines 'user: 79160000000 7916* KZ premium-rate …', '@group: …', '*: …'",
        )

    def __init__(self, numbers: dict[str, str]) -> None:
        self._numbers = NumberLines("smsgw.blacklist.numbers", numbers)

    def includeme(self, config: Configurator) -> None:
        self._numbers.locate(application(config).settings.region)

    @hookimpl
    def permits(self, identity: Identity, permission: str, context: object) -> Denied | None:
        if permission != "send" or not isinstance(context, Message):
            return None
        numbers = self._numbers.of(identity)
        return None if numbers is None or context.to not in numbers else Denied("on the blacklist")
