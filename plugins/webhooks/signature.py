"""Signatures of Standard Webhooks 1.0.0, by its own library. Each webhook has a secret of its own."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from standardwebhooks import Webhook, WebhookVerificationError

PREFIX = "whsec_"
SIZE = 32  # random bytes of a new secret
SIZES = range(24, 65)  # bytes that a secret may have


def make_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SIZE)).decode()


def check_secret(secret: str) -> None:
    """Check the form of a secret: the library takes any size, and ignores characters that are not base64.

    :raises ValueError: it is wrong.
    """
    try:
        size = len(base64.b64decode(secret.removeprefix(PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size not in SIZES:
        raise ValueError(f"should be {PREFIX} and the base64 of {SIZES[0]} to {SIZES[-1]} bytes")


def sign(secret: str, id: str, timestamp: int, body: str) -> dict[str, str]:
    """The headers of one attempt.

    :param timestamp: when it is made, in seconds since 1970 (UTC).
    """
    signature = Webhook(secret).sign(id, datetime.fromtimestamp(timestamp, UTC), body)
    return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def is_right(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of the signatures is right, and was made in the last five minutes."""
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # a signature that is malformed, a body that is not UTF-8
        return False
    return True
