"""How the v2 API words what it has to say: what came of a batch, and messages as resources."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from smsgw.batch import Draft, Outcome
from smsgw.gateway import Reply
from smsgw.model import Allowance
from smsgw.numbers import e164
from smsgw.refusals import OF_TEXTS, NoneAccepted, Refused, Rejection
from smsgw.resources import moment
from smsgw.views.problem import ROOT, problem, refusal_as_problem
from smsgw.views.v2_body import malformed


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


def allowance(found: Allowance) -> dict[str, Any]:
    """A limit, and what is left of it."""
    return asdict(found) | {"until": moment(found.until)}
