"""Requests: how long each took, and which sends were refused, and why."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterator

from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response

from smsgw.api import ROOT

from .counters import Key, key

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
APIS = {"/api/v1.0/": "v1", f"{ROOT}/": "v2"}
SENDS = {"/api/v1.0/sms/outgoing": "v1", f"{ROOT}/messages": "v2"}
REASONS = {
    400: "invalid",
    401: "unauthenticated",
    403: "forbidden",
    409: "key_in_use",
    413: "too_large",
    422: "invalid",
    429: "too_many",
    500: "error",
    503: "unavailable",
}

Handler = Callable[[Request], Response]


def tween_factory(handler: Handler, registry: Registry) -> Handler:
    """Count each request, above the exception views, so that the reply is what the client gets."""
    count = registry.metrics.count

    def tween(request: Request) -> Response:
        began = time.perf_counter()
        response = handler(request)
        count(dict(_counted(request, response, time.perf_counter() - began)))
        return response

    return tween


def _counted(request: Request, response: Response, seconds: float) -> Iterator[tuple[Key, float]]:
    path: str = request.environ.get("PATH_INFO", "")
    api = next((name for root, name in APIS.items() if path.startswith(root)), "other")
    labels = {"api": api, "status": f"{response.status_int // 100}xx"}
    index = bisect.bisect_left(BUCKETS, seconds)
    yield key("request_seconds_bucket", **labels, le=bound(index)), 1
    yield key("request_seconds_sum", **labels), seconds
    is_send = request.method == "POST" or (request.method == "GET" and api == "v1" and response.status_int != 405)
    if path in SENDS and is_send and response.status_int >= 400:
        reason = REASONS.get(response.status_int, "error" if response.status_int >= 500 else "invalid")
        yield key("sends_refused", api=api, reason=reason), 1


def bound(index: int) -> str:
    """The upper bound of a bucket, as Prometheus writes it."""
    return str(BUCKETS[index]) if index < len(BUCKETS) else "+Inf"
