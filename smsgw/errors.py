"""Replies to exceptions: JSON with one sentence; under /api/v2, problem details."""

from __future__ import annotations

import json
import logging

from pyramid.config import Configurator
from pyramid.exceptions import URLDecodeError
from pyramid.httpexceptions import (
    HTTPException,
    HTTPForbidden,
    HTTPInternalServerError,
    HTTPMethodNotAllowed,
    HTTPNotFound,
    HTTPServiceUnavailable,
    HTTPUnauthorized,
)
from pyramid.request import Request
from pyramid.response import Response

from smsgw.application import application
from smsgw.gateway import Reply
from smsgw.logs import indented
from smsgw.model import OverLimit, TooMany, Unavailable
from smsgw.plugins import offers
from smsgw.refusals import Refused
from smsgw.views import problem
from smsgw.views.body import response

RETRY_AFTER = 30  # seconds, where the exception names none

log = logging.getLogger(__name__)


def error_reply(status: int, detail: str, errors: dict[str, str] | None = None) -> Reply:
    """An error of v1.0: what is wrong, and with which fields or recipients."""
    return Reply(status, json.dumps({"error": detail} | ({"errors": errors} if errors else {})))


def refused(error: Refused, request: Request) -> Response:
    if problem.is_ours(request):
        return problem.respond(problem.refusal_as_problem(error))
    return response(error_reply(error.status, error.detail, error.errors))


def too_many(error: TooMany, request: Request) -> Response:
    if isinstance(error, OverLimit) and problem.is_ours(request):
        found = problem.respond(problem.over_limit(error.detail))
    else:
        found = _reply(request, 429, error.detail)
        found.headers["Retry-After"] = str(error.retry_after)
    found.headers.update(error.fields)
    return found


def unavailable(error: Unavailable, request: Request) -> Response:
    log.error("%s (%s)", error, error.__cause__)
    found = _reply(request, 503, error.detail)
    found.headers["Retry-After"] = str(error.retry_after or RETRY_AFTER)
    return found


def undecodable_path(error: URLDecodeError, request: Request) -> Response:
    return http_error(HTTPNotFound(), request)


def http_error(error: HTTPException, request: Request) -> Response:
    """Errors of Pyramid, Cornice and plugins. A client without credentials gets 401, whatever the path is."""
    if isinstance(error, HTTPForbidden | HTTPNotFound | HTTPMethodNotAllowed):
        try:
            known = request.identity is not None
        except HTTPException as instead:
            return http_error(instead, request)
        except Unavailable as instead:
            return unavailable(instead, request)
        except Exception as failed:  # Pyramid calls no exception view for it
            return unexpected(failed, request)
        if not known:
            challenge = [("WWW-Authenticate", application(request).policy.challenge)]
            error = HTTPUnauthorized("No credentials, or wrong ones", headers=challenge)
    if isinstance(error, HTTPNotFound):
        error = HTTPNotFound(_why_not_found(request))
    found = _reply(request, error.code, error.detail or error.title)
    for name in ("WWW-Authenticate", "Retry-After", "Allow"):
        if name in error.headers:
            found.headers[name] = error.headers[name]
    if isinstance(error, HTTPServiceUnavailable):
        found.headers.setdefault("Retry-After", str(RETRY_AFTER))
    return found


def _why_not_found(request: Request) -> str:
    """A plugin's endpoints are under its name: who asks for one that is not enabled is told so."""
    name = request.environ.get("PATH_INFO", "").removeprefix(f"{problem.ROOT}/").partition("/")[0]
    if problem.is_ours(request) and name in set(offers().names) - set(application(request).settings.plugins):
        return f"Not found; the plugin {name!r} is installed, and not enabled (smsgw.plugins)"
    return "Not found"


def unexpected(error: Exception, request: Request) -> Response:
    log.error("%r %r failed%s", request.method, request.environ.get("PATH_INFO", "")[:200], indented(error))
    return _reply(request, HTTPInternalServerError.code, "The gateway failed; its log says why")


def _reply(request: Request, status: int, detail: str) -> Response:
    if problem.is_ours(request):
        return problem.respond(problem.problem(status, detail))
    return response(error_reply(status, detail))


def includeme(config: Configurator) -> None:
    for view, context in (
        (refused, Refused),
        (too_many, TooMany),
        (unavailable, Unavailable),
        (undecodable_path, URLDecodeError),
        (http_error, HTTPException),
        (unexpected, Exception),
    ):
        config.add_exception_view(view, context=context)
