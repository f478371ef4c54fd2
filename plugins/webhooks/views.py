"""The endpoints of webhooks in the v2 API. Users see and change their own webhooks, and nobody else's."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from smsgw.api import ROOT, Forbidden, Malformed, NotFound, malformed, read_query, reply, service, strict_body
from smsgw.resources import moment

from .failures import Failures
from .post import Post
from .registration import LookUps, Schema
from .rights import Rights
from .signature import make_secret
from .table import Webhook, Webhooks, make_id

LIMIT, MOST = 50, 100  # failures of a page, where the client does not say, and at most

webhooks = service("webhooks", "webhooks")
webhook = service("webhooks.one", "webhooks/{id}")
failures = service("webhooks.failures", "webhooks/{id}/failures")
replay = service("webhooks.replay", "webhooks/{id}/failures/replay")
replay_one = service("webhooks.replay_one", "webhooks/{id}/failures/{delivery}/replay")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the views use, as ``registry.webhooks``; ``most`` is how many webhooks a user may have."""

    webhooks: Webhooks
    failures: Failures
    rights: Rights
    post: Post
    look_ups: LookUps
    most: int
    clock: Callable[[], float]  # seconds since 1970 (UTC)


@webhooks.post(validators=(strict_body(Schema()),))
def register(request: Request) -> Response:
    fields, endpoints, userid = request.validated, _endpoints(request), request.identity.userid
    events = tuple(dict.fromkeys(fields["events"]))
    if len(events) < len(fields["events"]):
        raise malformed({"#/events": "should have each event once"})
    full = Forbidden(f"You have {endpoints.most} webhooks, and can have no more; delete one")
    try:
        target = endpoints.post.target(fields["url"])
        if endpoints.webhooks.count(userid) >= endpoints.most:
            raise full
        endpoints.look_ups.count(userid)
        endpoints.post.check(target)
    except ValueError as error:
        raise malformed({"#/url": str(error)}) from None
    about = (fields["url"], events, fields["description"], make_secret())
    found = Webhook(make_id(), request.identity, *about, int(time.time()), _now(request))
    if not endpoints.webhooks.add(found, endpoints.most):
        raise full
    shown = _resource(found) | {"secret": found.secret}
    return reply(shown, 201, Location=f"{ROOT}/webhooks/{found.id}")


@webhooks.get()
def list_(request: Request) -> Response:
    endpoints = _endpoints(request)
    found = endpoints.webhooks.all(request.identity.userid)
    return reply({"webhooks": [_resource(each) | {"ended": endpoints.rights.end(each)} for each in found]})


@webhook.get()
def read(request: Request) -> Response:
    found, endpoints = _own(request), _endpoints(request)
    waiting, failed = endpoints.failures.counts(found.id)
    last_error, ended = endpoints.failures.last_error(found.id), endpoints.rights.end(found)
    standing = {"ended": ended, "waiting": waiting, "failed": failed, "last_error": last_error}
    return reply(_resource(found) | standing)


@webhook.delete()
def remove(request: Request) -> Response:
    found = _own(request)
    _endpoints(request).webhooks.remove(found.id)
    return reply(_resource(found))


@failures.get()
def list_failures(request: Request) -> Response:
    found, query = _own(request), read_query(request, {"limit", "cursor"})
    limit = _number(query, "limit", MOST) or LIMIT
    rows = _endpoints(request).failures.page(found.id, _number(query, "cursor", 2**63 - 1), limit)
    following = None
    if len(rows) == limit:
        following = f"{ROOT}/webhooks/{found.id}/failures?cursor={rows[-1].number}&limit={limit}"
    return reply({"failures": [_failure(row) for row in rows], "next": following})


@replay.post()
def replay_failures(request: Request) -> Response:
    return reply({"replayed": _endpoints(request).failures.replay(_living(request).id, None, _now(request))}, 202)


@replay_one.post()
def replay_failure(request: Request) -> Response:
    delivery = request.matchdict["delivery"]
    is_id = re.fullmatch("msg_[0-9a-f]{32}", delivery)
    if not is_id or not (replayed := _endpoints(request).failures.replay(_living(request).id, delivery, _now(request))):
        raise NotFound
    return reply({"replayed": replayed}, 202)


def _endpoints(request: Request) -> Endpoints:
    endpoints: Endpoints = request.registry.webhooks
    return endpoints


def _own(request: Request) -> Webhook:
    """:raises NotFound: the user has none of that id."""
    id = request.matchdict["id"]
    is_id = re.fullmatch("wh_[0-9a-f]{20}", id)
    found = _endpoints(request).webhooks.find(id, request.identity.userid) if is_id else None
    if found is None:
        raise NotFound
    return found


def _living(request: Request) -> Webhook:
    """:raises Forbidden: it has ended."""
    found = _own(request)
    if ended := _endpoints(request).rights.end(found):
        raise Forbidden(ended)
    return found


def _number(query: dict[str, str], name: str, most: int) -> int | None:
    if name not in query:
        return None
    if not re.fullmatch("[0-9]{1,19}", query[name]) or not 1 <= int(query[name]) <= most:
        raise Malformed(f"{name} should be 1 to {most}")
    return int(query[name])


def _now(request: Request) -> int:
    return int(_endpoints(request).clock() * 1000)


def _resource(found: Webhook) -> dict[str, Any]:
    """All of a webhook but its secret."""
    return {
        "id": found.id,
        "url": found.url,
        "events": list(found.events),
        "description": found.description,
        "created_at": moment(datetime.fromtimestamp(found.created, UTC)),
    }


def _failure(row: Any) -> dict[str, Any]:
    failed = moment(datetime.fromtimestamp(row.failed / 1000, UTC))
    return {
        "id": row.id,
        "type": row.type,
        "message": row.message,
        "attempts": row.attempts,
        "error": row.error,
        "failed_at": failed,
    }


def includeme(config: Configurator) -> None:
    for each in (webhooks, webhook, failures, replay, replay_one):
        config.add_cornice_service(each)
