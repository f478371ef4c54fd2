"""What endpoints of plugins in the v2 API are made of. Public; ``docs/plugins.md``, "HTTP of its own".

Who asks is known by then, bodies and queries are read strictly, and what is refused is a problem (RFC 9457).
"""

from __future__ import annotations

import json
from typing import Any

from cornice import Service
from pyramid.response import Response

from smsgw.gateway import Reply
from smsgw.refusals import Forbidden, NotFound
from smsgw.security import AUTHENTICATED
from smsgw.views.body import Flag, Text, WholeNumber, Word, response
from smsgw.views.problem import ROOT, Malformed
from smsgw.views.v2_body import Items, Moment, malformed, strict_body
from smsgw.views.v2_query import read_query

__all__ = [
    "ROOT",
    "Flag",
    "Forbidden",
    "Items",
    "Malformed",
    "Moment",
    "NotFound",
    "Text",
    "WholeNumber",
    "Word",
    "malformed",
    "read_query",
    "reply",
    "service",
    "strict_body",
]


def service(name: str, path: str) -> Service:
    """A Cornice service under ``/api/v2/``, for every user that is known.

    Made once, beside the views; ``includeme`` adds it with ``config.add_cornice_service``.

    :param name: nobody else's.
    :param path: such as ``stamps/{id}``.
    """
    return Service(name, f"{ROOT}/{path}", permission=AUTHENTICATED)


def reply(content: dict[str, Any], status: int = 200, **headers: str) -> Response:
    """That object as JSON, and further headers by their names, with ``_`` for ``-``."""
    return response(Reply(status, json.dumps(content)), **headers)
