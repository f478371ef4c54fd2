"""``transliterate``: replaces typographic characters by those of the GSM alphabet, which saves parts."""

from __future__ import annotations

import re

import colander
from anyascii import anyascii

from smsgw.hookspecs import hookimpl
from smsgw.model import Identity
from smsgw.settings import Boolean
from smsgw.text import measure

# Quotation marks, dashes and hyphens, the ellipsis, spaces that do not break or have another width, primes, the minus.
_TYPOGRAPHIC = re.compile("[\u2018-\u201f\u2010-\u2015\u2026\u00a0\u2000-\u200a\u202f\u205f\u2032\u2212]")


class Transliterate:
    """A text transform."""

    class Settings(colander.MappingSchema):
        everything = colander.SchemaNode(
            Boolean(),
            missing=False,
            description="also transliterate whatever else the GSM alphabet lacks, when that saves parts",
        )

    def __init__(self, everything: bool) -> None:
        self._everything = everything

    @hookimpl
    def transform(self, text: str, identity: Identity) -> str:
        plain = _TYPOGRAPHIC.sub(lambda match: anyascii(match[0]), text)
        if self._everything:
            latin = plain.translate({ord(c): _latin(c) for c in set(plain) if measure(c).alphabet != "GSM"})
            if latin and measure(latin).parts < measure(plain).parts:
                return latin
        return plain


def _latin(character: str) -> str:
    return {"`": "'", "\t": " "}.get(character) or anyascii(character)
