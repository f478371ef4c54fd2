"""The PDUs between smsd and a modem: SMS-SUBMIT read, SMS-DELIVER and SMS-STATUS-REPORT written.

For the emulated modem (`modem.py`). It shares no code with smsgw on purpose: what smsgw says about a text is judged
here by the standards alone. Clauses are of 3GPP TS 23.040 (the PDUs) and 3GPP TS 23.038 (the alphabets).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Coding = Literal["GSM", "UCS2", "binary"]

INTERNATIONAL, UNKNOWN, ALPHANUMERIC = 0x91, 0x81, 0xD0
ESCAPE = 0x1B

# 23.038 clause 6.2.1 and 6.2.1.1; the escape's own place is held by a space, which is what a phone shows for it.
BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION = {
    0x0A: "\f", 0x14: "^", 0x28: "{", 0x29: "}", 0x2F: "\\", 0x3C: "[", 0x3D: "~", 0x3E: "]", 0x40: "|", 0x65: "€",
}  # fmt: skip
SEPTETS = {character: bytes([septet]) for septet, character in enumerate(BASIC) if septet != ESCAPE}
SEPTETS |= {character: bytes([ESCAPE, septet]) for septet, character in EXTENSION.items()}
GSM_CHARACTERS = "".join(SEPTETS)


def gsm_decode(septets: bytes) -> str:
    """What a phone shows for `septets`, one a byte (23.038 clause 6.2.1).

    An escaped septet that the extension table lacks is shown as in the basic table; an escape with nothing behind it
    as a space.
    """
    text = []
    rest = iter(septets)
    for septet in rest:
        if septet == ESCAPE:
            escaped = next(rest, ESCAPE)
            text.append(EXTENSION.get(escaped, BASIC[escaped]))
        else:
            text.append(BASIC[septet])
    return "".join(text)


def gsm_encode(text: str) -> bytes:
    """The septets of `text`, one a byte; KeyError for a character that the alphabet lacks."""
    return b"".join(SEPTETS[character] for character in text)


def pack(septets: bytes, fill: int = 0) -> bytes:
    """Septets into octets, `fill` zero bits first (23.038 clause 6.1.2.1)."""
    bits = sum(septet << (fill + 7 * index) for index, septet in enumerate(septets))
    return bits.to_bytes((fill + 7 * len(septets) + 7) // 8, "little")


def unpack(octets: bytes, count: int, fill: int = 0) -> bytes:
    """`count` septets out of octets, after `fill` bits (23.038 clause 6.1.2.1)."""
    bits = int.from_bytes(octets, "little") >> fill
    return bytes(bits >> (7 * index) & 0x7F for index in range(count))


def semi_octets(digits: str) -> bytes:
    """Digits, two an octet, the first one low (23.040 clause 9.1.2.3); an odd one is filled up with 0xF."""
    digits += "F" * (len(digits) % 2)
    return bytes.fromhex("".join(digits[index + 1] + digits[index] for index in range(0, len(digits), 2)))


def address(number: str) -> bytes:
    """Length, type and digits (23.040 clause 9.1.2.5).

    Digits are an international number, with or without a `+`; `s911` is of unknown type; anything else is a name.
    """
    if number.removeprefix("+").isdecimal():
        digits = number.removeprefix("+")
        return bytes([len(digits), INTERNATIONAL]) + semi_octets(digits)
    if number.startswith("s") and number[1:].isdecimal():
        return bytes([len(number) - 1, UNKNOWN]) + semi_octets(number[1:])
    packed = pack(gsm_encode(number))
    return bytes([(7 * len(number) + 3) // 4, ALPHANUMERIC]) + packed


def timestamp(moment: datetime) -> bytes:
    """Local time and its distance from UTC in quarters of an hour (23.040 clause 9.2.3.11)."""
    offset = (moment.utcoffset() or timedelta()) // timedelta(minutes=15)
    zone = bytearray(semi_octets(f"{abs(offset):02d}"))
    if offset < 0:
        zone[0] |= 0x08
    return semi_octets(f"{moment:%y%m%d%H%M%S}") + zone


@dataclass(frozen=True)
class Submitted:
    """One SMS-SUBMIT as the modem took it (23.040 clause 9.2.2.2)."""

    number: str
    type_of_address: int  # 0x91 = 145 international, 0x81 = 129 unknown (clause 9.1.2.5)
    coding: Coding
    flash: bool
    report_requested: bool
    validity: int | None  # the octet of clause 9.2.3.12.1; None: the network's own
    reference: int | None  # of the concatenation (clause 9.2.3.24.1); None: the only part
    total: int
    index: int  # from 1
    payload: bytes  # without the header: one septet a byte for GSM, else the octets
    mr: int  # the message reference that the modem answered
    raw: str  # the PDU in hexadecimal, as it came
    taken: datetime | None = None  # when the network took it

    @property
    def lifetime(self) -> timedelta | None:
        """The relative validity period (23.040 clause 9.2.3.12.1)."""
        octet = self.validity
        if octet is None:
            return None
        if octet <= 143:
            return timedelta(minutes=5 * (octet + 1))
        if octet <= 167:
            return timedelta(hours=12, minutes=30 * (octet - 143))
        if octet <= 196:
            return timedelta(days=octet - 166)
        return timedelta(weeks=octet - 192)


def decode_submit(raw: str, mr: int = 0) -> Submitted:
    """The PDU that follows AT+CMGS, the service centre's address in front.

    ValueError: it is no SMS-SUBMIT, or its length is not what it says.
    """
    try:
        return _decode_submit(bytes.fromhex(raw), raw, mr)
    except IndexError:
        raise ValueError(f"the PDU ends too early: {raw}") from None


def _decode_submit(pdu: bytes, raw: str, mr: int) -> Submitted:
    tpdu = pdu[pdu[0] + 1 :]
    first = tpdu[0]
    if first & 0b11 != 0b01:
        raise ValueError(f"no SMS-SUBMIT: {raw}")
    digits, type_of_address = tpdu[2], tpdu[3]
    position = 4 + (digits + 1) // 2
    nibbles = (nibble for octet in tpdu[4:position] for nibble in (octet & 15, octet >> 4))
    number = "".join("0123456789*#abc"[nibble] for nibble in nibbles if nibble != 15)  # clause 9.1.2.3
    coding, flash = data_coding(tpdu[position + 1])
    position += 2
    validity = None
    match first >> 3 & 0b11:  # TP-VPF, clause 9.2.3.3
        case 0b10:
            validity = tpdu[position]
            position += 1
        case 0b01 | 0b11:
            position += 7
    length, user_data = tpdu[position], tpdu[position + 1 :]
    header = user_data[: user_data[0] + 1] if first & 0x40 else b""
    if coding == "GSM":  # clause 9.2.3.24: the text begins at the next septet boundary
        skipped = -(-8 * len(header) // 7)
        septets = length - skipped
        needed = len(header) + (7 * skipped - 8 * len(header) + 7 * septets + 7) // 8
        payload = unpack(user_data[len(header) :], septets, fill=7 * skipped - 8 * len(header))
    else:
        needed, payload = length, user_data[len(header) : length]
    if len(user_data) != needed:
        raise ValueError(f"{len(user_data)} octets of user data where its length says {needed}: {raw}")
    reference, total, index = concatenation(header)
    report = bool(first & 0x20)
    return Submitted(
        number, type_of_address, coding, flash, report, validity, reference, total, index, payload, mr, raw
    )


def data_coding(octet: int) -> tuple[Coding, bool]:
    """Alphabet, and whether the message is of class 0, which is shown at once and not kept (23.038 clause 4)."""
    if octet & 0xC0 == 0x00:
        codings: dict[int, Coding] = {0: "GSM", 1: "binary", 2: "UCS2"}
        return codings[octet >> 2 & 0b11], octet & 0x13 == 0x10
    if octet & 0xF0 == 0xF0:
        return "binary" if octet & 0x04 else "GSM", octet & 0x03 == 0
    raise ValueError(f"data coding scheme {octet:#04x} is not one that smsd writes")


def concatenation(header: bytes) -> tuple[int | None, int, int]:
    """Reference, total and index of a user data header (23.040 clauses 9.2.3.24.1 and 9.2.3.24.8)."""
    elements = header[1:]
    while elements:
        identifier, length = elements[0], elements[1]
        value, elements = elements[2 : 2 + length], elements[2 + length :]
        if identifier in (0x00, 0x08):
            return int.from_bytes(value[:-2]), value[-2], value[-1]
    return None, 1, 1


def decode(parts: Sequence[Submitted]) -> str:
    """The text a phone shows for the parts of one message; empty for binary ones.

    UCS2 parts are joined before they are decoded, so an emoji may lie across a cut; GSM parts are decoded each on its
    own, so an escape may not.
    """
    if all(part.coding == "UCS2" for part in parts):
        return b"".join(part.payload for part in parts).decode("utf-16-be", "surrogatepass")
    return "".join(gsm_decode(part.payload) for part in parts if part.coding == "GSM")


def deliver(
    number: str, texts: Sequence[str], sent: datetime, coding: Coding | None = None, reference: int = 1
) -> list[str]:
    """SMS-DELIVER PDUs (23.040 clause 9.2.2.1) in hexadecimal, one for each of `texts`.

    Several texts are the parts of one message, with a `reference` of 16 bits (clause 9.2.3.24.8) where it is above 255.
    Without `coding` it is GSM where that alphabet holds all of them. The parts may be of any length that a part holds.
    """
    if coding is None:
        coding = "GSM" if all(character in SEPTETS for text in texts for character in text) else "UCS2"
    pdus = []
    for index, text in enumerate(texts, 1):
        header = _concatenated(reference, len(texts), index) if len(texts) > 1 else b""
        if coding == "GSM":
            septets, skipped = gsm_encode(text), -(-8 * len(header) // 7)
            length = skipped + len(septets)
            user_data = header + pack(septets, fill=7 * skipped - 8 * len(header))
        else:
            user_data = header + text.encode("utf-16-be", "surrogatepass")
            length = len(user_data)
        if len(user_data) > 140:
            raise ValueError(f"part {index} has {len(user_data)} octets, a PDU holds 140")
        first = 0x04 | (0x40 if header else 0)
        tpdu = bytes([first]) + address(number) + bytes([0, 0x08 if coding == "UCS2" else 0]) + timestamp(sent)
        pdus.append(_with_service_centre(tpdu + bytes([length]) + user_data))
    return pdus


def _concatenated(reference: int, total: int, index: int) -> bytes:
    """The user data header of one part."""
    if reference > 255:
        return bytes([6, 8, 4, *reference.to_bytes(2), total, index])
    return bytes([5, 0, 3, reference, total, index])


def status_report(submitted: Submitted, status: int, moment: datetime) -> str:
    """An SMS-STATUS-REPORT PDU (23.040 clause 9.2.2.3) in hexadecimal; statuses: clause 9.2.3.15 (0: delivered).

    `moment` is when it came to that, and the network's clock.
    """
    taken = (submitted.taken or moment).astimezone(moment.tzinfo)
    short = submitted.type_of_address != INTERNATIONAL
    recipient = address(f"s{submitted.number}" if short else submitted.number)
    return _with_service_centre(
        bytes([0x06, submitted.mr]) + recipient + timestamp(taken) + timestamp(moment) + bytes([status])
    )


def _with_service_centre(tpdu: bytes) -> str:
    centre = bytes([INTERNATIONAL]) + semi_octets("79990000000")
    return (bytes([len(centre)]) + centre + tpdu).hex().upper()


def tpdu_length(raw: str) -> int:
    """Octets of a PDU without the service centre's address: what AT+CMGS and +CMGR give (3GPP TS 27.005 clause 4)."""
    return len(raw) // 2 - 1 - int(raw[:2], 16)


class Inbox:
    """Joins parts into messages (23.040 clause 9.2.3.24.1): they belong together by number, reference and total."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int, int], dict[int, Submitted]] = {}

    def add(self, part: Submitted) -> list[Submitted] | None:
        """All parts of the message that `part` completes, in order. A part that comes again begins the next message."""
        if part.reference is None:
            return [part]
        key = (part.number, part.reference, part.total)
        message = self._open.setdefault(key, {})
        if part.index in message:
            message.clear()
        message[part.index] = part
        if len(message) < part.total:
            return None
        del self._open[key]
        return [message[index] for index in sorted(message)]
