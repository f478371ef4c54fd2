"""What a token looks like: ``smsgw_``, 8 characters that name it in public, 28 that are secret, 6 of a checksum.

Secret scanners find it by its beginning and length, and tell by the checksum that it is no chance likeness.
"""

from __future__ import annotations

import binascii
import hashlib
import secrets
import string

PREFIX = "smsgw_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase  # base62

_ID, _RANDOM, _CHECKSUM = 8, 36, 6  # characters; 28 of 62 kinds are 166 bits that nobody knows
_LENGTH = len(PREFIX) + _RANDOM + _CHECKSUM


def make() -> str:
    """A token that there has never been."""
    text = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(_RANDOM))
    return text + _checksum(text)


def is_token(text: str) -> bool:
    """Whether a token could be spelt so; most mistakes in copying are found out."""
    if len(text) != _LENGTH or not text.isascii() or not text.startswith(PREFIX):
        return False
    return text[len(PREFIX) :].isalnum() and text[-_CHECKSUM:] == _checksum(text[:-_CHECKSUM])


def id_of(text: str) -> str:
    """The part of a token, or of its beginning, by which it is called in public."""
    return text.removeprefix(PREFIX)[:_ID]


def digest(text: str) -> str:
    """What is stored of a token, in hexadecimal.

    A slow, salted hash protects passwords, since people choose them and they can be guessed. 166 random bits cannot,
    however fast the hash is; and without a salt, the database finds a token by its digest.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(text: str) -> str:
    """CRC-32 in base62."""
    number, digits = binascii.crc32(text.encode()), ""
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
