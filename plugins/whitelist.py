"""``whitelist``: which numbers a user may send to. It only restricts: another policy must allow sending at all."""

from __future__ import annotations

import colander
from pyramid.config import Configurator
from pyramid.security import Denied

from smsgw.api import application
from smsgw.hookspecs import hookimpl
from smsgw.model import Identity, Message
from smsgw.numbers import NumberLines
from smsgw.settings import Lines


class Whitelist:
    """A policy. A user's own line, those of their groups and ``*`` add up. A user without a line may send anywhere."""

    class Settings(colander.MappingSchema):
        numbers = colander.SchemaNode(
            Lines(),
            description="lines 'user: 79160000000 7916* RU mobile …', '@group: …', '*: …'",
        )

    def __init__(self, numbers: dict[str, str]) -> None:
        self._numbers = NumberLines("smsgw.whitelist.numbers", numbers)

    def includeme(self, config: Configurator) -> None:
        self._numbers.locate(application(config).settings.region)

    @hookimpl
    def permits(self, identity: Identity, permission: str, context: object) -> Denied | None:
        if permission != "send" or not isinstance(context, Message):
            return None
        numbers = self._numbers.of(identity)
        return None if numbers is None or context.to in numbers else Denied("not on the whitelist")
