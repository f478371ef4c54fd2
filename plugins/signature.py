"""``signature``: text appended for everybody, a group or a user, on a line of its own."""

from __future__ import annotations

import colander

from smsgw.hookspecs import hookimpl
from smsgw.model import ConfigurationError, Identity
from smsgw.settings import Lines


class Signature:
    """A text transform. A user's own line counts; else the first line of one of their groups; else ``text``."""

    class Settings(colander.MappingSchema):
        text = colander.SchemaNode(colander.String(), missing=None, description="what everybody's texts end with")
        lines = colander.SchemaNode(Lines(), missing=None, description="lines 'user: text' and '@group: text'")

    def __init__(self, text: str | None, lines: dict[str, str] | None) -> None:
        if text is None and lines is None:
            raise ConfigurationError("set smsgw.signature.text or smsgw.signature.lines")
        self._text = text
        self._lines = lines or {}

    @hookimpl
    def transform(self, text: str, identity: Identity) -> str:
        signature = self._of(identity)
        return text if signature is None else f"{text}\n{signature}"

    def _of(self, identity: Identity) -> str | None:
        if identity.userid in self._lines:
            return self._lines[identity.userid]
        of_groups = (text for name, text in self._lines.items() if name[:1] == "@" and name[1:] in identity.groups)
        return next(of_groups, self._text)
