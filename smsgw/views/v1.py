"""The v1.0 API, to the letter of its contract: existing clients depend on every field and status here."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import colander
from cornice import Service
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPMethodNotAllowed
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from smsgw.application import application
from smsgw.batch import Batch, Draft, Outcome, by_number, reasons, sent
from smsgw.errors import error_reply
from smsgw.gateway import Reply
from smsgw.model import Options
from smsgw.refusals import Invalid, NoneAccepted, Refused, invalid
from smsgw.security import AUTHENTICATED
from smsgw.views.body import Flag, Strings, Text, WholeNumber, Word, ok, read_object, repetition, response

ROOT = "/api/v1.0"
LIMIT = 1000  # ids in a list, where the client does not say

outgoing = Service("v1.outgoing", f"{ROOT}/sms/outgoing", permission=AUTHENTICATED)
folder = Service("v1.folder", f"{ROOT}/sms/{{kind}}/", permission=AUTHENTICATED)
message = Service("v1.message", f"{ROOT}/sms/{{kind}}/{{message_id}}", permission=AUTHENTICATED)
monitoring = Service("v1.monitoring", f"{ROOT}/monitoring", permission=NO_PERMISSION_REQUIRED)


class SendSchema(colander.MappingSchema):
    """The body of a send; what is not named here is ignored."""

    mobiles = colander.SchemaNode(Strings())
    text = colander.SchemaNode(Text())
    queue = colander.SchemaNode(Text(), missing=None)
    flash = colander.SchemaNode(Flag(), missing=False)
    priority = colander.SchemaNode(Word("high"), missing=None)
    validity = colander.SchemaNode(WholeNumber(), missing=None)
    report = colander.SchemaNode(Flag(), missing=None)


SEND = SendSchema()


@outgoing.post()
def send(request: Request) -> Response:
    return _send(request, read_object(request))


@outgoing.get()
def send_by_get(request: Request) -> Response:
    """The same for clients that can only GET, where the operator allows it."""
    if request.method != "GET" or not application(request).settings.get_send:
        raise HTTPMethodNotAllowed("Messages are sent by POST", headers=[("Allow", "POST")])
    query = dict(_query(request))
    fields: dict[str, Any] = {name: query[name] for name in ("text", "queue", "priority") if name in query}
    if "mobiles" in query:
        # A plus arrives as the space that it stands for in a query.
        written = ",".join(request.GET.getall("mobiles")).split(",")
        fields["mobiles"] = [re.sub(r"\A ", "+", number) for number in written]
    for name in ("flash", "report"):
        if name in query:
            fields[name] = {"true": True, "false": False}.get(query[name], query[name])
    if "validity" in query:
        fields["validity"] = _whole_number("validity", query["validity"])
    return _send(request, fields)


@folder.get()
def list_messages(request: Request) -> Response:
    query = _query(request)
    limit = _whole_number("limit", query.get("limit") or str(LIMIT))
    offset = _whole_number("offset", query.get("offset") or "0")
    page = application(request).mailbox.list(request.identity, request.matchdict["kind"], limit, offset)
    return ok({"message_id": page.ids, "limit": limit, "total_count": page.total})


@message.get()
def read(request: Request) -> Response:
    found = application(request).mailbox.read(request.identity, **_named(request))
    fate = application(request).mailbox.fate(found)
    delivered = {"Delivered": fate.discharged} if fate and fate.is_delivered else {}
    return ok({**found.headers, **delivered, "message_id": found.id, "text": found.text})


@message.delete()
def delete(request: Request) -> Response:
    named = _named(request)
    application(request).mailbox.delete(request.identity, **named)
    return ok({"deleted": "{kind}/{id}".format_map(named)})


@monitoring.get()
def monitor(request: Request) -> Response:
    application(request).writer.probe()
    return ok({"monitoring": "ok"})


def _send(request: Request, content: dict[str, Any]) -> Response:
    try:
        fields = SEND.deserialize(content)
    except colander.Invalid as error:
        faults = {name: "is missing" if why == "Required" else why for name, why in error.asdict().items()}
        raise Invalid("; ".join(f"{name} {why}" for name, why in faults.items()), faults) from None
    options = Options(
        queue=fields["queue"],
        flash=fields["flash"],
        high_priority=fields["priority"] == "high",
        validity=fields["validity"],
        report=fields["report"],
    )
    drafts = [Draft(number, fields["text"]) for number in fields["mobiles"]]
    gateway = application(request).gateway
    return response(gateway.send(request.identity, Batch(drafts, options), V1(drafts), repetition(request)))


class V1:
    """Words what came of a send: by numbers, each as the client wrote it.

    :param drafts: the batch; all of them share one text.
    """

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self._drafts = drafts

    def accepted(self, outcome: Outcome) -> Reply:
        content = outcome.messages[0].content
        body: dict[str, Any] = {
            "message_id": {number: message.id for number, message in sent(self._drafts, outcome).items()},
            "parts_count": content.parts,
            "sent_text": content.text,
        }
        if refused := reasons(self._drafts, outcome.rejected):
            body["errors"] = refused
        return Reply(201, json.dumps(body))

    def refused(self, refusal: Refused) -> Reply:
        if isinstance(refusal, NoneAccepted):
            refusal = by_number(self._drafts, refusal)
        elif why := refusal.errors.get("recipients"):
            refusal = invalid("mobiles", why)
        return error_reply(refusal.status, refusal.detail, refusal.errors)


def _named(request: Request) -> dict[str, str]:
    return {"kind": request.matchdict["kind"], "id": request.matchdict["message_id"]}


def _query(request: Request) -> dict[str, str]:
    try:
        return dict(request.GET)
    except UnicodeError:
        raise Invalid("The query string is not UTF-8") from None


def _whole_number(name: str, written: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", written):
        raise invalid(name, "should be a whole number, 0 or more")
    return int(written)


def includeme(config: Configurator) -> None:
    for service in (outgoing, folder, message, monitoring):
        config.add_cornice_service(service)
