"""``limit``: a text that is too long is cut between two words, and ends with an ellipsis."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from smsgw.text import MAX_PARTS, measure
from smsgw_plugins.limit import cut

Make = Callable[..., Callable[..., Any]]

LOADED = {"smsgw.plugins": "htpasswd allow limit"}

FAMILY = "👨‍👩‍👧‍👦"  # one character to see, seven code points, eleven units of UTF-16


@pytest.mark.parametrize(
    ("text", "parts", "shortened"),
    [
        ("a" * 160, 1, "a" * 160),
        ("a" * 161, 1, "a" * 157 + "..."),
        ("a" * 306, 2, "a" * 306),
        ("a" * 307, 2, "a" * 303 + "..."),
        ("ж" * 70, 1, "ж" * 70),
        ("ж" * 71, 1, "ж" * 69 + "…"),
        ("ж" * 135, 2, "ж" * 133 + "…"),
        ("€" * 81, 1, "€" * 78 + "..."),
        ("word " * 33, 1, ("word " * 31).rstrip() + "..."),
        ("слово  " * 20, 1, ("слово  " * 10).rstrip() + "…"),
        # What would need UCS2 comes after the cut.
        ("word " * 31 + "слово", 1, ("word " * 31).rstrip() + "..."),
        # A word that is too long by itself is cut, others are not.
        ("See " + "a" * 200, 1, "See " + "a" * 153 + "..."),
        ("a" * 150 + " " + "b" * 100 + " c", 1, "a" * 150 + "..."),
        (FAMILY * 7, 1, FAMILY * 6 + "…"),
        ("e\u0301" * 40, 1, "e\u0301" * 34 + "…"),
        ("😀" * 36, 1, "😀" * 34 + "…"),
        ("🇩🇪" * 18, 1, "🇩🇪" * 17 + "…"),
        ("x" + "\u0301" * 100, 1, "..."),
        (" " * 200, 1, "..."),
        ("Hi" + " " * 200, 1, "Hi..."),
        ("[" * 77 + " x" * 10, 1, "[" * 77 + " x..."),
    ],
)
def test_where_it_is_cut(text: str, parts: int, shortened: str) -> None:
    assert cut(text, parts) == shortened
    assert measure(shortened).parts <= parts


def ending(beginning: str) -> str:
    return beginning + ("..." if measure(beginning + "...").alphabet == "GSM" else "…")


def longest(text: str, parts: int) -> str:
    """The same, by trying every place."""
    if measure(text).parts <= parts:
        return text
    words = [0, *(word.end() for word in re.finditer(r"\S+", text))]
    end = max(end for end in words if end == 0 or measure(ending(text[:end])).parts <= parts)
    after = re.match(r"(\s*)(\S*)", text[end:])
    assert after
    if after[2] and measure(ending(after[2])).parts > parts:
        begin = end + len(after[1])
        places = [begin + character.end() for character in regex.finditer(r"\X", after[2])]
        end = max([end, *(place for place in places if measure(ending(text[:place])).parts <= parts)])
    return ending(text[:end])


PIECES = [
    "a",
    "ab",
    " ",
    "  ",
    "\n",
    "\u00a0",
    "€",
    "[",
    "ä",
    "ж",
    "e\u0301",
    "😀",
    "👍🏽",
    FAMILY,
    "🇩🇪",
    "क्षि",
    "각",
    "¤",
]
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 160)), max_size=8).map(
    lambda pieces: "".join(piece * times for piece, times in pieces)
)


@given(TEXTS, st.integers(1, 3))
def test_it_is_the_longest_that_goes_out_in_so_many_parts(text: str, parts: int) -> None:
    found = cut(text, parts)
    assert measure(found).parts <= parts
    assert found == longest(text, parts)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.integers(1, 3))
def test_no_character_is_cut(text: str, parts: int) -> None:
    found = cut(text, parts)
    assert measure(found).parts <= parts
    if found != text:
        beginning = found.removesuffix("...").removesuffix("…")
        assert text.startswith(beginning)
        # An Arabic number sign holds on to the space after it, which ends a word all the same.
        assert len(beginning) in [0, *(c.end() for c in regex.finditer(r"\X", text))] or text[len(beginning)].isspace()


@pytest.mark.parametrize("piece", ["a", "€", "ж", "a ", "ж ", FAMILY])
def test_as_many_parts_as_there_can_be(piece: str) -> None:
    """Over 39,015 bytes no text goes out in the GSM alphabet."""
    for parts in (1, 254, MAX_PARTS):
        found = cut(piece * 50000, parts)
        assert measure(found).parts == parts
        assert measure(found).alphabet == measure(piece).alphabet or parts > 1


def test_through_http(make_trusting: Make) -> None:
    settings = {"smsgw.limit.parts": "2", "smsgw.limit.lines": "\n  lvv: 1\n  @alarms: 3\n  @night: 4"}
    send = make_trusting("limit", settings)
    text = "word " * 200
    for who, parts in (("ops", 2), ("lvv", 1), ("lvv @alarms", 1), ("ops @alarms", 3), ("ops @alarms @night", 4)):
        reply = send(who, text=text)
        assert reply["parts_count"] == parts
        assert reply["sent_text"].endswith("word...")
    assert send("lvv", text="Hi")["sent_text"] == "Hi"


def test_others_than_those_with_lines_are_not_cut(make_trusting: Make) -> None:
    send = make_trusting("limit", {"smsgw.limit.lines": "lvv: 1"})
    assert send("ops", text="a" * 161)["parts_count"] == 2
    assert send("lvv", text="a" * 161)["parts_count"] == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "set smsgw.limit.parts or smsgw.limit.lines"),
        ({"parts": "0"}, "smsgw.limit.parts: 0 is less than"),
        ({"parts": "256"}, "smsgw.limit.parts: 256 is greater than"),
        ({"lines": "lvv: 0"}, "smsgw.limit.lines has '0' for 'lvv'"),
        ({"lines": "lvv: 256"}, "smsgw.limit.lines has '256' for 'lvv'"),
        ({"lines": "lvv: 1 2"}, "smsgw.limit.lines has '1 2' for 'lvv'"),
        ({"lines": "lvv: ٣"}, "smsgw.limit.lines has '٣' for 'lvv'"),
        ({"lines": "*: 1"}, "set smsgw.limit.parts for everybody"),
    ],
)
def test_a_wrong_setting_stops_the_start(refusal: Callable[..., str], settings: dict[str, str], sentence: str) -> None:
    assert sentence in refusal(LOADED | {f"smsgw.limit.{name}": value for name, value in settings.items()})
