"""What the log and the client are told of each request: its id, and why a user was refused.

The id is the header ``X-Request-ID`` of every reply. A trusted proxy may give it, since its own log then has the same.
"""

from __future__ import annotations

import json
import logging
import re

from pyramid.config import Configurator
from pyramid.events import NewRequest, NewResponse
from pyramid.request import Request
from pyramid.response import Response

from smsgw.application import application
from smsgw.model import Identity, Origin
from smsgw.origin import begin, end, make_id, origin
from smsgw.security import IDENTITY, client_address, is_from_proxy
from smsgw.views.problem import OVER_LIMIT, TYPES

HEADER = "X-Request-ID"
LONGEST = 200  # characters of a path that are kept
_WELL_FORMED = re.compile(r"[0-9A-Za-z._:/+=@-]{8,64}")
_SCHEME = re.compile(r"([A-Za-z]{1,20}) ")  # without the space it could be a token

log = logging.getLogger(__name__)


def authenticated(request: Request) -> Identity | None:
    """The user of a request, as far as it was asked for. Nobody is asked anew."""
    found: Identity | None = request.environ.get(IDENTITY)
    return found


def begin_request(event: NewRequest) -> None:
    request, proxies = event.request, application(event.request).settings.trusted_proxies
    shown = request.headers.get(HEADER, "") if is_from_proxy(request, proxies) else ""
    scheme = _SCHEME.match(request.headers.get("Authorization", ""))
    token = begin(
        Origin(
            shown if _WELL_FORMED.fullmatch(shown) else make_id(),
            f"{request.method[:20]} {_path(request)}",
            client_address(request, proxies),
            scheme[1].capitalize() if scheme else "",
        )
    )
    request.add_finished_callback(lambda request: end(token))


def end_request(event: NewResponse) -> None:
    found = origin()
    if found is None:
        return
    event.response.headers[HEADER] = found.request_id
    identity = authenticated(event.request)
    if identity is not None and event.response.status_int in (403, 422, 429):
        _log_refusal(found, identity, event.response)


def _log_refusal(found: Origin, identity: Identity, response: Response) -> None:
    """Of one that a policy or a limit decided. The sentence that the client was told names no number and no text."""
    try:
        content = json.loads(response.body)
    except ValueError:  # a plugin's own reply
        content = None
    told = content if isinstance(content, dict) else {}
    status = response.status_int
    if status == 422 and told.get("type") != TYPES + OVER_LIMIT[0]:
        return  # the request is at fault
    sentence = told.get("detail") or told.get("error") or response.status
    log.warning("%r of %r from %s is refused (%d): %r", found.via, identity.userid, found.address, status, sentence)


def _path(request: Request) -> str:
    path: str = request.environ.get("PATH_INFO", "")
    return path.encode("latin-1", "replace").decode("utf-8", "replace")[:LONGEST]


def includeme(config: Configurator) -> None:
    config.add_subscriber(begin_request, NewRequest)
    config.add_subscriber(end_request, NewResponse)
