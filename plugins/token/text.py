"""The form of a token: ``smsgw_``, 8 characters of its public id, 28 secret characters, 6 of a checksum.

Secret scanners find a token by its beginning, its length and its checksum.
"""

from __future__ import annotations

import binascii
import hashlib
import secrets
import string

PREFIX = "smsgw_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase  # base62

_ID, _RANDOM, _CHECKSUM = 8, 36, 6  # characters; the 28 secret ones have 166 random bits
_LENGTH = len(PREFIX) + _RANDOM + _CHECKSUM


def make() -> str:
    """A new token."""
    text = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(_RANDOM))
    return text + _checksum(text)


def is_token(text: str) -> bool:
    """Whether that has the form of a token. The checksum finds most mistakes in copying."""
    if len(text) != _LENGTH or not text.isascii() or not text.startswith(PREFIX):
        return False
    return text[len(PREFIX) :].isalnum() and text[-_CHECKSUM:] == _checksum(text[:-_CHECKSUM])


def id_of(text: str) -> str:
    """The public id in a token, or in its beginning; an id stays as it is."""
    return text.removeprefix(PREFIX)[:_ID]


def digest(text: str) -> str:
    """The SHA-256 of a token, in hexadecimal: what is stored of it.

    Passwords need a slow hash with a salt, because people choose them and they can be guessed. 166 random bits cannot
    be guessed. Without a salt, the database finds a token by its digest.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(text: str) -> str:
    """CRC-32 in base62."""
    number, digits = binascii.crc32(text.encode()), ""
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
