"""Signatures of Standard Webhooks 1.0.0: HMAC-SHA256 over id, time and body, with a secret that one receiver has."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets

PREFIX = "whsec_"
VERSION = "v1"
SIZE = 32  # random bytes of a secret
SIZES = range(24, 65)  # bytes that one may have
TOLERANCE = 300  # seconds by which the clocks of sender and receiver may differ

_TIMESTAMP = re.compile("[0-9]{1,12}")


def make_secret() -> str:
    """A secret that there has never been, as its owner is shown it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SIZE)).decode()


def key_of(secret: str) -> bytes:
    """The bytes of a secret, with or without its prefix.

    :raises ValueError: it is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in SIZES:
        raise ValueError(f"should be {PREFIX} and the base64 of {SIZES[0]} to {SIZES[-1]} bytes")
    return key


def sign(secret: str, id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt.

    :param timestamp: when it is made, in seconds since 1970 (UTC).
    """
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"{VERSION},{_digest(secret, id, str(timestamp), body)}",
    }


def is_right(secret: str, id: str, timestamp: str, signatures: str, body: bytes, now: float) -> bool:
    """Whether one of the signatures is right, and was made a moment ago.

    :param signatures: what the header has, between spaces.
    """
    if not _TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > TOLERANCE:
        return False
    right = f"{VERSION},{_digest(secret, id, timestamp, body)}".encode()
    return any(hmac.compare_digest(right, shown.encode()) for shown in signatures.split(" "))


def _digest(secret: str, id: str, timestamp: str, body: bytes) -> str:
    signed = f"{id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()
