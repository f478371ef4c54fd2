"""JSON bodies, read strictly and written. Its Colander types convert nothing."""

from __future__ import annotations

import json
from typing import Any

from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.httpexceptions import HTTPBadRequest, HTTPNotFound, HTTPRequestEntityTooLarge, HTTPUnsupportedMediaType
from pyramid.request import Request
from pyramid.response import Response

from smsgw.application import application
from smsgw.gateway import Once, Reply, once
from smsgw.refusals import Invalid
from smsgw.settings import Value


class Text(Value):
    """A string, not empty, in which no lone surrogate stands."""

    def read(self, value: Any) -> Any:
        if reason := flaw(value):
            raise ValueError(reason)
        return value


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

    def read(self, value: Any) -> Any:
        if super().read(value) not in self._words:
            raise ValueError(f"should be {' or '.join(map(repr, self._words))}, or be left out")
        return value


class Flag(Value):
    """``true`` or ``false``."""

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("should be true or false")
        return value


class WholeNumber(Value):
    """An integer; ``1.0`` is none."""

    def read(self, value: Any) -> int:
        if type(value) is not int:
            raise ValueError("should be an integer")
        return value


class Strings(Value):
    """A list of strings, at least one; made for lists of thousands, which Colander would walk node by node."""

    def read(self, value: Any) -> list[str]:
        if not isinstance(value, list) or not all(type(item) is str for item in value):
            raise ValueError("should be a list of strings")
        if not value:
            raise ValueError("should not be empty")
        return value


def ok(content: dict[str, Any]) -> Response:
    """That object as JSON, with the status 200."""
    return response(Reply(200, json.dumps(content)))


def repetition(request: Request) -> Once | None:
    """Under which ``Idempotency-Key`` the request is done once; ``None``: it has none.

    :raises Invalid: it is no key.
    """
    key = request.headers.get("Idempotency-Key")
    return None if key is None else once(request.identity, key, request.method, request.path_qs, request.body)


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
        raise HTTPUnsupportedMediaType(f"The charset of JSON is UTF-8, and Content-Type says {request.charset[:64]!r}")
    content = _parse(_take_in(request))
    if not isinstance(content, dict):
        raise Invalid("The body should be a JSON object")
    return content


def _parse(body: bytes) -> Any:
    """:raises Invalid: it is not JSON in UTF-8; the sentence says where it is wrong."""
    try:
        return json.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        why = f"UTF-8: byte {error.start + 1} is 0x{error.object[error.start]:02x}"
    except json.JSONDecodeError as error:
        why = f"JSON: {error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}"
    except ValueError:
        why = "JSON that can be read: a number has too many digits"
    except RecursionError:
        why = "JSON that can be read: it is nested too deeply"
    raise Invalid(f"The body is not {why}")


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
