"""Which alphabet, how many parts: 3GPP TS 23.038, and what smsd does to texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsgw.text import BASIC, EXTENSION, foreign, measure

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
GSM_TEXTS = st.text(st.sampled_from(sorted(set(BASIC + EXTENSION) - {"¤"})), min_size=1, max_size=700)


def test_the_tables_are_whole() -> None:
    assert len(BASIC) == len(set(BASIC)) == 127  # and the escape
    assert len(EXTENSION) == len(set(EXTENSION)) == 10


@pytest.mark.parametrize(
    ("text", "alphabet", "units", "parts"),
    [
        ("Hi, Jack!", "GSM", 9, 1),
        ("a" * 160, "GSM", 160, 1),
        ("a" * 161, "GSM", 161, 2),
        ("a" * 306, "GSM", 306, 2),
        ("a" * 307, "GSM", 307, 3),
        ("€" * 80, "GSM", 160, 1),
        ("€" * 81, "UCS2", 81, 2),  # the 153rd septet is an escape
        ("a" * 152 + "€" + "a" * 7, "UCS2", 160, 3),
        ("a" * 151 + "€" + "a" * 8, "GSM", 161, 2),
        ("a" * 153 + "€" + "a" * 7, "GSM", 162, 2),
        ("a" * 305 + "€", "UCS2", 306, 5),
        ("a" * 39015, "GSM", 39015, 255),
        ("a" * 39016, "UCS2", 39016, 583),
        ("é" * 19507, "GSM", 19507, 128),
        ("é" * 19508, "UCS2", 19508, 292),  # smsd reads no more of it in UTF-8
        ("Ж" * 70, "UCS2", 70, 1),
        ("Ж" * 71, "UCS2", 71, 2),
        ("Ж" * 134, "UCS2", 134, 2),
        ("Ж" * 135, "UCS2", 135, 3),
        ("😀" * 35, "UCS2", 70, 1),
        ("😀" * 36, "UCS2", 72, 2),
        ("¤", "UCS2", 1, 1),  # smsd would make € of it
        ("`", "UCS2", 1, 1),
        ("\t", "UCS2", 1, 1),
        ("ç", "UCS2", 1, 1),
        ("Ç", "GSM", 1, 1),
        ("\x1b", "UCS2", 1, 1),
        ("\x00", "UCS2", 1, 1),
    ],
)
def test_measure(text: str, alphabet: str, units: int, parts: int) -> None:
    found = measure(text)
    assert (found.alphabet, found.units, found.parts) == (alphabet, units, parts)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Hi, Jack!", 151),
        ("a" * 160, 0),
        ("a" * 161, 145),
        ("a" * 306, 0),
        ("a" * 307, 152),
        ("€", 158),
        ("Ж", 69),
        ("Ж" * 70, 0),
        ("Ж" * 71, 63),
        ("Ж" * 134, 0),
        ("😀" * 36, 62),
    ],
)
def test_what_the_last_part_has_room_for(text: str, left: int) -> None:
    assert measure(text).left == left


@pytest.mark.parametrize(
    ("text", "found"), [("Hi, Jack!", ""), ("“Hi” – ЖЖ“", "“”–Ж"), ("a" * 152 + "€" + "a" * 7, ""), ("¤\t€", "¤\t")]
)
def test_what_keeps_a_text_out_of_gsm(text: str, found: str) -> None:
    assert foreign(text) == found


def test_a_lone_surrogate_is_no_text() -> None:
    with pytest.raises(UnicodeEncodeError):
        measure("\ud800")


@given(TEXTS)
def test_any_text_fits_into_its_parts(text: str) -> None:
    found = measure(text)
    single, several = {"GSM": (160, 153), "UCS2": (70, 67)}[found.alphabet]
    if found.parts == 1:
        assert 0 < found.units <= single
    else:
        assert found.units > single
        assert (found.parts - 1) * several < found.units <= found.parts * several


@given(GSM_TEXTS)
def test_no_part_ends_within_an_extension_character(text: str) -> None:
    septets = "".join("E." if character in EXTENSION else "." for character in text)
    found = measure(text)
    if found.alphabet == "GSM" and found.parts > 1:
        assert "E" not in septets[152::153]
    elif found.alphabet == "UCS2":
        assert len(septets) > 160
        assert "E" in septets[152::153]
