"""What a client is told whose request a limit refuses.

Sources: RFC 6585, 4 (429 and ``Retry-After``); draft-ietf-httpapi-ratelimit-headers-11 (``RateLimit`` and
``RateLimit-Policy``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import quote
from zoneinfo import ZoneInfo

from smsgw.model import OverLimit, TooMany

from .limits import Claim, Limit

_SAFE = " !#$&'()*+,/:;<=>?@[]^`{|}"  # what a string of RFC 9651 may have without an escape, except "%"


def refusal(claims: Sequence[Claim], left: Mapping[Claim, int], now: float, zone: ZoneInfo | None) -> TooMany:
    """Of the limits that refuse, the one that opens last is named.

    Where the request needs more than that limit ever lets through, it is an ``OverLimit``, whose ``retry_after`` says
    when smaller requests find room for certain.

    :param claims: what the request needs, of all limits that apply.
    :param left: how much is left of the limits that refuse.
    """
    last = max(left, key=lambda claim: claim.until)
    is_never = last.amount > last.limit.most
    if is_never:
        detail = f"This request needs {last.amount} and can never pass the limit of {last.limit}; send smaller ones"
    else:
        opens = datetime.fromtimestamp(last.until, zone).astimezone(zone).isoformat(" ")
        needed = f"{left[last]} left, and this request needs {last.amount}"
        detail = f"The limit of {last.limit} has {needed}; it opens again at {opens}"
    policy = ", ".join(
        f'{_name(claim.limit)};q={claim.limit.most};w={claim.until - claim.begin};qu="{claim.limit.counted}"'
        for claim in claims
    )
    state = ", ".join(f"{_name(claim.limit)};r={rest};t={_wait(claim, now)}" for claim, rest in left.items())
    fields = {"RateLimit-Policy": policy, "RateLimit": state}
    return (OverLimit if is_never else TooMany)(_wait(last, now), detail, fields)


def _wait(claim: Claim, now: float) -> int:
    """Whole seconds after which the window is over for certain."""
    return max(1, math.ceil(claim.until - now))


def _name(limit: Limit) -> str:
    """The limit's name in both fields. Characters that a field cannot have are escaped as in a URL."""
    return f'"{quote(str(limit), safe=_SAFE)}"'
