"""Numbers as they are written, compared, and shown to smsd."""

from __future__ import annotations

import contextlib
import re

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsgw.numbers import CLASSES, NumberPlan, NumberSet, classes_of, e164, from_spool, spool_form


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("79680000000", "79680000000"),
        ("+79680000000", "79680000000"),
        ("0079680000000", "79680000000"),
        ("+7 (968) 000-00-00", "79680000000"),
        ("+7.968.000.00.00", "79680000000"),
        ("7 968 000 00 00", "79680000000"),
        ("+(7)9680000000", "79680000000"),
        ("(968) 000-00-00", "9680000000"),
        ("911", "911"),
        ("+911", "911"),
        ("s911", "911"),
        ("123456", "123456"),
        ("s123456", "123456"),
        ("1234567", "1234567"),
        ("123456789012345", "123456789012345"),
        ("8 968 000-00-00", "89680000000"),
    ],
)
def test_international(written: str, number: str) -> None:
    assert NumberPlan().normalise(written) == number


NONE = [
    "",
    " 79680000000",
    "79680000000 ",
    "-79680000000",
    ".911",
    "12",
    "1234567890123456",
    "s12",
    "s1234567",
    "ss911",
    "S911",
    "+",
    "00",
    "++7968000000",
    "7968000000x",
]
NONE += [
    "7968\n0000000",
    "79680000000\n",
    " ",
    "---",
    "٧٩٦٨٠٠٠٠٠٠٠",
    "79680000000;",
    "+s911",
    "7968+0000000",
    "tel:911",
    "1\x00234",
]


NONE += ["+0079680000000", "000079680000000", "0680000000", "+00911", "+0911"]


@pytest.mark.parametrize("written", NONE)
@pytest.mark.parametrize("region", [None, "RU"])
def test_none(written: str, region: str | None) -> None:
    with pytest.raises(ValueError, match="not a phone number"):
        NumberPlan(region).normalise(written)


@pytest.mark.parametrize(
    ("region", "written", "number"),
    [
        ("RU", "89680000000", "79680000000"),
        ("RU", "8 (968) 000-00-00", "79680000000"),
        ("RU", "+79680000000", "79680000000"),
        ("RU", "79680000000", "79680000000"),
        ("RU", "0079680000000", "79680000000"),
        ("RU", "+81312345678", "81312345678"),
        ("RU", "811", "811"),
        ("DE", "0151 12345678", "4915112345678"),
        ("GB", "07400 123456", "447400123456"),
        ("US", "1 202 555 0123", "12025550123"),
    ],
)
def test_national(region: str, written: str, number: str) -> None:
    assert NumberPlan(region).normalise(written) == number


def test_a_number_that_the_region_cannot_have() -> None:
    with pytest.raises(ValueError, match="RU"):
        NumberPlan("RU").normalise("8613800138000")


def test_no_such_region() -> None:
    with pytest.raises(ValueError, match="XX"):
        NumberPlan("XX")


@given(st.from_regex(r"[1-9][0-9]{2,14}", fullmatch=True), st.sampled_from(["", "+", "00"]), st.data())
def test_any_spelling_of_a_number_is_that_number(digits: str, prefix: str, data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.text(" -.()", max_size=2), min_size=len(digits) - 1, max_size=len(digits) - 1))
    written = prefix + digits[0] + "".join(gap + digit for gap, digit in zip(gaps, digits[1:], strict=True))
    assert NumberPlan().normalise(written) == digits
    assert from_spool(spool_form(digits)) == digits


@given(st.text())
def test_anything_is_a_number_or_a_value_error(written: str) -> None:
    try:
        number = NumberPlan("RU").normalise(written)
    except ValueError:
        return
    assert number.isascii()
    assert number.isdigit()
    assert 3 <= len(number) <= 15


@pytest.mark.parametrize(
    ("number", "classes"),
    [
        ("79160000000", {"RU", "mobile"}),
        ("77010000000", {"KZ", "mobile"}),
        ("12025550123", {"US", "fixed-line", "mobile"}),
        ("14165550123", {"CA", "fixed-line", "mobile"}),
        ("18765550123", {"JM", "mobile"}),
        ("447781123456", {"GG", "mobile"}),
        ("447524123456", {"IM", "mobile"}),
        ("447924123456", {"GB", "mobile"}),
        ("18005551234", {"US", "toll-free"}),
        ("390612345678", {"IT", "fixed-line"}),
        ("78091234567", {"RU", "premium-rate"}),
        ("780912345678", {"unknown"}),
        ("999999999999", {"unknown"}),
        ("19995550123", {"unknown"}),
        ("112", {"short"}),
        ("1000", {"short"}),
        ("011", {"short"}),
        ("000", {"short"}),
    ],
)
def test_classes(number: str, classes: set[str]) -> None:
    assert classes_of(number) == classes
    assert [word for word in sorted(CLASSES) if number in NumberSet.parse([word])] == sorted(classes)


def test_short_numbers_cost_what_they_cost_in_a_region() -> None:
    assert classes_of("1000", "FR") == {"short", "premium-rate"}
    assert classes_of("1000", "RU") == classes_of("112", "FR") == {"short"}


def test_countries_have_the_numbers_that_the_tables_know_of_them() -> None:
    """Some share all that they have with a larger one, and their numbers are known as its."""
    types = {"mobile": phonenumbers.PhoneNumberType.MOBILE, "fixed-line": phonenumbers.PhoneNumberType.FIXED_LINE}
    own: dict[str, frozenset[str]] = {}
    for region in phonenumbers.SUPPORTED_REGIONS:
        examples = {word: phonenumbers.example_number_for_type(region, type) for word, type in types.items()}
        for word, example in examples.items():
            if example is not None:
                number = f"{example.country_code}{phonenumbers.national_significant_number(example)}"
                assert word in classes_of(number), number
                own[region] = own.get(region, frozenset()) | classes_of(number)
    assert own.keys() == phonenumbers.SUPPORTED_REGIONS
    assert {region for region, classes in own.items() if region not in classes} == {"EH", "MF"}


@given(st.from_regex(r"[0-9]{3,15}", fullmatch=True), st.sampled_from([None, "RU", "US", "AU"]))
def test_every_number_has_classes_that_can_be_named(number: str, region: str | None) -> None:
    classes = classes_of(number, region)
    assert classes <= CLASSES | {"001"}  # what belongs to no country
    assert classes - phonenumbers.SUPPORTED_REGIONS - {"001"}
    assert ("short" in classes) == (len(number) <= 6)


@given(st.lists(st.sampled_from(["112", "7916*", "79680000000", "KZ", "mobile", "short", "*"])), st.data())
def test_a_set_has_what_any_of_its_words_has(words: list[str], data: st.DataObject) -> None:
    number = data.draw(st.sampled_from(["112", "79160000000", "79680000000", "77010000000", "74950000000", "7916"]))
    assert (number in NumberSet.parse(words)) == any(number in NumberSet.parse([word]) for word in words)
    split = data.draw(st.integers(0, len(words)))
    assert (number in NumberSet.parse(words)) == (
        number in NumberSet.parse(words[:split]) | NumberSet.parse(words[split:])
    )


@given(st.text())
def test_any_word_is_understood_or_named_in_a_value_error(word: str) -> None:
    with contextlib.suppress(ValueError):
        NumberSet.parse([word])
        return
    with pytest.raises(ValueError, match=f"^{re.escape(repr(word))} is no number"):
        NumberSet.parse([word])


def test_plain_words_look_nothing_up() -> None:
    """Ten thousand recipients are judged by a whitelist of numbers and prefixes as if there were no classes."""
    classes_of.cache_clear()
    numbers = NumberSet.parse(["112", "7916*"])
    assert [number in numbers for number in ("112", "79160000000", "79680000000")] == [True, True, False]
    assert classes_of.cache_info().currsize == 0


@pytest.mark.parametrize(
    ("number", "header"),
    [("112", "s112"), ("123456", "s123456"), ("1234567", "1234567"), ("79680000000", "79680000000")],
)
def test_as_smsd_s_header_has_it(number: str, header: str) -> None:
    """A short number has an ``s`` there, which no number of 7 digits needs."""
    assert spool_form(number) == header
    assert from_spool(header) == number


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("79680000000", "+79680000000"),
        ("+79680000000", "+79680000000"),
        ("0079680000000", "+79680000000"),
        ("+7 (968) 000-00-00", "+79680000000"),
        ("0123456789", "+0123456789"),
        ("s112", "112"),
        ("123456", "123456"),
        ("1234567", "+1234567"),
        ("Acme", "Acme"),
        ("Acme 24", "Acme 24"),
        ("٣٤٥٦٧٨٩٠", "٣٤٥٦٧٨٩٠"),
        ("", ""),
    ],
)
def test_as_the_apis_tell_it(written: str, number: str) -> None:
    """What is no number stays as it is."""
    assert e164(written) == number
