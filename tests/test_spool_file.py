"""One spool file: what is written is read back, and nothing that lies in a spool breaks the reader."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smsgw.model import Content, Options
from smsgw.spool import file
from smsgw.text import BASIC, EXTENSION, measure

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def content(text: str, queue: str | None = None) -> Content:
    encoding = measure(text)
    return Content("lvv", text, encoding.alphabet, encoding.parts, Options(queue=queue))


@given(TEXTS)
def test_a_text_is_read_as_it_was_written(text: str) -> None:
    found = file.parse(file.render("79680000000", file.head(content(text, queue="GSM1"))))
    assert found.text == text
    assert found.headers["To"] == "79680000000"
    assert found.headers["From"] == "lvv"
    assert found.headers["Queue"] == "GSM1"
    assert found.complete


@given(st.binary())
def test_any_bytes_are_a_file(junk: bytes) -> None:
    found = file.parse(junk)
    assert isinstance(found.text, str)
    found.text.encode()


@given(st.text())
@example("²")
@example("9" * 5000)
def test_any_length_is_a_length(written: str) -> None:
    found = file.parse(f"From: 79680000000\nLength: {written}\n\nHi".encode(errors="replace"))
    assert isinstance(found.whole, bool)


@given(st.sampled_from(["UTF-8", "UCS2", "GSM", "binary", "binary\nHex: yes", "ISO", ""]), st.binary())
def test_any_body_is_a_text(alphabet: str, body: bytes) -> None:
    file.parse(f"Alphabet: {alphabet}\n\n".encode() + body).text.encode()


@pytest.mark.parametrize(
    ("written", "body", "text"),
    [
        ("yes", b"C2A0 05\n00ff", "c2a00500ff"),
        ("1", b"c2a0", "c2a0"),
        ("no", b"C2", "4332"),
        ("yes", b"\xc2\xa0", "c2a0"),  # which it says, and is not
        ("yes", b"c2a", "633261"),
    ],
)
def test_binary_is_shown_as_digits_once(written: str, body: bytes, text: str) -> None:
    assert file.parse(f"Alphabet: binary\nHex: {written}\n\n".encode() + body).text == text


@pytest.mark.parametrize("value", ["a\nInclude: /etc/passwd", "a\rb", "a\x00", "\u2028", "\x85"])
def test_a_header_is_one_line(value: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        file.head(content("a", queue=value))


def test_the_gsm_alphabet_is_read() -> None:
    septets = b"".join(bytes([code]) for code in range(128) if code != 0x1B)
    assert file.parse(b"Alphabet: GSM\n\n" + septets).text == BASIC
    codes = (0x0A, 0x14, 0x28, 0x29, 0x2F, 0x3C, 0x3D, 0x3E, 0x40, 0x65)
    assert file.parse(b"Alphabet: GSM\n\n" + b"".join(bytes([0x1B, code]) for code in codes)).text == EXTENSION


@pytest.mark.parametrize(
    ("alphabet", "body", "text"),
    [
        ("", "Ä €".encode("iso-8859-15"), "Ä €"),
        ("ISO", b"\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a", "ΔΦΓΛΩΠΨΣΘΞ"),  # as smsd writes them
        ("utf-8", "Ж".encode(), "Ж"),
        ("UCS", "Ж😀".encode("utf-16-be"), "Ж😀"),
        ("ucs2", b"\x04\x16\xd8", "Ж\ufffd"),
        ("GSM", b"a\x1b\x01\x80\x1b", "a \ufffd\x1b"),
        ("Binary", b"\x00\xff", "00ff"),
    ],
)
def test_every_alphabet(alphabet: str, body: bytes, text: str) -> None:
    header = f"Alphabet: {alphabet}\n" if alphabet else "From: lvv\n"
    assert file.parse(header.encode() + b"\n" + body).text == text


@pytest.mark.parametrize(
    ("headers", "is_whole"),
    [
        *[(f"Length: {length}\n\n", length in (6, 3, 2)) for length in range(9)],  # bytes, UTF-16 units, characters
        ("\n", True),
        ("Length: many\n\n", True),
        ("Length: 1234567890\n\n", True),
        ("Length: 2\n", False),
    ],
)
def test_a_file_is_whole_where_it_is_as_long_as_it_says(headers: str, is_whole: bool) -> None:
    assert file.parse(f"Alphabet: UTF-8\n{headers}€€".encode()).whole is is_whole


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *[("m1", True), ("GSM1.ZTmYXZ", True), ("x" * 250, True), ("x" * 251, False), ("Ж" * 125, True)],
        *[("Ж" * 126, False), ("", False), (".m1", False), ("m1.LOCK", False), ("GSM1-concatenated", False)],
        *[("a/b", False), ("a\0b", False), ("\ud800", False)],
    ],
)
def test_which_names_messages_have(name: str, is_one: bool) -> None:
    assert file.is_message(name) is is_one


def test_all_options_are_headers() -> None:
    at = datetime(2026, 12, 1, 12, 30, tzinfo=timezone(timedelta(hours=3)))
    options = Options(queue="GSM1", flash=True, high_priority=True, validity=60, report=False, send_at=at)
    rest = file.head(Content("lvv", "Hi", "GSM", 1, options))
    assert file.render("112", rest, "order 17").decode() == (
        "To: s112\nX-Reference: order 17\nFrom: lvv\nAlphabet: UTF-8\nQueue: GSM1\nFlash: yes\nPriority: HIGH\n"
        "Validity: 60 min\nReport: no\nX-Send-At: 2026-12-01T09:30:00Z\n\nHi"
    )
    assert file.send_at(file.parse(rest).headers) == at
    with pytest.raises(ValueError, match="control character"):
        file.render("112", rest, "order\n17")


@pytest.mark.parametrize("written", [None, "", "tomorrow", "0001-01-01T00:00:00+14:00"])
def test_a_time_that_is_none(written: str | None) -> None:
    assert file.send_at({} if written is None else {file.SEND_AT: written}) is None


def test_line_ends_of_other_systems() -> None:
    found = file.parse(b"To: 911\r\nFrom: lvv\r\n\r\nHi\r\n")
    assert found.headers == {"To": "911", "From": "lvv"}
    assert found.body == b"Hi\r\n"


def test_headers_that_stand_twice() -> None:
    assert file.parse(b"From: lvv\nNOTICE: a\nNOTICE: b\nFrom: ops\n\n").headers == {
        "From": "lvv\nops",
        "NOTICE": "a\nb",
    }


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x" * 10)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert file.read(tmp_path / "real", 4)[0] == b"xxxx"
    for name in ("link", "pipe", "folder", "nothing"):
        with pytest.raises(FileNotFoundError):
            file.read(tmp_path / name)
