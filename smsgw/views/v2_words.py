"""How the v2 API words what it has to say: what came of a batch, and messages as resources."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from smsgw.gateway import Draft, NoneAccepted, Refused, Rejection, Reply, Selection
from smsgw.model import Allowance, StatusReport, StoredMessage
from smsgw.numbers import e164
from smsgw.spool.file import REFERENCE
from smsgw.spool.layout import Layout
from smsgw.text import measure
from smsgw.views.problem import ROOT, problem, refusal_as_problem
from smsgw.views.v2_body import malformed

DELIVERED, UNDELIVERED = "delivered", "undelivered"
STATUSES = {"outgoing": "queued", "checked": "sending", "sent": "sent", "failed": "failed", "cancelled": "cancelled"}
OF_TEXTS = ("text_refused", "too_many_parts")  # codes


class V2:
    """How v2 words what came of a batch.

    :param drafts: the batch.
    :param each: whether each draft stands in ``messages``, and not its number alone in ``to``.
    """

    def __init__(self, drafts: Sequence[Draft], *, each: bool) -> None:
        self._drafts = drafts
        self._each = each

    def accepted(self, selection: Selection) -> Reply:
        messages = [
            {
                "id": message.id,
                "to": e164(message.to),
                "status": "queued",
                "parts": message.content.parts,
                "alphabet": message.content.alphabet,
                "text": message.content.text,
                "reference": message.reference,
                "url": f"{ROOT}/messages/{message.id}",
            }
            for message in selection.messages
        ]
        rejected = [
            {
                "pointer": self._pointer(why),
                "to": self._drafts[why.place].number,
                "code": why.code,
                "detail": why.detail,
            }
            for why in selection.rejected
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


def status(message: StoredMessage, fate: StatusReport | None) -> str:
    """Where a message on its way out stands."""
    if fate is None:
        return STATUSES[message.kind]
    return DELIVERED if fate.is_delivered else UNDELIVERED


def sent_message(
    message: StoredMessage, fate: StatusReport | None, accepted_at: datetime | None, layout: Layout
) -> dict[str, Any]:
    """A message on its way out, and all that is known of it.

    :param fate: what status reports say of it.
    :param layout: knows how smsd writes times.
    """
    headers = message.headers
    reason = headers.get("Fail_reason") if message.kind == "failed" else None
    return {
        "id": message.id,
        "status": status(message, fate),
        "from": message.owner,
        "to": e164(headers.get("To", "")),
        "text": message.text,
        **_encoding(message),
        "queue": headers.get("Queue") or headers.get("Provider"),
        "priority": "high" if headers.get("Priority", "").upper() == "HIGH" else "normal",
        "flash": is_yes(headers.get("Flash")),
        "reference": headers.get(REFERENCE),
        "accepted_at": _moment(accepted_at),
        "send_at": None,
        "sent_at": _moment(layout.moment(headers.get("Sent"))),
        "delivered_at": _moment(fate.at.replace(microsecond=0)) if fate and fate.is_delivered else None,
        "failed_at": _moment(layout.moment(headers.get("Failed"))),
        "modem": headers.get("Modem"),
        "report": fate and {"status": status(message, fate), "code": fate.code, "detail": fate.detail},
        "error": None if reason is None else {"detail": reason},
    }


def received_message(message: StoredMessage, layout: Layout) -> dict[str, Any]:
    """A message from outside."""
    return {
        "id": message.id,
        "from": e164(message.headers.get("From", "")),
        "text": message.text,
        "received_at": _moment(layout.moment(message.headers.get("Received"))),
        "modem": message.headers.get("Modem"),
    }


def is_yes(value: str | None) -> bool:
    """As smsd reads its headers: yes, true, on and 1, by their beginnings."""
    return (value or "").lower().startswith(("y", "t", "on", "1"))


def allowance(found: Allowance) -> dict[str, Any]:
    """A limit, and what is left of it."""
    return asdict(found) | {"until": _moment(found.until)}


def _encoding(message: StoredMessage) -> dict[str, Any]:
    """Alphabet and parts; nobody knows the parts of what is no text."""
    if message.headers.get("Alphabet", "")[:3].upper() == "BIN":
        return {"parts": None, "alphabet": "binary"}
    found = measure(message.text)
    return {"parts": found.parts, "alphabet": found.alphabet}


def _moment(at: datetime | None) -> str | None:
    """RFC 3339, in UTC; with milliseconds where they are known."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds" if at.microsecond else "seconds")[:-6] + "Z"
