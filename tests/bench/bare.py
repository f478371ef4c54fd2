"""What smsgw is measured against: a send as one would write it with Pyramid, Cornice and Colander, that sends nothing.

Run by ``pserve`` as ``bare:main``; no authentication, no policy, no spool.
"""

from __future__ import annotations

from typing import Any

import colander
from cornice import Service
from cornice.validators import colander_body_validator
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.router import Router

outgoing = Service("bare.outgoing", "/api/v1.0/sms/outgoing")


class Mobiles(colander.SequenceSchema):
    mobile = colander.SchemaNode(colander.String())


class SendSchema(colander.MappingSchema):
    mobiles = Mobiles(validator=colander.Length(min=1))
    text = colander.SchemaNode(colander.String())
    queue = colander.SchemaNode(colander.String(), missing=None)
    flash = colander.SchemaNode(colander.Boolean(), missing=False)
    priority = colander.SchemaNode(colander.String(), missing=None, validator=colander.OneOf(["high"]))
    validity = colander.SchemaNode(colander.Integer(), missing=None)
    report = colander.SchemaNode(colander.Boolean(), missing=None)


@outgoing.post(schema=SendSchema(), validators=(colander_body_validator,))
def send(request: Request) -> dict[str, Any]:
    request.response.status_int = 201
    order = request.validated
    ids = dict.fromkeys(order["mobiles"], "smsgw.http.01ARZ3NDEKTSV4RRFFQ69G5FAV")
    return {"message_id": ids, "parts_count": 1, "sent_text": order["text"]}


def main(global_config: dict[str, str], **settings: Any) -> Router:
    with Configurator(settings=settings) as config:
        config.include("cornice")
        config.add_cornice_service(outgoing)
        return config.make_wsgi_app()
