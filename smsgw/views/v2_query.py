"""Queries of the v2 API, read strictly."""

from __future__ import annotations

from collections.abc import Collection

from pyramid.request import Request

from smsgw.views.problem import Malformed


def read_query(request: Request, known: Collection[str]) -> dict[str, str]:
    """What the query says, by the names of its parameters; an empty one counts as left out.

    :raises Malformed: a parameter is unknown, stands twice, or is not UTF-8.
    """
    try:
        pairs = [(name, value) for name, value in request.GET.items() if value]
    except UnicodeError:
        raise Malformed("The query string is not UTF-8") from None
    query = dict(pairs)
    for name in query.keys() - set(known):
        raise Malformed(f"There is no parameter {name[:64]!r}")
    for name in query:
        if [other for other, _ in pairs].count(name) > 1:
            raise Malformed(f"{name} stands twice")
    return query
