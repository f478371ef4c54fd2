"""The v2 API: messages as resources. Bodies are read in v2_body, queries in v2_search; errors are worded in problem."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cornice import Service
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from smsgw.application import application
from smsgw.batch import Draft, Outcome
from smsgw.gateway import Reply
from smsgw.model import Position, Query
from smsgw.numbers import e164
from smsgw.refusals import OF_TEXTS, Invalid, NoneAccepted, Refused, Rejection
from smsgw.resources import moment
from smsgw.security import AUTHENTICATED
from smsgw.status import OUTGOING, RECEIVED
from smsgw.text import foreign, measure
from smsgw.views.body import ok, repetition
from smsgw.views.problem import ROOT, problem, refusal_as_problem, respond
from smsgw.views.v2_body import PreviewSchema, SendSchema, batch_of, malformed, strict_body
from smsgw.views.v2_search import Search, number_filter, read_search, time_filter, word_filter

messages = Service("v2.messages", f"{ROOT}/messages", permission=AUTHENTICATED)
message = Service("v2.message", f"{ROOT}/messages/{{id}}", permission=AUTHENTICATED)
inbox = Service("v2.inbox", f"{ROOT}/inbox", permission=AUTHENTICATED)
received = Service("v2.received", f"{ROOT}/inbox/{{id}}", permission=AUTHENTICATED)
preview = Service("v2.preview", f"{ROOT}/preview", permission=AUTHENTICATED)
me = Service("v2.me", f"{ROOT}/me", permission=AUTHENTICATED)

SEND = SendSchema()
PREVIEW = PreviewSchema()


@messages.post(validators=(strict_body(SEND),))
def send(request: Request) -> Response:
    fields = request.validated
    batch = batch_of(fields)
    presenter = V2(batch.drafts, each=fields["messages"] is not None)
    return respond(application(request).gateway.send(request.identity, batch, presenter, repetition(request)))


@messages.get()
def search(request: Request) -> Response:
    readers = {
        "status": _statuses,
        "to": number_filter(application(request).gateway.number),
        "from": word_filter,
        "reference": word_filter,
        "since": time_filter,
        "until": time_filter,
    }
    asked = read_search(request, readers)
    filters = asked.filters
    statuses = filters.get("status", ",".join(OUTGOING)).split(",")
    query = Query(tuple(statuses), filters.get("from"), filters.get("to"), reference=filters.get("reference"))
    page = application(request).mailbox.search(request.identity, asked.among(query))
    return _page(
        asked, f"{ROOT}/messages", [application(request).resources.sent(*each) for each in page.messages], page.last
    )


@message.get()
def read(request: Request) -> Response:
    mailbox = application(request).mailbox
    found = mailbox.locate(request.identity, request.matchdict["id"])
    return ok(application(request).resources.sent(found, mailbox.fate(found)))


@message.delete()
def cancel(request: Request) -> Response:
    return ok(
        application(request).resources.sent(
            application(request).mailbox.cancel(request.identity, request.matchdict["id"]), None
        )
    )


@inbox.get()
def list_received(request: Request) -> Response:
    asked = read_search(request, {"from": number_filter(_sender), "since": time_filter, "until": time_filter})
    query = Query((RECEIVED.name,), sender=asked.filters.get("from"))
    page = application(request).mailbox.search(request.identity, asked.among(query))
    return _page(
        asked, f"{ROOT}/inbox", [application(request).resources.received(each) for each, _ in page.messages], page.last
    )


@received.get()
def read_received(request: Request) -> Response:
    return ok(
        application(request).resources.received(
            application(request).mailbox.received(request.identity, request.matchdict["id"])
        )
    )


@received.delete()
def delete_received(request: Request) -> Response:
    found = application(request).mailbox.delete_received(request.identity, request.matchdict["id"])
    return ok(application(request).resources.received(found))


@preview.post(validators=(strict_body(PREVIEW),))
def show(request: Request) -> Response:
    try:
        text = application(request).gateway.transform(request.validated["text"], request.identity)
    except Invalid as error:
        return respond(problem(422, error.detail, {f"#/{name}": why for name, why in error.errors.items()}))
    encoding = measure(text)
    return ok(
        {
            "text": text,
            "alphabet": encoding.alphabet,
            "parts": encoding.parts,
            "units_used": encoding.units,
            "units_left": encoding.left,
            "forcing_ucs2": list(foreign(text)),
        }
    )


@me.get()
def tell(request: Request) -> Response:
    identity, found = request.identity, application(request)
    return ok(
        {
            "userid": identity.userid,
            "groups": sorted(identity.groups),
            "permissions": {name.replace("-", "_"): found.permits(identity, name) for name in ("list", "read-all")},
            "limits": [asdict(each) | {"until": moment(each.until)} for each in found.gateway.limits(identity)],
        }
    )


def _page(asked: Search, path: str, found: Sequence[dict[str, Any]], last: Position | None) -> Response:
    return ok({"messages": found, "next": asked.next(path, last)})


def _sender(value: str) -> str:
    """Whom a received message is from: a number, or a name."""
    return e164(word_filter(value))


def _statuses(value: str) -> str:
    words = value.split(",")
    if not set(OUTGOING) >= set(words) or len(set(words)) < len(words):
        raise ValueError(f"should be some of {', '.join(OUTGOING)}, each once")
    return value


class V2:
    """How v2 words what came of a batch.

    :param drafts: the batch.
    :param each: whether each draft stands in ``messages``, and not its number alone in ``to``.
    """

    def __init__(self, drafts: Sequence[Draft], *, each: bool) -> None:
        self._drafts = drafts
        self._each = each

    def accepted(self, outcome: Outcome) -> Reply:
        messages = [
            {
                "id": message.id,
                "to": e164(message.to),
                "status": "scheduled" if message.content.options.send_at else "queued",
                "parts": message.content.parts,
                "alphabet": message.content.alphabet,
                "text": message.content.text,
                "reference": message.reference,
                "url": f"{ROOT}/messages/{message.id}",
            }
            for message in outcome.messages
        ]
        rejected = [
            {
                "pointer": self._pointer(why),
                "to": self._drafts[why.place].number,
                "code": why.code,
                "detail": why.detail,
            }
            for why in outcome.rejected
        ]
        return Reply(202, json.dumps({"messages": messages, "rejected": rejected}))

    def refused(self, refusal: Refused) -> Reply:
        if isinstance(refusal, NoneAccepted):
            return problem(refusal.status, refusal.detail, {self._pointer(why): why.detail for why in refusal.rejected})
        names = {"recipients": "messages" if self._each else "to", "validity": "validity_minutes"}
        if refusal.errors:
            refusal = malformed({f"#/{names.get(name, name)}": why for name, why in refusal.errors.items()})
        return refusal_as_problem(refusal)

    def _pointer(self, why: Rejection) -> str:
        """Where in the body that stands; a text that all share stands there once."""
        if not self._each:
            return "#/text" if why.code in OF_TEXTS else f"#/to/{why.place}"
        part = "/text" if why.code in OF_TEXTS else "" if why.code == "duplicate" else "/to"
        return f"#/messages/{why.place}{part}"


def includeme(config: Configurator) -> None:
    for service in (messages, message, inbox, received, preview, me):
        config.add_cornice_service(service)
