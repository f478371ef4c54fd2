"""One spool file: what is written is read back, and nothing that lies in a spool breaks the reader."""

from __future__ import annotations

import os
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


@given(st.sampled_from(["UTF-8", "UCS2", "GSM", "binary", "ISO", ""]), st.binary())
def test_any_body_is_a_text(alphabet: str, body: bytes) -> None:
    file.parse(f"Alphabet: {alphabet}\n\n".encode() + body).text.encode()


@pytest.mark.parametrize("value", ["a\nInclude: /etc/passwd", "a\rb", "a\x00", "\u2028", "\x85"])
def test_a_header_is_one_line(value: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        file.head(content("a", queue=value))


def test_the_gsm_alphabet_is_read() -> None:
    septets = b"".join(bytes([code]) for code in range(128) if code != 0x1B)
    assert file.parse(b"Alphabet: GSM\n\n" + septets).text == BASIC
    codes = (0x0A, 0x14, 0x28, 0x29, 0x2F, 0x3C, 0x3D, 0x3E, 0x40, 0x65)
    assert file.parse(b"Alphabet: GSM\n\n" + b"".join(bytes([0x1B, code]) for code in codes)).text == EXTENSION


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
