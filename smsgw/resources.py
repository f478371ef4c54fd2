"""Messages as resources: what the v2 API shows of one, and what webhooks and other plugins tell of it. Public."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from smsgw.ids import began
from smsgw.model import StatusReport, StoredMessage
from smsgw.numbers import e164
from smsgw.spool.file import REFERENCE, is_later, send_at
from smsgw.spool.layout import Layout
from smsgw.status import status_of
from smsgw.text import measure


def status(message: StoredMessage, fate: StatusReport | None) -> str:
    """The status of a message on its way out."""
    return status_of(message.kind, fate, is_scheduled=is_later(send_at(message.headers)))


class Resources:
    """Makes resources of messages: JSON objects, whose members docs/api-v2.md explains.

    :param layout: knows how smsd writes times.
    :param prefix: how our own message ids begin.
    """

    def __init__(self, layout: Layout, prefix: str) -> None:
        self._layout = layout
        self._prefix = prefix

    def sent(self, message: StoredMessage, fate: StatusReport | None) -> dict[str, Any]:
        """A message on its way out, and all that is known of it.

        :param fate: what status reports say of it.
        """
        headers = message.headers
        reason = headers.get("Fail_reason") if message.kind == "failed" else None
        return {
            "id": message.id,
            "status": status(message, fate),
            "from": message.owner,
            "to": e164(headers.get("To", "")),
            "text": message.text,
            "parts": parts(message),
            "alphabet": "binary" if _is_binary(message) else measure(message.text).alphabet,
            "queue": headers.get("Queue") or headers.get("Provider"),
            "priority": "high" if headers.get("Priority", "").upper() == "HIGH" else "normal",
            "flash": is_yes(headers.get("Flash")),
            "reference": headers.get(REFERENCE),
            "accepted_at": moment(self.accepted_at(message.id)),
            "send_at": moment(send_at(headers)),
            "sent_at": moment(self._layout.moment(headers.get("Sent"))),
            "delivered_at": moment(fate.at.replace(microsecond=0)) if fate and fate.is_delivered else None,
            "failed_at": moment(self._layout.moment(headers.get("Failed"))),
            "modem": headers.get("Modem"),
            "report": fate and {"status": status(message, fate), "code": fate.code, "detail": fate.detail},
            "error": None if reason is None else {"detail": reason},
        }

    def received(self, message: StoredMessage) -> dict[str, Any]:
        """A message from outside."""
        return {
            "id": message.id,
            "from": e164(message.headers.get("From", "")),
            "text": message.text,
            "received_at": moment(self._layout.moment(message.headers.get("Received"))),
            "modem": message.headers.get("Modem"),
        }

    def accepted_at(self, id: str) -> datetime | None:
        """When smsgw accepted the message (UTC); ``None``: another program made it."""
        milliseconds = began(id, self._prefix)
        try:
            return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
        except (ValueError, OverflowError):  # the year is too large for a datetime
            return None


def moment(at: datetime | None) -> str | None:
    """RFC 3339, in UTC; with milliseconds where they are known."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds" if at.microsecond else "seconds")[:-6] + "Z"


def is_yes(value: str | None) -> bool:
    """As smsd reads its headers: yes, true, on and 1, by their beginnings."""
    return (value or "").lower().startswith(("y", "t", "on", "1"))


def parts(message: StoredMessage) -> int | None:
    """Of how many parts a message is. ``None``: it is binary, and nobody knows."""
    return None if _is_binary(message) else measure(message.text).parts


def _is_binary(message: StoredMessage) -> bool:
    return message.headers.get("Alphabet", "")[:3].upper() == "BIN"
