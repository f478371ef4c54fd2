"""JSON bodies, read strictly and written: Colander types that convert nothing, and one validator for Cornice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import colander
from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.httpexceptions import HTTPBadRequest, HTTPNotFound, HTTPRequestEntityTooLarge, HTTPUnsupportedMediaType
from pyramid.request import Request
from pyramid.response import Response

from smsgw.application import application
from smsgw.gateway import Reply
from smsgw.refusals import Invalid

Validator = Callable[..., None]


class Text(colander.SchemaType):
    """A string, not empty, in which no lone surrogate stands."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is not colander.null and (reason := flaw(cstruct)):
            raise colander.Invalid(node, reason)
        return cstruct


def flaw(value: object) -> str | None:
    """Why that is no text; ``None``: it is one."""
    if not isinstance(value, str):
        return "should be a string"
    if not value:
        return "should not be empty"
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        return "has half of a surrogate pair"
    return None


class Word(Text):
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if super().deserialize(node, cstruct) in (colander.null, *self._words):
            return cstruct
        raise colander.Invalid(node, f"should be {' or '.join(map(repr, self._words))}, or be left out")


class Flag(colander.SchemaType):
    """``true`` or ``false``."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is not colander.null and not isinstance(cstruct, bool):
            raise colander.Invalid(node, "should be true or false")
        return cstruct


class WholeNumber(colander.SchemaType):
    """An integer; ``1.0`` is none."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is not colander.null and type(cstruct) is not int:
            raise colander.Invalid(node, "should be an integer")
        return cstruct


class Strings(colander.SchemaType):
    """A list of strings, at least one; made for lists of thousands, which Colander would walk node by node."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        if not isinstance(cstruct, list) or not all(type(item) is str for item in cstruct):
            raise colander.Invalid(node, "should be a list of strings")
        if not cstruct:
            raise colander.Invalid(node, "should not be empty")
        return cstruct


def json_body(schema: colander.MappingSchema) -> Validator:
    """A Cornice validator: ``request.validated`` becomes what that schema makes of the JSON object in the body."""

    def validate(request: Request, **_: Any) -> None:
        request.validated = deserialize(schema, read_object(request))

    return validate


def deserialize(schema: colander.MappingSchema, content: dict[str, Any]) -> dict[str, Any]:
    """:raises Invalid: it does not fit; each field at fault is named."""
    try:
        found: dict[str, Any] = schema.deserialize(content)
    except colander.Invalid as error:
        reasons = {name: "is missing" if why == "Required" else why for name, why in error.asdict().items()}
        raise Invalid("; ".join(f"{name} {why}" for name, why in reasons.items()), reasons) from None
    return found


def response(reply: Reply, **headers: str) -> Response:
    """That reply, and further headers by their names, with ``_`` for ``-``."""
    body = reply.body.encode("ascii")
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    found = Response(app_iter=[body], status=reply.status, headerlist=fields)
    for name, value in headers.items():
        found.headers[name.replace("_", "-")] = value
    return found


def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in the body.

    :raises Invalid, HTTPUnsupportedMediaType: there is none.
    """
    if request.content_type.lower() != "application/json":
        raise HTTPUnsupportedMediaType("Content-Type should be application/json")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPUnsupportedMediaType("The charset of JSON is UTF-8")
    try:
        content = json.loads(_take_in(request).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise Invalid("The body is not JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise Invalid("The body should be a JSON object")
    return content


def _take_in(request: Request) -> bytes:
    """The body, read once: WebOb would copy it, one over 10 KiB by way of a file.

    Of one whose length is unknown no more is read than shows that it is too large.
    """
    if request.is_body_seekable:
        return bytes(request.body)
    size = request.content_length
    try:
        body: bytes = request.body_file_raw.read(application(request).settings.max_body + 1 if size is None else size)
    except Exception as error:  # each server raises types of its own
        raise HTTPBadRequest("The body is incomplete, or malformed") from error
    if len(body) < (size or 0):
        raise HTTPBadRequest("The body is incomplete")
    request.body = body
    return body


def check_request(event: NewRequest) -> None:
    """Refuse what no route should see: a body that is too large, and a path that ends with a line break.

    gunicorn hands on chunked bodies unmeasured; Pyramid's routes (``$``) would take the path for the one without.
    """
    request, limit = event.request, application(event.request).settings.max_body
    environ = request.environ
    size = request.content_length
    if size is None and environ.get("wsgi.input_terminated"):
        size = len(_take_in(request))
    if size is not None and size > limit:
        raise HTTPRequestEntityTooLarge(f"The body has over {limit} bytes")
    if environ.get("PATH_INFO", "").endswith("\n"):
        raise HTTPNotFound


def includeme(config: Configurator) -> None:
    config.add_subscriber(check_request, NewRequest)
