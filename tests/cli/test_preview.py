"""``smsgw preview`` and what ``smsgw.text`` says beside the measure of a text."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsgw.cli.output import visible
from smsgw.text import EXTENSION, foreign, measure
from tests.cli.conftest import Ini, executable, smsgw

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
ODD = st.text(st.sampled_from("ab€[Ж😀\x1b\n\t¤`“ "), min_size=1, max_size=400)


@given((TEXTS | ODD).filter(lambda text: text != "\r"))  # which is no text before a line break
def test_it_says_what_text_says(text: str) -> None:
    told = smsgw("preview", stdin=text + "\n").out
    found = measure(text.removesuffix("\r"))
    words = dict(line.split(maxsplit=1) for line in told.splitlines()[:4])
    assert words["alphabet"] == found.alphabet
    assert words["parts"].startswith(f"{found.parts}, of ")
    assert words["used"].startswith(f"{found.units} ")
    assert words["left"].startswith(f"{found.left} ")
    rows = re.findall(r"^U\+([0-9A-F]{4,6}) ", told, re.M)
    assert [chr(int(code, 16)) for code in rows] == list(foreign(text.removesuffix("\r")))
    assert all(character.isprintable() or character == "\n" for character in told)


@given(TEXTS | ODD)
def test_the_last_part_has_room_for_what_is_left_and_no_more(text: str) -> None:
    found = measure(text)
    assert found.left >= 0
    assert measure(text + "a" * found.left).parts == found.parts
    assert measure(text + "a" * (found.left + 1)).parts > found.parts


@given(TEXTS | ODD)
def test_foreign_characters_are_those_that_force_ucs2(text: str) -> None:
    characters = foreign(text)
    assert len(set(characters)) == len(characters)
    assert all(measure(character).alphabet == "UCS2" for character in characters)
    assert all(measure(character).alphabet == "GSM" for character in set(text) - set(characters))
    if measure(text).alphabet == "UCS2" and not characters:
        assert set(text) & set(EXTENSION) or len(text.encode()) > 39015


@given(TEXTS)
def test_nothing_that_a_terminal_obeys_is_visible(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert all(unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp") for character in shown)


def test_a_plain_text() -> None:
    assert smsgw("preview", "Hi, Jack!").out.splitlines() == [
        "alphabet  GSM",
        "parts     1, of 160 septets",
        "used      9 septets",
        "left      151 septets, in the last part",
    ]


def test_characters_by_name() -> None:
    told = smsgw("preview", "It’s\t5 Ж’ \x9f").out.splitlines()
    assert told[0] == "alphabet  UCS2"
    assert [line.split(maxsplit=1)[0] for line in told[-4:]] == ["U+2019", "U+0009", "U+0416", "U+009F"]
    assert "RIGHT SINGLE QUOTATION MARK" in told[-4]
    assert told[-3].endswith(r" \t")


def test_ucs2_for_a_cut() -> None:
    assert "smsd would cut one of" in smsgw("preview", "a" * 152 + "€" + "a" * 20).out


def test_as_a_gateway_makes_it(ini: Ini) -> None:
    path = ini(
        {
            "smsgw.plugins": "htpasswd allow transliterate signature",
            "smsgw.signature.lines": "lvv: Lev\n@alarms: Alarm centre",
        }
    )
    told = smsgw("preview", "--ini", path, "--user", "lvv", "It’s").out.splitlines()
    assert told[:2] == [r"text      It's\nLev", "alphabet  GSM"]
    told = smsgw("preview", "--ini", path, "--user", "ann", "--groups", "ops,@alarms", "It’s").out.splitlines()
    assert told[0] == r"text      It's\nAlarm centre"


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "said"),
    [
        ([""], b"", 2, "there is no text"),
        ([], b"", 2, "there is no text"),
        ([], b"\n", 2, "there is no text"),
        ([], b"caf\xe9", 2, "the text on stdin is not UTF-8"),
        ([], b"x" * (1024 * 1024 + 1), 2, "has over 1048576 bytes"),
        (["--user", "lvv", "Hi"], b"", 2, "--ini and --user go together"),
        (["--groups", "a", "Hi"], b"", 2, "--ini and --user go together"),
        (["--ini", "/nonexistent", "--user", "lvv", "Hi"], b"", 3, "there is no file '/nonexistent'"),
    ],
)
def test_what_is_no_text(arguments: list[str], stdin: bytes, status: int, said: str) -> None:
    told = smsgw("preview", *arguments, stdin=stdin)
    assert told.status == status
    assert said in told.err


def test_bytes_on_the_command_line_that_are_no_utf_8() -> None:
    told = executable("preview", b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert (told.status, told.out) == (2, "")
    assert "the text is not UTF-8" in told.err
