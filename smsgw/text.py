"""Which alphabet a text goes in, and in how many parts. Public; 3GPP TS 23.038, and what smsd was seen to do.

A text that the GSM 7-bit alphabet holds goes in septets, any other in UTF-16 units (UCS2). smsd changes some GSM texts
on their way; those go as UCS2 too, so that what arrives is what was written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_PARTS = 255  # smsd's own limit, and the octet of the user data header (TS 23.040, 9.2.3.24.1)
MAX_BODY = 39015  # bytes that smsd reads

BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION = "\f^{}\\[~]|€"

# Units of a single part, and of each of several (TS 23.040, 9.2.3.24.1).
ROOM = {"GSM": (160, 153), "UCS2": (70, 67)}

_SENT_AS_GSM = re.escape((BASIC + EXTENSION).replace("¤", ""))  # smsd sends ¤ as €
_GSM = re.compile(f"[{_SENT_AS_GSM}]*")
_FOREIGN = re.compile(f"[^{_SENT_AS_GSM}]")
_EXTENSION = re.compile(f"[{re.escape(EXTENSION)}]")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a text goes out: ``alphabet`` ``"GSM"`` or ``"UCS2"``, ``units`` septets or UTF-16 units, ``parts`` PDUs."""

    alphabet: str
    units: int
    parts: int

    @property
    def left(self) -> int:
        """Units that the last part has room for."""
        single, each = ROOM[self.alphabet]
        return (single if self.parts == 1 else self.parts * each) - self.units


def measure(text: str) -> Encoding:
    """How that text goes out.

    :raises UnicodeEncodeError: it holds a lone surrogate, which no alphabet can carry.
    """
    if _GSM.fullmatch(text):
        septets = len(text) + len(_EXTENSION.findall(text))
        if septets <= 160:
            return Encoding("GSM", septets, 1)
        if not _is_cut(text) and len(text.encode()) <= MAX_BODY:
            return Encoding("GSM", septets, -(-septets // 153))
    units = len(text.encode("utf-16-be")) // 2
    return Encoding("UCS2", units, 1 if units <= 70 else -(-units // 67))


def foreign(text: str) -> str:
    """The characters that keep that text out of the GSM alphabet, each once, in their order.

    None, where a text goes as UCS2 for another reason: smsd would cut an extension character in two, or reads no text
    as long in UTF-8.
    """
    return "".join(dict.fromkeys(_FOREIGN.findall(text)))


def _is_cut(text: str) -> bool:
    """Whether smsd, which cuts at every 153rd septet, would cut an extension character in two."""
    return any(
        (match.start() + before) % 153 == 152  # its escape would be a part's last septet
        for before, match in enumerate(_EXTENSION.finditer(text))
    )
