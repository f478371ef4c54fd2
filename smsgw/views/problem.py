"""Errors under /api/v2: problem details (RFC 9457), each of a type that docs/api-v2.md explains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import responses
from typing import Any

from pyramid.request import Request
from pyramid.response import Response

from smsgw.gateway import Reply
from smsgw.origin import origin
from smsgw.refusals import Invalid, KeyInUse, KeyReused, Refused
from smsgw.views.body import response

ROOT = "/api/v2"
TYPES = "/docs/api-v2.md#"

# The type and the title of a problem, by its status.
KINDS = {
    400: ("malformed", "The request is malformed"),
    401: ("unauthorized", "No credentials, or wrong ones"),
    403: ("forbidden", "You may not do that"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "This path has no such method"),
    409: ("too-late", "The message cannot be taken back"),
    413: ("too-large", "The body is too large"),
    415: ("unsupported-media-type", "The body is not JSON in UTF-8"),
    422: ("nothing-accepted", "None of the messages can be sent"),
    429: ("too-many", "Too many requests, or messages"),
    500: ("failure", "The gateway failed"),
    503: ("unavailable", "Something is out of service"),
}


class Malformed(Invalid):
    """The body, or the query, is not as it should be; ``errors`` has JSON pointers (RFC 6901) into the body."""


KINDS_OF_REFUSALS = {
    KeyInUse: ("key-in-use", "The first request is still under way"),
    KeyReused: ("key-reused", "The Idempotency-Key was used for another request"),
}
OVER_LIMIT = ("over-limit", "A limit never lets so much through at once")


def is_ours(request: Request) -> bool:
    """Whether that request, whatever its path is, is to be answered in the words of v2."""
    path = request.environ.get("PATH_INFO", "")
    return bool(path == ROOT or path.startswith(f"{ROOT}/"))


def problem(
    status: int,
    detail: str,
    errors: Mapping[str, str] | None = None,
    kind: tuple[str, str] | None = None,
    code: str | None = None,
) -> Reply:
    """
    :param errors: a reason for each JSON pointer; other names, such as a header's, are in ``detail`` alone.
    :param code: a word for programs, for each of these errors.
    """
    type, title = kind or KINDS.get(status, ("", ""))
    body: dict[str, Any] = {
        "type": TYPES + type if type else "about:blank",
        "title": title or responses.get(status, "Error"),
        "status": status,
        "detail": detail,
    }
    if found := origin():
        body["request_id"] = found.request_id
    coded = {"code": code} if code else {}
    if faults := [{"pointer": name, **coded, "detail": why} for name, why in (errors or {}).items() if name[:1] == "#"]:
        body["errors"] = faults
    return Reply(status, json.dumps(body))


def refusal_as_problem(refusal: Refused) -> Reply:
    kind = KINDS_OF_REFUSALS.get(type(refusal))
    return problem(refusal.status, refusal.detail, refusal.errors, kind)


def over_limit(detail: str) -> Reply:
    """A request that no waiting can make possible."""
    return problem(422, detail, {"#": detail}, OVER_LIMIT, "over_limit")


def respond(reply: Reply, **headers: str) -> Response:
    """That reply, of the media type that goes with its status."""
    if reply.status < 400:
        return response(reply, **headers)
    return response(reply, Content_Type="application/problem+json", **headers)
