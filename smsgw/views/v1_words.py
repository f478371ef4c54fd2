"""How the v1.0 API words what came of a send: by numbers, each as the client wrote it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from smsgw.batch import Draft, Outcome, by_number, reasons, sent
from smsgw.errors import error_reply
from smsgw.gateway import Reply
from smsgw.refusals import NoneAccepted, Refused, invalid


class V1:
    """Words what came of a batch whose drafts share one text.

    :param drafts: the batch.
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
