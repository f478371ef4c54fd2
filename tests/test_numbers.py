"""Numbers as they are written, compared, and shown to smsd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsgw.numbers import NumberPlan, from_spool, spool_form


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
