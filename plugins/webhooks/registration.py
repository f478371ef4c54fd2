"""What a client says of a webhook that it wants."""

from __future__ import annotations

from typing import Any

import colander

from smsgw.api import Items, Text

from .events import TYPES

DESCRIPTION = 200  # characters
KNOWN = tuple(TYPES.values())


class Line(Text):
    """A text on one line."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        found = super().deserialize(node, cstruct)
        if found is not colander.null and (len(found) > DESCRIPTION or not found.isprintable()):
            raise colander.Invalid(node, f"should have at most {DESCRIPTION} characters, and no control character")
        return found


def event_fault(value: object) -> dict[str, str]:
    return {} if value in KNOWN else {"": f"should be one of {', '.join(KNOWN)}"}


class Schema(colander.MappingSchema):
    """The body of a registration."""

    url = colander.SchemaNode(Text())
    events = colander.SchemaNode(Items(event_fault))
    description = colander.SchemaNode(Line(), missing="")
