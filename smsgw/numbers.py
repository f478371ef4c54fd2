"""Phone numbers: as people write them, as they are compared, as smsd wants them. Public.

A *normalised* number is its digits alone, international, without ``+``: ``79160000000``. Three to six digits are a
short number (``911``), which smsd must be shown with an ``s`` before it (its manual, "To" in the file format).

The lines of an ini file name numbers, their beginnings, and classes of them: countries, types, ``short``. What is in a
class is said by phonenumbers' tables, which are those of Google's libphonenumber.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from operator import or_

import phonenumbers
from phonenumbers import PhoneNumberType, ShortNumberCost, shortnumberinfo

from smsgw.model import ConfigurationError, Identity

SHORT = 6  # digits at the most
LOOKED_UP = 16384  # numbers whose classes are remembered: more than one request has

_PLAIN = re.compile(r"\+?[1-9][0-9]{6,14}")
_WRITTEN = re.compile(r"(?:(?P<prefix>\+|00)[ .()-]*+|\(?)(?P<digits>[0-9](?:[ .()-]*+[0-9])*+)\)?")
_SHORT = re.compile(r"s([0-9]{3,6})")
_SEPARATORS = str.maketrans("", "", " .()-")
_BEGINNING = re.compile(r"(?:\+|00)?([1-9][0-9]{0,14})\*|\*")

_TYPES = {
    type: frozenset({PhoneNumberType.to_string(type).lower().replace("_", "-")}) for type in PhoneNumberType.values()
}
_TYPES[PhoneNumberType.FIXED_LINE_OR_MOBILE] = frozenset(
    {"fixed-line", "mobile"}
)  # the tables cannot tell, so it is both
_SHORT_NUMBER = frozenset({"short"})
_PREMIUM_SHORT_NUMBER = frozenset({"short", "premium-rate"})

CLASSES = frozenset(phonenumbers.SUPPORTED_REGIONS) | _SHORT_NUMBER.union(*_TYPES.values())


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
            # smsd would drop further zeros, and send to a number that no policy has seen.
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


def e164(written: str) -> str:
    """The number of a ``To`` or ``From`` header, or a normalised one, as ``+79160000000``; a short one is its digits.

    Senders can also be names; what is no number stays as it is.
    """
    digits = from_spool(written)
    if not (digits.isascii() and digits.isdigit()):
        return written
    return digits if len(digits) <= SHORT else f"+{digits}"


@dataclass(frozen=True, slots=True)
class NumberSet:
    """Some numbers. ``number in numbers`` answers for a normalised number, and looks no class up unless it must.

    ``prefixes`` are beginnings of normalised numbers, ``classes`` are words of ``CLASSES``; ``region`` says in which
    country short numbers are sent to (``None``: nobody knows, and none is known to cost extra).
    """

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    classes: frozenset[str]
    region: str | None = None

    @classmethod
    def parse(cls, words: Iterable[str]) -> NumberSet:
        """The numbers of an ini file's words: ``79160000000``, ``7916*``, ``*``, ``RU``, ``premium-rate``, ``short``.

        :raises ValueError: a word is none of these; the nearest class is named.
        """
        exact, prefixes, classes = set(), [], set()
        for word in words:
            if word in CLASSES:
                classes.add(word)
            elif beginning := _BEGINNING.fullmatch(word):
                prefixes.append(beginning[1] or "")
            else:
                exact.add(_number(word))
        return cls(frozenset(exact), tuple(prefixes), frozenset(classes))

    def __contains__(self, number: str) -> bool:
        if number in self.exact or number.startswith(self.prefixes):
            return True
        return bool(self.classes) and not self.classes.isdisjoint(classes_of(number, self.region))

    def __or__(self, other: NumberSet) -> NumberSet:
        return NumberSet(
            self.exact | other.exact, self.prefixes + other.prefixes, self.classes | other.classes, self.region
        )


class NumberLines:
    """Lines ``name: words`` of an ini file, each with the numbers that a user, a ``@group`` or everybody (``*``) has.

    :param setting: how the ini file calls them.
    :raises ConfigurationError: a word is no number and no class of numbers.
    """

    def __init__(self, setting: str, lines: Mapping[str, str]) -> None:
        self._lines = {}
        self._last: tuple[Identity | None, NumberSet | None] = (None, None)
        for name, words in lines.items():
            try:
                self._lines[name] = NumberSet.parse(words.split())
            except ValueError as error:
                raise ConfigurationError(f"{setting} has a wrong word for {name!r}: {error}") from None

    def locate(self, region: str | None) -> None:
        """Say in which country short numbers are sent to; before the first question."""
        self._lines = {name: replace(numbers, region=region) for name, numbers in self._lines.items()}

    def of(self, identity: Identity) -> NumberSet | None:
        """What all lines that name a user, their groups or everybody add up to; ``None``: none does.

        Put together once for each request, which may be about thousands of recipients.
        """
        whose, numbers = self._last  # read once: other threads replace it
        if whose is not identity:
            lines = [self._lines[name] for name in identity.names if name in self._lines]
            numbers = reduce(or_, lines) if lines else None
            self._last = identity, numbers
        return numbers


@lru_cache(maxsize=LOOKED_UP)
def classes_of(number: str, region: str | None = None) -> frozenset[str]:
    """The classes of a normalised number, such as ``{"RU", "mobile"}``; ``{"unknown"}`` where no table has it.

    :param region: where a short number is sent to; what such numbers cost differs from country to country.
    """
    if len(number) <= SHORT:
        return _PREMIUM_SHORT_NUMBER if region is not None and _is_premium(number, region) else _SHORT_NUMBER
    try:
        parsed = phonenumbers.parse(f"+{number}")
    except phonenumbers.NumberParseException:
        return _TYPES[PhoneNumberType.UNKNOWN]
    return _classes(phonenumbers.number_type(parsed), phonenumbers.region_code_for_number(parsed))


@lru_cache
def _classes(type: int, region: str | None) -> frozenset[str]:
    """One set for all numbers that have the same: thousands of numbers are remembered."""
    return _TYPES[type] | ({region} if region else set())


def _is_premium(short: str, region: str) -> bool:
    digits = int(short)
    zeros = len(short) - len(str(digits))
    number = phonenumbers.PhoneNumber(
        country_code=phonenumbers.country_code_for_region(region),
        national_number=digits,
        italian_leading_zero=zeros > 0,
        number_of_leading_zeros=zeros,
    )
    return shortnumberinfo.expected_cost_for_region(number, region) == ShortNumberCost.PREMIUM_RATE


def _number(word: str) -> str:
    try:
        return NumberPlan().normalise(word)
    except ValueError:
        spelt = {known.lower(): known for known in CLASSES}
        close = difflib.get_close_matches(word.lower(), spelt, n=1)
        hint = f"; did you mean {spelt[close[0]]!r}?" if close else ""
        raise ValueError(
            f"{word!r} is no number, no beginning such as 7916*, no country such as RU and no type such as mobile{hint}"
        ) from None
