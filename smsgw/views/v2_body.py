"""Bodies of the v2 API: strict types, nothing unknown, and a JSON pointer (RFC 6901) to whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import colander
from pyramid.request import Request

from smsgw.batch import Batch, Draft
from smsgw.model import Options
from smsgw.settings import Value, is_header_value, moment
from smsgw.views.body import Flag, Text, WholeNumber, Word, flaw, read_object
from smsgw.views.problem import Malformed

TOLD = 20  # faults of one body that are named
LONGEST = 64  # characters of an unknown name that is repeated

_DRAFT = {"to", "text", "reference"}


class Faults(colander.Invalid):
    """What is wrong within a value: a reason for each JSON pointer, from that value on."""

    def __init__(self, node: colander.SchemaNode, reasons: Mapping[str, str]) -> None:
        super().__init__(node)
        self.reasons = reasons


class Items(Value):
    """A list, not empty; made for thousands of items, which Colander would walk node by node.

    :param fault: says what is wrong with an item, by the JSON pointer from the item on.
    """

    def __init__(self, fault: Callable[[Any], Mapping[str, str]]) -> None:
        self._fault = fault

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        found, reasons = super().deserialize(node, cstruct), dict[str, str]()
        for place, item in enumerate(() if found is colander.null else found):
            if faults := self._fault(item):
                reasons |= {f"/{place}{pointer}": why for pointer, why in faults.items()}
                if len(reasons) >= TOLD:
                    break
        if reasons:
            raise Faults(node, reasons)
        return found

    def read(self, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError("should be a list")
        if not value:
            raise ValueError("should not be empty")
        return value


class Moment(Text):
    """A time as RFC 3339 writes it, with its offset from UTC."""

    def read(self, value: Any) -> datetime:
        return moment(super().read(value))


class Reference(Text):
    """The client's own reference of a message, which smsd hands on in a header."""

    def read(self, value: Any) -> Any:
        if reason := reference_flaw(value):
            raise ValueError(reason)
        return value


def reference_flaw(value: object) -> str | None:
    """Why that is no reference; ``None``: it is one."""
    if reason := flaw(value):
        return reason
    if isinstance(value, str) and is_header_value(value):
        return None
    return "should have at most 99 bytes, no control character, and no white space around it"


def number_fault(value: object) -> Mapping[str, str]:
    """A recipient is any string; whether it is a number is judged with the others."""
    return {} if type(value) is str else {"": "should be a string"}


def draft_fault(value: object) -> Mapping[str, str]:
    """What is wrong with one of several messages."""
    if not isinstance(value, dict):
        return {"": "should be an object"}
    faults = {_pointer(name): "is not known here" for name in value.keys() - _DRAFT}
    for name in ("to", "text"):
        if name not in value:
            faults[f"/{name}"] = "is missing"
    if "to" in value and type(value["to"]) is not str:
        faults["/to"] = "should be a string"
    if "text" in value and (reason := flaw(value["text"])):
        faults["/text"] = reason
    if "reference" in value and (reason := reference_flaw(value["reference"])):
        faults["/reference"] = reason
    return faults


class SendSchema(colander.MappingSchema):
    """The body of a send: ``to`` and ``text``, or ``messages``, and how they are to be sent."""

    to = colander.SchemaNode(Items(number_fault), missing=None)
    text = colander.SchemaNode(Text(), missing=None)
    messages = colander.SchemaNode(Items(draft_fault), missing=None)
    queue = colander.SchemaNode(Text(), missing=None)
    flash = colander.SchemaNode(Flag(), missing=False)
    priority = colander.SchemaNode(Word("high", "normal"), missing=None)
    validity_minutes = colander.SchemaNode(WholeNumber(), missing=None)
    report = colander.SchemaNode(Flag(), missing=None)
    send_at = colander.SchemaNode(Moment(), missing=None)
    reference = colander.SchemaNode(Reference(), missing=None)


class PreviewSchema(colander.MappingSchema):
    """The body of a preview."""

    text = colander.SchemaNode(Text())


def strict_body(schema: colander.MappingSchema) -> Callable[..., None]:
    """A Cornice validator: ``request.validated`` becomes what that schema makes of the body.

    What the schema does not know is refused.
    """
    known = {node.name for node in schema.children}

    def validate(request: Request, **_: Any) -> None:
        content = read_object(request)
        reasons = {f"#{_pointer(name)}": "is not known here" for name in sorted(content.keys() - known)[:TOLD]}
        try:
            request.validated = schema.deserialize(content)
        except colander.Invalid as error:
            reasons |= _reasons(error)
        if reasons:
            raise malformed(reasons)

    return validate


def malformed(reasons: Mapping[str, str]) -> Malformed:
    """The refusal of a body, by JSON pointers."""
    sentences = [f"{pointer.removeprefix('#/') or 'the body'} {why}" for pointer, why in reasons.items()]
    return Malformed("; ".join(sentences), reasons)


def batch_of(fields: Mapping[str, Any]) -> Batch:
    """The messages that a body asks for, as ``SendSchema`` made it.

    :raises Malformed: it asks in both ways, or in none.
    """
    options = Options(
        queue=fields["queue"],
        flash=fields["flash"],
        high_priority=fields["priority"] == "high",
        validity=fields["validity_minutes"],
        report=fields["report"],
        send_at=fields["send_at"],
    )
    return Batch(_drafts(fields), options)


def _drafts(fields: Mapping[str, Any]) -> list[Draft]:
    to, text, messages, reference = (fields[name] for name in ("to", "text", "messages", "reference"))
    if messages is None:
        if missing := {f"#/{name}": "is missing" for name in ("to", "text") if fields[name] is None}:
            raise malformed(missing)
        return [Draft(number, text, reference) for number in to]
    if strays := {f"#/{name}": "does not go with messages" for name in ("to", "text") if fields[name] is not None}:
        raise malformed(strays)
    return [Draft(each["to"], each["text"], each.get("reference", reference)) for each in messages]


def _reasons(error: colander.Invalid) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for child in error.children:
        pointer = f"#/{child.node.name}"
        if isinstance(child, Faults):
            reasons |= {pointer + inner: why for inner, why in child.reasons.items()}
        else:
            reasons[pointer] = "is missing" if child.msg == "Required" else str(child.msg)
    return reasons


def _pointer(name: str) -> str:
    """To a member of that name; where that is too long to be repeated, to its object."""
    return "" if len(name) > LONGEST else "/" + name.replace("~", "~0").replace("/", "~1")
