"""What a client is told whose request a limit refuses.

RFC 6585, 4 (429 and ``Retry-After``); draft-ietf-httpapi-ratelimit-headers-11 (``RateLimit`` and ``RateLimit-Policy``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from urllib.parse import quote
from zoneinfo import ZoneInfo

from smsgw.model import TooMany

from .limits import Claim, Limit

_SAFE = " !#$&'()*+,/:;<=>?@[]^`{|}"  # what a string of RFC 9651 may have without an escape, but "%"


def exhausted(claims: Sequence[Claim], left: Mapping[Claim, int], now: float, zone: ZoneInfo | None) -> TooMany:
    """Some limits have too little left; the one that opens last is named."""
    last = _last(left)
    opens = datetime.fromtimestamp(last.until, zone).astimezone(zone).isoformat(" ")
    needed = f"{left[last]} left, and this request needs {last.amount}"
    return _refusal(f"The limit of {last.limit} has {needed}; it opens again at {opens}", claims, left, now)


def too_large(claims: Sequence[Claim], left: Mapping[Claim, int], now: float) -> TooMany:
    """Some limits never let as much through at once.

    ``Retry-After`` is when requests of a size that can pass find room for certain.
    """
    last = _last(left)
    detail = f"This request needs {last.amount} and can never pass the limit of {last.limit}; send smaller ones"
    return _refusal(detail, claims, left, now)


def _refusal(detail: str, claims: Sequence[Claim], left: Mapping[Claim, int], now: float) -> TooMany:
    policy = ", ".join(
        f'{_name(claim.limit)};q={claim.limit.most};w={claim.until - claim.begin};qu="{claim.limit.counted}"'
        for claim in claims
    )
    state = ", ".join(f"{_name(claim.limit)};r={rest};t={_wait(claim, now)}" for claim, rest in left.items())
    return TooMany(_wait(_last(left), now), detail, {"RateLimit-Policy": policy, "RateLimit": state})


def _last(claims: Iterable[Claim]) -> Claim:
    """The one whose window ends last."""
    return max(claims, key=lambda claim: claim.until)


def _wait(claim: Claim, now: float) -> int:
    """Whole seconds until the window is certainly over."""
    return max(1, math.ceil(claim.until - now))


def _name(limit: Limit) -> str:
    """What a limit is called in both fields; other characters than a field may have are escaped as in a URL."""
    return f'"{quote(str(limit), safe=_SAFE)}"'
