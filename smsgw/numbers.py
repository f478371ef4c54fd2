"""Phone numbers: as people write them, as they are compared, as smsd wants them. Public.

A *normalised* number is its digits alone, international, without ``+``: ``79160000000``. Three to six digits are a
short number (``911``), which smsd must be shown with an ``s`` before it (its manual, "To" in the file format).
"""

from __future__ import annotations

import re

import phonenumbers

SHORT = 6  # digits at the most

_PLAIN = re.compile(r"\+?[1-9][0-9]{6,14}")
_WRITTEN = re.compile(r"(?:(?P<prefix>\+|00)[ .()-]*|\(?)(?P<digits>[0-9](?:[ .()-]*[0-9])*)\)?")
_SHORT = re.compile(r"s([0-9]{3,6})")
_SEPARATORS = str.maketrans("", "", " .()-")


class NumberPlan:
    """How numbers are read: international, or where a region is given, also as written within it.

    :param region: an ISO 3166 code such as ``"RU"``, or ``None``.
    :raises ValueError: no such region.
    """

    def __init__(self, region: str | None = None) -> None:
        self._region = region
        self._trunk = ""
        if region is not None:
            metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
            if metadata is None:
                raise ValueError(f"there is no region {region!r}")
            self._trunk = metadata.national_prefix or ""

    def normalise(self, written: str) -> str:
        """The normalised number that was written.

        :raises ValueError: it is none; the message says why, and can be shown to the client.
        """
        if not self._trunk and _PLAIN.fullmatch(written):
            return written.removeprefix("+")
        if short := _SHORT.fullmatch(written):
            return short[1]
        if not (match := _WRITTEN.fullmatch(written)):
            raise ValueError("not a phone number")
        digits = match["digits"].translate(_SEPARATORS)
        if not 3 <= len(digits) <= 15:
            raise ValueError("not a phone number: it has 3 to 15 digits")
        if self._trunk and not match["prefix"] and len(digits) > SHORT and digits.startswith(self._trunk):
            return self._national(digits)
        if digits.startswith("0") and (match["prefix"] or len(digits) > SHORT):
            # smsd would drop further zeros, and send to a number that nobody was asked about.
            raise ValueError("not a phone number: no country's code begins with 0")
        return digits

    def _national(self, digits: str) -> str:
        try:
            number = phonenumbers.parse(digits, self._region)
        except phonenumbers.NumberParseException:
            number = None
        if number is None or not phonenumbers.is_possible_number(number):
            raise ValueError(f"not a phone number of {self._region}; write other countries' with +")
        return f"{number.country_code}{phonenumbers.national_significant_number(number)}"


def spool_form(number: str) -> str:
    """A normalised number as smsd's ``To`` header wants it."""
    return "s" + number if len(number) <= SHORT else number


def from_spool(written: str) -> str:
    """The normalised number of a ``To`` or ``From`` header, as smsd understands it; never raises."""
    digits = written.translate(_SEPARATORS)
    for prefix in ("+", "00", "s"):
        digits = digits.removeprefix(prefix)
    return digits
