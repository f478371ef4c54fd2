"""``/health``: for those who watch the gateway. Two paths are public and say next to nothing; the third says all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cornice import Service
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from smsgw.application import application
from smsgw.gateway import Reply
from smsgw.health import Report
from smsgw.refusals import Forbidden
from smsgw.resources import moment
from smsgw.security import AUTHENTICATED
from smsgw.spool.modems import Modem
from smsgw.spool.waiting import Waiting, look
from smsgw.views.body import ok, response

ROOT = "/health"
PERMISSION = "health"

live = Service("health.live", f"{ROOT}/live", permission=NO_PERMISSION_REQUIRED)
ready = Service("health.ready", f"{ROOT}/ready", permission=NO_PERMISSION_REQUIRED)
health = Service("health", ROOT, permission=AUTHENTICATED)


@live.get()
def tell_live(request: Request) -> Response:
    return ok({"status": "ok"})


@ready.get()
def tell_ready(request: Request) -> Response:
    """Which parts are wrong, and nothing else of them: anybody may ask."""
    found = application(request).health.look()
    wrong = list(dict.fromkeys(problem.part.partition(" ")[0] for problem in found.problems))
    return response(Reply(200 if found.is_ready else 503, json.dumps({"ready": found.is_ready, "wrong": wrong})))


@health.get()
def tell(request: Request) -> Response:
    parts = application(request)
    if not parts.permits(request.identity, PERMISSION):
        raise Forbidden("You may not see how the gateway is")
    return ok(_resource(parts.health.look(), look(parts.layout, parts.queue)))


def _resource(found: Report, queues: Sequence[Waiting]) -> dict[str, Any]:
    return {
        "status": found.status,
        "ready": found.is_ready,
        "at": moment(datetime.now(UTC).replace(microsecond=0)),
        "problems": [asdict(problem) | {"since": moment(problem.since)} for problem in found.problems],
        "modems": [_modem(modem) for modem in found.smsd.modems],
        "queues": [asdict(each) | {"oldest": moment(each.oldest)} for each in queues],
    }


def _modem(modem: Modem) -> dict[str, Any]:
    shown = {"name": modem.name, "is_up": modem.fault is None} | asdict(modem) | {"since": moment(modem.since)}
    return {name: value for name, value in shown.items() if name not in ("fault", "remedy")}


def includeme(config: Configurator) -> None:
    for service in (live, ready, health):
        config.add_cornice_service(service)
